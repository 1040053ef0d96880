//! The report: text for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use simmer_files::size::counted;

use super::{Kind, LintConfig, Severity};
use simmer_data::bad::BadKind;
pub use simmer_data::bad::Offender;
use simmer_data::conversation::Origin;

/// The findings of all rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LintReport {
    /// The number of rows checked.
    pub rows: usize,
    /// The findings, errors first.
    pub findings: Vec<Finding>,
    /// What was not checked, and why.
    pub notes: Vec<String>,
    /// Rows that cannot be used, by what is wrong with them. Only [`check`](crate::check) lists them here.
    pub unusable: Vec<BadKind>,
    /// Whether such rows stop the training.
    pub unusable_stop: bool,
}

/// All findings of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind.
    pub kind: Kind,
    /// The consequence.
    pub severity: Severity,
    /// The number of affected rows; 0 if the problem is not one of rows.
    pub rows: usize,
    /// A line about all affected rows together.
    pub detail: Option<String>,
    /// The first affected rows.
    pub first: Vec<Offender>,
}

/// The number of rows of each source that are affected by one kind, and the first of these rows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sources: BTreeMap<usize, usize>,
    first: Vec<Offender>,
}

impl Tally {
    /// Counts a row, and keeps it if it is one of the first `listed`.
    pub(super) fn add(&mut self, source: usize, origin: &Origin, what: String, listed: usize) {
        *self.sources.entry(source).or_default() += 1;
        if self.first.len() < listed {
            let origin = origin.clone();
            self.first.push(Offender { origin, what });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The finding. `rows` is the number of rows of each source.
    pub(super) fn finding(
        self,
        kind: Kind,
        detail: Option<String>,
        rows: &BTreeMap<usize, usize>,
        config: &LintConfig,
    ) -> Finding {
        let severities = self.sources.iter().map(|(source, &affected)| {
            let of = rows.get(source).copied().unwrap_or_default();
            config.severity(kind, affected, of)
        });
        Finding {
            kind,
            severity: severities
                .max()
                .unwrap_or_else(|| config.severity(kind, 0, 0)),
            rows: self.sources.values().sum(),
            detail,
            first: self.first,
        }
    }
}

impl LintReport {
    /// The findings that stop training.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.of(Severity::Error)
    }

    /// The findings that are only reported.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.of(Severity::Warning)
    }

    /// Leaves out of the report of the data what this one lists.
    pub(super) fn takes_over(&self, data: &mut simmer_data::Report) {
        if self
            .findings
            .iter()
            .any(|finding| finding.kind == Kind::Truncated)
        {
            data.truncated_elsewhere();
        }
    }

    /// The number of rows that cannot be used.
    pub fn unusable_rows(&self) -> usize {
        self.unusable.iter().map(|kind| kind.rows).sum()
    }

    /// The numbers of kinds of errors and of warnings, those of rows that cannot be used among them.
    pub fn counts(&self) -> [usize; 2] {
        let unusable = self.unusable.len();
        let of_errors = if self.unusable_stop { unusable } else { 0 };
        [
            self.errors().count() + of_errors,
            self.warnings().count() + unusable - of_errors,
        ]
    }

    fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(move |finding| finding.severity == severity)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            kind,
            severity,
            rows,
            ..
        } = self;
        write!(f, "{severity}: {kind}")?;
        if *rows > 0 {
            write!(f, " in {}", counted(*rows, "row"))?;
        }
        write!(f, ": {}", kind.means())?;
        if let Some(detail) = &self.detail {
            write!(f, "\n  {detail}")?;
        }
        for Offender { origin, what } in &self.first {
            write!(f, "\n  {origin}: {what}")?;
        }
        if *rows > self.first.len() {
            write!(f, "\n  and {} more", rows - self.first.len())?;
        }
        write!(f, "\n  hint: {}", kind.remedy())
    }
}

impl fmt::Display for LintReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in &self.unusable {
            let severity = if self.unusable_stop {
                Severity::Error
            } else {
                Severity::Warning
            };
            write!(
                f,
                "{severity}: cannot use {}: {}",
                counted(kind.rows, "row"),
                kind.what
            )?;
            writeln!(f, "\n{}", kind.list("  "))?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let [errors, warnings] = self.counts();
        write!(f, "{} checked", counted(self.rows, "row"))?;
        let unusable = self.unusable_rows();
        if unusable > 0 {
            write!(f, ", {} cannot be used", counted(unusable, "row"))?;
        }
        write!(
            f,
            ": {}, {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        )?;
        if let Some(error) = self.errors().next() {
            let kind = error.kind;
            write!(
                f,
                "; if this is intended, set data.lint.allow = [\"{kind}\"] to ignore it, or data.lint.warn = [\"{kind}\"] to report it without stopping"
            )?;
        }
        Ok(())
    }
}
