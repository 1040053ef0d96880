//! One source on its way from its files to examples, chunk by chunk.

use rayon::prelude::*;

use crate::bad::{BadRow, OnBad};
use crate::config::{DataConfig, SourceConfig};
use crate::conversation::{Conversation, Origin};
use crate::error::DataError;
use crate::example::{EncodedRow, Example, Limits, Outcome, encode_row};
use crate::format::Reader;
use crate::report::SourceReport;
use crate::template::{Rendered, Template};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Rows that are in memory at a time.
const CHUNK: usize = 4096;

/// A row after encoding, as an [`Inspect`] is shown it.
#[derive(Debug, Clone, Copy)]
pub struct RowView<'a> {
    /// The row as the file has it.
    pub row: &'a Conversation,
    /// The template of its source.
    pub template: &'a Template,
    /// What tokenised it.
    pub tokenizer: &'a Tokenizer,
    /// The whole row as text.
    pub rendered: &'a Rendered,
    /// What became of it; several outcomes if the row was split.
    pub outcomes: &'a [Outcome],
}

/// Looks at every row of a pass: a linter, for example. `()` looks at nothing.
pub trait Inspect: Sync {
    /// What is found in one row.
    type Found: Send;

    /// Looks at one row alone. Runs for many rows at once, in any order.
    ///
    /// # Errors
    /// [`TokenizerError`] if the tokenizers library fails.
    fn check(&self, view: &RowView<'_>) -> Result<Self::Found, TokenizerError>;

    /// Takes what was found in the next row. Rows come in the order of their files; `source` is the number of their source.
    fn add(&mut self, source: usize, found: Self::Found);
}

impl Inspect for () {
    type Found = ();

    fn check(&self, _view: &RowView<'_>) -> Result<(), TokenizerError> {
        Ok(())
    }

    fn add(&mut self, _source: usize, _found: ()) {}
}

/// What turns the rows of one source into examples.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) template: Template,
    pub(crate) limits: Limits,
}

impl Encoder {
    pub(crate) fn of(
        config: &DataConfig,
        source: &SourceConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Encoder, DataError> {
        Ok(Encoder {
            template: config.template(source, tokenizer)?,
            limits: config.limits(),
        })
    }

    /// Renders and tokenises a row. The inner error concerns this row alone.
    pub(crate) fn encode(
        &self,
        row: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<Result<EncodedRow, BadRow>, DataError> {
        match encode_row(row, &self.template, tokenizer, &self.limits) {
            Ok(encoded) => Ok(Ok(encoded)),
            Err(error @ DataError::Row { .. }) => Ok(Err(BadRow::new(row.origin.clone(), error))),
            Err(error) => Err(error),
        }
    }
}

/// A pass over one source.
pub(crate) struct Pass<'a> {
    encoder: Encoder,
    reader: Reader,
    tokenizer: &'a Tokenizer,
    report: SourceReport,
    on_bad: OnBad,
    first: Option<Origin>,
}

/// A row after encoding.
struct Checked<F> {
    origin: Origin,
    /// Whether the generation prompt is not how an answer starts.
    other_start: bool,
    outcomes: Vec<Outcome>,
    found: F,
}

impl<'a> Pass<'a> {
    pub(crate) fn open(
        config: &DataConfig,
        source: &SourceConfig,
        tokenizer: &'a Tokenizer,
        on_bad: OnBad,
    ) -> Result<Pass<'a>, DataError> {
        let encoder = Encoder::of(config, source, tokenizer)?;
        let reader = source.open(on_bad)?;
        let report = SourceReport::new(source, reader.format(), encoder.template.name())?;
        Ok(Pass {
            encoder,
            reader,
            tokenizer,
            report,
            on_bad,
            first: None,
        })
    }

    /// Reads at most `rows` rows of the source with this number, shows each to `inspector`, and passes their examples to
    /// `keep` in order.
    ///
    /// # Errors
    /// At the first row that cannot be used, or at the end if too many rows cannot, and if no row has anything to train on.
    pub(crate) fn run(
        mut self,
        number: usize,
        rows: usize,
        inspector: &mut impl Inspect,
        keep: &mut dyn FnMut(Example),
    ) -> Result<SourceReport, DataError> {
        let mut left = rows;
        let mut kept = false;
        while left > 0 {
            let chunk = self.reader.next_rows(CHUNK.min(left))?;
            if chunk.is_empty() {
                break;
            }
            left -= chunk.len();
            let (encoder, tokenizer, shared) = (&self.encoder, self.tokenizer, &*inspector);
            let checked: Vec<_> = chunk
                .into_par_iter()
                .map(|row| match row {
                    Ok(row) => checked(&row, encoder, tokenizer, shared),
                    Err(bad) => Ok(Err(bad)),
                })
                .collect();
            for row in checked {
                let Checked {
                    origin,
                    other_start,
                    outcomes,
                    found,
                } = match row? {
                    Ok(checked) => checked,
                    Err(bad) => {
                        self.report.bad(bad, self.on_bad)?;
                        continue;
                    }
                };
                self.first.get_or_insert_with(|| origin.clone());
                inspector.add(number, found);
                self.report.row(&origin);
                self.report.start(&origin, other_start);
                for outcome in outcomes {
                    self.report.count(&outcome, &origin);
                    if let Outcome::Kept { example, .. } = outcome {
                        kept = true;
                        keep(example);
                    }
                }
            }
        }
        if let OnBad::Drop { most } = self.on_bad {
            self.report.check_share(most)?;
        }
        self.report.date = self.encoder.template.date_told();
        self.report.wrapper = self.reader.wrapper().map(str::to_owned);
        self.report.ignored_keys = self.reader.ignored_keys().clone();
        self.report.leading_answers = self.reader.leading_answers();
        match &self.first {
            Some(first) if !kept => Err(self.report.nothing_trained(first, &self.encoder.limits)),
            _ => Ok(self.report),
        }
    }
}

/// Renders, tokenises and checks a row. The inner error concerns this row alone.
fn checked<I: Inspect>(
    row: &Conversation,
    encoder: &Encoder,
    tokenizer: &Tokenizer,
    inspector: &I,
) -> Result<Result<Checked<I::Found>, BadRow>, DataError> {
    let EncodedRow { rendered, outcomes } = match encoder.encode(row, tokenizer)? {
        Ok(encoded) => encoded,
        Err(bad) => return Ok(Err(bad)),
    };
    let found = inspector.check(&RowView {
        row,
        template: &encoder.template,
        tokenizer,
        rendered: &rendered,
        outcomes: &outcomes,
    })?;
    Ok(Ok(Checked {
        origin: row.origin.clone(),
        other_start: rendered.other_start,
        outcomes,
        found,
    }))
}
