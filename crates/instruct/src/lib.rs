//! Generates training data with a language model: Self-Instruct, Stanford Alpaca's simplification of it, and Baize's self-chat.
//!
//! ```text
//! seeds --Random--> prompts --Completions, Journal--> texts --parse, filter--> rows, with what they come from
//! ```
//!
//! A [`Method`] is data: the published prompts, settings and filters are files under `data/generate`. What answers the prompts
//! implements [`Completions`]: [`Endpoint`] is a server of OpenAI's API, and the program has a local model. Each answer is
//! appended to the [`Journal`] when it arrives. All else is computed from the journal, so that an interrupted run is resumed
//! without losing or repeating a row. The crate does not depend on Burn.

#[cfg(test)]
extern crate self as simmer_instruct;

mod ask;
mod completion;
mod dialogue;
mod endpoint;
mod error;
mod filter;
mod instances;
mod joint;
mod journal;
mod method;
mod output;
mod pool;
mod python;
mod recipe;
mod report;
mod run;
mod seeds;
mod staged;
#[cfg(test)]
mod tests;
mod verbs;

pub use ask::{Ask, ask};
pub use completion::{Completion, Completions, Finish, Prompt, Request, Sampling, Stop};
pub use dialogue::{Dialogue, turns};
pub use endpoint::{Api, Endpoint, EndpointConfig};
pub use error::InstructError;
pub use filter::{Filter, Reason};
pub use instances::{Instances, classified, generated};
pub use joint::{Candidate, parse as parse_joint, prompt as joint_prompt};
pub use journal::{About, Journal, JournalKey, Key, Stage};
pub use method::Method;
pub use output::write;
pub use recipe::{ChatFormat, ComputeDtype, GenerateRecipe, LocalConfig, ModelConfig};
pub use report::{Report, Spent};
pub use run::{Dropped, Ended, Kept, Made, Outcome, Row, Run, Watch};
pub use seeds::{Example, Seed, Seeds};
pub use staged::{instructions as parse_instructions, prompt as staged_prompt};
pub use verbs::verb_and_noun;
