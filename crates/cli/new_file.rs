//! Files of a user's own, which are never overwritten.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::failure::{Context, Failure};

/// Checks that `out` is the path of a new file in an existing folder. `name` is the file's usual name; `other` is the
/// hint how to name another file.
pub(crate) fn check(out: &Path, name: &str, other: &str) -> Result<(), Failure> {
    if out.is_dir() {
        let inside = out.join(name);
        let text = format!("{} is a folder", out.display());
        return Err(Failure::new(text).and_hint(&format!("write {}", inside.display())));
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.exists()) {
        let text = format!(
            "cannot create {}: the folder {} does not exist",
            out.display(),
            parent.display()
        );
        return Err(Failure::new(text).and_hint("create it, or name another file"));
    }
    // a link that leads nowhere is a file, too
    if out.symlink_metadata().is_ok() {
        let text = format!("{} exists already, and is not overwritten", out.display());
        return Err(Failure::new(text).and_hint(other));
    }
    Ok(())
}

/// Creates a new file. Its errors are those of [`check`], and of the operating system.
pub(crate) fn create(out: &Path, name: &str, other: &str) -> Result<File, Failure> {
    check(out, name, other)?;
    File::create_new(out).with_context(|| format!("cannot create {}", out.display()))
}

/// Writes a new file. Its errors are those of [`create`].
pub(crate) fn write(out: &Path, text: &str, name: &str, other: &str) -> Result<(), Failure> {
    let mut file = create(out, name, other)?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("{}: cannot write", out.display()))
}
