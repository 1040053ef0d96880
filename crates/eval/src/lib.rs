//! Evaluates models on tasks: answers, scores with standard errors, and comparisons of models.
//!
//! ```text
//! Task --its files--> Question --Evaluator, model--> Answer --Measure--> Score --mean, difference--> Report
//! ```
//!
//! Answers are saved as they arrive ([`Answers`]). Scores are computed from them, so another metric needs no model.

mod answer;
mod error;
mod evaluator;
mod metric;
mod question;
pub mod report;
mod score;
mod scorer;
mod statistics;
mod task;

pub use answer::{Answer, Answers, Asking, Reference};
pub use error::EvalError;
pub use evaluator::{Batches, Evaluator};
pub use metric::{Measure, Score, Tools, pass_at_k, reference_scores, rouge_l};
pub use question::{Asked, Pair, Question, Shot, Turns};
pub use scorer::Scorer;
pub use statistics::{Bootstrap, Difference, FEWEST_ROWS, Mean, difference, mean};
pub use task::{
    Choice, ChoiceMetric, Extraction, Generation, Instruction, Normalisation, Otherwise, Paper,
    Protocol, Shots, Suite, Table, Take, Task, TextMetric,
};
