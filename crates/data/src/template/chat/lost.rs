//! Fields of messages that a template does not print.
//!
//! The conversation is rendered again without each field. The same text is a loss.

use super::{Chat, RenderError, Turns};
use crate::conversation::{Message, Role, THOUGHTS};

impl Chat {
    /// The fields that earlier messages lose, and that the template prints in the last.
    ///
    /// # Errors
    /// [`RenderError::NoPlace`] for a field that the template does not print in the last message either.
    pub(super) fn lost_fields(
        &self,
        turns: &Turns<'_>,
        text: &str,
    ) -> Result<Vec<String>, RenderError> {
        let mut lost = Vec::new();
        for (index, message) in turns.messages.iter().enumerate() {
            for field in fields(message) {
                let what = match field {
                    thought if THOUGHTS.contains(&thought) => {
                        format!(
                            "the thought (`reasoning_content`, `thinking`) of {}",
                            turns.list.at(index)
                        )
                    }
                    field => format!("`{field}` of {}", turns.list.at(index)),
                };
                let last = index + 1 == turns.messages.len();
                if Self::told_elsewhere(turns, index, field)
                    || self.prints(turns, text, index, field)
                {
                    continue;
                }
                if !last && self.prints_as_last(turns, index, field) {
                    lost.push(what);
                    continue;
                }
                let template = "chat".into();
                return Err(RenderError::NoPlace { template, what });
            }
        }
        self.lost_thoughts(turns, text, &mut lost)?;
        Ok(lost)
    }

    /// The same for thoughts inside contents, which some templates cut off.
    fn lost_thoughts(
        &self,
        turns: &Turns<'_>,
        text: &str,
        lost: &mut Vec<String>,
    ) -> Result<(), RenderError> {
        for index in turns.answers() {
            let Some(thought) = thought(&turns.messages[index].content) else {
                continue;
            };
            if text.contains(thought) {
                continue;
            }
            let what = format!(
                "the thought (`<think>`) in the content of {}",
                turns.list.at(index)
            );
            let as_last = self.text(&turns.first(index + 1), false);
            if !as_last.is_ok_and(|text| text.contains(thought)) {
                let template = "chat".into();
                return Err(RenderError::NoPlace { template, what });
            }
            lost.push(what);
        }
        Ok(())
    }

    fn prints(&self, turns: &Turns<'_>, text: &str, index: usize, field: &str) -> bool {
        let mut without = turns.clone();
        remove(&mut without.messages[index], field);
        // A template that fails without the field reads it.
        self.text(&without, false)
            .map_or(true, |other| other != text)
    }

    fn prints_as_last(&self, turns: &Turns<'_>, index: usize, field: &str) -> bool {
        let last = turns.first(index + 1);
        match self.text(&last, false) {
            Ok(text) => self.prints(&last, &text, index, field),
            Err(_) => false,
        }
    }

    /// Whether a result's field only says which call it belongs to, which the order of the messages says, too.
    fn told_elsewhere(turns: &Turns<'_>, index: usize, field: &str) -> bool {
        if turns.messages[index].role != Role::Tool {
            return false;
        }
        let own = turns.messages[index].more.get(field);
        let mut calls = turns.messages[..index]
            .iter()
            .filter_map(|message| message.more.get("tool_calls")?.as_array())
            .flatten();
        match field {
            "tool_call_id" => true,
            "name" => calls.any(|call| {
                let function = call.get("function").unwrap_or(call);
                function.get("name") == own
            }),
            _ => false,
        }
    }
}

/// The thought before an answer in the same text, if it is not empty.
fn thought(content: &str) -> Option<&str> {
    let (before, _) = content.split_once("</think>")?;
    let thought = before.rsplit_once("<think>").map_or(before, |(_, own)| own);
    Some(thought.trim()).filter(|thought| !thought.is_empty())
}

/// The fields of a message that are checked here; a thought is one, whatever its names.
fn fields(message: &Message) -> impl Iterator<Item = &str> {
    let names = || message.more.keys().map(String::as_str);
    let thought = names().find(|name| THOUGHTS.contains(name));
    let others = names().filter(|name| *name != "tool_calls" && !THOUGHTS.contains(name));
    others.chain(thought)
}

fn remove(message: &mut Message, field: &str) {
    message.more.remove(field);
    if THOUGHTS.contains(&field) {
        for name in THOUGHTS {
            message.more.remove(name);
        }
    }
}

/// Gives a thought all the names that templates read it by, as transformers' `_alias_reasoning_fields`.
pub(super) fn alias_thoughts(messages: &mut [Message]) {
    for message in messages {
        let thought = THOUGHTS.iter().find_map(|name| message.more.get(*name));
        if let Some(thought) = thought.cloned() {
            for name in ["reasoning_content", "thinking"] {
                let entry = message.more.entry(name.into());
                entry.or_insert_with(|| thought.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::TrainOn;
    use super::super::super::tests::{dialogue, marked};
    use super::super::tests::{calling, chat};
    use crate::conversation::{Content, Conversation};

    /// A row with text beside its call, and without tools.
    fn beside() -> Conversation {
        let mut row = calling(json!([{"name": "add"}]));
        row.tools = None;
        if let Content::Messages(messages) = &mut row.content {
            messages[1].content = "Let me add.".into();
        }
        row
    }

    #[test]
    fn text_beside_calls_is_not_lost() {
        // As in Llama 3.1's template.
        let drops = "{% for m in messages %}<{{ m.role }}>{% if m.tool_calls and KEEP %}[{{ m.tool_calls[0].name }}]\
            {% else %}{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.name }}]{% endfor %}{% endif %}<|im_end|>{% endfor %}\
            {% if add_generation_prompt %}<assistant>{% endif %}";
        let error = chat(&drops.replace("KEEP", "true"))
            .answers(&beside())
            .unwrap_err();
        insta::assert_snapshot!(error, @"template `chat` does not render the text of messages[1] beside its calls, which would be lost");
        // As in gpt-oss's.
        let rendered = chat(&drops.replace("KEEP", "not loop.last"))
            .answers(&beside())
            .unwrap();
        assert_eq!(
            rendered.oddities.lost,
            ["the text of messages[1] beside its calls"]
        );
    }

    #[test]
    fn results_of_tools_are_not_lost() {
        let drops = "{% for m in messages if m.role != 'tool' %}<{{ m.role }}>{{ m.content }}\
            {% for c in m.tool_calls or [] %}[{{ c.name }}]{% endfor %}<|im_end|>{% endfor %}";
        let error = chat(drops)
            .render(&beside(), TrainOn::Everything)
            .unwrap_err();
        insta::assert_snapshot!(error, @"template `chat` does not render messages[2] (tool), which would be lost");
    }

    #[test]
    fn results_may_be_written_inside_the_turn_of_their_calls() {
        // As in Gemma 4's template: the result comes between a call and the text beside it, with the function's name again.
        let inside = "{% for m in messages %}{% if m.role != 'tool' %}{% if loop.index0 < 2 %}<{{ m.role }}>{% endif %}\
            {% for c in m.tool_calls or [] %}[call {{ c.name }}]\
            {% if not loop.last or m != messages[-1] %}[{{ c.name }}: {{ messages[2].content }}]{% endif %}{% endfor %}\
            {{ m.content }}{% if m.content %}<|im_end|>{% endif %}{% endif %}{% endfor %}\
            {% if add_generation_prompt and messages[-1].role == 'user' %}<assistant>{% endif %}";
        let error = chat(inside).answers(&beside()).unwrap_err().to_string();
        assert!(error.contains("cannot find messages[1]"), "{error}");
        let mut row = beside();
        if let Content::Messages(messages) = &mut row.content {
            messages[1].content.clear();
        }
        let rendered = chat(inside).answers(&row).unwrap();
        insta::assert_snapshot!(marked(&rendered), @"<user>Add.<|im_end|><assistant>⟦[call add]⟧[add: 4]⟦It is 4.<|im_end|>⟧");
    }

    #[test]
    fn thoughts_in_answers_are_not_lost() {
        let mut row = dialogue();
        if let Content::Messages(messages) = &mut row.content {
            messages[2].content = "<think>\ngreet\n</think>\n\nHello!".into();
        }
        // As in R1's template.
        let cuts = "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] if KEEP else m.content }}<|im_end|>\
            {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let error = chat(&cuts.replace("KEEP", "true"))
            .answers(&row)
            .unwrap_err();
        insta::assert_snapshot!(error, @"template `chat` does not render the thought (`<think>`) in the content of messages[2], which would be lost");
        // As in Qwen3's.
        let rendered = chat(&cuts.replace("KEEP", "not loop.last"))
            .answers(&row)
            .unwrap();
        assert_eq!(
            rendered.oddities.lost,
            ["the thought (`<think>`) in the content of messages[2]"]
        );
    }

    #[test]
    fn ids_of_calls_are_told_by_the_order() {
        let mut row = beside();
        if let Content::Messages(messages) = &mut row.content {
            let result = &mut messages[2].more;
            result.insert("tool_call_id".into(), json!("1"));
            result.insert("name".into(), json!("add"));
        }
        let plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.name }}]{% endfor %}\
            <|im_end|>\r\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let rendered = chat(plain).answers(&row).unwrap();
        assert!(rendered.oddities.lost.is_empty());
        // Line breaks of a template are line feeds, as in Jinja.
        assert!(rendered.text.ends_with("<|im_end|>\n") && !rendered.text.contains('\r'));
    }
}
