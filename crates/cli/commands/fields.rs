//! The rows' own names for the keys of a format, as `--fields` and a question of `simmer init` have them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use simmer_data::format::Fields;

/// Names of keys whose values count rows, in lower case.
const NUMBERS: [&str; 9] = [
    "id", "idx", "index", "key", "no", "nr", "number", "nummer", "uuid",
];

/// What names of questions contain, in lower case.
const QUESTIONS: [&str; 6] = [
    "question",
    "instruction",
    "prompt",
    "query",
    "problem",
    "frage",
];

/// What names of answers contain.
const ANSWERS: [&str; 7] = [
    "answer",
    "output",
    "response",
    "completion",
    "solution",
    "reply",
    "antwort",
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

    /// The keys that are named like questions and answers, if two of them are.
    pub(crate) fn like_questions(keys: &[String]) -> Option<String> {
        let like = |words: &[&str]| {
            let is_like = |key: &&String| {
                let key = key.to_lowercase();
                !key.ends_with("_id") && words.iter().any(|word| key.contains(word))
            };
            keys.iter().find(is_like)
        };
        let (question, answer) = (like(&QUESTIONS)?, like(&ANSWERS)?);
        (question != answer).then(|| format!("instruction={question},output={answer}"))
    }

    /// A guess for rows with these keys: questions and answers by their names, else text alone, or an instruction and its answer,
    /// often behind a number. `None` if nothing speaks for two of them.
    pub(crate) fn guess(keys: &[String]) -> Option<String> {
        let is_number = |key: &String| {
            let key = key.to_lowercase();
            NUMBERS.contains(&key.trim_end_matches('.')) || key.ends_with("_id")
        };
        let texts: Vec<&String> = keys.iter().filter(|key| !is_number(key)).collect();
        Self::like_questions(keys).or_else(|| match texts[..] {
            [only] => Some(format!("text={only}")),
            [first, second] => Some(format!("instruction={first},output={second}")),
            _ => None,
        })
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
        let guess = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let guess = Names::guess(&keys)?;
            assert!(Names::parse(&guess).is_ok());
            Some(guess)
        };
        let two = guess(&["Nr.", "thema", "text"]).unwrap();
        assert_eq!(two, "instruction=thema,output=text");
        let one = guess(&["id", "beschreibung"]).unwrap();
        assert_eq!(one, "text=beschreibung");
        let named = guess(&["Type", "Category", "Question", "Best Answer", "Source"]).unwrap();
        assert_eq!(named, "instruction=Question,output=Best Answer");
        for keys in [&[][..], &["question_id", "category", "turns", "reference"]] {
            assert_eq!(guess(keys), None);
        }
    }
}
