//! The rows' own names for the keys of a format, as `--fields` and a question of `simmer init` have them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use simmer_data::format::Fields;

/// Names of keys whose values count rows, in lower case.
const NUMBERS: [&str; 9] = [
    "id", "idx", "index", "key", "no", "nr", "number", "nummer", "uuid",
];

/// Names of the rows' keys by the keys of a format: `instruction=question,output=answer`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Reads a list such as `instruction=question,output=answer`.
    ///
    /// # Errors
    /// What was expected, and the part that is something else.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
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

    /// A guess for rows with these keys: text, or an instruction and its answer, often behind a number.
    pub(crate) fn guess(keys: &[String]) -> String {
        let is_number = |key: &String| {
            let key = key.to_lowercase();
            NUMBERS.contains(&key.trim_end_matches('.'))
        };
        let texts: Vec<&String> = keys.iter().filter(|key| !is_number(key)).collect();
        match texts[..] {
            [] => "instruction=question,output=answer".to_owned(),
            [only] => format!("text={only}"),
            [first, second, ..] => format!("instruction={first},output={second}"),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the data is read with.
    pub(crate) fn fields(&self) -> Fields {
        Fields::new(self.0.clone())
    }

    /// The names of a recipe's line `fields = { ... }`, as errors suggest it.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let table: toml::Table = line.parse().ok()?;
        let names = table.get("fields")?.as_table()?.iter();
        let names = names.map(|(key, name)| Some((key.clone(), name.as_str()?.to_owned())));
        names.collect::<Option<_>>().map(Self)
    }

    /// As the option has them: `instruction=question,output=answer`.
    pub(crate) fn option(&self) -> String {
        let pairs = self.0.iter().map(|(key, name)| format!("{key}={name}"));
        pairs.collect::<Vec<_>>().join(",")
    }

    /// As a recipe has them: `{ instruction = "question", output = "answer" }`.
    pub(crate) fn toml(&self) -> String {
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
        let guess = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            Names::guess(&keys)
        };
        let four = ["Nr.", "thema", "text", "abteilung"];
        assert_eq!(guess(&four), "instruction=thema,output=text");
        assert_eq!(guess(&["id", "beschreibung"]), "text=beschreibung");
    }
}
