//! The folder of a model in the cache, in the layout of huggingface_hub: `blobs/ETAG` are the files,
//! `snapshots/COMMIT/FILE` are links to them, `refs/REVISION` holds a commit.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

#[cfg(unix)]
use std::os::unix::fs::symlink as symlink_file;
#[cfg(windows)]
use std::os::windows::fs::symlink_file;

use simmer_files::write_file;

use super::name::is_commit;
use super::{HubConfig, HubError, HubName};
use crate::nearest;

/// Interval between attempts to take a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(100);

pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(config: &HubConfig, name: &HubName) -> Self {
        let folder = format!("{}--{}", name.kind(), name.repo().replace('/', "--"));
        Self {
            root: config.cache.join(&folder),
            locks: config.cache.join(".locks").join(&folder),
        }
    }

    /// The folder of a commit; it may not exist.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// The path of a partial download.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The commit of the revision at the last download.
    pub(super) fn commit_of(&self, name: &HubName) -> Option<String> {
        if let Some(commit) = name.commit() {
            return Some(commit.to_owned());
        }
        let commit = fs::read_to_string(self.root.join("refs").join(name.revision())).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Records the commit of the revision.
    pub(super) fn write_ref(&self, name: &HubName, commit: &str) -> Result<(), HubError> {
        if self.commit_of(name).as_deref() == Some(commit) {
            return Ok(());
        }
        let file = self.root.join("refs").join(name.revision());
        make_parent(&file)?;
        write_file(&file, |out| out.write_all(commit.as_bytes()))?;
        Ok(())
    }

    /// Links `FILE` of a snapshot to a blob, or copies it if the file system has no links.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let link = self.snapshot(commit).join(file);
        let blob = self.blob(etag);
        if link.exists() {
            return Ok(());
        }
        make_parent(&link)?;
        let up = "../".repeat(2 + file.matches('/').count());
        // a dangling link: its blob was removed
        if link.is_symlink() {
            fs::remove_file(&link).map_err(HubError::io(&link, "remove"))?;
        }
        match symlink_file(format!("{up}blobs/{etag}"), &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => {
                let mut source = File::open(&blob).map_err(HubError::io(&blob, "open"))?;
                write_file(&link, |mut out| io::copy(&mut source, &mut out).map(|_| ()))?;
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// Takes the lock of a file, which huggingface_hub respects too. `waiting` is called once if another process holds
    /// it.
    pub(super) fn lock(
        &self,
        etag: &str,
        mut waiting: impl FnMut(),
    ) -> Result<Option<File>, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let mut options = File::options();
        options.create(true).write(true).truncate(false);
        let file = options.open(&path).map_err(HubError::io(&path, "open"))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {}
                // The file system has no locks. They only avoid double work; checksums and renames keep files
                // complete.
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            if !said {
                waiting();
                said = true;
            }
            thread::sleep(LOCK_POLL);
        }
    }
}

/// The model in the cache with the most similar name.
pub(super) fn nearest_name(config: &HubConfig, name: &HubName) -> Option<String> {
    let entries = fs::read_dir(&config.cache).ok()?.flatten();
    let names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|folder| {
            let repo = folder.strip_prefix(name.kind())?.strip_prefix("--")?;
            Some(repo.replacen("--", "/", 1))
        })
        .filter(|other| other != name.repo())
        .collect();
    nearest(name.repo(), names.iter().map(String::as_str))
}

pub(super) fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io(parent, "create"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path) -> (RepoCache, HubName) {
        let name: HubName = "org/name@refs/pr/1".parse().unwrap();
        (RepoCache::new(&HubConfig::new(dir), &name), name)
    }

    #[test]
    fn a_reference_is_read_back_and_nothing_else_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, name) = cache(dir.path());
        assert_eq!(cache.commit_of(&name), None);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        cache.write_ref(&name, commit).unwrap();
        assert_eq!(cache.commit_of(&name).as_deref(), Some(commit));
        let file = dir.path().join("models--org--name/refs/refs/pr/1");
        assert_eq!(fs::read_to_string(&file).unwrap(), commit);
        fs::write(&file, "../../../etc").unwrap();
        assert_eq!(cache.commit_of(&name), None);
    }

    #[test]
    fn a_dangling_link_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, _) = cache(dir.path());
        for etag in ["a", "b"] {
            let blob = cache.blob(etag);
            make_parent(&blob).unwrap();
            fs::write(&blob, etag).unwrap();
            cache.link("c", "sub/x", etag).unwrap();
            let linked = cache.snapshot("c").join("sub/x");
            assert_eq!(fs::read_to_string(&linked).unwrap(), etag);
            fs::remove_file(blob).unwrap();
        }
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, _) = cache(dir.path());
        let held = cache.lock("e", || panic!("nobody holds it")).unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                cache.lock("e", || said.send(()).unwrap()).unwrap();
            });
            heard.recv().unwrap();
            assert!(!other.is_finished());
            drop(held);
        });
        assert!(heard.try_recv().is_err());
    }
}
