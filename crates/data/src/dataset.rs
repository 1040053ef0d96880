//! Loads the examples of a recipe's `[data]` table.

use std::sync::Arc;

use simmer_files::size::counted;

use crate::bad::OnBad;
use crate::config::{DataConfig, Validation};
use crate::error::DataError;
use crate::example::Example;
use crate::order::{Batch, Batches, Cursor, Order, Steps, validation_rows};
use crate::pass::{Inspect, Pass};
use crate::report::Report;
use crate::stream::Stream;
use crate::tokenizer::Tokenizer;

/// How many rows of each streamed source are checked before training starts.
const CHECKED: usize = 10_000;

/// The training and validation examples of a recipe.
#[derive(Debug)]
pub struct Dataset {
    train: Train,
    /// The validation examples, in file order.
    pub validation: Vec<Example>,
    /// What was read, truncated and dropped; for a stream, only from its first rows.
    pub report: Report,
}

/// The training examples.
#[derive(Debug)]
enum Train {
    Memory {
        /// In file order, one source after another.
        examples: Vec<Example>,
        order: Order,
        batches: Batches,
    },
    Stream(Stream),
}

/// Examples after reading, rendering and tokenising.
#[derive(Debug)]
pub struct Checked {
    /// The examples of each training source, in file order.
    pub train: Vec<Vec<Example>>,
    /// The examples of the sources that are used only for validation.
    pub validation: Vec<Example>,
    /// What was read, truncated and dropped.
    pub report: Report,
}

impl Checked {
    /// The training examples without those that a run holds out for validation.
    ///
    /// # Errors
    /// [`DataError::Config`] if none would be left to train on.
    pub fn training(&self, config: &DataConfig, seed: u64) -> Result<Vec<Vec<Example>>, DataError> {
        split(config, self.train.clone(), seed).map(|(train, _)| train)
    }
}

/// Reads, renders and tokenises the sources of `config`: at most `rows` rows of each training source. `inspector` is
/// shown every row.
///
/// # Errors
/// [`DataError`] for the first problem, which may be a source without any token to train on.
pub fn read(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    rows: usize,
    inspector: &mut impl Inspect,
) -> Result<Checked, DataError> {
    let mut train: Vec<Vec<Example>> = vec![Vec::new(); config.train.len()];
    let mut validation = Vec::new();
    let report = passes(
        config,
        tokenizer,
        rows,
        config.on_bad(),
        inspector,
        &mut |source, example| match source {
            Some(source) => train[source].push(example),
            None => validation.push(example),
        },
    )?;
    Ok(Checked {
        train,
        validation,
        report,
    })
}

/// Reads, renders and tokenises every row of the sources of `config` and shows it to `inspector`, in bounded memory. Rows
/// that cannot be used do not stop it, whatever `data.bad_rows` says: the report has them.
///
/// # Errors
/// As [`read`].
pub fn check(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    inspector: &mut impl Inspect,
) -> Result<Report, DataError> {
    passes(
        config,
        tokenizer,
        usize::MAX,
        OnBad::List,
        inspector,
        &mut |_, _| {},
    )
}

/// Reads each source once and passes its examples to `keep` in order, with the number of the training source; `None`
/// for validation sources.
fn passes(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    rows: usize,
    on_bad: OnBad,
    inspector: &mut impl Inspect,
    keep: &mut dyn FnMut(Option<usize>, Example),
) -> Result<Report, DataError> {
    config.check()?;
    let mut report = Report::default();
    for (number, source) in config.sources().enumerate() {
        let trained = (number < config.train.len()).then_some(number);
        let rows = trained.map_or(usize::MAX, |_| rows);
        let pass = Pass::open(config, source, tokenizer, on_bad)?;
        let mut of_source = |example| keep(trained, example);
        let passed = pass.run(number, rows, inspector, &mut of_source)?;
        match trained {
            Some(_) => report.train.push(passed),
            None => report.validation.push(passed),
        }
    }
    Ok(report)
}

impl Dataset {
    /// Reads, renders and tokenises the sources of `config`; of a stream, only the first rows. `inspector` is shown every
    /// row.
    ///
    /// # Errors
    /// As [`read`].
    pub fn load(
        config: &DataConfig,
        tokenizer: &Arc<Tokenizer>,
        steps: Steps,
        inspector: &mut impl Inspect,
    ) -> Result<Dataset, DataError> {
        let rows = if config.stream { CHECKED } else { usize::MAX };
        let Checked {
            train,
            mut validation,
            report,
        } = read(config, tokenizer, rows, inspector)?;
        let train = if config.stream {
            Train::Stream(Stream::open(config, tokenizer, steps)?)
        } else {
            let (train, taken) = split(config, train, steps.seed)?;
            validation.extend(taken);
            let order = Order {
                sources: train.iter().map(Vec::len).collect(),
                weights: config.weights(),
                batch_size: steps.batch_size,
                shuffle: config.shuffle.then_some(steps.seed),
            };
            Train::Memory {
                examples: train.into_iter().flatten().collect(),
                batches: order.batches(Cursor::default()),
                order,
            }
        };
        Ok(Dataset {
            train,
            validation,
            report,
        })
    }

    /// The training examples, source by source in file order; `None` for a stream.
    pub fn examples(&self) -> Option<&[Example]> {
        match &self.train {
            Train::Memory { examples, .. } => Some(examples),
            Train::Stream(_) => None,
        }
    }

    /// The steps of one pass over the training examples; `None` for a stream, whose length is unknown.
    pub fn steps_per_epoch(&self) -> Option<usize> {
        match &self.train {
            Train::Memory { order, .. } => Some(order.steps_per_epoch()),
            Train::Stream(_) => None,
        }
    }

    /// Steps before a position in the data; `None` for a stream.
    pub fn steps_before(&self, cursor: Cursor) -> Option<u64> {
        match &self.train {
            Train::Memory { order, .. } => Some(order.steps_before(cursor)),
            Train::Stream(_) => None,
        }
    }

    /// What was read, truncated and dropped from a stream since it was opened; `None` for data in memory.
    pub fn streamed(&self) -> Option<Report> {
        match &self.train {
            Train::Memory { .. } => None,
            Train::Stream(stream) => Some(stream.report()),
        }
    }

    /// The batch at `cursor`, and its examples in the order of `Batch::rows`.
    ///
    /// # Errors
    /// [`DataError`] for a row of a stream that cannot be used.
    pub fn batch(&mut self, cursor: Cursor) -> Result<(Batch, Vec<Example>), DataError> {
        match &mut self.train {
            Train::Stream(stream) => stream.batch(cursor),
            Train::Memory {
                examples,
                order,
                batches,
            } => {
                if batches.cursor() != cursor {
                    *batches = order.batches(cursor);
                }
                let batch = batches.next().unwrap_or(Batch {
                    epoch: cursor.epoch,
                    rows: Vec::new(),
                    next: cursor,
                });
                let chosen = batch.rows.iter().map(|&row| examples[row].clone());
                let chosen = chosen.collect();
                Ok((batch, chosen))
            }
        }
    }
}

/// Moves the validation rows out of the training sources. All pieces of a row stay together.
fn split(
    config: &DataConfig,
    train: Vec<Vec<Example>>,
    seed: u64,
) -> Result<(Vec<Vec<Example>>, Vec<Example>), DataError> {
    let starts = |examples: &[Example]| -> Vec<bool> {
        let first = examples.first().map(|_| true);
        let rest = examples
            .windows(2)
            .map(|pair| pair[0].origin != pair[1].origin);
        first.into_iter().chain(rest).collect()
    };
    let starts: Vec<Vec<bool>> = train.iter().map(|examples| starts(examples)).collect();
    let rows = starts.iter().flatten().filter(|start| **start).count();
    let count = match config.validation {
        Some(Validation::Fraction(fraction)) => (fraction * rows as f64).ceil() as usize,
        Some(Validation::Rows(count)) => count,
        _ => return Ok((train, Vec::new())),
    };
    let wrong = |problem: String| {
        let key = "validation";
        Err(DataError::Config { key, problem })
    };
    if count >= rows {
        return wrong(format!(
            "expected fewer than {}, found {count}: none would be left to train on",
            counted(rows, "row")
        ));
    }
    let mut chosen = validation_rows(rows, count, seed).into_iter();
    let mut validation = Vec::new();
    let mut kept = Vec::with_capacity(train.len());
    for (number, (examples, starts)) in train.into_iter().zip(starts).enumerate() {
        let mut left = Vec::with_capacity(examples.len());
        let mut taken = false;
        for (example, start) in examples.into_iter().zip(starts) {
            if start {
                taken = chosen.next().unwrap_or(false);
            }
            if taken { &mut validation } else { &mut left }.push(example);
        }
        if left.is_empty() && config.weights().is_some() {
            let path = config.train[number].path.display();
            return wrong(format!(
                "it takes every row of {path}; a source with a weight needs rows to train on"
            ));
        }
        kept.push(left);
    }
    Ok((kept, validation))
}

#[cfg(test)]
mod tests;
