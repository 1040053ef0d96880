//! Files that mean harm, or met with it: each is refused with a message, and `docs/reliability.md` has every one.
//!
//! `SIMMER_WRITE_DOCS=1 cargo test --workspace --locked hostile` writes its tables again.

mod adapter;
mod data;
mod judge;
mod model;
mod recipe;
mod template;
mod tokenizer;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

/// Files of a model that work, to be spoilt one at a time.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A copy of a folder of goldens, folders in it excepted.
    fn of(golden: &str) -> Self {
        let copy = Self::empty();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
        for entry in fs::read_dir(from.join(golden)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, copy.at(path.file_name().unwrap().to_str().unwrap())).unwrap();
            }
        }
        copy
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.at(name), content).unwrap();
        self
    }

    /// With one key of a JSON file set to another value.
    fn with_key(self, file: &str, key: &str, value: Value) -> Self {
        let mut json: Value = serde_json::from_slice(&fs::read(self.at(file)).unwrap()).unwrap();
        let place = key.split('.').fold(&mut json, |json, key| &mut json[key]);
        *place = value;
        self.with(file, json.to_string())
    }

    /// With a file of so many bytes that take no room on the disk.
    fn with_long(self, name: &str, bytes: u64) -> Self {
        fs::File::create(self.at(name))
            .unwrap()
            .set_len(bytes)
            .unwrap();
        self
    }

    #[cfg(unix)]
    fn with_link(self, name: &str, to: &str) -> Self {
        let _ = fs::remove_file(self.at(name));
        std::os::unix::fs::symlink(to, self.at(name)).unwrap();
        self
    }

    /// An error as the program prints it, with names below the folder.
    fn said<T>(&self, result: Result<T, impl Error>) -> String {
        let error = result.err().unwrap();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        let folder = self.path().display();
        text.replace(&format!("{folder}/"), "")
            .replace(&folder.to_string(), ".")
    }
}

/// Arrays in arrays, deeper than any parser may follow.
fn deep() -> String {
    "[".repeat(1_000_000)
}

/// Checks that the page has these inputs and messages, under the name of the test.
fn shown(test: &str, rows: &[(&str, String)]) {
    static WRITING: Mutex<()> = Mutex::new(());
    let cell = |text: &str| -> String {
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() > 260 {
            line = format!("{} …", line.chars().take(260).collect::<String>());
        }
        line.replace('|', "\\|").replace('<', "&lt;")
    };
    let lines: Vec<String> = rows
        .iter()
        .map(|(input, message)| format!("| {} | {} |", cell(input), cell(message)))
        .collect();
    let lines = lines.join("\n");
    let table = format!(
        "<!-- {test} -->\n\nShown by the test `hostile::{test}`.\n\n\
         | input | message |\n|---|---|\n{lines}\n\n<!-- end of {test} -->\n"
    );

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let page = fs::read_to_string(&path).unwrap();
    if page.contains(&table) {
        return;
    }
    assert!(
        std::env::var_os("SIMMER_WRITE_DOCS").is_some(),
        "docs/reliability.md does not have this (SIMMER_WRITE_DOCS=1 writes it):\n{table}"
    );
    let _one = WRITING.lock().unwrap();
    let page = fs::read_to_string(&path).unwrap();
    let end = format!("<!-- end of {test} -->\n");
    let before = page.find(&format!("<!-- {test} -->\n")).unwrap();
    let after = page.find(&end).unwrap() + end.len();
    fs::write(
        &path,
        format!("{}{table}{}", &page[..before], &page[after..]),
    )
    .unwrap();
}
