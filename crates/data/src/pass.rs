//! One source on its way from its files to examples, chunk by chunk.

use rayon::prelude::*;

use crate::config::{DataConfig, SourceConfig};
use crate::conversation::{Conversation, Origin};
use crate::error::DataError;
use crate::example::{EncodedRow, Example, Limits, Outcome, encode_row};
use crate::format::Reader;
use crate::lint::Linter;
use crate::report::SourceReport;
use crate::template::Template;
use crate::tokenizer::Tokenizer;

/// Rows that are in memory at a time.
const CHUNK: usize = 4096;

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

    /// Renders and tokenises a row.
    pub(crate) fn encode(
        &self,
        row: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<EncodedRow, DataError> {
        encode_row(row, &self.template, tokenizer, &self.limits)
    }
}

/// A pass over one source.
pub(crate) struct Pass<'a> {
    encoder: Encoder,
    reader: Reader,
    tokenizer: &'a Tokenizer,
    report: SourceReport,
    first: Option<Origin>,
}

impl<'a> Pass<'a> {
    pub(crate) fn open(
        config: &DataConfig,
        source: &SourceConfig,
        tokenizer: &'a Tokenizer,
    ) -> Result<Pass<'a>, DataError> {
        let encoder = Encoder::of(config, source, tokenizer)?;
        let reader = source.open()?;
        let report = SourceReport::new(&source.path, reader.format(), encoder.template.name());
        Ok(Pass {
            encoder,
            reader,
            tokenizer,
            report,
            first: None,
        })
    }

    /// Goes through at most `rows` rows of the source of this number, checks each, and hands out their examples in order.
    ///
    /// # Errors
    /// At the first row that cannot be used, and where no row has anything to train on.
    pub(crate) fn run(
        mut self,
        number: usize,
        rows: usize,
        linter: &mut Linter,
        keep: &mut dyn FnMut(Example),
    ) -> Result<SourceReport, DataError> {
        let mut left = rows;
        let mut kept = false;
        while left > 0 {
            let chunk = self.reader.next_chunk(CHUNK.min(left))?;
            if chunk.is_empty() {
                break;
            }
            left -= chunk.len();
            self.first.get_or_insert_with(|| chunk[0].origin.clone());
            let (encoder, tokenizer, shared) = (&self.encoder, self.tokenizer, &*linter);
            let checked: Vec<_> = chunk
                .par_iter()
                .map(|row| {
                    let EncodedRow { rendered, outcomes } = encoder.encode(row, tokenizer)?;
                    let findings =
                        shared.check(row, &encoder.template, tokenizer, &rendered, &outcomes)?;
                    Ok::<_, DataError>((outcomes, findings))
                })
                .collect();
            for (row, result) in chunk.iter().zip(checked) {
                let (outcomes, findings) = result?;
                linter.add(number, findings);
                self.report.row();
                for outcome in outcomes {
                    self.report.count(&outcome, &row.origin);
                    if let Outcome::Kept { example, .. } = outcome {
                        kept = true;
                        keep(example);
                    }
                }
            }
        }
        self.report.date = self.encoder.template.date_told();
        self.report.ignored_keys = self.reader.ignored_keys().clone();
        self.report.leading_answers = self.reader.leading_answers();
        match &self.first {
            Some(first) if !kept => Err(self.report.nothing_trained(first, &self.encoder.limits)),
            _ => Ok(self.report),
        }
    }
}
