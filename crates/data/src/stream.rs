//! Examples of sources that do not fit in memory: rows are read, shuffled and tokenised when they are needed.
//!
//! Sources without weights are read one after another; sources with weights are interleaved in proportion to their
//! weights. Both repeat without end. Rows are shuffled within blocks of consecutive rows. So the position of a stream
//! is one number: how many rows it has returned. To resume there, the stream skips whole blocks without parsing them.

use std::collections::VecDeque;
use std::sync::Arc;

use rayon::prelude::*;

use crate::bad::{BadRow, OnBad};
use crate::config::{DataConfig, SourceConfig};
use crate::conversation::{Conversation, Origin};
use crate::error::DataError;
use crate::example::{EncodedRow, Example, Outcome};
use crate::format::Reader;
use crate::order::{Batch, Cursor, Steps};
use crate::pass::Encoder;
use crate::random::Random;
use crate::report::{Report, SourceReport};
use crate::stamp::Stamps;
use crate::tokenizer::Tokenizer;

/// Rows that are tokenised together, unless a batch needs more.
const GROUP: usize = 256;

/// Rows of a source that are read before the share of those that cannot be used is looked at. A source with fewer rows was
/// checked as a whole before the first step.
const BEFORE_SHARE: usize = 500;

/// Rows per block if rows are not shuffled.
const BLOCK: usize = 1024;

/// An endless stream of examples. See the module.
#[derive(Debug)]
pub struct Stream {
    sources: Vec<Source>,
    lanes: Vec<Lane>,
    tokenizer: Arc<Tokenizer>,
    on_bad: OnBad,
    batch_size: usize,
    /// Rows taken from the lanes, including those in the queue.
    taken: usize,
    /// Rows with examples that no batch has taken yet, and the rows' numbers.
    queue: VecDeque<(usize, VecDeque<Example>)>,
    /// The position of the next batch.
    at: Cursor,
    /// Passes of all lanes up to the last example.
    passes: u64,
}

/// A source, how its rows are encoded, and the counts of the result.
#[derive(Debug)]
struct Source {
    config: SourceConfig,
    /// What its files were when the stream was opened.
    stamps: Stamps,
    encoder: Encoder,
    report: SourceReport,
    on_bad: OnBad,
}

/// Sources that are read one after another, and the position in them.
#[derive(Debug)]
struct Lane {
    number: usize,
    sources: Vec<usize>,
    weight: f64,
    taken: u64,
    shuffle: Option<u64>,
    block_rows: usize,
    /// The index in `sources` of the source that is being read, and its reader.
    current: usize,
    reader: Option<Reader>,
    /// Blocks read, and passes finished over all sources of the lane.
    blocks: u64,
    passes: u64,
    /// Rows read in this pass.
    rows: usize,
    block: VecDeque<(usize, Row)>,
}

/// A row, or what is wrong with it. Both count as a row of the stream, so that its position is a number of rows.
type Row = Result<Conversation, BadRow>;

impl Stream {
    /// Opens a stream of the training sources of `config`.
    ///
    /// # Errors
    /// [`DataError`] if a file or template cannot be used.
    pub(crate) fn open(
        config: &DataConfig,
        tokenizer: &Arc<Tokenizer>,
        steps: Steps,
    ) -> Result<Stream, DataError> {
        let on_bad = config.on_bad();
        let mut sources = Vec::new();
        for source in &config.train {
            let encoder = Encoder::of(config, source, tokenizer)?;
            let stamps = Stamps::of(source.files()?)?;
            let format = source.open(on_bad)?.format();
            let report = SourceReport::new(source, format, encoder.template.name())?;
            sources.push(Source {
                config: source.clone(),
                stamps,
                encoder,
                report,
                on_bad,
            });
        }
        let all: Vec<usize> = (0..sources.len()).collect();
        let lanes = match config.weights() {
            None => vec![(all, 1.0)],
            Some(weights) => all
                .into_iter()
                .map(|source| vec![source])
                .zip(weights)
                .collect(),
        };
        let shuffle = config.shuffle.then_some(steps.seed);
        let block_rows = shuffle.map_or(BLOCK, |_| config.shuffle_rows);
        let lane = |(number, (sources, weight))| Lane {
            number,
            sources,
            weight,
            taken: 0,
            shuffle,
            block_rows,
            current: 0,
            reader: None,
            blocks: 0,
            passes: 0,
            rows: 0,
            block: VecDeque::new(),
        };
        Ok(Stream {
            sources,
            lanes: lanes.into_iter().enumerate().map(lane).collect(),
            tokenizer: Arc::clone(tokenizer),
            on_bad,
            batch_size: steps.batch_size.max(1),
            taken: 0,
            queue: VecDeque::new(),
            at: Cursor::default(),
            passes: 0,
        })
    }

    /// What was read, truncated and dropped so far.
    pub fn report(&self) -> Report {
        Report {
            train: self
                .sources
                .iter()
                .map(|source| source.report.clone())
                .collect(),
            validation: Vec::new(),
        }
    }

    /// The batch at `cursor`.
    ///
    /// # Errors
    /// [`DataError`] for a row that cannot be used, or if too many cannot, and if a whole pass has no token to train on.
    pub(crate) fn batch(&mut self, cursor: Cursor) -> Result<(Batch, Vec<Example>), DataError> {
        if cursor != self.at {
            self.seek(cursor)?;
        }
        let (mut examples, mut rows) = (Vec::new(), Vec::new());
        while examples.len() < self.batch_size {
            let Some((number, row)) = self.queue.front_mut() else {
                self.fill()?;
                continue;
            };
            if self.at.index != *number {
                self.at = Cursor {
                    index: *number,
                    ..Cursor::default()
                };
            }
            if let Some(example) = row.pop_front() {
                // Dropout depends on the row number: two pieces of one row need different numbers.
                rows.push((*number << 16) + self.at.within);
                examples.push(example);
                self.at.within += 1;
            } else {
                self.at = Cursor {
                    index: *number + 1,
                    ..Cursor::default()
                };
                self.queue.pop_front();
            }
        }
        let batch = Batch {
            epoch: 0,
            rows,
            next: self.at,
        };
        Ok((batch, examples))
    }

    /// Takes a group of rows from the lanes and tokenises them.
    fn fill(&mut self) -> Result<(), DataError> {
        let mut group = Vec::new();
        while group.len() < GROUP.max(self.batch_size) {
            let lane = self.next_lane();
            let row = self.lanes[lane].next_row(&self.sources)?;
            let passes: u64 = self.lanes.iter().map(|lane| lane.passes).sum();
            group.push((self.taken, passes, row));
            self.taken += 1;
        }
        let (sources, tokenizer) = (&self.sources, &self.tokenizer);
        let encoded: Vec<_> = group
            .into_par_iter()
            .map(|(number, passes, (source, row))| {
                let encoded = encoded(row, &sources[source].encoder, tokenizer);
                (number, passes, source, encoded)
            })
            .collect();
        for (number, passes, source, encoded) in encoded {
            let Source {
                report, encoder, ..
            } = &mut self.sources[source];
            let mut examples = VecDeque::new();
            let origin = match encoded? {
                Ok((origin, encoded)) => {
                    report.row(&origin);
                    report.start(&origin, encoded.rendered.other_start);
                    for outcome in encoded.outcomes {
                        report.count(&outcome, &origin);
                        if let Outcome::Kept { example, .. } = outcome {
                            examples.push_back(example);
                        }
                    }
                    origin
                }
                Err(bad) => {
                    let origin = bad.origin.clone();
                    report.bad(bad, self.on_bad)?;
                    if let OnBad::Drop { most } = self.on_bad
                        && report.rows >= BEFORE_SHARE
                    {
                        report.check_share(most)?;
                    }
                    origin
                }
            };
            if !examples.is_empty() {
                self.passes = passes;
            } else if passes > self.passes + self.lanes.len() as u64 {
                return Err(report.nothing_trained(&origin, &encoder.limits));
            }
            self.queue.push_back((number, examples));
        }
        Ok(())
    }

    /// The lane that is furthest behind its share.
    fn next_lane(&mut self) -> usize {
        let due = |lane: &Lane| (lane.taken + 1) as f64 / lane.weight;
        let mut next = 0;
        for (number, lane) in self.lanes.iter().enumerate() {
            if due(lane) < due(&self.lanes[next]) {
                next = number;
            }
        }
        self.lanes[next].taken += 1;
        next
    }

    /// Moves to a position.
    fn seek(&mut self, cursor: Cursor) -> Result<(), DataError> {
        self.queue.clear();
        self.lanes.iter_mut().for_each(Lane::rewind);
        for _ in 0..cursor.index {
            self.next_lane();
        }
        for lane in &mut self.lanes {
            lane.skip(lane.taken, &self.sources)?;
        }
        self.taken = cursor.index;
        self.passes = self.lanes.iter().map(|lane| lane.passes).sum();
        self.at = Cursor {
            within: 0,
            ..cursor
        };
        if cursor.within > 0 {
            self.fill()?;
            if let Some((_, row)) = self.queue.front_mut() {
                row.drain(..cursor.within.min(row.len()));
            }
        }
        self.at = cursor;
        Ok(())
    }
}

/// Renders and tokenises a row. The inner error concerns this row alone.
fn encoded(
    row: Row,
    encoder: &Encoder,
    tokenizer: &Tokenizer,
) -> Result<Result<(Origin, EncodedRow), BadRow>, DataError> {
    let row = match row {
        Ok(row) => row,
        Err(bad) => return Ok(Err(bad)),
    };
    let encoded = encoder.encode(&row, tokenizer)?;
    Ok(encoded.map(|encoded| (row.origin, encoded)))
}

impl Lane {
    fn rewind(&mut self) {
        self.taken = 0;
        self.current = 0;
        self.reader = None;
        self.blocks = 0;
        self.passes = 0;
        self.rows = 0;
        self.block.clear();
    }

    fn next_row(&mut self, sources: &[Source]) -> Result<(usize, Row), DataError> {
        loop {
            match self.block.pop_front() {
                Some(row) => return Ok(row),
                None => self.fill(sources)?,
            }
        }
    }

    /// Skips `rows` rows.
    fn skip(&mut self, rows: u64, sources: &[Source]) -> Result<(), DataError> {
        let mut left = rows;
        while left >= self.block_rows as u64 {
            let block = self.block_rows;
            let skipped = self.reader(sources)?.skip(block)?;
            self.read(skipped, sources)?;
            left -= skipped as u64;
        }
        while left > 0 {
            self.fill(sources)?;
            let here = (left as usize).min(self.block.len());
            self.block.drain(..here);
            left -= here as u64;
        }
        Ok(())
    }

    /// Reads the next block.
    fn fill(&mut self, sources: &[Source]) -> Result<(), DataError> {
        let rows = self.block_rows;
        let mut read: Vec<Row> = Vec::new();
        loop {
            let more = self.reader(sources)?.next_rows(rows - read.len())?;
            let end = more.is_empty();
            read.extend(more);
            if end || read.len() == rows {
                break;
            }
        }
        let source = self.sources[self.current];
        let order = match self.shuffle {
            Some(seed) => Random::of_source(seed, self.number, self.blocks).permutation(read.len()),
            None => (0..read.len()).collect(),
        };
        let mut read: Vec<Option<Row>> = read.into_iter().map(Some).collect();
        let shuffled = order.into_iter().filter_map(|place| read[place].take());
        self.block.extend(shuffled.map(|row| (source, row)));
        self.read(self.block.len(), sources)
    }

    /// Counts a block of `rows` rows. A block with fewer than `block_rows` rows is the last of its source.
    fn read(&mut self, rows: usize, sources: &[Source]) -> Result<(), DataError> {
        self.rows += rows;
        if rows > 0 {
            self.blocks += 1;
        }
        if rows == self.block_rows {
            return Ok(());
        }
        self.reader = None;
        self.current += 1;
        if self.current < self.sources.len() {
            return Ok(());
        }
        if self.rows == 0 {
            let path = sources[self.sources[0]].config.path.clone();
            return Err(DataError::Empty { path });
        }
        (self.current, self.rows) = (0, 0);
        self.passes += 1;
        Ok(())
    }

    fn reader(&mut self, sources: &[Source]) -> Result<&mut Reader, DataError> {
        let reader = if let Some(reader) = self.reader.take() {
            reader
        } else {
            let source = &sources[self.sources[self.current]];
            let reader = source.config.open(source.on_bad)?;
            source.stamps.check(source.config.files()?)?;
            reader
        };
        Ok(self.reader.insert(reader))
    }
}
