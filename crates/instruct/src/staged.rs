//! The prompts and completions of Self-Instruct's first two stages: instructions, and whether they are classification tasks.
//!
//! Source: bootstrap_instructions.py and identify_clf_or_not.py.

use std::fmt::Write as _;
use std::sync::LazyLock;

use fancy_regex::Regex;

use crate::completion::{Completion, Finish};
use crate::filter::{Filter, Reason};
use crate::joint::instruction_line;
use crate::python::{capitalized, one_line, pattern, split, strip};

/// Where the next instruction of a numbered list begins.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\n\d+\s?\. "));

/// The prompt: a header, a numbered list of instructions, and the number of the next.
pub fn prompt(header: &str, examples: &[&str]) -> String {
    let mut prompt = header.to_owned();
    for (number, example) in (1..).zip(examples) {
        let _ = writeln!(prompt, "{number}. {}", instruction_line(example));
    }
    let _ = write!(prompt, "{}.", examples.len() + 1);
    prompt
}

/// The instructions of a completion: each is kept so far, or dropped for a reason.
pub fn instructions(
    completion: &Completion,
    filter: &Filter,
    capitalize: bool,
) -> Vec<Result<String, (String, Reason)>> {
    match completion.finish {
        Finish::Stop => (),
        // the original drops all of them, not only the last
        Finish::Length => {
            return vec![Err((strip(&completion.text).to_owned(), Reason::Truncated))];
        }
        Finish::TooLong => return vec![Err((String::new(), Reason::PromptTooLong))],
    }
    let one = |text: &str| {
        let mut instruction = one_line(text);
        if capitalize {
            instruction = capitalized(&instruction);
        }
        match filter.reason(&instruction) {
            Some(reason) => Err((instruction, reason)),
            None => Ok(instruction),
        }
    };
    split(&NUMBER, &completion.text)
        .into_iter()
        .map(one)
        .collect()
}

/// The prompt that asks whether an instruction is a classification task.
pub(crate) fn classification(examples: &str, instruction: &str, question: &str) -> String {
    format!("{examples} {}\n{question}", strip(instruction))
}

/// The prompt for instances of an instruction.
pub(crate) fn instances(examples: &str, instruction: &str) -> String {
    format!("{examples} {}\n", strip(instruction))
}
