//! How the chat template of a model writes the calls of an answer.
//!
//! The template renders an answer with a call whose name and arguments are known. Where they stand as JSON says how the model
//! begins a call, what is between two, and what the keys are. So no list of models is needed.

use serde_json::{Deserializer, Value, json};
use simmer_data::{Conversation, Message, Role, Template, Tokenizer, TrainOn};

/// How a template writes calls: JSON objects with a name and arguments, and texts around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallForm {
    /// From the end of the prompt to the first call of an answer without text.
    pub(crate) start: String,
    /// The word that says that calls follow, also after a text. Empty: an answer with a call begins with it.
    pub(crate) mark: String,
    /// The words around calls, in any order: between the mark and the first, between two, after the last.
    pub(crate) around: Vec<String>,
    /// The key of the name.
    pub(crate) name: String,
    /// The key of the arguments.
    pub(crate) arguments: String,
    /// Whether the mark is a special token, which texts leave out.
    pub(crate) is_special: bool,
}

/// The name of the tool that is called.
const NAME: &str = "find_the_place";
/// A text beside the call.
const BESIDE: &str = "Some words beside it.";

impl CallForm {
    /// How a template writes calls.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub(crate) fn of(template: &Template, tokenizer: &Tokenizer) -> Result<Self, String> {
        let shows = |tools| prompt(template, tools).map_err(|error| error.to_string());
        if shows(true)? == shows(false)? {
            return Err("the template does not show tools to the model".to_owned());
        }
        let one = answer(template, tokenizer, "", 1)?;
        let call = find(&one, 0).ok_or_else(|| {
            "the template does not write calls as JSON objects with a name and arguments, the only form that this server reads"
                .to_owned()
        })?;
        let start = one[..call.begin].to_owned();
        // some templates leave a text out, or refuse it, and some refuse two calls
        let beside = answer(template, tokenizer, BESIDE, 1).ok();
        let beside = beside.as_deref().and_then(|text| {
            let end = text.find(BESIDE)? + BESIDE.len();
            let call = find(text, end)?;
            Some(text[end..call.begin].to_owned())
        });
        let before = beside.unwrap_or_else(|| without_thought(&start).to_owned());
        let mut words: Vec<String> = before.split_whitespace().map(str::to_owned).collect();
        let mark = if words.is_empty() {
            String::new()
        } else {
            words.remove(0)
        };
        let two = answer(template, tokenizer, "", 2).ok();
        let between = two.as_deref().and_then(|text| {
            let first = find(text, 0)?;
            let second = find(text, first.end)?;
            Some(&text[first.end..second.begin])
        });
        let after = &one[call.end..];
        let others = between.unwrap_or_default().split_whitespace();
        for word in others.chain(after.split_whitespace()) {
            if !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        }
        let is_special = tokenizer.special_tokens().contains(&mark);
        Ok(Self {
            start,
            mark,
            around: words,
            name: call.name,
            arguments: call.arguments,
            is_special,
        })
    }
}

/// The prompt of a conversation with a tool, or without.
fn prompt(template: &Template, tools: bool) -> Result<String, simmer_data::template::RenderError> {
    let mut conversation = Conversation::chat(vec![Message::new(Role::User, "Where is it?")]);
    conversation.tools = tools.then(tool);
    Ok(template.prompt(&conversation)?.text)
}

fn tool() -> Value {
    json!([{"type": "function", "function": {
        "name": NAME,
        "description": "Finds a place.",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
    }}])
}

/// The arguments of a call.
fn arguments() -> Value {
    json!({"number": 7})
}

/// What the template makes of an answer with calls, from the end of the prompt to the token that ends the answer.
fn answer(
    template: &Template,
    tokenizer: &Tokenizer,
    text: &str,
    calls: usize,
) -> Result<String, String> {
    let calls = (0..calls).map(|number| {
        // some templates want nine letters and digits
        let id = format!("call0000{number}");
        json!({"id": id, "type": "function", "function": {"name": NAME, "arguments": arguments()}})
    });
    let mut message = Message::new(Role::Assistant, text);
    message.null_content = text.is_empty();
    message
        .more
        .insert("tool_calls".to_owned(), calls.collect());
    let mut conversation =
        Conversation::chat(vec![Message::new(Role::User, "Where is it?"), message]);
    conversation.tools = Some(tool());
    let rendered = template.render(&conversation, TrainOn::LastAnswer);
    let rendered = rendered.map_err(|error| error.to_string())?;
    let before = template.prompt(&conversation);
    let before = before.map_err(|error| error.to_string())?.text;
    let span = rendered.trained.last().map_or(0, |span| span.start);
    let answer = match rendered.text.strip_prefix(&before) {
        Some(answer) => answer,
        None => &rendered.text[span..],
    };
    let ends = tokenizer.eos_ids().iter();
    let ends = ends.filter_map(|id| tokenizer.token(*id));
    let end = ends.filter_map(|end| answer.find(&end)).min();
    Ok(answer[..end.unwrap_or(answer.len())].to_owned())
}

/// A call in a text.
struct Found {
    begin: usize,
    end: usize,
    name: String,
    arguments: String,
}

/// The first call at or after a place.
fn find(text: &str, from: usize) -> Option<Found> {
    let places = text[from..].match_indices('{');
    places.map(|(place, _)| from + place).find_map(|begin| {
        let mut values = Deserializer::from_str(&text[begin..]).into_iter::<Value>();
        let Some(Ok(Value::Object(keys))) = values.next() else {
            return None;
        };
        let key = |wanted: &dyn Fn(&Value) -> bool| {
            let found = keys.iter().find(|(_, value)| wanted(value));
            found.map(|(key, _)| key.clone())
        };
        let as_text = |value: &Value| {
            let text = value.as_str()?;
            serde_json::from_str::<Value>(text).ok()
        };
        let expected = arguments();
        Some(Found {
            name: key(&|value| value == NAME)?,
            arguments: key(&|value| {
                *value == expected || as_text(value) == Some(expected.clone())
            })?,
            begin,
            end: begin + values.byte_offset(),
        })
    })
}

/// A text without a thought at its beginning.
fn without_thought(text: &str) -> &str {
    let end = "</think>";
    text.rfind(end)
        .map_or(text, |place| &text[place + end.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n";
    const TAIL: &str =
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    /// What a template says about calls that prints an answer so.
    fn form(answer: &str) -> Result<CallForm, String> {
        let folder = tempfile::tempdir().unwrap();
        let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/tiny-base");
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(format!("{tiny}/{name}"), folder.path().join(name)).unwrap();
        }
        let template = format!("{HEAD}{answer}{TAIL}");
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        let template = Template::named("chat", &tokenizer).unwrap();
        CallForm::of(&template, &tokenizer)
    }

    /// Start, mark, words around, and keys.
    fn said(answer: &str) -> (String, String, String, [String; 2]) {
        let CallForm {
            start,
            mark,
            around,
            name,
            arguments,
            is_special,
        } = form(answer).unwrap();
        assert!(!is_special);
        (start, mark, around.join(" "), [name, arguments])
    }

    fn expected(
        start: &str,
        mark: &str,
        around: &str,
        keys: [&str; 2],
    ) -> (String, String, String, [String; 2]) {
        (
            start.to_owned(),
            mark.to_owned(),
            around.to_owned(),
            keys.map(str::to_owned),
        )
    }

    #[test]
    fn calls_in_tags_are_read() {
        // Hermes, Qwen, SmolLM3
        let tags = "{{ m.content or '' }}{% for call in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\\n' }}{% endif %}\
                    {{ '<tool_call>\\n{\"name\": \"' ~ call.function.name ~ '\", \"arguments\": ' }}{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}";
        let keys = ["name", "arguments"];
        assert_eq!(
            said(tags),
            expected(
                "<tool_call>\n",
                "<tool_call>",
                "</tool_call> <tool_call>",
                keys
            )
        );
        // Qwen3: an answer without a thought has an empty one
        let thought =
            format!("{{% if m.role == 'assistant' %}}<think>\n\n</think>\n\n{{% endif %}}{tags}");
        let found = said(&thought);
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            ("<think>\n\n</think>\n\n<tool_call>\n", "<tool_call>")
        );
    }

    #[test]
    fn lists_of_calls_are_read() {
        // Mistral: no text beside calls, and an id with each
        let list = "{% if m.tool_calls %}[TOOL_CALLS] [{% for call in m.tool_calls %}{% set text = call.function | tojson %}\
                    {{ text[:-1] ~ ', \"id\": \"' ~ call.id ~ '\"}' }}{{ ', ' if not loop.last }}{% endfor %}]{% else %}{{ m.content }}{% endif %}";
        assert_eq!(
            said(list),
            expected(
                "[TOOL_CALLS] [",
                "[TOOL_CALLS]",
                "[ , ]",
                ["name", "arguments"]
            )
        );
    }

    #[test]
    fn a_call_alone_is_read() {
        // Llama 3.1 and later: one call, and other keys
        let bare = "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}\
                    {% set call = m.tool_calls[0].function %}{{ '{\"name\": \"' ~ call.name ~ '\", \"parameters\": ' }}{{ call.arguments | tojson }}}\
                    {% else %}{{ m.content }}{% endif %}";
        assert_eq!(said(bare), expected("", "", "", ["name", "parameters"]));
        // the whole entry of the list
        let wrapped = "{{ m.content or '' }}{% for call in m.tool_calls or [] %} CALL {{ {'type': 'function', 'function': call.function} | tojson }}{% endfor %}";
        let found = said(wrapped);
        assert_eq!(
            (found.1.as_str(), found.3),
            ("CALL", ["name", "arguments"].map(str::to_owned))
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let lines = "{{ m.content or '' }}{% for call in m.tool_calls or [] %}<{{ call.function.name }}>{{ call.function.arguments.number }}{% endfor %}";
        assert!(
            form(lines)
                .unwrap_err()
                .starts_with("the template does not write calls as JSON")
        );
        let without = form("{{ m.content }}").unwrap_err();
        assert!(without.contains("tool_calls"), "{without}");
    }
}
