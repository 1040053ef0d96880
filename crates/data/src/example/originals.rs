//! Compares tokens and masks with those of the original projects' own code (`tests/reference/seed_systems.py`).

use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::conversation::{Content, Message, Role};

#[derive(Deserialize)]
struct Golden {
    template: String,
    train_on: TrainOn,
    max_tokens: usize,
    rows: Vec<GoldenRow>,
}

#[derive(Deserialize)]
struct GoldenRow {
    row: RowFile,
    /// A bug of the original that affects this row.
    fault: Option<String>,
    /// The error of the original, if it fails.
    error: Option<String>,
    #[serde(default)]
    ids: Vec<u32>,
    #[serde(default)]
    trained: Vec<Range<usize>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RowFile {
    Instruction {
        instruction: String,
        input: String,
        output: String,
    },
    Prompt {
        prompt: String,
        response: String,
    },
    Messages {
        messages: Vec<MessageFile>,
    },
}

#[derive(Deserialize)]
struct MessageFile {
    role: Role,
    content: String,
}

impl RowFile {
    fn conversation(self) -> Conversation {
        Conversation::new(match self {
            RowFile::Instruction {
                instruction,
                input,
                output,
            } => Content::Instruction {
                system: None,
                instruction,
                input: Some(input).filter(|input| !input.is_empty()),
                output: Some(output),
            },
            RowFile::Prompt { prompt, response } => Content::Completion {
                prompt,
                completion: Some(response),
            },
            RowFile::Messages { messages } => {
                let messages = messages.into_iter();
                Content::Messages(messages.map(|m| Message::new(m.role, m.content)).collect())
            }
        })
    }
}

/// The number of rows that simmer encodes as the system's own code does. For every other row, the reason must be known.
fn equal(system: &str) -> usize {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
    let text = std::fs::read_to_string(goldens.join(format!("seed_systems/{system}.json")));
    let golden: Golden = serde_json::from_str(&text.unwrap()).unwrap();
    let tokenizer = Tokenizer::from_path(goldens.join("tokenizers/llama.model")).unwrap();
    let template = Template::named(&golden.template, &tokenizer).unwrap();
    let limits = Limits {
        max_tokens: golden.max_tokens,
        overlong: Overlong::Truncate,
        train_on: golden.train_on,
    };
    let mut same = 0;
    for (number, row) in golden.rows.into_iter().enumerate() {
        let conversation = row.row.conversation();
        let outcomes = examples(&conversation, &template, &tokenizer, &limits).unwrap();
        let (ids, trained) = match &outcomes[..] {
            [Outcome::Kept { example, .. }] => (example.tokens.clone(), example.trained.clone()),
            // Truncated before the first token to train on.
            _ => (row.ids.clone(), vec![false; row.ids.len()]),
        };
        let mut expected = vec![false; row.ids.len()];
        for range in row.trained {
            expected[range].fill(true);
        }
        let equal = row.error.is_none() && (ids, trained) == (row.ids, expected);
        let fault = row.fault.or(row.error);
        assert_ne!(equal, fault.is_some(), "{system}: row {number}: {fault:?}");
        same += usize::from(equal);
    }
    same
}

#[test]
fn tokens_and_masks_are_those_of_the_originals() {
    let systems = [
        ("alpaca", 13),
        ("alpaca-lora", 13),
        ("alpaca-lora-answers", 12),
        ("vicuna-v1.1", 8),
        ("koala", 9),
        ("baize", 11),
        ("gpt4all", 11),
        ("chatdoctor", 13),
        ("chatdoctor-lora", 13),
        ("chatdoctor-lora-answers", 13),
    ];
    for (system, rows) in systems {
        assert_eq!(equal(system), rows, "{system}");
    }
}
