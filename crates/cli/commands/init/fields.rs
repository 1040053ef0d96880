//! The rows' own names for the keys of a format, as `--fields` and a question of `simmer init` have them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use simmer_data::format::Fields;

/// Names of the rows' keys by the keys of a format: `instruction=question,output=answer`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// Reads a list such as `instruction=question,output=answer`.
    ///
    /// # Errors
    /// What was expected, and the part that is something else.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut names = BTreeMap::new();
        for part in text.split(',') {
            let pair = part
                .split_once('=')
                .map(|(key, name)| [key, name].map(str::trim));
            let Some([key, name]) = pair.filter(|pair| pair.iter().all(|side| !side.is_empty()))
            else {
                return Err(format!(
                    "expected KEY=NAME, such as instruction=question,output=answer; found `{}`",
                    part.trim()
                ));
            };
            if names.insert(key.to_owned(), name.to_owned()).is_some() {
                return Err(format!("`{key}` is named twice"));
            }
        }
        Ok(Self(names))
    }

    /// A guess for rows with these keys: text, or an instruction with its answer, often behind a number or a title.
    pub(super) fn guess(keys: &[String]) -> String {
        match keys {
            [] => "instruction=question,output=answer".to_owned(),
            [only] => format!("text={only}"),
            [.., first, last] => format!("instruction={first},output={last}"),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the data is read with.
    pub(super) fn fields(&self) -> Fields {
        Fields::new(self.0.clone())
    }

    /// As a recipe has them: `{ instruction = "question", output = "answer" }`.
    pub(super) fn toml(&self) -> String {
        let mut text = String::new();
        for (key, name) in &self.0 {
            let name = toml::Value::String(name.clone());
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{separator}{key} = {name}");
        }
        format!("{{ {text} }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let names = Names::parse("output=Meine Antwort, instruction = frage").unwrap();
        assert_eq!(
            names.toml(),
            r#"{ instruction = "frage", output = "Meine Antwort" }"#
        );
        let quoted = Names::parse("text=say \"it\"").unwrap().toml();
        let table: toml::Table = toml::from_str(&format!("fields = {quoted}")).unwrap();
        assert_eq!(table["fields"]["text"].as_str(), Some("say \"it\""));
        for wrong in [
            "",
            "instruction",
            "instruction=",
            "=frage",
            "text=a,",
            "text=a,text=b",
        ] {
            assert!(Names::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_guess_can_be_read() {
        for keys in [&[][..], &["a"], &["a", "b"], &["a", "b", "c"]] {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            assert!(Names::parse(&Names::guess(&keys)).is_ok());
        }
    }
}
