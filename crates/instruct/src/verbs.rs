//! The main verb of an instruction and its object, to see how diverse instructions are.
//!
//! Self-Instruct parses each instruction (benepar) and takes the verb nearest to the root with its first direct object. Here is no
//! parser. Instructions in English begin with the verb, and its object is the last word of the noun phrase that follows, which
//! ends at a preposition, a conjunction or a punctuation mark. So a question has no verb here, and words that are rare in this
//! place are sometimes taken for nouns. Numbers compare runs of this program with each other, not with the paper.

/// Words before the verb that say nothing.
const POLITE: &[&str] = &["please", "kindly", "now", "then", "also", "first"];

/// Words with which a clause before the main one begins; the main one begins after a comma.
const CLAUSES: &[&str] = &[
    "given",
    "using",
    "based",
    "in",
    "for",
    "from",
    "with",
    "if",
    "as",
    "when",
    "after",
    "before",
    "according",
    "considering",
    "suppose",
    "imagine",
    "by",
    "on",
    "to",
    "following",
];

/// First words that are no verbs: of questions, and of statements.
const NO_VERBS: &[&str] = &[
    "what", "which", "who", "whom", "whose", "when", "where", "why", "how", "is", "are", "am",
    "was", "were", "do", "does", "did", "can", "could", "should", "would", "will", "shall", "may",
    "might", "must", "has", "have", "had", "the", "a", "an", "this", "that", "these", "those",
    "you", "i", "we", "they", "he", "she", "it", "there", "here", "my", "your", "our", "their",
    "his", "her", "its", "and", "or", "but", "not", "no", "yes", "of", "at", "all", "any", "each",
    "every", "some", "two", "three", "four", "five", "one",
];

/// Words that end the noun phrase after a verb.
const ENDS: &[&str] = &[
    "of", "for", "from", "with", "in", "on", "at", "by", "to", "into", "about", "as", "between",
    "among", "using", "based", "without", "within", "during", "through", "over", "under", "and",
    "or", "but", "that", "which", "who", "whose", "when", "where", "why", "how", "what", "if",
    "whether", "so", "is", "are", "was", "were", "be", "can", "could", "should", "would", "will",
    "has", "have", "had", "it", "you", "them", "per", "after", "before", "below", "above",
    "against", "than", "given",
];

/// Words of a noun phrase that are no noun by themselves.
const NO_NOUNS: &[&str] = &[
    "a",
    "an",
    "the",
    "this",
    "that",
    "these",
    "those",
    "my",
    "your",
    "our",
    "their",
    "his",
    "her",
    "its",
    "some",
    "any",
    "all",
    "each",
    "every",
    "me",
    "us",
    "following",
    "given",
    "two",
    "three",
    "four",
    "five",
    "six",
    "ten",
    "one",
    "more",
    "most",
    "least",
    "up",
    "out",
    "down",
    "off",
];

/// The main verb of an instruction and its object, if they are found; both in lower case, the object in the singular.
pub fn verb_and_noun(instruction: &str) -> (Option<String>, Option<String>) {
    let text = instruction.to_lowercase();
    let mut words = tokens(&text);
    loop {
        match words.split_first() {
            Some((first, rest)) if POLITE.contains(first) => words = rest.to_vec(),
            Some((first, _)) if CLAUSES.contains(first) => {
                let Some(comma) = words.iter().position(|word| *word == ",") else {
                    return (None, None);
                };
                words.drain(..=comma);
            }
            _ => break,
        }
    }
    let Some((&verb, rest)) = words.split_first() else {
        return (None, None);
    };
    if NO_VERBS.contains(&verb) || !verb.chars().all(char::is_alphabetic) {
        return (None, None);
    }
    let phrase = rest
        .iter()
        .take_while(|word| !ENDS.contains(*word) && word.starts_with(char::is_alphanumeric));
    let noun = phrase.filter(|word| {
        !NO_NOUNS.contains(*word) && word.chars().all(|c| c.is_alphabetic() || c == '-')
    });
    (
        Some(verb.to_owned()),
        noun.last().map(|noun| singular(noun)),
    )
}

/// Words, and punctuation marks by themselves.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        let inner = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        if word[..word.len() - inner.len()].contains(['(', '[']) {
            found.push("(");
        }
        let end = inner.trim_end_matches(|c: char| !c.is_alphanumeric());
        if !end.is_empty() {
            found.push(end);
        }
        // quotation marks do not count
        let mark = inner[end.len()..].find(['.', ',', ';', ':', '!', '?', ')', ']']);
        found.extend(mark.map(|at| &inner[end.len() + at..][..1]));
    }
    found
}

fn singular(noun: &str) -> String {
    if let Some(stem) = noun.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        return format!("{stem}y");
    }
    let is_plural = noun.len() > 3
        && noun.ends_with('s')
        && !["ss", "us", "is"].iter().any(|end| noun.ends_with(end));
    let stem = if is_plural {
        &noun[..noun.len() - 1]
    } else {
        noun
    };
    let sibilant = ["she", "che", "xe", "sse"]
        .iter()
        .any(|end| is_plural && stem.ends_with(end));
    if sibilant {
        &stem[..stem.len() - 1]
    } else {
        stem
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_and_their_objects() {
        for (instruction, verb, noun) in [
            ("Give three tips for staying healthy.", "give", "tip"),
            ("Write a short story about a frog.", "write", "story"),
            (
                "Classify the following sentence into one of two groups.",
                "classify",
                "sentence",
            ),
            (
                "Given a list of cities, sort the cities by size.",
                "sort",
                "city",
            ),
            (
                "Please describe a time when you had to wait.",
                "describe",
                "time",
            ),
            ("\"Rewrite\" the two paragraphs.", "rewrite", "paragraph"),
            ("Explain why the sky is blue.", "explain", ""),
            ("What are the three primary colors?", "", ""),
            ("In this task", "", ""),
            ("List five glasses, and their uses", "list", "glass"),
            ("", "", ""),
        ] {
            let found = verb_and_noun(instruction);
            let found = (found.0.unwrap_or_default(), found.1.unwrap_or_default());
            assert_eq!(
                (found.0.as_str(), found.1.as_str()),
                (verb, noun),
                "{instruction}"
            );
        }
    }
}
