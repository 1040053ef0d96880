//! The recipes for rows of each format, and the faults that end the command.

use std::fs;
use std::path::Path;

use simmer_model::Recompute;
use simmer_train::tokenizer;

use super::*;

/// A device and a memory that every machine can be told to have.
fn machine(memory: u64) -> Machine {
    Machine {
        device: Some("cpu".to_owned()),
        memory: Some(memory),
    }
}

const ENOUGH: u64 = 24 << 30;

fn plan(base: &BaseModel, data: &str, memory: u64) -> Result<Plan, Failure> {
    let rows = Rows::open(data, &Names::default())?;
    let purpose = Purpose::of(rows.format);
    Plan::of(base, &rows, purpose, None, &machine(memory))
}

/// A file of rows in a folder.
fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The screen and the recipe for rows, which are checked as a recipe.
fn written(plan: &Plan, base: &BaseModel) -> String {
    let out = Path::new("my.toml");
    let text = plan.settings.text(out);
    let recipe = Recipe::parse(out, &text, &[]).unwrap();
    assert_eq!(recipe.data.max_tokens, plan.settings.max_tokens);
    let screen = plan.screen(base, false).unwrap();
    let parts = [screen.head, screen.examples, screen.choices].join("\n");
    format!("{parts}\n\n==> my.toml\n{text}")
}

/// Compares with a snapshot, whatever the folder and the size of the program.
fn assert_written(name: &str, folder: &Path, written: &str) {
    let written = written.replace(&format!("{}/", folder.display()), "");
    insta::with_settings!({ filters => vec![(r"[0-9.]+ [MG]iB of", "SIZE of")] }, {
        insta::assert_snapshot!(name, written);
    });
}

#[test]
fn each_format_gets_a_recipe() {
    let base = BaseModel::open(BASE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let chat = "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \
                \"content\": \"Is it hot?\"}, {\"role\": \"assistant\", \"content\": \"Yes.\"}]}\n";
    let messages = file(folder.path(), "messages.jsonl", &chat.repeat(30));
    let lines = "The soup is hot.\nIt has salt.\n\nThe bread is old.\n";
    let texts = file(folder.path(), "texts.txt", lines);
    let faq = "{\"question\": \"Is it hot?\", \"answer\": \"Yes.\"}\n";
    let faq = file(folder.path(), "faq.jsonl", faq);
    for (name, path) in [
        ("alpaca", "tests/goldens/rows/alpaca.jsonl"),
        (
            "prompt_completion",
            "tests/goldens/rows/prompt_response.jsonl",
        ),
        ("sharegpt", "tests/goldens/rows/sharegpt.jsonl"),
        ("baize", "tests/goldens/rows/baize.jsonl"),
        ("text", "tests/goldens/rows/text.jsonl"),
        ("messages", &messages),
        ("text_file", &texts),
        ("other_keys", &faq),
    ] {
        let plan = plan(&base, path, ENOUGH).unwrap();
        assert_written(name, folder.path(), &written(&plan, &base));
    }
}

#[test]
fn the_kitchen_gets_a_whole_recipe() {
    let base = BaseModel::open(BASE).unwrap();
    let plan = plan(&base, DATA, ENOUGH).unwrap();
    assert_written("kitchen", Path::new("/nothing"), &written(&plan, &base));

    // with less memory it takes a setting that needs less
    let less = (plan.needed as f64 * 0.98 / 0.85) as u64;
    let rows = Rows::open(DATA, &Names::default()).unwrap();
    let smaller = Plan::of(&base, &rows, Purpose::Instruct, None, &machine(less)).unwrap();
    assert!(smaller.needed as f64 <= 0.85 * less as f64);
    let (settings, before) = (&smaller.settings, &plan.settings);
    assert!(
        settings.micro_batch_tokens < before.micro_batch_tokens
            || settings.recompute != Recompute::None
    );
    // and the same examples
    assert_eq!(settings.max_tokens, before.max_tokens);
}

#[test]
fn what_does_not_fit_says_what_to_do() {
    let base = BaseModel::open(BASE).unwrap();
    let failure = plan(&base, "tests/goldens/rows/alpaca.jsonl", 16 << 20);
    let text = failure.err().unwrap().text();
    insta::with_settings!({ filters => vec![(r"[0-9.]+ [MG]iB,", "SIZE,")] }, {
        insta::assert_snapshot!(text);
    });
}

#[test]
fn long_rows_keep_within_the_context_and_few_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let row = |words: usize| {
        let answer = "soup ".repeat(words);
        format!("{{\"instruction\": \"Say it.\", \"output\": \"{answer}\"}}\n")
    };
    let base = BaseModel::open(BASE).unwrap();
    let most = base.base.config.max_position_embeddings;
    // one of 201 rows is much longer
    let path = file(
        folder.path(),
        "one.jsonl",
        &format!("{}{}", row(40).repeat(200), row(3000)),
    );
    let one = plan(&base, &path, ENOUGH).unwrap();
    assert!(one.settings.max_tokens < 300, "{}", one.settings.max_tokens);
    assert!(
        one.settings
            .lengths
            .starts_with("1 of 201 rows (0.5%) have more"),
        "{}",
        one.settings.lengths
    );
    // all are longer than the context
    let path = file(folder.path(), "all.jsonl", &row(3000).repeat(20));
    let all = plan(&base, &path, ENOUGH).unwrap();
    assert_eq!(all.settings.max_tokens, most);
    assert_eq!(all.data.report.train[0].truncated.count, 20);
}

#[test]
fn rows_that_cannot_be_used_are_left_out_if_they_are_few() {
    let folder = tempfile::tempdir().unwrap();
    let base = BaseModel::open(BASE).unwrap();
    let good = "{\"prompt\": \"Is it hot?\", \"completion\": \"Yes.\"}\n";
    let bad = "{\"prompt\": \"Is it hot?\"}\n";
    let path = file(folder.path(), "few.jsonl", &(good.repeat(60) + bad));
    let few = plan(&base, &path, ENOUGH).unwrap();
    assert!(
        few.settings
            .text(Path::new("x.toml"))
            .contains("bad_rows = \"drop\"")
    );
    assert_eq!(few.data.report.train[0].unusable.rows, 1);
    let path = file(folder.path(), "many.jsonl", &(good.repeat(6) + bad));
    let many = plan(&base, &path, ENOUGH).err().unwrap().text();
    let many = many.replace(&format!("{}/", folder.path().display()), "");
    insta::assert_snapshot!(many, @r#"
    error: many.jsonl: 1 of 7 rows cannot be used
      because: many.jsonl: row 7 (line 7): missing key `completion`; the row has `prompt`
    hint: add the key; a row of format prompt_completion has `prompt` and `completion` (or `response`)
          rows that cannot be used are left out if they are at most 5% of all
    "#);
}

#[test]
fn the_template_fits_the_tokenizer_and_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let names = |base: &Path, data: &str| -> Vec<String> {
        let tokenizer = tokenizer::open(base).unwrap();
        let templates = Rows::open(data, &Names::default())
            .unwrap()
            .templates(&tokenizer);
        templates
            .into_iter()
            .map(|template| template.name)
            .collect()
    };
    let with = Path::new(BASE);
    fs::copy(
        with.join("tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    let config = "{\"eos_token\": \"<|im_end|>\"}";
    let _ = file(folder.path(), "tokenizer_config.json", config);
    let without = folder.path();
    let rows = |name: &str| format!("tests/goldens/rows/{name}.jsonl");
    let joined = "{\"prompt\": \"2 + 2 =\", \"completion\": \" 4\"}\n";
    let joined = file(folder.path(), "joined.jsonl", joined);
    assert_eq!(names(with, &rows("alpaca")), ["chat", "alpaca", "chatml"]);
    assert_eq!(names(without, &rows("alpaca")), ["alpaca", "chatml"]);
    assert_eq!(names(without, &rows("sharegpt")), ["chatml"]);
    assert_eq!(names(without, &rows("baize")), ["baize", "chatml"]);
    assert_eq!(names(without, &rows("text")), ["completion"]);
    assert_eq!(names(without, &joined), ["completion", "alpaca", "chatml"]);
    let words = Path::new("tests/goldens/untied-mha");
    assert_eq!(
        names(words, &rows("sharegpt")).last().unwrap(),
        "vicuna-v1.1"
    );
}

#[test]
fn another_template_is_taken_for_rows_that_the_first_cannot_render() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(BASE).join(name), folder.path().join(name)).unwrap();
    }
    // has no place for a system message
    let template = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
                    {{ m.role + ': ' + m.content + '\\n' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    let config = serde_json::json!({ "eos_token": "<|im_end|>", "chat_template": template });
    let _ = file(folder.path(), "tokenizer_config.json", &config.to_string());
    let base = BaseModel::open(&folder.path().display().to_string()).unwrap();
    let row = "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \
               \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Ho\"}]}\n";
    let path = file(folder.path(), "rows.jsonl", row);
    let plan = plan(&base, &path, ENOUGH).unwrap();
    let template = &plan.settings.template;
    assert_eq!(template.name, "chatml");
    insta::assert_snapshot!(template.why, @"template `chat` cannot render 1 row: chat template: no system (line 1)");
}

#[test]
fn data_and_bases_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let base = BaseModel::open(BASE).unwrap();
    let mut said = Vec::new();
    let mut say = |failure: Failure| {
        said.push(
            failure
                .text()
                .replace(&format!("{}/", folder.path().display()), ""),
        );
    };
    for (name, text) in [
        (
            "preferences.jsonl",
            "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n",
        ),
        ("unknown.jsonl", "{\"a\": \"b\"}\n"),
        ("half.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n"),
        ("empty.jsonl", ""),
        ("broken.json", "[{\"prompt\": "),
    ] {
        let path = file(folder.path(), name, text);
        say(plan(&base, &path, ENOUGH).err().unwrap());
    }
    fs::create_dir(folder.path().join("nothing")).unwrap();
    say(Rows::open(
        &folder.path().join("nothing").display().to_string(),
        &Names::default(),
    )
    .err()
    .unwrap());
    say(Rows::open("./no/rows.jsonl", &Names::default())
        .err()
        .unwrap());
    say(BaseModel::open("./no/model").err().unwrap());
    say(BaseModel::open(&folder.path().display().to_string())
        .err()
        .unwrap());
    let texts = Rows::open("tests/goldens/rows/text.jsonl", &Names::default()).unwrap();
    say(named_purpose(&texts, "chat").unwrap_err());
    say(named_purpose(&texts, "sums").unwrap_err());
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn the_validation_split_of_a_folder_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let row = "{\"prompt\": \"Is it hot?\", \"completion\": \"Yes.\"}\n";
    let _ = file(folder.path(), "train.jsonl", &row.repeat(30));
    let _ = file(folder.path(), "validation.jsonl", &row.repeat(4));
    let _ = file(folder.path(), "test.jsonl", row);
    let base = BaseModel::open(BASE).unwrap();
    let plan = plan(&base, &folder.path().display().to_string(), ENOUGH).unwrap();
    assert_eq!(plan.data.examples().unwrap().len(), 30);
    assert_eq!(plan.data.validation.len(), 4);
}

#[test]
fn the_questions_lead_to_a_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let taken = file(folder.path(), "taken.toml", "mine");
    let out = folder.path().join("new.toml");
    let init = Init {
        base: None,
        data: None,
        fields: None,
        purpose: None,
        template: None,
        out: None,
        device: Some("cpu".to_owned()),
        memory: Some(ENOUGH),
        yes: false,
    };
    let [taken, new]: [&'static str; 2] = [&taken, &out.display().to_string()].map(|path| {
        let path: &'static str = Box::leak(path.clone().into_boxed_str());
        path
    });
    let mut questions = Questions::script([
        "./nothing",
        "",
        "tests/goldens/rows/alpaca.jsonl",
        "sums",
        "Domain",
        taken,
        new,
    ]);
    init.write(&mut questions).unwrap();
    assert_eq!(fs::read_to_string(taken).unwrap(), "mine");
    let recipe = Recipe::from_file(&out, &[]).unwrap();
    assert_eq!(recipe.base.path.as_deref(), Some(Path::new(BASE)));
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.contains("train_on = \"everything\""), "{text}");
    // `simmer train` would accept it
    let rows = Rows::open("tests/goldens/rows/alpaca.jsonl", &Names::default()).unwrap();
    let base = BaseModel::open(BASE).unwrap();
    let plan = Plan::of(&base, &rows, Purpose::Domain, None, &machine(ENOUGH)).unwrap();
    assert_eq!(plan.lint.counts(), [0, 0]);

    // it ends where nobody answers any more, and leaves nothing behind
    let stopped = init.write(&mut Questions::script([""])).unwrap_err();
    assert!(stopped.downcast_ref::<Interrupted>().is_some());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn keys_that_no_format_has_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "{\"nummer\": 1, \"thema\": \"Is it hot?\", \"erklaerung\": \"Yes.\"}\n";
    let path = file(folder.path(), "faq.jsonl", rows);
    let base = BaseModel::open(BASE).unwrap();
    let names = Names::parse("instruction=thema,output=erklaerung").unwrap();
    let rows = Rows::open(&path, &names).unwrap();
    let plan = Plan::of(&base, &rows, Purpose::Instruct, None, &machine(ENOUGH)).unwrap();
    assert_written("named_keys", folder.path(), &written(&plan, &base));

    // on a terminal they are asked for, until they fit the rows
    let out = folder.path().join("faq.toml");
    let init = Init {
        base: Some(BASE.to_owned()),
        data: Some(path.clone()),
        fields: None,
        purpose: Some(Purpose::Instruct),
        template: None,
        out: Some(out.clone()),
        device: Some("cpu".to_owned()),
        memory: Some(ENOUGH),
        yes: false,
    };
    let mut questions = Questions::script([
        "instruction=thema",
        "instruction=thema,output=answer",
        "instruction=thema,output=erklaerung",
    ]);
    init.write(&mut questions).unwrap();
    let text = fs::read_to_string(&out).unwrap();
    let fields = "fields = { instruction = \"thema\", output = \"erklaerung\" }";
    assert!(text.contains(fields), "{text}");

    // elsewhere the hint names the option
    let failure = Rows::open(&path, &Names::default()).err().unwrap();
    let text = failure
        .text()
        .replace(&format!("{}/", folder.path().display()), "");
    insta::assert_snapshot!(text, @r"
    error: faq.jsonl: row 1 (line 1): unknown format; the row has `nummer`, `thema`, `erklaerung`
    hint: name the keys, such as --fields instruction=thema,output=erklaerung
    ");
}

#[test]
fn recipes_are_named_after_their_data() {
    let folder = tempfile::tempdir().unwrap();
    let row = "{\"text\": \"soup\"}\n";
    for (name, recipe) in [
        ("support.jsonl", "support.toml"),
        ("my rows.jsonl", "my.toml"),
    ] {
        let path = file(folder.path(), name, row);
        assert_eq!(
            Rows::open(&path, &Names::default()).unwrap().recipe_name(),
            recipe
        );
    }
    let folder = folder.path().join("texts");
    fs::create_dir(&folder).unwrap();
    let _ = file(&folder, "a.jsonl", row);
    let rows = Rows::open(&format!("{}/", folder.display()), &Names::default()).unwrap();
    assert_eq!(rows.recipe_name(), "texts.toml");
    let rows = Rows::open(&format!("{}/*.jsonl", folder.display()), &Names::default()).unwrap();
    assert_eq!(rows.recipe_name(), "my.toml");
}
