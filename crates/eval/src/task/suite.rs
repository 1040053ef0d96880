//! Suites: tasks that are evaluated together.

use super::Protocol;

/// Tasks that are evaluated together.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its tasks, in the order of the published tables.
    pub tasks: &'static [&'static str],
    /// Its prompts and metrics.
    pub protocol: Protocol,
    /// What is published and cannot be evaluated here, and why.
    pub without: &'static [(&'static str, &'static str)],
}

/// All suites.
static SUITES: [Suite; 1] = [Suite {
    name: "llama-paper",
    about: "the tables of the LLaMA paper (Touvron et al. 2023)",
    tasks: &[
        "boolq",
        "piqa",
        "social_iqa",
        "hellaswag",
        "winogrande",
        "arc_easy",
        "arc_challenge",
        "openbookqa",
        "nq_open",
        "triviaqa",
        "race_middle",
        "race",
        "hendrycks_math",
        "gsm8k_cot",
        "humaneval",
        "mbpp",
        "mmlu",
        "realtoxicityprompts",
        "crows_pairs",
        "winogender",
        "truthfulqa_gen",
    ],
    protocol: Protocol::Paper,
    without: &[(
        "the verdicts on TruthfulQA",
        "they come from fine-tuned models that are not public; truthfulqa_gen compares answers by BLEU and ROUGE",
    )],
}];

impl Suite {
    /// The names of all suites.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SUITES.iter().map(|suite| suite.name)
    }

    /// The suite with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SUITES.iter().find(|suite| suite.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Task;

    #[test]
    fn every_task_of_a_suite_exists_under_its_protocol() {
        for suite in &SUITES {
            for name in suite.tasks {
                Task::named(name).unwrap().under(suite.protocol).unwrap();
            }
        }
    }
}
