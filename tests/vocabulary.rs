//! Tokens that a recipe adds: their rows, and how they travel with adapters and models.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use serde_json::Value;
use simmer_checkpoint::numbers::convert;
use simmer_checkpoint::{Checkpoint, Dtype, ModelConfig};
use simmer_data::{Steps, Tokenizer};
use simmer_model::adapter::combine::WeightedAdapter;
use simmer_model::base::{self, BaseConfig};
use simmer_model::merge::{MergeOptions, merge};
use simmer_model::{KvCache, LlamaForCausalLM, Sampling, Sequence, adapter};
use simmer_train::estimate::{Known, estimate};
use simmer_train::{Outcome, Resume, TrainError, recipe_vocabulary, train};

use crate::commands::simmer;
use crate::golden::{self, Tensors};
use crate::training::{Kitchen, Notices, StopAfter, quoted};

/// Rows of the tiny models' embeddings.
const VOCAB: usize = 104;
const ADD: &str = r#"base.add_special_tokens=["<|im_start|>", "<|im_end|>"]"#;
/// The rows spell out tokens, also where a run adds none.
const MEANT: &str = r#"data.lint.allow=["special_tokens", "doubled_end"]"#;
const MODELS: [&str; 2] = ["tied-gqa", "untied-mha"];
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Trains on rows with the new tokens; the folder of the weights, and what was said.
fn trained(
    kitchen: &Kitchen,
    model: &str,
    sets: &[&str],
    run: &str,
) -> Result<(PathBuf, Vec<String>), TrainError> {
    let rows = r#"{"prompt": "<|im_start|>soup? ", "completion": "heat.<|im_end|>"}"#;
    fs::write(kitchen.path("rows.jsonl"), [rows; 9].join("\n")).unwrap();
    let path = format!("base.path={}", quoted(&golden::folder(model)));
    // the same on every processor, with the same notices
    let f32 = "base.compute=f32";
    let sets: Vec<&str> = [path.as_str(), f32, "train.max_steps=3", MEANT]
        .iter()
        .chain(sets)
        .copied()
        .collect();
    let mut notices = Notices::default();
    let go = AtomicBool::new(false);
    let out = kitchen.path(run);
    let outcome = train(
        &kitchen.recipe(&sets),
        &out,
        Resume::Never,
        &mut notices,
        &go,
    )?;
    let Outcome::Finished { weights, .. } = outcome else {
        panic!("{outcome:?}");
    };
    Ok((weights, notices.0))
}

fn model(name: &str, adapter: Option<&Path>) -> LlamaForCausalLM {
    let base = BaseConfig::from_path(golden::folder(name));
    let base = base::load(&base, 0, &golden::device()).unwrap();
    match adapter {
        Some(folder) => adapter::load(base, folder).unwrap().model.valid(),
        None => base.valid(),
    }
}

fn logits(model: &LlamaForCausalLM, ids: &[u32]) -> Vec<f32> {
    let hidden = model.hidden(&Sequence::from_rows(&[ids]), None);
    model.logits(hidden).into_data().iter::<f32>().collect()
}

/// A tensor's rows as f32, and its dtype.
fn rows(checkpoint: &Checkpoint, name: &str) -> (Vec<Vec<f32>>, Dtype) {
    let tensor = checkpoint.tensor(name).unwrap();
    let numbers: Vec<f32> = convert(&tensor.bytes, tensor.dtype, Dtype::F32)
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let rows = numbers.chunks_exact(tensor.shape[1]).map(<[f32]>::to_vec);
    (rows.collect(), tensor.dtype)
}

/// A number as it is stored.
fn rounded(number: f32, dtype: Dtype) -> f32 {
    let stored = convert(&number.to_le_bytes(), Dtype::F32, dtype);
    let wide = convert(&stored, dtype, Dtype::F32);
    f32::from_le_bytes(wide.try_into().unwrap())
}

/// What a matrix with new rows should be.
fn with_means(before: &[Vec<f32>], new: usize, dtype: Dtype) -> Vec<Vec<f32>> {
    let mean = |column: usize| {
        let sum: f64 = before.iter().map(|row| f64::from(row[column])).sum();
        rounded((sum / before.len() as f64) as f32, dtype)
    };
    let mean: Vec<f32> = (0..before[0].len()).map(mean).collect();
    [before, &vec![mean; new]].concat()
}

#[test]
fn new_rows_are_trained_and_lie_beside_the_adapter() {
    for name in MODELS {
        let kitchen = Kitchen::new();
        let (adapter, notices) = trained(&kitchen, name, &[ADD], "run").unwrap();
        assert_eq!(
            notices,
            [
                "added to the tokenizer: <|im_start|> (104), <|im_end|> (105); embedding and head \
                 get 106 rows; the new ones start as the mean of the others",
                "vLLM does not take this adapter: it has rows of single tokens; it adds tokens to the vocabulary; \
                 merged into its base model, it does",
                "llama.cpp does not take this adapter: it has rows of single tokens; it adds tokens to the \
                 vocabulary; merged into its base model, it does",
            ]
        );
        let stored = Tensors::open(adapter.join("adapter_model.safetensors"));
        let outside = stored.names_after("base_model.model.");
        let outside = outside.iter().filter(|name| !name.contains("layers."));
        let ends = match name {
            "tied-gqa" => vec!["model.embed_tokens"],
            _ => vec!["lm_head", "model.embed_tokens"],
        };
        let expected = ends.iter().map(|end| format!("{end}{}", adapter::ROWS));
        assert!(outside.eq(&expected.collect::<Vec<_>>()), "{name}");
        let base = Checkpoint::open(golden::folder(name)).unwrap();
        let out = kitchen.path("merged");
        let report = merge(
            &golden::folder(name),
            &[WeightedAdapter::whole(&adapter)],
            &out,
            MergeOptions::default(),
            &mut |_, _| (),
        )
        .unwrap();
        assert!(report.resized.is_some() && !report.untied);
        let merged = Checkpoint::open(&out).unwrap();
        for end in [EMBEDDING, HEAD] {
            if base.contains(end) {
                let (before, dtype) = rows(&base, end);
                let (after, dtype_after) = rows(&merged, end);
                assert_eq!(dtype_after, dtype);
                assert_eq!(after[..VOCAB], before, "{name} {end}");
                let mean = &with_means(&before, 1, dtype)[VOCAB];
                assert!(after[VOCAB..].iter().all(|row| row != mean), "{name} {end}");
                assert_eq!(after.len(), VOCAB + 2);
            }
        }
        // base, adapter and tokenizer make the merged model
        let config: Value = golden::json(out.join("config.json"));
        assert_eq!(config["vocab_size"], VOCAB + 2);
        let tokenizer = Tokenizer::from_folder(&out).unwrap();
        let ids = tokenizer.encode("<|im_start|>soup<|im_end|>").unwrap().ids;
        assert_eq!((ids[0], ids.last()), (104, Some(&105)));
        let merged = base::load(&BaseConfig::from_path(&out), 0, &golden::device()).unwrap();
        let [apart, together] =
            [&model(name, Some(&adapter)), &merged].map(|model| logits(model, &ids));
        let difference = golden::max_difference(&apart, &together);
        // merged weights of the second model are rounded to bf16
        let bound = if name == "tied-gqa" { 1e-4 } else { 0.2 };
        assert!(difference < bound, "{name}: {difference}");
        // and the program finds them all
        let [base, adapter] =
            [golden::folder(name), adapter].map(|path| path.display().to_string());
        let args = [
            "score",
            "--base",
            &base,
            "--adapter",
            &adapter,
            "--text",
            "<|im_end|>a",
            "--json",
        ];
        let output = simmer(Path::new("."), &args);
        assert!(output.status.success(), "{output:?}");
        let score: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ids = score["ids"].as_array().unwrap();
        assert_eq!(ids[ids.len() - 2], 105, "{score}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("has an embedding of 106 rows, the base model has 104"),
            "{said}"
        );
    }
}

#[test]
fn rows_are_trained_where_the_recipe_says_so_and_runs_go_on() {
    for name in MODELS {
        let kitchen = Kitchen::new();
        let save = r#"method.lora.modules_to_save=["embed_tokens", "lm_head"]"#;
        let (adapter, notices) = trained(&kitchen, name, &[ADD, save], "run").unwrap();
        // and the two programs that do not take it
        assert_eq!(notices.len(), 3, "{notices:?}");
        let tensors = Tensors::open(adapter.join("adapter_model.safetensors"));
        for end in [EMBEDDING, HEAD] {
            let values = tensors.f32(&format!("base_model.model.{end}"));
            let hidden = values.len() / (VOCAB + 2);
            let rows: Vec<&[f32]> = values.chunks_exact(hidden).collect();
            assert_ne!(rows[VOCAB], rows[VOCAB + 1], "{name} {end}");
        }
        // begun anew with the adapter: its tokenizer, its rows
        let from = format!("method={{ lora = {{ from = {} }} }}", quoted(&adapter));
        let (again, notices) = trained(&kitchen, name, &[ADD, &from], "again").unwrap();
        assert_eq!(notices.len(), 6, "{notices:?}");
        assert!(
            notices[0]
                .ends_with("using the adapter's tokenizer (106 tokens, the base model's has 104)")
        );
        assert_eq!(
            notices[1],
            "`<|im_start|>` already exists in the tokenizer (id 104)"
        );
        assert!(again.join("tokenizer.json").is_file());
        assert_eq!(model(name, Some(&again)).config().vocab_size, VOCAB + 2);
        let more = r#"base.add_tokens=["soup"]"#;
        let error = trained(&kitchen, name, &[more, &from], "more").unwrap_err();
        assert!(
            matches!(&error, TrainError::TwoVocabularies { token, .. } if token == "soup"),
            "{error}"
        );
    }
}

#[test]
fn a_whole_model_has_the_new_rows_and_their_tokenizer() {
    for name in MODELS {
        let kitchen = Kitchen::new();
        let full = "method={ full = {} }";
        let pad = r#"base.pad_token="[PAD]""#;
        let (folder, notices) = trained(&kitchen, name, &[full, pad], "run").unwrap();
        assert_eq!(notices.len(), 1, "{notices:?}");
        let model = base::load(&BaseConfig::from_path(&folder), 0, &golden::device()).unwrap();
        assert_eq!(model.config().vocab_size, VOCAB + 1);
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        assert_eq!(tokenizer.token_id("[PAD]"), Some(104));
        assert_eq!(tokenizer.specials()["pad_token"], "[PAD]");
        assert!(folder.join("generation_config.json").is_file());
    }
}

#[test]
fn spare_rows_are_taken() {
    let kitchen = Kitchen::new();
    // a tokenizer without the last merge
    let tokenizer = kitchen.path("tokenizer");
    fs::create_dir(&tokenizer).unwrap();
    let source = golden::folder("tied-gqa");
    fs::copy(
        source.join("tokenizer_config.json"),
        tokenizer.join("tokenizer_config.json"),
    )
    .unwrap();
    let mut json: Value = golden::json(source.join("tokenizer.json"));
    json["model"]["vocab"].as_object_mut().unwrap().remove("an");
    json["model"]["merges"].as_array_mut().unwrap().pop();
    fs::write(tokenizer.join("tokenizer.json"), json.to_string()).unwrap();
    let path = format!("base.tokenizer={}", quoted(&tokenizer));
    let sets = [path.as_str(), r#"base.add_tokens=["soup"]"#];
    let (adapter, notices) = trained(&kitchen, "tied-gqa", &sets, "run").unwrap();
    assert_eq!(
        notices[0],
        "added to the tokenizer: soup (103); they use spare rows of embedding and head, which start \
         as the mean of the other tokens' rows"
    );
    let tuned = adapter::load(model("tied-gqa", None), &adapter).unwrap();
    assert_eq!(tuned.resized, None);
    let opened = adapter::peft::AdapterFolder::open(&adapter).unwrap();
    assert_eq!(opened.tokenizer_path(), Some(adapter.as_path()));
    let tensors = Tensors::open(adapter.join("adapter_model.safetensors"));
    let (before, dtype) = rows(&Checkpoint::open(&source).unwrap(), EMBEDDING);
    let mean = with_means(&before[..VOCAB - 1], 1, dtype)[VOCAB - 1].clone();
    let row = tensors.f32(&format!(
        "base_model.model.model.embed_tokens{}",
        adapter::ROWS
    ));
    // three steps of at most the learning rate
    assert!(golden::max_difference(&row, &mean) < 0.02);
    assert_ne!(row, mean);
}

/// The head is not tied: without its new rows, the model could not produce the tokens.
#[test]
fn an_untied_model_learns_to_emit_a_new_token() {
    let kitchen = Kitchen::new();
    let sets = [
        ADD,
        "train.max_steps=80",
        "train.epochs=200",
        "train.learning_rate=3e-2",
        "method.lora.dropout=0.0",
    ];
    let (adapter, _) = trained(&kitchen, "untied-mha", &sets, "run").unwrap();
    let size = fs::metadata(adapter.join("adapter_model.safetensors"))
        .unwrap()
        .len();
    assert!(size < 32 << 10, "{size} bytes");
    let tokenizer = Tokenizer::from_folder(&adapter).unwrap();
    let ids = tokenizer.encode("<|im_start|>soup? heat.").unwrap().ids;
    let logits = logits(&model("untied-mha", Some(&adapter)), &ids);
    let last = &logits[logits.len() - (VOCAB + 2)..];
    let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b]));
    assert_eq!(best, Some(105));
}

#[test]
fn a_stopped_run_with_new_tokens_goes_on() {
    let kitchen = Kitchen::new();
    let save = r#"method.lora.modules_to_save=["embed_tokens"]"#;
    let expected = kitchen.whole(&[ADD, save], "whole");
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        step: 3,
        in_validation: false,
        stop: &stop,
    };
    let (recipe, out) = (kitchen.recipe(&[ADD, save]), kitchen.path("stopped"));
    train(&recipe, &out, Resume::Never, &mut observer, &stop).unwrap();
    let checkpoint = out.join("checkpoints/step-000003/adapter");
    assert_eq!(
        model("tied-gqa", Some(&checkpoint)).config().vocab_size,
        VOCAB + 2
    );
    let other = r#"base.add_special_tokens=["<|im_start|>"]"#;
    let error = kitchen.train(&[other, save], "stopped", true).unwrap_err();
    assert!(
        error.to_string().contains("base.add_special_tokens"),
        "{error}"
    );
    kitchen.train(&[ADD, save], "stopped", true).unwrap();
    assert!(kitchen.adapter("stopped") == expected);
}

#[test]
fn rows_that_cannot_be_trained_are_refused() {
    let kitchen = Kitchen::new();
    for (value, expected) in [
        (
            "trainable_token_indices=[3, 500]",
            "token 500 is outside the vocabulary of `model.embed_tokens`, whose last token is 103",
        ),
        (
            "trainable_token_indices=[3, 3]",
            "duplicate token 3 for `model.embed_tokens`",
        ),
        (
            "trainable_token_indices={ foo = [1] }",
            "`foo` is neither the embedding nor the output head of the model",
        ),
    ] {
        let set = format!("method.lora.{value}");
        let base = format!("base.path={}", quoted(&golden::folder("untied-mha")));
        let go = AtomicBool::new(false);
        let out = kitchen.path("run");
        let error = match kitchen.try_recipe(&[&base, &set]) {
            Err(error) => error.to_string(),
            Ok(recipe) => train(&recipe, &out, Resume::Never, &mut Notices::default(), &go)
                .unwrap_err()
                .to_string(),
        };
        assert!(error.contains(expected), "{value}: {error}");
    }
}

#[test]
fn rows_of_a_file_are_those_that_its_configuration_names() {
    let kitchen = Kitchen::new();
    let name = "untied-mha";
    let rows = "method.lora.trainable_token_indices=[3, 5]";
    let (adapter, _) = trained(&kitchen, name, &[rows], "run").unwrap();
    let file = adapter.join("adapter_config.json");
    let config = fs::read_to_string(&file).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    for (indices, expected) in [
        (
            serde_json::json!({"embed_tokens": [3, 5, 7], "lm_head": [3, 5]}),
            "embed_tokens.token_adapter.trainable_tokens_delta: expected [3, 32], found [2, 32]",
        ),
        (
            serde_json::json!({"embed_tokens": [3, 5]}),
            "lm_head.token_adapter.trainable_tokens_delta: unexpected, found [2, 32]",
        ),
        (
            serde_json::json!({"embed_tokens": [3, 500], "lm_head": [3, 5]}),
            "the base model lacks token 104",
        ),
    ] {
        config["trainable_token_indices"] = indices;
        fs::write(&file, config.to_string()).unwrap();
        let base = BaseConfig::from_path(golden::folder(name));
        let base = base::load(&base, 0, &golden::device()).unwrap();
        let error = adapter::load(base, &adapter).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rows_of_quantised_embeddings_are_trained() {
    let folder = tempfile::tempdir().unwrap();
    // whose embedding is quantised as well
    let gguf = folder.path().join("q8.gguf");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tiny-base");
    let [from, gguf] = [&from, &gguf].map(|path| path.to_str().unwrap());
    let args = ["convert", from, gguf, "--dtype", "q8_0"];
    assert!(simmer(Path::new("."), &args).status.success());
    for (base, precision, first) in [
        (golden::folder("untied-mha"), "nf4", 104),
        (golden::folder("tied-gqa"), "int8", 104),
        // whose vocabulary is padded
        (gguf.into(), "", 1445),
    ] {
        let kitchen = Kitchen::new();
        let path = format!("base.path={}", quoted(&base));
        let precision = match precision {
            "" => format!("base.tokenizer={}", quoted(from.as_ref())),
            name => format!("base.precision={name}"),
        };
        let rows = r#"{"prompt": "<|one|>soup?", "completion": " heat.<|two|>"}"#;
        fs::write(kitchen.path("rows.jsonl"), [rows; 9].join("\n")).unwrap();
        let sets = [
            path.as_str(),
            &precision,
            r#"base.add_special_tokens=["<|one|>", "<|two|>"]"#,
            MEANT,
            "train.epochs=4",
            "data.validation.rows=1",
        ];
        let whole = kitchen.whole(&sets, "whole");
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            step: 3,
            in_validation: false,
            stop: &stop,
        };
        let (recipe, out) = (kitchen.recipe(&sets), kitchen.path("run"));
        train(&recipe, &out, Resume::Never, &mut observer, &stop).unwrap();
        kitchen.train(&sets, "run", true).unwrap();
        assert!(kitchen.adapter("run") == whole, "{precision}");

        let loaded = base::load(&recipe.base, 0, &golden::device()).unwrap();
        let adapter = kitchen.path("run/adapter");
        let tuned = adapter::load(loaded, &adapter).unwrap().model.valid();
        // the two rows start as the same mean, and differ only as they were trained
        let both = [first, first + 1].map(|token| logits(&tuned, &[token, 9]));
        assert!(both.iter().flatten().all(|logit| logit.is_finite()));
        assert_ne!(both[0], both[1], "{precision}");
        let mut cache = KvCache::default();
        let answer = tuned.generate(
            &[first, 30],
            &mut cache,
            4,
            &[],
            &Sampling::default(),
            &mut |_| ControlFlow::Continue(()),
        );
        assert_eq!(answer.unwrap().tokens.len(), 4);
    }
}

#[test]
fn an_estimate_counts_the_rows_of_added_tokens() {
    let kitchen = Kitchen::new();
    let trained = |sets: &[&str], base: Option<ModelConfig>| {
        let mut recipe = kitchen.recipe(sets);
        if base.is_some() {
            recipe.base.tokenizer = recipe.base.path.take();
        }
        recipe.base.init = base;
        let mut base = recipe.base.open().unwrap();
        let notices = &mut Notices::default();
        let tokenizer = recipe_vocabulary(&mut recipe, &mut base, notices).unwrap();
        let steps = Steps {
            batch_size: 4,
            seed: 5,
        };
        let (mut data, _) = simmer_lint::load(&recipe.data, &tokenizer, steps).unwrap();
        let found = estimate(&recipe, &base, &tokenizer, &mut data, Known::default()).unwrap();
        (found.parts.trained / 4, found.parts.weights)
    };
    let [(plain, weights), (added, more)] = [trained(&[], None), trained(&[ADD], None)];
    // a tied head trains the embedding's rows; frozen, both have them too
    assert_eq!(added - plain, 2 * 32);
    assert_eq!(more - weights, 2 * 32 * 4);
    // of a published size, with another vocabulary than the tokenizer's
    let other = simmer_checkpoint::sizes::named("llama-7b");
    let small = other.map(|size| ModelConfig {
        vocab_size: 50,
        ..size
    });
    let (plain, _) = trained(&[], small.clone());
    let (added, _) = trained(&[ADD], small);
    assert_eq!(added - plain, 2 * 2 * 4096);
}
