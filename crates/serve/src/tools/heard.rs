//! The text and the calls of an answer, as it grows.

use std::fmt::Write as _;

use serde_json::{Deserializer, Value, json};

use super::CallForm;
use crate::settings::unforeseen;

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Clients send it back with the result.
    id: String,
    name: String,
    /// An object, as JSON.
    arguments: String,
}

impl Call {
    fn new(name: String, arguments: String) -> Self {
        // nine letters and digits, which the templates of Mistral want
        let mut id = String::new();
        let _ = write!(id, "{:09x}", unforeseen() >> 28);
        Self {
            id,
            name,
            arguments,
        }
    }

    /// As the API has it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        })
    }
}

/// An answer that may have calls. From where they begin it is held back until it has ended.
#[derive(Debug)]
pub(crate) struct Hearing<'a> {
    form: &'a CallForm,
    /// Whether the answer is a call, after what the prompt has of it.
    is_call: bool,
    /// Whether only the first call counts.
    single: bool,
    so_far: SoFar,
    held: String,
}

/// What an answer has had so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SoFar {
    Nothing,
    Text,
    /// The beginning of calls, perhaps after a text.
    Calls,
}

impl<'a> Hearing<'a> {
    pub(crate) fn new(form: &'a CallForm, is_call: bool, single: bool) -> Self {
        Self {
            form,
            is_call,
            single,
            so_far: if is_call {
                SoFar::Calls
            } else {
                SoFar::Nothing
            },
            held: String::new(),
        }
    }

    /// Adds a piece of the answer. Returns what is a text for sure.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        if self.so_far == SoFar::Calls {
            return String::new();
        }
        let mark = self.form.mark.as_str();
        let end = if mark.is_empty() {
            let begin = self.held.trim_start();
            if self.so_far == SoFar::Text {
                self.held.len()
            } else if begin.starts_with('{') {
                self.so_far = SoFar::Calls;
                0
            } else if begin.is_empty() {
                0
            } else {
                self.held.len()
            }
        } else if let Some(place) = self.held.find(mark) {
            self.so_far = SoFar::Calls;
            self.held[..place].trim_end().len()
        } else {
            self.held.len() - may_begin(&self.held, mark)
        };
        let rest = self.held.split_off(end);
        let text = std::mem::replace(&mut self.held, rest);
        if self.so_far == SoFar::Nothing && !text.trim().is_empty() {
            self.so_far = SoFar::Text;
        }
        text
    }

    /// The rest of the text, and the calls.
    pub(crate) fn finish(self) -> (String, Vec<Call>) {
        let calls = (self.so_far == SoFar::Calls).then(|| self.calls());
        match calls.flatten() {
            Some((mut calls, rest)) => {
                calls.truncate(if self.single { 1 } else { usize::MAX });
                (rest, calls)
            }
            // what is no call is a text
            None => (self.held, Vec::new()),
        }
    }

    /// The calls of the text that is held, and what follows them.
    fn calls(&self) -> Option<(Vec<Call>, String)> {
        let form = self.form;
        let mut rest = self.held.trim_start();
        if !self.is_call {
            rest = rest.strip_prefix(form.mark.as_str())?;
        }
        let mut calls = Vec::new();
        loop {
            rest = without(rest, form);
            if !calls.is_empty() && !rest.starts_with('{') {
                break;
            }
            let mut values = Deserializer::from_str(rest).into_iter::<Value>();
            match values
                .next()
                .and_then(Result::ok)
                .and_then(|value| call(form, value))
            {
                Some(call) => calls.push(call),
                None if calls.is_empty() => return None,
                None => break,
            }
            rest = &rest[values.byte_offset()..];
        }
        Some((calls, rest.to_owned()))
    }
}

/// A call that was written so.
fn call(form: &CallForm, mut written: Value) -> Option<Call> {
    let name = written.get(&form.name)?.as_str()?.to_owned();
    let arguments = match written.get_mut(&form.arguments)?.take() {
        Value::String(text) => text,
        object @ Value::Object(_) => object.to_string(),
        _ => return None,
    };
    Some(Call::new(name, arguments))
}

/// A text without the words around calls at its beginning.
fn without<'t>(mut text: &'t str, form: &CallForm) -> &'t str {
    loop {
        text = text.trim_start();
        let words = form.around.iter().chain([&form.mark]);
        let mut found = words.filter(|word| !word.is_empty());
        match found.find_map(|word| text.strip_prefix(word.as_str())) {
            Some(rest) => text = rest,
            None => return text,
        }
    }
}

/// The length of the longest end of a text that is white space, and what a mark may begin with.
fn may_begin(text: &str, mark: &str) -> usize {
    let mut ends = text.char_indices().map(|(place, _)| &text[place..]);
    let end = ends.find(|end| mark.starts_with(end.trim_start()));
    end.map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hermes() -> CallForm {
        CallForm {
            start: "<tool_call>\n".to_owned(),
            mark: "<tool_call>".to_owned(),
            around: vec!["</tool_call>".to_owned()],
            name: "name".to_owned(),
            arguments: "arguments".to_owned(),
            is_special: false,
        }
    }

    fn mistral() -> CallForm {
        CallForm {
            start: "[TOOL_CALLS] [".to_owned(),
            mark: "[TOOL_CALLS]".to_owned(),
            around: ["[", ",", "]"].map(str::to_owned).to_vec(),
            is_special: true,
            ..hermes()
        }
    }

    fn llama() -> CallForm {
        CallForm {
            start: String::new(),
            mark: String::new(),
            around: Vec::new(),
            arguments: "parameters".to_owned(),
            ..hermes()
        }
    }

    /// Pieces that are shown, what is left at the end, and the calls.
    fn heard(form: &CallForm, pieces: &[&str]) -> (Vec<String>, String, Vec<[String; 2]>) {
        let mut hearing = Hearing::new(form, false, false);
        let shown = pieces.iter().map(|piece| hearing.push(piece)).collect();
        let (rest, calls) = hearing.finish();
        let calls = calls.into_iter().map(|call| [call.name, call.arguments]);
        (shown, rest, calls.collect())
    }

    fn call(name: &str, arguments: &str) -> [String; 2] {
        [name, arguments].map(str::to_owned)
    }

    #[test]
    fn calls_are_found_after_a_text() {
        let (shown, rest, calls) = heard(
            &hermes(),
            &[
                "I will",
                " look.\n",
                "\n<tool",
                "_call>\n{\"name\": \"f\", \"argu",
                "ments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": \"{}\"}\n</tool_call>",
            ],
        );
        assert_eq!(shown.concat(), "I will look.");
        assert_eq!(
            (rest.as_str(), calls),
            ("", vec![call("f", "{\"a\":1}"), call("g", "{}")])
        );
    }

    #[test]
    fn what_is_no_call_is_a_text() {
        for (form, text) in [
            (hermes(), "2 < 3 and <tool is no mark"),
            (
                hermes(),
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": ",
            ),
            (hermes(), "<tool_call>\n[1]\n</tool_call>"),
            (llama(), "{\"name\": 7}"),
            (
                llama(),
                "The object {\"name\": \"f\", \"parameters\": {}} is a call.",
            ),
            (llama(), ""),
        ] {
            let pieces: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (shown, rest, calls) = heard(&form, &pieces);
            assert_eq!((shown.concat() + &rest, calls.len()), (text.to_owned(), 0));
        }
    }

    #[test]
    fn lists_and_bare_objects_are_calls() {
        let text = "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"b\": [1]}}]";
        let (shown, rest, calls) = heard(&mistral(), &[text]);
        assert_eq!(
            (shown.concat() + &rest, calls),
            (
                String::new(),
                vec![call("f", "{}"), call("g", "{\"b\":[1]}")]
            )
        );
        let (shown, rest, calls) = heard(
            &llama(),
            &[" ", "{\"name\": \"f\", \"parameters\"", ": {\"c\": \"d\"}}"],
        );
        assert_eq!(
            (shown.concat() + &rest, calls),
            (String::new(), vec![call("f", "{\"c\":\"d\"}")])
        );
    }

    #[test]
    fn one_call_at_most_is_the_first() {
        let form = mistral();
        let mut hearing = Hearing::new(&form, true, true);
        hearing.push("{\"name\": \"f\", \"arguments\": {}}");
        let (_, calls) = hearing.finish();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].id.len(), 9);
    }
}
