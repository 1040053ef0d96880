//! What is kept of every row to find duplicates: hashes, the words of its question, and its place.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use simmer_files::size::counted;

use super::Kind;
use super::excerpt::{beginning, middle};
use super::near::{MOST_STEPS, Texts};
use super::part::{Part, Place};
use super::report::Tally;
use super::words::{self, Vocabulary};
use simmer_data::conversation::{Conversation, Origin, Role};

/// The maximum number of rows kept, about 100 bytes each.
const MOST_ROWS: usize = 500_000;

/// The maximum number of words kept, about 12 bytes each while they are compared.
const MOST_WORDS: usize = 8_000_000;

/// The maximum number of words of one question.
const MOST_OF_ONE: usize = 2048;

/// The number of pairs of near-duplicates whose common part is shown.
const MOST_SHOWN: usize = 50;

/// What a row is compared by.
#[derive(Debug)]
pub(super) struct Keys {
    conversation: u64,
    /// The hashes of everything before the last answer and of that answer, if a question is before it.
    answered: Option<(u64, u64)>,
    question: Vec<u64>,
    /// The question as text.
    text: String,
    /// If an instruction has an input: its number of words, and their hash.
    head: Option<(usize, u64)>,
    /// Whether the question has more words than are compared.
    long: bool,
    excerpt: String,
}

impl Keys {
    /// `words` are the words of each of the row's `parts`.
    pub(super) fn of(
        row: &Conversation,
        template: &str,
        parts: &[Part],
        words: &[Vec<u64>],
    ) -> Keys {
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
            answered: answered(row, template, parts),
            text: question_text(asked().map(|(part, _)| part.text)),
            head: head(parts, words).filter(|(words, _)| *words < question.len()),
            question,
            long,
            excerpt: texts.join(" + "),
        }
    }
}

/// The hashes of what is before the last answer and of the answer. None if nobody asks anything before it, or if the answer
/// is not trained on. The same question in another template is another prompt, and what follows the answer is no part of it.
fn answered(row: &Conversation, template: &str, parts: &[Part]) -> Option<(u64, u64)> {
    let place = parts
        .iter()
        .rposition(|part| part.role == Some(Role::Assistant))?;
    let (before, answer) = (&parts[..place], parts[place]);
    let asks = |part: &Part| {
        matches!(part.role, Some(Role::User | Role::Tool)) && !part.text.trim().is_empty()
    };
    let untrained = answer.message.and_then(|message| message.train) == Some(false);
    if untrained || !before.iter().any(asks) {
        return None;
    }
    let mut prompt = DefaultHasher::new();
    (template, said(row, before)).hash(&mut prompt);
    let trimmed = Part {
        text: answer.text.trim(),
        ..answer
    };
    Some((prompt.finish(), said(row, &[trimmed])))
}

/// The texts of a question, as far as they are compared.
fn question_text<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let texts: Vec<&str> = texts.collect();
    let mut text = texts.join("\n");
    text.truncate(words::start(&text, MOST_OF_ONE));
    text
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
    /// With the hash of the first answer.
    prompts: HashMap<u64, (u32, u64)>,
    vocabulary: Vocabulary,
    texts: Texts,
    /// The row of each text, and the text itself.
    compared: Vec<(u32, Box<str>)>,
    /// The numbers of rows that were not compared at all, not compared for near-duplicates, and compared by the first words of
    /// their question only.
    forgotten: usize,
    uncompared: usize,
    long: usize,
}

struct Row {
    source: usize,
    /// Whether it is a validation row.
    validates: bool,
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
        validates: bool,
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
            validates,
            origin: origin.clone(),
            excerpt: keys.excerpt.as_str().into(),
        });
        let same = *self.conversations.entry(keys.conversation).or_insert(row);
        let asked = keys.answered.and_then(|(prompt, answer)| {
            let (first, known) = *self.prompts.entry(prompt).or_insert((row, answer));
            (known != answer).then_some(first)
        });
        let (kind, earlier) = match asked {
            _ if same != row => (Kind::Duplicates, same),
            Some(asked) => (Kind::ConflictingAnswers, asked),
            None => {
                self.compare(row, keys);
                return None;
            }
        };
        let earlier = &self.rows[earlier as usize];
        let place = earlier.seen_from(origin);
        if kind == Kind::Duplicates && validates && !earlier.validates {
            let what = format!("same as the training row, {place}: {}", earlier.excerpt);
            return Some((Kind::TrainedValidation, what));
        }
        Some((kind, format!("same as {place}: {}", earlier.excerpt)))
    }

    fn compare(&mut self, row: u32, keys: Keys) {
        if !self.near {
            return;
        }
        let Keys {
            question,
            text,
            head,
            long,
            ..
        } = keys;
        if self.texts.size() + question.len() > MOST_WORDS {
            self.uncompared += 1;
            return;
        }
        self.long += usize::from(long);
        let words = question.iter().map(|&word| self.vocabulary.number(word));
        self.texts.push(words, head);
        self.compared.push((row, text.into()));
    }

    /// Compares the questions of all rows, and describes the first `listed`. The notes say what was not compared.
    pub(super) fn near_duplicates(self, listed: usize) -> (Tally, Vec<String>) {
        let nearest = self.texts.nearest(MOST_STEPS);
        let mut tally = Tally::default();
        let mut shown = 0;
        for (text, earlier) in nearest.earlier.iter().enumerate() {
            let Some(earlier) = earlier.map(|earlier| earlier as usize) else {
                continue;
            };
            let row = &self.rows[self.compared[text].0 as usize];
            let what = if shown < listed {
                self.near_duplicate(text, earlier, shown < MOST_SHOWN)
            } else {
                String::new()
            };
            shown += 1;
            tally.add(row.source, &row.origin, what, listed);
        }
        let not_compared = "not checked for near-duplicates";
        let notes = [
            (
                self.forgotten,
                "not checked for duplicates",
                format!("only the first {MOST_ROWS} rows are"),
            ),
            (
                self.uncompared,
                not_compared,
                format!("the questions before have {MOST_WORDS} words"),
            ),
            (
                nearest.left,
                not_compared,
                "the rows with shorter questions took too long".into(),
            ),
            (
                self.long,
                "not checked as a whole for near-duplicates",
                format!("only the first {MOST_OF_ONE} words of a question are"),
            ),
        ];
        let notes = notes.into_iter().filter(|(rows, _, _)| *rows > 0);
        (
            tally,
            notes
                .map(|(rows, what, why)| format!("{what}: {}; {why}", counted(rows, "row")))
                .collect(),
        )
    }

    /// How a text is like an earlier one.
    fn near_duplicate(&self, text: usize, earlier: usize, show: bool) -> String {
        let score = self.texts.score(text, earlier);
        let [(row, text), (other, before)] = [&self.compared[text], &self.compared[earlier]];
        let [row, other] = [row, other].map(|row| &self.rows[*row as usize]);
        let place = other.seen_from(&row.origin);
        let mut what = format!(
            "{} is nearly the same as {place}, {} (ROUGE-L {score:.2})",
            row.excerpt, other.excerpt
        );
        if show && let Some(common) = common(text, before) {
            what = format!("{what}; both have {common}");
        }
        what
    }
}

/// The longest run of words that two texts have in common, if it is not at the beginning of both, where it is seen anyway.
fn common(text: &str, other: &str) -> Option<String> {
    let (words, others) = (words::words(text), words::words(other));
    let mut lengths = vec![0usize; others.len() + 1];
    let (mut longest, mut end, mut end_of_other) = (0, 0, 0);
    for (i, word) in words.iter().enumerate() {
        let mut before = 0;
        for (j, other) in others.iter().enumerate() {
            let here = if word == other { before + 1 } else { 0 };
            before = std::mem::replace(&mut lengths[j + 1], here);
            if here > longest {
                (longest, end, end_of_other) = (here, i + 1, j + 1);
            }
        }
    }
    if longest == 0 || (end == longest && end_of_other == longest) {
        return None;
    }
    let [start, end] = [end - longest, end].map(|word| words::start(text, word));
    Some(middle(text[start..end].trim()))
}
