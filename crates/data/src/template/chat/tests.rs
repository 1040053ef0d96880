use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use simmer_hint::Hint as _;

use super::super::tests::*;
use super::super::*;
use super::Chat;
use crate::Content;
use crate::conversation::ListKey;
use crate::tokenizer::tests::with_config;

/// The chat template `source` with the tiny tokenizer's special tokens.
pub(super) fn chat(source: &str) -> Template {
    let tokenizer = with_config(&json!({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": source,
    }));
    Template::named("chat", &tokenizer).unwrap()
}

#[test]
fn chatml_answers_end_with_their_token() {
    insta::assert_snapshot!(marked(&template("chat").answers(&dialogue()).unwrap()), @"
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    ⟦ Hello! <|im_end|>⟧
    <|im_start|>user
    Bye<|im_end|>
    <|im_start|>assistant
    ⟦Bye!<|im_end|>⟧
    ");
    insta::assert_snapshot!(marked(&template("chat").answers(&instruction(Some("France"))).unwrap()), @"
    <|im_start|>user
    Name the capital.

    France<|im_end|>
    <|im_start|>assistant
    ⟦Paris<|im_end|>⟧
    ");
}

#[test]
fn llama_2_answers_keep_the_space_before_them() {
    let llama_2 = "{{ bos_token }}{% for m in messages %}\
        {% if m.role == 'system' %}{{ m.content }}\
        {% elif m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]\
        {% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}\
        {% endif %}{% endfor %}";
    insta::assert_snapshot!(marked(&chat(llama_2).answers(&dialogue()).unwrap()), @"<|im_start|>Be brief.[INST] Hi [/INST]⟦ Hello! <|im_end|>⟧[INST] Bye [/INST]⟦ Bye! <|im_end|>⟧");
}

#[test]
fn answers_without_an_end_token_end_with_their_turn() {
    let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% endif %}";
    insta::assert_snapshot!(marked(&chat(plain).answers(&dialogue()).unwrap()), @"
    system: Be brief.
    user: Hi
    assistant: ⟦ Hello!·
    ⟧user: Bye
    assistant: ⟦Bye!
    ⟧
    ");
}

#[test]
fn earlier_turns_may_be_rendered_differently() {
    // As in Mistral's template: the system message goes into the last question.
    let mistral = "{% for m in messages %}\
        {% if m.role == 'user' %}[INST] {% if loop.index0 >= messages|length - 2 %}{{ messages[0].content }} {% endif %}{{ m.content }} [/INST]\
        {% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}\
        {% endif %}{% endfor %}";
    insta::assert_snapshot!(marked(&chat(mistral).answers(&dialogue()).unwrap()), @"[INST] Hi [/INST]⟦  Hello! <|im_end|>⟧[INST] Be brief. Bye [/INST]⟦ Bye!<|im_end|>⟧");
}

#[test]
fn generation_blocks_are_used_and_end_with_their_token() {
    let with_blocks = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\
        <|im_end|>\n{% endfor %}";
    let answers = |template: Template| template.answers(&dialogue()).unwrap();
    assert_eq!(answers(chat(with_blocks)), answers(template("chat")));
}

#[test]
fn an_answer_that_cannot_be_found_is_an_error() {
    let twice = "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}";
    let error = chat(twice).answers(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: cannot find messages[2] (assistant) in its text: its content does not appear exactly once");
    let by_length = "{% for m in messages %}{{ m.content }} {{ m.content | length }}{% endfor %}";
    let error = chat(by_length).answers(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: cannot find messages[2] (assistant) in its text: the text after it depends on its content");
    // The header of a turn appears twice before the answer, so its own cannot be told.
    let headers = "{% for m in messages %}{% if m.role == 'user' and loop.index0 == messages|length - 2 %}again {% endif %}\
        {{ m.content }}\n{% if m.role == 'user' %}<a><a>{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
    let error = chat(headers).answers(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: cannot find messages[2] (assistant) in its text: the answer's turn does not start with the generation prompt");
    insta::assert_snapshot!(error.hint().unwrap(), @r#"in a copy of the chat template, put `{% generation %}` and `{% endgeneration %}` around all that it prints for an assistant's message after the generation prompt, up to and including `<|im_end|>`; or set `data.train_on = "everything"`"#);
}

/// What `source` trains on in the dialogue, and whether an answer starts elsewhere than its generation prompt ends.
fn started(source: &str, row: &Conversation) -> (String, bool) {
    let rendered = chat(source).answers(row).unwrap();
    (marked(&rendered), rendered.other_start)
}

#[test]
fn answers_start_where_prompt_and_turn_part() {
    // As in R1's template: the generation prompt opens a thought that the training text does not have.
    let thinks = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}\
        {% if add_generation_prompt %}<assistant><think>\n{% endif %}";
    let (text, other) = started(thinks, &dialogue());
    insta::assert_snapshot!(text, @"<system>Be brief.<|im_end|><user>Hi<|im_end|><assistant>⟦ Hello! <|im_end|>⟧<user>Bye<|im_end|><assistant>⟦Bye!<|im_end|>⟧");
    assert!(other);
    // A mark that starts as the one of the prompt is trained on as a whole.
    let closes = thinks.replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' %}</think>{% endif %}{{ m.content }}",
    );
    let (text, other) = started(&closes, &dialogue());
    insta::assert_snapshot!(text, @"<system>Be brief.<|im_end|><user>Hi<|im_end|><assistant>⟦</think> Hello! <|im_end|>⟧<user>Bye<|im_end|><assistant>⟦</think>Bye!<|im_end|>⟧");
    assert!(other);
    // So is a word.
    let words = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}Answer {% endif %}{{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: Ants {% endif %}";
    let (text, _) = started(words, &dialogue());
    insta::assert_snapshot!(text, @"
    system: Be brief.
    user: Hi
    assistant: ⟦Answer  Hello!·
    ⟧user: Bye
    assistant: ⟦Answer Bye!
    ⟧
    ");
    let plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}\
        {% if add_generation_prompt %}<assistant>{% endif %}";
    assert!(!started(plain, &dialogue()).1);
}

#[test]
fn a_tools_result_may_be_rendered_otherwise_if_it_is_last() {
    // As in Hermes 2 Pro's template.
    let hermes = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
        {% for c in m.tool_calls or [] %}[{{ c.name }}]{% endfor %}\
        {% if m.role == 'tool' and not loop.last %}{{ '\\n' }}{% endif %}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\nTHINK{% endif %}";
    let mut row = calling(json!([{"name": "add"}]));
    row.tools = None;
    for header in ["<|im_start|>assistant\n", "<|im_start|>assistant\n<think>"] {
        let hermes = hermes.replace("<|im_start|>assistant\nTHINK", header);
        let (text, other) = started(&hermes, &row);
        insta::allow_duplicates! {
            insta::assert_snapshot!(text, @"
            <|im_start|>user
            Add.<|im_end|>
            <|im_start|>assistant
            ⟦[add]<|im_end|>⟧
            <|im_start|>tool
            4
            <|im_end|>
            <|im_start|>assistant
            ⟦It is 4.<|im_end|>⟧
            ");
        }
        assert!(other);
    }
}

#[test]
fn a_generation_prompt_may_always_be_there() {
    // As in Command R7B's template, which writes it after the last answer, too.
    let always = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<answer>{% endif %}{{ m.content }}\
        {% if m.role == 'assistant' %}</answer>{% endif %}<|im_end|>{% endfor %}<assistant><think>";
    let rendered = chat(always).answers(&dialogue()).unwrap();
    insta::assert_snapshot!(marked(&rendered), @"<system>Be brief.<|im_end|><user>Hi<|im_end|><assistant>⟦<answer> Hello! </answer><|im_end|>⟧<user>Bye<|im_end|><assistant>⟦<answer>Bye!</answer><|im_end|>⟧<assistant><think>");
    // No EOS token is added after it.
    assert!(rendered.other_start && !rendered.complete && !rendered.end_trained);
}

#[test]
fn calls_in_earlier_turns_are_found() {
    // As in Qwen3.5's template: earlier turns lose their empty thought; and the last turn ends with something else.
    let qwen = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.index0 > 2 or m.role == 'assistant' and loop.last %}\
        {{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ m.content }}\
        {% for c in m.tool_calls or [] %}<call>{{ c.name }}</call>{% endfor %}\
        {% if m.tool_calls and loop.last %}(wait){% endif %}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}";
    let mut row = calling(json!([{"name": "add"}]));
    row.tools = None;
    insta::assert_snapshot!(marked(&chat(qwen).answers(&row).unwrap()), @"
    <|im_start|>user
    Add.<|im_end|>
    <|im_start|>assistant
    ⟦<call>add</call><|im_end|>⟧
    <|im_start|>tool
    4<|im_end|>
    <|im_start|>assistant
    <think>
    ⟦
    </think>

    It is 4.<|im_end|>⟧
    ");
}

#[test]
fn null_content_stays_null_unless_none_is_printed() {
    // As in R1's template.
    let tests = "{% for m in messages %}<{{ m.role }}>{% if m.content is none %}{% for c in m.tool_calls %}[{{ c.name }}]{% endfor %}\
        {% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let mut row = calling(json!([{"name": "add"}]));
    row.tools = None;
    insta::assert_snapshot!(chat(tests).answers(&row).unwrap_err(), @"template `chat` does not render `tool_calls` of messages[1], which would be lost");
    row.list = ListKey::new("conversations");
    insta::assert_snapshot!(chat(tests).answers(&row).unwrap_err(), @"template `chat` does not render `tool_calls` of conversations[1], which would be lost");
    let Content::Messages(messages) = &mut row.content else {
        unreachable!()
    };
    messages[1].null_content = true;
    insta::assert_snapshot!(marked(&chat(tests).answers(&row).unwrap()), @"<user>Add.<|im_end|><assistant>⟦[add]<|im_end|>⟧<tool>4<|im_end|><assistant>⟦It is 4.<|im_end|>⟧");
    // As in GLM's template, which prints `None`; and one that fails on it.
    for content in ["m.content", "'' + m.content"] {
        let prints = format!(
            "{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ {content} }}}}{{% for c in m.tool_calls or [] %}}[{{{{ c.name }}}}]{{% endfor %}}\
            <|im_end|>{{% endfor %}}{{% if add_generation_prompt %}}<assistant>{{% endif %}}"
        );
        assert_eq!(
            marked(&chat(&prints).answers(&row).unwrap()),
            marked(&chat(tests).answers(&row).unwrap())
        );
    }
}

#[test]
fn a_template_may_split_answers() {
    // As in Qwen3's template: the last answer has a thought, and earlier answers lose theirs.
    let qwen = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if m.role == 'assistant' and loop.last %}<think>{{ m.content.split('</think>')[0] if '</think>' in m.content else '' }}</think>\
        {% endif %}{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let mut messages = dialogue().messages().unwrap();
    messages[2].content = "greet</think>Hello!".into();
    messages[4].content = "leave</think>Bye!".into();
    let row = Conversation::chat(messages);
    insta::assert_snapshot!(marked(&chat(qwen).answers(&row).unwrap()), @"
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    ⟦Hello!<|im_end|>⟧
    <|im_start|>user
    Bye<|im_end|>
    <|im_start|>assistant
    ⟦<think>leave</think>Bye!<|im_end|>⟧
    ");
}

#[test]
fn a_chat_template_may_refuse() {
    let no_system = "{% for m in messages %}{% if m.role == 'system' %}\n{{ raise_exception('System role not supported') }}{% endif %}{% endfor %}";
    let error = chat(no_system).answers(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: System role not supported (line 2)");
}

#[test]
fn an_invalid_template_is_an_error() {
    let tokenizer = with_config(&json!({"chat_template": "{% if x %}"}));
    let error = Template::named("chat", &tokenizer).unwrap_err().to_string();
    assert!(error.contains("unexpected end of input"), "{error}");
}

#[test]
fn the_date_is_used_and_remembered() {
    let dated = "{{ strftime_now('%Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let date = NaiveDate::from_ymd_opt(2024, 7, 26).unwrap();
    let template = chat(dated).dated(date);
    assert_eq!(template.date_told(), None);
    assert_eq!(
        template.prompt(&Conversation::prompt("Hi")).unwrap().text,
        "2024<user>Hi<assistant>"
    );
    assert_eq!(template.date_told(), Some(date));
}

/// As in Llama 3.1's template: a call instead of content, and tools before the first question.
const CALLS: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>\
    {% if m.tool_calls %}{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}\
    {% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// A question that a tool answers.
pub(super) fn calling(calls: Value) -> Conversation {
    let mut messages = vec![
        Message::new(Role::User, "Add."),
        Message::new(Role::Assistant, ""),
        Message::new(Role::Tool, "4"),
        Message::new(Role::Assistant, "It is 4."),
    ];
    messages[1].more = BTreeMap::from([("tool_calls".to_owned(), calls)]);
    let mut row = Conversation::chat(messages);
    row.tools = Some(json!([{"name": "add"}]));
    row
}

#[test]
fn calls_of_tools_are_answers() {
    let call = |name: &str, arguments| json!({"function": {"name": name, "arguments": arguments}});
    let row = calling(json!([
        call("add", json!({"a": 2})),
        call("add", json!({}))
    ]));
    insta::assert_snapshot!(marked(&chat(CALLS).answers(&row).unwrap()), @r#"
    [{"name": "add"}]<user>Add.<|im_end|>
    <assistant>⟦[add {"a": 2}][add {}]<|im_end|>⟧
    <tool>4<|im_end|>
    <assistant>⟦It is 4.<|im_end|>⟧
    "#);
    // As in Qwen's template: content and calls, each in its own block.
    let both = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
        {% for c in m.tool_calls or [] %}\n{{ tools | tojson }}<tool_call>{{ c.name }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let row = calling(json!([{"name": "add"}]));
    insta::assert_snapshot!(marked(&chat(both).answers(&row).unwrap()), @r#"
    <|im_start|>user
    Add.<|im_end|>
    <|im_start|>assistant
    ⟦[{"name": "add"}]<tool_call>add</tool_call><|im_end|>⟧
    <|im_start|>tool
    4<|im_end|>
    <|im_start|>assistant
    ⟦It is 4.<|im_end|>⟧
    "#);
}

#[test]
fn what_a_template_leaves_out_is_an_error() {
    let error = |source: &str, row: &Conversation| chat(source).answers(row).unwrap_err();
    let row = calling(json!([{"name": "add"}]));
    let words = "{% for m in messages %}{{ m.content }}{% endfor %}";
    insta::assert_snapshot!(error(words, &row), @"template `chat` does not render `tool_calls` of messages[1], which would be lost");
    let calls = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.name }}{% endfor %}{% endfor %}";
    insta::assert_snapshot!(error(calls, &row), @"template `chat` does not render `tools`, which would be lost");
    let turns =
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}";
    insta::assert_snapshot!(error(turns, &dialogue()), @"template `chat` does not render messages[0] (system), which would be lost");
}

#[test]
fn a_message_that_is_escaped_is_not_lost() {
    let ascii = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content | tojson(ensure_ascii=True) }}|\
        {% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}";
    let row = Conversation::chat(vec![
        Message::new(Role::User, "Köln"),
        Message::new(Role::Assistant, "yes"),
    ]);
    let text = marked(&chat(ascii).answers(&row).unwrap());
    insta::assert_snapshot!(text, @r#""K\u00f6ln"|⟦yes<|im_end|>⟧"#);
}

#[test]
fn a_call_whose_name_changes_the_text_around_it_is_an_error() {
    let by_length = "{{ tools }}{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.name }}{{ c.name | length }}{% endfor %}{{ m.content }}{% endfor %}";
    let error = chat(by_length)
        .answers(&calling(json!([{"name": "add"}])))
        .unwrap_err();
    insta::assert_snapshot!(error, @"chat template: cannot find messages[1] (assistant) in its text: the text after it depends on its content");
}

#[test]
fn marked_blocks_may_be_chosen_among() {
    let blocks = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}";
    let (no, yes) = (Some(false), Some(true));
    let show = |row: Conversation, train_on| {
        let rendered = chat(blocks).render(&row, train_on).unwrap();
        marked(&rendered).replace('\n', " ")
    };
    insta::assert_snapshot!(show(dialogue(), TrainOn::LastAnswer), @"<|im_start|>system Be brief.<|im_end|><|im_start|>user Hi<|im_end|><|im_start|>assistant  Hello! <|im_end|><|im_start|>user Bye<|im_end|><|im_start|>assistant ⟦Bye!<|im_end|>⟧");
    insta::assert_snapshot!(show(dialogue_marked([None, None, no, None, None]), TrainOn::Answers), @"<|im_start|>system Be brief.<|im_end|><|im_start|>user Hi<|im_end|><|im_start|>assistant  Hello! <|im_end|><|im_start|>user Bye<|im_end|><|im_start|>assistant ⟦Bye!<|im_end|>⟧");
    insta::assert_snapshot!(show(dialogue_marked([None, yes, None, None, yes]), TrainOn::Marked), @"<|im_start|>system Be brief.<|im_end|><|im_start|>user ⟦Hi<|im_end|>⟧<|im_start|>assistant  Hello! <|im_end|><|im_start|>user Bye<|im_end|><|im_start|>assistant ⟦Bye!<|im_end|>⟧");
}

#[test]
fn a_question_that_is_trained_on_ends_where_the_model_begins() {
    let llama_2 = "{% for m in messages %}{% if m.role == 'system' and loop.length > 1 %}{{ m.content }}\
        {% elif m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]\
        {% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}";
    let row = dialogue_marked([None, Some(true), None, Some(true), None]);
    insta::assert_snapshot!(marked(&chat(llama_2).render(&row, TrainOn::Marked).unwrap()), @"Be brief.[INST] ⟦Hi [/INST]⟧ Hello! <|im_end|>[INST] ⟦Bye [/INST]⟧ Bye! <|im_end|>");
    // The template renders nothing for a system message alone.
    let row = dialogue_marked([Some(true), None, None, None, None]);
    insta::assert_snapshot!(chat(llama_2).render(&row, TrainOn::Marked).unwrap_err(), @"chat template: cannot find messages[0] (system) in its text: no special token ends it, and its turn ends differently when later turns follow");
}

#[test]
fn everything_needs_no_spans() {
    let twice = "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}";
    let rendered = chat(twice)
        .render(&dialogue(), TrainOn::Everything)
        .unwrap();
    let whole = 0..rendered.text.len();
    assert_eq!(rendered.trained, std::slice::from_ref(&whole));
}

#[test]
fn endless_templates_are_stopped() {
    let endless = [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'text without an end' * 1000 }}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('x', 'xxxx') %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set x = 'x' * 1000000 %}{{ x.replace('x', x) }}",
    ];
    for source in endless {
        let error = chat(source).answers(&dialogue()).unwrap_err();
        assert!(matches!(error, RenderError::Endless), "{source}: {error}");
    }
    let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    insta::assert_snapshot!(chat(deep).answers(&dialogue()).unwrap_err(), @"chat template: recursion limit exceeded (line 1)");
    insta::assert_snapshot!(chat("{{ 'x' * 100000000000 }}").answers(&dialogue()).unwrap_err(), @"chat template: stopped after 2000000 steps: it loops forever, or its text grows without end");
    insta::assert_snapshot!(RenderError::Endless, @"chat template: stopped after 2000000 steps: it loops forever, or its text grows without end");
}

#[test]
fn marks_in_a_row_are_refused() {
    let row = Conversation::prompt("a\u{FFFFF}b");
    insta::assert_snapshot!(template("chat").prompt(&row).unwrap_err(), @"chat template: the user message contains U+10FFFE, U+10FFFF or U+FFFFF, noncharacters that simmer needs to mark answers");
}

/// Conversations as transformers renders them (`tests/reference/chat_templates.py`).
#[derive(Deserialize)]
struct Golden {
    chat_template: String,
    marked: String,
    bos_token: String,
    eos_token: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<MessageFile>,
    text: String,
    prompt: String,
    trained: Vec<[usize; 2]>,
}

#[derive(Deserialize)]
struct MessageFile {
    role: Role,
    content: String,
}

impl Golden {
    fn read(name: &str) -> Golden {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
        let text = std::fs::read_to_string(goldens.join(format!("chat_templates/{name}.json")));
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    fn specials(&self) -> BTreeMap<String, String> {
        let specials = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
        ];
        specials
            .map(|(key, token)| (key.to_owned(), token.clone()))
            .into()
    }

    fn chat(&self, source: &str) -> Template {
        let ends = vec![self.eos_token.clone()];
        let chat = Chat::parse(source, &self.specials(), ends.clone(), ends).unwrap();
        Template {
            name: "chat".into(),
            source: source.to_owned(),
            kind: Kind::Chat(Box::new(chat)),
        }
    }

    fn plain(&self, name: &str) -> Template {
        let (_, file) = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
        let plain = Plain::parse(name, file, &self.specials()).unwrap();
        Template {
            name: name.into(),
            source: (*file).to_owned(),
            kind: Kind::Plain(Box::new(plain)),
        }
    }

    fn check(self, template: &Template) {
        assert!(self.cases.len() >= 20);
        for case in self.cases {
            let messages = case.messages.into_iter();
            let messages = messages.map(|m| Message::new(m.role, m.content)).collect();
            let row = Conversation::chat(messages);
            let rendered = template.answers(&row).unwrap();
            assert_eq!(rendered.text, case.text);
            let trained = rendered.trained.iter().map(|span| [span.start, span.end]);
            assert_eq!(trained.collect::<Vec<_>>(), case.trained, "{}", case.text);
            assert_eq!(template.prompt(&row).unwrap().text, case.prompt);
        }
    }
}

#[test]
fn chat_templates_give_what_transformers_gives() {
    for name in ["llama-2-chat", "llama-3", "chatml", "smollm2"] {
        let golden = Golden::read(name);
        let template = golden.chat(&golden.chat_template);
        golden.check(&template);
        let golden = Golden::read(name);
        let template = golden.chat(&golden.marked);
        golden.check(&template);
    }
}

#[test]
fn plain_templates_of_chats_give_the_same() {
    for name in ["llama-2-chat", "llama-3", "chatml"] {
        let golden = Golden::read(name);
        let template = golden.plain(name);
        golden.check(&template);
    }
}

#[test]
fn arguments_take_the_form_that_the_template_prints_as_json() {
    let call = |arguments: Value| calling(json!([{"name": "add", "arguments": arguments}]));
    let source = |arguments: &str| {
        format!(
            "{{{{ tools }}}}{{% for m in messages %}}<{{{{ m.role }}}}>{{% for c in m.tool_calls or [] %}}{{{{ c.name }}}}{arguments}{{% endfor %}}{{{{ m.content }}}}<|im_end|>{{% endfor %}}{{% if add_generation_prompt %}}<assistant>{{% endif %}}"
        )
    };
    let text = |source: &str, arguments: Value| {
        chat(source)
            .answers(&call(arguments))
            .map(|rendered| rendered.text)
    };
    let (object, as_text) = (json!({"x": "é"}), json!(r#"{"x": "é"}"#));
    let twice = source("{{ c.arguments | tojson }}");
    assert_eq!(
        text(&twice, as_text.clone()).unwrap(),
        text(&twice, object.clone()).unwrap()
    );
    let printed = source("{{ c.arguments }}");
    assert!(
        text(&printed, as_text.clone())
            .unwrap()
            .contains(r#"add{"x": "é"}"#)
    );
    assert_eq!(
        chat(&printed)
            .answers(&call(as_text.clone()))
            .unwrap()
            .oddities
            .spellings,
        None
    );
    let items = source("{% for k, v in c.arguments.items() %}{{ k }}={{ v }}{% endfor %}");
    assert_eq!(
        text(&items, as_text).unwrap(),
        text(&items, object).unwrap()
    );
    let error = text(&items, json!("Rome")).unwrap_err().to_string();
    assert!(
        error.contains("`messages[1].tool_calls[0].arguments` is text"),
        "{error}"
    );
}

#[test]
fn fields_that_the_template_does_not_print_are_lost() {
    let mut messages = dialogue().messages().unwrap();
    messages[2]
        .more
        .insert("thinking".into(), json!("a thought"));
    let row = Conversation::chat(messages.clone());
    let body = |thought: &str| {
        format!(
            "{{% for m in messages %}}<{{{{ m.role }}}}>{thought}{{{{ m.content }}}}<|im_end|>{{% endfor %}}{{% if add_generation_prompt %}}<assistant>{{% endif %}}"
        )
    };
    insta::assert_snapshot!(chat(&body("")).answers(&row).unwrap_err(), @"template `chat` does not render the thought (`reasoning_content`, `thinking`) of messages[2], which would be lost");
    let last = chat(&body(
        "{% if loop.last %}{{ m.reasoning_content }}{% endif %}",
    ));
    assert!(last.answers(&row).is_ok());
    assert_eq!(
        last.answers(&row).unwrap().oddities.lost,
        ["the thought (`reasoning_content`, `thinking`) of messages[2]"]
    );
    let all = chat(&body("{{ m.reasoning_content }}"));
    assert!(all.answers(&row).unwrap().text.contains("a thought"));
    messages[1].more.insert("name".into(), json!("Bob"));
    let row = Conversation::chat(messages);
    insta::assert_snapshot!(all.answers(&row).unwrap_err(), @"template `chat` does not render `name` of messages[1], which would be lost");
}

/// A conversation with two answers in a row.
fn two_answers() -> Conversation {
    let mut messages = dialogue().messages().unwrap();
    messages.retain(|message| message.role != Role::System);
    let second = Message::new(Role::Assistant, "Again.");
    messages.insert(2, second);
    Conversation::chat(messages)
}

#[test]
fn the_header_of_a_second_answer_is_not_trained_on() {
    // As Apriel 1.6: no generation prompt after an answer, and no end of the last turn.
    let ended_if_not_last = "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}\n\
        {% else %}<bot>\n{{ m.content }}{% if not loop.last %}\n<end>\n{% endif %}{% endif %}{% endfor %}\
        {% if add_generation_prompt and messages[-1].role != 'assistant' %}<bot>\nThoughts:\n{% endif %}";
    insta::assert_snapshot!(marked(&chat(ended_if_not_last).answers(&two_answers()).unwrap()), @"
    <user>Hi
    <bot>
    ⟦ Hello! ⟧<end>
    <bot>
    ⟦Again.⟧<end>
    <user>Bye
    <bot>
    ⟦Bye!⟧
    ");
    // As Reka Edge and GigaChat 3: words before the mark that ends a header.
    let words = "{% for m in messages %}{{ m.role }}<sep>\n{{ m.content }}{{ eos_token }}\n{% endfor %}\
        {% if add_generation_prompt and messages[-1].role == 'user' %}assistant<sep>\n{% endif %}";
    insta::assert_snapshot!(marked(&chat(words).answers(&two_answers()).unwrap()), @"
    user<sep>
    Hi<|im_end|>
    assistant<sep>
    ⟦ Hello! <|im_end|>⟧
    assistant<sep>
    ⟦Again.<|im_end|>⟧
    user<sep>
    Bye<|im_end|>
    assistant<sep>
    ⟦Bye!<|im_end|>⟧
    ");
    // As Mistral: an answer has no header, so nothing is before the second.
    let without = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]\
        {% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
    insta::assert_snapshot!(marked(&chat(without).answers(&two_answers()).unwrap()), @"[INST] Hi [/INST]⟦  Hello! <|im_end|> Again.<|im_end|>⟧[INST] Bye [/INST]⟦ Bye!<|im_end|>⟧");
    // A second answer with a header of its own.
    let other = "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}\n\
        {% else %}{{ '<more>' if loop.index0 > 0 and messages[loop.index0 - 1].role == 'assistant' else '<bot>' }}{{ m.content }}\
        {{ eos_token }}{% endif %}{% endfor %}\
        {% if add_generation_prompt and messages[-1].role != 'assistant' %}<bot>{% endif %}";
    insta::assert_snapshot!(chat(other).answers(&two_answers()).unwrap_err(), @"chat template: cannot find messages[2] (assistant) in its text: it follows another answer, and the template has no generation prompt there");
    // Templates with a generation prompt after every message know where a second answer starts.
    let dialogue = two_answers();
    assert!(marked(&template("chat").answers(&dialogue).unwrap()).contains("assistant\n⟦Again."));
}
