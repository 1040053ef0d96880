pub(crate) mod tokenizers;

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::*;
use simmer_data::conversation::{Content, Conversation, ListKey, Message, Role};
use simmer_data::example::{Limits, Overlong, encode, examples};
use simmer_data::{Template, TrainOn};
use tokenizers::{tiny, tiny_with_bos, with_config};

const WHOLE: Limits = Limits {
    max_tokens: 1000,
    overlong: Overlong::Truncate,
    train_on: TrainOn::Answers,
};

fn instruction(instruction: &str, input: &str, output: &str) -> Conversation {
    Conversation::new(Content::Instruction {
        system: None,
        instruction: instruction.into(),
        input: Some(input.to_owned()).filter(|input| !input.is_empty()),
        output: Some(output.into()),
    })
}

fn completion(prompt: &str, completion: &str) -> Conversation {
    Conversation::new(Content::Completion {
        prompt: prompt.into(),
        completion: Some(completion.into()),
    })
}

fn chat(turns: &[(Role, &str)]) -> Conversation {
    let turns = turns.iter().map(|(role, text)| Message::new(*role, *text));
    Conversation::chat(turns.collect())
}

fn text(text: &str) -> Conversation {
    Conversation::new(Content::Text(text.into()))
}

/// The set-up in which rows are linted.
struct Bench {
    tokenizer: Tokenizer,
    template: &'static str,
    limits: Limits,
    config: LintConfig,
    /// The number of training rows; those after them are of a validation source.
    training: usize,
}

impl Bench {
    fn new(template: &'static str) -> Bench {
        Bench {
            tokenizer: tiny(),
            template,
            limits: WHOLE,
            config: LintConfig::default(),
            training: usize::MAX,
        }
    }

    fn report(&self, rows: &[Conversation]) -> LintReport {
        let template = Template::named(self.template, &self.tokenizer).unwrap();
        let mut linter = Linter::new(&self.config, &self.tokenizer).unwrap();
        linter.training = 1;
        let file: Arc<Path> = Arc::from(Path::new("rows.json"));
        for (row, number) in rows.iter().zip(1..) {
            let mut row = row.clone();
            row.origin = Origin {
                file: file.clone(),
                row: number,
                line: number + 1,
            };
            let rendered = template.render(&row, self.limits.train_on).unwrap();
            let outcomes = examples(&row, &template, &self.tokenizer, &self.limits).unwrap();
            let found = linter.check(&RowView {
                row: &row,
                template: &template,
                tokenizer: &self.tokenizer,
                rendered: &rendered,
                outcomes: &outcomes,
            });
            linter.add(usize::from(number > self.training), found.unwrap());
        }
        linter.finish()
    }

    /// Every finding: its kind, row and text.
    fn found(&self, rows: &[Conversation]) -> String {
        let report = self.report(rows);
        let said = report.findings.iter().flat_map(|finding| {
            let row = |offender: &Offender| {
                format!(
                    "{}: row {}: {}",
                    finding.kind, offender.origin.row, offender.what
                )
            };
            finding.first.iter().map(row)
        });
        said.collect::<Vec<_>>().join("\n")
    }
}

const PARIS: [(Role, &str); 2] = [
    (Role::User, "capital of France?"),
    (Role::Assistant, "Paris."),
];

#[test]
fn good_rows_have_no_faults() {
    let rows = [
        instruction("What is the capital of France?", "", "Paris."),
        instruction("Add the numbers.", "2 and 3", "5"),
        instruction("Add the numbers.", "40 and 50", "90"),
        instruction("Multiply those that follow.", "40 and 50", "2000"),
    ];
    assert_eq!(Bench::new("alpaca-lora").found(&rows), "");
    assert_eq!(Bench::new("chat").found(&rows), "");
    let turns = [
        &PARIS[..],
        &[(Role::User, "And of Spain?"), (Role::Assistant, "Madrid.")],
    ];
    assert_eq!(Bench::new("chat").found(&[chat(&turns.concat())]), "");
    assert_eq!(
        Bench::new("completion").found(&[text("Once upon a time."), completion("2 + 2 =", " 4")]),
        ""
    );
    insta::assert_snapshot!(Bench::new("alpaca-lora").report(&rows), @"4 rows checked: 0 errors, 0 warnings");
}

#[test]
fn the_end_of_sequence_is_one() {
    let config = json!({"bos_token": "<|endoftext|>", "eos_token": "<|im_start|>"});
    let bench = Bench {
        tokenizer: with_config(&config),
        ..Bench::new("completion")
    };
    let report = bench.report(&[completion("2 + 2 =", " 4")]);
    let path = bench.tokenizer.path().display().to_string();
    insta::assert_snapshot!(report.to_string().replace(&path, "DIR"), @r#"
        error: end_token: the EOS token is a token with another meaning
          the EOS token of the tokenizer in DIR is token 1, `<|im_start|>`
          hint: set the right eos_token in the model's tokenizer_config.json
        1 row checked: 1 error, 0 warnings; if this is intended, set data.lint.allow = ["end_token"] to ignore it, or data.lint.warn = ["end_token"] to report it without stopping
        "#);
    assert_eq!(report.errors().count(), 1);
}

/// The findings for an example of these tokens.
fn ends(tokens: &[u32], trained: &[bool]) -> String {
    let tokenizer = tiny();
    let template = Template::named("completion", &tokenizer).unwrap();
    let row = text("is it");
    let rendered = template.render(&row, TrainOn::Answers).unwrap();
    let outcome = Outcome::Kept {
        example: simmer_data::Example {
            tokens: tokens.to_vec(),
            trained: trained.to_vec(),
            origin: Origin::default(),
        },
        cut: 0,
        cut_targets: 0,
        straddling: 0,
    };
    let mut found = Vec::new();
    let meanings = Meanings::of(&tokenizer);
    let view = RowView {
        row: &row,
        template: &template,
        tokenizer: &tokenizer,
        rendered: &rendered,
        outcomes: &[outcome],
    };
    meanings.check(&view, &mut found).unwrap();
    let said = found.iter().map(|(kind, what)| format!("{kind}: {what}"));
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn answers_end_with_a_trained_end() {
    let is = tiny().encode("is").unwrap().ids[0];
    let end = 2;
    assert_eq!(ends(&[is, is, end], &[false, true, true]), "");
    // ChatML's line break, where everything is trained on
    let line = tiny().encode("\n").unwrap().ids[0];
    assert_eq!(ends(&[is, end, line], &[false, true, true]), "");
    insta::assert_snapshot!(ends(&[is, is, line], &[false, true, true]), @r"end_missing: ends with `isis\n`");
    insta::assert_snapshot!(ends(&[is, is, is], &[false, true, true]), @"end_missing: ends with `isisis`");
    insta::assert_snapshot!(ends(&[is, is, end], &[false, true, false]), @"end_missing: ends with `isis<|im_end|>`, but the EOS token is masked");
    insta::assert_snapshot!(ends(&[is, end, end], &[false, true, true]), @"doubled_end: ends with `is<|im_end|><|im_end|>`");
    insta::assert_snapshot!(ends(&[is, is, is, is, end], &[false, true, false, true, true]), @"turn_end_missing: ends with `isis`");
}

#[test]
fn turns_before_the_last_end_too() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    let config =
        json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": template});
    let bench = Bench {
        tokenizer: with_config(&config),
        ..Bench::new("chat")
    };
    let turns = [
        &PARIS[..],
        &[(Role::User, "And of Spain?"), (Role::Assistant, "Madrid.")],
    ];
    insta::assert_snapshot!(bench.found(&[chat(&turns.concat())]), @r"turn_end_missing: row 1: ends with `Paris.\n`");
    assert_eq!(bench.found(&[chat(&PARIS)]), "");
}

#[test]
fn beginnings_and_ends_are_not_doubled() {
    let bench = Bench {
        tokenizer: tiny_with_bos(),
        ..Bench::new("completion")
    };
    assert_eq!(
        bench.found(&[completion("<|im_start|>2 + 2 =", " 4<|im_end|>")]),
        ""
    );
    insta::assert_snapshot!(bench.found(&[completion("<|im_start|><|im_start|>2 + 2 =", " 4")]), @"doubled_beginning: row 1: `<|im_start|><|im_start|>2 + 2`");
    insta::assert_snapshot!(bench.found(&[completion("2 + 2 =", " 4<|im_end|><|im_end|>")]), @"doubled_end: row 1: ends with ` = 4<|im_end|><|im_end|>`");
}

#[test]
fn prompts_are_what_the_model_is_asked_with() {
    let bench = |answer: &str, prompt: &str| {
        let template = format!(
            "{{% for m in messages %}}{{% if m.role == 'assistant' %}}{answer}{{% else %}}Q: {{{{ m.content }}}}\n{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
        );
        Bench {
            tokenizer: with_config(&json!({"eos_token": "<|im_end|>", "chat_template": template})),
            ..Bench::new("chat")
        }
    };
    let marked = "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}";
    let found =
        |answer: &str, prompt| bench(&format!("{answer}{marked}"), prompt).found(&[chat(&PARIS)]);
    assert_eq!(found("A: ", "A: "), "");
    insta::assert_snapshot!(found("A: ", "The answer: "), @r"prompt_text: row 1: generation starts from `Q: capital of France?\nThe answer: `, training has `Q: capital of France?\nA: Paris.<|im_end|>`");
    insta::assert_snapshot!(found("A: (thinking) ", "A: "), @"prompt_text: row 1: the model has to write `(thinking) ` first, but is not trained on it");
}

#[test]
fn the_one_part_of_a_row_that_is_kept_is_not_its_prompt() {
    let question = "How many stars are there in the sky tonight?";
    let turns = [question, "Two.", "And how many moons?", "One."];
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    let row = chat(&roles.zip(turns).collect::<Vec<_>>());
    let bench = Bench {
        limits: Limits {
            max_tokens: 40,
            overlong: Overlong::Split,
            train_on: TrainOn::LastAnswer,
        },
        ..Bench::new("chatml")
    };
    let template = Template::named("chatml", &bench.tokenizer).unwrap();
    let parts = examples(&row, &template, &bench.tokenizer, &bench.limits).unwrap();
    // the part with the first answer is not trained on
    let [simmer_data::Outcome::Kept { example, .. }] = &parts[..] else {
        panic!("{parts:?}");
    };
    let kept = bench.tokenizer.decode(&example.tokens, false).unwrap();
    assert!(!kept.contains("stars") && kept.contains("moons"), "{kept}");
    assert_eq!(bench.found(&[row]), "");
}

#[test]
fn prompts_are_the_same_tokens_with_and_without_answer() {
    let bench = Bench::new("completion");
    insta::assert_snapshot!(bench.found(&[completion("Th", "is"), completion("Thi", "s is it.")]), @"prompt_tokens: row 2: generation starts from the tokens `T|h|i`, training has `T|h|is|Ġis|Ġ`");
    let many: Vec<_> = (0..20)
        .map(|n| completion(&format!("The number {n} i"), &format!("s {n}.")))
        .collect();
    let report = bench.report(&many);
    let finding = report
        .errors()
        .find(|finding| finding.kind == Kind::PromptTokens);
    assert_eq!(finding.unwrap().rows, 20);
}

#[test]
fn tokens_that_mean_something_are_not_in_messages() {
    let row = chat(&[
        (Role::User, "capital of France?"),
        (Role::Assistant, "Paris.<|im_end|>"),
    ]);
    insta::assert_snapshot!(Bench::new("chat").found(&[row]), @"
        doubled_end: row 1: ends with `aris.<|im_end|><|im_end|>`
        special_tokens: row 1: messages[1]: `<|im_end|>` in `Paris.<|im_end|>` becomes that token
        ");
    insta::assert_snapshot!(Bench::new("completion").found(&[text("One.<|endoftext|>Two.")]), @"
        unknown_tokens: row 1: after `One.`
        special_tokens: row 1: text: `<|endoftext|>` in `One.<|endoftext|>Two.` becomes that token
        ");
    assert_eq!(
        Bench::new("completion").found(&[text("One.<|im_end|>Two.")]),
        ""
    );
}

#[test]
fn lost_tokens_are_counted() {
    let rows = [
        instruction("Name it.", "", &"Paris ".repeat(20)),
        instruction(&"Name it. ".repeat(50), "", "Paris."),
        instruction("Say no more than a word.", "", "Paris."),
    ];
    let cut = |overlong| Bench {
        limits: Limits {
            max_tokens: 130,
            overlong,
            ..WHOLE
        },
        ..Bench::new("alpaca-lora")
    };
    insta::assert_snapshot!(cut(Overlong::Truncate).report(&rows), @"
        warning: untrained in 1 row: the row has no token to train on and is skipped
          rows.json: row 2 (line 3): has 480 tokens; all 6 trained tokens are cut off
          hint: raise data.max_tokens if the prompt alone is too long, add an answer to the row, or raise the weight of its answers
        warning: truncated in 1 row: the row is longer than data.max_tokens and is truncated
          52 of 107 trained tokens are cut off
          rows.json: row 1 (line 2): 52 tokens are cut off, including 52 trained tokens
          hint: raise data.max_tokens, or choose another data.overlong
        3 rows checked: 0 errors, 2 warnings
        ");
    insta::assert_snapshot!(cut(Overlong::Drop).found(&rows), @"
        dropped: row 1: has 182 tokens
        dropped: row 2: has 480 tokens
        ");
}

#[test]
fn answers_say_something_of_their_own() {
    let question = "Name the capital of France.";
    let long = "It is the city on the Seine, with its tower, its museums and the";
    let rows = [
        instruction(question, "", " \n"),
        instruction(
            "Name the river in Paris.",
            "",
            "Name the river in Paris. The Seine.",
        ),
        instruction("Name a city.", "", "Name a city. Paris."),
        instruction("Which word ends it?", "", "The"),
        instruction("Tell of Paris.", "", long),
        instruction("Tell more of Paris.", "", &format!("{long} Louvre.")),
        instruction(
            "How is it printed?",
            "",
            "With a line of code that says what is to be printed:\n```\nprint(1)",
        ),
    ];
    insta::assert_snapshot!(Bench::new("alpaca-lora").found(&rows), @r"
        empty_answer: row 1: output: is empty
        repeated_question: row 2: output: `Name the river in Paris. The Seine.`
        unfinished_answer: row 5: output: a sentence does not end with this word: `...s the city on the Seine, with its tower, its museums and the`
        unfinished_answer: row 7: output: a code block is not closed: `...a line of code that says what is to be printed:\n```\nprint(1)`
        near_duplicates: row 6: `Tell more of Paris.` is nearly the same as row 5, `Tell of Paris.` (ROUGE-L 0.86); both have `of Paris.`
        ");
}

#[test]
fn questions_and_answers_belong_together() {
    let bench = Bench::new("chat");
    let ended = [&PARIS[..], &[(Role::User, "And of Spain?")]].concat();
    insta::assert_snapshot!(bench.found(&[chat(&ended), chat(&PARIS)]), @"unanswered: row 1: messages[2]: user message `And of Spain?` has no answer");
    insta::assert_snapshot!(bench.found(&[chat(&[(Role::User, " "), (Role::Assistant, "Paris.")]), chat(&PARIS)]), @"unasked: row 1: messages[1]: `Paris.`");
    let silent = chat(&[(Role::User, "capital of France?"), (Role::Assistant, "")]);
    insta::assert_snapshot!(bench.found(std::slice::from_ref(&silent)), @"empty_answer: row 1: messages[1]: is empty");
    let mut of_sharegpt = silent;
    of_sharegpt.list = ListKey::new("conversations");
    insta::assert_snapshot!(bench.found(&[of_sharegpt]), @"empty_answer: row 1: conversations[1]: is empty");
}

#[test]
fn odd_characters_are_shown_where_they_stand() {
    let rows = [
        instruction("Name it.", "", "It isnâ€™t Lyon\u{200B}."),
        instruction("Is it?", "a\u{1B}[31m", "No."),
        instruction("Où est-elle ?", "", "Près de l’eau – là-bas…"),
    ];
    insta::assert_snapshot!(Bench::new("alpaca-lora").found(&rows), @r"
        encoding: row 1: output: `â€™` instead of `’` in `It isnâ€™t Lyon\u{200b}.`
        encoding: row 2: input: control character U+001B in `a\u{1b}[31m`
        invisible: row 1: output: zero-width character U+200B in `It isnâ€™t Lyon\u{200b}.`
        ");
}

#[test]
fn validation_rows_that_are_trained_on_are_no_plain_duplicates() {
    let row = |what: &str| instruction(&format!("Where does the {what} end?"), "", "In the sea.");
    let rows = ["Seine", "Rhine", "Seine", "Rhine", "Loire", "Loire"].map(row);
    let mut bench = Bench::new("chat");
    bench.training = 3;
    bench.config.allow = vec![Kind::NearDuplicates];
    insta::assert_snapshot!(bench.found(&rows), @"
    trained_validation: row 4: same as the training row, row 2: `Where does the Rhine end?`
    duplicates: row 3: same as row 1: `Where does the Seine end?`
    duplicates: row 6: same as row 5: `Where does the Loire end?`
    ");
}

#[test]
fn rows_are_found_again() {
    let rows = [
        instruction("What is the capital city of France?", "", "Paris."),
        instruction("What is the capital city of France?", "", "Lyon."),
        instruction("What is the capital city of Spain?", "", "Madrid."),
        instruction("What is the capital city of France?", "", "Paris."),
        instruction("Where does the Seine end?", "", "In the Channel."),
        chat(&[
            (Role::User, "Where does the Seine end?"),
            (Role::Assistant, "In the Channel."),
        ]),
    ];
    insta::assert_snapshot!(Bench::new("chat").found(&rows), @"
        duplicates: row 4: same as row 1: `What is the capital city of France?`
        duplicates: row 6: same as row 5: `Where does the Seine end?`
        conflicting_answers: row 2: same as row 1: `What is the capital city of France?`
        near_duplicates: row 3: `What is the capital city of Spain?` is nearly the same as row 1, `What is the capital city of France?` (ROUGE-L 0.86)
        ");
    let shared = [
        instruction(
            "Rewrite the sentence in the passive voice, please.",
            "Cats chase mice.",
            "Mice are chased by cats.",
        ),
        instruction(
            "Rewrite the sentence in the passive voice, please.",
            "Dogs eat bones.",
            "Bones are eaten by dogs.",
        ),
        instruction(
            "Rewrite the sentence in the passive voice, please.",
            "Dogs eat the bones.",
            "The bones are eaten by dogs.",
        ),
        instruction(
            "How many words has it?",
            "Rewrite the sentence in the passive voice, please. Dogs eat bones.",
            "11",
        ),
        instruction(
            "Translate it into French.",
            "Rewrite the sentence in the passive voice, please. Dogs eat bones.",
            "...",
        ),
    ];
    insta::assert_snapshot!(Bench::new("chat").found(&shared), @"
        near_duplicates: row 3: `Rewrite the sentence in the passive voice, please.` + `Dogs eat the bones.` is nearly the same as row 2, `Rewrite the sentence in the passive voice, please.` + `Dogs eat bones.` (ROUGE-L 0.86)
        near_duplicates: row 4: `How many words has it?` + `Rewrite the sentence in the passive voice, please. Dogs eat ...` is nearly the same as row 2, `Rewrite the sentence in the passive voice, please.` + `Dogs eat bones.` (ROUGE-L 0.81); both have `Rewrite the sentence in the passive voice, please. Dogs eat bones.`
        near_duplicates: row 5: `Translate it into French.` + `Rewrite the sentence in the passive voice, please. Dogs eat ...` is nearly the same as row 2, `Rewrite the sentence in the passive voice, please.` + `Dogs eat bones.` (ROUGE-L 0.85); both have `Rewrite the sentence in the passive voice, please. Dogs eat bones.`
        ");
}

#[test]
fn answers_conflict_only_if_all_before_them_is_the_same() {
    let bench = Bench {
        config: LintConfig {
            allow: vec![Kind::NearDuplicates, Kind::Unanswered],
            ..LintConfig::default()
        },
        ..Bench::new("chat")
    };
    let turns = |turns: &[(Role, &'static str)], answer: &'static str| {
        chat(&[turns, &[(Role::Assistant, answer)]].concat())
    };
    let user = |text| (Role::User, text);
    let answered = [user("Name a city."), (Role::Assistant, "Rome.")];
    let system = |text| [(Role::System, text), user("Name a city.")];
    let good = [
        turns(&[user("Name a city.")], "Rome."),
        // what follows the answer
        chat(&[&answered[..], &[user("And now?")]].concat()),
        chat(&[&answered[..], &[user("Go on.")]].concat()),
        // the same answer with white space, and a longer conversation
        turns(&[user("Name a city.")], "Rome.\n"),
        turns(&[answered[0], answered[1], user("Another.")], "Oslo."),
        // the system message, earlier turns
        turns(&system("Be brief."), "Oslo."),
        turns(&system("Be kind."), "Lima."),
        turns(
            &[user("Go."), (Role::Assistant, "Ok."), user("Name a city.")],
            "Bern.",
        ),
        turns(
            &[user("Go."), (Role::Assistant, "No."), user("Name a city.")],
            "Kiel.",
        ),
        // nobody asks
        turns(&[(Role::System, "Tell a story."), user("")], "Once."),
        turns(&[(Role::System, "Tell a story."), user("")], "Twice."),
        instruction("Add.", "1 and 2", "3"),
        instruction("Add.", "1 and 3", "4"),
    ];
    let found = bench.report(&good);
    let conflicts = |found: &LintReport| -> Vec<usize> {
        let of_kind = |finding: &&Finding| finding.kind == Kind::ConflictingAnswers;
        let rows = found
            .findings
            .iter()
            .filter(of_kind)
            .flat_map(|finding| &finding.first);
        rows.map(|row| row.origin.row).collect()
    };
    assert_eq!(conflicts(&found), [0; 0], "{found}");
    let sampled = [
        turns(&[user("Name a city.")], "Rome."),
        turns(&[user("Name a city.")], "Oslo."),
        turns(&[user("Name a city.")], "Rome."),
        turns(&[user("Name a city.")], "Lima."),
    ];
    assert_eq!(conflicts(&bench.report(&sampled)), [2, 4]);
    let mut unmarked = sampled[1].clone();
    let Content::Messages(messages) = &mut unmarked.content else {
        unreachable!()
    };
    messages[1].train = Some(false);
    let pair = [sampled[0].clone(), unmarked];
    assert_eq!(conflicts(&bench.report(&pair)), [0; 0]);
}

#[test]
fn rows_in_other_templates_do_not_conflict() {
    let mut linter = Linter::new(&LintConfig::default(), &tiny()).unwrap();
    let tokenizer = tiny();
    for (number, template) in [(1, "alpaca"), (2, "vicuna-v1.1"), (3, "alpaca")] {
        let template = Template::named(template, &tokenizer).unwrap();
        let mut row = instruction("Name a city.", "", ["Rome.", "Oslo.", "Lima."][number - 1]);
        row.origin.row = number;
        let rendered = template.render(&row, TrainOn::Answers).unwrap();
        let outcome = encode(&rendered, &tokenizer, &WHOLE).unwrap();
        let found = linter.check(&RowView {
            row: &row,
            template: &template,
            tokenizer: &tokenizer,
            rendered: &rendered,
            outcomes: &[outcome],
        });
        linter.add(0, found.unwrap());
    }
    let found = linter.finish();
    let conflict = found
        .findings
        .iter()
        .find(|finding| finding.kind == Kind::ConflictingAnswers);
    assert_eq!(
        conflict.map(|finding| (finding.rows, finding.first[0].origin.row)),
        Some((1, 3))
    );
}

#[test]
fn as_many_rows_are_listed_as_are_asked_for() {
    let mut tally = Tally::default();
    for row in 0..9 {
        let origin = Origin {
            row,
            ..Origin::default()
        };
        tally.add(0, &origin, "x".into(), 7);
    }
    let finding = tally.finding(
        Kind::Encoding,
        None,
        &BTreeMap::from([(0, 100)]),
        &LintConfig::default(),
    );
    assert_eq!((finding.rows, finding.first.len()), (9, 7));
    assert!(finding.to_string().contains("and 2 more"), "{finding}");
}

#[test]
fn words_of_evaluation_sets_are_found() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("eval.jsonl");
    let long = "A boat leaves the harbour at nine with forty people on board, and comes back at noon with all of them.";
    let sets = format!(
        "{{\"question\": \"{long}\"}}\n{{\"instruction\": \"Name it:\", \"input\": \"the sea\"}}\n"
    );
    std::fs::write(&file, sets).unwrap();
    let bench = Bench {
        config: LintConfig {
            against: vec![file],
            ..LintConfig::default()
        },
        ..Bench::new("chat")
    };
    let shown = |rows: &[Conversation]| {
        let text = bench.report(rows).to_string();
        text.replace(&folder.path().display().to_string(), "DIR")
    };
    let quoted = long.to_uppercase().replace(',', " -");
    let rows = [
        chat(&[
            (Role::User, "Say it."),
            (Role::Assistant, &format!("It is this: {quoted}")),
        ]),
        instruction("Name it.", "The sea!", "No."),
        chat(&[
            (Role::User, "In a word:\nname it: the sea"),
            (Role::Assistant, "No."),
        ]),
        chat(&[
            (Role::User, "Name it: the sea and the land."),
            (Role::Assistant, "name it the sea"),
        ]),
        instruction(
            "When is it back?",
            "A boat leaves the harbour at nine with forty people on board",
            "At noon.",
        ),
    ];
    insta::assert_snapshot!(shown(&rows), @r#"
        error: contamination in 3 rows: the row overlaps with an evaluation set: scores on that set become meaningless
          DIR/eval.jsonl: 3
          rows.json: row 1 (line 2): messages[1]: 13 words in a row at `It is this: A BOAT LEAVES THE HARBOUR AT N...` are in DIR/eval.jsonl
          rows.json: row 2 (line 3): input: `Name it.` is in DIR/eval.jsonl
          rows.json: row 3 (line 4): messages[0]: `name it: the sea` is in DIR/eval.jsonl
          hint: remove the row, or do not evaluate on that set
        warning: near_duplicates in 2 rows: the question is nearly the same as an earlier one (ROUGE-L above 0.7, the filter of Self-Instruct)
          rows.json: row 3 (line 4): `In a word:\nname it: the sea` is nearly the same as row 2, `Name it.` + `The sea!` (ROUGE-L 0.73); both have `name it: the sea`
          rows.json: row 4 (line 5): `Name it: the sea and the land.` is nearly the same as row 2, `Name it.` + `The sea!` (ROUGE-L 0.73)
          hint: remove the later rows if you want varied questions
        5 rows checked: 1 error, 1 warning; if this is intended, set data.lint.allow = ["contamination"] to ignore it, or data.lint.warn = ["contamination"] to report it without stopping
        "#);
    assert_eq!(bench.report(&rows[3..]).findings, []);
}

#[test]
fn recipes_move_kinds() {
    let config = |text: &str| -> Result<LintConfig, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    };
    let bench = |text: &str| Bench {
        config: config(text).unwrap(),
        ..Bench::new("alpaca-lora")
    };
    let rows = [
        instruction("Name it.", "", ""),
        instruction("Name it.", "", "Paris."),
        instruction("Name another.", "", "Lyon."),
    ];
    let counts = |text: &str| {
        let report = bench(text).report(&rows);
        (report.errors().count(), report.warnings().count())
    };
    assert_eq!(counts(""), (0, 2));
    assert_eq!(counts(r#"allow = ["empty_answer"]"#), (0, 1));
    assert_eq!(
        counts(r#"deny = ["empty_answer", "conflicting_answers"]"#),
        (2, 0)
    );
    let all_empty = [&rows[0]; 3].map(Clone::clone);
    assert_eq!(bench("").report(&all_empty).errors().count(), 1);
    assert_eq!(
        bench(r#"warn = ["empty_answer"]"#)
            .report(&all_empty)
            .errors()
            .count(),
        0
    );

    insta::assert_snapshot!(config(r#"allow = ["duplicate"]"#).unwrap_err(), @"unknown variant `duplicate`, expected one of `end_token`, `end_missing`, `turn_end_missing`, `doubled_beginning`, `doubled_end`, `prompt_text`, `prompt_tokens`, `unknown_tokens`, `special_tokens`, `untrained`, `dropped`, `truncated`, `empty_answer`, `repeated_question`, `unfinished_answer`, `unanswered`, `unasked`, `calls`, `lost_fields`, `encoding`, `invisible`, `trained_validation`, `duplicates`, `conflicting_answers`, `near_duplicates`, `contamination`");
    insta::assert_snapshot!(config("limit = 1").unwrap_err(), @"unknown field `limit`, expected one of `allow`, `warn`, `deny`, `against`");
    let twice = config(
        r#"allow = ["duplicates"]
deny = ["duplicates"]"#,
    );
    insta::assert_snapshot!(twice.unwrap().check().unwrap_err(), @"data.lint: `duplicates` is in more than one of allow, warn and deny");
}

#[test]
fn programs_read_reports_too() {
    let rows = [
        instruction("Name it.", "", ""),
        instruction("Name another.", "", "Lyon."),
    ];
    let report = Bench::new("alpaca-lora").report(&rows);
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
        {
          "rows": 2,
          "findings": [
            {
              "kind": "empty_answer",
              "severity": "warning",
              "rows": 1,
              "detail": null,
              "first": [
                {
                  "origin": {
                    "file": "rows.json",
                    "row": 1,
                    "line": 2
                  },
                  "what": "output: is empty"
                }
              ]
            }
          ],
          "notes": [],
          "unusable": [],
          "unusable_stop": false
        }
        "#);
}
