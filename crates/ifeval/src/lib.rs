//! IFEval: whether answers follow instructions that a program can check (Zhou et al., 2023).
//!
//! The verdicts are those of lm-evaluation-harness 0.4.13 with NLTK 3.10.4 and langdetect 1.0.9 with seed 0. If an argument is
//! missing, the harness draws it at random; here, it is an error ([`InstructionError`]). There is one difference: in two rows
//! of IFEval the letter is `!` or `#`; the harness counts a random letter instead, this crate counts the sign itself.

mod check;
mod error;
mod json;
mod kind;
mod kwargs;
mod language;
mod punkt;
mod python;
mod python_random;
mod score;
mod table;
mod words;

#[cfg(test)]
mod tests;

pub use error::{InstructionError, KwargProblem};
pub use python_random::PythonRandom;
pub use score::{Accuracy, Outcome};

use kind::Kind;
use kwargs::Kwargs;
use serde_json::{Map, Value};

/// One instruction of a prompt.
#[derive(Debug, Clone)]
pub struct Instruction {
    id: String,
    kind: Kind,
}

impl Instruction {
    /// Reads an instruction from its id, such as `punctuation:no_comma`, and its arguments. Arguments that are null, zero or
    /// empty count as missing.
    ///
    /// # Errors
    /// If the id is unknown, or an argument is missing, invalid or unexpected.
    pub fn new(id: &str, kwargs: &Map<String, Value>) -> Result<Self, InstructionError> {
        let mut kwargs = Kwargs::new(id, kwargs);
        let kind = Kind::read(&mut kwargs)?;
        kwargs.finish()?;
        Ok(Self {
            id: id.to_owned(),
            kind,
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a response follows it: the strict verdict.
    pub fn follows(&self, response: &str) -> bool {
        !python::strip(response).is_empty() && self.kind.follows(response)
    }

    /// Whether a response follows it in any of its [`variants`]: the loose verdict.
    pub fn follows_loosely(&self, variants: &[String]) -> bool {
        variants.iter().any(|variant| self.follows(variant))
    }
}

/// The instructions of a row with the fields of IFEval's `input_data.jsonl`.
///
/// # Errors
/// If a field is missing or has another type, and as [`Instruction::new`].
pub fn of_row(fields: &Map<String, Value>) -> Result<Vec<Instruction>, InstructionError> {
    let wrong = |problem: String| InstructionError::Row { problem };
    let list = |key: &str| {
        let list = fields.get(key).and_then(Value::as_array);
        list.ok_or_else(|| wrong(format!("`{key}` is not a list")))
    };
    let (ids, kwargs) = (list("instruction_id_list")?, list("kwargs")?);
    if ids.is_empty() || ids.len() != kwargs.len() {
        let (ids, kwargs) = (ids.len(), kwargs.len());
        return Err(wrong(format!(
            "`instruction_id_list` has {ids} items and `kwargs` has {kwargs}; expected the same number, at least 1"
        )));
    }
    let each = ids.iter().zip(kwargs).map(|(id, kwargs)| {
        let id = id.as_str();
        let id = id.ok_or_else(|| wrong("`instruction_id_list`: expected texts".into()))?;
        let kwargs = kwargs.as_object();
        let kwargs = kwargs.ok_or_else(|| wrong("`kwargs`: expected objects".into()))?;
        Instruction::new(id, kwargs)
    });
    each.collect()
}

/// The response with and without its asterisks, its first line and its last line, in every combination.
pub fn variants(response: &str) -> Vec<String> {
    let lines: Vec<&str> = response.split('\n').collect();
    let without = |lines: &[&str]| python::strip(&lines.join("\n")).to_owned();
    let last = lines.len() - 1;
    let mut variants = vec![
        response.to_owned(),
        without(&lines[1..]),
        without(&lines[..last]),
        without(lines.get(1..last).unwrap_or(&[])),
    ];
    for index in 0..variants.len() {
        variants.push(variants[index].replace('*', ""));
    }
    variants
}
