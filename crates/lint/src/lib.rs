//! Finds problems in instruction data before it is trained on.
//!
//! A [`Linter`] is shown every row of a pass over the data ([`Inspect`]). Its `check` looks at one row alone and may run for
//! many rows at once; `add` takes the findings in the order of the rows and compares each row with all earlier ones.
//! [`Linter::finish`] returns the report. Every finding has a [`Kind`], whose [`Severity`] the recipe can change. [`load`],
//! [`read`] and [`check`] are the functions of `simmer_data::dataset` with a linter.

mod against;
mod calls;
mod contamination;
mod encoding;
mod evaluation_set;
mod excerpt;
mod fingerprint;
mod near;
mod part;
mod report;
mod row;
mod seen;
mod special;
mod tokens;
mod words;

pub use evaluation_set::EvaluationSet;
pub use report::{Finding, LintReport, Offender};

use std::collections::BTreeMap;
use std::sync::Arc;

use simmer_data::bad::{BadRows, LISTED};
use simmer_data::dataset::{self, Checked};
use simmer_data::tokenizer::TokenizerError;
use simmer_data::{
    DataConfig, DataError, Dataset, Inspect, Origin, Outcome, Report, RowView, Steps, Tokenizer,
};

pub use simmer_data::lint::{Kind, LintConfig, Severity};

use fingerprint::Fingerprint;
use near::Texts;
use report::Tally;
use seen::{Keys, Seen};
use special::Specials;
use tokens::Meanings;
use words::Vocabulary;

/// For each text, the first earlier text whose ROUGE-L with it is above 0.7.
pub fn near_duplicates<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<Option<usize>> {
    let mut vocabulary = Vocabulary::default();
    let mut words = Texts::default();
    for text in texts {
        words.push(
            words::words(text)
                .into_iter()
                .map(|word| vocabulary.number(word)),
            None,
        );
    }
    let nearest = words.nearest(u64::MAX).earlier.into_iter();
    nearest.map(|text| Some(text? as usize)).collect()
}

/// The file of hashes by which evaluation sets are recognised. `texts` are pairs of the set's name and a text.
pub fn fingerprint<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Vec<u8> {
    fingerprint::file(texts)
}

/// Finds problems in rows.
pub struct Linter {
    config: LintConfig,
    meanings: Meanings,
    specials: Specials,
    sets: Fingerprint,
    end_token: Option<String>,
    /// The number of sources of training rows; those after them are of validation rows.
    training: usize,
    /// The number of rows of each source.
    rows: BTreeMap<usize, usize>,
    tallies: BTreeMap<Kind, Tally>,
    /// The number of rows that overlap with each evaluation set.
    contaminated: BTreeMap<String, usize>,
    targets: usize,
    cut_targets: usize,
    seen: Seen,
    /// The number of rows of each kind that are listed.
    listed: usize,
}

/// The findings of one row.
#[derive(Debug)]
pub struct RowFindings {
    origin: Origin,
    found: Vec<(Kind, String)>,
    /// The evaluation set that the row overlaps with.
    set: Option<String>,
    /// Labels before truncation, and the labels that truncation removed.
    targets: usize,
    cut_targets: usize,
    keys: Keys,
}

impl Linter {
    /// A linter for rows that are tokenised with `tokenizer`.
    ///
    /// # Errors
    /// [`DataError`] if a kind is in two lists of the configuration, or a file of an evaluation set cannot be read.
    pub fn new(config: &LintConfig, tokenizer: &Tokenizer) -> Result<Linter, DataError> {
        config.check()?;
        let meanings = Meanings::of(tokenizer);
        let mut sets = Fingerprint::default();
        if !config.allow.contains(&Kind::Contamination) {
            sets = Fingerprint::built_in();
            for path in &config.against {
                against::read(path, &mut sets)?;
            }
        }
        Ok(Linter {
            config: config.clone(),
            end_token: meanings.end_token(tokenizer),
            meanings,
            specials: Specials::of(tokenizer),
            sets,
            training: usize::MAX,
            rows: BTreeMap::new(),
            tallies: BTreeMap::new(),
            contaminated: BTreeMap::new(),
            targets: 0,
            cut_targets: 0,
            seen: Seen::new(!config.allow.contains(&Kind::NearDuplicates)),
            listed: LISTED,
        })
    }

    /// The same linter, listing so many rows of each kind.
    #[must_use]
    pub fn listing(mut self, rows: usize) -> Linter {
        self.listed = rows;
        self
    }

    /// The linter for a `[data]` table. The table's values are checked first.
    fn of(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Linter, DataError> {
        config.check()?;
        let linter = Linter::new(&config.lint, tokenizer)?;
        Ok(Linter {
            training: config.train.len(),
            ..linter
        })
    }

    /// The report on all rows.
    pub fn finish(mut self) -> LintReport {
        let mut notes = Vec::new();
        if self.on(Kind::NearDuplicates) {
            let (tally, left_out) = std::mem::take(&mut self.seen).near_duplicates(self.listed);
            notes = left_out;
            if !tally.is_empty() {
                self.tallies.insert(Kind::NearDuplicates, tally);
            }
        }
        if self.end_token.is_some() && self.on(Kind::EndToken) {
            self.tallies.insert(Kind::EndToken, Tally::default());
        }
        let tallies = std::mem::take(&mut self.tallies).into_iter();
        let mut findings: Vec<_> = tallies
            .map(|(kind, tally)| tally.finding(kind, self.detail(kind), &self.rows, &self.config))
            .collect();
        findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.kind));
        LintReport {
            rows: self.rows.values().sum(),
            findings,
            notes,
            unusable: Vec::new(),
            unusable_stop: false,
        }
    }

    fn on(&self, kind: Kind) -> bool {
        !self.config.allow.contains(&kind)
    }

    /// A line about all affected rows together.
    fn detail(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::EndToken => self.end_token.clone(),
            Kind::Truncated => Some(format!(
                "{} of {} trained tokens are cut off",
                self.cut_targets, self.targets
            )),
            Kind::Contamination => {
                let sets = self.contaminated.iter();
                let sets: Vec<_> = sets.map(|(set, rows)| format!("{set}: {rows}")).collect();
                Some(sets.join(", "))
            }
            _ => None,
        }
    }
}

impl Inspect for Linter {
    type Found = RowFindings;

    /// Looks at one row alone: its texts, the rendered text, and the tokens.
    fn check(&self, view: &RowView<'_>) -> Result<RowFindings, TokenizerError> {
        let RowView { row, outcomes, .. } = *view;
        let mut found = Vec::new();
        self.meanings.check(view, &mut found)?;
        let parts = part::parts(row);
        let words: Vec<_> = parts.iter().map(|part| words::words(part.text)).collect();
        row::check(row.layout(), &parts, &words, &self.specials, &mut found);
        calls::check(view, &mut found);
        let overlap = contamination::overlap(&self.sets, &parts, &words);
        let (set, what) = overlap.unzip();
        found.extend(what.map(|what| (Kind::Contamination, what)));
        found.retain(|(kind, _)| self.on(*kind));

        let (mut targets, mut cut_targets) = (0, 0);
        for outcome in outcomes {
            let (kept, cut) = match outcome {
                Outcome::Kept {
                    example,
                    cut_targets,
                    ..
                } => (example.targets(), *cut_targets),
                // not truncated, but dropped
                Outcome::Untrained { .. }
                | Outcome::Weightless { .. }
                | Outcome::Overlong { .. } => (0, 0),
            };
            targets += kept + cut;
            cut_targets += cut;
        }
        Ok(RowFindings {
            origin: row.origin.clone(),
            found,
            set,
            targets,
            cut_targets,
            keys: Keys::of(row, view.template.name(), &parts, &words),
        })
    }

    /// Takes the findings of the next row, and compares the row with all earlier ones.
    fn add(&mut self, source: usize, findings: RowFindings) {
        let RowFindings {
            origin,
            mut found,
            set,
            targets,
            cut_targets,
            keys,
        } = findings;
        *self.rows.entry(source).or_default() += 1;
        if let Some(set) = set {
            *self.contaminated.entry(set).or_default() += 1;
        }
        self.targets += targets;
        self.cut_targets += cut_targets;
        let repeats = self
            .seen
            .add(source, source >= self.training, &origin, keys);
        found.extend(repeats.filter(|(kind, _)| self.on(*kind)));
        for (kind, what) in found {
            self.tallies
                .entry(kind)
                .or_default()
                .add(source, &origin, what, self.listed);
        }
    }
}

/// [`Dataset::load`] with every row linted.
///
/// # Errors
/// As [`Dataset::load`] and [`Linter::new`].
pub fn load(
    config: &DataConfig,
    tokenizer: &Arc<Tokenizer>,
    steps: Steps,
) -> Result<(Dataset, LintReport), DataError> {
    let mut linter = Linter::of(config, tokenizer)?;
    let mut dataset = Dataset::load(config, tokenizer, steps, &mut linter)?;
    let report = linter.finish();
    report.takes_over(&mut dataset.report);
    Ok((dataset, report))
}

/// [`dataset::read`] with every row linted.
///
/// # Errors
/// As [`dataset::read`] and [`Linter::new`].
pub fn read(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    rows: usize,
) -> Result<(Checked, LintReport), DataError> {
    let mut linter = Linter::of(config, tokenizer)?;
    let mut checked = dataset::read(config, tokenizer, rows, &mut linter)?;
    let report = linter.finish();
    report.takes_over(&mut checked.report);
    Ok((checked, report))
}

/// [`dataset::check`] with every row linted. All rows that cannot be used are found; `listed` rows of each kind are listed.
///
/// # Errors
/// As [`dataset::check`] and [`Linter::new`].
pub fn check(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    listed: usize,
) -> Result<(Report, LintReport), DataError> {
    let mut linter = Linter::of(config, tokenizer)?.listing(listed);
    let mut report = dataset::check(config, tokenizer, &mut linter)?;
    let mut found = linter.finish();
    let too_many = report.sources().any(|source| {
        let bad = source.unusable.rows;
        bad > 0 && (bad == source.rows || bad as f64 > config.max_bad_share * source.rows as f64)
    });
    found.unusable_stop = config.bad_rows == BadRows::Error || too_many;
    let unusable = report.take_unusable().into_iter();
    found.unusable = unusable.map(|kind| kind.listing(listed)).collect();
    found.takes_over(&mut report);
    Ok((report, found))
}

#[cfg(test)]
mod tests;
