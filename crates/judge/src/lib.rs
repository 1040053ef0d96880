//! Judges answers of models with a model: single ratings, and comparisons of two models in both orders, as MT-bench does.
//!
//! ```text
//! Question --answer, a model or a file--> Answer --judge, Prompts--> Judgement --Verdict--> Report, page
//! ```
//!
//! Forms of files and prompts are data: a table of keys ([`Question`], [`Answer`]) and files under `data/judge` ([`Prompts`]).
//! What answers and judges implements [`simmer_instruct::Completions`]; each completion is appended to a journal when it arrives,
//! and all else is computed from the journals. The crate does not depend on Burn.

mod answer;
mod error;
mod fields;
mod judging;
mod length;
mod page;
mod pairs;
mod prompts;
mod question;
mod recipe;
mod report;
mod result;
mod statistics;
#[cfg(test)]
#[expect(clippy::float_cmp, reason = "halves and ratings are exact")]
mod tests;
mod text;
mod verdict;

pub use answer::{Answer, AnswerKey, Answering, FileAnswers, read as read_answers};
pub use error::JudgeError;
pub use judging::{Judgement, Judging, Shown, VerdictKey, Watch};
pub use length::{Compared, LengthControl, length_control};
pub use page::html;
pub use pairs::{Pair, Position, Winner};
pub use prompts::{JudgePrompt, Prompts, Scale, Set};
pub use question::{Question, read as read_questions, with_references};
pub use recipe::{JudgeConfig, JudgeRecipe, Mode, ModelConfig};
pub use report::{Agreement, Ratings, Report, Single, Versus};
pub use result::{Results, write};
pub use statistics::{Interval, mean_interval, wilson};
pub use verdict::{Preference, Verdict, preference, rating};
