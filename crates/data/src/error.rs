//! Errors in the data of a recipe.

mod absent;
mod json;
mod row;

pub use absent::Absent;
pub use row::RowError;
pub(crate) use row::{json_type, list};

use std::path::{Path, PathBuf};

use simmer_files::size::counted;
use simmer_hint::Hint;

use crate::bad::BadRow;
use crate::conversation::Origin;
use crate::file::is_table;
use crate::template::TemplateError;
use crate::tokenizer::TokenizerError;

/// An error in the data of a recipe. Every message names the file and, if possible, the row.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not UTF-8 text.
    #[error("{}: line {line} is not UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line with the first wrong byte, from 1.
        line: usize,
    },
    /// The file is not valid JSON.
    #[error("{}: invalid JSON at line {line} column {column}: {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there.
        what: String,
        /// The text there, if it is known.
        found: String,
    },
    /// A path that matches no file.
    #[error("{}: {what}", path.display())]
    NoFiles {
        /// The folder or pattern.
        path: PathBuf,
        /// Why there are none.
        what: String,
    },
    /// The names in a folder say splits, but not the one that is needed.
    #[error("{}: no file of the folder belongs to the {wanted} split; its files: {}", path.display(), some(files))]
    NoSplit {
        /// The folder.
        path: PathBuf,
        /// The split.
        wanted: &'static str,
        /// Its files, each with its split.
        files: Vec<String>,
    },
    /// A compressed file is damaged.
    #[error("{}: damaged after row {rows}: {source}", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// The number of complete rows before the damage.
        rows: usize,
        /// The decoder's error.
        source: std::io::Error,
    },
    /// A file of a stream is not what it was when the run started.
    #[error("{}: the file changed while it was in use", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file is not valid CSV.
    #[error("{}: line {line}: {what}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// Two columns of a typed file have one name.
    #[error("{}: duplicate column `{column}`", path.display())]
    TwoColumns {
        /// The file.
        path: PathBuf,
        /// The name.
        column: String,
    },
    /// The file is not valid Parquet.
    #[error("{}: invalid Parquet after row {rows}: {what}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The number of complete rows before the damage.
        rows: usize,
        /// What is wrong there.
        what: String,
    },
    /// The file is not valid Arrow.
    #[error("{}: invalid Arrow after row {rows}: {what}", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// The number of complete rows before the damage.
        rows: usize,
        /// What is wrong there.
        what: String,
    },
    /// The file stands in the place of one that git-lfs did not fetch.
    #[error("{}: expected rows, found a git-lfs pointer: the file itself was not downloaded", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else than its name says.
    #[error("{}: expected {expected}, found {found}", path.display())]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// What its name says.
        expected: &'static str,
        /// What it is.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The file is one JSON object with several lists that may be the rows.
    #[error(
        "{}: the file is one object with several lists of objects, {}; expected one list of rows",
        path.display(),
        list(keys)
    )]
    SeveralLists {
        /// The file.
        path: PathBuf,
        /// The keys of the lists.
        keys: Vec<String>,
    },
    /// A row is longer than any row of a real dataset.
    #[error("{origin} is longer than {limit} MiB")]
    LongRow {
        /// The row.
        origin: Origin,
        /// The limit, in MiB.
        limit: usize,
    },
    /// The file has no rows.
    #[error("{}: no rows", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A row cannot be used.
    #[error("{origin}: {error}")]
    Row {
        /// The row.
        origin: Origin,
        /// What is wrong with it.
        error: Box<RowError>,
    },
    /// A row of the data of a recipe cannot be used.
    #[error("{}", .0.error)]
    Unusable(BadRow),
    /// More rows cannot be used than the recipe allows.
    #[error(
        "{}: {bad} of {} cannot be used, more than `data.max_bad_share` = {most} of them; the first: {first}",
        path.display(), counted(*rows, "row")
    )]
    TooManyBad {
        /// The source's path.
        path: PathBuf,
        /// Rows that cannot be used.
        bad: usize,
        /// Rows read.
        rows: usize,
        /// The largest share that is left out.
        most: f64,
        /// The first of them, and what is wrong with it.
        first: String,
    },
    /// The template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The recipe's data table cannot be used.
    #[error("data.{key}: {problem}")]
    Config {
        /// The key, below `data`.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No row of a file has a token to train on.
    #[error(
        "{}: no row has a token to train on (template `{template}`, max_tokens {max_tokens}): {why}",
        first.file.display()
    )]
    NothingTrained {
        /// The first of the rows.
        first: Origin,
        /// The template that rendered them.
        template: String,
        /// The maximum number of tokens in an example.
        max_tokens: usize,
        /// What happened to the first row.
        why: String,
    },
}

impl DataError {
    /// A row that cannot be used.
    pub(crate) fn row(origin: Origin, error: impl Into<RowError>) -> DataError {
        DataError::Row {
            origin,
            error: Box::new(error.into()),
        }
    }

    /// A JSON error in the text of a row that starts at `column` of its line.
    pub(crate) fn json(
        origin: &Origin,
        error: &serde_json::Error,
        text: &str,
        column: usize,
    ) -> DataError {
        let line = origin.line;
        let what = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        DataError::Json {
            found: json::at(text, error.line(), error.column()),
            path: PathBuf::from(&*origin.file),
            line: line + error.line().saturating_sub(1),
            column: match error.line() {
                0 | 1 => column + error.column().saturating_sub(1),
                _ => error.column(),
            },
            what: what.strip_suffix(&position).unwrap_or(&what).into(),
        }
    }
}

impl Hint for DataError {
    fn hint(&self) -> Option<String> {
        match self {
            DataError::Read { path, .. } if path.is_relative() => {
                let here = std::env::current_dir().ok()?;
                Some(format!("check the path, which is relative to {}", here.display()))
            }
            DataError::Json { what, found, .. } => Some(json::hint(what, found).into()),
            DataError::NotUtf8 { .. } => Some(
                "save the file in UTF-8: Excel's is called \"CSV UTF-8\"; of a file in Windows-1252, \
                 `iconv -f CP1252 -t UTF-8 FILE` makes one".into(),
            ),
            DataError::OtherKind { remedy, .. } => Some((*remedy).into()),
            DataError::Changed { .. } => Some(
                "a stream reads its files anew in each pass: put back the file that the run started with, or start a new run".into(),
            ),
            DataError::Parquet { .. } | DataError::Arrow { .. } => Some(
                "download the file again, or save it anew; it is damaged, or not of this type".into(),
            ),
            DataError::TwoColumns { .. } => {
                Some("rename one of the columns, or save the file without it".into())
            }
            DataError::NoSplit { .. } => Some("name a file, or the files by a pattern such as `rows/*.jsonl`".into()),
            DataError::LfsPointer { .. } => Some(simmer_files::LFS_HINT.into()),
            DataError::SeveralLists { .. } => {
                Some("save each list as a file of its own: a JSON array, or one object per line".into())
            }
            DataError::Compressed { source, .. }
                if source.kind() == std::io::ErrorKind::QuotaExceeded =>
            {
                Some("if the file is genuine, decompress it and name the decompressed file".into())
            }
            DataError::Compressed { .. } => {
                Some("download the file again; the download may have been incomplete".into())
            }
            DataError::Row { origin, error } => {
                let hint = error.hint()?;
                Some(match &**error {
                    RowError::UnknownFormat { reading: None, .. } => hint_of_table(&origin.file, hint),
                    _ => hint,
                })
            }
            DataError::Unusable(bad) => unusable(bad),
            DataError::TooManyBad { .. } => Some(
                "`simmer data lint` lists all of them; change the rows or the recipe, or raise `data.max_bad_share`"
                    .into(),
            ),
            DataError::Template(error) => error.hint(),
            DataError::Tokenizer(error) => error.hint(),
            DataError::NothingTrained { why, template, .. } => Some(if why.contains("no answer") {
                format!(
                    "check that the rows have answers, and that template `{template}` renders them: `simmer data preview` \
                     shows what is trained on"
                )
            } else if why.contains("weight 0") {
                "an answer of weight 0 is read and not trained on: remove `weight` from the row, or set it to 1".into()
            } else if why.contains("dropped") {
                "raise `data.max_tokens`, or set `data.overlong = \"truncate\"`".into()
            } else {
                "raise `data.max_tokens`, so that prompts leave room for their answers".into()
            }),
            _ => None,
        }
    }
}

/// A hint about the keys of a row. In a CSV file without the names of its columns, the first row was taken for them.
pub fn hint_of_table(file: &Path, hint: String) -> String {
    if is_table(file) {
        return format!(
            "if the first line of the file is a row, add a line with the names of the columns before it; else {hint}"
        );
    }
    hint
}

/// The hint for a row that cannot be used. Such a row at the very start is more often a mistake in the recipe.
fn unusable(bad: &BadRow) -> Option<String> {
    let hint = bad.error.hint();
    if bad.origin.row < 2 {
        return hint;
    }
    Some(match hint {
        Some(hint) => format!("{hint}; or set data.bad_rows = \"drop\" to leave such rows out"),
        None => "change or remove the row, or set data.bad_rows = \"drop\" to leave such rows out"
            .into(),
    })
}

/// The first of many names.
fn some(names: &[String]) -> String {
    const MOST: usize = 10;
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}
