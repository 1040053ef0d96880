//! Arguments of calls that a row has as JSON text: each template is given the form that it prints as JSON.
//!
//! Some templates print arguments as they are, and expect text; others convert them to JSON, and expect an object. So
//! both are rendered.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use serde_json::Value;

use super::{Chat, RenderError, Turns};
use crate::integer;

/// How a template renders arguments as text and as objects.
struct Spellings {
    /// The input with objects.
    objects: Vec<crate::conversation::Message>,
    as_text: Result<String, RenderError>,
    as_objects: Result<String, RenderError>,
    /// The arguments as the row has them.
    texts: Vec<String>,
}

impl Chat {
    /// The input with the arguments in the form that the template prints as JSON. If text and objects differ and neither
    /// form is wrong, also both texts of the first arguments that differ.
    pub(super) fn with_arguments<'c>(
        &self,
        mut turns: Turns<'c>,
    ) -> (Turns<'c>, Option<[String; 2]>) {
        let Some(spellings) = self.spellings(&turns) else {
            return (turns, None);
        };
        if spellings.wants_objects() {
            turns.messages = spellings.objects;
            return (turns, None);
        }
        (turns, spellings.both())
    }

    fn spellings(&self, turns: &Turns<'_>) -> Option<Spellings> {
        let mut parsed = turns.clone();
        let mut texts = Vec::new();
        let _ = each_arguments(&mut parsed, &mut |_, arguments| {
            if let Value::String(text) = arguments
                && let Ok(object @ Value::Object(_)) = integer::from_str(text)
                && integer::digits(&object).is_none()
            {
                texts.push(std::mem::take(text));
                *arguments = object;
            }
            ControlFlow::Continue(())
        });
        if texts.is_empty() {
            return None;
        }
        Some(Spellings {
            as_text: self.text(turns, false),
            as_objects: self.text(&parsed, false),
            objects: parsed.messages,
            texts,
        })
    }

    /// The error of a row, which says so if the arguments are text and the template wants an object.
    pub(super) fn explained(&self, turns: &Turns<'_>, error: RenderError) -> RenderError {
        let RenderError::Jinja { problem } = error else {
            return error;
        };
        let mut emptied = turns.clone();
        let mut first = None;
        let _ = each_arguments(&mut emptied, &mut |key, arguments| {
            if arguments.is_string() {
                first.get_or_insert(key);
                *arguments = Value::Object(serde_json::Map::new());
            }
            ControlFlow::Continue(())
        });
        match first {
            Some(key) if self.text(&emptied, false).is_ok() => {
                RenderError::TextArguments { key, problem }
            }
            _ => RenderError::Jinja { problem },
        }
    }
}

impl Spellings {
    /// Whether the template fails on the text, or encodes it a second time.
    fn wants_objects(&self) -> bool {
        match (&self.as_text, &self.as_objects) {
            (Err(_), Ok(_)) => true,
            (Ok(text), Ok(object)) => self.texts.iter().any(|arguments| {
                let mut forms = encoded(arguments).into_iter();
                forms.any(|form| text.matches(&form).count() > object.matches(&form).count())
            }),
            _ => false,
        }
    }

    /// The two texts of the first arguments that are rendered in two ways, neither of which is an error.
    fn both(&self) -> Option<[String; 2]> {
        let (Ok(text), Ok(object)) = (&self.as_text, &self.as_objects) else {
            return None;
        };
        if text == object || self.only_text_is_json(text, object) {
            return None;
        }
        Some(difference(text, object))
    }

    /// Whether the template prints the text as it is, and an object not as JSON.
    fn only_text_is_json(&self, text: &str, object: &str) -> bool {
        let squeezed = without_spaces(object);
        self.texts.iter().all(|arguments| text.contains(arguments))
            && !self
                .texts
                .iter()
                .all(|arguments| squeezed.contains(&without_spaces(arguments)))
    }
}

/// Calls `visit` with the arguments of every call, and their key.
fn each_arguments(
    turns: &mut Turns<'_>,
    visit: &mut dyn FnMut(String, &mut Value) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for (index, message) in turns.messages.iter_mut().enumerate() {
        let calls = message.more.get_mut("tool_calls");
        let calls = calls.and_then(Value::as_array_mut).into_iter().flatten();
        for (number, call) in calls.enumerate() {
            let key = format!("{}.tool_calls[{number}]", turns.list.at(index));
            let (key, function) = match call.get("function") {
                Some(Value::Object(_)) => (format!("{key}.function"), &mut call["function"]),
                _ => (key, call),
            };
            if let Some(arguments) = function.get_mut("arguments") {
                visit(format!("{key}.arguments"), arguments)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// A text as a JSON string: with its characters as they are, and in ASCII alone, as `ensure_ascii` writes it.
fn encoded(text: &str) -> Vec<String> {
    let plain = Value::from(text).to_string();
    let mut ascii = String::new();
    for character in plain.chars() {
        if character.is_ascii() {
            ascii.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(ascii, "\\u{unit:04x}");
        }
    }
    if ascii == plain {
        return vec![plain];
    }
    vec![plain, ascii]
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What differs between two texts, with some characters around it.
fn difference(one: &str, other: &str) -> [String; 2] {
    const AROUND: usize = 12;
    const MOST: usize = 60;
    let pairs = one.chars().zip(other.chars());
    let start = pairs
        .take_while(|(a, b)| a == b)
        .count()
        .saturating_sub(AROUND);
    [one, other].map(|text| text.chars().skip(start).take(MOST).collect())
}
