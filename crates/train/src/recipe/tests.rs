use super::*;

const MINIMAL: &str = r#"
[base]
path = "base"

[method.lora]

[data]
train = [{ path = "rows.json", template = "alpaca" }]

[train]
epochs = 1
batch_size = 4
learning_rate = 1e-4
"#;

fn parse(text: &str, sets: &[&str]) -> Result<Recipe, RecipeError> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Recipe::parse(Path::new("r.toml"), text, &sets)
}

/// What is said of the minimal recipe with `find` replaced.
fn said(find: &str, replacement: &str) -> String {
    assert!(MINIMAL.contains(find));
    error(&parse(&MINIMAL.replacen(find, replacement, 1), &[]).unwrap_err())
}

fn said_of_set(set: &str) -> String {
    error(&parse(MINIMAL, &[set]).unwrap_err())
}

fn error(error: &RecipeError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

#[test]
fn resolved_says_everything_and_parses_to_the_same() {
    let full = r#"
device = "cpu"
[base]
tokenizer = "tok"
[base.init]
vocab_size = 64
hidden_size = 8
intermediate_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 4
[method.full]
precision = "bf16"
[data]
train = [{ path = "a.json", template = "alpaca", format = "alpaca" }, { path = "b", template = "chat" }]
validation = { files = [{ path = "v.json", template = "chat" }] }
[train]
max_steps = 7
batch_size = 2
learning_rate = 3
schedule = "constant"
clip = "none"
validate_every = { steps = 2 }
early_stop = { patience = 3 }
weights = "best"
"#;
    for text in [MINIMAL, full] {
        let recipe = parse(text, &[]).unwrap();
        let resolved = recipe.resolved();
        assert_eq!(parse(&resolved, &[]).unwrap(), recipe, "{resolved}");
        assert_eq!(parse(&resolved, &[]).unwrap().resolved(), resolved);
    }
    insta::assert_snapshot!(parse(MINIMAL, &[]).unwrap().resolved(), @"");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    insta::assert_snapshot!(said("epochs", "epoch"), @"");
    insta::assert_snapshot!(said("learning_rate", "lr"), @"");
    insta::assert_snapshot!(said("[method.lora]", "[method.lora]\nlora_alpha = 3"), @"");
    insta::assert_snapshot!(said("[train]", "[trian]"), @"");
    insta::assert_snapshot!(said("template =", "templte ="), @"");
}

#[test]
fn an_unknown_choice_is_named_with_the_nearest() {
    insta::assert_snapshot!(said("[method.lora]", "[method.lroa]"), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nschedule = \"cosin\""), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nschedule = { cosin = {} }"), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nvalidate_every = \"step\""), @"");
    insta::assert_snapshot!(said("path = \"base\"", "path = \"base\"\nprecision = \"fp16\""), @"");
}

#[test]
fn a_wrong_type_says_what_was_expected_and_found() {
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = \"4\""), @"");
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = -4"), @"");
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = 4.5"), @"");
    insta::assert_snapshot!(said("1e-4", "true"), @"");
    insta::assert_snapshot!(said("[{ path = \"rows.json\", template = \"alpaca\" }]", "\"rows.json\""), @"");
    insta::assert_snapshot!(said("[method.lora]", "[method.lora]\ntargets = 7"), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\noptimizer = 3"), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nschedule = 3"), @"");
}

#[test]
fn what_is_missing_is_named() {
    insta::assert_snapshot!(said("batch_size = 4", ""), @"");
    insta::assert_snapshot!(said("[method.lora]", ""), @"");
    insta::assert_snapshot!(said(", template = \"alpaca\"", ""), @"");
}

#[test]
fn toml_that_is_none_is_said() {
    insta::assert_snapshot!(said("epochs = 1", "epochs = "), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nepochs = 2"), @"");
}

#[test]
fn combinations_that_cannot_be_are_named() {
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = 0"), @"");
    insta::assert_snapshot!(said("1e-4", "0"), @"");
    insta::assert_snapshot!(said("1e-4", "inf"), @"");
    insta::assert_snapshot!(said("epochs = 1", ""), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = -1"), @"");
    insta::assert_snapshot!(
        said("epochs = 1", "epochs = 1\nschedule = { cosine = { warmup_steps = 3, warmup_ratio = 0.1 } }"),
        @""
    );
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nearly_stop = { patience = 2 }"), @"");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nweights = \"best\""), @"");
    insta::assert_snapshot!(said("[base]", "device = \"cuda:9\"\n[base]"), @"");
    insta::assert_snapshot!(said("path = \"base\"", ""), @"");
    insta::assert_snapshot!(
        said("epochs = 1", "epochs = 1\noptimizer = { adamw = { beta2 = 1.0 } }"),
        @""
    );
}

#[test]
fn overrides_reach_every_key() {
    let recipe = parse(
        MINIMAL,
        &[
            "train.learning_rate=2e-3",
            "train.schedule.linear.warmup_steps=5",
            "train.clip=none",
            "data.train.0.path=other rows.json",
            "data.train.1={ path = \"more.json\", template = \"chat\" }",
            "method.lora.targets=[\"q_proj\"]",
            "method.lora.rank_pattern.\"^layers.1\"=3",
            "base.path=models/007",
            "data.date=2026-01-31",
            "train.seed = 7",
        ],
    )
    .unwrap();
    assert_eq!(recipe.train.learning_rate, 2e-3);
    let warmup = crate::schedule::Warmup {
        warmup_steps: 5,
        warmup_ratio: 0.0,
    };
    assert_eq!(recipe.train.schedule, crate::schedule::Schedule::Linear(warmup));
    assert_eq!(recipe.train.clip, crate::clip::Clip::None);
    assert_eq!(recipe.data.train[0].path, Path::new("other rows.json"));
    assert_eq!(recipe.data.train[1].template, "chat");
    assert_eq!(recipe.base.path.as_deref(), Some(Path::new("models/007")));
    assert_eq!(recipe.data.date.as_deref(), Some("2026-01-31"));
    assert_eq!(recipe.train.seed, 7);
    let replaced = parse(MINIMAL, &["method={ full = {} }"]).unwrap();
    assert_eq!(replaced.method, Method::Full(FullConfig::default()));
}

#[test]
fn a_wrong_override_is_named_as_it_was_given() {
    insta::assert_snapshot!(said_of_set("train.lr=1e-4"), @"");
    insta::assert_snapshot!(said_of_set("train.batch_size=many"), @"");
    insta::assert_snapshot!(said_of_set("train.batch_size=0"), @"");
    insta::assert_snapshot!(said_of_set("train.batch_size"), @"");
    insta::assert_snapshot!(said_of_set("=3"), @"");
    insta::assert_snapshot!(said_of_set("data.train.2.path=x"), @"");
    insta::assert_snapshot!(said_of_set("data.train.first.path=x"), @"");
    insta::assert_snapshot!(said_of_set("method.full={}"), @"");
    insta::assert_snapshot!(said_of_set("train.schedule.cosin.warmup_steps=3"), @"");
}

#[test]
fn a_missing_recipe_is_named() {
    let missing = Recipe::from_file(Path::new("nowhere.toml"), &[]).unwrap_err();
    insta::assert_snapshot!(error(&missing), @"");
}
