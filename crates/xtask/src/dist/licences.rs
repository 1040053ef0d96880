//! The licences of everything that is compiled into the program.
//!
//! Texts are those in the sources that cargo compiles, each once, with the crates that have it. A crate that ships no text
//! is named with the licence of its manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Dist;
use crate::shell::{command, output};

/// The file in archives and wheels.
pub(super) const FILE: &str = "THIRD-PARTY-LICENSES.txt";

/// Whose data are compiled in, beside this project's own.
const NOTICE: &str = "data/ifeval/NOTICE";

/// How the names of licence files begin.
const NAMES: [&str; 6] = [
    "licen",
    "copying",
    "copyright",
    "notice",
    "unlicense",
    "patents",
];

/// How deep a crate keeps the licences of the sources inside it, such as zstd's in zstd-sys.
const DEPTH: usize = 3;

/// A crate that is compiled into the program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: String,
    repository: String,
}

/// All licences of a build for `target` with these features, as one text.
pub(super) fn collect(dist: &Dist, target: &str, features: &[&str]) -> Result<String> {
    let start = [
        "tree",
        "--locked",
        "--package",
        "simmer",
        "--edges",
        "normal,no-proc-macro",
        "--target",
        target,
        "--prefix",
        "none",
        "--format",
        "{p}|{l}|{r}",
    ];
    let arguments = [&start[..], features].concat();
    let printed = output(&mut command(&dist.root, "cargo", &arguments))?;
    let crates = crates(&printed)?;
    let sources = sources()?;
    let mut texts = Texts::default();
    for used in &crates {
        texts.add_crate(used, &sources)?;
    }
    texts.add_rust(&dist.root)?;
    let notice = fs::read_to_string(dist.root.join(NOTICE));
    let notice = notice.with_context(|| format!("cannot read {NOTICE}"))?;
    texts.add(format!("simmer: {NOTICE}"), &notice);
    if target.ends_with("musl") {
        texts.add("musl: COPYRIGHT".to_owned(), &dist.tools.licence_of_musl()?);
    }
    Ok(texts.written(&crates))
}

/// The crates of other people in what `cargo tree` printed.
fn crates(printed: &str) -> Result<BTreeSet<Crate>> {
    let mut crates = BTreeSet::new();
    for line in printed.lines().filter(|line| !line.is_empty()) {
        let parts: Vec<&str> = line.split('|').collect();
        let &[package, licence, repository] = &parts[..] else {
            bail!("`cargo tree` printed `{line}`, expected three parts");
        };
        // a package of this repository is followed by its path
        if package.contains(" (/") {
            continue;
        }
        let Some((name, version)) = package.split_once(" v") else {
            bail!("`cargo tree` printed `{package}`, expected name and version");
        };
        crates.insert(Crate {
            name: name.to_owned(),
            version: version.trim_end_matches(" (*)").to_owned(),
            licence: licence.to_owned(),
            repository: repository.trim_end_matches(" (*)").to_owned(),
        });
    }
    Ok(crates)
}

/// The folders in which cargo keeps the sources of registries.
fn sources() -> Result<Vec<PathBuf>> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let folder = home.context("neither CARGO_HOME nor HOME is set")?;
    let folder = folder.join("registry/src");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Licence texts, each with what it is the licence of, and crates without a text.
#[derive(Debug, Default)]
struct Texts {
    texts: BTreeMap<String, Vec<String>>,
    without: Vec<String>,
}

impl Texts {
    fn add(&mut self, of: String, text: &str) {
        // the same text, whatever its line ends and spaces at the end of lines
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let text = lines.join("\n");
        let text = text.trim_matches('\n').to_owned();
        self.texts.entry(text).or_default().push(of);
    }

    fn add_crate(&mut self, used: &Crate, sources: &[PathBuf]) -> Result<()> {
        let name = format!("{}-{}", used.name, used.version);
        let mut folders = sources.iter().map(|source| source.join(&name));
        let Some(folder) = folders.find(|folder| folder.is_dir()) else {
            bail!("no sources of {name} below cargo's home; `cargo fetch` brings them");
        };
        let mut files = Vec::new();
        find(&folder, DEPTH, &mut files)?;
        files.sort();
        if files.is_empty() {
            let line = format!(
                "{} {}: {}, {}",
                used.name, used.version, used.licence, used.repository
            );
            self.without.push(line);
        }
        for file in files {
            let text =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let inside = file.strip_prefix(&folder).unwrap_or(&file);
            let of = format!("{} {}: {}", used.name, used.version, inside.display());
            self.add(of, &String::from_utf8_lossy(&text));
        }
        Ok(())
    }

    /// The licences of Rust's standard library, which are in the toolchain.
    fn add_rust(&mut self, root: &Path) -> Result<()> {
        let sysroot = output(&mut command(root, "rustc", &["--print", "sysroot"]))?;
        let folder = Path::new(sysroot.trim()).join("share/doc/rust/licenses");
        for name in ["MIT.txt", "Apache-2.0.txt"] {
            let file = folder.join(name);
            match fs::read_to_string(&file) {
                Ok(text) => self.add(format!("Rust's standard library: {name}"), &text),
                Err(_) => self.without.push(format!(
                    "Rust's standard library ({name}): MIT OR Apache-2.0, https://github.com/rust-lang/rust"
                )),
            }
        }
        self.without.dedup();
        Ok(())
    }

    fn written(&self, crates: &BTreeSet<Crate>) -> String {
        let line = "=".repeat(100);
        let mut text = "Licences of the software that is compiled into simmer.\n\n\
            simmer's own are in LICENSE-MIT and LICENSE-APACHE. Where a crate offers several licences, its texts are all \
            here;\nsimmer takes one that permits redistribution (deny.toml in its sources lists them).\n\n"
            .to_owned();
        for used in crates {
            let _ = writeln!(text, "{} {}: {}", used.name, used.version, used.licence);
        }
        if !self.without.is_empty() {
            text += "\nThese ship no text of their licence. Their manifests name it; LICENSE-MIT and LICENSE-APACHE have the \
                words of\nMIT and Apache-2.0.\n\n";
            for without in &self.without {
                let _ = writeln!(text, "{without}");
            }
        }
        for (licence, of) in &self.texts {
            let _ = write!(text, "\n{line}\n{}\n{line}\n\n{licence}\n", of.join("\n"));
        }
        text
    }
}

/// Files whose names are those of licences, at most `depth` folders deep.
fn find(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if depth > 0 {
                find(&path, depth - 1, found)?;
            }
            continue;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let is_source = [".rs", ".py", ".c", ".h"]
            .iter()
            .any(|end| name.ends_with(end));
        if !is_source && NAMES.iter().any(|start| name.starts_with(start)) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_other_people_are_read() {
        let printed = "simmer v0.1.0 (/src)|MIT OR Apache-2.0|\n\
            ring v0.17.14|Apache-2.0 AND ISC|https://github.com/briansmith/ring\n\
            ring v0.17.14|Apache-2.0 AND ISC|https://github.com/briansmith/ring (*)\n";
        let crates = crates(printed).unwrap();
        assert_eq!(crates.len(), 1);
        let ring = crates.first().unwrap();
        assert_eq!(
            (ring.name.as_str(), ring.version.as_str()),
            ("ring", "0.17.14")
        );
        assert!(super::crates("ring 0.17.14|MIT|x").is_err());
    }

    #[test]
    fn a_text_is_written_once() {
        let mut texts = Texts::default();
        texts.add(
            "a 1.0.0: LICENSE".to_owned(),
            "MIT License\n\nPermission ...\n",
        );
        texts.add(
            "b 2.0.0: LICENSE".to_owned(),
            "MIT License \r\n\r\nPermission ...\r\n",
        );
        texts
            .without
            .push("c 3.0.0: MIT, https://example.com".to_owned());
        let written = texts.written(&BTreeSet::new());
        assert_eq!(written.matches("Permission").count(), 1);
        assert!(
            written.contains("a 1.0.0: LICENSE\nb 2.0.0: LICENSE\n"),
            "{written}"
        );
        assert!(
            written.contains("\nc 3.0.0: MIT, https://example.com\n"),
            "{written}"
        );
    }
}
