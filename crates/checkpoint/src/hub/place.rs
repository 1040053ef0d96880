//! Whether a name that a user gives is a local path or a name on the hub.

use std::path::{Path, PathBuf};

use super::{HubError, HubName};
use crate::nearest;

/// The prefix of names that are on the hub, whatever is here.
const SCHEME: &str = "hf://";

/// First parts of paths that people use for folders of their own. They are never requested from the hub without `hf://`:
/// whoever owns an account of that name would own everyone who is in the wrong folder.
const FOLDERS: [&str; 27] = [
    "adapter",
    "adapters",
    "artifacts",
    "base",
    "bases",
    "build",
    "cache",
    "checkpoint",
    "checkpoints",
    "config",
    "configs",
    "data",
    "dataset",
    "datasets",
    "eval-data",
    "merged",
    "model",
    "models",
    "out",
    "output",
    "outputs",
    "recipes",
    "results",
    "run",
    "runs",
    "tmp",
    "weights",
];

/// Extensions of files; no name on the hub ends with one of them.
const FILES: [&str; 24] = [
    "arrow",
    "bin",
    "csv",
    "gguf",
    "gz",
    "html",
    "jinja",
    "json",
    "jsonl",
    "md",
    "model",
    "ndjson",
    "parquet",
    "pt",
    "pth",
    "safetensors",
    "tar",
    "toml",
    "tsv",
    "txt",
    "yaml",
    "yml",
    "zip",
    "zst",
];

/// Where a model, an adapter, a tokenizer or a dataset is that a user names.
///
/// An existing path is local. `hf://ORG/NAME` is on the hub, and so is a bare `ORG/NAME` if no such path exists and it does
/// not look like one: if its first part is `.`, `..`, `~`, a usual folder such as `data` or `runs`, or a folder that
/// exists, or if it ends with the extension of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An existing file or folder.
    Local(PathBuf),
    /// A name on the hub.
    Hub {
        /// The name.
        name: HubName,
        /// Whether it is written with `hf://`; otherwise no such path exists.
        explicit: bool,
    },
}

impl Place {
    /// The place of what a user gives.
    ///
    /// # Errors
    /// [`HubError::NoPath`] if it is a path that does not exist, [`HubError::Name`] if it is no name on the hub.
    pub fn of(given: &Path) -> Result<Self, HubError> {
        Self::below(Path::new(""), given)
    }

    /// The place of what a user gives in the folder `here`.
    fn below(here: &Path, given: &Path) -> Result<Self, HubError> {
        let text = given.to_string_lossy();
        if let Some(rest) = text.strip_prefix(SCHEME) {
            let name = explicit(&text, rest)?;
            return Ok(Self::Hub {
                name,
                explicit: true,
            });
        }
        if here.join(given).exists() {
            return Ok(Self::Local(given.to_owned()));
        }
        let name = text.parse::<HubName>();
        if looks_like_a_path(here, &text) {
            return Err(no_path(here, given, name.is_ok(), None));
        }
        match name {
            Ok(name) => Ok(Self::Hub {
                name,
                explicit: false,
            }),
            Err(HubError::Name { problem, .. }) => Err(no_path(here, given, false, Some(problem))),
            Err(error) => Err(error),
        }
    }
}

/// The name after `hf://`: with `datasets/` before it, and with a file after it, as huggingface_hub writes it too.
fn explicit(text: &str, rest: &str) -> Result<HubName, HubError> {
    let (is_dataset, name) = match rest.strip_prefix("datasets/") {
        Some(name) => (true, name),
        None => (false, rest.strip_prefix("models/").unwrap_or(rest)),
    };
    let mut spelled = name.to_owned();
    let slashes: Vec<usize> = name.match_indices('/').map(|(place, _)| place).collect();
    if let [_, second, ..] = slashes[..]
        && !name.contains([':', '@'])
    {
        spelled.replace_range(second..=second, ":");
    }
    match spelled.parse::<HubName>() {
        Ok(name) if is_dataset => Ok(name.of_dataset()),
        Ok(name) => Ok(name),
        Err(HubError::Name { problem, .. }) => Err(HubError::Name {
            name: text.to_owned(),
            problem,
        }),
        Err(error) => Err(error),
    }
}

fn looks_like_a_path(here: &Path, text: &str) -> bool {
    if text.starts_with(['.', '/', '~', '\\']) || text.get(1..3) == Some(":\\") {
        return true;
    }
    let repo = text.split(['@', ':']).next().unwrap_or(text);
    let Some((first, _)) = repo.split_once('/') else {
        return true; // the name of a file or folder here
    };
    let ending = Path::new(repo).extension();
    let ending = ending.map(|ending| ending.to_string_lossy().to_lowercase());
    repo.matches('/').count() > 1
        || FOLDERS.contains(&first)
        || here.join(first).is_dir()
        || ending.is_some_and(|ending| FILES.contains(&ending.as_str()))
}

fn no_path(here: &Path, given: &Path, is_name: bool, problem: Option<&'static str>) -> HubError {
    let exists = |path: &Path| path.as_os_str().is_empty() || here.join(path).exists();
    let parents: Vec<&Path> = given.ancestors().skip(1).collect();
    let missing = parents.iter().copied().take_while(|path| !exists(path));
    HubError::NoPath {
        path: given.display().to_string(),
        missing: missing.last().map(Path::to_owned),
        nearest: nearest_path(here, given),
        is_name,
        problem,
    }
}

/// A path in the same folder with a similar name.
fn nearest_path(here: &Path, given: &Path) -> Option<String> {
    let wanted = given.file_name()?.to_str()?;
    let folder = given.parent()?;
    let listed = here.join(folder);
    let listed = if listed.as_os_str().is_empty() {
        Path::new(".").read_dir()
    } else {
        listed.read_dir()
    };
    let names: Vec<String> = listed
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let found = nearest(wanted, names.iter().map(String::as_str))?;
    Some(folder.join(found).display().to_string())
}

#[cfg(test)]
mod tests {
    use simmer_hint::Hint;

    use super::*;

    fn here() -> tempfile::TempDir {
        let here = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(here.path().join("mine/model")).unwrap();
        std::fs::create_dir_all(here.path().join("data/tiny-base")).unwrap();
        std::fs::write(here.path().join("org.gguf"), "").unwrap();
        here
    }

    fn place(text: &str) -> Result<Place, HubError> {
        Place::below(here().path(), Path::new(text))
    }

    #[test]
    fn what_exists_is_local() {
        for path in ["mine/model", "mine", "org.gguf", "data/tiny-base", "./mine"] {
            assert_eq!(place(path).unwrap(), Place::Local(path.into()), "{path}");
        }
    }

    #[test]
    fn a_missing_path_is_never_a_name_on_the_hub() {
        for path in [
            "data/tiny",
            "runs/first",
            "models/llama",
            "recipes/x",
            "out/x",
            "mine/modl", // `mine` is a folder here
            "./org/name",
            "../org/name",
            "~/org",
            "/org/name",
            "org",
            "a/b/c",
            "org/rows.jsonl",
            "org/rows.json.gz",
            "org/model.GGUF",
            "C:\\org\\name",
        ] {
            let error = place(path).unwrap_err();
            assert!(matches!(error, HubError::NoPath { .. }), "{path}: {error}");
            assert!(error.to_string().starts_with(&format!("{path}: no such")));
        }
    }

    #[test]
    fn other_names_are_on_the_hub() {
        let hub = |text: &str| match place(text).unwrap() {
            Place::Hub { name, explicit } => (name, explicit),
            Place::Local(path) => panic!("{}", path.display()),
        };
        for text in [
            "org/name",
            "org/name-v1.0",
            "org/Llama-3.2-1B",
            "org/name@v1:q8.gguf",
            "org/rows:train.jsonl",
        ] {
            let (name, explicit) = hub(text);
            assert_eq!(
                (name.to_string().as_str(), explicit, name.is_dataset()),
                (text, false, false)
            );
        }
        for (text, name, is_dataset) in [
            ("hf://data/tiny-base", "data/tiny-base", false),
            ("hf://mine/model@v1", "mine/model@v1", false),
            ("hf://models/org/name", "org/name", false),
            ("hf://org/name/sub/q8.gguf", "org/name:sub/q8.gguf", false),
            ("hf://datasets/org/rows", "org/rows", true),
            (
                "hf://datasets/org/rows/a/b.jsonl",
                "org/rows:a/b.jsonl",
                true,
            ),
            (
                "hf://datasets/org/rows@v2:b.jsonl",
                "org/rows@v2:b.jsonl",
                true,
            ),
        ] {
            let (found, explicit) = hub(text);
            assert!(explicit);
            assert_eq!(found.is_dataset(), is_dataset, "{text}");
            assert_eq!(found.to_string(), name);
        }
    }

    #[test]
    fn messages_say_what_is_missing() {
        let said = |text: &&str| {
            let error = place(text).unwrap_err();
            let hint = error.hint().unwrap_or_default();
            format!("{error}\n  hint: {hint}")
        };
        let said: Vec<String> = [
            "/nofolder",
            "data/tiny-bse",
            "runs/first",
            "runs/first/adapter",
            "~/models/llama",
            "llama",
            "mine/modl",
            "org/rows.jsonl",
            "org/a--b",
            "hf://name",
        ]
        .iter()
        .map(said)
        .collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
