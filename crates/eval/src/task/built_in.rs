//! The built-in tasks.

/// Pairs of a name and the text of `data/tasks/NAME.toml`.
macro_rules! tasks {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../data/tasks/", $name, ".toml")))),*]
    };
}

pub(super) const TASKS: &[(&str, &str)] = tasks![
    "piqa",
    "social_iqa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
    "boolq",
    "mmlu",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "truthfulqa_gen",
    "crows_pairs",
    "winogender",
    "gsm8k",
    "gsm8k_cot",
    "gsm8k_cot_self_consistency",
    "nq_open",
    "triviaqa",
    "race",
    "race_middle",
    "hendrycks_math",
    "math_500",
    "bbh",
    "humaneval",
    "humaneval_instruct",
    "mbpp",
    "mbpp_instruct",
    "ifeval",
    "realtoxicityprompts",
    "user_oriented",
];
