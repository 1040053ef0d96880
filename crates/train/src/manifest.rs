//! `manifest.json`: the program, machine and recipe of a run, and the hashes of all files that it read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

use burn::tensor::DType;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use simmer_checkpoint::MAX_TEXT_BYTES;
use simmer_data::{DataConfig, DataError, Dataset, Example, Template, Tokenizer};
use simmer_files::digest::{hex, sha256, sha256_of_file, update_from};
use simmer_files::write_file;
use simmer_kernels::instructions;
use simmer_model::adapter::AdapterTable;
use simmer_model::base::Compute;
use simmer_model::export::TOKENIZER_FILES;

use crate::error::TrainError;
use crate::folder::RunFolder;
use crate::observer::Observer;
use crate::program;
use crate::recipe::Recipe;
use crate::resume::Changes;

/// The file's name.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Longer files are hashed in pieces of this size, several at a time.
const PIECE: u64 = 64 << 20;

/// The manifest of a run: program, machine, recipe, and hashes of the files read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of simmer.
    pub simmer: String,
    /// The commit that simmer was built from, as in [`program::COMMIT`].
    #[serde(default = "unknown")]
    pub commit: String,
    /// The Cargo features that simmer was built with.
    #[serde(default)]
    pub features: Vec<String>,
    /// Operating system, processor, and the instructions that it computes with.
    pub system: String,
    /// The device that computed, or the devices; `auto` is resolved.
    pub device: String,
    /// The dtype that the layers computed in.
    #[serde(default = "f32")]
    pub compute: String,
    /// The number of threads; the result does not depend on it.
    #[serde(default)]
    pub threads: usize,
    /// SHA-256 of `recipe.toml`.
    pub recipe: String,
    /// The base model's files, by name; empty for random weights.
    pub base: BTreeMap<String, Fingerprint>,
    /// The tokenizer's files, by name.
    pub tokenizer: BTreeMap<String, Fingerprint>,
    /// SHA-256 of each template's text, by its name in the recipe.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
    /// The files of the adapter in `method.lora.from`, by name.
    pub adapter: BTreeMap<String, Fingerprint>,
    /// The data files, in the recipe's order.
    pub data: Vec<DataFile>,
    /// SHA-256 of the training examples: their tokens, and which of them are labels.
    pub examples: String,
    /// SHA-256 of the validation examples: their tokens, and which of them are labels.
    pub validation_examples: String,
    /// Changes that were accepted when the run resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
}

/// Changes that were accepted when the run resumed after one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Steps finished before the changes.
    pub step: u64,
    /// SHA-256 of `recipe.toml` before the changes.
    pub recipe: String,
    /// The changes, one line each.
    pub changes: Vec<String>,
    /// Whether the same weights have another validation loss since: the base model, the adapter's settings or the validation rows
    /// have changed.
    #[serde(default = "yes")]
    pub alters_losses: bool,
}

/// What versions assumed that did not say it.
fn yes() -> bool {
    true
}

/// What versions computed in that did not say it.
fn f32() -> String {
    Compute::F32.name().to_owned()
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// Length, time and hash of a file.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Its length.
    pub bytes: u64,
    /// When the file was last written, in nanoseconds since 1970. When the run resumes, a file that still has this time
    /// and length is not read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<u64>,
    /// SHA-256 of the content; for a file of more than 64 MiB, the SHA-256 of the SHA-256 digests of its pieces of
    /// 64 MiB.
    pub sha256: String,
}

impl PartialEq for Fingerprint {
    /// Whether the contents are the same; the time does not count.
    fn eq(&self, other: &Self) -> bool {
        (self.bytes, &self.sha256) == (other.bytes, &other.sha256)
    }
}

/// One data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// The path, as in the recipe.
    pub path: String,
    /// Length, time and hash.
    #[serde(rename = "file")]
    pub fingerprint: Fingerprint,
}

impl Manifest {
    /// Hashes the files of a recipe's base model.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn base_of(
        recipe: &Recipe,
        known: Option<&BTreeMap<String, Fingerprint>>,
    ) -> Result<BTreeMap<String, Fingerprint>, TrainError> {
        let Some(folder) = recipe.base.found_path() else {
            return Ok(BTreeMap::new());
        };
        fingerprints(folder, known, |name| {
            let weights = [".safetensors", ".pth"];
            ["config.json", "params.json"].contains(&name)
                || weights.iter().any(|part| name.contains(part))
        })
    }

    /// Hashes all files that a recipe reads. Those with the length and time that they have in `before` are not read again.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn of(
        recipe: &Recipe,
        data: &Dataset,
        tokenizer: &Tokenizer,
        before: Option<&Self>,
    ) -> Result<Self, TrainError> {
        let of = |files: fn(&Self) -> &BTreeMap<String, Fingerprint>| before.map(files);
        let base = Self::base_of(recipe, of(|manifest| &manifest.base))?;
        let table = recipe.method.adapter();
        let adapter = match table.and_then(AdapterTable::continued) {
            Some(from) => fingerprints(from.found(), of(|manifest| &manifest.adapter), |name| {
                name.starts_with("adapter")
            })?,
            None => BTreeMap::new(),
        };
        let tokenizer_files = fingerprints(
            tokenizer.path(),
            of(|manifest| &manifest.tokenizer),
            |name| name == "generation_config.json" || TOKENIZER_FILES.contains(&name),
        )?;
        Ok(Self {
            simmer: program::VERSION.to_owned(),
            commit: program::COMMIT.to_owned(),
            features: program::features(),
            system: system(),
            device: recipe.device.resolved()?,
            compute: recipe
                .base
                .compute
                .unwrap_or(Compute::F32)
                .name()
                .to_owned(),
            threads: rayon::current_num_threads(),
            templates: templates(&recipe.data, tokenizer)?,
            recipe: sha256(recipe.resolved().as_bytes()),
            base,
            tokenizer: tokenizer_files,
            adapter,
            data: data_files(
                &recipe.data,
                before.map_or(&[][..], |manifest| &manifest.data),
            )?,
            examples: data.examples().map_or_else(String::new, examples_hash),
            validation_examples: examples_hash(&data.validation),
            accepted: Vec::new(),
        })
    }

    /// Records that the run resumes with these changes after a step.
    pub(crate) fn accept(
        &mut self,
        Changes {
            refused,
            alters_losses,
            ..
        }: Changes,
        step: u64,
        folder: &RunFolder,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        for change in &refused {
            observer.on_notice(&format!("accepted: {change}"));
        }
        self.accepted.push(Accepted {
            step,
            recipe: sha256(folder.recipe()?.as_bytes()),
            changes: refused,
            alters_losses,
        });
        Ok(())
    }

    /// SHA-256 of the recipes before each of the accepted changes.
    pub(crate) fn accepted_recipes(&self) -> Vec<String> {
        let before = self.accepted.iter();
        before.map(|accepted| accepted.recipe.clone()).collect()
    }

    /// The dtype of the activations.
    pub fn dtype(&self) -> DType {
        if self.compute == Compute::F32.name() {
            DType::F32
        } else {
            DType::BF16
        }
    }

    /// Reads the manifest in a run's folder.
    ///
    /// # Errors
    /// A file that cannot be read, or that is not a manifest.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(MANIFEST_FILE);
        let text =
            simmer_files::read(&path, MAX_TEXT_BYTES).map_err(TrainError::io(&path, "read"))?;
        serde_json::from_slice(&text).map_err(|error| TrainError::io(&path, "read")(error.into()))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(MANIFEST_FILE);
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| TrainError::io(&path, "write")(error.into()))?;
        Ok(write_file(&path, |file| writeln!(file, "{json}"))?)
    }

    /// The changes from this manifest to `now`, one line each. `by_recipe` says whether keys of the recipe have changed too.
    pub(crate) fn changes(&self, now: &Self, by_recipe: bool) -> Vec<String> {
        let mut changes = Vec::new();
        let folders = [
            ("base model", &self.base, &now.base),
            ("tokenizer", &self.tokenizer, &now.tokenizer),
            ("method.lora.from", &self.adapter, &now.adapter),
        ];
        for (what, before, now) in folders {
            let names: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
            let changed = names
                .into_iter()
                .filter(|name| before.get(*name) != now.get(*name));
            changes.extend(changed.map(|name| format!("{what}: {name}")));
        }
        let contents = |files: &[DataFile]| -> Vec<Fingerprint> {
            files.iter().map(|file| file.fingerprint.clone()).collect()
        };
        if contents(&self.data) != contents(&now.data) {
            let changed = now.data.iter().enumerate().filter(|(place, file)| {
                let before = self.data.get(*place);
                before.is_none_or(|before| before.fingerprint != file.fingerprint)
            });
            changes.extend(changed.map(|(_, file)| format!("data: {}", file.path)));
        }
        let why = if by_recipe {
            "by the changed keys"
        } else {
            "has a template changed?"
        };
        let of_examples = |what: &str| format!("the tokens of the {what} examples ({why})");
        if changes.is_empty() && self.examples != now.examples {
            changes.push(of_examples("training"));
        }
        if changes.is_empty() && self.validation_examples != now.validation_examples {
            changes.push(of_examples("validation"));
        }
        changes
    }

    /// Whether the same weights may have another validation loss with what another manifest names.
    pub(crate) fn alters_losses(&self, now: &Self) -> bool {
        self.base != now.base
            || self.tokenizer != now.tokenizer
            || self.validation_examples != now.validation_examples
    }
}

fn templates(
    data: &DataConfig,
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<String, String>, TrainError> {
    let hashed = data.sources().map(|source| {
        let template = Template::named(&source.template, tokenizer).map_err(DataError::from)?;
        let hash = sha256(template.source().as_bytes());
        Ok((source.template.clone(), hash))
    });
    hashed.collect()
}

fn system() -> String {
    let [os, arch] = [std::env::consts::OS, std::env::consts::ARCH];
    format!("{os} {arch}, {}", instructions())
}

fn fingerprint(path: &Path, known: Option<&Fingerprint>) -> io::Result<Fingerprint> {
    let metadata = std::fs::metadata(path)?;
    let bytes = metadata.len();
    let since_1970 = metadata.modified()?.duration_since(UNIX_EPOCH);
    let modified = since_1970.ok().map(|time| time.as_nanos() as u64);
    let unchanged = |known: &&Fingerprint| {
        modified.is_some() && (known.modified, known.bytes) == (modified, bytes)
    };
    let sha256 = match known.filter(unchanged) {
        Some(known) => known.sha256.clone(),
        None if bytes <= PIECE => sha256_of_file(path)?,
        None => pieces_sha256(path, bytes)?,
    };
    Ok(Fingerprint {
        bytes,
        modified,
        sha256,
    })
}

fn pieces_sha256(path: &Path, bytes: u64) -> io::Result<String> {
    let piece = |index: u64| -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(index * PIECE))?;
        let mut hash = Sha256::new();
        update_from(&mut hash, file.take(PIECE))?;
        Ok(hash.finalize().to_vec())
    };
    let pieces = (0..bytes.div_ceil(PIECE)).into_par_iter().map(piece);
    let pieces: Vec<Vec<u8>> = pieces.collect::<io::Result<_>>()?;
    Ok(sha256(&pieces.concat()))
}

/// The fingerprints of the `wanted` files in a folder, by name; if `path` is a file, its own.
fn fingerprints(
    path: &Path,
    known: Option<&BTreeMap<String, Fingerprint>>,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Fingerprint>, TrainError> {
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(TrainError::io(path, "read"))?;
        paths = entries.into_iter().map(|entry| entry.path()).collect();
    }
    let mut found = BTreeMap::new();
    for file in paths {
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let of_folder = |name: &String| file == path || wanted(name);
        let Some(name) = name.filter(|name| of_folder(name) && file.is_file()) else {
            continue;
        };
        let print = fingerprint(&file, known.and_then(|known| known.get(&name)));
        found.insert(name, print.map_err(TrainError::io(&file, "read"))?);
    }
    Ok(found)
}

fn data_files(data: &DataConfig, known: &[DataFile]) -> Result<Vec<DataFile>, TrainError> {
    let mut files = Vec::new();
    for source in data.sources() {
        for file in source.files()? {
            let path = file.display().to_string();
            let known = known.iter().find(|file| file.path == path);
            let print = fingerprint(&file, known.map(|file| &file.fingerprint));
            files.push(DataFile {
                path,
                fingerprint: print.map_err(TrainError::io(&file, "read"))?,
            });
        }
    }
    Ok(files)
}

fn examples_hash(examples: &[Example]) -> String {
    let mut hash = Sha256::new();
    for example in examples {
        hash.update((example.tokens.len() as u64).to_le_bytes());
        for (token, trained) in example.tokens.iter().zip(&example.trained) {
            hash.update(token.to_le_bytes());
            hash.update([u8::from(*trained)]);
        }
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_hashed_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let file = File::create(&path).unwrap();
        file.set_len(PIECE + 5).unwrap();
        let long = fingerprint(&path, None).unwrap();
        let digest = |length: usize| Sha256::digest(vec![0; length]).to_vec();
        let expected = sha256(&[digest(PIECE as usize), digest(5)].concat());
        assert_eq!((long.bytes, &long.sha256), (PIECE + 5, &expected));
        file.set_len(3).unwrap();
        let short = fingerprint(&path, Some(&long)).unwrap();
        assert_eq!(short.sha256, sha256(&[0; 3]));
    }

    #[test]
    fn manifests_of_earlier_versions_are_read() {
        let old = r#"{"simmer": "0.1.0", "system": "linux x86_64", "device": "cpu", "recipe": "", "base": {}, "tokenizer": {},
            "adapter": {}, "data": [], "examples": "", "validation_examples": ""}"#;
        let old: Manifest = serde_json::from_str(old).unwrap();
        assert_eq!((old.commit.as_str(), old.threads), ("unknown", 0));
        assert_eq!(old.compute, "f32");
        assert!(old.features.is_empty() && old.templates.is_empty());
    }

    #[test]
    fn a_file_that_was_not_written_since_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, "abc").unwrap();
        let mut known = fingerprint(&path, None).unwrap();
        known.sha256 = "what was read then".to_owned();
        assert_eq!(fingerprint(&path, Some(&known)).unwrap(), known);
        let later = known.modified.unwrap() + 1;
        let later = UNIX_EPOCH + std::time::Duration::from_nanos(later);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(later).unwrap();
        let again = fingerprint(&path, Some(&known)).unwrap();
        assert_eq!(again.sha256, sha256(b"abc"));
    }
}
