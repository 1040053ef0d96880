//! What `simmer judge` reads: a recipe, questions, answers, prompts, and the journal of what models said.

use std::path::Path;

use simmer_instruct::{About, Journal};
use simmer_judge::{
    AnswerKey, JudgeRecipe, Prompts, read_answers, read_questions, with_references,
};

use super::{Folder, deep, shown};

const QUESTION: &str = "{\"question_id\": 1, \"turns\": [\"a\", \"b\"]}\n";
const RECIPE: &str = "questions = \"q.jsonl\"\nout = \"out\"\nmode = \"single\"\n[[model]]\nname = \"m\"\nanswers = \"a.jsonl\"\n\
    [judge]\nlocal = { base = \"b\" }\n";

#[test]
fn recipes() {
    let said = |text: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Folder::empty().said(JudgeRecipe::parse(Path::new("x.toml"), text, &sets))
    };
    let set = |set: &str| said(RECIPE, &[set]);
    JudgeRecipe::parse(Path::new("x.toml"), RECIPE, &[]).unwrap();
    shown(
        "judge::recipes",
        &[
            ("a hundred thousand `[` in a value", {
                said(&format!("x = {}", "[".repeat(100_000)), &[])
            }),
            ("a key that is not there", set("judge.temprature=1")),
            ("`judge.temperature = nan`", set("judge.temperature=nan")),
            ("`judge.repeats = 18446744073709551615`", {
                set("judge.repeats=18446744073709551615")
            }),
            ("`batch = -1`", set("batch=-1")),
            ("no model", set("model=[]")),
            ("two ways to judge", {
                set("judge.endpoint={ url = \"http://x\", model = \"m\" }")
            }),
            ("the temperature of answers in a file", {
                set("model.0.temperature=0.5")
            }),
            ("the address of a file", {
                said(
                    RECIPE,
                    &["judge={ endpoint = { url = \"file:///etc/passwd\", model = \"m\" } }"],
                )
            }),
        ],
    );
}

#[test]
fn questions_and_answers() {
    let read = |name: &str, content: &str, limit: usize| {
        let folder = Folder::empty().with(name, content);
        folder.said(read_questions(&folder.at(name), limit))
    };
    let questions = |content: &str| read("q.jsonl", content, 0);
    let answers = |content: &str| {
        let folder = Folder::empty()
            .with("q.jsonl", QUESTION)
            .with("a.jsonl", content);
        let questions = read_questions(&folder.at("q.jsonl"), 0).unwrap();
        folder.said(read_answers(&folder.at("a.jsonl"), &questions))
    };
    let references = |content: &str| {
        let folder = Folder::empty()
            .with("q.jsonl", QUESTION)
            .with("r.jsonl", content);
        let mut questions = read_questions(&folder.at("q.jsonl"), 0).unwrap();
        folder.said(with_references(&mut questions, &folder.at("r.jsonl")))
    };
    let turns = |turns: &str| questions(&format!("{{\"question_id\": 1, \"turns\": {turns}}}\n"));
    shown(
        "judge::questions_and_answers",
        &[
            ("no question", questions("")),
            ("a million `[`", questions(&deep())),
            ("a row that is a list", questions("[[1]]\n")),
            ("no text of a question", questions("{\"question_id\": 1}\n")),
            ("a turn that is a number", turns("[\"a\", 2]")),
            ("three turns", turns("[\"a\", \"b\", \"c\"]")),
            ("no turn", turns("[]")),
            ("an empty turn", turns("[\"a\", \" \"]")),
            ("a name that is a list", {
                questions("{\"question_id\": [1], \"turns\": [\"a\"]}\n")
            }),
            ("a name twice", questions(&QUESTION.repeat(2))),
            ("a name twice, beyond `max_questions = 1`", {
                let other = QUESTION.replace('1', "2");
                read("q.jsonl", &format!("{QUESTION}{other}{other}"), 1)
            }),
            ("one reference answer to two turns", {
                questions(&QUESTION.replace('}', ", \"reference\": [\"x\"]}"))
            }),
            ("no answer", answers("{\"id\": 2, \"answer\": \"x\"}\n")),
            ("an answer to no question", answers("{\"answer\": \"x\"}\n")),
            (
                "one answer to two turns",
                answers("{\"id\": 1, \"answer\": \"x\"}\n"),
            ),
            (
                "choices that are empty",
                answers("{\"id\": 1, \"choices\": []}\n"),
            ),
            ("an answer that is an object", {
                answers("{\"id\": 1, \"answers\": [\"x\", {}]}\n")
            }),
            ("two answers", {
                answers(&"{\"id\": 1, \"answers\": [\"x\", \"y\"]}\n".repeat(2))
            }),
            ("a reference answer that is a number", {
                references("{\"id\": 1, \"answers\": [\"x\", 4]}\n")
            }),
        ],
    );
}

#[test]
fn prompts() {
    let said = |content: &str| {
        let folder = Folder::empty().with("p.toml", content);
        folder.said(Prompts::named(folder.at("p.toml").to_str().unwrap()))
    };
    let single = |prompt: &str| {
        said(&format!(
            "about = \"mine\"\n[single.first]\nname = \"n\"\nsystem = \"\"\nprompt = \"{prompt}\"\n"
        ))
    };
    shown(
        "judge::prompts",
        &[
            ("a blank that is not filled", single("{answer} {secret}")),
            ("a brace that is not closed", single("{answer} {answer")),
            ("no blank for the answer", single("{question}")),
            ("a file of 5 GB", {
                let folder = Folder::empty().with_long("p.toml", 5_000_000_000);
                folder.said(Prompts::named(folder.at("p.toml").to_str().unwrap()))
            }),
        ],
    );
}

#[test]
fn journals() {
    let about = About {
        journal: 1,
        method: "judge".to_owned(),
        model: "m".to_owned(),
        sha256: [("`seed` or `batch`".to_owned(), "0".to_owned())].into(),
    };
    let first = serde_json::to_string(&about).unwrap();
    let opened = |content: Vec<u8>| {
        let folder = Folder::empty().with("j.jsonl", content);
        folder.said(Journal::<AnswerKey>::open(&folder.at("j.jsonl"), &about))
    };
    let said = |rest: &[u8]| opened([first.as_bytes(), b"\n", rest].concat());
    let line = "{\"question\": \"1\", \"turn\": 1, \"prompt\": \"0\", \"completion\": ";
    shown(
        "judge::journals",
        &[
            ("no journal", opened(b"{\"x\": 1}\n".to_vec())),
            ("no JSON", said(b"x\n")),
            ("a million `[`", said(format!("{}\n", deep()).as_bytes())),
            ("a turn of -1", {
                let line = line.replace("\"turn\": 1", "\"turn\": -1");
                let completion = "{\"text\": \"x\", \"finish\": \"stop\"}";
                said(format!("{line}{completion}}}\n").as_bytes())
            }),
            (
                "a completion that is text",
                said(format!("{line}\"x\"}}\n").as_bytes()),
            ),
            ("invalid UTF-8", said(b"{\"question\": \"\xFF\"}\n")),
            (
                "a line of more than 64 MiB",
                said(&vec![b'x'; (64 << 20) + 9]),
            ),
            ("the journal of another model", {
                let other = first.replace("\"m\"", "\"n\"");
                opened(format!("{other}\n{line}{{}}}}\n").into_bytes())
            }),
        ],
    );
}
