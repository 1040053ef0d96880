//! Atomic writes: files and folders that appear complete or not at all.
//!
//! Everything is written to a temporary file or folder in the same folder, synced to the disk, and then renamed; the
//! parent folder is synced last. After a failure or a kill before the rename, the old contents are still there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::WriteError;

/// What to do if the output folder exists. An empty folder is always used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Return an error and change nothing.
    Refuse,
    /// Replace it when everything is written. On Linux the two folders are exchanged in one system call; on other
    /// systems the old one is renamed first.
    Replace,
}

/// An output folder that is written under a temporary name. Dropped without [`StagedFolder::commit`], it is removed.
#[derive(Debug)]
pub struct StagedFolder {
    staged: TempDir,
    out: PathBuf,
    existing: Existing,
}

impl StagedFolder {
    /// Creates the temporary folder for `out`, and missing parent folders.
    ///
    /// # Errors
    ///
    /// If `out` is a file, or a folder that is not empty and must not be replaced.
    pub fn new(out: impl AsRef<Path>, existing: Existing) -> Result<Self, WriteError> {
        let out = resolved(out.as_ref())?;
        if out.exists() && (existing == Existing::Refuse || !out.is_dir()) && !is_empty_dir(&out) {
            return Err(WriteError::OutputExists { path: out });
        }
        let parent = parent(&out);
        fs::create_dir_all(parent).map_err(WriteError::io(parent, "create"))?;
        let staged = tempfile::Builder::new()
            .prefix(&temporary_prefix(&out))
            .tempdir_in(parent)
            .map_err(WriteError::io(parent, "write into"))?;
        Ok(Self {
            staged,
            out,
            existing,
        })
    }

    /// The temporary folder. Anything may be written into it before the commit.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// The folder after the commit.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Writes one file.
    ///
    /// # Errors
    ///
    /// Errors of the operating system, such as a full disk.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), WriteError> {
        fs::write(self.path().join(name), contents)
            .map_err(WriteError::io(&self.out.join(name), "write"))
    }

    /// Copies one file under its own name.
    ///
    /// # Errors
    ///
    /// Errors of the operating system, such as a full disk.
    pub fn copy(&self, from: &Path) -> Result<(), WriteError> {
        let name = from.file_name().unwrap_or(from.as_os_str());
        let mut source = File::open(from).map_err(WriteError::io(from, "open"))?;
        let target = self.out.join(name);
        // Copies the contents only: a read-only or private source must not make the copy read-only or private.
        File::create(self.path().join(name))
            .and_then(|mut file| io::copy(&mut source, &mut file))
            .map_err(WriteError::io(&target, "write"))?;
        Ok(())
    }

    /// Syncs everything to the disk and renames the folder to its final name.
    ///
    /// # Errors
    ///
    /// Errors of the operating system; the old output is then unchanged.
    pub fn commit(self) -> Result<(), WriteError> {
        let Self {
            staged,
            out,
            existing,
        } = self;
        sync_all(staged.path()).map_err(WriteError::io(&out, "write"))?;
        let rename = WriteError::io(&out, "rename the finished folder to");
        // On Unix, renaming onto an empty folder is atomic.
        let renamed = if out.exists() && !is_empty_dir(&out) && existing == Existing::Replace {
            exchange(staged.path(), &out)
        } else {
            if !cfg!(unix) && out.exists() {
                let _ = fs::remove_dir(&out);
            }
            fs::rename(staged.path(), &out)
        };
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return Err(WriteError::OutputExists { path: out });
            }
            renamed => renamed.map_err(rename)?,
        }
        let parent = parent(&out);
        sync_dir(parent).map_err(WriteError::io(parent, "sync"))
        // Dropping `staged` removes the folder that was replaced, if any.
    }
}

/// Writes one file atomically, and replaces an existing one.
///
/// # Errors
///
/// The errors of `write` and of the operating system; the old file is then unchanged.
pub fn write_file(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), WriteError> {
    let path = path.as_ref();
    try_write_file(path, |file| {
        write(file).map_err(WriteError::io(path, "write"))
    })
}

/// [`write_file`] for a writer with its own error type.
///
/// # Errors
///
/// As [`write_file`].
pub fn try_write_file<E: From<WriteError>>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let path = path.as_ref();
    let parent = parent(path);
    let staged = staged_file(path, parent).map_err(WriteError::io(path, "write"))?;
    let mut buffered = BufWriter::with_capacity(1 << 20, staged.as_file());
    write(&mut buffered)?;
    buffered
        .flush()
        .and_then(|()| staged.as_file().sync_all())
        .map_err(WriteError::io(path, "write"))?;
    drop(buffered);
    staged
        .persist(path)
        .map_err(|error| WriteError::io(path, "rename the finished file to")(error.error))?;
    Ok(sync_dir(parent).map_err(WriteError::io(parent, "sync"))?)
}

fn staged_file(path: &Path, parent: &Path) -> io::Result<tempfile::NamedTempFile> {
    let prefix = temporary_prefix(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    // Temporary files are private by default; outputs get the usual permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(parent)
}

/// `.NAME.tmp-`: hidden, and still shows what it was for if a power cut leaves it behind.
fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".tmp-");
    prefix
}

/// A path with a file name to rename to; "." and "out/.." have none.
fn resolved(out: &Path) -> Result<PathBuf, WriteError> {
    if out.exists() {
        out.canonicalize().map_err(WriteError::io(out, "resolve"))
    } else if out.file_name().is_some() {
        Ok(out.to_path_buf())
    } else {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not the name of a folder");
        Err(WriteError::io(out, "create")(error))
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn is_empty_dir(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Exchanges the folders `staged` and `out`.
fn exchange(staged: &Path, out: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, staged, CWD, out, RenameFlags::EXCHANGE) {
            // Some file systems cannot exchange.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            exchanged => return Ok(exchanged?),
        }
    }
    let mut aside = staged.as_os_str().to_owned();
    aside.push("-old");
    fs::rename(out, &aside)?;
    if let Err(error) = fs::rename(staged, out) {
        fs::rename(&aside, out)?;
        return Err(error);
    }
    fs::rename(&aside, staged)
}

/// Syncs `dir` and everything in it.
fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

/// Syncs a folder's entries to the disk; only Unix can and needs to.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use simmer_hint::Hint as _;

    use super::*;

    fn entries(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_appears_whole() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/out");
        let staged = StagedFolder::new(&out, Existing::Refuse).unwrap();
        staged.write("a.txt", b"1").unwrap();
        fs::create_dir(staged.path().join("sub")).unwrap();
        fs::write(staged.path().join("sub/b.txt"), b"2").unwrap();
        assert!(!out.exists());
        staged.commit().unwrap();
        assert_eq!(entries(&out), ["a.txt", "sub"]);
        assert_eq!(entries(&dir.path().join("deep")), ["out"]);
    }

    #[test]
    fn dropped_without_commit_it_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let staged = StagedFolder::new(dir.path().join("out"), Existing::Refuse).unwrap();
        staged.write("a.txt", b"1").unwrap();
        drop(staged);
        assert!(entries(dir.path()).is_empty());
    }

    #[test]
    fn an_empty_folder_is_used_and_a_full_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let staged = StagedFolder::new(&out, Existing::Refuse).unwrap();
        staged.write("a.txt", b"1").unwrap();
        staged.commit().unwrap();
        let error = StagedFolder::new(&out, Existing::Refuse).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("out: already exists and is not an empty folder")
        );
        assert!(error.hint().unwrap().contains("name another folder"));
        let file = StagedFolder::new(out.join("a.txt"), Existing::Replace).unwrap_err();
        assert!(matches!(file, WriteError::OutputExists { .. }));
        assert_eq!(fs::read(out.join("a.txt")).unwrap(), b"1");
    }

    #[test]
    fn a_folder_filled_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let staged = StagedFolder::new(&out, Existing::Refuse).unwrap();
        staged.write("a.txt", b"new").unwrap();
        fs::create_dir(&out).unwrap();
        fs::write(out.join("b.txt"), b"theirs").unwrap();
        assert!(matches!(
            staged.commit(),
            Err(WriteError::OutputExists { .. })
        ));
        assert_eq!(entries(dir.path()), ["out"]);
        assert_eq!(entries(&out), ["b.txt"]);
    }

    #[test]
    fn replacing_exchanges_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        for text in ["first", "second"] {
            let staged = StagedFolder::new(&out, Existing::Replace).unwrap();
            staged
                .write(&format!("{text}.txt"), text.as_bytes())
                .unwrap();
            staged.commit().unwrap();
        }
        assert_eq!(entries(&out), ["second.txt"]);
        assert_eq!(entries(dir.path()), ["out"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_file(&path, |file| file.write_all(b"old")).unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = write_file(&path, |file| {
            file.write_all(b"half of the ne")?;
            Err(full())
        });
        assert!(error.unwrap_err().hint().unwrap().contains("disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(dir.path()), ["a.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_file(&path, |file| file.write_all(b"x")).unwrap();
        fs::write(dir.path().join("plain"), b"x").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&dir.path().join("plain")));
    }
}
