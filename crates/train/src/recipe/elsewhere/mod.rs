//! Keys, values and options of other programs, and what does the same here. `docs/words.md` is the same for readers.

mod keys;
mod values;

use simmer_recipe::Here;

use super::places::place_of;
use keys::{Elsewhere, KEYS, SOURCE_KEYS, key};
use values::VALUES;

/// What a recipe has in place of the unknown key `name` in the table with this path.
pub(super) fn key_here(name: &str, table: Option<&str>) -> Option<Here> {
    let plain = plain(name);
    let of_sources = SOURCE_KEYS
        .iter()
        .find(|entry| table == Some("data.train.N") && has(entry.names, &plain));
    if let Some(found) = of_sources.or_else(|| KEYS.iter().find(|entry| has(entry.names, &plain))) {
        return Some(found.seen_from(table));
    }
    let place = place_of(&plain)?;
    Some(key("", "", "").at(&place, table))
}

/// What a recipe has in place of the unknown value `name` of a key.
pub(super) fn value_here(key: &str, name: &str) -> Option<&'static str> {
    let plain = plain(name);
    let found = VALUES
        .iter()
        .find(|(of, names, _)| *of == key && has(names, &plain))?;
    Some(found.2)
}

/// What a recipe has in place of an unknown option of a command such as `--learning-rate`.
pub fn option_here(option: &str) -> Option<String> {
    let plain = plain(
        option
            .trim_start_matches('-')
            .split('=')
            .next()
            .unwrap_or_default(),
    );
    let set = |key: &str| {
        let key = key.replace(".N.", ".0.");
        format!("set keys of the recipe with --set, here --set {key}=VALUE")
    };
    match KEYS.iter().find(|entry| has(entry.names, &plain)) {
        Some(found) if found.here.is_empty() => Some(found.more.to_owned()),
        Some(found) if found.here.starts_with('[') => {
            Some(format!("write the table {} in the recipe", found.here))
        }
        Some(found) => Some(match found.more {
            "" => set(found.here),
            more => format!("{} ({more})", set(found.here)),
        }),
        None => place_of(&plain).map(|place| set(&place)),
    }
}

impl Elsewhere {
    fn seen_from(&self, table: Option<&str>) -> Here {
        let more = (!self.more.is_empty()).then(|| self.more.to_owned());
        if self.here.is_empty() {
            return Here {
                near: None,
                hint: more,
            };
        }
        if self.here.starts_with('[') {
            return Here {
                near: Some(self.here.to_owned()),
                hint: more,
            };
        }
        self.at(self.here, table)
    }

    /// The key at `place`, seen from a table.
    fn at(&self, place: &str, table: Option<&str>) -> Here {
        let (parent, last) = match place.rsplit_once('.') {
            Some((parent, last)) => (Some(parent), last),
            None => (None, place),
        };
        let more = match self.more {
            "" => String::new(),
            more => format!("; {more}"),
        };
        if parent == table {
            return Here {
                near: Some(format!("`{last}`")),
                hint: (!self.more.is_empty()).then(|| self.more.to_owned()),
            };
        }
        let hint = match parent {
            None => format!("put `{last}` at the top of the recipe, above the first [table]{more}"),
            Some("data.train.N") => format!(
                "write `{last}` in a source: train = [{{ path = \"rows.jsonl\", template = \"chat\" }}] in [data]"
            ),
            Some(parent) => format!("write it as `{last}` in [{parent}]{more}"),
        };
        Here {
            near: None,
            hint: Some(hint),
        }
    }
}

/// Whether a list of names, separated by spaces, has this one.
fn has(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|known| known == name)
}

/// A name in small letters, with `_` between its words.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_there_once_and_leads_to_a_key() {
        let mut seen = BTreeSet::new();
        for entry in KEYS {
            for name in entry.names.split_whitespace() {
                assert!(seen.insert(name), "duplicate {name}");
                assert_eq!(plain(name), name);
            }
            let last = entry.here.rsplit('.').next().unwrap_or_default();
            let is_table = entry.here.starts_with('[');
            if !(entry.here.is_empty() || is_table) {
                // [train] and data.train have one name
                let place = place_of(last).unwrap_or_default();
                assert!(
                    place == entry.here || entry.here == "data.train",
                    "{}: {place}",
                    entry.here
                );
            }
            assert!(
                !(entry.here.is_empty() && entry.more.is_empty()),
                "{}",
                entry.names
            );
        }
    }

    #[test]
    fn the_words_of_the_guide_are_known() {
        let page = include_str!("../../../../../docs/words.md");
        let tables = page
            .split("## Model and adapter")
            .nth(1)
            .unwrap_or_default();
        let tables = tables.split("## After training").next().unwrap_or_default();
        let mut unknown = Vec::new();
        for line in tables.lines().filter(|line| line.starts_with("| `")) {
            let elsewhere = line.split(" | ").next().unwrap_or_default();
            for name in elsewhere.split('`').skip(1).step_by(2) {
                let is_key = name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
                if is_key && key_here(name, Some("base.init")).is_none() {
                    unknown.push(name);
                }
            }
        }
        // the name of a loader, and a value of `optim`
        assert_eq!(unknown, ["text", "adamw_8bit"]);
    }

    #[test]
    fn options_lead_to_keys() {
        let said = |option| option_here(option).unwrap_or_default();
        insta::assert_snapshot!(said("--learning-rate"));
        insta::assert_snapshot!(said("--epochs=3"));
        insta::assert_snapshot!(said("--lora_r"));
        insta::assert_snapshot!(said("--per-device-train-batch-size"));
        insta::assert_snapshot!(said("--bf16"));
        insta::assert_snapshot!(said("--output_dir"));
        insta::assert_snapshot!(said("--template"));
        assert_eq!(option_here("--resum"), None);
    }
}
