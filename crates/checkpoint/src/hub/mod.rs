//! Models by their name on the Hugging Face hub, fetched into the usual cache.
//!
//! [`fetch`] takes `ORG/NAME` and gives a folder. Only what a LLaMA-family model needs is fetched,
//! in the layout of Python's huggingface_hub, so that either finds what the other has fetched:
//!
//! - A download that was cut goes on where it stopped, in this run or in a later one
//!   (`blobs/ETAG.incomplete`).
//! - Every file has the checksum that the hub names, or it does not get a place in the cache.
//! - The token goes to the hub's own host, never to where the hub sends a request on.
//! - Without a network, a copy that is here is used.
//!
//! The hf-hub crate has none of these four (1.0 starts a file over and 0.5 appends to whatever is
//! there; neither looks at checksums), which is why the requests are made here.
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
#[cfg(test)]
mod tests;

pub use config::{HubConfig, Token};
pub use error::HubError;
pub use name::HubName;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cache::{RepoCache, nearest_name};
use client::{Client, Listing};
use download::{Checksum, Meter, fetch_blob};
use files::{Then, missing, plan, shards};

use crate::INDEX_FILE;

/// Of a file that is read whole into memory: tokenizers have up to 40 MB.
const MAX_SMALL: u64 = 256 << 20;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Weights, their configuration, and a tokenizer.
    Model,
    /// A LoRA adapter in PEFT's layout.
    Adapter,
    /// A tokenizer alone, whatever it is with.
    Tokenizer,
    /// Rows to train on; its name is [of a data set](HubName::of_dataset).
    Dataset,
}

/// How far a download is.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Bytes came, about ten times a second and at the end of each file.
    Received {
        /// The file they are of.
        file: &'a str,
        /// Bytes of all files that are here, those of earlier attempts too.
        done: u64,
        /// Bytes of all files that are known to be needed; grows once, when an index was read.
        total: u64,
        /// Bytes received a second, since the beginning.
        bytes_per_second: f64,
    },
    /// The checksum of a file that has arrived is made.
    Checking {
        /// The file.
        file: &'a str,
    },
    /// Another process is fetching the same file.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// Something went wrong that may not do so again.
    Retrying {
        /// What it was.
        error: &'a HubError,
        /// Until the next attempt.
        pause: Duration,
    },
}

/// A model that is on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The folder, or the one file that the name names.
    pub path: PathBuf,
    /// Of a data set, the files with its rows.
    pub files: Vec<PathBuf>,
    /// The commit that the revision is.
    pub commit: String,
    /// Why this is an earlier copy that may not be the newest, where it is one.
    pub note: Option<String>,
}

/// Makes sure that the model of this name is in the cache.
///
/// # Errors
///
/// Everything between here and the hub, see [`HubError`]. Whatever arrived before stays, and the
/// next call goes on from there.
pub fn fetch(
    name: &HubName,
    what: What,
    config: &HubConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Fetched, HubError> {
    let cache = RepoCache::new(config, name);
    let cached = || {
        let commit = cache.commit_of(name).ok_or("nothing of it".to_owned())?;
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
            let note = (!config.offline).then(|| format!("{why}; using the copy fetched earlier"));
            Ok(Fetched { note, ..found })
        }
        // No words about a cache that has nothing to do with it.
        Err(_) if matches!(why, HubError::Denied { .. }) => Err(why),
        Err(missing) => Err(HubError::NotCached {
            name: name.to_string(),
            cache: config.cache.clone(),
            missing,
            why: Box::new(why),
        }),
    }
}

/// The files of a snapshot, as the hub lists them.
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

/// Small files, then the weights, then the reference: what a reference leads to is complete.
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
                problem: format!("{} bytes, expected no more than {most}", remote.size),
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
