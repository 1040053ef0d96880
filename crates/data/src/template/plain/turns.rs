//! Templates of conversations: one text per role, joined in the order of the messages.

use std::ops::Range;

use serde::Deserialize;

use super::super::{Chosen, RenderError, Rendered};
use super::text::{Language, Part, Text};
use crate::conversation::{ListKey, Message, Role};

pub(super) const NAMES: [(&str, Part); 4] = [
    ("system", Part::System),
    ("user", Part::User),
    ("assistant", Part::Assistant),
    ("tool", Part::Tool),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TurnsFile {
    #[serde(default)]
    begin: String,
    #[serde(default)]
    end: String,
    system: Option<String>,
    default_system: Option<String>,
    user: String,
    assistant: String,
    tool: Option<String>,
}

/// The texts of a conversation's turns.
#[derive(Debug)]
pub(super) struct Turns {
    template: String,
    /// The text at the start; it may have the placeholder of the system message.
    begin: Text,
    /// The text at the end, after a finished answer.
    end: Text,
    /// The text of the system message. If `begin` has no placeholder for it, it is put before the first user message
    /// and becomes part of it.
    system: Option<Text>,
    /// The system message of rows without one.
    default_system: Option<String>,
    user: Text,
    assistant: Text,
    tool: Option<Text>,
}

/// The part of a conversation that is written so far.
struct Written<'l> {
    /// The key of the conversation's messages.
    list: &'l ListKey,
    text: String,
    spans: Vec<Range<usize>>,
    /// The system message that goes into the first user turn, and whether it is trained on.
    waiting: Option<(String, bool)>,
}

impl Turns {
    pub(super) fn parse(
        template: &str,
        file: &TurnsFile,
        language: Language,
    ) -> Result<Turns, String> {
        let turn = |key, source: &str, part| turn(key, source, part, language);
        let begin = frame("begin", &file.begin, &[Part::System], language)?;
        let system = match (&file.system, begin.parts().contains(&Part::System)) {
            (None, true) => Some("{system}"),
            (source, _) => source.as_deref(),
        };
        if system.is_none() && file.default_system.is_some() {
            return Err("turns.default_system: it needs `system`, or {system} in `begin`".into());
        }
        let system = system.map(|source| turn("system", source, Part::System));
        let tool = file.tool.as_ref();
        let tool = tool.map(|source| turn("tool", source, Part::Tool));
        Ok(Turns {
            template: template.into(),
            begin,
            end: frame("end", &file.end, &[], language)?,
            system: system.transpose()?,
            default_system: file.default_system.clone(),
            user: turn("user", &file.user, Part::User)?,
            assistant: turn("assistant", &file.assistant, Part::Assistant)?,
            tool: tool.transpose()?,
        })
    }

    pub(super) fn render(
        &self,
        list: &ListKey,
        messages: &[Message],
        chosen: &Chosen,
    ) -> Result<Rendered, RenderError> {
        let mut written = self.write(list, messages, chosen)?;
        let complete = messages
            .last()
            .is_some_and(|last| last.role == Role::Assistant);
        if complete {
            self.end.write(&mut written.text, &mut |_, _| {});
        }
        Ok(Rendered::new(
            written.text,
            written.spans,
            chosen,
            complete,
            false,
        ))
    }

    /// The text up to the marks around the answer to `messages`.
    pub(super) fn prompt(
        &self,
        list: &ListKey,
        messages: &[Message],
    ) -> Result<String, RenderError> {
        let mut text = self.write(list, messages, &Chosen::Everything)?.text;
        self.assistant
            .write_until(Part::Assistant, &mut text, &mut |_, _| {});
        Ok(text)
    }

    fn write<'l>(
        &self,
        list: &'l ListKey,
        messages: &[Message],
        chosen: &Chosen,
    ) -> Result<Written<'l>, RenderError> {
        let mut written = Written {
            list,
            text: String::new(),
            spans: Vec::new(),
            waiting: None,
        };
        let system = messages.first().filter(|m| m.role == Role::System);
        self.begin(system, chosen, &mut written)?;
        let head = usize::from(system.is_some());
        for (index, message) in messages.iter().enumerate().skip(head) {
            self.turn(index, message, chosen, &mut written)?;
        }
        match written.waiting {
            Some(_) => Err(self.no_place("a system message without a user message after it")),
            None => Ok(written),
        }
    }

    /// Writes the text before the first turn.
    fn begin(
        &self,
        message: Option<&Message>,
        chosen: &Chosen,
        written: &mut Written<'_>,
    ) -> Result<(), RenderError> {
        let said = message
            .map(|message| message.content.as_str())
            .filter(|text| !text.is_empty());
        let (Some(words), Some(system)) = (said.or(self.default_system.as_deref()), &self.system)
        else {
            if said.is_some() {
                return Err(self.no_place("a system message"));
            }
            self.begin.write(&mut written.text, &mut |_, _| {});
            return Ok(());
        };
        let trained = message.is_some() && chosen.has(0);
        let mut place = |_, out: &mut String| out.push_str(words);
        if !self.begin.parts().contains(&Part::System) {
            self.begin.write(&mut written.text, &mut |_, _| {});
            let mut text = String::new();
            system.write(&mut text, &mut place);
            written.waiting = Some((text, trained));
            return Ok(());
        }
        let mut spans = Vec::new();
        self.begin.write(&mut written.text, &mut |_, out| {
            spans = system.write(out, &mut place);
        });
        if trained {
            self.train_on(0, spans, written)?;
        }
        Ok(())
    }

    fn turn(
        &self,
        index: usize,
        message: &Message,
        chosen: &Chosen,
        written: &mut Written<'_>,
    ) -> Result<(), RenderError> {
        let text = match message.role {
            Role::User => Some(&self.user),
            Role::Assistant => Some(&self.assistant),
            Role::Tool => self.tool.as_ref(),
            Role::System => None,
        };
        let Some(text) = text else {
            let what = format!("{} ({})", written.list.at(index), message.role);
            return Err(self.no_place(&what));
        };
        let waiting = match message.role {
            Role::User => written.waiting.take(),
            _ => None,
        };
        // The marks around the user message enclose the system message, too.
        let (system, trained) = waiting.unwrap_or_else(|| (String::new(), chosen.has(index)));
        if trained != chosen.has(index) {
            return Err(self.unmarked(written.list.at(index)));
        }
        let spans = text.write(&mut written.text, &mut |_, out| {
            out.push_str(&system);
            out.push_str(&message.content);
        });
        if chosen.has(index) {
            self.train_on(index, spans, written)?;
        }
        Ok(())
    }

    fn train_on(
        &self,
        index: usize,
        spans: Vec<Range<usize>>,
        written: &mut Written<'_>,
    ) -> Result<(), RenderError> {
        if spans.is_empty() {
            return Err(self.unmarked(written.list.at(index)));
        }
        written.spans.extend(spans);
        Ok(())
    }

    fn unmarked(&self, message: String) -> RenderError {
        RenderError::Unmarked {
            template: self.template.clone(),
            message,
        }
    }

    fn no_place(&self, what: &str) -> RenderError {
        RenderError::NoPlace {
            template: self.template.clone(),
            what: what.into(),
        }
    }
}

/// Parses the text of `key`, which may have these placeholders.
fn read(key: &str, source: &str, parts: &[Part], language: Language) -> Result<Text, String> {
    let problem = |problem: String| format!("turns.{key}: {problem}");
    let text = Text::parse(source, language).map_err(problem)?;
    match text.parts().iter().find(|part| !parts.contains(part)) {
        Some(part) => Err(problem(format!("{{{part}}} is not allowed here"))),
        None => Ok(text),
    }
}

/// Parses a text around the turns.
fn frame(key: &str, source: &str, parts: &[Part], language: Language) -> Result<Text, String> {
    let text = read(key, source, parts, language)?;
    if text.has_marks() {
        return Err(format!(
            "turns.{key}: `[[` is not allowed here: this text is never trained on"
        ));
    }
    Ok(text)
}

/// Parses the text of a turn, which needs the placeholder of its role and may have marks around it.
fn turn(key: &str, source: &str, part: Part, language: Language) -> Result<Text, String> {
    let text = read(key, source, &[part], language)?;
    if !text.parts().contains(&part) {
        return Err(format!("turns.{key}: missing {{{part}}}"));
    }
    let needed = text.has_marks() || part == Part::Assistant;
    if needed && text.opening(part).is_none() {
        return Err(format!(
            "turns.{key}: {{{part}}} is outside `[[` and `]]`, so it would not be trained on"
        ));
    }
    Ok(text)
}
