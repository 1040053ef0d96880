//! Verdicts and their means.

use super::{Instruction, variants};

/// The verdicts on one response, instruction by instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the response follows the instruction as it is.
    pub strict: Vec<bool>,
    /// Whether the response, or a variant without its first line, last line or asterisks, follows the instruction.
    pub loose: Vec<bool>,
}

impl Outcome {
    /// The verdicts on a response to a prompt with these instructions.
    pub fn of(instructions: &[Instruction], response: &str) -> Self {
        let variants = variants(response);
        let mut outcome = Self {
            strict: Vec::with_capacity(instructions.len()),
            loose: Vec::with_capacity(instructions.len()),
        };
        for instruction in instructions {
            let strict = instruction.follows(response);
            outcome.strict.push(strict);
            // the first variant is the response itself
            let loose = strict || instruction.follows_loosely(&variants[1..]);
            outcome.loose.push(loose);
        }
        outcome
    }

    /// Whether it follows every instruction as it is.
    pub fn follows_all(&self) -> bool {
        self.strict.iter().all(|follows| *follows)
    }

    /// Whether it follows every instruction loosely.
    pub fn follows_all_loosely(&self) -> bool {
        self.loose.iter().all(|follows| *follows)
    }
}

/// The four accuracies of IFEval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// The share of prompts whose instructions are all followed.
    pub prompt_strict: f64,
    /// The share of instructions of all prompts that are followed.
    pub instruction_strict: f64,
    /// As `prompt_strict`, loosely.
    pub prompt_loose: f64,
    /// As `instruction_strict`, loosely.
    pub instruction_loose: f64,
}

impl Accuracy {
    /// The accuracy over prompts; `None` if there are no prompts, or none has an instruction.
    pub fn of(outcomes: &[Outcome]) -> Option<Self> {
        Some(Self {
            prompt_strict: share(outcomes.iter().map(Outcome::follows_all))?,
            instruction_strict: share(outcomes.iter().flat_map(|one| one.strict.iter().copied()))?,
            prompt_loose: share(outcomes.iter().map(Outcome::follows_all_loosely))?,
            instruction_loose: share(outcomes.iter().flat_map(|one| one.loose.iter().copied()))?,
        })
    }
}

fn share(verdicts: impl Iterator<Item = bool>) -> Option<f64> {
    let (followed, all) = verdicts.fold((0usize, 0usize), |(followed, all), verdict| {
        (followed + usize::from(verdict), all + 1)
    });
    (all > 0).then(|| followed as f64 / all as f64)
}
