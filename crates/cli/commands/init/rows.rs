//! The data of a new recipe: which files, in which format, and how its rows look.

use std::path::{Path, PathBuf};

use simmer_data::format::{Reader, Reading};
use simmer_data::{Content, Conversation, DataError, Format, SourceConfig, Tokenizer};
use simmer_files::splits;

use super::settings::Settings;
use crate::commands::fields::Names;
use crate::commands::row_hints::{hinted, suggested};
use crate::failure::Failure;
use crate::hub;

/// How many rows are looked at to choose a template. All of them are read later.
const LOOKED_AT: usize = 200;
/// The share of rows with the space between prompt and completion from which on nothing is put between them.
const JOINED: f64 = 0.9;

/// The rows that a path stands for.
pub(super) struct Rows {
    /// As given: a path, a pattern, or a name on the hub.
    pub(super) path: String,
    /// The local files, if the path is a name on the hub or of a part of the program.
    located: Option<Vec<PathBuf>>,
    pub(super) format: Format,
    /// The rows' own names for the keys of the format, as a recipe has them.
    pub(super) fields: Option<String>,
    /// Whether all files are texts, whose rows are lines or paragraphs.
    pub(super) are_texts: bool,
    /// Whether prompts and completions already have the space that belongs between them.
    joined: bool,
}

/// A template, and why it is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) why: String,
}

impl Rows {
    /// Looks at the first rows of a path. `names`: the rows' own names for keys of the format, if they are given.
    pub(super) fn open(path: &str, names: &Names) -> Result<Self, Failure> {
        let mut recipe = Settings::new("data/tiny-base", path).recipe()?;
        hub::locate_data(&mut recipe.data)?;
        let source = &recipe.data.train[0];
        let files = source.files()?;
        let is_here = source.path.exists() || path.contains(['*', '?', '[']);
        let mut fields = (!names.is_empty()).then(|| names.toml());
        let mut reading = Reading {
            skip_bad: true,
            fields: names.fields(),
            ..Reading::default()
        };
        let opened = Reader::open(&files, &reading);
        let unnamed = opened.as_ref().err().filter(|_| names.is_empty());
        let opened = match unnamed.and_then(suggested) {
            Some(names) => {
                reading.fields = names.fields();
                fields = Some(names.toml());
                // if these names do not help, the first error says more
                Reader::open(&files, &reading).or(opened)
            }
            None => opened,
        };
        let reader = opened.map_err(hinted)?;
        let format = reader.format();
        let first = match usable(reader) {
            Err(error) if !names.is_empty() => return Err(hinted(error)),
            // the pass over all rows reports what is wrong with them
            first => first.unwrap_or_default(),
        };
        let text = |file: &PathBuf| splits::kind(&file.to_string_lossy()).as_deref() == Some("txt");
        Ok(Self {
            path: path.to_owned(),
            are_texts: format == Format::Text && files.iter().all(text),
            located: (!is_here).then_some(files),
            joined: format == Format::PromptCompletion && joined(&first),
            format,
            fields,
        })
    }

    /// Gives a source of this path its local files.
    pub(super) fn locate(&self, source: &mut SourceConfig) {
        if let Some(files) = &self.located {
            source.locate(files.clone());
        }
    }

    /// The usual name of a recipe for these rows: that of the data.
    pub(super) fn recipe_name(&self) -> String {
        let path = self.path.trim_end_matches('/');
        let name = path.rsplit(['/', ':']).next().unwrap_or(path);
        let stem = match name.find('.') {
            Some(at) if at > 0 && self.located.is_none() => &name[..at],
            _ => name,
        };
        let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if stem.is_empty() || !stem.chars().all(plain) {
            return "my.toml".to_owned();
        }
        format!("{stem}.toml")
    }

    /// The templates that may render the rows, the best first.
    pub(super) fn templates(&self, tokenizer: &Tokenizer) -> Vec<Candidate> {
        let candidate = |name: &str, why: &str| Candidate {
            name: name.to_owned(),
            why: why.to_owned(),
        };
        let text = "nothing is put around the rows, and all of it is trained on";
        if self.format == Format::Text {
            return vec![candidate("completion", text)];
        }
        let mut found = Vec::new();
        if self.joined {
            let why = "the space between prompt and completion is in the rows: nothing is added";
            found.push(candidate("completion", why));
        }
        if tokenizer.chat_template("default").is_some() {
            let why = "the base model's tokenizer has a chat template";
            found.push(candidate("chat", why));
        }
        let none = |what: &str| format!("{what}; the base model has no chat template");
        match self.format {
            Format::Alpaca | Format::PromptCompletion => {
                found.push(candidate("alpaca", &none("Stanford Alpaca's prompt")));
            }
            Format::Baize => found.push(candidate("baize", &none("the text of these rows"))),
            _ => {}
        }
        let (name, why) = turns(tokenizer);
        found.push(candidate(name, &none(why)));
        found
    }
}

/// The template of conversations that fits a tokenizer without a chat template.
fn turns(tokenizer: &Tokenizer) -> (&'static str, &'static str) {
    let has = |token: &str| tokenizer.token_id(token).is_some();
    if has("<|im_start|>") {
        ("chatml", "the tokenizer has the tokens of ChatML")
    } else if has("<|start_header_id|>") {
        ("llama-3", "the tokenizer has the tokens of Llama 3")
    } else {
        ("vicuna-v1.1", "Vicuna's turns, in plain words")
    }
}

/// Those of the first rows that can be used.
///
/// # Errors
/// That of the first row, if none can.
fn usable(mut reader: Reader) -> Result<Vec<Conversation>, DataError> {
    let (mut usable, mut wrong) = (Vec::new(), None);
    for _ in 0..LOOKED_AT {
        match reader.next_chunk(1) {
            Ok(rows) if rows.is_empty() => break,
            Ok(rows) => usable.extend(rows),
            Err(error) => drop(wrong.get_or_insert(error)),
        }
    }
    match wrong {
        Some(error) if usable.is_empty() => Err(error),
        _ => Ok(usable),
    }
}

/// Whether prompts and completions already have the space that belongs between them.
fn joined(rows: &[Conversation]) -> bool {
    let spaced: Vec<bool> = rows.iter().filter_map(spaced).collect();
    let with = spaced.iter().filter(|spaced| **spaced).count();
    !spaced.is_empty() && with as f64 >= JOINED * spaced.len() as f64
}

/// Whether a prompt ends with white space, or its completion begins with it.
fn spaced(row: &Conversation) -> Option<bool> {
    let Content::Completion {
        prompt,
        completion: Some(completion),
    } = &row.content
    else {
        return None;
    };
    Some(prompt.ends_with(char::is_whitespace) || completion.starts_with(char::is_whitespace))
}

/// The only file of rows in the current folder.
pub(super) fn only_file() -> Option<String> {
    let files = Path::new(".").read_dir().ok()?.flatten();
    let names = files.filter_map(|entry| {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        entry.file_name().into_string().ok().filter(|_| is_file)
    });
    // texts and single objects are rather something else
    let is_rows = |name: &String| {
        let kind = splits::kind(name);
        splits::is_data(name) && !matches!(kind.as_deref(), Some("txt" | "json"))
    };
    let mut found = names.filter(is_rows);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}
