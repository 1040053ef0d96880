//! Stanford Alpaca's prompts and completions: instruction, input and output together.
//!
//! Source: `encode_prompt` and `post_process_gpt3_response` of generate_instruction.py.

use std::fmt::Write as _;

use serde::Serialize;

use crate::completion::{Completion, Finish};
use crate::filter::{Filter, Reason};
use crate::python::{is_space, one_line, strip};
use crate::seeds::Example;

/// An instruction with its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The instruction.
    pub instruction: String,
    /// The input; may be empty.
    pub input: String,
    /// The output.
    pub output: String,
}

/// What stands for an empty input.
const NO_INPUT: &str = "<noinput>";
/// The line before each task.
const BORDER: &str = "###";
/// The parts of a task.
const LABELS: [&str; 3] = ["Instruction:", "Input:", "Output:"];

/// The prompt: the requirements, the examples, and the number of the next task.
pub fn prompt(requirements: &str, examples: &[&Example]) -> String {
    let mut prompt = format!("{requirements}\n");
    for (number, example) in (1..).zip(examples) {
        let instruction = instruction_line(&example.instruction);
        let input = if example.input.is_empty() {
            NO_INPUT
        } else {
            &example.input
        };
        let _ = write!(
            prompt,
            "{BORDER}\n{number}. Instruction: {instruction}\n{number}. Input:\n{input}\n{number}. Output:\n{}\n",
            example.output
        );
    }
    let _ = write!(prompt, "{BORDER}\n{}. Instruction:", examples.len() + 1);
    prompt
}

/// An instruction as a prompt shows it.
pub(crate) fn instruction_line(instruction: &str) -> String {
    one_line(instruction).trim_end_matches(':').to_owned()
}

/// The tasks of a completion: each is kept so far, or dropped for a reason.
pub fn parse(
    completion: &Completion,
    examples: usize,
    filter: &Filter,
) -> Vec<Result<Candidate, (String, Reason)>> {
    if completion.finish == Finish::TooLong {
        return vec![Err((String::new(), Reason::PromptTooLong))];
    }
    let text = format!("{}. Instruction:{}", examples + 1, completion.text);
    let tasks: Vec<&str> = text.split(BORDER).collect();
    let last = tasks.len() - 1;
    let one = |(place, task): (usize, &&str)| {
        let dropped = |reason| Err((strip(task).to_owned(), reason));
        // it is probably incomplete
        if place == last && completion.finish == Finish::Length {
            return dropped(Reason::Truncated);
        }
        let Some([instruction, input, output]) = parts(task, place + examples + 1) else {
            return dropped(Reason::Format);
        };
        let has_input = input.to_lowercase() != NO_INPUT;
        match filter.reason(instruction) {
            Some(reason) => Err((instruction.to_owned(), reason)),
            None => Ok(Candidate {
                instruction: instruction.to_owned(),
                input: if has_input { input } else { "" }.to_owned(),
                output: output.to_owned(),
            }),
        }
    };
    tasks.iter().enumerate().map(one).collect()
}

/// The three texts after the labels of a task: `re.split(rf"{number}\.\s+(Instruction|Input|Output):", task)`, if there are
/// exactly three labels. Their order does not matter to the original, nor what stands before the number.
fn parts(task: &str, number: usize) -> Option<[&str; 3]> {
    let mark = format!("{number}.");
    let mut texts = Vec::new();
    let (mut begin, mut from) = (0, 0);
    while let Some(found) = task[from..].find(&mark).map(|at| at + from) {
        let rest = &task[found + mark.len()..];
        let label = rest.trim_start_matches(is_space);
        let has_space = label.len() < rest.len();
        let known = LABELS
            .iter()
            .find(|known| has_space && label.starts_with(**known));
        let Some(known) = known else {
            from = found + 1;
            continue;
        };
        texts.push(&task[begin..found]);
        begin = task.len() - label.len() + known.len();
        from = begin;
    }
    texts.push(&task[begin..]);
    let texts: [&str; 4] = texts.try_into().ok()?;
    Some([texts[1], texts[2], texts[3]].map(strip))
}
