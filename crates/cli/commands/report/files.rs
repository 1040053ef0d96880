//! The data and the files of runs.

use serde::Serialize;
use simmer_files::size::{grouped, plural};
use simmer_train::{Fingerprint, SourceCounts, UnusableCounts};

use super::run::Run;

/// A file of data.
#[derive(Serialize)]
pub(super) struct Source<'a> {
    /// The run's number.
    run: usize,
    purpose: &'static str,
    cells: Vec<String>,
    /// The files that were read and those that were not, if the path stands for several.
    files: Option<String>,
    /// Rows that could not be used.
    unusable: &'a [UnusableCounts],
}

/// The examples of a run.
#[derive(Serialize)]
pub(super) struct Examples {
    train: String,
    validation: String,
    steps_per_epoch: String,
}

/// A file that a run was started with.
#[derive(Serialize)]
pub(super) struct RunFile<'a> {
    of: &'static str,
    name: &'a str,
    bytes: String,
    sha256: &'a str,
}

/// The data files of all runs.
pub(super) fn sources(runs: &[Run]) -> Vec<Source<'_>> {
    let mut rows = Vec::new();
    for (run, of) in runs.iter().enumerate() {
        let Some(counts) = &of.counts else { continue };
        let files = counts.train.iter().map(|file| ("training", file));
        let files = files.chain(counts.validation.iter().map(|file| ("validation", file)));
        rows.extend(files.map(|(purpose, file)| Source {
            run,
            purpose,
            cells: cells(file),
            files: named(file),
            unusable: &file.unusable,
        }));
    }
    rows
}

/// The names of files and their rows.
fn named(source: &SourceCounts) -> Option<String> {
    if source.files.len() < 2 && source.unread.is_empty() {
        return None;
    }
    let files = source.files.iter();
    let files = files.map(|(file, rows)| {
        format!(
            "{file} ({} {})",
            grouped(*rows as u64),
            plural(*rows, "row")
        )
    });
    let unread = source.unread.iter();
    let unread = unread.map(|(file, why)| format!("{file} (not read: {why})"));
    let all: Vec<String> = files.chain(unread).collect();
    Some(all.join(", "))
}

fn cells(file: &SourceCounts) -> Vec<String> {
    let counts = [
        file.rows,
        file.examples,
        file.tokens,
        file.targets,
        file.truncated,
        file.left_out,
    ];
    let counts = counts.map(|count| grouped(count as u64));
    let form = format!("{}, {}", file.format, file.template);
    [file.path.clone(), form]
        .into_iter()
        .chain(counts)
        .collect()
}

/// How many examples a run has, if it says so.
pub(super) fn examples(run: &Run) -> Option<Examples> {
    let counts = run.counts.as_ref()?;
    let train = counts.examples;
    Some(Examples {
        train: train.map_or_else(|| "a stream of".to_owned(), |count| grouped(count as u64)),
        validation: grouped(counts.validation_examples as u64),
        steps_per_epoch: grouped(counts.steps_per_epoch),
    })
}

/// The files of a run's manifest, if it has one.
pub(super) fn files(run: &Run) -> Option<Vec<RunFile<'_>>> {
    let manifest = run.manifest.as_ref()?;
    let folders = [
        ("base", &manifest.base),
        ("tokenizer", &manifest.tokenizer),
        ("adapter", &manifest.adapter),
    ];
    let folders = folders
        .into_iter()
        .flat_map(|(of, files)| files.iter().map(move |(name, file)| (of, name, file)));
    let data = manifest.data.iter();
    let data = data.map(|file| ("data", &file.path, &file.fingerprint));
    let files = folders
        .chain(data)
        .map(|(of, name, file)| RunFile::new(of, name, file));
    Some(files.collect())
}

impl<'a> RunFile<'a> {
    fn new(of: &'static str, name: &'a str, file: &'a Fingerprint) -> Self {
        Self {
            of,
            name,
            bytes: grouped(file.bytes),
            sha256: &file.sha256,
        }
    }
}
