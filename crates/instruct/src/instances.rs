//! The instances of an instruction that a completion has.
//!
//! Source: prepare_for_finetuning.py of Self-Instruct.

use std::sync::LazyLock;

use fancy_regex::Regex;

use crate::completion::{Completion, Finish};
use crate::filter::Reason;
use crate::python::{is_space, pattern, split, strip};

static EXAMPLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"Example\s?\d*\.?"));
static OUTPUT: LazyLock<Regex> = LazyLock::new(|| pattern(r"Output\s*\d*\s*:"));
static INPUT: LazyLock<Regex> = LazyLock::new(|| pattern(r"Input\s*\d*\s*:"));

const LABEL: &str = "Class label:";

/// An input and its output.
pub(crate) type Instance = (String, String);

/// The instances of an instruction: those that are kept, in the order of the completion, and those that are dropped.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instances {
    /// Inputs and outputs.
    pub kept: Vec<(String, String)>,
    /// Texts, and why they are dropped.
    pub dropped: Vec<(String, Reason)>,
}

/// The instances of a task that is no classification: an input, then the output.
pub fn generated(completion: &Completion) -> Instances {
    let text = strip(&completion.text);
    let found = |regex: &Regex| regex.is_match(text).unwrap_or(false);
    let examples: Vec<&str> = if found(&EXAMPLE) {
        let examples = split(&EXAMPLE, text).into_iter().map(strip);
        examples.filter(|example| !example.is_empty()).collect()
    } else if found(&OUTPUT) {
        vec![text]
    } else {
        return none(completion, text);
    };
    filtered(
        completion,
        examples.into_iter().map(input_and_output).collect(),
    )
}

/// The instances of a classification task: the label, then an input that has it.
pub fn classified(completion: &Completion) -> Instances {
    let text = &completion.text;
    let Some((_, examples)) = text.split_once(LABEL) else {
        return none(completion, strip(text));
    };
    let one = |example: &str| {
        let example = strip(example);
        let (label, input) = example.split_once('\n').unwrap_or((example, ""));
        (strip(input).to_owned(), strip(label).to_owned())
    };
    filtered(completion, examples.split(LABEL).map(one).collect())
}

fn none(completion: &Completion, text: &str) -> Instances {
    let reason = match completion.finish {
        Finish::TooLong => Reason::PromptTooLong,
        _ => Reason::Format,
    };
    Instances {
        kept: Vec::new(),
        dropped: vec![(text.to_owned(), reason)],
    }
}

fn input_and_output(text: &str) -> Instance {
    let parts = split(&OUTPUT, text);
    let (input, output) = match parts.as_slice() {
        [input, output, ..] => (strip(input), strip(output)),
        _ => ("", strip(text)),
    };
    // more than one pair may follow
    let output = split(&INPUT, output)
        .first()
        .map_or(output, |first| strip(first));
    let label = INPUT
        .find(input)
        .ok()
        .flatten()
        .filter(|label| label.start() == 0);
    let input = label.map_or(input, |label| &input[label.end()..]);
    (strip(input).to_owned(), output.to_owned())
}

/// The filters for the instances of one instruction, in the order of the original.
fn filtered(completion: &Completion, mut found: Vec<Instance>) -> Instances {
    let mut instances = Instances::default();
    if completion.finish == Finish::Length {
        instances.drop(found.pop(), &Reason::Truncated);
    }
    for instance in found {
        let ends_with_colon = |text: &str| text.trim_end_matches(is_space).ends_with(':');
        let reason = if instance.0 == instance.1 {
            Reason::SameAsInput
        } else if instance.1.is_empty() {
            Reason::NoOutput
        } else if ends_with_colon(&instance.0) || ends_with_colon(&instance.1) {
            Reason::Colon
        } else {
            instances.kept.push(instance);
            continue;
        };
        instances.drop(Some(instance), &reason);
    }
    if contradict(&instances.kept) {
        for instance in std::mem::take(&mut instances.kept) {
            instances.drop(Some(instance), &Reason::Contradiction);
        }
    }
    let mut kept: Vec<Instance> = Vec::new();
    for instance in std::mem::take(&mut instances.kept) {
        if kept.contains(&instance) {
            instances.drop(Some(instance), &Reason::Duplicate);
        } else {
            kept.push(instance);
        }
    }
    instances.kept = kept;
    instances
}

/// Whether two instances have the same input and other outputs.
fn contradict(instances: &[Instance]) -> bool {
    instances
        .iter()
        .enumerate()
        .any(|(place, (input, output))| {
            let mut before = instances[..place].iter();
            !input.is_empty() && before.any(|(other, answer)| other == input && answer != output)
        })
}

impl Instances {
    fn drop(&mut self, instance: Option<Instance>, reason: &Reason) {
        let text = instance.map(|(input, output)| format!("{input}\n{output}"));
        self.dropped
            .push((text.unwrap_or_default(), reason.clone()));
    }
}
