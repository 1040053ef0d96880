//! What is remembered of every row, to find it again: hashes, the words of its question, and where it stands.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Kind;
use super::excerpt::beginning;
use super::near::{MOST_STEPS, Texts};
use super::part::{Part, Place};
use super::report::Tally;
use super::words::Vocabulary;
use simmer_data::conversation::{Conversation, Origin, Role};

/// The most rows that are remembered, of some 100 bytes each.
const MOST_ROWS: usize = 500_000;

/// The most words that are, of some 12 bytes each while they are compared.
const MOST_WORDS: usize = 8_000_000;

/// The most words of one question.
const MOST_OF_ONE: usize = 2048;

/// What a row is found again by.
#[derive(Debug)]
pub(super) struct Keys {
    conversation: u64,
    /// What comes before the last answer, where there is something.
    prompt: Option<u64>,
    question: Vec<u64>,
    /// The words of an instruction that an input follows, and their hash.
    head: Option<(usize, u64)>,
    /// More words than are compared.
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

/// What comes before the last answer, if it says anything.
fn prompt<'p, 'c>(parts: &'p [Part<'c>]) -> Option<&'p [Part<'c>]> {
    let answer = parts
        .iter()
        .rposition(|part| part.role == Some(Role::Assistant))?;
    let before = &parts[..answer];
    let says = |part: &Part| !part.text.trim().is_empty();
    before.iter().any(says).then_some(before)
}

/// A hash of who says what.
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

/// The instruction that an input follows: how many words, and their hash.
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
    /// Whether near-duplicates are looked for.
    near: bool,
    rows: Vec<Row>,
    /// The first row of each conversation and of each prompt, by their hashes.
    conversations: HashMap<u64, u32>,
    prompts: HashMap<u64, u32>,
    vocabulary: Vocabulary,
    texts: Texts,
    /// The row of each text.
    compared: Vec<u32>,
    /// Rows that were not remembered, that were not compared for near-duplicates, and that were by their beginning alone.
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
    /// Where the row stands, as another row says it.
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
        Some((kind, format!("as {place}: {}", earlier.excerpt)))
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

    /// Compares the questions of all rows; the notes say what was not compared.
    pub(super) fn near_duplicates(self) -> (Tally, Vec<String>) {
        let nearest = self.texts.nearest(MOST_STEPS);
        let mut tally = Tally::default();
        for (&row, earlier) in self.compared.iter().zip(&nearest.earlier) {
            let Some(earlier) = earlier else { continue };
            let [row, earlier] = [row, self.compared[*earlier as usize]];
            let [row, earlier] = [row, earlier].map(|row| &self.rows[row as usize]);
            let place = earlier.seen_from(&row.origin);
            let what = format!("{} is nearly {place}, {}", row.excerpt, earlier.excerpt);
            tally.add(row.source, &row.origin, what);
        }
        let notes = [
            (self.forgotten, format!("were not compared with others: only the first {MOST_ROWS} are")),
            (self.uncompared, format!("were not looked at for near-duplicates: the questions before them have {MOST_WORDS} words")),
            (nearest.left, "were not looked at for near-duplicates: those with shorter questions took too long".into()),
            (self.long, format!("were looked at for near-duplicates by the first {MOST_OF_ONE} words of their question alone")),
        ];
        let said = notes.into_iter().filter(|(rows, _)| *rows > 0);
        (
            tally,
            said.map(|(rows, what)| format!("{rows} rows {what}"))
                .collect(),
        )
    }
}
