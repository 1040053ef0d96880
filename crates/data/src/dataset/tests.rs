use super::*;
use crate::format::Format;
use crate::tokenizer::tests::{bare_tiny, tiny};
use serde_json::json;
use simmer_hint::Hint;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A folder with twenty Alpaca rows, the third of them long and the fifth longer.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let rows: Vec<_> = (1..=20)
        .map(|row| {
            let more = match row {
                3 => 60,
                5 => 300,
                _ => 0,
            };
            json!({
                "instruction": format!("{}Write {row}.", if row == 5 { "x ".repeat(more) } else { String::new() }),
                "output": format!("{row}{}", if row == 3 { "!?".repeat(more) } else { String::new() }),
                "id": row,
            })
        })
        .collect();
    write(folder.path(), "rows.json", &json!(rows));
    folder
}

fn write(folder: &Path, name: &str, value: &serde_json::Value) {
    fs::write(folder.join(name), value.to_string()).unwrap();
}

/// Parses the text as a `[data]` table; `DIR` stands for the folder.
fn config(folder: &TempDir, text: &str) -> DataConfig {
    toml::from_str(&text.replace("DIR", &folder.path().display().to_string())).unwrap()
}

fn steps(seed: u64) -> Steps {
    Steps {
        batch_size: 4,
        seed,
    }
}

fn load(folder: &TempDir, text: &str) -> Result<Dataset, DataError> {
    Dataset::load(&config(folder, text), &Arc::new(tiny()), steps(42), &mut ())
}

fn error(folder: &TempDir, text: &str) -> String {
    let error = load(folder, text).unwrap_err();
    let text = match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    };
    text.replace(&folder.path().display().to_string(), "DIR")
}

const TRAIN: &str = r#"train = [{ path = "DIR/rows.json", template = "alpaca" }]"#;

#[test]
fn what_is_cut_and_left_out_is_reported() {
    let folder = folder();
    let report = |text: &str| {
        let report = load(&folder, text).unwrap().report.to_string();
        report.replace(&folder.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(report(TRAIN), @"
DIR/rows.json: 20 rows (alpaca, template alpaca): 20 examples, 2382 tokens, 171 of them trained on
  keys not used: id (in 20 rows)
");
    insta::assert_snapshot!(report(&format!("{TRAIN}\nmax_tokens = 120")), @"
DIR/rows.json: 20 rows (alpaca, template alpaca): 19 examples, 1618 tokens, 87 of them trained on
  truncated: 1 row (3), 82 labels lost
  dropped, no token to train on: 1 row (5)
  keys not used: id (in 20 rows)
");
    insta::assert_snapshot!(report(&format!("{TRAIN}\nmax_tokens = 120\noverlong = \"drop\"")), @"
DIR/rows.json: 20 rows (alpaca, template alpaca): 18 examples, 1498 tokens, 47 of them trained on
  dropped, longer than max_tokens: 2 rows (3, 5)
  keys not used: id (in 20 rows)
");
}

#[test]
fn examples_come_in_file_order_and_know_their_rows() {
    let data = load(&folder(), TRAIN).unwrap();
    let rows: Vec<_> = data
        .examples()
        .unwrap()
        .iter()
        .map(|example| example.origin.row)
        .collect();
    assert!(rows.into_iter().eq(1..=20));
    assert!(data.validation.is_empty());
}

#[test]
fn validation_rows_are_taken_from_training() {
    let folder = folder();
    for (validation, count) in [("{ fraction = 0.12 }", 3), ("{ rows = 5 }", 5)] {
        let text = format!("{TRAIN}\nvalidation = {validation}");
        let data = load(&folder, &text).unwrap();
        assert_eq!(data.validation.len(), count);
        let both = data.examples().unwrap().iter().chain(&data.validation);
        let mut rows: Vec<_> = both.map(|example| example.origin.row).collect();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(1..=20));
        let again = load(&folder, &text).unwrap();
        assert_eq!(data.examples(), again.examples());
        assert_eq!(data.validation, again.validation);
        let config = config(&folder, &text);
        let other = Dataset::load(&config, &Arc::new(tiny()), steps(43), &mut ()).unwrap();
        assert_ne!(data.validation, other.validation);
    }
}

#[test]
fn validation_may_have_its_own_files() {
    let folder = folder();
    write(
        folder.path(),
        "more.json",
        &json!([{"prompt": "Write 1.", "completion": " 1"}]),
    );
    let files = r#"validation = { files = [{ path = "DIR/more.json", template = "completion" }] }"#;
    let data = load(&folder, &format!("{TRAIN}\n{files}")).unwrap();
    assert_eq!(
        (data.examples().unwrap().len(), data.validation.len()),
        (20, 1)
    );
    assert_eq!(data.report.validation[0].format, Format::PromptCompletion);
}

#[test]
fn impossible_tables_are_errors() {
    let folder = folder();
    let with = |line: &str| error(&folder, &format!("{TRAIN}\n{line}"));
    insta::assert_snapshot!(error(&folder, "train = []"), @"data.train: expected at least one source, found none");
    insta::assert_snapshot!(with("validation = { fraction = 1.5 }"), @"data.validation.fraction: expected a number between 0 and 1, found 1.5; 1.5% is 0.015");
    insta::assert_snapshot!(with("validation = { rows = 20 }"), @"data.validation: expected fewer than 20 rows, found 20: none would be left to train on");
    insta::assert_snapshot!(with("validation = { rows = 0 }"), @"data.validation.rows: expected at least 1, found 0; the nearest valid value is 1");
    insta::assert_snapshot!(with("validation = { files = [] }"), @"data.validation.files: expected at least one source, found none");
    insta::assert_snapshot!(with("max_tokens = 1"), @"data.max_tokens: expected at least 2, found 1: the first token is never predicted; the nearest valid value is 2");
    insta::assert_snapshot!(with("date = \"tomorrow\""), @"data.date: expected YEAR-MONTH-DAY, such as 2026-01-31, found `tomorrow`");
}

#[test]
fn unknown_keys_are_errors() {
    let parse = |text: &str| toml::from_str::<DataConfig>(text).unwrap_err().to_string();
    insta::assert_snapshot!(parse(&format!("{TRAIN}\nmax_token = 5")), @"
    TOML parse error at line 2, column 1
      |
    2 | max_token = 5
      | ^^^^^^^^^
    unknown field `max_token`, expected one of `train`, `validation`, `max_tokens`, `overlong`, `train_on`, `shuffle`, `stream`, `shuffle_rows`, `bad_rows`, `max_bad_share`, `date`, `lint`
    ");
    insta::assert_snapshot!(parse("train = [{ path = \"a\", template = \"alpaca\", format = \"alpacca\" }]"), @r#"
    TOML parse error at line 1, column 54
      |
    1 | train = [{ path = "a", template = "alpaca", format = "alpacca" }]
      |                                                      ^^^^^^^^^
    unknown variant `alpacca`, expected one of `messages`, `sharegpt`, `baize`, `alpaca`, `prompt_completion`, `text`
    "#);
    insta::assert_snapshot!(parse(&format!("{TRAIN}\nvalidation = {{ part = 0.1 }}")), @"
TOML parse error at line 2, column 16
  |
2 | validation = { part = 0.1 }
  |                ^^^^
unknown variant `part`, expected one of `fraction`, `rows`, `files`
");
}

#[test]
fn rows_of_weight_0_are_named_as_such() {
    let row = |weight: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "Ho", "weight": {weight}}}]}}"#
        )
    };
    let folder = TempDir::new().unwrap();
    let recipe = r#"train = [{ path = "DIR/rows.jsonl", template = "chatml" }]"#;
    let write = |rows: &str| fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    write(&row("0"));
    insta::assert_snapshot!(error(&folder, recipe), @"
    DIR/rows.jsonl: no row has a token to train on (template `chatml`, max_tokens 1024): all answers of row 1 have weight 0
    hint: an answer of weight 0 is read and not trained on: remove `weight` from the row, or set it to 1
    ");
    write(&[row("0"), row("1")].join("\n"));
    let data = load(&folder, recipe).unwrap();
    assert_eq!(data.report.train[0].untrained.count, 1);
    assert_eq!(data.report.train[0].examples, 1);
}

#[test]
fn rows_without_anything_to_train_on_are_an_error() {
    let folder = folder();
    insta::assert_snapshot!(error(&folder, &format!("{TRAIN}\nmax_tokens = 20")), @"
    DIR/rows.json: no row has a token to train on (template `alpaca`, max_tokens 20): row 1 has 82 tokens, and truncation removed all 2 tokens of its answer
    hint: raise `data.max_tokens`, so that prompts leave room for their answers
    ");
    insta::assert_snapshot!(error(&folder, &format!("{TRAIN}\nmax_tokens = 20\noverlong = \"drop\"")), @r#"
    DIR/rows.json: no row has a token to train on (template `alpaca`, max_tokens 20): row 1 has 82 tokens, and overlong rows are dropped
    hint: raise `data.max_tokens`, or set `data.overlong = "truncate"`
    "#);
}

#[test]
fn a_row_that_its_template_cannot_render_is_named() {
    let folder = folder();
    insta::assert_snapshot!(error(&folder, r#"train = [{ path = "DIR/rows.json", template = "completion" }]"#), @"
    DIR/rows.json: row 1 (line 1): template `completion` does not render instruction/output rows
    hint: name another template for this file: alpaca, alpaca-short, alpaca-lora, vicuna-v0, vicuna-v1.1, koala, baize, gpt4all, chatdoctor, llama-2-chat, llama-3, chatml, completion, chat
    ");
}

#[test]
fn a_tokenizer_without_eos_cannot_train() {
    let folder = folder();
    let error = Dataset::load(
        &config(&folder, TRAIN),
        &Arc::new(bare_tiny()),
        steps(42),
        &mut (),
    )
    .unwrap_err();
    assert!(matches!(
        error,
        DataError::Tokenizer(crate::tokenizer::TokenizerError::NoEos { .. })
    ));
}

#[test]
fn a_date_in_the_text_is_reported() {
    let folder = folder();
    let chat = r#"train = [{ path = "DIR/rows.json", template = "chat" }]"#;
    let dated = crate::tokenizer::tests::with_config(&json!({
        "eos_token": "<|im_end|>",
        "chat_template": "{{ strftime_now('%Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    }));
    let dated = Arc::new(dated);
    let load =
        |text: &str| Dataset::load(&config(&folder, text), &dated, steps(42), &mut ()).unwrap();
    let data = load(&format!("{chat}\ndate = \"2024-07-26\""));
    assert_eq!(
        data.report.train[0].date,
        chrono::NaiveDate::from_ymd_opt(2024, 7, 26)
    );
    let dated = load(&format!("{chat}\ndate = \"2024-07-26\""));
    assert_eq!(data.examples(), dated.examples());
    assert!(load(chat).report.train[0].date.is_some());
}

#[test]
fn answers_that_start_otherwise_than_generated_are_reported() {
    let folder = folder();
    let report = |prompt: &str| {
        let template = format!(
            "{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ m.content }}}}<|im_end|>{{% endfor %}}\
             {{% if add_generation_prompt %}}{prompt}{{% endif %}}"
        );
        let tokenizer = Arc::new(crate::tokenizer::tests::with_config(
            &json!({"eos_token": "<|im_end|>", "chat_template": template}),
        ));
        let config = config(
            &folder,
            r#"train = [{ path = "DIR/rows.json", template = "chat" }]"#,
        );
        let data = Dataset::load(&config, &tokenizer, steps(42), &mut ()).unwrap();
        data.report.to_string()
    };
    let thinking = report("<assistant><think>\n");
    let line = "\n  warning: the generation prompt is not how these answers start in training: 20 rows (1, 2, 3, 4, 5, ...)";
    assert!(thinking.contains(line), "{thinking}");
    assert!(!report("<assistant>").contains("warning"));
}

/// The rows of the first batches.
fn rows_of(data: &mut Dataset, batches: usize) -> Vec<usize> {
    let mut cursor = Cursor::default();
    let mut rows = Vec::new();
    for _ in 0..batches {
        let (batch, examples) = data.batch(cursor).unwrap();
        rows.extend(examples.iter().map(|example| example.origin.row));
        cursor = batch.next;
    }
    rows
}

#[test]
fn sources_are_mixed_by_weight() {
    let folder = folder();
    let more: Vec<_> = (1..=5)
        .map(|row| json!({"instruction": format!("More {row}."), "output": "y"}))
        .collect();
    write(folder.path(), "more.json", &json!(more));
    let text = r#"
    train = [
        { path = "DIR/rows.json", template = "alpaca", weight = 1.0 },
        { path = "DIR/more.json", template = "alpaca", weight = 3.0 },
    ]"#;
    let count = |text: &str| {
        let mut data = load(&folder, text).unwrap();
        let mut cursor = Cursor::default();
        let mut of_more = 0;
        for _ in 0..25 {
            let (batch, examples) = data.batch(cursor).unwrap();
            let is_more = |example: &&Example| example.origin.file.ends_with("more.json");
            of_more += examples.iter().filter(is_more).count();
            cursor = batch.next;
        }
        of_more
    };
    // An epoch is 25 rows in seven batches: 25 batches are 91 rows, three quarters of them from more.json.
    let of_more = count(text);
    assert!((68..=71).contains(&of_more), "{of_more}");
    let streamed = count(&format!("{text}\nstream = true"));
    assert_eq!(streamed, 75, "3 of 4 in each of 25 batches");
    let one = text.replacen(", weight = 1.0", "", 1);
    insta::assert_snapshot!(error(&folder, &one), @"data.train.weight: expected a weight for every source or for none, found 1 of 2");
}

#[test]
fn a_stream_gives_every_row_in_every_pass() {
    let folder = folder();
    let text = format!("{TRAIN}\nstream = true");
    for more in ["shuffle = false", "shuffle_rows = 7", "shuffle_rows = 100"] {
        let mut data = load(&folder, &format!("{text}\n{more}")).unwrap();
        assert!(data.examples().is_none());
        let rows = rows_of(&mut data, 10);
        for pass in rows.chunks(20) {
            let mut pass = pass.to_vec();
            if more == "shuffle = false" {
                assert!(pass.iter().copied().eq(1..=20));
            } else {
                assert!(!pass.iter().copied().eq(1..=20), "{more}");
            }
            pass.sort_unstable();
            assert!(pass.into_iter().eq(1..=20), "{more}");
        }
    }
    let said = error(&folder, &format!("{text}\nvalidation = {{ rows = 3 }}"));
    insta::assert_snapshot!(said, @"data.validation: `fraction` and `rows` cannot hold out rows of a stream; use `files`");
}

#[test]
fn a_stream_does_not_go_on_with_another_file() {
    let folder = folder();
    let text = format!("{TRAIN}\nstream = true\nshuffle = false");
    let mut data = load(&folder, &text).unwrap();
    rows_of(&mut data, 10);
    let rows = folder.path().join("rows.json");
    let text = fs::read_to_string(&rows).unwrap();
    fs::write(&rows, text + "\n").unwrap();
    let mut cursor = Cursor::default();
    let error = (0..1000).find_map(|_| match data.batch(cursor) {
        Ok((batch, _)) => {
            cursor = batch.next;
            None
        }
        Err(error) => Some(error),
    });
    let said = error.unwrap().to_string();
    assert!(
        said.ends_with("rows.json: the file changed while it was in use"),
        "{said}"
    );
    fs::remove_file(&rows).unwrap();
    assert!(matches!(
        data.batch(Cursor::default()),
        Err(DataError::Read { .. })
    ));
}

#[test]
fn a_stream_goes_on_from_any_cursor() {
    let folder = folder();
    let more: Vec<_> = (1..=9)
        .map(|row| json!({"text": "word ".repeat(7 * row)}))
        .collect();
    write(folder.path(), "text.json", &json!(more));
    let weighted = r#"
    train = [
        { path = "DIR/rows.json", template = "alpaca", weight = 1.0 },
        { path = "DIR/text.json", template = "completion", weight = 2.0 },
    ]
    max_tokens = 120
    overlong = "split""#;
    for text in [
        weighted.to_owned(),
        weighted.replace("max_tokens = 120", "max_tokens = 9"),
        TRAIN.to_owned(),
    ] {
        for shuffle in ["shuffle = false", "shuffle_rows = 6"] {
            let text = format!("{text}\nstream = true\n{shuffle}");
            // Rows truncated to 9 tokens leave no answer of the first source, which is an error.
            let Ok(mut data) = load(&folder, &text) else {
                assert!(text.contains("= 9"));
                continue;
            };
            let mut cursor = Cursor::default();
            let mut all = Vec::new();
            for _ in 0..12 {
                let (batch, examples) = data.batch(cursor).unwrap();
                all.push((cursor, examples));
                cursor = batch.next;
            }
            for (cursor, expected) in all.into_iter().rev() {
                let mut fresh = load(&folder, &text).unwrap();
                let (_, examples) = fresh.batch(cursor).unwrap();
                assert_eq!(examples, expected, "{text} {cursor:?}");
            }
        }
    }
}

#[test]
fn pieces_of_a_row_stay_on_one_side() {
    let folder = folder();
    let text: Vec<_> = (1..=8)
        .map(|row| json!({"text": "word ".repeat(20 * row)}))
        .collect();
    write(folder.path(), "text.json", &json!(text));
    let text = r#"
    train = [{ path = "DIR/text.json", template = "completion" }]
    max_tokens = 30
    overlong = "split"
    validation = { rows = 3 }"#;
    let data = load(&folder, text).unwrap();
    let rows = |examples: &[Example]| -> Vec<usize> {
        let mut rows: Vec<_> = examples.iter().map(|example| example.origin.row).collect();
        rows.dedup();
        rows
    };
    let (train, validation) = (rows(data.examples().unwrap()), rows(&data.validation));
    assert_eq!((train.len(), validation.len()), (5, 3));
    assert!(train.iter().all(|row| !validation.contains(row)));
    assert!(data.validation.len() > 3, "rows were split");
}

/// A folder with 100 rows of which the first and every 25th are bad, each in another way.
fn folder_with_bad_rows() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut lines = Vec::new();
    for row in 1..=100 {
        lines.push(match row {
            1 => r#"{"other": "keys"}"#.to_owned(),
            25 => {
                json!({"messages": [{"role": "user", "content": "Only a question."}]}).to_string()
            }
            50 => r#"{"messages": [{"role": "us"#.to_owned(),
            75 => json!({"messages": null}).to_string(),
            100 => json!({"messages": [{"role": "user", "content": ["?"]}]}).to_string(),
            _ => json!({"messages": [
                {"role": "user", "content": format!("Write {row}.")},
                {"role": "assistant", "content": row.to_string()},
            ]})
            .to_string(),
        });
    }
    std::fs::write(folder.path().join("rows.jsonl"), lines.join("\n")).unwrap();
    folder
}

const BAD: &str = r#"train = [{ path = "DIR/rows.jsonl", template = "chatml" }]"#;

#[test]
fn bad_rows_are_left_out_counted_and_listed() {
    let folder = folder_with_bad_rows();
    let first = error(&folder, BAD);
    assert!(
        first.starts_with("DIR/rows.jsonl: row 1 (line 1): unknown format"),
        "{first}"
    );
    let drop = format!("{BAD}\nbad_rows = \"drop\"");
    let data = load(&folder, &drop).unwrap();
    assert_eq!(data.examples().unwrap().len(), 95);
    let report = data.report.to_string();
    for part in [
        "rows.jsonl: 100 rows (messages, template chatml): 95 examples",
        "\n  cannot be used: 5 rows\n",
        "    invalid JSON: 1 row\n",
        "rows.jsonl: row 50 (line 50): invalid JSON at line 50 column 26: EOF while parsing a string",
        "rows.jsonl: row 25 (line 25)",
        "rows.jsonl: row 100 (line 100)",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    // 5 of 100 rows are within the default share
    let many = error(&folder, &format!("{drop}\nmax_bad_share = 0.04"));
    let start = "DIR/rows.jsonl: 5 of 100 rows cannot be used, more than `data.max_bad_share` = 0.04 of them; the first: DIR/rows.jsonl: row 1 (line 1): ";
    assert!(many.starts_with(start), "{many}");
    insta::assert_snapshot!(error(&folder, &format!("{drop}\nmax_bad_share = 1.5")), @"data.max_bad_share: expected a number from 0 to 1, found 1.5");
}

#[test]
fn a_bad_row_in_the_middle_has_a_hint() {
    let folder = folder();
    let rows = [
        r#"{"prompt": "a", "completion": "b"}"#,
        r#"{"prompt": "a"}"#,
    ];
    std::fs::write(folder.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let text = r#"train = [{ path = "DIR/rows.jsonl", template = "completion" }]"#;
    insta::assert_snapshot!(error(&folder, text), @r#"
    DIR/rows.jsonl: row 2 (line 2): missing key `completion`; the row has `prompt`
    hint: add the key; a row of format prompt_completion has `prompt` and `completion` (or `response`); or set data.bad_rows = "drop" to leave such rows out
    "#);
    let all = format!("{text}\nbad_rows = \"drop\"\nmax_bad_share = 1.0");
    assert_eq!(load(&folder, &all).unwrap().examples().unwrap().len(), 1);
    std::fs::write(folder.path().join("rows.jsonl"), r#"{"prompt": "a"}"#).unwrap();
    let none = error(&folder, &all);
    assert!(
        none.starts_with("DIR/rows.jsonl: 1 of 1 row cannot be used"),
        "{none}"
    );
}

#[test]
fn bad_rows_of_a_stream_are_left_out() {
    let folder = folder_with_bad_rows();
    let text = format!("{BAD}\nstream = true\nbad_rows = \"drop\"\nmax_bad_share = 0.1");
    for more in ["shuffle = false", "shuffle_rows = 7"] {
        let text = format!("{text}\n{more}");
        let mut data = load(&folder, &text).unwrap();
        let mut rows = rows_of(&mut data, 24);
        let streamed = data.streamed().unwrap();
        assert!(streamed.train[0].unusable.rows >= 5);
        rows.truncate(95);
        rows.sort_unstable();
        let good = (1..=100).filter(|row| ![1, 25, 50, 75, 100].contains(row));
        assert!(rows.into_iter().eq(good), "{more}");
        // a stream goes on from any position
        let mut cursor = Cursor::default();
        let mut all = Vec::new();
        for _ in 0..30 {
            let (batch, examples) = data.batch(cursor).unwrap();
            all.push((cursor, examples));
            cursor = batch.next;
        }
        for (cursor, expected) in all {
            let mut fresh = load(&folder, &text).unwrap();
            assert_eq!(fresh.batch(cursor).unwrap().1, expected, "{cursor:?}");
        }
    }
}

#[test]
fn a_stream_stops_at_too_many_bad_rows() {
    let folder = TempDir::new().unwrap();
    let good = json!({"text": "word"}).to_string();
    let rows: Vec<&str> = (0..10_000)
        .map(|_| good.as_str())
        .chain((0..1200).map(|row| if row % 2 == 0 { "{}" } else { good.as_str() }))
        .collect();
    std::fs::write(folder.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let text = "train = [{ path = \"DIR/rows.jsonl\", template = \"completion\" }]
        stream = true
        shuffle = false
        bad_rows = \"drop\"
        max_bad_share = 0.02";
    // the first 10,000 rows are good
    let mut data = load(&folder, text).unwrap();
    let mut cursor = Cursor::default();
    let error = loop {
        match data.batch(cursor) {
            Ok((batch, _)) => cursor = batch.next,
            Err(error) => break error.to_string(),
        }
    };
    assert!(
        error.contains("rows cannot be used, more than `data.max_bad_share` = 0.02"),
        "{error}"
    );
}

#[test]
fn a_check_lists_every_bad_row() {
    let folder = folder_with_bad_rows();
    let report = check(&config(&folder, BAD), &tiny(), &mut ()).unwrap();
    assert_eq!(
        (report.train[0].rows, report.train[0].unusable.rows),
        (100, 5)
    );
    assert_eq!(report.train[0].unusable.kinds.len(), 5);
}

#[test]
fn a_folder_in_the_layout_of_the_hub_is_read_by_splits() {
    let folder = TempDir::new().unwrap();
    let row = |text: &str| json!([{"prompt": "a", "completion": text}]);
    std::fs::create_dir(folder.path().join("rows")).unwrap();
    for name in ["train-1", "train-2", "test-1", "dev"] {
        write(folder.path(), &format!("rows/{name}.json"), &row(name));
    }
    let text = "train = [{ path = \"DIR/rows\", template = \"completion\" }]
        validation = { files = [{ path = \"DIR/rows\", template = \"completion\" }] }";
    let data = load(&folder, text).unwrap();
    let report = data.report.to_string();
    insta::assert_snapshot!(report.replace(&folder.path().display().to_string(), "DIR"), @"
    DIR/rows: 2 rows (prompt_completion, template completion): 2 examples, 16 tokens, 14 of them trained on
      files: train-1.json (1 row), train-2.json (1 row)
      not read: dev.json (validation), test-1.json (test)
      a token lies across prompt and answer: 2 rows (1, 1)
    DIR/rows: 1 row (prompt_completion, template completion): 1 example, 5 tokens, 4 of them trained on
      files: dev.json (1 row)
      not read: test-1.json (test), train-1.json (train), train-2.json (train)
    ");
    assert_eq!(
        (data.examples().unwrap().len(), data.validation.len()),
        (2, 1)
    );
}
