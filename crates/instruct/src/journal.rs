//! The journal: every completion of a run, in the order of arrival.
//!
//! JSON lines. The first names the run; every other is a completion with the stage, batch and place of its prompt. All else that
//! a run writes is computed from the seeds and the journal. Of two lines for one prompt, the later counts.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::Hash;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use simmer_files::digest::sha256;

use crate::completion::Completion;
use crate::error::InstructError;
use crate::method::Method;
use crate::recipe::GenerateRecipe;
use crate::seeds::Seeds;

/// A stage of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// New instructions; with their instances in the method of Stanford Alpaca.
    Instructions,
    /// Whether an instruction is a classification task.
    Classification,
    /// Instances.
    Instances,
    /// Conversations.
    Dialogue,
}

/// Which prompt of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The stage.
    pub stage: Stage,
    /// The number of the batch, from 0.
    pub batch: usize,
    /// The place in the batch, from 0.
    pub place: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prompt {} of batch {}", self.place + 1, self.batch + 1)
    }
}

/// What a completion is found by. Its text says which prompt it is.
pub trait JournalKey: Clone + Eq + Hash + fmt::Display + Serialize + DeserializeOwned {}

impl<K: Clone + Eq + Hash + fmt::Display + Serialize + DeserializeOwned> JournalKey for K {}

/// Which run a journal belongs to. Completions are used only by the same run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object with `journal`, `method`, `model` and `sha256`")]
pub struct About {
    /// The version of the format.
    pub journal: u32,
    /// The method's name.
    pub method: String,
    /// The model's name, with what distinguishes its weights.
    pub model: String,
    /// SHA-256 of the method, the seeds and the settings.
    pub sha256: BTreeMap<String, String>,
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(expecting = "an object that names a prompt, with its completion")]
struct Line<K> {
    #[serde(flatten)]
    key: K,
    /// The start of the SHA-256 of the prompt.
    prompt: String,
    completion: Completion,
}

/// The completions of a run, and their file. `K` says which prompt a completion is of.
#[derive(Debug)]
pub struct Journal<K = Key> {
    path: PathBuf,
    file: File,
    found: HashMap<K, (String, Completion)>,
}

/// The maximum length of a line in bytes, far above that of any completion.
const LONGEST: u64 = 64 << 20;

impl<K: JournalKey> Journal<K> {
    /// Opens the journal of a run, or creates it. An incomplete last line is removed.
    ///
    /// # Errors
    /// If the file belongs to another run, is damaged, or is written by another process.
    pub fn open(path: &Path, about: &About) -> Result<Self, InstructError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(InstructError::write(folder))?;
        }
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path);
        let mut file = file.map_err(InstructError::write(path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(InstructError::InUse {
                    path: path.to_owned(),
                });
            }
            // a file system without locks
            Err(TryLockError::Error(_)) | Ok(()) => (),
        }
        let (found, whole) = read(path, &file, about)?;
        file.set_len(whole).map_err(InstructError::write(path))?;
        file.seek(SeekFrom::End(0))
            .map_err(InstructError::write(path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            found,
        };
        if whole == 0 {
            journal.append(about)?;
        }
        Ok(journal)
    }

    /// The number of completions.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are no completions.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All completions, in no order.
    pub fn completions(&self) -> impl Iterator<Item = &Completion> {
        self.found.values().map(|(_, completion)| completion)
    }

    /// The completion of a prompt, if there is one.
    ///
    /// # Errors
    /// If the journal has a completion of another prompt there.
    pub fn find(&self, key: &K, prompt: &str) -> Result<Option<&Completion>, InstructError> {
        match self.found.get(key) {
            None => Ok(None),
            Some((found, completion)) if *found == id(prompt) => Ok(Some(completion)),
            Some(_) => Err(InstructError::OtherRun {
                path: self.path.clone(),
                what: format!("the text of {key}"),
            }),
        }
    }

    /// Appends a completion, and syncs it to the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(
        &mut self,
        key: K,
        prompt: &str,
        completion: Completion,
    ) -> Result<(), InstructError> {
        let line = Line {
            key,
            prompt: id(prompt),
            completion,
        };
        self.append(&line)?;
        self.found.insert(line.key, (line.prompt, line.completion));
        Ok(())
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), InstructError> {
        let written = serde_json::to_vec(line).map_err(io::Error::from);
        let written = written.and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)?;
            self.file.sync_data()
        });
        written.map_err(InstructError::write(&self.path))
    }
}

/// The start of the SHA-256 of a prompt.
fn id(prompt: &str) -> String {
    let mut hash = sha256(prompt.as_bytes());
    hash.truncate(16);
    hash
}

type Found<K> = HashMap<K, (String, Completion)>;

/// The completions of a file, and the number of bytes of its complete lines.
fn read<K: JournalKey>(
    path: &Path,
    file: &File,
    about: &About,
) -> Result<(Found<K>, u64), InstructError> {
    let mut file = BufReader::new(file);
    let (mut found, mut whole) = (Found::new(), 0);
    let mut other = None;
    for line in 1.. {
        let damaged = |problem: String| InstructError::Journal {
            path: path.to_owned(),
            line,
            problem,
        };
        let mut bytes = Vec::new();
        let read = (&mut file).take(LONGEST + 1).read_until(b'\n', &mut bytes);
        let read = read.map_err(InstructError::read(path))?;
        if bytes.len() as u64 > LONGEST {
            return Err(damaged(format!("longer than {} MiB", LONGEST >> 20)));
        }
        if bytes.pop() != Some(b'\n') {
            break;
        }
        whole += read as u64;
        if line == 1 {
            let before: About = serde_json::from_slice(&bytes).map_err(|error| {
                damaged(format!(
                    "expected the first line of a journal, found: {error}"
                ))
            })?;
            other = before.differs(about);
            continue;
        }
        if let Some(what) = other.take() {
            let path = path.to_owned();
            return Err(InstructError::OtherRun { path, what });
        }
        let line: Line<K> = serde_json::from_slice(&bytes).map_err(|error| {
            damaged(format!("expected a completion of this run, found: {error}"))
        })?;
        found.insert(line.key, (line.prompt, line.completion));
    }
    // a run that failed before its first completion does not stand in the way of the next
    Ok((found, if other.is_some() { 0 } else { whole }))
}

impl About {
    /// The run of a recipe, its method and seeds; `model` names the model and what distinguishes its weights.
    pub fn new(recipe: &GenerateRecipe, method: &Method, seeds: &Seeds, model: &str) -> Self {
        let method_text = serde_json::to_string(method).unwrap_or_default();
        let settings = format!("seed {} batch {}", recipe.seed, recipe.batch);
        let sha256 = [
            ("the method", sha256(method_text.as_bytes())),
            ("the seeds", seeds.sha256.clone()),
            ("`seed` or `batch`", sha256(settings.as_bytes())),
        ];
        Self {
            journal: 1,
            method: recipe.method.clone(),
            model: model.to_owned(),
            sha256: sha256.map(|(what, hash)| (what.to_owned(), hash)).into(),
        }
    }

    /// What differs from another run.
    fn differs(&self, now: &Self) -> Option<String> {
        let mut differs = Vec::new();
        if self.journal != now.journal {
            differs.push("the version of the format");
        }
        if self.model != now.model {
            differs.push("the model");
        }
        for (what, hash) in &now.sha256 {
            if self.sha256.get(what) != Some(hash) {
                differs.push(what);
            }
        }
        (!differs.is_empty()).then(|| differs.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::Finish;

    fn about(model: &str) -> About {
        About {
            journal: 1,
            method: "alpaca".into(),
            model: model.into(),
            sha256: [("the seeds".to_owned(), "0".to_owned())].into(),
        }
    }

    fn key(place: usize) -> Key {
        Key {
            stage: Stage::Instructions,
            batch: 0,
            place,
        }
    }

    fn completion(text: &str) -> Completion {
        Completion {
            text: text.to_owned(),
            finish: Finish::Stop,
            prompt_tokens: Some(3),
            completion_tokens: None,
        }
    }

    #[test]
    fn completions_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/journal.jsonl");
        let mut journal = Journal::open(&path, &about("a")).unwrap();
        journal
            .add(key(1), "prompt", completion("one\u{2028}"))
            .unwrap();
        let in_use = Journal::<Key>::open(&path, &about("a")).unwrap_err();
        assert!(matches!(in_use, InstructError::InUse { .. }), "{in_use}");
        drop(journal);
        // the power fails while a line is written, inside a character
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(
            b"{\"stage\":\"instructions\",\"batch\":0,\"place\":2,\"completion\":{\"text\":\"\xe2",
        );
        fs::write(&path, &bytes).unwrap();
        let mut journal = Journal::open(&path, &about("a")).unwrap();
        assert_eq!(journal.len(), 1);
        assert_eq!(
            journal.find(&key(1), "prompt").unwrap(),
            Some(&completion("one\u{2028}"))
        );
        assert_eq!(journal.find(&key(2), "prompt").unwrap(), None);
        let error = journal.find(&key(1), "another").unwrap_err().to_string();
        assert!(
            error.ends_with("the text of prompt 2 of batch 1 differs"),
            "{error}"
        );
        journal.add(key(1), "prompt", completion("two")).unwrap();
        drop(journal);
        let journal = Journal::open(&path, &about("a")).unwrap();
        assert_eq!(
            journal.find(&key(1), "prompt").unwrap(),
            Some(&completion("two"))
        );
    }

    #[test]
    fn the_journal_of_another_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        // a run that failed before its first completion leaves nothing
        drop(Journal::<Key>::open(&path, &about("b")).unwrap());
        let mut journal = Journal::open(&path, &about("a")).unwrap();
        journal.add(key(0), "prompt", completion("one")).unwrap();
        drop(journal);
        let error = Journal::<Key>::open(&path, &about("b"))
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("the journal of another run: the model differs"),
            "{error}"
        );
        fs::write(&path, "{}\n").unwrap();
        let error = Journal::<Key>::open(&path, &about("a"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(
                "line 1: expected the first line of a journal, found: missing field `journal`"
            ),
            "{error}"
        );
    }
}
