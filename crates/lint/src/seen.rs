//! What is kept of every row to find duplicates: hashes, the words of its question, and its place.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Kind;
use super::excerpt::beginning;
use super::near::{MOST_STEPS, Texts};
use super::part::{Part, Place};
use super::report::Tally;
use super::words::Vocabulary;
use simmer_data::conversation::{Conversation, Origin, Role};

/// The maximum number of rows kept, about 100 bytes each.
const MOST_ROWS: usize = 500_000;

/// The maximum number of words kept, about 12 bytes each while they are compared.
const MOST_WORDS: usize = 8_000_000;

/// The maximum number of words of one question.
const MOST_OF_ONE: usize = 2048;

/// What a row is compared by.
#[derive(Debug)]
pub(super) struct Keys {
    conversation: u64,
    /// The hash of everything before the last answer, if it has any text.
    prompt: Option<u64>,
    question: Vec<u64>,
    /// If an instruction has an input: its number of words, and their hash.
    head: Option<(usize, u64)>,
    /// Whether the question has more words than are compared.
    long: bool,
    excerpt: String,
}

impl Keys {
    /// `words` are the words of each of the row's `parts`.
    pub(super) fn of(row: &Conversation, parts: &[Part], words: &[Vec<u64>]) -> Keys {
        let asks = |part: &Part| matches!(part.role, None | Some(Role::User));
        let asked = || parts.iter().zip(words).filter(|(part, _)| asks(part));
        let mut question: Vec<u64> = asked().flat_map(|(_, words)| words).copied().collect();
        let long = question.len() > MOST_OF_ONE;
        question.truncate(MOST_OF_ONE);
        let texts: Vec<_> = asked()
            .map(|(part, _)| beginning(part.text))
            .take(2)
            .collect();
        Keys {
            conversation: said(row, parts),
            prompt: prompt(parts).map(|before| said(row, before)),
            head: head(parts, words).filter(|(words, _)| *words < question.len()),
            question,
            long,
            excerpt: texts.join(" + "),
        }
    }
}

/// The parts before the last answer, if any of them has text.
fn prompt<'p, 'c>(parts: &'p [Part<'c>]) -> Option<&'p [Part<'c>]> {
    let answer = parts
        .iter()
        .rposition(|part| part.role == Some(Role::Assistant))?;
    let before = &parts[..answer];
    let says = |part: &Part| !part.text.trim().is_empty();
    before.iter().any(says).then_some(before)
}

/// A hash of the roles and texts.
fn said(row: &Conversation, parts: &[Part]) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.tools
        .as_ref()
        .map(ToString::to_string)
        .hash(&mut hasher);
    for part in parts {
        (part.role, part.text).hash(&mut hasher);
        if let Some(message) = part.message {
            for (key, value) in &message.more {
                (key, value.to_string()).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

/// The instruction of a row with an input: its number of words, and their hash.
fn head(parts: &[Part], words: &[Vec<u64>]) -> Option<(usize, u64)> {
    let input = parts
        .iter()
        .position(|part| part.place == Place::Field("input"))?;
    let instruction = &words[input.checked_sub(1)?];
    let mut hasher = DefaultHasher::new();
    instruction.hash(&mut hasher);
    Some((instruction.len(), hasher.finish()))
}

/// The rows so far.
#[derive(Default)]
pub(super) struct Seen {
    /// Whether near-duplicates are checked.
    near: bool,
    rows: Vec<Row>,
    /// The first row of each conversation and of each prompt, by their hashes.
    conversations: HashMap<u64, u32>,
    prompts: HashMap<u64, u32>,
    vocabulary: Vocabulary,
    texts: Texts,
    /// The row of each text.
    compared: Vec<u32>,
    /// The numbers of rows that were not compared at all, not compared for near-duplicates, and compared by the first words of
    /// their question only.
    forgotten: usize,
    uncompared: usize,
    long: usize,
}

struct Row {
    source: usize,
    origin: Origin,
    excerpt: Box<str>,
}

impl Row {
    /// The row's place as written for a row at `other`: without the file's name if it is the same.
    fn seen_from(&self, other: &Origin) -> String {
        if self.origin.file == other.file {
            format!("row {}", self.origin.row)
        } else {
            self.origin.to_string()
        }
    }
}

impl Seen {
    pub(super) fn new(near: bool) -> Seen {
        Seen {
            near,
            ..Seen::default()
        }
    }

    /// Looks for a row among the earlier ones, and remembers it.
    pub(super) fn add(
        &mut self,
        source: usize,
        origin: &Origin,
        keys: Keys,
    ) -> Option<(Kind, String)> {
        if self.rows.len() == MOST_ROWS {
            self.forgotten += 1;
            return None;
        }
        let row = self.rows.len() as u32;
        self.rows.push(Row {
            source,
            origin: origin.clone(),
            excerpt: keys.excerpt.into(),
        });
        let same = *self.conversations.entry(keys.conversation).or_insert(row);
        let asked = keys
            .prompt
            .map(|prompt| *self.prompts.entry(prompt).or_insert(row));
        let (kind, earlier) = match asked {
            _ if same != row => (Kind::Duplicates, same),
            Some(asked) if asked != row => (Kind::ConflictingAnswers, asked),
            _ => {
                self.compare(row, &keys.question, keys.head, keys.long);
                return None;
            }
        };
        let earlier = &self.rows[earlier as usize];
        let place = earlier.seen_from(origin);
        Some((kind, format!("same as {place}: {}", earlier.excerpt)))
    }

    fn compare(&mut self, row: u32, question: &[u64], head: Option<(usize, u64)>, long: bool) {
        if !self.near {
            return;
        }
        if self.texts.size() + question.len() > MOST_WORDS {
            self.uncompared += 1;
            return;
        }
        self.long += usize::from(long);
        let words = question.iter().map(|&word| self.vocabulary.number(word));
        self.texts.push(words, head);
        self.compared.push(row);
    }

    /// Compares the questions of all rows. The notes say what was not compared.
    pub(super) fn near_duplicates(self) -> (Tally, Vec<String>) {
        let nearest = self.texts.nearest(MOST_STEPS);
        let mut tally = Tally::default();
        for (&row, earlier) in self.compared.iter().zip(&nearest.earlier) {
            let Some(earlier) = earlier else { continue };
            let [row, earlier] = [row, self.compared[*earlier as usize]];
            let [row, earlier] = [row, earlier].map(|row| &self.rows[row as usize]);
            let place = earlier.seen_from(&row.origin);
            let what = format!(
                "{} is nearly the same as {place}, {}",
                row.excerpt, earlier.excerpt
            );
            tally.add(row.source, &row.origin, what);
        }
        let notes = [
            (self.forgotten, format!("were not checked for duplicates: only the first {MOST_ROWS} rows are")),
            (self.uncompared, format!("were not checked for near-duplicates: the questions before them have {MOST_WORDS} words")),
            (nearest.left, "were not checked for near-duplicates: the rows with shorter questions took too long".into()),
            (self.long, format!("were checked for near-duplicates by the first {MOST_OF_ONE} words of their question only")),
        ];
        let notes = notes.into_iter().filter(|(rows, _)| *rows > 0);
        (
            tally,
            notes
                .map(|(rows, what)| format!("{rows} rows {what}"))
                .collect(),
        )
    }
}
