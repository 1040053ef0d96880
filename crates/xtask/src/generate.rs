//! Derived files: the program prints them, and here they are put in their place.
//!
//! A part of a page stands between `<!-- begin: simmer reference ARGUMENTS -->` and `<!-- end -->`: it is what this command
//! prints. The JSON schemas of recipes are files of their own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::build::Build;
use crate::shell::{command, output, run};

const PAGES: [&str; 2] = ["docs/reference/recipe.md", "docs/reference/commands.md"];
/// The JSON schemas, and the arguments of `simmer reference` that print them.
const SCHEMAS: [(&str, &str); 3] = [
    ("recipes/recipe.schema.json", "schema"),
    ("recipes/generate/recipe.schema.json", "generate-schema"),
    ("recipes/judge/recipe.schema.json", "judge-schema"),
];

const BEGIN: &str = "<!-- begin: simmer reference ";
const END: &str = "<!-- end -->\n";

/// Writes all derived files.
///
/// # Errors
/// If the program cannot be built or does not know a part, or a part has no end.
pub(crate) fn write(root: &Path, build: &Build) -> Result<()> {
    for derived in derived(root, build)? {
        if derived.current != derived.new {
            let path = root.join(derived.file);
            fs::write(path, derived.new)
                .with_context(|| format!("cannot write {}", derived.file))?;
            println!("{}: written", derived.file);
        }
    }
    // the tables of docs/reliability.md are written by the tests that check them
    let mut hostile = build.cargo("test", &["--test", "main", "--", "hostile::"]);
    run(hostile.env("SIMMER_WRITE_DOCS", "1"))
}

/// Checks that all derived files are what the program prints; docs/reliability.md is checked by the tests.
///
/// # Errors
/// If one is not; all of them are named.
pub(crate) fn check(root: &Path, build: &Build) -> Result<()> {
    let mut stale = derived(root, build)?;
    stale.retain(|derived| derived.current != derived.new);
    if !stale.is_empty() {
        let files: Vec<&str> = stale.iter().map(|derived| derived.file).collect();
        bail!(
            "out of date: {}; `cargo xtask generate` writes them",
            files.join(", ")
        );
    }
    Ok(())
}

/// A derived file: its text, and what it has to be.
struct Derived {
    file: &'static str,
    current: String,
    new: String,
}

fn derived(root: &Path, build: &Build) -> Result<Vec<Derived>> {
    // built as the tests build it, so that no dependency is compiled with other features
    build.run("test", &["--no-run"])?;
    let program = build.program()?;
    let mut all = Vec::new();
    for file in PAGES {
        let current = fs::read_to_string(root.join(file));
        let current = current.with_context(|| format!("cannot read {file}"))?;
        let new = page(&program, root, &current).with_context(|| file.to_owned())?;
        all.push(Derived { file, current, new });
    }
    for (file, arguments) in SCHEMAS {
        all.push(Derived {
            file,
            current: fs::read_to_string(root.join(file)).unwrap_or_default(),
            new: printed(&program, root, arguments)?,
        });
    }
    Ok(all)
}

/// What `simmer reference` prints for some arguments.
fn printed(program: &Path, root: &Path, arguments: &str) -> Result<String> {
    let words: Vec<&str> = ["reference"]
        .into_iter()
        .chain(arguments.split_whitespace())
        .collect();
    output(&mut command(root, &program.display().to_string(), &words))
}

/// A page with its derived parts as they have to be.
fn page(program: &Path, root: &Path, text: &str) -> Result<String> {
    let mut parts = text.split(BEGIN);
    let mut new = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((arguments, rest)) = part.split_once(" -->\n") else {
            bail!("`{BEGIN}` is not followed by ` -->` on its line");
        };
        let Some((_, after)) = rest.split_once(END) else {
            bail!("`{BEGIN}{arguments} -->` has no `{}`", END.trim());
        };
        let table = printed(program, root, arguments)?;
        let table = table.trim();
        new += &[BEGIN, arguments, " -->\n\n", table, "\n\n", END, after].concat();
    }
    Ok(new)
}
