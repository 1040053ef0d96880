//! A model's answer to a question, and the results file.
//!
//! A results file is JSON lines: the first line names the model and the task, every other line is an answer, in any order of
//! rows. Answers are appended as they arrive, so an interrupted evaluation can be resumed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simmer_files::digest::sha256;

use crate::error::EvalError;
use crate::question::{Asked, Question};
use crate::task::Task;

/// A model's answer to one question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The question's number.
    pub row: usize,
    /// The start of the SHA-256 of the question.
    pub asked: String,
    /// The log-likelihood of each choice (natural logarithm).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_likelihoods: Vec<f64>,
    /// The number of tokens of each choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<usize>,
    /// The log-likelihood of each choice after a neutral context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<f64>,
    /// Generated texts; several if answers are sampled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// The model's score of the reference answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The number of tokens truncated at the start because the question is longer than the model's context.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: usize,
}

/// A model's score of a given answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The log-likelihood of the answer (natural logarithm).
    pub log_prob: f64,
    /// The number of its tokens.
    pub tokens: usize,
    /// The number of its tokens that are the model's most likely choice.
    pub likeliest: usize,
}

impl Answer {
    /// Whether it has a log-likelihood for each choice of a question, from which scores are computed.
    fn fits(&self, question: &Question) -> bool {
        let Asked::Choice { pairs, without, .. } = &question.asked else {
            return true;
        };
        let choices = pairs.len();
        self.log_likelihoods.len() == choices
            && self.tokens.len() == choices
            && self.without.len() == without.len()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The model and the task of an evaluation. Answers are used only by the same evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// The model: base model and adapter, as the user named them.
    pub model: String,
    /// The task.
    pub task: String,
    /// SHA-256 of `the task` and of `the weights`.
    pub sha256: BTreeMap<String, String>,
}

impl Asking {
    /// The evaluation of `model` on `task`; `weights` is the SHA-256 of the model's weights.
    pub fn new(model: &str, task: &Task, weights: &str) -> Self {
        let text = serde_json::to_string(task).unwrap_or_default();
        let sha256 = [
            ("the task", sha256(text.as_bytes())),
            ("the weights", weights.to_owned()),
        ];
        let sha256 = sha256.map(|(what, hash)| (what.to_owned(), hash));
        Self {
            model: model.to_owned(),
            task: task.name.clone(),
            sha256: sha256.into(),
        }
    }
}

/// The answers of one model to one task, and their file.
#[derive(Debug)]
pub struct Answers {
    path: PathBuf,
    file: File,
    /// The answers so far, by row.
    found: BTreeMap<usize, Answer>,
}

impl Answers {
    /// The number of answers.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are no answers.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The answer to a question, if it has been answered.
    ///
    /// # Errors
    /// If the file has an answer to a different question under this number.
    pub fn find(&self, question: &Question) -> Result<Option<&Answer>, EvalError> {
        match self.found.get(&question.number) {
            Some(answer) if answer.asked != question.id() || !answer.fits(question) => {
                Err(EvalError::OtherResults {
                    path: self.path.clone(),
                    what: format!("question {}", question.number + 1),
                })
            }
            found => Ok(found),
        }
    }

    /// The places, in a list of questions, of those that have not been answered.
    ///
    /// # Errors
    /// As [`Answers::find`].
    pub fn open_questions(&self, questions: &[Question]) -> Result<Vec<usize>, EvalError> {
        let mut open = Vec::new();
        for (place, question) in questions.iter().enumerate() {
            if self.find(question)?.is_none() {
                open.push(place);
            }
        }
        Ok(open)
    }

    /// Opens the results file of an evaluation, or creates it. An incomplete last line is removed.
    ///
    /// # Errors
    /// If the file belongs to another evaluation, or is damaged.
    pub fn open(path: &Path, asking: &Asking) -> Result<Self, EvalError> {
        let cannot = |source| EvalError::Write {
            path: path.to_owned(),
            source,
        };
        let (found, whole) = match simmer_files::open(path) {
            Ok(file) => read(path, file, asking)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), 0),
            Err(source) => {
                return Err(EvalError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(cannot)?;
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(path);
        let mut file = file.map_err(cannot)?;
        file.set_len(whole).map_err(cannot)?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(cannot)?;
        let mut answers = Self {
            path: path.to_owned(),
            file,
            found,
        };
        if whole == 0 {
            answers.write(asking)?;
        }
        Ok(answers)
    }

    /// Appends answers and syncs them to disk.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add(&mut self, answers: Vec<Answer>) -> Result<(), EvalError> {
        for answer in answers {
            self.write(&answer)?;
            self.found.insert(answer.row, answer);
        }
        self.file.sync_data().map_err(|source| EvalError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), EvalError> {
        let written = serde_json::to_vec(line).map_err(io::Error::from);
        let written = written.and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        written.map_err(|source| EvalError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// The maximum length of a line in bytes, far above that of any answer.
const LONGEST: u64 = 64 << 20;

/// The answers of a file, and the number of bytes of its complete lines.
fn read(
    path: &Path,
    file: File,
    asking: &Asking,
) -> Result<(BTreeMap<usize, Answer>, u64), EvalError> {
    let mut file = BufReader::new(file);
    let (mut found, mut whole) = (BTreeMap::new(), 0);
    let mut other = None;
    for line in 1.. {
        let mut text = String::new();
        let read = (&mut file)
            .take(LONGEST + 1)
            .read_line(&mut text)
            .map_err(|source| EvalError::Read {
                path: path.to_owned(),
                source,
            })?;
        if text.len() as u64 > LONGEST {
            return Err(EvalError::Results {
                path: path.to_owned(),
                line,
                problem: format!("longer than {} MiB", LONGEST >> 20),
            });
        }
        if !text.ends_with('\n') {
            break;
        }
        whole += read as u64;
        let damaged = |error: serde_json::Error| EvalError::Results {
            path: path.to_owned(),
            line,
            problem: error.to_string(),
        };
        if line == 1 {
            let before: Asking = serde_json::from_str(&text).map_err(damaged)?;
            other = same(path, &before, asking).err();
        } else if let Some(other) = other.take() {
            return Err(other);
        } else {
            let answer: Answer = serde_json::from_str(&text).map_err(damaged)?;
            found.insert(answer.row, answer);
        }
    }
    // Without an answer there is nothing to keep: an evaluation that failed at once does not stand in the way of the next.
    Ok((found, if other.is_some() { 0 } else { whole }))
}

fn same(path: &Path, before: &Asking, now: &Asking) -> Result<(), EvalError> {
    let mut differs = Vec::new();
    if before.task != now.task {
        differs.push("the task");
    }
    if before.model != now.model {
        differs.push("the model");
    }
    for (what, hash) in &now.sha256 {
        if before.sha256.get(what) != Some(hash) {
            differs.push(what);
        }
    }
    if differs.is_empty() {
        return Ok(());
    }
    Err(EvalError::OtherResults {
        path: path.to_owned(),
        what: differs.join(" and "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(weights: &str) -> Asking {
        Asking {
            model: "base".into(),
            task: "piqa".into(),
            sha256: [("the weights".to_owned(), weights.to_owned())].into(),
        }
    }

    fn answer(row: usize) -> Answer {
        Answer {
            row,
            log_likelihoods: vec![-1.25, -0.1 - row as f64],
            ..Answer::default()
        }
    }

    #[test]
    fn answers_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base/piqa.jsonl");
        let mut answers = Answers::open(&path, &asking("a")).unwrap();
        answers.add(vec![answer(1), answer(0)]).unwrap();
        drop(answers);
        // the power fails while a line is written
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"row\":2,\"log_li");
        fs::write(&path, &text).unwrap();
        let mut answers = Answers::open(&path, &asking("a")).unwrap();
        assert_eq!(answers.found, [(0, answer(0)), (1, answer(1))].into());
        answers.add(vec![answer(2)]).unwrap();
        let answers = Answers::open(&path, &asking("a")).unwrap();
        assert_eq!(answers.found.len(), 3);
    }

    #[test]
    fn answers_of_another_evaluation_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        // an evaluation that failed before its first answer leaves nothing
        Answers::open(&path, &asking("b")).unwrap();
        let mut answers = Answers::open(&path, &asking("a")).unwrap();
        answers.add(vec![answer(0)]).unwrap();
        let error = Answers::open(&path, &asking("b")).unwrap_err().to_string();
        assert!(
            error.ends_with("results of another evaluation, of which is different: the weights"),
            "{error}"
        );
        fs::write(&path, "{}\n").unwrap();
        let error = Answers::open(&path, &asking("a")).unwrap_err().to_string();
        assert!(error.contains("line 1: missing field `model`"), "{error}");
    }
}
