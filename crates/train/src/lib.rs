//! Training: recipe, loop, optimizer, learning-rate schedule, checkpoints and metrics.
//!
//! A [`Recipe`] defines a run. [`train`] executes it and writes its files into a folder, while an [`Observer`] is told
//! about each event. [`Trainer`] computes single steps, without a run around them.

mod card;
mod clip;
mod config;
mod counts;
mod error;
pub mod estimate;
mod exact;
mod folder;
mod gradient;
mod guard;
mod manifest;
mod metrics;
mod named;
mod observer;
mod optimizer;
mod outcome;
mod packing;
mod prepared;
pub mod program;
pub mod ranks;
mod rates;
pub mod recipe;
mod resume;
mod run;
mod sample;
mod schedule;
mod start;
pub mod tokenizer;
pub mod tracking;
mod trained;
mod trainer;
mod training;
mod training_checkpoint;
mod training_state;
mod vocabulary;

pub use clip::Clip;
pub use config::{EarlyStop, Interval, MicroBatchTokens, TrainConfig, Weights};
pub use counts::{COUNTS_FILE, Counts, SourceCounts, UnusableCounts};
pub use error::TrainError;
pub use folder::{RECIPE_FILE, is_running};
pub use guard::{Guard, Loss, Reaction, Spike};
pub use manifest::{Accepted, DataFile, Fingerprint, MANIFEST_FILE, Manifest};
pub use metrics::{History, METRICS_FILE, Metrics, SkipMetrics, StepMetrics, ValidationMetrics};
pub use observer::{Observer, Silent, Start};
pub use optimizer::{AdamW, AdamWConfig, Decay, Moments, OptimizerConfig, Rate};
pub use outcome::Outcome;
pub use packing::{Packed, PackedSequence};
pub use prepared::open_base;
pub use recipe::{FullConfig, Method, Recipe, RecipeError};
pub use run::{Resume, train, train_on_ranks};
pub use sample::SampleConfig;
pub use schedule::{Cosine, Schedule, Warmup};
pub use simmer_recipe::Problem;
pub use trainer::{Evaluation, NoStep, Step, StepProgress, Trainer};
pub use training_state::{Best, TrainingState};
pub use vocabulary::{recipe_tokenizer, recipe_vocabulary};
