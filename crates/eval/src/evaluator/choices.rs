//! Multiple-choice questions: the log-likelihood of each choice.

use super::{Batches, Evaluator, RUN};
use crate::answer::Answer;
use crate::error::EvalError;
use crate::question::{Asked, Pair, Question};
use crate::score::{Row, log_likelihood, score};

/// The number of questions that are sorted by their tokens.
const SORTED: usize = 512;

/// The token rows of a question.
struct Asking {
    question: usize,
    pairs: Vec<Row>,
    without: Vec<Row>,
}

impl Evaluator<'_> {
    pub(super) fn choose(
        &self,
        questions: &[Question],
        open: &[usize],
        batches: &mut Batches<'_>,
    ) -> Result<(), EvalError> {
        let mut together: Vec<Asking> = Vec::new();
        let mut tokens = 0;
        for places in open.chunks(SORTED) {
            let askings = places.iter().map(|place| self.asking(questions, *place));
            let mut askings = askings.collect::<Result<Vec<_>, _>>()?;
            // those that begin alike share their first tokens
            askings.sort_by(|a, b| a.first().cmp(b.first()));
            for asking in askings {
                let last = together.last().and_then(|asking| asking.pairs.last());
                let more = asking.new_tokens(last);
                if tokens + more > RUN && !together.is_empty() {
                    self.finish(&together, questions, batches)?;
                    together.clear();
                    tokens = asking.new_tokens(None);
                } else {
                    tokens += more;
                }
                together.push(asking);
            }
        }
        self.finish(&together, questions, batches)
    }

    fn asking(&self, questions: &[Question], place: usize) -> Result<Asking, EvalError> {
        let row = |pair: &Pair| {
            let row = Row::of(pair, self.tokenizer, self.limit())?;
            if row.asked.contains(&true) {
                return Ok(row);
            }
            let problem = format!("the choice {:?} has no token of its own", pair.continuation);
            Err(EvalError::row(&questions[place].origin, problem))
        };
        let rows =
            |pairs: &[Pair]| -> Result<Vec<Row>, EvalError> { pairs.iter().map(row).collect() };
        let (pairs, without) = match &questions[place].asked {
            Asked::Choice { pairs, without, .. } => (rows(pairs)?, rows(without)?),
            _ => (Vec::new(), Vec::new()),
        };
        Ok(Asking {
            question: place,
            pairs,
            without,
        })
    }

    fn finish(
        &self,
        together: &[Asking],
        questions: &[Question],
        batches: &mut Batches<'_>,
    ) -> Result<(), EvalError> {
        batches.check()?;
        let rows = together
            .iter()
            .flat_map(|asking| asking.pairs.iter().chain(&asking.without));
        let rows: Vec<&Row> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        let scored = score(self.model, &rows);
        let mut found = scored.iter().map(|scored| log_likelihood(scored));
        let new = together.iter().map(|asking| Answer {
            row: questions[asking.question].number,
            asked: questions[asking.question].id(),
            log_likelihoods: found.by_ref().take(asking.pairs.len()).collect(),
            without: found.by_ref().take(asking.without.len()).collect(),
            tokens: asking.pairs.iter().map(Row::asked_for).collect(),
            cut: asking.pairs.iter().map(|row| row.cut).max().unwrap_or(0),
            ..Answer::default()
        });
        (batches.keep)(new.collect())
    }
}

impl Asking {
    /// The tokens of its first row.
    fn first(&self) -> &[u32] {
        self.pairs.first().map_or(&[], |row| &row.tokens)
    }

    /// The number of tokens of its rows, without the prefix that each shares with the row before it.
    fn new_tokens(&self, before: Option<&Row>) -> usize {
        let rows = self.pairs.iter().chain(&self.without);
        let mut before = before;
        let counts = rows.map(|row| {
            let common = before.map_or(0, |before| {
                let pairs = before.tokens.iter().zip(&row.tokens);
                pairs.take_while(|(a, b)| a == b).count()
            });
            before = Some(row);
            row.tokens.len() - common
        });
        counts.sum()
    }
}
