use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;
use simmer_hint::Hint;
use tempfile::TempDir;

use super::*;
use crate::conversation::{Conversation, Message, Role};
use crate::error::DataError;

/// The content of a file.
#[derive(Debug)]
struct Source {
    conversations: Vec<Conversation>,
    ignored_keys: BTreeMap<String, usize>,
}

fn read_with(path: &Path, reading: &Reading) -> Result<Source, DataError> {
    let mut reader = Reader::open(&[path.into()], reading)?;
    let mut conversations = Vec::new();
    loop {
        // The number of rows is rarely a multiple of 3.
        let chunk = reader.next_chunk(3)?;
        if chunk.is_empty() {
            break;
        }
        conversations.extend(chunk);
    }
    Ok(Source {
        conversations,
        ignored_keys: reader.ignored_keys().clone(),
    })
}

/// Reads a file with this text; error messages name it `rows.json`.
fn read_text(text: impl AsRef<[u8]>) -> Result<Source, String> {
    read_as(text, None)
}

fn read_as(text: impl AsRef<[u8]>, format: Option<Format>) -> Result<Source, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.json");
    std::fs::write(&path, text).unwrap();
    let reading = Reading {
        format,
        ..Reading::default()
    };
    read_with(&path, &reading).map_err(|error| explain(&error, folder.path()))
}

/// The error and its hint as the program shows them.
fn explain(error: &DataError, folder: &std::path::Path) -> String {
    let text = match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    };
    text.replace(&format!("{}/", folder.display()), "")
}

fn error(text: impl AsRef<[u8]>) -> String {
    read_text(text).unwrap_err()
}

fn contents(text: &str) -> Vec<Content> {
    let rows = read_text(text).unwrap().conversations;
    rows.into_iter().map(|row| row.content).collect()
}

fn instruction(input: Option<&str>, output: &str) -> Content {
    Content::Instruction {
        system: None,
        instruction: "Add.".into(),
        input: input.map(Into::into),
        output: Some(output.into()),
    }
}

#[test]
fn alpacas_variants_are_read() {
    let rows = r#"[
        {"instruction": "Add.", "input": "1 1", "output": "2"},
        {"instruction": "Add.", "output": "2"},
        {"instruction": "Add.", "input": null, "response": "2", "id": 7},
        {"instruction": "Add.", "input": "", "completion": ""},
        {"instruction": "Add.", "context": "1 1", "output": "2", "text": "whole", "category": "sums", "input": ""}
    ]"#;
    assert_eq!(
        contents(rows),
        [
            instruction(Some("1 1"), "2"),
            instruction(None, "2"),
            instruction(None, "2"),
            instruction(None, ""),
            instruction(Some("1 1"), "2"),
        ]
    );
    let source = read_text(rows).unwrap();
    let ignored: Vec<_> = source.ignored_keys.into_iter().collect();
    assert_eq!(
        ignored,
        [("category".into(), 1), ("id".into(), 1), ("text".into(), 1)]
    );
}

#[test]
fn alpacas_history_and_system_become_messages() {
    let row = json!({
        "instruction": "And 2 and 2?", "input": "", "output": "4", "system": "Be brief.", "history": [["1 and 1?", "2"]],
    });
    let [Content::Messages(messages)] = &contents(&row.to_string())[..] else {
        panic!("no messages");
    };
    let said: Vec<_> = messages
        .iter()
        .map(|m| (m.role, m.content.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (Role::System, "Be brief."),
            (Role::User, "1 and 1?"),
            (Role::Assistant, "2"),
            (Role::User, "And 2 and 2?"),
            (Role::Assistant, "4"),
        ]
    );
}

#[test]
fn the_other_formats_are_read() {
    let completion = || Content::Completion {
        prompt: "1 + 1 =".into(),
        completion: Some(" 2".into()),
    };
    let rows = r#"[
        {"prompt": "1 + 1 =", "completion": " 2"},
        {"prompt": "1 + 1 =", "response": " 2", "source": "x"}
    ]"#;
    assert_eq!(contents(rows), [completion(), completion()]);
    assert_eq!(
        contents(r#"{"text": "Words.", "meta": {}}"#),
        [Content::Text("Words.".into())]
    );
    let messages = vec![
        Message::new(Role::User, "Hi"),
        Message::new(Role::Assistant, "Hello"),
    ];
    let row = json!({"id": "a", "messages": messages});
    assert_eq!(contents(&row.to_string()), [Content::Messages(messages)]);
}

#[test]
fn rows_know_their_positions() {
    let place = |text: &str| {
        let rows = read_text(text).unwrap().conversations;
        let places = rows.iter().map(|row| (row.origin.row, row.origin.line));
        places.collect::<Vec<_>>()
    };
    assert_eq!(
        place("[\n{\"text\": \"a\"},\n\n{\"text\":\n\"b\"}, {\"text\": \"c\"}]"),
        [(1, 2), (2, 4), (3, 5)]
    );
    assert_eq!(
        place("{\"text\": \"a\"}\n\n  \n{\"text\": \"b\"}\r\n"),
        [(1, 1), (2, 4)]
    );
    assert_eq!(place("\u{FEFF}[{\"text\": \"a\"}]"), [(1, 1)]);
}

#[test]
fn a_missing_file_names_the_current_directory() {
    let absolute = TempDir::new().unwrap();
    let error = read(&absolute.path().join("none.json"), None).unwrap_err();
    insta::assert_snapshot!(explain(&error, absolute.path()), @"cannot read none.json: No such file or directory (os error 2)");
    let error = read(&PathBuf::from("no/such.json"), None).unwrap_err();
    assert!(
        error
            .hint()
            .unwrap()
            .starts_with("check the path, which is relative to /")
    );
}

#[test]
fn invalid_files_name_the_position() {
    insta::assert_snapshot!(error(""), @"rows.json: no rows");
    insta::assert_snapshot!(error(" \n[]"), @"rows.json: no rows");
    insta::assert_snapshot!(error("[{\"text\": \"a\"},\n {\"text\": \"b\",}]"), @"
    rows.json: invalid JSON at line 2 column 15: trailing comma
    hint: remove the comma before the closing bracket
    ");
    insta::assert_snapshot!(error("{\"text\": \"a\"}\n{\"text\": \"b\" \"c\"}"), @"
    rows.json: invalid JSON at line 2 column 14: expected `,` or `}`
    hint: save the file in UTF-8, as a JSON array of objects or as JSONL (one object per line)
    ");
    insta::assert_snapshot!(error("{\n  \"text\": \"a\"\n"), @r"
    rows.json: invalid JSON at line 2 column 13: EOF while parsing an object
    hint: the row ends too early: the file is incomplete, or a text has a line break that should be written as \n
    ");
    insta::assert_snapshot!(error("[{\"text\": \"a\"},\n  {\"text\": \"\\ud800\"}]"), @r"
    rows.json: invalid JSON at line 2 column 19: unexpected end of hex escape
    hint: a \u escape from \ud800 to \udfff is half of a character: write both halves, or the character itself
    ");
    insta::assert_snapshot!(error("[{\"text\": \"a\"},\n  {\"text\": \"b\", \"text\": \"c\"}]"), @"
    rows.json: row 2 (line 2): duplicate key `text`
    hint: keep one of them
    ");
    insta::assert_snapshot!(error(b"{\"text\": \"a\"}\n{\"text\": \"\xE9\"}"), @r#"
    rows.json: line 2 is not UTF-8
    hint: save the file in UTF-8: Excel's is called "CSV UTF-8"; of a file in Windows-1252, `iconv -f CP1252 -t UTF-8 FILE` makes one
    "#);
}

#[test]
fn rows_that_cannot_be_used_say_why() {
    let good = json!({"instruction": "Add.", "input": "1 1", "output": "2"});
    let second = |row: serde_json::Value| error(format!("[{good},\n{row}]"));
    insta::assert_snapshot!(second(json!({"input": "1 1", "output": "2"})), @r#"
    rows.json: row 2 (line 2): missing key `instruction`; the row has `input`, `output`
    hint: add the key, or set `fields = { instruction = "input" }` beside the path; a row of format alpaca has `instruction`, `output`, and optionally `input`
    "#);
    insta::assert_snapshot!(second(json!({"instruction": null, "output": "2"})), @"
    rows.json: row 2 (line 2): key `instruction`: expected a value, found null; the row has `instruction = null`, `output`
    hint: give `instruction` a value, or remove the row
    ");
    insta::assert_snapshot!(second(json!({"instruction": " ", "output": "2"})), @"rows.json: row 2 (line 2): `instruction` is empty");
    insta::assert_snapshot!(second(json!({"instruction": "Add.", "input": "1 1"})), @"
    rows.json: row 2 (line 2): missing key `output`; the row has `instruction`, `input`
    hint: add the key; a row of format alpaca has `instruction`, `output`, and optionally `input`
    ");
    insta::assert_snapshot!(second(json!({"instruction": "Add.", "output": 2})), @"
    rows.json: row 2 (line 2): key `output`: expected a string, found a number
    hint: put it in quotes, so that it is text
    ");
    insta::assert_snapshot!(second(json!({"instruction": "Add.", "output": "2", "response": "3"})), @"
    rows.json: row 2 (line 2): expected `output` or `response`, found both
    hint: keep one of them
    ");
    insta::assert_snapshot!(second(json!({"instruction": "Add.", "output": "2", "history": "x"})), @"rows.json: row 2 (line 2): key `history`: expected a list of [question, answer] pairs, found a string");
    insta::assert_snapshot!(second(json!({"instruction": "Add.", "output": "2", "tools": ["x"]})), @"
    rows.json: row 2 (line 2): key `tools[0]`: the string is not valid JSON: expected value at line 1 column 1
    hint: write the value itself, or its JSON text
    ");
    insta::assert_snapshot!(second(json!({"prompt": "1 + 1 =", "completion": "2"})), @"
    rows.json: row 2 (line 2): expected format alpaca (`instruction`, `output`, and optionally `input`), found prompt_completion; the row has `prompt`, `completion`
    hint: a file has one format: move these rows to a second file and name both in `data.train`
    ");
    insta::assert_snapshot!(second(json!(["Add.", "2"])), @r#"
    rows.json: row 2 (line 2): expected an object, found a list
    hint: rows are objects, such as {"prompt": "...", "completion": "..."}
    "#);
}

#[test]
fn an_unknown_format_lists_the_known_ones() {
    insta::assert_snapshot!(error(r#"{"input": "1 1", "output": "2"}"#), @r#"
    rows.json: row 1 (line 1): unknown format; the row has `input`, `output`
    hint: to read these rows as questions and answers, set `fields = { instruction = "input" }` beside their path
    "#);
    insta::assert_snapshot!(error(r#"{"words": "1 1"}"#), @r#"
    rows.json: row 1 (line 1): unknown format; the row has `words`
    hint: rename the keys to those of a known format, or name them beside the path, such as `format = "alpaca", fields = { instruction = "...", output = "..." }`; the formats: messages (`messages`, a list of {role, content}); sharegpt (`conversations`, a list of {from, value}); baize (`topic` and `input`, a conversation between [|Human|] and [|AI|]); alpaca (`instruction`, `output`, and optionally `input`); prompt_completion (`prompt` and `completion` (or `response`)); text (`text`)
    "#);
    insta::assert_snapshot!(read_as(r#"{"input": "1 1", "output": "2"}"#, Some(Format::Alpaca)).unwrap_err(), @r#"
    rows.json: row 1 (line 1): missing key `instruction`; the row has `input`, `output`
    hint: add the key, or set `fields = { instruction = "input" }` beside the path; a row of format alpaca has `instruction`, `output`, and optionally `input`
    "#);
    insta::assert_snapshot!(read_as(r#"{"text": "a"}"#, Some(Format::Alpaca)).unwrap_err(), @"
    rows.json: row 1 (line 1): expected format alpaca (`instruction`, `output`, and optionally `input`), found text; the row has `text`
    hint: a file has one format: move these rows to a second file and name both in `data.train`
    ");
}

#[test]
fn messages_with_unused_content_are_refused() {
    let row = |messages: serde_json::Value| error(json!({"messages": messages}).to_string());
    let user = json!({"role": "user", "content": "Hi"});
    let answer = json!({"role": "assistant", "content": "Hello"});
    insta::assert_snapshot!(row(json!([answer, user])), @"rows.json: row 1 (line 1): messages[0]: expected a message from user, found assistant");
    insta::assert_snapshot!(row(json!([user])), @"
    rows.json: row 1 (line 1): no message is from the assistant, so there is nothing to train on
    hint: move the answer into the messages, as the last one; it may be under another key (`chosen` of preferences)
    ");
    insta::assert_snapshot!(row(json!([user, answer, {"role": "system", "content": "Late"}])), @"rows.json: row 1 (line 1): messages[2]: expected a message from user, assistant or tool, found system");
    insta::assert_snapshot!(row(json!([{"role": "asistant", "content": "Hi"}, answer])), @"
    rows.json: row 1 (line 1): key `messages[0].role`: expected one of system, developer, user, human, assistant, gpt, chatgpt, bing, bard, model, ai, bot, tool, observation, function_response, tool_response, ipython, function, function_call, tool_call; found `asistant`
    hint: did you mean `assistant`?
    ");
    insta::assert_snapshot!(row(json!([user, {"role": "assistant", "content": null}])), @"
    rows.json: row 1 (line 1): key `messages[1].content`: expected a string, found null
    hint: give it a value, or remove it
    ");
    insta::assert_snapshot!(row(json!([user, {"role": "assistant", "content": "", "image": "x.png"}])), @"
    rows.json: row 1 (line 1): key `messages[1].image`: images, audio and video cannot be trained on; text alone can
    hint: remove the row, or the key if the text alone is enough
    ");
    insta::assert_snapshot!(row(json!([user, {"role": "assistant", "content": [{"type": "image_url"}]}])), @"
    rows.json: row 1 (line 1): key `messages[1].content[0]`: images, audio and video cannot be trained on; text alone can; found a part of type image_url
    hint: remove the row, or the key if the text alone is enough
    ");
    insta::assert_snapshot!(row(json!([user, {"role": "assistant", "content": "Hello", "weight": 0.5}])), @"rows.json: row 1 (line 1): key `messages[1].weight`: expected 0 or 1, found a number");
    insta::assert_snapshot!(row(json!(["Hi"])), @r#"
    rows.json: row 1 (line 1): key `messages[0]`: expected an object, found a string
    hint: write messages as objects of `role` and `content`; a file of columns is saved as rows with pandas' `to_json(path, orient="records", lines=True)`
    "#);
    insta::assert_snapshot!(row(json!("Hi")), @"rows.json: row 1 (line 1): key `messages`: expected a list, found a string");
}

#[test]
fn messages_are_named_by_the_key_of_the_row() {
    let turn = |from: &str, value: &str| json!({"from": from, "value": value});
    let (asked, answered) = (turn("human", "Hi"), turn("gpt", "Hello"));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.json");
    let read = |own: &str, turns: &[&serde_json::Value]| {
        std::fs::write(&path, json!({own: turns}).to_string()).unwrap();
        let own = (own != "conversations").then(|| ("conversations".to_owned(), own.to_owned()));
        let reading = Reading {
            fields: Fields::new(own),
            ..Reading::default()
        };
        let read = read_with(&path, &reading);
        let read = read.map(|mut source| source.conversations.remove(0));
        read.map_err(|error| {
            explain(&error, folder.path())
                .lines()
                .next()
                .unwrap()
                .to_owned()
        })
    };
    let late = turn("system", "Late");
    let errors = ["conversations", "dialog"].map(|own| {
        let row = read(own, &[&asked, &answered]).unwrap();
        [
            row.list.at(1),
            read(own, &[&answered, &asked]).unwrap_err(),
            read(own, &[&asked, &json!("Hello")]).unwrap_err(),
            read(own, &[&asked, &answered, &late]).unwrap_err(),
        ]
        .join("\n")
    });
    insta::assert_snapshot!(errors.join("\n"), @"
    conversations[1]
    rows.json: row 1 (line 1): conversations[0]: expected a message from user, found assistant
    rows.json: row 1 (line 1): key `conversations[1]`: expected an object, found a string
    rows.json: row 1 (line 1): conversations[2]: expected a message from user, assistant or tool, found system
    dialog[1]
    rows.json: row 1 (line 1): dialog[0]: expected a message from user, found assistant
    rows.json: row 1 (line 1): key `dialog[1]`: expected an object, found a string
    rows.json: row 1 (line 1): dialog[2]: expected a message from user, assistant or tool, found system
    ");
}

#[test]
fn messages_keep_what_chat_templates_use() {
    let row = json!({
        "tools": [{"name": "find"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Where"}, {"type": "text", "text": "?"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"name": "find"}], "weight": 0},
            {"role": "tool", "content": "Paris", "tool_call_id": "1", "name": "find"},
            {"role": "assistant", "content": "Paris.", "train": true},
        ],
    });
    let read = read_text(row.to_string()).unwrap().conversations.remove(0);
    assert_eq!(read.tools, Some(json!([{"name": "find"}])));
    let Content::Messages(messages) = read.content else {
        panic!("no messages");
    };
    let train: Vec<_> = messages.iter().map(|message| message.train).collect();
    assert_eq!(train, [None, Some(false), None, Some(true)]);
    assert_eq!(messages[0].content, "Where?");
    assert_eq!(messages[1].more["tool_calls"], json!([{"name": "find"}]));
    assert_eq!(messages[2].more["tool_call_id"], json!("1"));
}

#[test]
fn sharegpt_names_speakers_in_many_ways() {
    let turns = json!([{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]);
    let row = json!({"id": "a", "conversations": turns}).to_string();
    let read = read_text(&row).unwrap().conversations.remove(0);
    let roles: Vec<_> = read
        .messages()
        .unwrap()
        .iter()
        .map(|message| message.role)
        .collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
    let answer = json!([{"from": "gpt", "value": "Welcome"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]);
    let row = json!({"conversations": answer}).to_string();
    insta::assert_snapshot!(error(&row), @"
    rows.json: row 1 (line 1): conversations[0]: expected a message from user, found assistant
    hint: set `drop_leading_answers = true` next to the path to drop answers before the first user message
    ");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.json");
    std::fs::write(&path, &row).unwrap();
    let reading = Reading {
        drop_leading_answers: true,
        ..Reading::default()
    };
    let read = read_with(&path, &reading).unwrap().conversations.remove(0);
    assert_eq!(read.messages().unwrap()[0].content, "Hi");
    let row = json!({"conversations": [{"from": "robot", "value": "Hi"}]}).to_string();
    insta::assert_snapshot!(error(&row), @"
    rows.json: row 1 (line 1): key `conversations[0].from`: expected one of system, developer, user, human, assistant, gpt, chatgpt, bing, bard, model, ai, bot, tool, observation, function_response, tool_response, ipython, function, function_call, tool_call; found `robot`
    hint: rename the role, or remove the message
    ");
}

#[test]
fn rows_may_lack_the_answer_where_they_are_to_be_answered() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.json");
    let reading = Reading {
        without_answers: true,
        ..Reading::default()
    };
    for row in [
        json!({"prompt": "Hi"}),
        json!({"prompt": "Hi", "completion": null}),
        json!({"system": "Be brief.", "prompt": "Hi"}),
        json!({"prompt": [{"role": "user", "content": "Hi"}]}),
        json!({"instruction": "Hi"}),
        json!({"instruction": "Hi", "history": [["a", "b"]]}),
        json!({"messages": [{"role": "user", "content": "Hi"}]}),
        json!({"conversations": [{"from": "human", "value": "Hi"}]}),
    ] {
        std::fs::write(&path, row.to_string()).unwrap();
        let read = read_with(&path, &reading).unwrap().conversations.remove(0);
        let messages = read.messages().unwrap();
        let last = messages.last().unwrap();
        assert_eq!((last.role, last.content.as_str()), (Role::User, "Hi"));
        read_with(&path, &Reading::default()).unwrap_err();
    }
}

#[test]
fn structure_comes_to_one_form() {
    let tool = json!({"name": "f", "parameters": {"type": "object", "x": null}});
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    let read = |tools: serde_json::Value| {
        let row = json!({"messages": turns, "tools": tools}).to_string();
        read_text(row).map(|mut source| source.conversations.remove(0).tools)
    };
    for tools in [
        json!([tool]),
        json!(tool),
        json!(json!([tool]).to_string()),
        json!([tool.to_string()]),
    ] {
        assert_eq!(read(tools), Ok(Some(json!([tool]))));
    }
    for none in [
        json!(null),
        json!([]),
        json!(""),
        json!("[]"),
        json!("null"),
        json!({}),
    ] {
        assert_eq!(read(none), Ok(None));
    }
    insta::assert_snapshot!(read(json!("none")).unwrap_err(), @"
    rows.json: row 1 (line 1): key `tools`: the string is not valid JSON: expected ident at line 1 column 2
    hint: write the value itself, or its JSON text
    ");
    insta::assert_snapshot!(read(json!("[1]")).unwrap_err(), @"rows.json: row 1 (line 1): key `tools[0]`: expected an object, found a number");
}

#[test]
fn speakers_that_call_become_calls() {
    let row = |call: &str| {
        json!({"conversations": [
            {"from": "human", "value": "a"}, {"from": "function_call", "value": call},
            {"from": "observation", "value": "3"}, {"from": "gpt", "value": "b"},
        ]})
        .to_string()
    };
    let messages = |call: &str| {
        let mut rows = read_text(row(call)).unwrap().conversations;
        rows.remove(0).messages().unwrap()
    };
    let call =
        |name: &str| json!({"type": "function", "function": {"name": name, "arguments": {"x": 1}}});
    let one = messages(r#"{"name": "f", "arguments": {"x": 1}}"#);
    assert_eq!(one[1].more["tool_calls"], json!([call("f")]));
    assert_eq!((one[1].content.as_str(), one[2].role), ("", Role::Tool));
    let two = messages(
        r#"[{"name": "f", "parameters": {"x": 1}}, {"name": "g", "arguments": {"x": 1}}]"#,
    );
    assert_eq!(two[1].more["tool_calls"], json!([call("f"), call("g")]));
    for text in ["Rome", "{}", "[]", r#"{"name": "f"}"#] {
        let error = error(row(text));
        assert!(
            error.contains("row 1 (line 1): key `conversations[1].value`: expected a call"),
            "{error}"
        );
    }
}

#[test]
fn nulls_of_typed_columns_are_left_out() {
    let mut row = row::Row::new(vec![(
        "tools".into(),
        json!([{"name": "f", "parameters": {"a": null, "b": {"c": null, "d": 1}}}]),
    )]);
    row.typed = true;
    let tools = structure::take_tools(&mut row).unwrap();
    assert_eq!(
        tools,
        Some(json!([{"name": "f", "parameters": {"b": {"d": 1}}}]))
    );
    assert_eq!(row.unread().unwrap(), ["null members inside tools"]);
}

#[test]
fn preferences_media_and_weights_are_not_trained_on_in_silence() {
    let row = |key: &str, value: serde_json::Value| {
        read_text(json!({"prompt": "a", "completion": "b", key: value}).to_string()).map(|_| ())
    };
    for (key, value) in [
        ("rejected", json!("c")),
        ("label", json!(false)),
        ("kto_tag", json!(true)),
        ("chosen", json!([1])),
    ] {
        assert!(row(key, value).unwrap_err().contains(&format!(
            "row 1 (line 1): key `{key}`: this row has preferences"
        )));
    }
    for key in [
        "image",
        "images",
        "audio",
        "audios",
        "video",
        "videos",
        "image_path",
    ] {
        assert!(
            row(key, json!(["a"]))
                .unwrap_err()
                .contains(&format!("key `{key}`: images, audio and video"))
        );
        assert_eq!(row(key, json!(null)), Ok(()));
    }
    for weight in [json!(0), json!(0.5), json!("2")] {
        assert!(
            row("weight", weight)
                .unwrap_err()
                .contains("key `weight`: the weight of a row is 1")
        );
    }
    assert_eq!(row("weight", json!(1.0)), Ok(()));
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    let source = read_text(json!({"messages": turns, "loss_weight": 0}).to_string()).unwrap();
    assert_eq!(
        source.conversations[0].messages().unwrap()[1].train,
        Some(false)
    );
}

#[test]
fn common_layouts_of_messages_are_read() {
    let hi = || Message::new(Role::User, "a");
    let answer = || Message::new(Role::Assistant, "b");
    let (user, assistant) = (
        json!({"role": "user", "content": "a"}),
        json!({"role": "assistant", "content": "b"}),
    );
    let (human, gpt) = (
        json!({"from": "human", "value": "a"}),
        json!({"from": "gpt", "value": "b"}),
    );
    for row in [
        json!({"prompt": [user], "completion": [assistant]}),
        json!({"conversations": [user, assistant]}),
        json!({"messages": [human, gpt]}),
    ] {
        assert_eq!(
            contents(&row.to_string()),
            [Content::Messages(vec![hi(), answer()])]
        );
    }
    let row = json!({"system": "s", "messages": [user, assistant]}).to_string();
    let system = Message::new(Role::System, "s");
    assert_eq!(
        contents(&row),
        [Content::Messages(vec![system, hi(), answer()])]
    );
    let row = json!({"messages": [{"role": "user", "content": [{"type": "text", "value": "a"}]}, assistant]});
    assert!(
        error(row.to_string())
            .contains("a part of type text without the key `text`; it has `type`, `value`")
    );
}

#[test]
fn authors_of_other_toolkits_are_known() {
    // ms-swift's calls and results, and LangChain's names
    let row = json!({"messages": [
        {"role": "Human", "content": "a"},
        {"role": "tool_call", "content": r#"{"name": "f", "input": {"x": 1}}"#},
        {"role": "tool-response", "content": "3"},
        {"role": "ai", "content": "b", "weight": 1, "train": true},
    ]});
    let read = read_text(row.to_string()).unwrap().conversations.remove(0);
    let messages = read.messages().unwrap();
    let roles = messages.iter().map(|message| message.role);
    assert!(roles.eq([Role::User, Role::Assistant, Role::Tool, Role::Assistant]));
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
    assert_eq!(messages[1].more["tool_calls"], call);
    let both = json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0, "train": true},
    ]});
    insta::assert_snapshot!(error(both.to_string()), @"
    rows.json: row 1 (line 1): expected `weight` or `train`, found both
    hint: keep one of them
    ");
}

#[test]
fn a_system_message_and_a_history_may_be_written_in_many_ways() {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let turns = json!([turn("user", "a"), turn("assistant", "b")]);
    for (system, history) in [
        ("system", json!([["a", "b"]])),
        ("system_prompt", json!(r#"[["a", "b"]]"#)),
        ("system_message", turns.clone()),
        ("system", json!(turns.to_string())),
    ] {
        let row = json!({"instruction": "c", "output": "d", "history": history, system: "S"});
        let read = read_text(row.to_string()).unwrap().conversations.remove(0);
        let messages = read.messages().unwrap();
        let contents = messages.iter().map(|message| message.content.as_str());
        assert!(contents.eq(["S", "a", "b", "c", "d"]), "{history}");
    }
    let none = contents(r#"{"instruction": "a", "output": "b", "history": "[]"}"#);
    assert_eq!(none, contents(r#"{"instruction": "a", "output": "b"}"#));
}

#[test]
fn rows_under_other_names_are_read_as_the_hint_says() {
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    let hints = [
        json!({"id": 1, "dialog": turns}),
        json!({"Question": "a", "Answer": "b"}),
        json!({"problem": "a", "solution": "b"}),
        json!({"Body": "a"}),
        json!({"messages": null}),
        json!({"prompt": "a", "answer": "b"}),
    ]
    .map(|row| {
        error(row.to_string())
            .lines()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    });
    insta::assert_snapshot!(hints.join("\n"), @r#"
    hint: to read these rows as conversations, set `fields = { messages = "dialog" }` beside their path
    hint: to read these rows as questions and answers, set `fields = { instruction = "Question", output = "Answer" }` beside their path
    hint: to read these rows as questions and answers, set `fields = { instruction = "problem", output = "solution" }` beside their path
    hint: to read these rows as plain text, set `fields = { text = "Body" }` beside their path
    hint: `messages` is null in this row: give it a value, or remove the row
    hint: add the key, or set `fields = { completion = "answer" }` beside the path; a row of format prompt_completion has `prompt` and `completion` (or `response`)
    "#);
}

#[test]
fn fields_may_have_other_names() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.json");
    std::fs::write(&path, json!({"question": "Add.", "reply": "2"}).to_string()).unwrap();
    let read_as = |format: Option<Format>, fields: &[(&str, &str)]| {
        let fields = fields
            .iter()
            .map(|(name, own)| ((*name).to_owned(), (*own).to_owned()));
        let reading = Reading {
            format,
            fields: Fields::new(fields),
            ..Reading::default()
        };
        read_with(&path, &reading)
    };
    let read = |format: Format, fields: &[(&str, &str)]| {
        let read = read_as(Some(format), fields);
        read.map(|mut source| source.conversations.remove(0).content)
            .map_err(|error| explain(&error, folder.path()))
    };
    let named = [("instruction", "question"), ("output", "reply")];
    assert_eq!(read(Format::Alpaca, &named), Ok(instruction(None, "2")));
    insta::assert_snapshot!(read(Format::Alpaca, &[("instruction", "question"), ("answer", "reply")]).unwrap_err(), @"data.train.fields: format alpaca has no field `answer`; did you mean `instruction`? It has instruction, input, output, system, history, tools");
    insta::assert_snapshot!(read(Format::Alpaca, &[named[0], ("output", "replay")]).unwrap_err());
    let detected =
        |fields: &[(&str, &str)]| explain(&read_as(None, fields).unwrap_err(), folder.path());
    let wrong = [
        detected(&[("instruction", "qestion"), named[1]]),
        detected(&[("question", "instruction"), named[1]]),
        detected(&[("instruction", "x"), ("output", "y")]),
    ];
    insta::assert_snapshot!(wrong.join("\n"));
    insta::assert_snapshot!(read(Format::Alpaca, &[named[0], named[1], ("input", "about")]).unwrap_err(), @"data.train.fields: no row has the key `about`, which `fields` reads as `input`");
}

#[test]
fn formats_are_named_in_recipes_as_in_messages() {
    for format in Format::ALL {
        assert_eq!(serde_json::to_value(format).unwrap(), json!(format.name()));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(texts in prop::collection::vec(("\\PC+", "\\PC*"), 1..8), lines: bool) {
        let rows: Vec<_> = texts.iter().map(|(a, b)| json!({"prompt": a, "completion": b}).to_string()).collect();
        let text = if lines { rows.join("\n") } else { format!("[{}]", rows.join(",\n")) };
        let read: Vec<_> = contents(&text);
        let expected: Vec<_> = texts.into_iter().map(|(prompt, b)| Content::Completion { prompt, completion: Some(b) }).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = read_text(bytes);
    }
}
