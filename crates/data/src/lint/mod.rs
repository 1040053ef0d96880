//! What is wrong with instruction data, found before it is trained on.
//!
//! [`Linter::check`] looks at one row alone, and may run for many at once; [`Linter::add`] takes what it found in the order
//! of the rows, and compares the row with all earlier ones; [`Linter::finish`] says what it came to. Every fault has a
//! [`Kind`], whose [`Severity`] the recipe can change.

mod against;
mod contamination;
mod encoding;
mod excerpt;
mod fingerprint;
mod kind;
mod lcs;
mod near;
mod part;
mod report;
mod row;
mod seen;
mod special;
mod tokens;
mod words;

pub use kind::{Kind, Severity};
pub use report::{Finding, LintReport, Offender};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::conversation::{Conversation, Origin};
use crate::error::DataError;
use crate::example::Outcome;
use crate::template::{Rendered, Template};
use crate::tokenizer::{Tokenizer, TokenizerError};
use fingerprint::Fingerprint;
use near::Texts;
use report::Tally;
use seen::{Keys, Seen};
use special::Specials;
use tokens::Meanings;
use words::Vocabulary;

/// The `lint` table of a recipe's `[data]`: which faults are looked for, and what they lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct LintConfig {
    /// Kinds that are not looked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Kind>,
    /// Kinds that are shown and never stop training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warn: Vec<Kind>,
    /// Kinds of which one row stops training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Kind>,
    /// Files of evaluation sets that no row should have words of; the public ones are known without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<PathBuf>,
}

impl LintConfig {
    /// # Errors
    /// [`DataError::Config`] when a kind is in two of the lists.
    pub fn check(&self) -> Result<(), DataError> {
        let lists = [&self.allow, &self.warn, &self.deny];
        for kind in Kind::ALL {
            if lists.iter().filter(|list| list.contains(&kind)).count() > 1 {
                return Err(DataError::Config {
                    key: "lint",
                    problem: format!("`{kind}` is in more than one of allow, warn and deny"),
                });
            }
        }
        Ok(())
    }

    /// What `rows` faults of a kind among the `of` rows of a source lead to.
    pub fn severity(&self, kind: Kind, rows: usize, of: usize) -> Severity {
        let lists = [
            (&self.allow, Severity::Off),
            (&self.warn, Severity::Warning),
            (&self.deny, Severity::Error),
        ];
        let said = lists.into_iter().find(|(list, _)| list.contains(&kind));
        said.map_or_else(|| kind.severity(rows, of), |(_, severity)| severity)
    }
}

/// For each text the first of the earlier ones that it is nearly the same as: whose ROUGE-L with it is above 0.7.
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

/// The file of hashes that evaluation sets are known by; each text comes with the name of its set.
pub fn fingerprint<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Vec<u8> {
    fingerprint::file(texts)
}

/// Looks for faults in rows.
pub struct Linter {
    config: LintConfig,
    meanings: Meanings,
    specials: Specials,
    sets: Fingerprint,
    end_token: Option<String>,
    /// The rows of each source.
    rows: BTreeMap<usize, usize>,
    tallies: BTreeMap<Kind, Tally>,
    /// The rows with words of each evaluation set.
    contaminated: BTreeMap<String, usize>,
    targets: usize,
    cut_targets: usize,
    seen: Seen,
}

/// What was found in one row.
#[derive(Debug)]
pub struct RowFindings {
    origin: Origin,
    found: Vec<(Kind, String)>,
    /// The evaluation set that it has words of.
    set: Option<String>,
    /// Tokens to train on, and those of them that were cut off.
    targets: usize,
    cut_targets: usize,
    keys: Keys,
}

impl Linter {
    /// A linter of rows for `tokenizer`.
    ///
    /// # Errors
    /// [`DataError`] when the configuration contradicts itself, or a file of an evaluation set cannot be read.
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
            rows: BTreeMap::new(),
            tallies: BTreeMap::new(),
            contaminated: BTreeMap::new(),
            targets: 0,
            cut_targets: 0,
            seen: Seen::new(!config.allow.contains(&Kind::NearDuplicates)),
        })
    }

    /// Looks at one row alone: what it says, what `template` rendered it to, and what became of that. A row that was split
    /// has several outcomes.
    ///
    /// # Errors
    /// [`TokenizerError`] when the tokenizers library refuses.
    pub fn check(
        &self,
        row: &Conversation,
        template: &Template,
        tokenizer: &Tokenizer,
        rendered: &Rendered,
        outcomes: &[Outcome],
    ) -> Result<RowFindings, TokenizerError> {
        let mut found = Vec::new();
        self.meanings
            .check(row, template, tokenizer, rendered, outcomes, &mut found)?;
        let parts = part::parts(row);
        let words: Vec<_> = parts.iter().map(|part| words::words(part.text)).collect();
        row::check(row.layout(), &parts, &words, &self.specials, &mut found);
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
                Outcome::Untrained { targets, .. } => (0, *targets),
                Outcome::Overlong { .. } => (0, 0),
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
            keys: Keys::of(row, &parts, &words),
        })
    }

    /// Takes what was found in the next row of a source; sources are told apart by their numbers.
    pub fn add(&mut self, source: usize, findings: RowFindings) {
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
        let again = self.seen.add(source, &origin, keys);
        found.extend(again.filter(|(kind, _)| self.on(*kind)));
        for (kind, what) in found {
            self.tallies
                .entry(kind)
                .or_default()
                .add(source, &origin, what);
        }
    }

    /// What all rows came to.
    pub fn finish(mut self) -> LintReport {
        let mut notes = Vec::new();
        if self.on(Kind::NearDuplicates) {
            let (tally, said) = std::mem::take(&mut self.seen).near_duplicates();
            notes = said;
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
        }
    }

    fn on(&self, kind: Kind) -> bool {
        !self.config.allow.contains(&kind)
    }

    /// What there is to say of all rows with such a fault together.
    fn detail(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::EndToken => self.end_token.clone(),
            Kind::Truncated => Some(format!(
                "{} of {} tokens to train on are cut off",
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

#[cfg(test)]
mod tests;
