//! Pages and tables that a command writes anew each time. An existing file is replaced only if simmer wrote it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use simmer_files::write_file;

use crate::failure::{Context, Failure};
use crate::new_file;

/// What is in the head of a page of simmer.
const PAGE: &str = "<meta name=\"generator\" content=\"simmer";
/// How a table of scores begins.
const SCORES: &str = "| task | metric |";
/// The marks are within the first bytes.
const HEAD: u64 = 1 << 10;

/// Checks that a file can be written to the path that `option` gives: a new one, or one that simmer wrote.
pub(crate) fn check(path: &Path, option: &str) -> Result<(), Failure> {
    let other = format!("name another file with {option}, or remove it");
    if !path.is_file() {
        return new_file::check(path, "page.html", &other);
    }
    let head = head(path)?;
    if head.contains(PAGE) || head.starts_with(SCORES) {
        return Ok(());
    }
    let text = format!(
        "{option}: {} exists and was not written by simmer; it is not overwritten",
        path.display()
    );
    Err(Failure::new(text).with_hint(other))
}

/// Writes it whole, or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    write_file(path, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The beginning of a file.
pub(crate) fn head(path: &Path) -> Result<String, Failure> {
    let mut head = Vec::new();
    let what = || format!("{}: cannot read", path.display());
    let file = File::open(path).with_context(what)?;
    file.take(HEAD).read_to_end(&mut head).with_context(what)?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}
