use super::*;
use crate::conversation::{Content, Conversation, Message, Role};
use crate::template::{Oddities, Template};
use crate::tokenizer::tests::{tiny, tiny_with_bos};
use proptest::prelude::*;

const WHOLE: Limits = Limits {
    max_tokens: 1000,
    overlong: Overlong::Truncate,
    train_on: TrainOn::Answers,
};

fn completion(prompt: &str, answer: &str) -> Conversation {
    Conversation::new(Content::Completion {
        prompt: prompt.into(),
        completion: Some(answer.into()),
    })
}

fn outcome(tokenizer: &Tokenizer, template: &str, row: &Conversation, limits: &Limits) -> Outcome {
    let template = Template::named(template, tokenizer).unwrap();
    encode(
        &template.render(row, limits.train_on).unwrap(),
        tokenizer,
        limits,
    )
    .unwrap()
}

fn example(tokenizer: &Tokenizer, template: &str, row: &Conversation, limits: &Limits) -> Example {
    match outcome(tokenizer, template, row, limits) {
        Outcome::Kept { example, .. } => example,
        other => panic!("{other:?}"),
    }
}

/// Tokens with `bar` between them, those trained on between ⟦ and ⟧.
fn spelled(tokenizer: &Tokenizer, example: &Example, bar: &str) -> String {
    let token = |(&id, &trained): (&u32, &bool)| {
        let text = tokenizer.decode(&[id], false).unwrap();
        if trained {
            format!("⟦{text}⟧")
        } else {
            text
        }
    };
    let pairs = example.tokens.iter().zip(&example.trained);
    pairs.map(token).collect::<Vec<_>>().join(bar)
}

/// Tokens with bars between them, those trained on between ⟦ and ⟧.
fn shown(tokenizer: &Tokenizer, example: &Example) -> String {
    spelled(tokenizer, example, "|")
}

#[test]
fn answers_are_trained_on_and_end() {
    let tokenizer = tiny();
    let row = completion("capital? ", "Paris.");
    insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "completion", &row, &WHOLE)), @"c|ap|ital|?| |⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
    insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "chat", &row, &WHOLE)), @"
<|im_start|>|u|s|e|r|
|c|ap|ital|?| |<|im_end|>|
|<|im_start|>|a|s|s|is|t|an|t|
|⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧|
");
    let empty = completion("capital? ", "");
    insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "completion", &empty, &WHOLE)), @"c|ap|ital|?| |⟦<|im_end|>⟧");
}

#[test]
fn everything_can_be_trained_on_but_the_first_token() {
    let tokenizer = tiny();
    let everything = Limits {
        train_on: TrainOn::Everything,
        ..WHOLE
    };
    let row = completion("capital? ", "Paris.");
    insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "completion", &row, &everything)), @"c|⟦ap⟧|⟦ital⟧|⟦?⟧|⟦ ⟧|⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
    // The EOS token after the last answer is not added again because of the text after it.
    let chat = example(&tokenizer, "chat", &row, &everything);
    assert_eq!(
        chat.tokens,
        example(&tokenizer, "chat", &row, &WHOLE).tokens
    );
}

#[test]
fn text_is_trained_on_from_its_second_token() {
    let text = Conversation::new(Content::Text("Paris.".into()));
    let (bare, with_bos) = (tiny(), tiny_with_bos());
    insta::assert_snapshot!(shown(&bare, &example(&bare, "completion", &text, &WHOLE)), @"P|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
    insta::assert_snapshot!(shown(&with_bos, &example(&with_bos, "completion", &text, &WHOLE)), @"<|im_start|>|⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
}

#[test]
fn beginning_and_end_are_never_doubled() {
    let tokenizer = tiny_with_bos();
    let count = |row: &Conversation| {
        let tokens = example(&tokenizer, "completion", row, &WHOLE).tokens;
        [1, 2].map(|special| tokens.iter().filter(|&&token| token == special).count())
    };
    assert_eq!(count(&completion("capital? ", "Paris.")), [1, 1]);
    assert_eq!(
        count(&completion("<|im_start|>capital? ", "Paris.<|im_end|>")),
        [1, 1]
    );
}

#[test]
fn chat_templates_write_their_own_bos() {
    let tokenizer = tiny_with_bos();
    let prompt = Rendered {
        text: "capital?".into(),
        trained: Vec::new(),
        complete: false,
        end_trained: false,
        own_specials: true,
        other_start: false,
        oddities: Oddities::default(),
    };
    let tokens = prompt_tokens(&prompt, &tokenizer).unwrap();
    let plain = Rendered {
        own_specials: false,
        ..prompt
    };
    assert_eq!(
        prompt_tokens(&plain, &tokenizer).unwrap(),
        [&[1], &tokens[..]].concat()
    );
}

#[test]
fn a_question_without_answer_has_no_end() {
    let tokenizer = tiny();
    let turn = |role, text: &str| Message::new(role, text);
    let row = Conversation::chat(vec![
        turn(Role::User, "Hello!"),
        turn(Role::Assistant, "Bye!"),
        turn(Role::User, "capital?"),
    ]);
    insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "chat", &row, &WHOLE)), @"
<|im_start|>|u|s|e|r|
|H|el|l|o|!|<|im_end|>|
|<|im_start|>|a|s|s|is|t|an|t|
|⟦B⟧|⟦y⟧|⟦e⟧|⟦!⟧|⟦<|im_end|>⟧|
|<|im_start|>|u|s|e|r|
|c|ap|ital|?|<|im_end|>|
");
}

#[test]
fn a_token_belongs_to_where_it_begins() {
    // Tokens 0..3, 3..7, 7..9; the answer is 5..8.
    let marks = carry(std::slice::from_ref(&(5..8)), &[0..3, 3..7, 7..9]);
    assert_eq!(marks.trained, [false, false, true]);
    assert_eq!(marks.straddling, 2);
    // All tokens of one character have its byte range.
    let marks = carry(&[0..1, 3..7], &[0..1, 1..3, 3..7, 3..7, 7..8]);
    assert_eq!(marks.trained, [true, false, true, true, false]);
    assert_eq!(marks.straddling, 0);
}

#[test]
fn what_is_cut_is_counted() {
    let tokenizer = tiny();
    let row = completion("capital? ", "Paris. Paris.");
    let whole = example(&tokenizer, "completion", &row, &WHOLE);
    let (tokens, targets) = (whole.tokens.len(), whole.targets());
    let cut_to = |max_tokens, overlong| {
        outcome(
            &tokenizer,
            "completion",
            &row,
            &Limits {
                max_tokens,
                overlong,
                ..WHOLE
            },
        )
    };
    let Outcome::Kept {
        example,
        cut: 2,
        cut_targets: 2,
        straddling: 0,
    } = cut_to(tokens - 2, Overlong::Truncate)
    else {
        panic!("not cut by two");
    };
    assert_eq!(example.tokens, whole.tokens[..tokens - 2]);
    assert!(!example.tokens.contains(&2), "a cut answer has no end");
    assert_eq!(
        cut_to(tokens - 1, Overlong::Drop),
        Outcome::Overlong { tokens }
    );
    assert!(matches!(
        cut_to(tokens, Overlong::Drop),
        Outcome::Kept { cut: 0, .. }
    ));
    assert_eq!(
        cut_to(tokens - targets, Overlong::Truncate),
        Outcome::Untrained { tokens, targets }
    );
}

fn dialogue(turns: &[(String, String)]) -> Conversation {
    let pairs = turns.iter().flat_map(|(question, answer)| {
        [
            Message::new(Role::User, question),
            Message::new(Role::Assistant, answer),
        ]
    });
    let system = Message::new(Role::System, "Be brief.");
    Conversation::chat(std::iter::once(system).chain(pairs).collect())
}

fn numbered(count: usize) -> Conversation {
    let turn = |number: usize| (format!("Say {number}."), format!("{number}!"));
    dialogue(&(0..count).map(turn).collect::<Vec<_>>())
}

fn split(row: &Conversation, template: &str, limits: &Limits) -> Vec<Outcome> {
    let tokenizer = tiny();
    let template = Template::named(template, &tokenizer).unwrap();
    examples(row, &template, &tokenizer, limits).unwrap()
}

/// The texts of the examples, with the trained text between ⟦ and ⟧.
fn texts(outcomes: &[Outcome]) -> String {
    let tokenizer = tiny();
    let text = |outcome: &Outcome| match outcome {
        Outcome::Kept { example, cut, .. } => {
            let text = spelled(&tokenizer, example, "").replace("⟧⟦", "");
            format!("{} tokens, {cut} cut: {text}", example.tokens.len())
        }
        other => format!("{other:?}"),
    };
    outcomes.iter().map(text).collect::<Vec<_>>().join("\n")
}

const SPLIT: Limits = Limits {
    max_tokens: 60,
    overlong: Overlong::Split,
    train_on: TrainOn::Answers,
};

#[test]
fn long_conversations_are_split_between_questions() {
    insta::assert_snapshot!(texts(&split(&numbered(4), "baize", &SPLIT)), @"
    46 tokens, 0 cut: Be brief.
    [|Human|] Say 0.
    [|AI|]⟦ 0!
    [|Human|]⟧ ⟦<|im_end|>⟧
    46 tokens, 0 cut: Be brief.
    [|Human|] Say 1.
    [|AI|]⟦ 1!
    [|Human|]⟧ ⟦<|im_end|>⟧
    46 tokens, 0 cut: Be brief.
    [|Human|] Say 2.
    [|AI|]⟦ 2!
    [|Human|]⟧ ⟦<|im_end|>⟧
    46 tokens, 0 cut: Be brief.
    [|Human|] Say 3.
    [|AI|]⟦ 3!
    [|Human|]⟧ ⟦<|im_end|>⟧
    ");
    for template in ["chat", "chatml"] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(texts(&split(&numbered(4), template, &Limits { max_tokens: 100, ..SPLIT })), @"
            100 tokens, 0 cut: <|im_start|>system
            Be brief.<|im_end|>
            <|im_start|>user
            Say 0.<|im_end|>
            <|im_start|>assistant
            ⟦0!<|im_end|>⟧
            <|im_start|>user
            Say 1.<|im_end|>
            <|im_start|>assistant
            ⟦1!<|im_end|>⟧
            <|im_start|>user
            Say 2.<|im_end|>
            <|im_start|>assistant
            ⟦2!<|im_end|>⟧

            46 tokens, 0 cut: <|im_start|>system
            Be brief.<|im_end|>
            <|im_start|>user
            Say 3.<|im_end|>
            <|im_start|>assistant
            ⟦3!<|im_end|>⟧
            ");
        }
    }
}

#[test]
fn a_pair_too_long_alone_is_cut_and_the_others_kept() {
    let turn = |question: &str, answer: &str| (question.to_owned(), answer.to_owned());
    let between = |question: &str, answer: &str| {
        let row = dialogue(&[
            turn("Hi", "Hi!"),
            turn(question, answer),
            turn("Bye", "Bye!"),
        ]);
        split(&row, "chatml", &SPLIT)
    };
    let letters = "abcdefghijklmnopqrstuvwxyz";
    let long_answer = between("Write.", letters);
    insta::assert_snapshot!(texts(&long_answer), @"
    43 tokens, 0 cut: <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    ⟦Hi!<|im_end|>⟧

    60 tokens, 9 cut: <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Write.<|im_end|>
    <|im_start|>assistant
    ⟦abcdefghijklmnopqrs⟧
    45 tokens, 0 cut: <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Bye<|im_end|>
    <|im_start|>assistant
    ⟦Bye!<|im_end|>⟧
    ");
    let long_question = between(&format!("{letters} {letters}"), "Yes.");
    let [
        first,
        Outcome::Untrained {
            tokens: 93,
            targets: 4,
        },
        last,
    ] = &long_question[..]
    else {
        panic!("{}", texts(&long_question));
    };
    assert_eq!([first, last], [&long_answer[0], &long_answer[2]]);
}

#[test]
fn parts_are_chosen_by_the_whole_conversation() {
    let limits = |train_on| Limits {
        train_on,
        max_tokens: 100,
        ..SPLIT
    };
    let mut row = numbered(4);
    insta::assert_snapshot!(texts(&split(&row, "chatml", &limits(TrainOn::LastAnswer))), @"
    46 tokens, 0 cut: <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Say 3.<|im_end|>
    <|im_start|>assistant
    ⟦3!<|im_end|>⟧
    ");
    assert_eq!(split(&row, "chatml", &limits(TrainOn::Everything)).len(), 2);
    if let Content::Messages(messages) = &mut row.content {
        messages[1].train = Some(true);
        messages[2].train = Some(false);
    }
    insta::assert_snapshot!(texts(&split(&row, "chatml", &limits(TrainOn::Marked))), @"
    100 tokens, 0 cut: <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    ⟦Say 0.<|im_end|>⟧
    <|im_start|>assistant
    0!<|im_end|>
    <|im_start|>user
    Say 1.<|im_end|>
    <|im_start|>assistant
    1!<|im_end|>
    <|im_start|>user
    Say 2.<|im_end|>
    <|im_start|>assistant
    2!<|im_end|>
    ");
    if let Content::Messages(messages) = &mut row.content {
        for message in messages {
            message.train = Some(false);
        }
    }
    insta::assert_snapshot!(texts(&split(&row, "chatml", &limits(TrainOn::Answers))), @"Weightless { tokens: 127 }");
}

#[test]
fn questions_and_tools_stay_with_what_follows_them() {
    let mut row = numbered(2);
    if let Content::Messages(messages) = &mut row.content {
        messages.insert(2, Message::new(Role::Tool, "2"));
        messages.insert(2, Message::new(Role::Assistant, "Ask."));
        messages.insert(2, Message::new(Role::User, "Well?"));
    }
    insta::assert_snapshot!(texts(&split(&row, "chatml", &Limits { max_tokens: 2, ..SPLIT })), @"
    Untrained { tokens: 82, targets: 8 }
    Untrained { tokens: 46, targets: 3 }
    ");
}

#[test]
fn rows_without_turns_are_cut() {
    let row = completion("capital? ", &"Paris. ".repeat(20));
    let cut = split(&row, "completion", &SPLIT);
    assert!(matches!(&cut[..], [Outcome::Kept { cut, .. }] if *cut > 0));
}

fn example_or_none(tokenizer: &Tokenizer, row: &Conversation, limits: &Limits) -> Example {
    match outcome(tokenizer, "completion", row, limits) {
        Outcome::Kept { example, .. } => example,
        _ => Example::default(),
    }
}

proptest! {
    #[test]
    fn trained_tokens_are_the_answer(prompt in "[ -~é🦙]{0,30}", answer in "[ -~é🦙]{0,30}") {
        let tokenizer = tiny();
        // A letter before and a space after the edge keep tokens from straddling it.
        let row = completion(&format!("{prompt}a"), &format!(" {answer}"));
        let example = example(&tokenizer, "completion", &row, &WHOLE);
        let pairs = example.tokens.iter().zip(&example.trained);
        let trained: Vec<u32> = pairs.filter(|(_, trained)| **trained).map(|(&id, _)| id).collect();
        prop_assert_eq!(tokenizer.decode(&trained, false).unwrap(), format!(" {answer}<|im_end|>"));
        prop_assert_eq!(tokenizer.decode(&example.tokens, false).unwrap(), format!("{prompt}a {answer}<|im_end|>"));
    }

    #[test]
    fn a_split_text_is_predicted_once(text in "[ -~é🦙]{1,200}", max_tokens in 2_usize..20) {
        let row = Conversation::new(Content::Text(text));
        let limits = Limits { max_tokens, ..SPLIT };
        for tokenizer in [tiny(), tiny_with_bos()] {
            let whole = example_or_none(&tokenizer, &row, &WHOLE);
            let template = Template::named("completion", &tokenizer).unwrap();
            let pieces = examples(&row, &template, &tokenizer, &limits).unwrap();
            let (mut tokens, mut targets): (Vec<u32>, Vec<u32>) = Default::default();
            for piece in &pieces {
                let Outcome::Kept { example, cut: 0, .. } = piece else { continue };
                prop_assert!(example.tokens.len() <= max_tokens);
                prop_assert!(!example.trained[0]);
                if let Some(last) = tokens.last() {
                    prop_assert_eq!(example.tokens[0], *last);
                }
                tokens.extend(&example.tokens[usize::from(!tokens.is_empty())..]);
                let pairs = example.tokens.iter().zip(&example.trained);
                targets.extend(pairs.filter(|(_, trained)| **trained).map(|(&id, _)| id));
            }
            prop_assert_eq!(&targets, &whole.tokens[1..]);
            prop_assert_eq!(tokens, whole.tokens);
        }
    }

    #[test]
    fn every_answer_of_a_split_conversation_is_trained_on_once(
        turns in prop::collection::vec(("[ -~é]{0,12}", "[ -~é🦙]{0,12}"), 1..12),
        max_tokens in 90_usize..300,
        template in prop::sample::select(&["chatml", "chat", "vicuna-v0"][..]),
    ) {
        let tokenizer = tiny();
        let row = dialogue(&turns);
        let limits = Limits { max_tokens, ..SPLIT };
        let named = Template::named(template, &tokenizer).unwrap();
        let trained = |outcomes: &[Outcome]| {
            let mut trained = String::new();
            for outcome in outcomes {
                let Outcome::Kept { example, cut: 0, .. } = outcome else { panic!("{outcome:?}") };
                let pairs = example.tokens.iter().zip(&example.trained);
                let mut ids: Vec<u32> = pairs.filter(|(_, trained)| **trained).map(|(&id, _)| id).collect();
                // This template does not end its answers with EOS, but every example ends with it.
                if template == "vicuna-v0" && ids.last() == Some(&2) {
                    ids.pop();
                }
                trained.push_str(&tokenizer.decode(&ids, false).unwrap());
            }
            trained
        };
        let whole = examples(&row, &named, &tokenizer, &Limits { max_tokens: 100_000, ..limits }).unwrap();
        let parts = examples(&row, &named, &tokenizer, &limits).unwrap();
        prop_assert_eq!(trained(&parts), trained(&whole));
        let lengths: Vec<usize> = parts.iter().map(|part| match part {
            Outcome::Kept { example, .. } => example.tokens.len(),
            _ => 0,
        }).collect();
        prop_assert!(lengths.iter().all(|&length| length <= max_tokens), "{:?}", lengths);
    }
}
