use simmer_hint::Hint;

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

/// The error of the minimal recipe with `find` replaced.
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
fn resolved_writes_every_default_and_parses_to_the_same() {
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
    insta::assert_snapshot!(parse(MINIMAL, &[]).unwrap().resolved(), @r#"
    device = "auto"

    [base]
    path = "base"

    [method.lora]
    rank = 16
    alpha = 32.0
    dropout = 0.0
    targets = "all-linear"
    use_rslora = false
    use_dora = false
    init_lora_weights = true
    convert_to_lora = true
    bias = "none"

    [data]
    max_tokens = 1024
    overlong = "truncate"
    train_on = "answers"
    shuffle = true
    stream = false
    shuffle_rows = 10000
    bad_rows = "error"
    max_bad_share = 0.05

    [[data.train]]
    path = "rows.json"
    template = "alpaca"

    [data.lint]

    [train]
    epochs = 1.0
    batch_size = 4
    micro_batch_tokens = 4096
    recompute = "none"
    share_prefixes = true
    learning_rate = 1e-4
    seed = 42
    validate_every = "epoch"
    checkpoint_every = "epoch"
    keep = 2
    weights = "last"
    compare_rows = 200
    track = ["tensorboard"]

    [train.schedule.linear]
    warmup_steps = 0
    warmup_ratio = 0.0

    [train.optimizer.adamw]
    beta1 = 0.9
    beta2 = 0.999
    eps = 1e-8
    weight_decay = 0.0
    decay = "matrices"

    [train.clip]
    norm = 1.0

    [train.guard]
    not_finite = "stop"
    most_skips = 10
    "#);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    insta::assert_snapshot!(said("epochs", "epoch"), @"
    r.toml: line 11, column 1: unknown key `epoch` in [train]; did you mean `epochs`?
    hint: keys of [train]: epochs, max_steps, batch_size, micro_batch_tokens, recompute, share_prefixes, learning_rate, learning_rates, loraplus_lr_ratio, loraplus_lr_embedding, schedule, optimizer, clip, seed, guard, validate_every, checkpoint_every, keep, early_stop, weights, compare_rows, track
    ");
    insta::assert_snapshot!(said("learning_rate", "lr"), @"
    r.toml: line 13, column 1: unknown key `lr` in [train]; did you mean `learning_rate`?
    hint: keys of [train]: epochs, max_steps, batch_size, micro_batch_tokens, recompute, share_prefixes, learning_rate, learning_rates, loraplus_lr_ratio, loraplus_lr_embedding, schedule, optimizer, clip, seed, guard, validate_every, checkpoint_every, keep, early_stop, weights, compare_rows, track
    ");
    insta::assert_snapshot!(said("[method.lora]", "[method.lora]\nlora_alpha = 3"), @r"
    r.toml: line 6, column 1: unknown key `lora_alpha` in [method.lora]; did you mean `alpha`?
    hint: keys of [method.lora]: rank, alpha, dropout, targets, exclude_modules, layers_to_transform, rank_pattern, alpha_pattern, use_rslora, use_dora, init_lora_weights, convert_to_lora, bias, modules_to_save, trainable_token_indices, from
    ");
    insta::assert_snapshot!(said("[train]", "[trian]"), @r"
    r.toml: line 10, column 2: unknown key `trian` in the recipe; did you mean `train`?
    hint: keys of the recipe: device, base, method, data, train, samples
    ");
    insta::assert_snapshot!(said("template =", "templte ="), @"
    r.toml: line 8, column 32: unknown key `templte` in [data.train.0]; did you mean `template`?
    hint: keys of [data.train.0]: path, template, format, fields, drop_leading_answers, sample_by, weight
    ");
}

#[test]
fn an_unknown_choice_is_named_with_the_nearest() {
    insta::assert_snapshot!(said("[method.lora]", "[method.lroa]"), @r"
    r.toml: line 5, column 9: `method`: unknown value `lroa`; did you mean `lora`?
    hint: possible values: lora, ia3, adaption_prompt, full
    ");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nschedule = \"cosin\""), @r"
    r.toml: line 12, column 12: `train.schedule`: unknown value `cosin`; did you mean `cosine`?
    hint: possible values: constant, linear, cosine
    ");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nschedule = { cosin = {} }"), @r"
    r.toml: line 12, column 14: `train.schedule`: unknown value `cosin`; did you mean `cosine`?
    hint: possible values: constant, linear, cosine
    ");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nvalidate_every = \"step\""), @r"
    r.toml: line 12, column 18: `train.validate_every`: unknown value `step`; did you mean `steps`?
    hint: possible values: never, epoch, steps
    ");
    insta::assert_snapshot!(said("path = \"base\"", "path = \"base\"\nprecision = \"fp16\""), @r"
    r.toml: line 4, column 13: `base.precision`: unknown value `fp16`; did you mean `f16`?
    hint: possible values: f32, bf16, f16, nf4, fp4, int8
    ");
}

#[test]
fn a_wrong_type_says_what_was_expected_and_found() {
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = \"4\""), @r#"
    r.toml: line 12, column 14: `train.batch_size`: expected a whole number, at least 0, found the text "4"
    hint: leave out the quotes: batch_size = 4
    "#);
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = -4"), @"r.toml: line 12, column 14: `train.batch_size`: expected at least 1, found -4; the nearest valid value is 1");
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = 4.5"), @"r.toml: line 12, column 14: `train.batch_size`: expected a whole number, at least 0, found `4.5`");
    insta::assert_snapshot!(said("1e-4", "true"), @r"
    r.toml: line 13, column 17: `train.learning_rate`: expected a number, found true
    hint: write learning_rate = 1e-4, for example
    ");
    insta::assert_snapshot!(said("[{ path = \"rows.json\", template = \"alpaca\" }]", "\"rows.json\""), @r#"
    r.toml: line 8, column 9: `data.train`: expected a list, found the text "rows.json"
    hint: write train = [{ path = "rows.jsonl", template = "chat" }], a list of sources
    "#);
    insta::assert_snapshot!(said("[method.lora]", "[method.lora]\ntargets = 7"), @r#"r.toml: line 6, column 11: `method.lora.targets`: expected a list of module names, one regular expression, or "all-linear", found `7`"#);
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\noptimizer = 3"), @r#"
    r.toml: line 12, column 13: `train.optimizer`: expected the name of an optimizer, or a table such as { adamw = { weight_decay = 0.01 } }, found `3`
    hint: write optimizer = "adamw", or { adamw = { weight_decay = 0.01 } } with settings
    "#);
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nschedule = 3"), @"r.toml: line 12, column 12: `train.schedule`: expected the name of a schedule, or a table such as { cosine = { warmup_ratio = 0.03 } }, found `3`");
}

#[test]
fn missing_keys_are_named() {
    insta::assert_snapshot!(said("batch_size = 4", ""), @"r.toml: line 10, column 1: [train] lacks the key `batch_size`");
    insta::assert_snapshot!(said("[method.lora]", ""), @r"
    r.toml: the recipe lacks `method`
    hint: write the table [method.lora]; it may be empty
    ");
    insta::assert_snapshot!(said(", template = \"alpaca\"", ""), @r"
    r.toml: line 8, column 10: [data.train.0] lacks the key `template`
    hint: `chat` is the model's own chat template; `alpaca` and others are built in (docs/reference/templates.md)
    ");
}

#[test]
fn invalid_toml_is_reported() {
    insta::assert_snapshot!(said("epochs = 1", "epochs = "), @"r.toml: line 11, column 10: not valid TOML: string values must be quoted, expected literal string");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nepochs = 2"), @"r.toml: line 12, column 1: not valid TOML: duplicate key");
}

#[test]
fn impossible_values_and_combinations_are_named() {
    insta::assert_snapshot!(said("batch_size = 4", "batch_size = 0"), @"r.toml: line 12, column 1: `train.batch_size`: expected at least 1, found 0; the nearest valid value is 1");
    insta::assert_snapshot!(said("1e-4", "0"), @"r.toml: line 13, column 1: `train.learning_rate`: expected a number above 0, such as 1e-4, found 0");
    insta::assert_snapshot!(said("1e-4", "inf"), @"r.toml: line 13, column 1: `train.learning_rate`: expected a number above 0, such as 1e-4, found inf");
    insta::assert_snapshot!(said("epochs = 1", ""), @r"
    r.toml: line 10, column 2: `train`: expected `epochs` or `max_steps`, found neither
    hint: set epochs = 3, for example
    ");
    insta::assert_snapshot!(said("epochs = 1", "epochs = -1"), @"r.toml: line 11, column 1: `train.epochs`: expected a number above 0, such as 1, found -1");
    insta::assert_snapshot!(
        said("epochs = 1", "epochs = 1\nschedule = { cosine = { warmup_steps = 3, warmup_ratio = 0.1 } }"),
        @"r.toml: line 12, column 43: `train.schedule.cosine.warmup_ratio`: cannot be combined with `warmup_steps`; set one of them"
    );
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nearly_stop = { patience = 2 }"), @r"
    r.toml: line 12, column 1: `train.early_stop`: needs a validation set, but [data] has no `validation`
    hint: set validation = { fraction = 0.05 } in [data]
    ");
    insta::assert_snapshot!(said("epochs = 1", "epochs = 1\nweights = \"best\""), @r"
    r.toml: line 12, column 1: `train.weights`: needs a validation set, but [data] has no `validation`
    hint: set validation = { fraction = 0.05 } in [data]
    ");
    insta::assert_snapshot!(said("[base]", "device = \"cpuu\"\n[base]"), @r"
    r.toml: line 2, column 1: `device`: unknown device `cpuu`: expected auto, cpu, libtorch or libtorch-cuda:N (N from 0)
    hint: did you mean cpu?
    ");
    insta::assert_snapshot!(said("path = \"base\"", ""), @"r.toml: line 2, column 2: `base`: needs `path` (a checkpoint) or `init` (random weights)");
    insta::assert_snapshot!(
        said("epochs = 1", "epochs = 1\noptimizer = { adamw = { beta2 = 1.0 } }"),
        @"r.toml: line 12, column 25: `train.optimizer.adamw.beta2`: expected a number from 0 to below 1, such as 0.999, found 1"
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
            "method.lora.rank_pattern.\"layers.1.self_attn.q_proj\"=3",
            "base.path=models/007",
            "data.date=2026-01-31",
            "train.seed = 7",
        ],
    )
    .unwrap();
    assert!((recipe.train.learning_rate - 2e-3).abs() < 1e-18);
    let warmup = crate::schedule::Warmup {
        warmup_steps: 5,
        warmup_ratio: 0.0,
    };
    assert_eq!(
        recipe.train.schedule,
        crate::schedule::Schedule::Linear(warmup)
    );
    assert_eq!(recipe.train.clip, crate::clip::Clip::None);
    assert_eq!(recipe.data.train[0].path, Path::new("other rows.json"));
    assert_eq!(recipe.data.train[1].template, "chat");
    assert_eq!(recipe.base.path.as_deref(), Some(Path::new("models/007")));
    assert_eq!(recipe.data.date.as_deref(), Some("2026-01-31"));
    assert_eq!(recipe.train.seed, 7);
    for set in ["method={ full = {} }", "method.full={}"] {
        let replaced = parse(MINIMAL, &[set]).unwrap();
        assert_eq!(replaced.method, Method::Full(FullConfig::default()));
    }
}

#[test]
fn a_wrong_override_is_named_as_it_was_given() {
    insta::assert_snapshot!(said_of_set("train.lr=1e-4"), @"
    --set train.lr=1e-4: unknown key `lr` in [train]; did you mean `learning_rate`?
    hint: keys of [train]: epochs, max_steps, batch_size, micro_batch_tokens, recompute, share_prefixes, learning_rate, learning_rates, loraplus_lr_ratio, loraplus_lr_embedding, schedule, optimizer, clip, seed, guard, validate_every, checkpoint_every, keep, early_stop, weights, compare_rows, track
    ");
    insta::assert_snapshot!(said_of_set("train.batch_size=many"), @r#"--set train.batch_size=many: expected a whole number, at least 0, found the text "many""#);
    insta::assert_snapshot!(said_of_set("train.batch_size=0"), @"--set train.batch_size=0: expected at least 1, found 0; the nearest valid value is 1");
    insta::assert_snapshot!(said_of_set("train.batch_size"), @r"
    --set train.batch_size: expected KEY=VALUE, found no `=`
    hint: write an override as --set train.learning_rate=1e-4
    ");
    insta::assert_snapshot!(said_of_set("=3"), @r"
    --set =3: the key is not a valid TOML key
    hint: write an override as --set train.learning_rate=1e-4
    ");
    insta::assert_snapshot!(said_of_set("data.train.2.path=x"), @"--set data.train.2.path=x: `data.train` has no element 2: expected 0 to 0");
    insta::assert_snapshot!(said_of_set("data.train.first.path=x"), @"--set data.train.first.path=x: `data.train` is a list: expected an index, found `first`");
    insta::assert_snapshot!(said_of_set("train.schedule.cosin.warmup_steps=3"), @r"
    --set train.schedule.cosin.warmup_steps=3: `train.schedule`: unknown value `cosin`; did you mean `cosine`?
    hint: possible values: constant, linear, cosine
    ");
}

#[test]
fn a_missing_recipe_is_named() {
    let missing = Recipe::from_file(Path::new("nowhere.toml"), &[]).unwrap_err();
    insta::assert_snapshot!(error(&missing), @r"
    cannot read nowhere.toml: No such file or directory (os error 2)
    hint: list the recipes that ship with the program with `simmer recipes`; copy one with `simmer recipes copy NAME`
    ");
}

#[test]
fn an_override_replaces_the_alternative() {
    let sets = [
        ["data.validation.fraction=0.1", "data.validation.rows=3"],
        ["method.lora.rank=2", "method.full.precision=f16"],
        [
            "train.schedule.cosine.min_ratio=0.1",
            "train.schedule.linear.warmup_steps=2",
        ],
        [
            "train.validate_every={ steps = 3 }",
            "train.validate_every=never",
        ],
        ["train.clip.norm=2", "train.clip=none"],
        [
            "base={ tokenizer = 't', init = { vocab_size = 8, hidden_size = 4, intermediate_size = 4, \
             num_hidden_layers = 1, num_attention_heads = 1, num_key_value_heads = 1, head_dim = 4, \
             rope_scaling = 'default' } }",
            "base.init.rope_scaling.linear.factor=2",
        ],
        [
            "base={ tokenizer = 't', init = { vocab_size = 8, hidden_size = 4, intermediate_size = 4, \
             num_hidden_layers = 1, num_attention_heads = 1, num_key_value_heads = 1, head_dim = 4, \
             rope_scaling.yarn = { factor = 4, original_max_position_embeddings = 512 } } }",
            "base.init.rope_scaling.longrope={ short_factor = [1, 1.5], long_factor = [2, 8], \
             original_max_position_embeddings = 512 }",
        ],
    ];
    for [first, then] in sets {
        parse(MINIMAL, &[first, then]).unwrap_or_else(|e| panic!("{first}, {then}: {e}"));
    }
    let twice = MINIMAL.replace("[method.lora]", "[method.lora]\n[method.full]");
    insta::assert_snapshot!(error(&parse(&twice, &[]).unwrap_err()), @"r.toml: line 5, column 2: `method`: expected one choice, found several");
}

#[test]
fn tokens_are_added_once() {
    insta::assert_snapshot!(said_of_set(r#"base.add_tokens=["a", ""]"#), @r#"--set base.add_tokens=["a", ""]: a token cannot be empty"#);
    insta::assert_snapshot!(said_of_set(r#"base={ path = "x", add_special_tokens = ["<a>"], pad_token = "<a>" }"#), @r#"--set base={ path = "x", add_special_tokens = ["<a>"], pad_token = "<a>" }: `base.pad_token`: duplicate token `<a>`"#);
}

#[test]
fn keys_of_other_programs_lead_to_what_does_the_same_here() {
    let lines = [
        "gradient_accumulation_steps = 4",
        "per_device_train_batch_size = 2",
        "bf16 = true",
        "lora_r = 8",
        "load_in_4bit = true",
        "num_train_epochs = 3",
        "max_seq_length = 512",
        "warmup_ratio = 0.1",
        "lr_scheduler_type = \"cosine\"",
        "weight_decay = 0.1",
        "sample_packing = true",
        "gradient_checkpointing = true",
        "logging_steps = 1",
        "save_steps = 100",
        "output_dir = \"x\"",
        "device = \"cpu\"",
        "rank = 8",
        "template = \"chat\"",
        "optimizer = \"paged_adamw_8bit\"",
        "validate_every = 100",
        "validate_every = \"steps\"",
        "clip = 1.0",
        "share_prefixes = 1",
        "seed = \"7\"",
        "[lora]",
        "[method.qlora]",
        "[model]",
    ];
    let told = lines.map(|line| {
        let error = said("epochs = 1", &format!("epochs = 1\n{line}"));
        format!("{line}\n{error}")
    });
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn an_optimizer_may_be_its_name_alone() {
    let named = parse(MINIMAL, &["train.optimizer=adamw"]).unwrap();
    assert_eq!(
        named,
        parse(MINIMAL, &["train.optimizer={ adamw = {} }"]).unwrap()
    );
    assert_eq!(named, parse(MINIMAL, &[]).unwrap());
}

#[test]
fn an_adapter_starts_at_the_error_of_a_quantisation_that_is_made() {
    let qera = "method.lora.init_lora_weights=qera";
    let said = |sets: &[&str]| error(&parse(MINIMAL, sets).unwrap_err());
    insta::assert_snapshot!(said(&[qera]), @r#"
    --set method.lora.init_lora_weights=qera: "qera" starts at the error of a quantisation, and base.precision quantises nothing
    hint: set base.precision = "nf4", "fp4" or "int8", or remove init_lora_weights; of a base model that is stored quantised, the error is not known
    "#);
    let nf4 = "base.precision=nf4";
    insta::assert_snapshot!(said(&[qera, nf4, "data.stream=true", "train.max_steps=3"]), @r#"
    --set method.lora.init_lora_weights=qera: "qera" needs training rows before the first step, and data.stream reads them later
    hint: use "loftq", or remove data.stream
    "#);
    insta::assert_snapshot!(said(&[qera, nf4, "method.lora.use_dora=true"]), @r#"
    --set method.lora.init_lora_weights=qera: "qera" cannot be combined with `use_dora`
    hint: remove one of the two keys
    "#);
    for sets in [
        [qera, nf4],
        ["method.lora.init_lora_weights=loftq", "base.precision=int8"],
    ] {
        parse(MINIMAL, &sets).unwrap();
    }
}

#[test]
fn a_base_model_in_its_files_needs_layers_one_by_one() {
    let offload = "path = \"base\"\noffload = \"disk\"";
    let text = MINIMAL.replacen("path = \"base\"", offload, 1);
    let said = |find: &str, replacement: &str| {
        error(&parse(&text.replacen(find, replacement, 1), &[]).unwrap_err())
    };
    insta::assert_snapshot!(said("epochs", "epochs"), @r#"
    r.toml: line 4, column 1: `base.offload`: needs gradient checkpointing, which computes the layers one by one
    hint: set train.recompute = "layer", or "mlp", which needs more memory and less time
    "#);
    insta::assert_snapshot!(said("[method.lora]", "[method.full]"), @"
    r.toml: line 4, column 1: `base.offload`: cannot be combined with [method.full], which trains a copy of every weight in memory
    hint: train an adapter, [method.lora], or remove base.offload
    ");
    insta::assert_snapshot!(said("\"disk\"", "true"), @r#"
    r.toml: line 4, column 11: `base.offload`: expected a name or a table
    hint: write offload = "disk" or "host", or leave it out
    "#);
    for recompute in ["train.recompute=layer", "train.recompute=mlp"] {
        let recipe = parse(&text, &[recompute]).unwrap();
        assert_eq!(parse(&recipe.resolved(), &[]).unwrap(), recipe);
    }
}
