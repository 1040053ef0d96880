use serde_json::json;

use super::*;
use crate::conversation::Content;
use crate::tokenizer::tests::{tiny, with_config};

/// The text of a row with the trained spans between ⟦ and ⟧; spaces at the ends of lines become dots.
pub(super) fn marked(rendered: &Rendered) -> String {
    let mut text = rendered.text.clone();
    for span in rendered.trained.iter().rev() {
        text.insert(span.end, '⟧');
        text.insert(span.start, '⟦');
    }
    let lines = text.split('\n').map(|line| {
        let end = line.trim_end_matches(' ');
        format!("{end}{}", "·".repeat(line.len() - end.len()))
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) fn instruction(input: Option<&str>) -> Conversation {
    Conversation::new(Content::Instruction {
        system: None,
        instruction: "Name the capital.".into(),
        input: input.map(Into::into),
        output: Some("Paris".into()),
    })
}

pub(super) fn dialogue() -> Conversation {
    Conversation::chat(vec![
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Hi"),
        Message::new(Role::Assistant, " Hello! "),
        Message::new(Role::User, "Bye"),
        Message::new(Role::Assistant, "Bye!"),
    ])
}

/// The dialogue, some of its messages marked to be trained on or not.
pub(super) fn dialogue_marked(marks: [Option<bool>; 5]) -> Conversation {
    let mut messages = dialogue().messages().unwrap();
    for (message, mark) in messages.iter_mut().zip(marks) {
        message.train = mark;
    }
    Conversation::chat(messages)
}

pub(super) fn template(name: &str) -> Template {
    Template::named(name, &tiny()).unwrap()
}

impl Template {
    /// Renders the row, to be trained on its answers.
    pub(super) fn answers(&self, row: &Conversation) -> Result<Rendered, RenderError> {
        self.render(row, TrainOn::Answers)
    }
}

#[test]
fn a_prompt_is_how_training_text_begins() {
    let rows = [instruction(None), instruction(Some("France"))];
    for name in ["alpaca", "alpaca-lora", "chat"] {
        for row in &rows {
            let (whole, prompt) = (
                template(name).answers(row).unwrap(),
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
        ("koala", dialogue()),
        (
            "alpaca",
            Conversation::chat(dialogue().messages().unwrap()[..2].to_vec()),
        ),
        ("chat", Conversation::new(Content::Text("Text.".into()))),
    ];
    let errors = rows.map(|(name, row)| template(name).answers(&row).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"), @"
    template `completion` does not render instruction/output rows
    template `alpaca` renders one question and its answer; this row has 4 messages
    template `koala` does not render a system message, which would be lost
    template `alpaca` does not render system + instruction together; it renders instruction + input + output; instruction + output
    template `chat` does not render text rows
    ");
}

#[test]
fn unknown_names_are_errors() {
    insta::assert_snapshot!(Template::named("alpacca", &tiny()).unwrap_err(), @"unknown template `alpacca`; did you mean `alpaca`?; known are alpaca, alpaca-short, alpaca-lora, vicuna-v0, vicuna-v1.1, koala, baize, gpt4all, chatdoctor, llama-2-chat, llama-3, chatml, completion, chat");
    insta::assert_snapshot!(Template::named("mine.toml", &tiny()).unwrap_err(), @"cannot read mine.toml: No such file or directory (os error 2)");
    let base = with_config(&json!({}));
    let error = Template::named("chat", &base).unwrap_err().to_string();
    assert!(
        error.ends_with("the tokenizer has no chat template named `default`; it has none"),
        "{error}"
    );
}

#[test]
fn what_is_trained_on_can_be_chosen() {
    let (no, yes) = (Some(false), Some(true));
    let row = dialogue_marked([None, yes, no, None, None]);
    for name in ["chat", "chatml"] {
        let show = |row: &Conversation, train_on| match template(name).render(row, train_on) {
            Ok(rendered) => format!(
                "{} {}",
                rendered.end_trained,
                marked(&rendered).replace('\n', " ")
            ),
            Err(error) => error.to_string(),
        };
        let row = &row;
        insta::allow_duplicates! {
            insta::assert_snapshot!(show(&dialogue(), TrainOn::Answers), @"true <|im_start|>system Be brief.<|im_end|> <|im_start|>user Hi<|im_end|> <|im_start|>assistant ⟦ Hello! <|im_end|>⟧ <|im_start|>user Bye<|im_end|> <|im_start|>assistant ⟦Bye!<|im_end|>⟧");
            insta::assert_snapshot!(show(row, TrainOn::Answers), @"true <|im_start|>system Be brief.<|im_end|> <|im_start|>user Hi<|im_end|> <|im_start|>assistant  Hello! <|im_end|> <|im_start|>user Bye<|im_end|> <|im_start|>assistant ⟦Bye!<|im_end|>⟧");
            insta::assert_snapshot!(show(&dialogue(), TrainOn::LastAnswer), @"true <|im_start|>system Be brief.<|im_end|> <|im_start|>user Hi<|im_end|> <|im_start|>assistant  Hello! <|im_end|> <|im_start|>user Bye<|im_end|> <|im_start|>assistant ⟦Bye!<|im_end|>⟧");
            insta::assert_snapshot!(show(row, TrainOn::Everything), @"true ⟦<|im_start|>system Be brief.<|im_end|> <|im_start|>user Hi<|im_end|> <|im_start|>assistant  Hello! <|im_end|> <|im_start|>user Bye<|im_end|> <|im_start|>assistant Bye!<|im_end|> ⟧");
            insta::assert_snapshot!(show(row, TrainOn::Marked), @"false <|im_start|>system Be brief.<|im_end|> <|im_start|>user ⟦Hi<|im_end|>⟧ <|im_start|>assistant  Hello! <|im_end|> <|im_start|>user Bye<|im_end|> <|im_start|>assistant Bye!<|im_end|>");
            insta::assert_snapshot!(show(&dialogue_marked([yes, None, None, yes, yes]), TrainOn::Marked), @"true <|im_start|>system ⟦Be brief.<|im_end|>⟧ <|im_start|>user Hi<|im_end|> <|im_start|>assistant  Hello! <|im_end|> <|im_start|>user ⟦Bye<|im_end|>⟧ <|im_start|>assistant ⟦Bye!<|im_end|>⟧");
            insta::assert_snapshot!(show(&dialogue(), TrainOn::Marked), @"no message of this row is marked to be trained on");
        }
    }
}

#[test]
fn a_last_answer_that_is_taken_out_leaves_nothing() {
    let row = dialogue_marked([None, None, None, None, Some(false)]);
    let rendered = template("chatml")
        .render(&row, TrainOn::LastAnswer)
        .unwrap();
    assert_eq!(
        (
            rendered.trained.len(),
            rendered.complete,
            rendered.end_trained
        ),
        (0, true, false)
    );
}
