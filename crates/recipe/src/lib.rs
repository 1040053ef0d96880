//! Recipes: TOML files whose keys can be overridden, with errors that name file, line and key.
//!
//! What a recipe has is a struct of the crate that uses it, such as `simmer_train::Recipe`; [`Kind`] says what is particular to
//! it. Reading, overrides (`--set KEY=VALUE`) and errors are the same for all of them: [`parse`].

mod explain;
mod problem;
mod source;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use simmer_hint::Hint;
use toml::de::{DeTable, Deserializer};

pub use problem::{Problem, at_least_one, wrong_count, wrong_part};
use source::Sources;

/// What is particular to a kind of recipe.
pub trait Kind: DeserializeOwned {
    /// Tables that hold one of several alternatives: an override below one of them replaces the alternative.
    const CHOICES: &'static [&'static str];
    /// An override, as hints show one: `train.learning_rate=1e-4`.
    const OVERRIDE: &'static str;
    /// Former names of keys: still read, and not suggested.
    const FORMER: &'static [&'static str] = &[];

    /// Checks the values.
    ///
    /// # Errors
    /// The first value that is not allowed.
    fn check(&self) -> Result<(), Problem>;

    /// What the recipe has in place of the unknown key `name` in a table, for names of other programs.
    fn key_here(_name: &str, _table: Option<&str>) -> Option<Here> {
        None
    }

    /// What the recipe has in place of the unknown value `name` of a key, for names of other programs.
    fn value_here(_key: &str, _name: &str) -> Option<&'static str> {
        None
    }

    /// How the value at a path, with `N` for indices, is written, if that is often done wrong.
    fn shape(_path: &str) -> Option<String> {
        None
    }

    /// The path of a table that has the same keys as the one at `path`, with `N` for indices.
    fn same_table(path: String) -> String {
        path
    }

    /// A hint for errors that have no other.
    fn guide() -> Option<&'static str> {
        None
    }
}

/// What a recipe has in place of an unknown key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// The key that may be meant, if it is one of the same table, or the table, in brackets.
    pub near: Option<String>,
    /// An instruction.
    pub hint: Option<String>,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Something in the recipe is wrong.
    #[error("{place}: {what}")]
    Wrong {
        /// File, line and column, or the `--set` override.
        place: String,
        /// What is wrong.
        what: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
}

impl Hint for RecipeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, .. } if meant(path).is_file() && meant(path) != *path => {
                Some(format!("did you mean {}?", meant(path).display()))
            }
            Self::Read { path, .. } if !path.exists() => Some(
                "list the recipes that ship with the program with `simmer recipes`; \
                 copy one with `simmer recipes copy NAME`"
                    .to_owned(),
            ),
            Self::Read { path, .. } if path.is_dir() => Some(
                "give the recipe, a TOML file; the recipe of a run is recipe.toml in its folder"
                    .to_owned(),
            ),
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                Some("a recipe is a TOML file, text in UTF-8".to_owned())
            }
            Self::Read { .. } => None,
            Self::Wrong { hint, .. } => hint.clone(),
        }
    }
}

/// The recipe that somebody means who left out or mistook the extension.
fn meant(path: &Path) -> PathBuf {
    path.with_extension("toml")
}

/// The largest recipe that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// Reads a recipe and applies `--set KEY=VALUE` overrides, in order.
///
/// # Errors
/// The first problem, with file, line and key.
pub fn from_file<R: Kind>(path: &Path, sets: &[String]) -> Result<R, RecipeError> {
    let text = simmer_files::read_text(path, LARGEST).map_err(|source| RecipeError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text, sets)
}

/// A recipe from its text; `path` is named in errors.
///
/// The value of an override is TOML; a value that is not valid TOML is taken as a string: `train.seed=7`,
/// `base.path=my/model`, `data.train.0.path=rows.json`.
///
/// # Errors
/// As [`from_file`].
pub fn parse<R: Kind>(path: &Path, text: &str, sets: &[String]) -> Result<R, RecipeError> {
    let read = || {
        let sources = Sources::new(path, text, sets, R::OVERRIDE)?;
        let mut root = DeTable::parse(text).map_err(|error| sources.syntax(&error))?;
        for set in sources.sets() {
            set.apply(root.get_mut(), R::CHOICES)?;
        }
        let recipe = R::deserialize(Deserializer::from(root.clone()))
            .map_err(|error| explain::deserialization::<R>(&sources, &root, &error))?;
        match recipe.check() {
            Ok(()) => Ok(recipe),
            Err(problem) => Err(explain::problem(&sources, root.get_ref(), problem)),
        }
    };
    read().map_err(|error| match error {
        RecipeError::Wrong {
            place,
            what,
            hint: None,
        } => RecipeError::Wrong {
            place,
            what,
            hint: R::guide().map(str::to_owned),
        },
        error => error,
    })
}
