//! What the rows came to: the text for people, and the same for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Kind, LintConfig, Severity};
use simmer_data::conversation::Origin;

/// How many rows of a kind are shown.
const SHOWN: usize = 5;

/// What the rows came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LintReport {
    /// The rows that were checked.
    pub rows: usize,
    /// What was found, errors first.
    pub findings: Vec<Finding>,
    /// What was not looked at, and why.
    pub notes: Vec<String>,
}

/// Faults of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind.
    pub kind: Kind,
    /// What they lead to.
    pub severity: Severity,
    /// How many rows have one; none where the fault is not a row's.
    pub rows: usize,
    /// What there is to say of all of them together.
    pub detail: Option<String>,
    /// The first rows.
    pub first: Vec<Offender>,
}

/// A row with a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offender {
    /// Where it stands.
    #[serde(serialize_with = "place")]
    pub origin: Origin,
    /// What is wrong there.
    pub what: String,
}

fn place<S: serde::Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Place<'o> {
        file: std::borrow::Cow<'o, str>,
        row: usize,
        line: usize,
    }
    let Origin { file, row, line } = origin;
    let file = file.to_string_lossy();
    Place {
        file,
        row: *row,
        line: *line,
    }
    .serialize(serializer)
}

/// The rows of each source that have a fault of one kind, and the first of all.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sources: BTreeMap<usize, usize>,
    first: Vec<Offender>,
}

impl Tally {
    pub(super) fn add(&mut self, source: usize, origin: &Origin, what: String) {
        *self.sources.entry(source).or_default() += 1;
        if self.first.len() < SHOWN {
            let origin = origin.clone();
            self.first.push(Offender { origin, what });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The finding that the faults are; `rows` are those of each source.
    pub(super) fn finding(
        self,
        kind: Kind,
        detail: Option<String>,
        rows: &BTreeMap<usize, usize>,
        config: &LintConfig,
    ) -> Finding {
        let severities = self.sources.iter().map(|(source, &faults)| {
            let of = rows.get(source).copied().unwrap_or_default();
            config.severity(kind, faults, of)
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
    /// What stops training.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.of(Severity::Error)
    }

    /// What is only shown.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.of(Severity::Warning)
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
        match rows {
            0 => {}
            1 => write!(f, " in 1 row")?,
            rows => write!(f, " in {rows} rows")?,
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
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let [errors, warnings] = [self.errors().count(), self.warnings().count()];
        let counted = |count, noun| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        write!(
            f,
            "{} checked: {}, {}",
            counted(self.rows, "row"),
            counted(errors, "error"),
            counted(warnings, "warning")
        )?;
        if let Some(error) = self.errors().next() {
            let kind = error.kind;
            write!(
                f,
                "; where a fault is meant, data.lint.allow = [\"{kind}\"] silences it, and warn = [\"{kind}\"] shows it only"
            )?;
        }
        Ok(())
    }
}
