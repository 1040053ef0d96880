//! Archives: the program with its licences, completions and man pages.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Dist, VERSION, licences};
use crate::shell::{command, output, run};

/// The completions of each shell: its name, and the file inside a prefix such as /usr/local where it looks for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/simmer"),
    ("zsh", "share/zsh/site-functions/_simmer"),
    ("fish", "share/fish/vendor_completions.d/simmer.fish"),
];

const MAN: &str = "share/man/man1";

/// Files of the repository that every archive has.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Folders of the repository that every archive has, so that the links of the documents lead somewhere.
const FOLDERS: [&str; 2] = ["docs", "recipes"];

/// Writes `simmer-VERSION-TARGET.tar.gz`: a folder with `bin` and `share`, which can be copied to a prefix such as
/// /usr/local.
pub(super) fn make(dist: &Dist, program: &Path, target: &str) -> Result<()> {
    let name = format!("simmer-{VERSION}-{target}");
    let folder = dist.stage(&name)?;
    fs::create_dir_all(folder.join("bin"))?;
    copy(program, &folder.join("bin/simmer"))?;
    shared(program, &folder)?;
    for document in DOCUMENTS {
        copy(&dist.root.join(document), &folder.join(document))?;
    }
    let files = output(&mut command(
        &dist.root,
        "git",
        &[&["ls-files"], &FOLDERS[..]].concat(),
    ))?;
    for file in files.lines() {
        let to = folder.join(file);
        fs::create_dir_all(to.parent().unwrap_or(&folder))?;
        copy(&dist.root.join(file), &to)?;
    }
    let licences = licences::collect(dist, target, &[])?;
    fs::write(folder.join(licences::FILE), licences).context("cannot write the licences")?;
    let archive = dist.folder.join(format!("{name}.tar.gz"));
    let time = format!("--mtime=@{}", dist.epoch);
    let archive = archive.display().to_string();
    let arguments = [
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u+w,go-w,a+rX",
        &time,
        "--use-compress-program=gzip -9n",
        "--file",
        &archive,
        &name,
    ];
    let parent = folder.parent().unwrap_or(&folder);
    run(&mut command(parent, "tar", &arguments))
}

/// Writes what the program prints of itself, completions and man pages, below `prefix`.
pub(super) fn shared(program: &Path, prefix: &Path) -> Result<()> {
    fs::create_dir_all(prefix).with_context(|| format!("cannot create {}", prefix.display()))?;
    let program = program.display().to_string();
    for (shell, file) in COMPLETIONS {
        let text = output(&mut command(prefix, &program, &["completions", shell]))?;
        if !text.contains("simmer") {
            bail!("`simmer completions {shell}` printed no completions:\n{text}");
        }
        write(&prefix.join(file), &text)?;
    }
    let pages = prefix.join(MAN);
    fs::create_dir_all(&pages).with_context(|| format!("cannot create {}", pages.display()))?;
    let out = pages.display().to_string();
    run(&mut command(prefix, &program, &["man", "--out", &out]))?;
    if !pages.join("simmer.1").is_file() {
        bail!("`simmer man --out {out}` wrote no simmer.1");
    }
    Ok(())
}

/// Writes a file, and the folder that it is in.
pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Copies a file with its permissions.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = fs::copy(from, to);
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The loader that an ELF file of 64 bits asks for; `None` for a static program.
pub(super) fn loader(elf: &[u8]) -> Option<String> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = elf.get(at..at + bytes)?;
        let digits = field.iter().rev();
        Some(digits.fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let entries = (0..count).map(|entry| table + entry * size);
    let mut entries = entries.filter(|entry| number(*entry, 4) == Some(INTERPRETER as usize));
    let entry = entries.next()?;
    let start = number(entry + 8, 8)?;
    let path = elf.get(start..start + number(entry + 32, 8)?)?;
    let path = String::from_utf8_lossy(path);
    Some(path.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own program, which Rust links for the loader of glibc.
    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn a_program_with_shared_libraries_asks_for_a_loader() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let loader = loader(&bytes).unwrap();
        assert!(
            loader.starts_with("/lib") && loader.contains("ld-linux"),
            "{loader}"
        );
    }

    #[test]
    fn other_files_ask_for_none() {
        assert_eq!(loader(b"#!/bin/sh\n"), None);
        assert_eq!(loader(&[0; 4096]), None);
    }
}
