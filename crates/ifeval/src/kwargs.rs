//! The arguments of an instruction. Each is read once.

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::error::{InstructionError, KwargProblem};
use super::kind::{Count, Relation};
use super::python;

/// The arguments that have not been read yet.
pub(super) struct Kwargs<'a> {
    pub(super) id: &'a str,
    left: Vec<(&'a str, &'a Value)>,
}

impl<'a> Kwargs<'a> {
    pub(super) fn new(id: &'a str, kwargs: &'a Map<String, Value>) -> Self {
        let left = kwargs.iter().map(|(key, value)| (key.as_str(), value));
        Self {
            id,
            left: left.filter(|(_, value)| !is_nothing(value)).collect(),
        }
    }

    fn error(&self, key: &str, problem: KwargProblem) -> InstructionError {
        InstructionError::Kwarg {
            id: self.id.to_owned(),
            key: key.to_owned(),
            problem,
        }
    }

    pub(super) fn must_be(&self, key: &str, what: &'static str) -> InstructionError {
        self.error(key, KwargProblem::MustBe(what))
    }

    fn take(&mut self, key: &str) -> Result<&'a Value, InstructionError> {
        let index = self.left.iter().position(|(name, _)| *name == key);
        match index {
            Some(index) => Ok(self.left.swap_remove(index).1),
            None => Err(self.error(key, KwargProblem::Missing)),
        }
    }

    /// Fails if an argument was not read.
    pub(super) fn finish(&self) -> Result<(), InstructionError> {
        match self.left.first() {
            Some((key, _)) => Err(self.error(key, KwargProblem::Unexpected)),
            None => Ok(()),
        }
    }

    /// A whole number above 0; `3.0` is accepted as 3.
    pub(super) fn number(&mut self, key: &str) -> Result<usize, InstructionError> {
        let number = self.take(key)?.as_f64();
        match number {
            Some(number) if number > 0.0 && number < 1e9 && number.fract() == 0.0 => {
                Ok(number as usize)
            }
            _ => Err(self.must_be(key, "a whole number above 0")),
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Result<&'a str, InstructionError> {
        let text = self.take(key)?.as_str();
        text.ok_or_else(|| self.must_be(key, "a text"))
    }

    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<&'a str>, InstructionError> {
        let texts = self.take(key)?.as_array();
        texts
            .and_then(|texts| texts.iter().map(Value::as_str).collect())
            .ok_or_else(|| self.must_be(key, "a list of texts"))
    }

    /// Compiles a pattern from an argument as Python would.
    pub(super) fn pattern(
        &self,
        key: &str,
        pattern: &str,
        ignore_case: bool,
    ) -> Result<Regex, InstructionError> {
        python::pattern(pattern, ignore_case)
            .map_err(|error| self.error(key, KwargProblem::Pattern(error)))
    }

    pub(super) fn count(
        &mut self,
        number: &str,
        relation: &str,
    ) -> Result<Count, InstructionError> {
        let number = self.number(number)?;
        let relation = match self.text(relation)? {
            "less than" => Relation::LessThan,
            "at least" => Relation::AtLeast,
            _ => return Err(self.must_be(relation, "`less than` or `at least`")),
        };
        Ok(Count { relation, number })
    }
}

/// Whether the reference removes the value before it reads the arguments.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) => false,
    }
}
