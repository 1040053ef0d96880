//! Methods as data: prompts, settings and filters.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::completion::Sampling;
use crate::error::InstructError;
use crate::filter::Filter;

/// The maximum size of a file of a method.
const MAX_BYTES: u64 = 4 << 20;

/// Names and contents of files under `data/generate`.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../data/generate/", $name)))),*]
    };
}

/// The built-in methods and their prompts.
const FILES: &[(&str, &str)] = files![
    "self-instruct.toml",
    "self-instruct/is-classification.txt",
    "self-instruct/input-first.txt",
    "self-instruct/output-first.txt",
    "alpaca.toml",
    "alpaca/prompt.txt",
    "baize.toml",
    "baize/prompt.txt",
];

/// How rows are generated. One of `staged`, `joint` and `dialogue` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// What it is, with its source.
    pub about: String,
    /// Which instructions are kept; not for conversations.
    #[serde(default)]
    pub filter: Option<Filter>,
    /// Instructions, then classification or not, then instances.
    #[serde(default)]
    pub staged: Option<Staged>,
    /// Instruction, input and output in one completion.
    #[serde(default)]
    pub joint: Option<Joint>,
    /// Conversations.
    #[serde(default)]
    pub dialogue: Option<SelfChat>,
}

/// A text in the file of the method, or in another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// The text.
    Here(String),
    /// A file with the text, relative to the file of the method.
    There {
        /// Its name.
        file: String,
    },
}

impl Text {
    /// The text; a file has been read when the method was.
    pub fn get(&self) -> &str {
        match self {
            Self::Here(text) => text,
            Self::There { .. } => "",
        }
    }
}

/// Self-Instruct's stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// The first stage.
    pub instructions: Instructions,
    /// The second stage.
    pub classification: Classification,
    /// The third stage.
    pub instances: InstanceStage,
}

/// New instructions from a numbered list of others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// The text before the list.
    pub prompt: Text,
    /// The number of instructions in the list.
    pub seeds: usize,
    /// How many of these are generated instructions, as soon as there are so many.
    #[serde(default)]
    pub generated: usize,
    /// Whether the first letter of an instruction becomes upper case, and all others lower case.
    #[serde(default)]
    pub capitalize: bool,
    /// How to sample.
    pub sampling: Sampling,
}

/// Whether an instruction is a classification task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classification {
    /// Examples, up to the place of the instruction.
    pub prompt: Text,
    /// The line after the instruction.
    pub question: String,
    /// The completions that mean yes.
    pub yes: Vec<String>,
    /// How to sample.
    pub sampling: Sampling,
}

/// Instances of instructions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceStage {
    /// The maximum number of instances of an instruction.
    pub max_instances: usize,
    /// For instructions that are no classification tasks.
    pub input_first: Prompted,
    /// For classification tasks.
    pub output_first: Prompted,
}

/// A prompt with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompted {
    /// Examples, up to the place of the instruction.
    pub prompt: Text,
    /// How to sample.
    pub sampling: Sampling,
}

/// Stanford Alpaca's single stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joint {
    /// The requirements, before the examples.
    pub prompt: Text,
    /// The number of seeds in a prompt.
    pub seeds: usize,
    /// How to sample.
    pub sampling: Sampling,
}

/// Baize's self-chat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfChat {
    /// The prompt, with `{seed}` for the question.
    pub prompt: Text,
    /// What stands before a statement of the human.
    pub human: String,
    /// What stands before an answer.
    pub ai: String,
    /// How to sample.
    pub sampling: Sampling,
}

impl Method {
    /// The built-in method of this name, or the method in a file, if the name ends in `.toml`.
    ///
    /// # Errors
    /// If there is none, or it is invalid.
    pub fn named(name: &str) -> Result<Self, InstructError> {
        let path = Path::new(name);
        let is_file = path.extension().is_some_and(|end| end == "toml");
        let text = if is_file {
            read(path)?
        } else {
            built_in(&format!("{name}.toml"))
                .ok_or_else(|| unknown(name))?
                .to_owned()
        };
        let invalid = |problem: String| InstructError::Invalid {
            path: path.to_owned(),
            problem,
        };
        let mut method: Self = toml::from_str(&text)
            .map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for text in method.texts() {
            let Text::There { file } = &*text else {
                continue;
            };
            *text = Text::Here(if is_file {
                read(&folder.join(file))?
            } else {
                built_in(file).unwrap_or_default().to_owned()
            });
        }
        method.check().map_err(invalid)?;
        Ok(method)
    }

    /// The names of the built-in methods.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES
            .iter()
            .filter_map(|(name, _)| name.strip_suffix(".toml"))
    }

    fn texts(&mut self) -> Vec<&mut Text> {
        let mut texts = Vec::new();
        if let Some(staged) = &mut self.staged {
            let instances = &mut staged.instances;
            texts.extend([
                &mut staged.instructions.prompt,
                &mut staged.classification.prompt,
                &mut instances.input_first.prompt,
                &mut instances.output_first.prompt,
            ]);
        }
        texts.extend(self.joint.as_mut().map(|joint| &mut joint.prompt));
        texts.extend(self.dialogue.as_mut().map(|dialogue| &mut dialogue.prompt));
        texts
    }

    fn check(&self) -> Result<(), String> {
        let kinds = [
            self.staged.is_some(),
            self.joint.is_some(),
            self.dialogue.is_some(),
        ];
        let found = kinds.iter().filter(|given| **given).count();
        if found != 1 {
            return Err(format!(
                "expected one of the tables [staged], [joint] and [dialogue], found {found}"
            ));
        }
        if self.dialogue.is_none() && self.filter.is_none() {
            return Err("the table [filter] is missing".to_owned());
        }
        if let Some(dialogue) = &self.dialogue {
            if dialogue.human.is_empty() || dialogue.ai.is_empty() {
                return Err("[dialogue]: `human` and `ai` must not be empty".to_owned());
            }
            if !dialogue.prompt.get().contains("{seed}") {
                return Err("[dialogue]: the prompt has no {seed}".to_owned());
            }
        }
        if self.joint.as_ref().is_some_and(|joint| joint.seeds == 0) {
            return Err("[joint]: expected `seeds` of at least 1, found 0".to_owned());
        }
        if let Some(staged) = &self.staged {
            let Instructions {
                seeds, generated, ..
            } = staged.instructions;
            if seeds == 0 || generated > seeds {
                return Err(format!(
                    "[staged.instructions]: expected `seeds` of at least 1 and at least `generated`, found {seeds} and {generated}"
                ));
            }
        }
        Ok(())
    }
}

fn built_in(file: &str) -> Option<&'static str> {
    let found = FILES.iter().find(|(name, _)| *name == file);
    found.map(|(_, text)| *text)
}

fn read(path: &Path) -> Result<String, InstructError> {
    simmer_files::read_text(path, MAX_BYTES).map_err(InstructError::read(path))
}

fn unknown(name: &str) -> InstructError {
    InstructError::UnknownMethod {
        name: name.to_owned(),
        known: Method::names().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_method_is_complete() {
        let names: Vec<_> = Method::names().collect();
        assert_eq!(names, ["self-instruct", "alpaca", "baize"]);
        for name in names {
            let mut method = Method::named(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            for text in method.texts() {
                assert!(!text.get().is_empty(), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn the_settings_are_those_of_the_original_programs() {
        let method = Method::named("alpaca").unwrap();
        let sampling = method.joint.unwrap().sampling;
        assert_eq!(
            (sampling.max_tokens, sampling.logit_bias["50256"]),
            (3072, -100.0)
        );
        assert_eq!(sampling.stop, ["\n20", "20.", "20."]);
        assert_eq!(method.filter.unwrap().keywords.len(), 18);
        let method = Method::named("self-instruct").unwrap();
        let staged = method.staged.unwrap();
        assert_eq!(
            staged.instructions.sampling.stop,
            ["\n\n", "\n16", "16.", "16 ."]
        );
        assert_eq!(staged.instances.output_first.sampling.max_tokens, 300);
        assert!(staged.classification.prompt.get().ends_with("Task:"));
    }
}
