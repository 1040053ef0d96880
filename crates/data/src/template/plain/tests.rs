use std::collections::BTreeMap;

use super::super::tests::*;
use super::super::*;
use super::Plain;
use crate::conversation::{Content, ListKey, Message};

fn specials() -> BTreeMap<String, String> {
    let specials = [("bos_token", "<s>"), ("eos_token", "</s>")];
    specials
        .map(|(key, token)| (key.to_owned(), token.to_owned()))
        .into()
}

fn plain(name: &str) -> Template {
    let (_, file) = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
    Template {
        name: name.into(),
        source: (*file).to_owned(),
        kind: Kind::Plain(Box::new(Plain::parse(name, file, &specials()).unwrap())),
    }
}

/// A question, a question with input, and a conversation without and with a system message, rendered by the template.
fn shown(name: &str) -> String {
    let mut later = dialogue().messages().unwrap();
    later.remove(0);
    let rows = [
        instruction(None),
        instruction(Some("France")),
        Conversation::chat(later),
        dialogue(),
    ];
    let show = |row: &Conversation| match plain(name).answers(row) {
        Ok(rendered) => marked(&rendered),
        Err(error) => format!("({error})"),
    };
    rows.iter().map(show).collect::<Vec<_>>().join("\n-----\n")
}

#[test]
fn alpaca() {
    insta::assert_snapshot!(shown("alpaca"), @"
    Below is an instruction that describes a task. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Response:⟦Paris⟧
    -----
    Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Input:
    France

    ### Response:⟦Paris⟧
    -----
    (template `alpaca` renders one question and its answer; this row has 4 messages)
    -----
    (template `alpaca` renders one question and its answer; this row has 4 messages)
    ");
}

#[test]
fn alpaca_short() {
    insta::assert_snapshot!(shown("alpaca-short"), @"
    ### Instruction:
    Name the capital.

    ### Response:
    ⟦Paris⟧
    -----
    ### Instruction:
    Name the capital.

    ### Input:
    France

    ### Response:
    ⟦Paris⟧
    -----
    (template `alpaca-short` renders one question and its answer; this row has 4 messages)
    -----
    (template `alpaca-short` renders one question and its answer; this row has 4 messages)
    ");
}

#[test]
fn alpaca_lora() {
    insta::assert_snapshot!(shown("alpaca-lora"), @"
    Below is an instruction that describes a task. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Response:
    ⟦Paris⟧
    -----
    Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.

    ### Instruction:
    Name the capital.

    ### Input:
    France

    ### Response:
    ⟦Paris⟧
    -----
    (template `alpaca-lora` renders one question and its answer; this row has 4 messages)
    -----
    (template `alpaca-lora` renders one question and its answer; this row has 4 messages)
    ");
}

#[test]
fn vicuna_v0() {
    insta::assert_snapshot!(shown("vicuna-v0"), @"
    A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.

    ### Human: Name the capital.
    ⟦### Assistant: Paris
    ⟧
    -----
    A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.

    ### Human: Name the capital.

    France
    ⟦### Assistant: Paris
    ⟧
    -----
    A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.

    ### Human: Hi
    ⟦### Assistant:  Hello!·
    ⟧### Human: Bye
    ⟦### Assistant: Bye!
    ⟧
    -----
    Be brief.

    ### Human: Hi
    ⟦### Assistant:  Hello!·
    ⟧### Human: Bye
    ⟦### Assistant: Bye!
    ⟧
    ");
}

#[test]
fn vicuna_v1_1() {
    insta::assert_snapshot!(shown("vicuna-v1.1"), @"
    A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: Name the capital. ASSISTANT:⟦ Paris</s>⟧
    -----
    A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: Name the capital.

    France ASSISTANT:⟦ Paris</s>⟧
    -----
    A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: Hi ASSISTANT:⟦  Hello! </s>⟧USER: Bye ASSISTANT:⟦ Bye!</s>⟧
    -----
    Be brief. USER: Hi ASSISTANT:⟦  Hello! </s>⟧USER: Bye ASSISTANT:⟦ Bye!</s>⟧
    ");
}

#[test]
fn koala() {
    insta::assert_snapshot!(shown("koala"), @"
    BEGINNING OF CONVERSATION: USER: Name the capital. GPT:⟦ Paris</s>⟧
    -----
    BEGINNING OF CONVERSATION: USER: Name the capital.

    France GPT:⟦ Paris</s>⟧
    -----
    BEGINNING OF CONVERSATION: USER: Hi GPT:⟦  Hello! </s>⟧USER: Bye GPT:⟦ Bye!</s>⟧
    -----
    (template `koala` does not render a system message, which would be lost)
    ");
}

#[test]
fn baize() {
    insta::assert_snapshot!(shown("baize"), @"
    The conversation between human and AI assistant.
    [|Human|] Name the capital.
    [|AI|]⟦ Paris
    [|Human|]⟧·
    -----
    The conversation between human and AI assistant.
    [|Human|] Name the capital.

    France
    [|AI|]⟦ Paris
    [|Human|]⟧·
    -----
    The conversation between human and AI assistant.
    [|Human|] Hi
    [|AI|]⟦  Hello!·
    [|Human|]⟧ Bye
    [|AI|]⟦ Bye!
    [|Human|]⟧·
    -----
    Be brief.
    [|Human|] Hi
    [|AI|]⟦  Hello!·
    [|Human|]⟧ Bye
    [|AI|]⟦ Bye!
    [|Human|]⟧·
    ");
}

#[test]
fn gpt4all() {
    insta::assert_snapshot!(shown("gpt4all"), @"
    Name the capital.
    ⟦Paris⟧
    -----
    (template `gpt4all` does not render instruction + input + output together; it renders instruction + output)
    -----
    (template `gpt4all` renders one question and its answer; this row has 4 messages)
    -----
    (template `gpt4all` renders one question and its answer; this row has 4 messages)
    ");
}

#[test]
fn chatdoctor() {
    insta::assert_snapshot!(shown("chatdoctor"), @"
    Below is an instruction that describes a task. Write a response that appropriately completes the request.··

                    ### Instruction:
                    Name the capital.
    ················
                    ### Response:
                   ⟦ Paris⟧
    -----
    Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.·

                    ### Instruction:
                    Name the capital.
    ················
                    ### Input:
                    France
    ················
                    ### Response:
                   ⟦ Paris⟧
    -----
    (template `chatdoctor` renders one question and its answer; this row has 4 messages)
    -----
    (template `chatdoctor` renders one question and its answer; this row has 4 messages)
    ");
}

#[test]
fn llama_2_chat() {
    insta::assert_snapshot!(shown("llama-2-chat"), @"
    <s>[INST] Name the capital. [/INST]⟦ Paris </s>⟧
    -----
    <s>[INST] Name the capital.

    France [/INST]⟦ Paris </s>⟧
    -----
    <s>[INST] Hi [/INST]⟦ Hello! </s>⟧<s>[INST] Bye [/INST]⟦ Bye! </s>⟧
    -----
    <s>[INST] <<SYS>>
    Be brief.
    <</SYS>>

    Hi [/INST]⟦ Hello! </s>⟧<s>[INST] Bye [/INST]⟦ Bye! </s>⟧
    ");
}

#[test]
fn llama_3() {
    insta::assert_snapshot!(shown("llama-3"), @"
    <s><|start_header_id|>user<|end_header_id|>

    Name the capital.<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦Paris<|eot_id|>⟧
    -----
    <s><|start_header_id|>user<|end_header_id|>

    Name the capital.

    France<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦Paris<|eot_id|>⟧
    -----
    <s><|start_header_id|>user<|end_header_id|>

    Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦Hello!<|eot_id|>⟧<|start_header_id|>user<|end_header_id|>

    Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦Bye!<|eot_id|>⟧
    -----
    <s><|start_header_id|>system<|end_header_id|>

    Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

    Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦Hello!<|eot_id|>⟧<|start_header_id|>user<|end_header_id|>

    Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦Bye!<|eot_id|>⟧
    ");
}

#[test]
fn chatml() {
    insta::assert_snapshot!(shown("chatml"), @"
    <|im_start|>user
    Name the capital.<|im_end|>
    <|im_start|>assistant
    ⟦Paris<|im_end|>⟧

    -----
    <|im_start|>user
    Name the capital.

    France<|im_end|>
    <|im_start|>assistant
    ⟦Paris<|im_end|>⟧

    -----
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    ⟦ Hello! <|im_end|>⟧
    <|im_start|>user
    Bye<|im_end|>
    <|im_start|>assistant
    ⟦Bye!<|im_end|>⟧

    -----
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
fn completion_joins_its_parts_as_they_are() {
    let row = Conversation::new(Content::Completion {
        prompt: "2 + 2 =".into(),
        completion: Some(" 4".into()),
    });
    insta::assert_snapshot!(marked(&plain("completion").answers(&row).unwrap()), @"2 + 2 =⟦ 4⟧");
    let text = Conversation::new(Content::Text("All of it.".into()));
    insta::assert_snapshot!(marked(&plain("completion").answers(&text).unwrap()), @"⟦All of it.⟧");
}

#[test]
fn prompts_are_how_the_answer_begins_in_training() {
    for (name, _) in BUILT_IN {
        let template = plain(name);
        let question = Conversation::prompt("Name the capital.");
        let answered = Conversation::new(Content::Completion {
            prompt: "Name the capital.".into(),
            completion: Some("Paris".into()),
        });
        let whole = template.answers(&answered).unwrap().text;
        let prompt = template.prompt(&question).unwrap();
        let rest = whole.strip_prefix(&prompt.text).unwrap();
        assert!(rest.trim_start().starts_with("Paris"), "{name}: {rest}");
        assert_eq!(prompt, template.prompt(&answered).unwrap(), "{name}");
    }
}

#[test]
fn a_prompt_continues_a_conversation() {
    let mut messages = dialogue().messages().unwrap();
    messages.pop();
    let prompt = plain("vicuna-v1.1")
        .prompt(&Conversation::chat(messages))
        .unwrap();
    insta::assert_snapshot!(prompt.text, @"Be brief. USER: Hi ASSISTANT:  Hello! </s>USER: Bye ASSISTANT:");
    insta::assert_snapshot!(plain("vicuna-v0").prompt(&Conversation::prompt("Hi")).unwrap().text, @"
    A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.

    ### Human: Hi
    ### Assistant:
    ");
}

#[test]
fn nothing_of_a_row_is_lost() {
    let mut tools = dialogue();
    tools.tools = Some(serde_json::json!([]));
    let with = |change: &dyn Fn(&mut Vec<Message>)| {
        let mut messages = dialogue().messages().unwrap();
        change(&mut messages);
        Conversation::chat(messages)
    };
    let rows = [
        ("chatml", tools),
        (
            "chatml",
            with(&|m| _ = m[1].more.insert("name".into(), "Ann".into())),
        ),
        (
            "chatml",
            with(&|m| m.push(Message::new(Role::System, "Now."))),
        ),
        ("vicuna-v1.1", with(&|m| m[3].role = Role::Tool)),
        ("koala", dialogue()),
        ("llama-2-chat", with(&|m| m.truncate(1))),
        ("gpt4all", instruction(Some("France"))),
    ];
    let errors = rows.map(|(name, row)| plain(name).answers(&row).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"), @"
    template `chatml` does not render `tools`, which would be lost
    template `chatml` does not render `name` of messages[1], which would be lost
    template `chatml` does not render messages[5] (system), which would be lost
    template `vicuna-v1.1` does not render messages[3] (tool), which would be lost
    template `koala` does not render a system message, which would be lost
    template `llama-2-chat` does not render a system message without a user message after it, which would be lost
    template `gpt4all` does not render instruction + input + output together; it renders instruction + output
    ");
}

#[test]
fn marked_turns_are_found_or_refused() {
    let yes = Some(true);
    let show =
        |name: &str, marks| match plain(name).render(&dialogue_marked(marks), TrainOn::Marked) {
            Ok(rendered) => marked(&rendered),
            Err(error) => error.to_string(),
        };
    insta::assert_snapshot!(show("vicuna-v1.1", [None, yes, None, None, yes]), @"Be brief. USER:⟦ Hi ⟧ASSISTANT:  Hello! </s>USER: Bye ASSISTANT:⟦ Bye!</s>⟧");
    insta::assert_snapshot!(show("vicuna-v1.1", [yes, None, None, None, None]), @"template `vicuna-v1.1` does not mark messages[0] in its text, which is to be trained on");
    insta::assert_snapshot!(show("llama-2-chat", [yes, yes, None, yes, None]), @"
    <s>[INST] ⟦<<SYS>>
    Be brief.
    <</SYS>>

    Hi [/INST]⟧ Hello! </s><s>[INST] ⟦Bye [/INST]⟧ Bye! </s>
    ");
    insta::assert_snapshot!(show("llama-2-chat", [None, yes, None, None, None]), @"template `llama-2-chat` does not mark messages[1] in its text, which is to be trained on");
    let mut messages = dialogue().messages().unwrap()[1..3].to_vec();
    messages[0].train = yes;
    let error = plain("alpaca")
        .render(&Conversation::chat(messages), TrainOn::Marked)
        .unwrap_err();
    insta::assert_snapshot!(error, @"template `alpaca` does not mark messages[0] in its text, which is to be trained on");
}

#[test]
fn messages_are_named_by_the_key_of_the_row() {
    let mut row = dialogue();
    row.list = ListKey::new("conversations");
    let Content::Messages(messages) = &mut row.content else {
        unreachable!()
    };
    messages[3].role = Role::Tool;
    messages[1].train = Some(true);
    let refused = |name: &str, row: &Conversation| {
        let rendered = plain(name).render(row, TrainOn::Marked);
        rendered.unwrap_err().to_string()
    };
    let tool = refused("vicuna-v1.1", &row);
    let mut row = dialogue_marked([None, Some(true), None, None, None]);
    row.list = ListKey::new("conversations");
    let unmarked = refused("llama-2-chat", &row);
    insta::assert_snapshot!([tool, unmarked].join("\n"), @"
    template `vicuna-v1.1` does not render conversations[3] (tool), which would be lost
    template `llama-2-chat` does not mark conversations[1] in its text, which is to be trained on
    ");
}

#[test]
fn an_invalid_template_of_turns_names_the_problem() {
    let parse = |turns: &str| {
        let file = format!("accepts = [\"messages\"]\n[turns]\n{turns}");
        match Plain::parse("mine", &file, &specials()) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let assistant = "assistant = \"[[{assistant}]]\"";
    let files = [
        format!("user = \"{{user}}\"\n{assistant}"),
        "user = \"{user}\"\nassistant = \"{assistant}\"".to_owned(),
        format!("user = \"[[Q]] {{user}}\"\n{assistant}"),
        format!("user = \"Q\"\n{assistant}"),
        format!("user = \"{{system}}{{user}}\"\n{assistant}"),
        format!("user = \"{{prompt}}\"\n{assistant}"),
        format!("begin = \"[[{{system}}]]\"\nuser = \"{{user}}\"\n{assistant}"),
        format!("end = \"{{user}}\"\nuser = \"{{user}}\"\n{assistant}"),
        format!("default_system = \"S\"\nuser = \"{{user}}\"\n{assistant}"),
    ];
    insta::assert_snapshot!(files.map(|file| parse(&file)).join("\n"), @"
    accepted
    template mine: turns.assistant: {assistant} is outside `[[` and `]]`, so it would not be trained on
    template mine: turns.user: {user} is outside `[[` and `]]`, so it would not be trained on
    template mine: turns.user: missing {user}
    template mine: turns.user: {system} is not allowed here
    template mine: turns.user: unknown {prompt}; known are {system}, {user}, {assistant}, {tool}, {bos}, {eos}
    template mine: turns.begin: `[[` is not allowed here: this text is never trained on
    template mine: turns.end: {user} is not allowed here
    template mine: turns.default_system: it needs `system`, or {system} in `begin`
    ");
    let both = "accepts = [\"messages\"]\n[turns]\nuser = \"{user}\"\nassistant = \"[[{assistant}]]\"\n[[variants]]\ntext = \"[[{output}]]\"";
    insta::assert_snapshot!(Plain::parse("mine", both, &specials()).unwrap_err(), @"template mine: expected either [turns] or [[variants]]");
    insta::assert_snapshot!(Plain::parse("mine", "accepts = []", &specials()).unwrap_err(), @"template mine: expected either [turns] or [[variants]]");
    let text = both
        .split("[[variants]]")
        .next()
        .unwrap()
        .replace("messages", "text");
    insta::assert_snapshot!(Plain::parse("mine", &text, &specials()).unwrap_err(), @"template mine: accepts: a `text` row has no turns");
}

#[test]
fn an_invalid_template_file_names_the_place() {
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
    template mine: variants[0]: {output} is outside `[[` and `]]`, so it would not be trained on
    template mine: variants[0]: `[[` without `]]`
    template mine: variants[0]: unknown {answer}; known are {system}, {instruction}, {prompt}, {input}, {output}, {response}, {completion}, {text}, {bos}, {eos}
    template mine: variants[0]: duplicate {instruction}
    template mine: variants[0]: `]]` without `[[`
    template mine: variants[0]: nothing is marked to be trained on: enclose the answer in `[[` and `]]`
    template mine: variants[0]: unknown {prompt[[{completion}; known are {system}, {instruction}, {prompt}, {input}, {output}, {response}, {completion}, {text}, {bos}, {eos}
    template mine: variants[0]: {eos}: the tokenizer has no eos_token
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
    let template = Template {
        name: "mine".into(),
        source: file.to_owned(),
        kind: Kind::Plain(Box::new(template)),
    };
    insta::assert_snapshot!(marked(&template.answers(&row).unwrap()), @"[INST] {x} Hi {you} [/INST] ⟦[[Hello]] </s>⟧");
}
