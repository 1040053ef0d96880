//! The adapter that a recipe continues to train: the key `from` of its table.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AdapterError;

/// The adapter to continue training. A recipe has it as a path or a name on the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub struct Continued {
    named: PathBuf,
    located: Option<PathBuf>,
}

impl Continued {
    /// As the recipe names it.
    pub fn named(&self) -> &Path {
        &self.named
    }

    /// Where it is: the local path of a name on the hub once that is known.
    pub fn found(&self) -> &Path {
        self.located.as_ref().unwrap_or(&self.named)
    }

    /// Sets its local path. Recipes and model cards keep the name.
    pub fn locate(&mut self, path: PathBuf) {
        self.located = Some(path);
    }

    /// Checks that a table has no other keys, except some `beside`. `alone` is the table with these keys and its defaults.
    ///
    /// # Errors
    /// [`AdapterError::Setting`] with the other keys.
    pub(super) fn check_alone<T: Serialize + PartialEq>(
        &self,
        table: &'static str,
        config: &T,
        alone: &T,
        beside: &[&str],
    ) -> Result<(), AdapterError> {
        let wrong = |why: String, hint| {
            Err(AdapterError::Setting {
                table,
                key: "from",
                why,
                hint,
            })
        };
        if self.named.as_os_str().is_empty() {
            let why = "expected a folder or a name on the hub, found an empty text";
            return wrong(why.to_owned(), None);
        }
        if config == alone {
            return Ok(());
        }
        let keys = |config: &T| serde_json::to_value(config).unwrap_or_default();
        let (set, default) = (keys(config), keys(alone));
        let set = set.as_object().into_iter().flatten();
        let others = set.filter(|(key, value)| default.get(key) != Some(*value));
        let others: Vec<String> = others.map(|(key, _)| format!("`{key}`")).collect();
        let others = others.join(", ");
        let why = match beside.first() {
            Some(beside) => format!("can be combined only with `{beside}`; remove {others}"),
            None => format!("cannot be combined with other keys; remove {others}"),
        };
        let hint = "the adapter in `from` has its own values of the other keys";
        wrong(why, Some(hint.to_owned()))
    }
}

impl From<PathBuf> for Continued {
    fn from(named: PathBuf) -> Self {
        Self {
            named,
            located: None,
        }
    }
}

impl From<&str> for Continued {
    fn from(named: &str) -> Self {
        PathBuf::from(named).into()
    }
}

impl From<Continued> for PathBuf {
    fn from(continued: Continued) -> Self {
        continued.named
    }
}

impl schemars::JsonSchema for Continued {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Continued".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        PathBuf::json_schema(generator)
    }
}
