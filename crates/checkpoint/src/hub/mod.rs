//! Downloads models by their name on the Hugging Face hub into the usual cache.
//!
//! [`fetch`] takes `ORG/NAME` and returns a folder. It downloads only the files that a LLaMA-family model needs, in the
//! layout of Python's huggingface_hub, so that both share the cache:
//!
//! - An interrupted download resumes, in this process or in a later one (`blobs/ETAG.incomplete`).
//! - A file enters the cache only if it has the checksum on the hub.
//! - The token is sent to the hub's own host, never to redirects.
//! - Without a network, a complete copy in the cache is used.
//!
//! The hf-hub crate has none of these (1.0 restarts a file and 0.5 appends to any existing file; neither checks
//! checksums), so the requests are made here.
//!
//! # Source
//!
//! huggingface_hub's `file_download.py` for the interface and the layout.

mod address;
mod cache;
mod client;
mod config;
mod download;
mod error;
mod files;
mod name;
mod place;
#[cfg(test)]
mod tests;

pub use config::{HubConfig, Token};
pub use error::HubError;
pub use name::HubName;
pub use place::Place;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cache::{RepoCache, nearest_name};
use client::{Client, Listing};
use download::{Checksum, Meter, fetch_blob};
use files::{Then, missing, plan, shards};

use crate::INDEX_FILE;

/// Maximum bytes of a file that is read into memory; tokenizers have up to 40 MB.
const MAX_SMALL: u64 = 256 << 20;

/// The kind of thing to download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Weights, their configuration, and a tokenizer.
    Model,
    /// A LoRA adapter in PEFT's layout.
    Adapter,
    /// Only a tokenizer.
    Tokenizer,
    /// Rows of a [dataset](HubName::of_dataset).
    Dataset,
}

/// Progress of a download.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Bytes received; reported about ten times per second and at the end of each file.
    Received {
        /// The current file.
        file: &'a str,
        /// Bytes of all files on disk, including earlier attempts.
        done: u64,
        /// Bytes of all needed files; grows once, when an index has been read.
        total: u64,
        /// Mean bytes received per second.
        bytes_per_second: f64,
    },
    /// The checksum of a downloaded file is being computed.
    Checking {
        /// The file.
        file: &'a str,
    },
    /// Another process is downloading the same file.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// A transient error; a retry follows.
    Retrying {
        /// The error.
        error: &'a HubError,
        /// Pause before the retry.
        pause: Duration,
    },
}

/// A downloaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The folder, or the file in the name.
    pub path: PathBuf,
    /// The files with rows of a dataset.
    pub files: Vec<PathBuf>,
    /// The commit of the revision.
    pub commit: String,
    /// Why an earlier copy is used, which may not be the newest.
    pub note: Option<String>,
}

/// Downloads the model of this name, unless the cache has it.
///
/// # Errors
///
/// Errors of the hub and the network, see [`HubError`]. Received data is kept, and the next call resumes from it.
pub fn fetch(
    name: &HubName,
    what: What,
    config: &HubConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Fetched, HubError> {
    let cache = RepoCache::new(config, name);
    let cached = || {
        let commit = cache.commit_of(name).ok_or("nothing".to_owned())?;
        let snapshot = cache.snapshot(&commit);
        match missing(&snapshot, name, what) {
            None => {
                let files = files_below(&snapshot);
                let plan = plan(name, what, &files).map_err(|error| error.to_string())?;
                Ok(fetched(&cache, name, commit, what, &plan.then))
            }
            Some(missing) => Err(missing),
        }
    };
    if name.commit().is_some()
        && let Ok(found) = cached()
    {
        return Ok(found);
    }
    let listing = if config.offline {
        Err(HubError::Offline)
    } else {
        Client::new(config, name).and_then(|client| {
            let listing = client.listing(progress)?;
            Ok((client, listing))
        })
    };
    let why = match listing {
        Ok((client, listing)) => {
            return download_all(&client, &cache, name, what, listing, progress);
        }
        Err(HubError::NotFound {
            name: repo,
            endpoint,
            ..
        }) => {
            return Err(HubError::NotFound {
                name: repo,
                endpoint,
                nearest: nearest_name(config, name),
            });
        }
        Err(why) if why.leaves_the_cache() => why,
        Err(why) => return Err(why),
    };
    match cached() {
        Ok(found) => {
            let note = (!config.offline).then(|| format!("{why}; using the copy in the cache"));
            Ok(Fetched { note, ..found })
        }
        // the cache is irrelevant to this error
        Err(_) if matches!(why, HubError::Denied { .. }) => Err(why),
        Err(missing) => Err(HubError::NotCached {
            name: name.to_string(),
            cache: config.cache.clone(),
            missing,
            why: Box::new(why),
        }),
    }
}

/// The files of a snapshot, as listed by the hub.
fn files_below(snapshot: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![snapshot.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Ok(file) = path.strip_prefix(snapshot) {
                let parts = file.iter().map(|part| part.to_string_lossy());
                files.push(parts.collect::<Vec<_>>().join("/"));
            }
        }
    }
    files.sort();
    files
}

fn fetched(
    cache: &RepoCache,
    name: &HubName,
    commit: String,
    what: What,
    then: &Then<'_>,
) -> Fetched {
    let snapshot = cache.snapshot(&commit);
    let files = match then {
        Then::Files(files) if what == What::Dataset => files.as_slice(),
        _ => &[],
    };
    Fetched {
        files: files.iter().map(|file| snapshot.join(file)).collect(),
        note: None,
        path: name
            .file()
            .map_or(snapshot.clone(), |file| snapshot.join(file)),
        commit,
    }
}

/// Downloads small files, then the weights, then writes the reference: a reference always leads to complete files.
fn download_all(
    client: &Client<'_>,
    cache: &RepoCache,
    name: &HubName,
    what: What,
    listing: Listing,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Fetched, HubError> {
    let Listing { commit, files } = listing;
    let plan = plan(name, what, &files)?;
    let mut meter = Meter::new(progress);
    let mut download =
        |files: &[&str], most: u64| download_some(client, cache, &commit, files, most, &mut meter);
    download(&plan.first, MAX_SMALL)?;
    match &plan.then {
        Then::Files(weights) => download(weights, u64::MAX)?,
        Then::Indexed => {
            let index = cache.snapshot(&commit).join(INDEX_FILE);
            let shards = shards(name, &index, &files)?;
            let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
            download(&shards, u64::MAX)?;
        }
    }
    cache.write_ref(name, &commit)?;
    Ok(fetched(cache, name, commit, what, &plan.then))
}

fn download_some(
    client: &Client<'_>,
    cache: &RepoCache,
    commit: &str,
    files: &[&str],
    most: u64,
    meter: &mut Meter<'_>,
) -> Result<(), HubError> {
    let snapshot = cache.snapshot(commit);
    let mut remotes = Vec::new();
    for file in files.iter().filter(|file| !snapshot.join(file).exists()) {
        let remote = client.remote(commit, file, meter.progress)?;
        if remote.size > most {
            return Err(HubError::Answer {
                url: remote.url,
                problem: format!("{} bytes, expected at most {most}", remote.size),
            });
        }
        meter.expect(remote.size);
        remotes.push(remote);
    }
    for remote in remotes {
        fetch_blob(client, cache, &remote, meter)?;
        cache.link(commit, &remote.file, remote.checksum.etag())?;
    }
    Ok(())
}
