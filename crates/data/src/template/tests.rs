use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::conversation::{Content, Message, Role};
use crate::tokenizer::tests::{tiny, with_config};

/// A row with every answer between ⟦ and ⟧, as people read it.
fn marked(rendered: &Rendered) -> String {
    let mut text = rendered.text.clone();
    for span in rendered.trained.iter().rev() {
        text.insert(span.end, '⟧');
        text.insert(span.start, '⟦');
    }
    text
}

fn instruction(input: Option<&str>) -> Conversation {
    Conversation::new(Content::Instruction {
        system: None,
        instruction: "Name the capital.".into(),
        input: input.map(Into::into),
        output: Some("Paris".into()),
    })
}

fn dialogue() -> Conversation {
    Conversation::chat(vec![
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Hi"),
        Message::new(Role::Assistant, " Hello! "),
        Message::new(Role::User, "Bye"),
        Message::new(Role::Assistant, "Bye!"),
    ])
}

fn template(name: &str) -> Template {
    Template::named(name, &tiny()).unwrap()
}

/// The chat template `source` with the tiny tokenizer's special tokens.
fn chat(source: &str) -> Template {
    let tokenizer = with_config(&json!({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": source,
    }));
    Template::named("chat", &tokenizer).unwrap()
}

#[test]
fn alpaca_has_no_line_break_before_the_answer() {
    let alpaca = template("alpaca");
    insta::assert_snapshot!(marked(&alpaca.render(&instruction(None)).unwrap()), @"
    Below is an instruction that describes a task. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Response:⟦Paris⟧
    ");
    insta::assert_snapshot!(marked(&alpaca.render(&instruction(Some("France"))).unwrap()), @"
    Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Input:
    France

    ### Response:⟦Paris⟧
    ");
}

#[test]
fn alpaca_lora_has_one() {
    let alpaca_lora = template("alpaca-lora");
    insta::assert_snapshot!(marked(&alpaca_lora.render(&instruction(None)).unwrap()), @"
    Below is an instruction that describes a task. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Response:
    ⟦Paris⟧
    ");
    insta::assert_snapshot!(marked(&alpaca_lora.render(&instruction(Some("France"))).unwrap()), @"
    Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Input:
    France

    ### Response:
    ⟦Paris⟧
    ");
}

#[test]
fn completion_joins_its_parts_as_they_are() {
    let row = Conversation::new(Content::Completion {
        prompt: "2 + 2 =".into(),
        completion: Some(" 4".into()),
    });
    insta::assert_snapshot!(marked(&template("completion").render(&row).unwrap()), @"2 + 2 =⟦ 4⟧");
    let text = Conversation::new(Content::Text("All of it.".into()));
    insta::assert_snapshot!(marked(&template("completion").render(&text).unwrap()), @"⟦All of it.⟧");
}

#[test]
fn chatml_answers_end_with_their_token() {
    insta::assert_snapshot!(marked(&template("chat").render(&dialogue()).unwrap()), @"
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
    insta::assert_snapshot!(marked(&template("chat").render(&instruction(Some("France"))).unwrap()), @"
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
        {% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]\
        {% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}\
        {% endif %}{% endfor %}";
    insta::assert_snapshot!(marked(&chat(llama_2).render(&dialogue()).unwrap()), @"<|im_start|>[INST] Hi [/INST]⟦ Hello! <|im_end|>⟧[INST] Bye [/INST]⟦ Bye! <|im_end|>⟧");
}

#[test]
fn answers_without_an_end_token_end_with_their_turn() {
    let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% endif %}";
    insta::assert_snapshot!(marked(&chat(plain).render(&dialogue()).unwrap()), @"
    system: Be brief.
    user: Hi
    assistant: ⟦ Hello! 
    ⟧user: Bye
    assistant: ⟦Bye!
    ⟧
    ");
}

#[test]
fn earlier_turns_may_be_written_anew() {
    // As Mistral's: the system message goes into the last question.
    let mistral = "{% for m in messages %}\
        {% if m.role == 'user' %}[INST] {% if loop.index0 >= messages|length - 2 %}{{ messages[0].content }} {% endif %}{{ m.content }} [/INST]\
        {% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}\
        {% endif %}{% endfor %}";
    insta::assert_snapshot!(marked(&chat(mistral).render(&dialogue()).unwrap()), @"[INST] Hi [/INST]⟦  Hello! <|im_end|>⟧[INST] Be brief. Bye [/INST]⟦ Bye!<|im_end|>⟧");
}

#[test]
fn generation_blocks_are_believed_and_end_with_their_token() {
    let with_blocks = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\
        <|im_end|>\n{% endfor %}";
    insta::assert_snapshot!(marked(&chat(with_blocks).render(&dialogue()).unwrap()), @"
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
}

#[test]
fn an_answer_that_cannot_be_found_is_an_error() {
    let twice = "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}";
    let error = chat(twice).render(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: cannot tell which part of its text is messages[2], the assistant's: its content does not appear once");
    let by_length = "{% for m in messages %}{{ m.content }} {{ m.content | length }}{% endfor %}";
    let error = chat(by_length).render(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: cannot tell which part of its text is messages[2], the assistant's: the text after it depends on its content");
    // The prompt that would be generated from opens a thought that no training text has.
    let thinks = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}\
        {% if add_generation_prompt %}<assistant><think>{% endif %}";
    let error = chat(thinks).render(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: cannot tell which part of its text is messages[2], the assistant's: the generation prompt is not how the answer's turn begins");
}

#[test]
fn a_template_may_take_answers_apart() {
    // As Qwen3's: every last answer has a thought, and earlier ones lose theirs.
    let qwen = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if m.role == 'assistant' and loop.last %}<think>{{ m.content.split('</think>')[0] if '</think>' in m.content else '' }}</think>\
        {% endif %}{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let mut messages = dialogue().messages().unwrap();
    messages[2].content = "greet</think>Hello!".into();
    messages[4].content = "leave</think>Bye!".into();
    let row = Conversation::chat(messages);
    insta::assert_snapshot!(marked(&chat(qwen).render(&row).unwrap()), @"
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
    let error = chat(no_system).render(&dialogue()).unwrap_err();
    insta::assert_snapshot!(error, @"chat template: System role not supported (line 2)");
}

#[test]
fn a_template_without_sense_is_an_error() {
    let tokenizer = with_config(&json!({"chat_template": "{% if x %}"}));
    let error = Template::named("chat", &tokenizer).unwrap_err().to_string();
    assert!(error.contains("unexpected end of input"), "{error}");
}

#[test]
fn the_date_is_told_and_remembered() {
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

#[test]
fn a_prompt_is_how_training_text_begins() {
    let rows = [instruction(None), instruction(Some("France"))];
    for name in ["alpaca", "alpaca-lora", "chat"] {
        for row in &rows {
            let (whole, prompt) = (
                template(name).render(row).unwrap(),
                template(name).prompt(row).unwrap(),
            );
            assert_eq!(prompt.text, whole.text[..whole.trained[0].start]);
        }
    }
    let prompt = template("alpaca")
        .prompt(&Conversation::prompt("Name the capital."))
        .unwrap();
    assert_eq!(prompt, template("alpaca").prompt(&rows[0]).unwrap());
}

#[test]
fn a_row_that_does_not_fit_is_an_error() {
    let rows = [
        ("completion", instruction(None)),
        ("alpaca", dialogue()),
        (
            "alpaca",
            Conversation::chat(dialogue().messages().unwrap()[..2].to_vec()),
        ),
        ("chat", Conversation::new(Content::Text("Text.".into()))),
    ];
    let errors = rows.map(|(name, row)| template(name).render(&row).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"), @"
    template `completion` does not render instruction/output rows
    template `alpaca` renders one question and its answer; this row has 4 messages
    template `alpaca` has no place for system + instruction together; it has instruction + input + output; instruction + output
    template `chat` does not render text rows
    ");
}

#[test]
fn unknown_names_are_errors() {
    insta::assert_snapshot!(Template::named("alpacca", &tiny()).unwrap_err(), @"no template is named `alpacca`; there are alpaca, alpaca-lora, completion, chat");
    insta::assert_snapshot!(Template::named("mine.toml", &tiny()).unwrap_err(), @"cannot read mine.toml: No such file or directory (os error 2)");
    let base = with_config(&json!({}));
    let error = Template::named("chat", &base).unwrap_err().to_string();
    assert!(
        error.ends_with("the tokenizer has no chat template named `default`; it has none"),
        "{error}"
    );
}

#[test]
fn a_wrong_template_file_says_where() {
    let specials = BTreeMap::new();
    let parse = |text: &str| {
        let file = format!("accepts = [\"completion\"]\n[[variants]]\ntext = \"{text}\"");
        match Plain::parse("mine", &file, &specials) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let texts = [
        "{prompt}[[{completion}]]",
        "{prompt} {completion}",
        "{prompt}[[{completion}",
        "{prompt}[[{answer}]]",
        "{prompt}{prompt}[[{completion}]]",
        "{prompt}]][[{completion}]]",
        "{prompt}",
        "{prompt[[{completion}]]",
        "{prompt}[[{completion}{eos}]]",
    ];
    insta::assert_snapshot!(texts.map(parse).join("\n"), @"
    accepted
    template mine: variants[0]: {output} stands outside `[[` and `]]`, so it would not be trained on
    template mine: variants[0]: `[[` without `]]`
    template mine: variants[0]: unknown {answer}; there are {system}, {instruction}, {prompt}, {input}, {output}, {response}, {completion}, {text}, {bos}, {eos}
    template mine: variants[0]: {instruction} stands there twice
    template mine: variants[0]: `]]` without `[[`
    template mine: variants[0]: nothing is marked to be trained on: enclose the answer in `[[` and `]]`
    template mine: variants[0]: unknown {prompt[[{completion}; there are {system}, {instruction}, {prompt}, {input}, {output}, {response}, {completion}, {text}, {bos}, {eos}
    template mine: variants[0]: {eos}: the tokenizer names no eos_token
    ");
}

#[test]
fn braces_and_brackets_can_be_written() {
    let specials = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
    let file = "accepts = [\"completion\"]\n[[variants]]\ntext = \"[INST] {{x}} {prompt} [/INST] [[{completion} {eos}]]\"";
    let template = Plain::parse("mine", file, &specials).unwrap();
    let row = Conversation::new(Content::Completion {
        prompt: "Hi {you}".into(),
        completion: Some("[[Hello]]".into()),
    });
    insta::assert_snapshot!(marked(&template.render(&row).unwrap()), @"[INST] {x} Hi {you} [/INST] ⟦[[Hello]] </s>⟧");
}
