//! Files that are derived from the program: it prints them (`simmer reference ...`), and here they are put in their place.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, run};

/// A derived file, or the derived part of one.
struct Derived {
    /// What `simmer reference` calls it.
    name: &'static str,
    file: &'static str,
    /// Whether it is the part of the file between two marks, or all of it.
    part: bool,
}

const DERIVED: [Derived; 3] = [
    Derived {
        name: "recipe",
        file: "docs/reference/recipe.md",
        part: true,
    },
    Derived {
        name: "commands",
        file: "docs/reference/commands.md",
        part: true,
    },
    Derived {
        name: "schema",
        file: "recipes/recipe.schema.json",
        part: false,
    },
];

/// Writes all derived files.
///
/// # Errors
/// If the program cannot be built, or a file lacks the marks of its derived part.
pub(crate) fn write(root: &Path) -> Result<()> {
    build(root)?;
    for derived in &DERIVED {
        let (current, new) = derived.current_and_new(root)?;
        if current != new {
            fs::write(root.join(derived.file), new)
                .with_context(|| format!("cannot write {}", derived.file))?;
            println!("{}: written", derived.file);
        }
    }
    // its tables are written by the tests that check them
    let hostile = ["test", "--locked", "--test", "main", "hostile::"];
    run(command(root, "cargo", &hostile).env("SIMMER_WRITE_DOCS", "1"))
}

/// Checks that all derived files are what the program prints; the reliability page is checked by the tests.
///
/// # Errors
/// If one is not; all of them are named.
pub(crate) fn check(root: &Path) -> Result<()> {
    build(root)?;
    let mut stale = Vec::new();
    for derived in &DERIVED {
        let (current, new) = derived.current_and_new(root)?;
        if current != new {
            stale.push(derived.file);
        }
    }
    if !stale.is_empty() {
        bail!(
            "out of date, `cargo xtask generate` writes them: {}",
            stale.join(", ")
        );
    }
    Ok(())
}

fn build(root: &Path) -> Result<()> {
    let arguments = ["build", "--locked", "--bin", "simmer"];
    run(&mut command(root, "cargo", &arguments))
}

impl Derived {
    /// The file's text, and what it has to be.
    fn current_and_new(&self, root: &Path) -> Result<(String, String)> {
        let printed = output(&mut command(
            root,
            "target/debug/simmer",
            &["reference", self.name],
        ))?;
        let path = root.join(self.file);
        if !self.part {
            return Ok((fs::read_to_string(&path).unwrap_or_default(), printed));
        }
        let current = fs::read_to_string(&path);
        let current = current.with_context(|| format!("cannot read {}", self.file))?;
        let begin = format!("<!-- begin: cargo xtask generate ({}) -->\n", self.name);
        let end = format!("<!-- end: cargo xtask generate ({}) -->\n", self.name);
        let new = current.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(&end)?;
            Some(format!("{before}{begin}\n{}\n{end}{after}", printed.trim()))
        });
        let Some(new) = new else {
            bail!(
                "{}: expected the lines `{}` and `{}`",
                self.file,
                begin.trim(),
                end.trim()
            );
        };
        Ok((current, new))
    }
}
