//! The files of a judgement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use simmer_files::write_file;

use crate::answer::Answer;
use crate::error::JudgeError;
use crate::judging::Judgement;
use crate::page::html;
use crate::pairs::{Winner, pairs, winner};
use crate::question::Question;
use crate::recipe::Mode;
use crate::report::Report;

/// Everything that was judged: what `verdicts.json` and the page have.
#[derive(Debug, Serialize)]
pub struct Results<'a> {
    /// The report.
    pub report: &'a Report,
    /// The questions.
    pub questions: Vec<Judged<'a>>,
}

/// A question.
#[derive(Debug, Serialize)]
pub struct Judged<'a> {
    /// Its name.
    pub id: &'a str,
    /// Its category.
    pub category: Option<&'a str>,
    /// Its turns.
    pub turns: Vec<Turn<'a>>,
}

/// A turn of a question.
#[derive(Debug, Serialize)]
pub struct Turn<'a> {
    /// What the user wrote.
    pub question: &'a str,
    /// The reference answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'a str>,
    /// The answer of each model.
    pub answers: Vec<&'a str>,
    /// For each repeat, the model that won in both orders, `tie`, or nothing without two verdicts; for comparisons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Option<&'a str>>,
    /// What the judge said.
    pub verdicts: Vec<Said<'a>>,
}

/// What the judge said.
#[derive(Debug, Serialize)]
pub struct Said<'a> {
    /// The model that wins by this verdict, or `tie`; for comparisons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<&'a str>,
    /// The verdict with its text.
    #[serde(flatten)]
    pub judgement: &'a Judgement,
}

impl<'a> Results<'a> {
    /// Puts verdicts beside the answers.
    pub fn new(
        report: &'a Report,
        questions: &'a [Question],
        answers: &'a [Vec<Answer>],
        judgements: &'a [Judgement],
    ) -> Self {
        let name = |number: usize| report.models.get(number).map_or("", String::as_str);
        let named = |winner: Winner| match winner {
            Winner::First => name(0),
            Winner::Second => name(1),
            Winner::Tie => "tie",
        };
        let pairs = match report.mode {
            Mode::Pairwise => pairs(judgements),
            Mode::Single => Vec::new(),
        };
        let turn = |number: usize, turn: usize| {
            let question = &questions[number];
            let own = judgements
                .iter()
                .filter(|one| (one.question, one.turn) == (number, turn));
            let results = pairs
                .iter()
                .filter(|pair| (pair.question, pair.turn) == (number, turn));
            Turn {
                question: &question.turns[turn],
                reference: question.references.get(turn).map(String::as_str),
                answers: answers
                    .iter()
                    .filter_map(|answers| answers[number].turns.get(turn).map(String::as_str))
                    .collect(),
                results: results
                    .map(|pair| {
                        pair.result().map(|result| match result {
                            result if result > 0.75 => name(0),
                            result if result < 0.25 => name(1),
                            _ => "tie",
                        })
                    })
                    .collect(),
                verdicts: own
                    .map(|judgement| Said {
                        winner: winner(judgement).map(named),
                        judgement,
                    })
                    .collect(),
            }
        };
        let all = questions.iter().enumerate();
        let all = all.map(|(number, question)| Judged {
            id: &question.id,
            category: question.category.as_deref(),
            turns: (0..question.turns.len())
                .map(|at| turn(number, at))
                .collect(),
        });
        Self {
            report,
            questions: all.collect(),
        }
    }
}

/// Writes the results into a folder: `report.json`, `verdicts.json`, `page.html`, and the answers of each model in FastChat's form.
/// Returns the page.
///
/// # Errors
/// If a file cannot be written.
pub fn write(
    folder: &Path,
    results: &Results<'_>,
    questions: &[Question],
    answers: &[Vec<Answer>],
) -> Result<PathBuf, JudgeError> {
    let page = folder.join("page.html");
    let mut files = vec![
        (folder.join("verdicts.json"), pretty(results)),
        (page.clone(), html(results)?),
    ];
    for (number, (name, answers)) in results.report.models.iter().zip(answers).enumerate() {
        let file = folder.join(format!("answers.{}.jsonl", number + 1));
        files.push((file, lines(name, questions, answers)));
    }
    // last, so that it is there when all is
    files.push((folder.join("report.json"), pretty(results.report)));
    for (path, text) in files {
        write_file(&path, |file| file.write_all(text.as_bytes()))?;
    }
    Ok(page)
}

fn pretty(value: &impl Serialize) -> String {
    // maps have text as keys, and numbers are finite
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn lines(model: &str, questions: &[Question], answers: &[Answer]) -> String {
    let mut text = String::new();
    for (question, answer) in questions.iter().zip(answers) {
        let id = question
            .id
            .parse::<u64>()
            .map_or_else(|_| Value::from(question.id.as_str()), Value::from);
        let line = json!({
            "question_id": id,
            "model_id": model,
            "choices": [{"index": 0, "turns": answer.turns}],
        });
        let _ = writeln!(text, "{line}");
    }
    text
}
