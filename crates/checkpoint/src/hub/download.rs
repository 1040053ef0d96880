//! Downloads a file from the hub into the cache.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use simmer_files::digest::{hex, update_from};

use super::cache::{RepoCache, make_parent};
use super::client::{Client, Remote};
use super::name::is_hex;
use super::{HubError, Progress};

/// Interval between progress reports.
const REPORT: Duration = Duration::from_millis(100);
const BUFFER: usize = 1 << 18;

/// The checksum of a file on the hub, which is also its name in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256 of a large file (LFS).
    Sha256(String),
    /// Git object id of a small file: SHA-1 of `blob LENGTH\0` and the contents.
    Git(String),
}

impl Checksum {
    pub(super) fn from_etag(etag: &str) -> Option<Self> {
        let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
        match etag.len() {
            64 if is_hex(etag) => Some(Self::Sha256(etag.to_owned())),
            40 if is_hex(etag) => Some(Self::Git(etag.to_owned())),
            _ => None,
        }
    }

    pub(super) fn etag(&self) -> &str {
        match self {
            Self::Sha256(etag) | Self::Git(etag) => etag,
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git blob SHA-1",
        }
    }

    fn of(&self, path: &Path, size: u64) -> io::Result<String> {
        let file = File::open(path)?;
        match self {
            Self::Sha256(_) => digest(file, Sha256::new()),
            Self::Git(_) => digest(file, Sha1::new().chain_update(format!("blob {size}\0"))),
        }
    }
}

fn digest(file: File, mut hash: impl Digest) -> io::Result<String> {
    update_from(&mut hash, file)?;
    Ok(hex(&hash.finalize()))
}

/// The progress of a download over all its files.
pub(super) struct Meter<'p> {
    pub(super) progress: &'p mut dyn FnMut(Progress<'_>),
    total: u64,
    /// Bytes of finished files.
    finished: u64,
    /// Bytes received over the network.
    received: u64,
    started: Instant,
    reported: Option<Instant>,
}

impl<'p> Meter<'p> {
    pub(super) fn new(progress: &'p mut dyn FnMut(Progress<'_>)) -> Self {
        Self {
            progress,
            total: 0,
            finished: 0,
            received: 0,
            started: Instant::now(),
            reported: None,
        }
    }

    /// Adds the bytes of more files to the total.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
    }

    fn at(&mut self, file: &str, position: u64, received: usize) {
        self.received += received as u64;
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT) {
            self.report(file, position);
        }
    }

    fn finish(&mut self, remote: &Remote) {
        self.report(&remote.file, remote.size);
        self.finished += remote.size;
    }

    fn report(&mut self, file: &str, position: u64) {
        self.reported = Some(Instant::now());
        let seconds = self.started.elapsed().as_secs_f64();
        (self.progress)(Progress::Received {
            file,
            done: self.finished + position,
            total: self.total,
            bytes_per_second: self.received as f64 / seconds.max(1e-3),
        });
    }
}

/// Downloads a blob unless it exists: resumes a partial download, and renames it only if its checksum is right.
pub(super) fn fetch_blob(
    client: &Client<'_>,
    cache: &RepoCache,
    remote: &Remote,
    meter: &mut Meter<'_>,
) -> Result<(), HubError> {
    let etag = remote.checksum.etag();
    let blob = cache.blob(etag);
    let whole = || fs::metadata(&blob).is_ok_and(|found| found.len() == remote.size);
    if !whole() {
        let file = &remote.file;
        let waiting = || (meter.progress)(Progress::Waiting { file });
        let _lock = cache.lock(etag, waiting)?;
        if !whole() {
            download(client, &cache.incomplete(etag), &blob, remote, meter)?;
        }
    }
    meter.finish(remote);
    Ok(())
}

fn download(
    client: &Client<'_>,
    incomplete: &Path,
    blob: &Path,
    remote: &Remote,
    meter: &mut Meter<'_>,
) -> Result<(), HubError> {
    make_parent(incomplete)?;
    let mut options = File::options();
    options.create(true).read(true).write(true).truncate(false);
    let open = HubError::io(incomplete, "open");
    let mut file = options.open(incomplete).map_err(open)?;
    let resumed = receive(client, &mut file, incomplete, remote, meter)?;
    if let Err(error) = check(incomplete, remote, meter) {
        // the partial file may be from a crash, or from another program
        let again = if resumed {
            set_len(&file, incomplete, 0)
                .and_then(|()| receive(client, &mut file, incomplete, remote, meter))
                .and_then(|_| check(incomplete, remote, meter))
        } else {
            Err(error)
        };
        if let Err(error @ HubError::Checksum { .. }) = again {
            fs::remove_file(incomplete).map_err(HubError::io(incomplete, "remove"))?;
            return Err(error);
        }
        again?;
    }
    file.sync_all().map_err(HubError::io(incomplete, "write"))?;
    match fs::rename(incomplete, blob) {
        // if locks do not work, another process may have been first
        Err(error) if error.kind() == io::ErrorKind::NotFound && blob.exists() => Ok(()),
        renamed => renamed.map_err(HubError::io(blob, "rename the finished file to")),
    }
}

/// Receives until the file has its length. Returns whether it resumed a partial download.
fn receive(
    client: &Client<'_>,
    file: &mut File,
    path: &Path,
    remote: &Remote,
    meter: &mut Meter<'_>,
) -> Result<bool, HubError> {
    let length = file.metadata().map_err(HubError::io(path, "read"))?.len();
    let mut have = if length > remote.size { 0 } else { length };
    let resumed = have > 0;
    let mut best = have;
    let mut attempts = client.attempts();
    set_len(file, path, have)?;
    while have < remote.size {
        let part = receive_part(client, file, path, remote, &mut have, meter);
        if have > best {
            best = have;
            attempts.reset();
        }
        if let Err(error) = part {
            attempts.pause_after(error, meter.progress)?;
        }
    }
    Ok(resumed)
}

/// Sends one request; `have` counts the bytes on disk.
fn receive_part(
    client: &Client<'_>,
    file: &mut File,
    path: &Path,
    remote: &Remote,
    have: &mut u64,
    meter: &mut Meter<'_>,
) -> Result<(), HubError> {
    let (start, mut body) = client.open(remote, *have)?;
    if start != *have {
        set_len(file, path, start)?;
        *have = start;
    }
    file.seek(SeekFrom::Start(start))
        .map_err(HubError::io(path, "write"))?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let broken = |reason: String, done| HubError::Interrupted {
            file: remote.file.clone(),
            done,
            size: remote.size,
            reason,
        };
        let read = match body.read(&mut buffer) {
            Ok(0) if *have < remote.size => {
                return Err(broken("the server stopped sending".to_owned(), *have));
            }
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(broken(error.to_string(), *have)),
        };
        if remote.size - *have < read as u64 {
            return Err(HubError::Answer {
                url: remote.url.clone(),
                problem: format!(
                    "the server sends more than the {} bytes that it announced",
                    remote.size
                ),
            });
        }
        file.write_all(&buffer[..read])
            .map_err(HubError::io(path, "write"))?;
        *have += read as u64;
        meter.at(&remote.file, *have, read);
    }
}

fn check(path: &Path, remote: &Remote, meter: &mut Meter<'_>) -> Result<(), HubError> {
    let file = &remote.file;
    (meter.progress)(Progress::Checking { file });
    let checksum = &remote.checksum;
    let found = checksum
        .of(path, remote.size)
        .map_err(HubError::io(path, "read"))?;
    if found == checksum.etag() {
        return Ok(());
    }
    Err(HubError::Checksum {
        file: file.clone(),
        algorithm: checksum.algorithm(),
        expected: checksum.etag().to_owned(),
        found,
    })
}

fn set_len(file: &File, path: &Path, length: u64) -> Result<(), HubError> {
    file.set_len(length).map_err(HubError::io(path, "write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_checksums() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        for etag in [
            // Published for "abc": FIPS 180-2, and `printf abc | git hash-object --stdin`.
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f",
        ] {
            let checksum = Checksum::from_etag(&format!("W/\"{etag}\"")).unwrap();
            assert_eq!(checksum.of(file.path(), 3).unwrap(), etag);
        }
    }

    #[test]
    fn an_etag_that_is_no_checksum() {
        for etag in [
            "",
            "\"abc\"",
            "../../../../../../../../../../../etc/p",
            "\"0123456789abcdef0123456789abcdef-3\"",
        ] {
            assert_eq!(Checksum::from_etag(etag), None);
        }
    }
}
