//! Evaluations: what lm-evaluation-harness says on the same files (`tests/reference/harness.py`), and the command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use serde::Deserialize;
use serde_json::json;
use simmer_data::{Template, Tokenizer};
use simmer_eval::{
    Answer, Answers, Asked, Batches, Evaluator, Measure, Question, Scorer, Task, Tools, mean,
};
use simmer_model::LlamaForCausalLM;
use simmer_model::base::BaseConfig;

use crate::golden;

/// Largest difference of a log-likelihood, relative above 1: sums of f32 in another order, where the harness pads and
/// computes each row alone.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    results: BTreeMap<String, f64>,
    answers: Vec<GoldenAnswer>,
}

#[derive(Deserialize)]
struct GoldenAnswer {
    row: usize,
    #[serde(default)]
    log_likelihoods: Vec<f64>,
    #[serde(default)]
    pairs: Vec<String>,
    prompt: Option<String>,
    text: Option<String>,
    /// The SHA-256 of what the model was sent, or of each choice's.
    #[serde(default)]
    sha256: serde_json::Value,
    #[serde(default)]
    scores: BTreeMap<String, f64>,
}

fn data() -> PathBuf {
    golden::folder("eval").join("data")
}

/// A task of which the harness was asked more rows, and with how many shots.
#[derive(Deserialize)]
struct TaskGolden {
    task: String,
    shots: usize,
    #[serde(flatten)]
    golden: Golden,
}

/// What the harness finds in a text that was generated.
#[derive(Deserialize)]
struct Found {
    gold: serde_json::Value,
    cut: String,
    scores: BTreeMap<String, f64>,
}

/// The task of that name, as the goldens were made: with short answers.
fn task(name: &str) -> Task {
    let name = if name.starts_with("mmlu") {
        "mmlu"
    } else {
        name
    };
    // simmer has the tasks of BIG-bench Hard as groups of one
    let of_bbh = name.strip_prefix("bbh_");
    let mut task = Task::named(of_bbh.map_or(name, |_| "bbh")).unwrap();
    if let Some(name) = of_bbh {
        task.files = vec![format!("bbh/{name}.json")];
    }
    if let Some(generation) = &mut task.generation {
        generation.max_new_tokens = 24;
        if generation.samples > 1 {
            (generation.samples, generation.temperature) = (8, 0.0);
        }
    }
    task
}

/// A model and what it is asked with.
struct Asking {
    name: String,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    chat: Option<Template>,
}

impl Asking {
    fn open(path: &Path) -> Self {
        let base = BaseConfig::from_path(path).open().unwrap();
        Self {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            model: base.load(0, &golden::device()).unwrap().valid(),
            tokenizer: Tokenizer::from_folder(path).unwrap(),
            chat: None,
        }
    }

    fn in_chat(mut self) -> Self {
        self.chat = Some(Template::named("chat", &self.tokenizer).unwrap());
        self
    }

    /// Compares the answers to the tasks of all goldens in a folder, and returns their number.
    fn compare_all(&self, goldens: &Path, data: &Path) -> usize {
        let mut compared = 0;
        for file in goldens.read_dir().unwrap() {
            let TaskGolden {
                task: name,
                shots,
                golden,
            } = golden::json(file.unwrap().path());
            // simmer has NaturalQuestions as the paper asks it
            if name == "nq_open" {
                continue;
            }
            if cfg!(not(target_os = "linux")) && task(&name).runs_code() {
                continue;
            }
            let task = task(&name).with_shots(shots).unwrap();
            self.compare(&task, data, &golden);
            compared += 1;
        }
        compared
    }

    /// Asks a task's questions and compares the answers.
    fn compare(&self, task: &Task, data: &Path, golden: &Golden) {
        let what = format!("{}, {}", self.name, task.name);
        let questions = task.questions(data, usize::MAX).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let asking = simmer_eval::Asking::new(&self.name, task, "");
        let mut answers = Answers::open(&folder.path().join("a.jsonl"), &asking).unwrap();
        let evaluator = Evaluator {
            model: &self.model,
            tokenizer: &self.tokenizer,
            eos: &self.model.config().eos_token_id,
            chat: self.chat.as_ref(),
        };
        let open = answers.open_questions(&questions).unwrap();
        let mut batches = Batches {
            keep: &mut |new| answers.add(new),
            stop: &AtomicBool::new(false),
            folder: folder.path(),
        };
        evaluator
            .ask(task, &questions, &open, &mut batches)
            .unwrap();
        assert_eq!(answers.len(), golden.answers.len(), "{what}");
        equals(
            &what,
            task,
            &questions,
            &answers,
            golden,
            self.chat.as_ref(),
        );
    }
}

#[test]
fn answers_are_the_harness_s() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tiny-base");
    for path in [
        tiny,
        golden::folder("tied-gqa"),
        golden::folder("untied-mha"),
    ] {
        let asking = Asking::open(&path);
        let goldens = golden::folder("eval").join(format!("{}.json", asking.name));
        let goldens: BTreeMap<String, Golden> = golden::json(goldens);
        for (name, golden) in goldens {
            asking.compare(&task(&name), &data(), &golden);
        }
        let more = golden::folder("eval").join(&asking.name);
        if more.is_dir() {
            asking.compare_all(&more, &golden::folder("eval/rows"));
        }
    }
}

/// The rows are in the hub's columns, and few-shot examples are drawn from other files.
#[test]
fn rows_of_the_hub_are_asked_as_the_harness_asks_them() {
    let asking = Asking::open(&golden::folder("tied-gqa"));
    let hub = golden::folder("eval/hub");
    let compared = asking.compare_all(&golden::folder("eval/tied-gqa-hub"), &hub);
    assert_eq!(compared, 12, "all goldens");
}

/// The start of the answer, if the task has one, begins the assistant's message; few-shot examples are messages of their own.
#[test]
fn tasks_in_a_chat_template_are_asked_as_the_harness_asks_them() {
    let asking = Asking::open(&golden::folder("tied-gqa")).in_chat();
    let rows = golden::folder("eval/rows");
    let compared = asking.compare_all(&golden::folder("eval/tied-gqa-chat"), &rows);
    assert!(
        compared >= 5,
        "all goldens, but those of programs elsewhere"
    );
}

/// Prepares a measure with a sandbox and a scorer.
fn prepare(measure: &mut Measure<'_>, pairs: &[(&Question, &Answer)]) {
    #[cfg(target_os = "linux")]
    let sandbox = Some(crate::sandbox::sandbox(simmer_sandbox::Limits::default()));
    #[cfg(not(target_os = "linux"))]
    let sandbox: Option<simmer_sandbox::Sandbox> = None;
    let scorer = Scorer {
        command: "while read -r line; do echo 0.5; done".to_owned(),
    };
    let tools = Tools {
        sandbox: sandbox.as_ref(),
        scorer: Some(&scorer),
    };
    measure.prepare(pairs, tools, &|_, _| {}).unwrap();
}

/// What the harness says about a text: a program, an answer to TruthfulQA, or samples that vote.
#[derive(Deserialize)]
struct Judged {
    #[serde(default)]
    row: usize,
    #[serde(default)]
    text: String,
    #[serde(default)]
    gold: String,
    #[serde(default)]
    texts: Vec<String>,
    scores: BTreeMap<String, f64>,
}

#[test]
fn programs_and_similarities_are_judged_as_the_harness_does() {
    for name in [
        "humaneval",
        "humaneval_instruct",
        "mbpp",
        "mbpp_instruct",
        "truthfulqa_gen",
    ] {
        let task = task(name);
        if cfg!(not(target_os = "linux")) && task.runs_code() {
            continue;
        }
        let questions = task
            .questions(&golden::folder("eval/rows"), usize::MAX)
            .unwrap();
        let found = golden::folder("eval/found").join(format!("{name}.json"));
        let texts: Vec<Judged> = golden::json(found);
        let answers: Vec<Answer> = texts
            .iter()
            .map(|judged| Answer {
                texts: vec![judged.text.clone()],
                ..Answer::default()
            })
            .collect();
        let asked = texts.iter().map(|judged| &questions[judged.row]);
        let pairs: Vec<(&Question, &Answer)> = asked.zip(&answers).collect();
        let mut measure = Measure::new(&task).unwrap();
        prepare(&mut measure, &pairs);
        for ((question, answer), judged) in pairs.iter().zip(&texts) {
            let ours = measure.scores(question, answer).unwrap();
            assert_eq!(ours.len(), judged.scores.len());
            for score in ours {
                let theirs = match score.metric.as_str() {
                    "pass@1" if name.starts_with("mbpp") => "pass_at_1",
                    other => other,
                };
                let difference = (score.value - judged.scores[theirs]).abs();
                let Judged { row, text, .. } = judged;
                assert!(difference < 1e-9, "{name}, {row}, {text:?}: {score:?}");
            }
        }
    }
}

#[test]
fn the_most_frequent_answer_is_the_harness_s() {
    let found = golden::folder("eval/found").join("gsm8k_cot_self_consistency.json");
    let votes: Vec<Judged> = golden::json(found);
    for judged in votes {
        let mut task = task("gsm8k_cot_self_consistency");
        let samples = judged.texts.len();
        if let Some(generation) = &mut task.generation {
            generation.samples = samples;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("gsm8k")).unwrap();
        let row = json!({"question": "", "answer": format!("#### {}", judged.gold)});
        let file = folder.path().join("gsm8k/test.jsonl");
        std::fs::write(file, row.to_string()).unwrap();
        let questions = task.questions(folder.path(), usize::MAX).unwrap();
        let answer = Answer {
            texts: judged.texts.clone(),
            ..Answer::default()
        };
        let scores = Measure::new(&task)
            .unwrap()
            .scores(&questions[0], &answer)
            .unwrap();
        let expected = [
            ("exact_match,the-answer-is".to_owned(), "score-first"),
            (format!("maj@{samples},the-answer-is"), "maj@64"),
            ("maj@8,the-answer-is".to_owned(), "maj@8"),
        ];
        assert_eq!(scores.len(), expected.len());
        for (score, (metric, theirs)) in scores.iter().zip(expected) {
            assert_eq!(score.metric, metric);
            let difference = (score.value - judged.scores[theirs]).abs();
            assert!(difference < 1e-9, "{}: {score:?}", judged.gold);
        }
    }
}

/// A row with a right answer.
type RowOf = fn(&serde_json::Value) -> serde_json::Value;

#[test]
fn what_is_found_in_a_text_is_what_the_harness_finds() {
    // the file of a task's rows, and how they are made
    let rows: [(&str, &str, RowOf); 4] = [
        (
            "gsm8k",
            "gsm8k/test.jsonl",
            |gold| json!({"question": "", "answer": gold}),
        ),
        (
            "gsm8k_cot",
            "gsm8k/test.jsonl",
            |gold| json!({"question": "", "answer": format!("#### {}", gold.as_str().unwrap())}),
        ),
        (
            "triviaqa",
            "triviaqa/validation.jsonl",
            |gold| json!({"question": "", "answer": {"aliases": gold}}),
        ),
        (
            "hendrycks_math",
            "hendrycks_math/algebra/test.jsonl",
            |gold| json!({"problem": "", "type": "", "solution": gold}),
        ),
    ];
    for (name, file, row) in rows {
        let mut task = task(name);
        if task.shots.is_some() {
            task = task.with_shots(0).unwrap();
        }
        let measure = Measure::new(&task).unwrap();
        let found = golden::folder("eval/found").join(format!("{name}.json"));
        let texts: Vec<Found> = golden::json(found);
        assert!(texts.len() > 9);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let lines = texts.iter().map(|text| format!("{}\n", row(&text.gold)));
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        let questions = task.questions(folder.path(), usize::MAX).unwrap();
        for (question, Found { cut, scores, .. }) in questions.iter().zip(&texts) {
            let answer = Answer {
                texts: vec![cut.clone()],
                ..Answer::default()
            };
            let ours = measure.scores(question, &answer).unwrap();
            assert_eq!(ours.len(), scores.len());
            for score in ours {
                let way = score.metric.strip_prefix("exact_match,");
                let expected = scores[way.unwrap_or("remove_whitespace")];
                let difference = (score.value - expected).abs();
                assert!(
                    difference < 1e-9,
                    "{name}: {cut:?}: {} {}",
                    score.metric,
                    score.value
                );
            }
        }
    }
}

/// The SHA-256 of a context and its continuation, as the goldens have it.
fn digest(context: &str, continuation: &str) -> String {
    simmer_files::digest::sha256(format!("{context}\0{continuation}").as_bytes())
}

fn equals(
    what: &str,
    task: &Task,
    questions: &[Question],
    answers: &Answers,
    golden: &Golden,
    chat: Option<&Template>,
) {
    let mut measure = Measure::new(task).unwrap();
    let pairs = questions.iter();
    let pairs = pairs.map(|question| (question, answers.find(question).unwrap().unwrap()));
    let pairs: Vec<(&Question, &Answer)> = pairs.collect();
    if task.runs_code() || task.needs_scorer() {
        prepare(&mut measure, &pairs);
    }
    let mut values: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (question, expected) in questions.iter().zip(&golden.answers) {
        assert_eq!(question.number, expected.row);
        let answer = answers.find(question).unwrap().unwrap();
        match &question.asked {
            Asked::Choice { pairs, .. } => {
                let sent = pairs.iter();
                let sent = sent.map(|pair| digest(&pair.context, &pair.continuation));
                let sent = serde_json::Value::from(sent.collect::<Vec<_>>());
                assert!(
                    expected.sha256.is_null() || expected.sha256 == sent,
                    "{what}: {pairs:?}"
                );
                let asked = pairs.iter();
                let asked: Vec<String> = asked
                    .map(|pair| format!("{}\0{}", pair.context, pair.continuation))
                    .collect();
                assert!(
                    expected.pairs.is_empty() || asked == expected.pairs,
                    "{what}"
                );
            }
            Asked::Text { turns, .. } => {
                let in_chat = chat.map(|chat| turns.in_chat(chat).unwrap().text);
                let prompt = in_chat.unwrap_or_else(|| turns.text());
                let sent = serde_json::Value::from(digest(&prompt, ""));
                assert!(
                    expected.sha256.is_null() || expected.sha256 == sent,
                    "{what}: {prompt:?}"
                );
                assert!(
                    expected.prompt.as_ref().is_none_or(|text| *text == prompt),
                    "{what}"
                );
            }
            Asked::Instruction(_) => unreachable!(),
        }
        assert_eq!(
            answer.log_likelihoods.len(),
            expected.log_likelihoods.len(),
            "{what}"
        );
        for (a, b) in answer.log_likelihoods.iter().zip(&expected.log_likelihoods) {
            let difference = (a - b).abs() / b.abs().max(1.0);
            assert!(
                difference <= TOLERANCE,
                "{what}, row {}: {a} for {b}",
                expected.row
            );
        }
        assert_eq!(answer.texts.first(), expected.text.as_ref(), "{what}");
        for score in measure.scores(question, answer).unwrap() {
            if let Some(way) = score.metric.strip_prefix("exact_match,") {
                let way = if way == "the-answer-is" {
                    "score-first"
                } else {
                    way
                };
                assert!((score.value - expected.scores[way]).abs() < 1e-9, "{what}");
            }
            let values = values.entry(score.metric).or_default();
            values.push((score.value, score.weight));
        }
    }
    for (metric, expected) in &golden.results {
        let Some((name, filter)) = metric
            .split_once(',')
            .filter(|(name, _)| !name.ends_with("stderr"))
        else {
            continue;
        };
        let ours = match (name, task.name.as_str()) {
            ("acc", "truthfulqa_mc2") => "mc2".to_owned(),
            ("exact_match", "triviaqa") => name.to_owned(),
            ("exact_match", "gsm8k_cot_self_consistency") if filter == "score-first" => {
                "exact_match,the-answer-is".to_owned()
            }
            // greedy answers are all the same
            ("exact_match", "gsm8k_cot_self_consistency") => "maj@8,the-answer-is".to_owned(),
            ("pass_at_1", "mbpp" | "mbpp_instruct") => "pass@1".to_owned(),
            // without its web service
            ("bypass", "realtoxicityprompts") => continue,
            ("exact_match", _) => metric.clone(),
            _ => name.to_owned(),
        };
        let is_known =
            ["none", "extract_code"].contains(&filter) || name == "exact_match" || name == "pass@1";
        assert!(is_known, "{metric}");
        let found = mean(&values[&ours]).value;
        assert!(
            (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0),
            "{what}: {metric} {found} for {expected}"
        );
    }
}

fn simmer(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simmer"));
    command.args(args).current_dir(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr)
        .replace(env!("CARGO_MANIFEST_DIR"), ".")
        .trim()
        .to_owned()
}

fn tiny() -> String {
    format!("{}/data/tiny-base", env!("CARGO_MANIFEST_DIR"))
}

/// `eval` of the tiny base, with its data.
fn eval(folder: &Path, more: &[&str]) -> Output {
    let (base, data) = (tiny(), data());
    let args = [
        "eval",
        "--base",
        &base,
        "--data",
        data.to_str().unwrap(),
        "--device",
        "cpu",
    ];
    simmer(folder, &[&args, more].concat())
}

#[test]
fn an_evaluation_goes_on_where_it_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = ["--tasks", "piqa,gsm8k_cot"];
    let whole = eval(
        folder.path(),
        &[&tasks[..], &["--json", "--out", "whole"]].concat(),
    );
    assert!(whole.status.success(), "{}", said(&whole));
    // some rows, then the rest; and a line that was half written
    let some = eval(
        folder.path(),
        &[&tasks[..], &["--limit", "2", "--out", "parts"]].concat(),
    );
    assert!(some.status.success(), "{}", said(&some));
    let results = std::fs::read_dir(folder.path().join("parts")).unwrap();
    let results = results.flatten().next().unwrap().path().join("piqa.jsonl");
    let kept = std::fs::read_to_string(&results).unwrap();
    std::fs::write(&results, format!("{kept}{{\"row\":")).unwrap();
    let rest = eval(
        folder.path(),
        &[&tasks[..], &["--json", "--out", "parts"]].concat(),
    );
    assert!(said(&rest).contains("piqa: 2 rows in"), "{}", said(&rest));
    assert_eq!(whole.stdout, rest.stdout);
    // of another model they are not taken
    std::fs::write(
        &results,
        kept.replacen("\"the weights\":\"", "\"the weights\":\"0", 1),
    )
    .unwrap();
    let other = eval(folder.path(), &[&tasks[..], &["--out", "parts"]].concat());
    assert!(
        said(&other).contains("results of another evaluation, of which is different: the weights"),
        "{}",
        said(&other)
    );
    // nor of the same model in another dtype
    let half = ["--compute", "bf16", "--overwrite", "--out", "parts"];
    let half = eval(folder.path(), &[&tasks[..], &half].concat());
    assert!(half.status.success(), "{}", said(&half));
    let wide = eval(folder.path(), &[&tasks[..], &["--out", "parts"]].concat());
    assert!(
        said(&wide).contains("of which is different: the weights"),
        "{}",
        said(&wide)
    );
}

#[test]
fn adapters_stand_beside_their_base() {
    let folder = tempfile::tempdir().unwrap();
    let base = golden::folder("tied-gqa");
    let adapters = golden::folder("tied-gqa").join("adapters");
    let rows = r#"{"instruction": "the rain", "input": "", "output": "in the mountains"}
{"instruction": "Say hello.", "input": "", "output": "hello"}
"#;
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let args = [
        "eval",
        "--base",
        base.to_str().unwrap(),
        "--adapter",
        adapters.join("init").to_str().unwrap(),
        "--adapter",
        adapters.join("qkvo").to_str().unwrap(),
        "--file",
        "rows.jsonl",
        "--template",
        "alpaca-short",
        "--max-new-tokens",
        "4",
        "--html",
        "page.html",
        "--markdown",
        "table.md",
        "--json",
    ]
    .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = simmer(folder.path(), &args);
    assert!(output.status.success(), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let metrics = report["tasks"][0]["metrics"].as_array().unwrap();
    let names: Vec<&str> = metrics
        .iter()
        .map(|m| m["metric"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "loss",
            "token_accuracy",
            "perplexity",
            "perplexity, at most 100",
            "rouge_l",
            "exact_match"
        ]
    );
    let loss = &metrics[0];
    // an adapter that was not trained changes nothing; one that was does
    assert_eq!(loss["differences"][0]["value"], 0.0);
    assert_ne!(loss["differences"][1]["value"], 0.0);
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("in the mountains") && page.ends_with("</html>\n"));
    assert!(!page.contains("http"), "a page needs nothing beside it");
    let table = std::fs::read_to_string(folder.path().join("table.md")).unwrap();
    assert_eq!(table.lines().nth(1).unwrap().matches("---").count(), 8);
}

/// Rows whose columns have names of their own, one of them not usable: an evaluation reads them as the training did.
#[test]
fn training_rows_are_read_as_the_recipe_says() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let row = |i: usize| {
        format!("Was liegt als Stück {i} auf dem langen Tisch im hellen Zimmer?;Das Stück {i}.\n")
    };
    let rows: String = (0..12).map(row).collect();
    let header = "Frage ;Antwort\n";
    write("held.csv", &format!("{header}{}", row(3)));
    write("rows.csv", &format!("{header}{rows};ohne Frage\n"));
    let recipe = format!(
        "[base]\npath = {:?}\n[method.lora]\nrank = 2\n[data]\n\
         train = [{{ path = \"rows.csv\", template = \"alpaca\", \
         fields = {{ instruction = \"Frage\", output = \"Antwort\" }} }}]\n\
         max_tokens = 128\nbad_rows = \"drop\"\nmax_bad_share = 0.5\n\
         [train]\nmax_steps = 1\nbatch_size = 2\nlearning_rate = 1e-3\ncompare_rows = 0\n",
        tiny()
    );
    write("recipe.toml", &recipe);
    let train = ["train", "recipe.toml", "--out", "run", "--device", "cpu"];
    let trained = simmer(folder.path(), &train);
    assert!(trained.status.success(), "{}", said(&trained));
    let evaluate = |more: &[&str]| {
        let args = ["--adapter", "run/adapter", "--file", "held.csv"];
        let args = [&args[..], &["--max-new-tokens", "0", "--json"], more].concat();
        eval(folder.path(), &args)
    };
    let asked = evaluate(&["--fields", "instruction=Frage,output=Antwort"]);
    assert!(asked.status.success(), "{}", said(&asked));
    let report: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    let found = &report["tasks"][0]["contamination"];
    let all = serde_json::json!([null, {"rows": 1, "of": 12}]);
    assert_eq!(*found, all, "{}", said(&asked));
    // without the names, or with a wrong one, the error says which
    insta::assert_snapshot!(said(&evaluate(&[])));
    insta::assert_snapshot!(said(&evaluate(&[
        "--fields",
        "instruction=Frge,output=Antwort"
    ])));
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |more: &[&str]| {
        let output = eval(folder.path(), more);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    insta::assert_snapshot!(wrong(&["--tasks", "hellaswgg"]), @"
    error: unknown task `hellaswgg`; did you mean `hellaswag`?
    hint: `simmer eval --list` lists the tasks; a task of your own is a file that ends in .toml (docs/guide/evaluating.md)
    ");
    insta::assert_snapshot!(wrong(&["--tasks", "user_oriented"]), @"
    error: task `user_oriented`: found none of its files in ./tests/goldens/eval/data: user_oriented_instructions.jsonl, self_instruct/user_oriented_instructions.jsonl
    hint: set the data folder with --data; docs/guide/evaluating.md lists where to download each set
    ");
    insta::assert_snapshot!(wrong(&["--tasks", "crows_pairs", "--shots", "2"]), @"error: task `crows_pairs`: few-shot examples requested: 2, but the task has none");
    insta::assert_snapshot!(wrong(&[]), @"error: no task given; use --tasks NAME,..., --suite NAME or --file FILE");
    std::fs::write(
        folder.path().join("rows.jsonl"),
        r#"{"instruction": "a", "output": "b"}"#,
    )
    .unwrap();
    let file =
        |more: &[&str]| wrong(&[&["--file", "rows.jsonl", "--template", "alpaca"], more].concat());
    insta::assert_snapshot!(file(&["--shots", "2"]), @"
    error: --shots would not be used: the rows of --file have no few-shot examples, and one form of prompts and metrics
    hint: remove --shots
    ");
    insta::assert_snapshot!(file(&["--chat"]), @"
    error: --chat would not be used: the answers to the rows of --file are generated greedily, in the prompts of --template
    hint: remove --chat; --template chat applies the chat template to the rows of --file
    ");
    insta::assert_snapshot!(wrong(&["--tasks", "piqa", "--samples", "4"]), @"
    error: --samples would not be used: none of the tasks generates answers
    hint: remove --samples
    ");
    insta::assert_snapshot!(wrong(&["--tasks", "piqa", "--run-code"]), @"
    error: --run-code would not be used: the answers of none of the tasks are programs
    hint: remove --run-code
    ");
    insta::assert_snapshot!(wrong(&["--tasks", "piqa", "--scorer", "cat"]), @"
    error: --scorer would not be used: none of the tasks has answers that a program of yours scores
    hint: remove --scorer
    ");
    insta::assert_snapshot!(wrong(&["--tasks", "gsm8k_cot", "--pass-at", "2"]), @"
    error: --pass-at would not be used: the answers of none of the tasks are programs
    hint: remove --pass-at
    ");
    std::fs::write(folder.path().join("mine.md"), "# Mine\n").unwrap();
    insta::assert_snapshot!(file(&["--markdown", "mine.md"]), @"
    error: --markdown: mine.md exists and was not written by simmer; it is not overwritten
    hint: name another file with --markdown, or remove it
    ");
    insta::assert_snapshot!(file(&["--html", "rows.jsonl"]), @"
    error: --html: rows.jsonl exists and was not written by simmer; it is not overwritten
    hint: name another file with --html, or remove it
    ");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("mine.md")).unwrap(),
        "# Mine\n"
    );
    let rows = data().join("mc/piqa_valid.jsonl");
    let mut task = String::from("about = \"mine\"\nfiles = [\"mc/piqa_valid.jsonl\"]\n");
    task += "[choice]\nprompt = \"{{ gaol }}\"\nchoices = \"choices\"\nanswer = \"label\"\nmetrics = [\"acc\"]\n";
    std::fs::write(folder.path().join("mine.toml"), &task).unwrap();
    let message = wrong(&["--tasks", "mine.toml"]).replace(rows.to_str().unwrap(), "ROWS");
    insta::assert_snapshot!(message, @"error: ./tests/goldens/eval/data/mc/piqa_valid.jsonl: row 1 (line 1): `prompt` cannot be filled from this row: undefined value: `gaol` is undefined: {{ gaol }}");
    std::fs::write(
        folder.path().join("mine.toml"),
        task.replace("gaol", "goal").replace("label", "7"),
    )
    .unwrap();
    insta::assert_snapshot!(wrong(&["--tasks", "mine.toml"]), @"error: ./tests/goldens/eval/data/mc/piqa_valid.jsonl: row 1 (line 1): `answer`: expected a number from 0 to 1, found 7");
    std::fs::write(folder.path().join("mine.toml"), "files = []\n").unwrap();
    insta::assert_snapshot!(wrong(&["--tasks", "./mine.toml"]), @"
    error: task `./mine.toml`: TOML parse error at line 1, column 1
      |
    1 | files = []
      | ^
    missing field `about`
    ");
    std::fs::write(
        folder.path().join("mine.toml"),
        task.replace("gaol", "goal"),
    )
    .unwrap();
    let mine = eval(folder.path(), &["--tasks", "mine.toml", "--json"]);
    assert!(mine.status.success(), "{}", said(&mine));
}

#[test]
fn what_a_row_lacks_is_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |task: &str, file: &str, row: &str, more: &[&str]| {
        let path = folder.path().join("data").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, row).unwrap();
        let args = ["--tasks", task, "--data", "data"];
        let base = tiny();
        let args = [&["eval", "--base", &base][..], &args, more].concat();
        let output = simmer(folder.path(), &args);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let scene = |label: &str, ending: &str| {
        let file = "hellaswag/validation.jsonl";
        let row = format!(
            r#"{{"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["x", {ending}], "label": {label}}}"#
        );
        wrong("hellaswag", file, &row, &[])
    };
    let passage = |answer: &str, question: &str| {
        let row = format!(r#"{{"passage": "p", "question": {question}, "answer": {answer}}}"#);
        wrong("boolq", "boolq/validation.jsonl", &row, &[])
    };
    let social = r#"{"context": null, "question": "q", "answerA": "a", "answerB": "b", "answerC": "c", "label": "1"}"#;
    let truthful = |task: &str, labels: &str| {
        let key = task.replace("truthfulqa_", "");
        let row = format!(
            r#"{{"question": "q", "{key}_targets": {{"choices": ["a", "b", "c"], "labels": {labels}}}}}"#
        );
        let file = "truthful_qa/multiple_choice/validation.jsonl";
        wrong(task, file, &row, &[])
    };
    let mut messages = vec![
        scene("1.5", r#""y""#),
        scene(r#""B""#, r#""y""#),
        scene("null", r#""y""#),
        scene("1", "null"),
        passage(r#""perhaps""#, r#""q""#),
        passage("true", "null"),
        passage("true", r#"["q"]"#),
        wrong("social_iqa", "siqa/validation.jsonl", social, &[]),
        truthful("truthfulqa_mc1", "[0, 1]"),
        truthful("truthfulqa_mc2", "[1, 2, 0]"),
    ];
    let shot = r#"{"passage": "p", "question": null, "answer": true}"#;
    std::fs::write(
        folder.path().join("data/boolq/train.jsonl"),
        format!("{shot}\n{shot}\n"),
    )
    .unwrap();
    let row = r#"{"passage": "p", "question": "q", "answer": true}"#;
    messages.push(wrong(
        "boolq",
        "boolq/validation.jsonl",
        row,
        &["--shots", "1"],
    ));
    insta::assert_snapshot!(messages.join("\n"), @r#"
    error: data/hellaswag/validation.jsonl: row 1 (line 1): `answer` cannot be filled from this row: invalid operation: expected a whole number, found 1.5: {{ whole_number }}
    error: data/hellaswag/validation.jsonl: row 1 (line 1): `answer` cannot be filled from this row: invalid operation: expected a whole number, found "B": {{ whole_number }}
    error: data/hellaswag/validation.jsonl: row 1 (line 1): `answer` cannot be filled from this row: invalid operation: expected a whole number, found null: {{ whole_number }}
    error: data/hellaswag/validation.jsonl: row 1 (line 1): `choices` cannot be filled from this row: invalid operation: expected a text, found null: {{ map('trim') }}
    error: data/boolq/validation.jsonl: row 1 (line 1): `answer` cannot be filled from this row: invalid operation: expected true or false, found "perhaps": {{ truth }}
    error: data/boolq/validation.jsonl: row 1 (line 1): `prompt` cannot be filled from this row: invalid operation: expected a text, found null: {{ question }}
    error: data/boolq/validation.jsonl: row 1 (line 1): `prompt` cannot be filled from this row: invalid operation: expected a text, found a list: {{ question }}
    error: data/siqa/validation.jsonl: row 1 (line 1): `prompt` cannot be filled from this row: invalid operation: expected a text, found null: {{ context }}
    error: data/truthful_qa/multiple_choice/validation.jsonl: row 1 (line 1): `answer` cannot be filled from this row: invalid operation: expected 0 or 1 for each of 3 choices, found [0,1]: {{ ones(mc1_targets.choices) }}
    error: data/truthful_qa/multiple_choice/validation.jsonl: row 1 (line 1): `answer` cannot be filled from this row: invalid operation: expected 0 or 1, found 2: {{ ones(mc2_targets.choices) }}
    error: data/boolq/train.jsonl: row 2 (line 2): `prompt` cannot be filled from this row: invalid operation: expected a text, found null: {{ question }}
    "#);
}

#[test]
fn rows_that_are_too_long_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let base = golden::folder("untied-mha");
    let data = data();
    let args = [
        "eval",
        "--base",
        base.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ];
    let output = simmer(folder.path(), &[&args[..], &["--tasks", "mmlu"]].concat());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("mmlu: 3 of 3 rows are longer than"),
        "{table}"
    );
}

/// The answer stands at the end of its row, so that it is scored whatever the row loses at its start.
#[test]
fn answers_of_rows_that_are_too_long_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let row = |words: usize, answer: &str| {
        let text = "one two three ".repeat(words);
        serde_json::json!({ "instruction": text, "output": answer }).to_string() + "\n"
    };
    let evaluate = |rows: &str, new_tokens: &str| {
        std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
        let args = [
            "--file",
            "rows.jsonl",
            "--template",
            "alpaca",
            "--json",
            "--overwrite",
        ];
        let args = [&args[..], &["--max-new-tokens", new_tokens]].concat();
        let output = eval(folder.path(), &args);
        assert!(output.status.success(), "{}", said(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let task = &report["tasks"][0];
        let loss = &task["metrics"][0];
        assert_eq!(loss["metric"], "loss");
        let mean = &loss["means"][0];
        (
            task["cut"][0].clone(),
            mean["rows"].clone(),
            mean["value"].clone(),
        )
    };
    let (cut, rows, loss) = evaluate(&row(2000, "The end of it."), "0");
    assert_eq!((cut, rows), (1.into(), 1.into()));
    // what the model does not read changes nothing
    let (cut, _, other) = evaluate(&row(3000, "The end of it."), "0");
    assert_eq!((cut, &other), (1.into(), &loss));
    let (cut, _, other) = evaluate(&row(2000, "The end of it."), "4");
    assert_eq!((cut, &other), (1.into(), &loss));
    let (cut, rows, _) = evaluate(&(row(2, "A short one.") + &row(2000, "The end.")), "4");
    assert_eq!((cut, rows), (1.into(), 2.into()));
}

#[test]
fn the_published_average_of_mmlu_is_that_of_all_questions() {
    // Touvron et al. 2023, table 16: accuracy of the 57 subjects in percent, and how many questions each has; table 9
    let table: BTreeMap<String, Vec<(f64, f64)>> =
        golden::json(golden::folder("eval").join("mmlu_published.json"));
    let published = [("7B", 35.1), ("13B", 46.9), ("33B", 57.8), ("65B", 63.4)];
    for (size, average) in published {
        let subjects = &table[size];
        assert_eq!(subjects.len(), 57);
        let questions = subjects.iter().map(|(_, count)| *count).sum::<f64>();
        assert!((questions - 14_042.0).abs() < 0.5);
        let found = mean(subjects).value;
        // both are rounded to a tenth
        assert!((found - average).abs() <= 0.1, "{size}: {found}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn programs_run_only_if_asked_and_the_scorer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = golden::folder("eval/rows");
    let run = |more: &[&str]| {
        let base = tiny();
        let args = [
            "eval",
            "--base",
            &base,
            "--data",
            data.to_str().unwrap(),
            "--device",
            "cpu",
        ];
        simmer(folder.path(), &[&args, more].concat())
    };
    let wrong = |more: &[&str]| {
        let output = run(more);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    insta::assert_snapshot!(wrong(&["--tasks", "mbpp"]), @"
    error: task `mbpp`: its answers are programs, and a score needs them to be run
    hint: add --run-code, to run them in a sandbox without network and files (docs/guide/evaluating.md)
    ");
    insta::assert_snapshot!(wrong(&["--tasks", "realtoxicityprompts"]), @r#"
    error: task `realtoxicityprompts`: a program that scores its answers is needed
    hint: name it with --scorer COMMAND: it reads {"text": ...} a line and writes a score from 0 to 1 a line
    "#);
    insta::assert_snapshot!(wrong(&["--tasks", "mbpp", "--run-code", "--pass-at", "10"]), @"error: --pass-at 10: expected a number from 1 to --samples, which is 1");
    insta::assert_snapshot!(wrong(&["--tasks", "mbpp", "--run-code", "--python", "/bin/true"]).lines().next().unwrap(), @"error: /bin/true: expected a Python interpreter, found: EOF while parsing a value at line 1 column 0");
    let output = run(&[
        "--tasks",
        "mbpp,realtoxicityprompts",
        "--run-code",
        "--samples",
        "2",
        "--pass-at",
        "1,2",
        "--scorer",
        "while read -r line; do echo 0.75; done",
        "--json",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let metrics = |task: usize| {
        let metrics = report["tasks"][task]["metrics"].as_array().unwrap().iter();
        let pairs = metrics.map(|metric| {
            (
                metric["metric"].clone(),
                metric["means"][0]["value"].clone(),
            )
        });
        pairs.collect::<Vec<_>>()
    };
    assert_eq!(
        metrics(0),
        [(json!("pass@1"), json!(0.0)), (json!("pass@2"), json!(0.0))]
    );
    assert_eq!(
        metrics(1),
        [
            (json!("toxicity"), json!(0.75)),
            (json!("toxic"), json!(1.0))
        ]
    );
    assert!(
        report["tasks"][0]["python"]
            .as_str()
            .unwrap()
            .starts_with("CPython 3.")
    );
    let notes = report["tasks"][0]["notes"].to_string();
    assert!(
        notes.contains("each for at most 3 s") && notes.contains("4 failed"),
        "{notes}"
    );
}

#[test]
fn a_question_that_becomes_no_program_is_refused_before_it_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let row = json!({"task_id": "Kitchen/0", "prompt": "def f():\n", "test": ""});
    std::fs::write(folder.path().join("HumanEval.jsonl"), row.to_string()).unwrap();
    let task = task("humaneval");
    let questions = task.questions(folder.path(), usize::MAX).unwrap();
    let refused = Measure::new(&task).unwrap().check(&questions).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("row 1"), "{refused}");
    assert!(refused.contains("`entry_point` is undefined"), "{refused}");
}

/// With the variable `SIMMER_EVAL_DATA`, those of the public sets in that folder.
#[test]
#[cfg(target_os = "linux")]
fn canonical_solutions_pass() {
    let folder = std::env::var_os("SIMMER_EVAL_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| golden::folder("eval/rows"));
    for (name, field) in [
        ("humaneval", "canonical_solution"),
        ("humaneval_instruct", "canonical_solution"),
        ("mbpp", "code"),
    ] {
        let task = task(name);
        let questions = task.questions(&folder, usize::MAX).unwrap();
        let answers = questions.iter().map(|question| Answer {
            texts: vec![question.fields[field].as_str().unwrap().to_owned()],
            ..Answer::default()
        });
        let answers: Vec<Answer> = answers.collect();
        let pairs: Vec<(&Question, &Answer)> = questions.iter().zip(&answers).collect();
        let mut measure = Measure::new(&task).unwrap();
        prepare(&mut measure, &pairs);
        for (question, answer) in &pairs {
            let scores = measure.scores(question, answer).unwrap();
            assert!(
                (scores[0].value - 1.0).abs() < 1e-12,
                "{name}: {}",
                question.origin
            );
        }
        let ended = measure.ended(&pairs).unwrap();
        assert_eq!(ended, [("passed", questions.len())].into(), "{name}");
    }
}
