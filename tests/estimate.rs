//! What `simmer estimate` says, against what runs take.

use serde_json::Value;

use crate::commands::simmer;
use crate::training::Kitchen;

/// The shapes of models: hidden and intermediate size, layers, query and key heads of 64, vocabulary.
const SHAPES: [[usize; 6]; 3] = [
    [384, 1024, 6, 6, 2, 1536],
    [512, 1408, 4, 8, 8, 1536],
    [256, 1024, 8, 4, 4, 16000],
];

/// A recipe on random weights, and how its runs are set.
pub(crate) fn recipe(shape: [usize; 6], settings: &str) -> String {
    let [hidden, inner, layers, queries, keys, vocab] = shape;
    let root = env!("CARGO_MANIFEST_DIR");
    format!(
        "device = 'cpu'\n[base]\ntokenizer = '{root}/data/tiny-base'\n\
         init = {{ vocab_size = {vocab}, hidden_size = {hidden}, intermediate_size = {inner}, num_hidden_layers = {layers}, \
         num_attention_heads = {queries}, num_key_value_heads = {keys}, head_dim = 64, rms_norm_eps = 1e-5, \
         max_position_embeddings = 1024, tie_word_embeddings = true, eos_token_id = [2] }}\n\
         {settings}\n\
         [data]\ntrain = [{{ path = '{root}/data/kitchen/instructions.json', template = 'alpaca' }}]\n"
    )
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(text).into_owned();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn the_peak_is_as_estimated() {
    // enough rows for the activations to be most of the peak, few enough for the whole test to take seconds
    let train =
        "[train]\nbatch_size = 24\nmax_steps = 2\nlearning_rate = 1e-3\nvalidate_every = 'never'\n";
    let lora = "[method.lora]\nrank = 8\n";
    let cases = [
        (0, format!("{lora}\n{train}micro_batch_tokens = 2048")),
        (
            0,
            format!("{lora}targets = 'all-linear'\n{train}share_prefixes = false"),
        ),
        (
            1,
            format!(
                "{lora}targets = 'all-linear'\n{train}share_prefixes = false\nrecompute = 'layer'"
            ),
        ),
        (
            1,
            format!(
                "{lora}targets = 'all-linear'\n{train}share_prefixes = false\nrecompute = 'mlp'"
            ),
        ),
        (0, format!("{lora}\n{train}recompute = 'mlp'")),
        (
            1,
            format!(
                "[method.adaption_prompt]\nadapter_layers = 3\n{train}micro_batch_tokens = 2048"
            ),
        ),
        (0, format!("[method.ia3]\n{train}micro_batch_tokens = 2048")),
        (
            1,
            format!("[method.ia3]\ntargets = 'all-linear'\n{train}share_prefixes = false"),
        ),
        (
            0,
            format!("{lora}targets = 'all-linear'\nuse_dora = true\n{train}share_prefixes = false"),
        ),
        (
            0,
            format!(
                "{lora}targets = 'all-linear'\ninit_lora_weights = 'olora'\n{train}share_prefixes = false"
            ),
        ),
        (
            1,
            format!("{lora}use_dora = true\ndropout = 0.1\n{train}micro_batch_tokens = 1024"),
        ),
        (
            1,
            format!("{lora}dropout = 0.1\n{train}micro_batch_tokens = 1024"),
        ),
        (
            1,
            format!("[method.full]\n{train}micro_batch_tokens = 2048"),
        ),
        (
            2,
            format!(
                "precision = 'bf16'\n{lora}targets = ['gate_proj', 'up_proj', 'down_proj']\n{train}"
            ),
        ),
    ];
    for (shape, settings) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("r.toml"),
            recipe(SHAPES[shape], &settings),
        )
        .unwrap();
        let run = |args: &[&str]| {
            let output = simmer(folder.path(), args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            output.stdout
        };
        let expected = &lines(&run(&["estimate", "r.toml", "--rate", "1", "--json"]))[0];
        run(&["train", "r.toml", "--out", "run"]);
        let metrics = std::fs::read(folder.path().join("run/metrics.jsonl")).unwrap();
        let peaks = lines(&metrics);
        let peaks = peaks.iter().filter_map(|step| step["peak_memory"].as_f64());
        let measured = peaks.fold(0.0, f64::max);
        let ratio = expected["peak"].as_f64().unwrap() / measured;
        assert!(
            (0.9..1.1).contains(&ratio),
            "{ratio:.3} of {:.1} MiB: {settings}\n{expected}",
            measured / f64::from(1 << 20)
        );
    }
}

#[test]
fn a_run_that_does_not_fit_says_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[method.lora]\n[train]\nbatch_size = 64\nmax_steps = 2\nlearning_rate = 1e-3\nshare_prefixes = false";
    std::fs::write(folder.path().join("r.toml"), recipe(SHAPES[0], settings)).unwrap();
    let estimate = |memory: &str, more: &[&str]| {
        let args = ["estimate", "r.toml", "--rate", "1", "--memory", memory];
        let output = simmer(folder.path(), &[&args, more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    };
    assert_eq!(estimate("4GiB", &[]).0, 0);
    let (code, said) = estimate("300MiB", &[]);
    assert_eq!(code, 1);
    // how much more has to change depends on what the libraries of this build take
    assert!(
        said.starts_with("error: the run does not fit in memory; it would with train."),
        "{said}"
    );
    assert!(
        said.trim().ends_with(r#"train.recompute = "layer""#),
        "{said}"
    );
    let (code, said) = estimate("20MiB", &[]);
    assert_eq!(code, 1);
    insta::assert_snapshot!(said.trim(), @"
    error: the run does not fit in memory with any train.micro_batch_tokens and train.recompute
    hint: shorten the rows (data.max_tokens), close other programs, or use a device with more memory
    ");
    let auto = ["--set", "train.micro_batch_tokens=auto"];
    let (code, said) = estimate("300MiB", &auto);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn what_fitted_when_a_run_began_is_what_it_goes_on_with() {
    let kitchen = Kitchen::new();
    let auto = [
        "train.micro_batch_tokens=auto",
        "data.lint.warn=[\"duplicates\"]",
    ];
    kitchen.train(&auto, "run", false).unwrap();
    let recipe = std::fs::read_to_string(kitchen.path("run/recipe.toml")).unwrap();
    assert!(recipe.contains("micro_batch_tokens = 16384"), "{recipe}");
    // and lint decides nothing but whether a run begins
    kitchen.train(&auto[..1], "run", true).unwrap();
}
