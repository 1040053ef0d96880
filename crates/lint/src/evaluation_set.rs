//! One evaluation set, with which rows of training data are compared.

use serde_json::Value;
use simmer_data::Conversation;

use super::against::asked;
use super::contamination::overlap;
use super::fingerprint::{self, Fingerprint};
use super::part::parts;
use super::words::words;

/// The questions of an evaluation set, by the words that only few of them share.
#[derive(Debug)]
pub struct EvaluationSet {
    sets: Fingerprint,
}

impl EvaluationSet {
    /// The set of these rows. The question of a row is under one of the usual keys; if there is none, all its texts are.
    pub fn new<'r>(rows: impl IntoIterator<Item = &'r Value>) -> Self {
        let texts = rows.into_iter().flat_map(|row| {
            let asked = asked(row);
            if !asked.is_empty() {
                return asked;
            }
            let fields = row.as_object().into_iter().flatten();
            let texts = fields.filter_map(|(_, value)| value.as_str());
            texts.map(str::to_owned).collect()
        });
        let texts: Vec<String> = texts.collect();
        let file = fingerprint::file(texts.iter().map(|text| ("", text.as_str())));
        Self {
            sets: Fingerprint::read(&file).unwrap_or_default(),
        }
    }

    /// Whether a row has a question of the set, or 13 consecutive words of one: the check `contamination`.
    pub fn overlaps(&self, row: &Conversation) -> bool {
        let parts = parts(row);
        let words: Vec<Vec<u64>> = parts.iter().map(|part| words(part.text)).collect();
        overlap(&self.sets, &parts, &words).is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use simmer_data::{Content, Conversation};

    use super::*;

    fn row(instruction: &str, output: &str) -> Conversation {
        Conversation::new(Content::Instruction {
            system: None,
            instruction: instruction.to_owned(),
            input: None,
            output: Some(output.to_owned()),
        })
    }

    #[test]
    fn rows_with_questions_of_the_set_are_found() {
        let long = "Ann bakes four loaves each day and sells them for two coins each at the market in town";
        let rows = [
            json!({"question": "How many eggs does Mia have?", "answer": "7"}),
            json!({"premise": long, "label": 1}),
        ];
        let set = EvaluationSet::new(&rows);
        assert!(set.overlaps(&row("how many eggs does Mia have", "seven")));
        assert!(set.overlaps(&row("Go on.", &format!("Once: {long}, they say."))));
        assert!(!set.overlaps(&row("How many eggs does Tom have?", "7")));
        assert!(!EvaluationSet::new(&[]).overlaps(&row("How many?", "7")));
    }
}
