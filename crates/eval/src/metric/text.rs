//! Metrics of generated texts: extracting the answer and comparing it.

use std::collections::BTreeMap;

use fancy_regex::Regex;

use super::math::{boxed, unified};
use super::{Score, rouge_l};
use crate::error::EvalError;
use crate::task::{
    Extraction, Generation, Instruction, Normalisation, Otherwise, Take, TextMetric,
};

/// The extracted answer if the pattern does not match.
const NOTHING: &str = "[invalid]";

/// A [`Normalisation`] with compiled patterns.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "as in Normalisation")]
struct Normaliser {
    without: Vec<Regex>,
    articles: Option<Regex>,
    ignore_case: bool,
    ignore_punctuation: bool,
    ignore_spaces: bool,
    math: bool,
}

impl Normaliser {
    fn new(task: &str, normalisation: &Normalisation) -> Result<Self, EvalError> {
        let without = normalisation.without.iter();
        let articles = normalisation.ignore_articles;
        Ok(Self {
            without: without
                .map(|text| compiled(task, text))
                .collect::<Result<_, _>>()?,
            articles: articles
                .then(|| compiled(task, r"(?i)\b(a|an|the)\b"))
                .transpose()?,
            ignore_case: normalisation.ignore_case,
            ignore_punctuation: normalisation.ignore_punctuation,
            ignore_spaces: normalisation.ignore_spaces,
            math: normalisation.math,
        })
    }

    /// The normalised text.
    fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for pattern in &self.without {
            text = pattern.replace_all(&text, "").into_owned();
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !c.is_ascii_punctuation());
        }
        if let Some(articles) = &self.articles {
            text = articles.replace_all(&text, " ").into_owned();
        }
        if self.ignore_spaces {
            text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        if self.math {
            text = unified(&text);
        }
        text
    }
}

/// Extractions and metrics of a task.
#[derive(Debug)]
pub(super) struct Texts {
    /// The extractions by name; a single one without a name if the whole text is the answer.
    ways: Vec<NamedWay>,
    normaliser: Normaliser,
    metrics: Vec<TextMetric>,
    /// How many of the first samples vote, for each score.
    votes: Vec<usize>,
}

/// An extraction and its name; both `None` if the whole text is the answer.
type NamedWay = (Option<String>, Option<Way>);

#[derive(Debug)]
struct Way {
    place: Place,
    otherwise: Option<Otherwise>,
}

/// Where an answer is.
#[derive(Debug)]
enum Place {
    Pattern(Regex, Take),
    /// In the last box.
    Box,
}

impl Texts {
    pub(super) fn of(task: &str, generation: &Generation) -> Result<Self, EvalError> {
        Ok(Self {
            ways: ways(task, &generation.extract)?,
            normaliser: Normaliser::new(task, &generation.normalise)?,
            metrics: generation.metrics.clone(),
            votes: generation.votes(generation.samples),
        })
    }

    pub(super) fn of_instruction(task: &str, of: &Instruction) -> Result<Self, EvalError> {
        Ok(Self {
            ways: vec![(None, None)],
            normaliser: Normaliser::new(task, &of.normalise)?,
            metrics: vec![TextMetric::RougeL, TextMetric::ExactMatch],
            votes: Vec::new(),
        })
    }

    /// Whether the task's instructions are checked by a program (IFEval).
    pub(super) fn verifies(&self) -> bool {
        self.metrics.contains(&TextMetric::Instructions)
    }

    /// The scores of samples. Each of `answers` is right.
    pub(super) fn scores(&self, answers: &[String], samples: &[String]) -> Vec<Score> {
        let mut scores = Vec::new();
        for metric in &self.metrics {
            for (way, extraction) in &self.ways {
                let found = |text: &String| match extraction {
                    Some(way) => way.found(text),
                    None => text.clone(),
                };
                if *metric == TextMetric::Majority {
                    for votes in &self.votes {
                        let each = samples.iter().take(*votes).map(found);
                        let value = self.is_right(&self.most_frequent(each), answers);
                        scores.push(Score::of(
                            named(&format!("maj@{votes}"), way.as_deref()),
                            value,
                        ));
                    }
                    continue;
                }
                let value = match metric {
                    TextMetric::ExactMatch => {
                        let first = samples.first().map(found);
                        self.is_right(&first.unwrap_or_default(), answers)
                    }
                    TextMetric::RougeL => {
                        let first = samples.first().map_or("", String::as_str);
                        let each = answers.iter().map(|answer| rouge_l(answer, first));
                        each.fold(0.0, f64::max)
                    }
                    _ => continue,
                };
                let name = match metric {
                    TextMetric::RougeL => "rouge_l".to_owned(),
                    _ => named("exact_match", way.as_deref()),
                };
                scores.push(Score::of(name, value));
            }
        }
        scores
    }

    /// The most frequent text, the first if several are equal. Formulas count as equal in every notation.
    fn most_frequent(&self, texts: impl Iterator<Item = String>) -> String {
        let mut counts: Vec<(String, String, usize)> = Vec::new();
        for text in texts {
            let same = if self.normaliser.math {
                self.normaliser.apply(&text)
            } else {
                text.clone()
            };
            match counts.iter_mut().find(|(known, ..)| *known == same) {
                Some((.., count)) => *count += 1,
                None => counts.push((same, text, 1)),
            }
        }
        let most = counts.iter().map(|(.., count)| *count).max().unwrap_or(0);
        let first = counts.into_iter().find(|(.., count)| *count == most);
        first.map(|(_, text, _)| text).unwrap_or_default()
    }

    fn is_right(&self, found: &str, answers: &[String]) -> f64 {
        let found = self.normaliser.apply(found);
        let right = answers
            .iter()
            .any(|answer| self.normaliser.apply(answer) == found);
        f64::from(u8::from(right))
    }
}

/// A metric's name with the name of the extraction.
fn named(metric: &str, way: Option<&str>) -> String {
    match way {
        Some(way) => format!("{metric},{way}"),
        None => metric.to_owned(),
    }
}

impl Way {
    fn found(&self, text: &str) -> String {
        let found = match &self.place {
            Place::Box => boxed(text).map(|found| found.trim().to_owned()),
            Place::Pattern(pattern, take) => Self::matched(pattern, *take, text),
        };
        found.unwrap_or_else(|| match self.otherwise {
            Some(Otherwise::All) => text.to_owned(),
            None => NOTHING.to_owned(),
        })
    }

    fn matched(pattern: &Regex, take: Take, text: &str) -> Option<String> {
        let places = pattern.captures_iter(text).filter_map(Result::ok);
        let place = match take {
            Take::First => places.into_iter().next(),
            Take::Last => places.into_iter().last(),
        }?;
        let found = if place.len() == 1 {
            place.get(0)
        } else {
            let mut groups = place.iter().skip(1).flatten();
            match groups.find(|group| !group.as_str().is_empty()) {
                // Python's findall returns a single group as a string, and several as a tuple
                None if place.len() == 2 => place.get(1),
                found => found,
            }
        };
        let found = found.map_or(NOTHING, |group| group.as_str());
        Some(found.trim().to_owned())
    }
}

fn ways(task: &str, extract: &BTreeMap<String, Extraction>) -> Result<Vec<NamedWay>, EvalError> {
    if extract.is_empty() {
        return Ok(vec![(None, None)]);
    }
    let ways = extract.iter().map(|(name, extraction)| {
        let place = match (&extraction.pattern, extraction.boxed) {
            (Some(pattern), false) => Place::Pattern(compiled(task, pattern)?, extraction.take),
            (None, true) => Place::Box,
            (Some(_), true) | (None, false) => {
                return Err(EvalError::Task {
                    name: task.to_owned(),
                    problem: format!(
                        "[generation.extract.{name}]: expected either `pattern` or `boxed = true`"
                    ),
                });
            }
        };
        let way = Way {
            place,
            otherwise: extraction.otherwise,
        };
        Ok((Some(name.clone()), Some(way)))
    });
    ways.collect()
}

fn compiled(task: &str, pattern: &str) -> Result<Regex, EvalError> {
    Regex::new(pattern).map_err(|error| EvalError::Pattern {
        name: task.to_owned(),
        pattern: pattern.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, take: Take, text: &str) -> String {
        let way = Way {
            place: Place::Pattern(Regex::new(pattern).unwrap(), take),
            otherwise: None,
        };
        way.found(text)
    }

    #[test]
    fn answers_are_found_as_the_harness_finds_them() {
        let strict = r"The answer is (\-?[0-9\.\,]+).";
        let text = "So 5 + 4 = 9. The answer is 1,234.\n\nQ: 7? The answer is 8.";
        // the last character of the number is the expression's own full stop
        assert_eq!(found(strict, Take::First, text), "1,234");
        assert_eq!(found(strict, Take::First, "nine"), "[invalid]");
        let flexible = r"(-?[$0-9.,]{2,})|(-?[0-9]+)";
        assert_eq!(found(flexible, Take::Last, "from $20. to 7"), "7");
        assert_eq!(found(flexible, Take::Last, "it costs $18.00."), "$18.00.");
        assert_eq!(found(flexible, Take::Last, "none, at all."), "[invalid]");
    }

    #[test]
    fn normalisation_removes_what_does_not_count() {
        let normaliser = |normalisation| Normaliser::new("t", &normalisation).unwrap();
        let numbers = normaliser(Normalisation {
            without: [",", r"\$", r"(?s).*#### ", r"\.$"]
                .map(str::to_owned)
                .to_vec(),
            ignore_case: true,
            ..Normalisation::default()
        });
        assert_eq!(numbers.apply("a\nb #### $1,234."), "1234");
        let words = normaliser(Normalisation {
            ignore_case: true,
            ignore_punctuation: true,
            ignore_articles: true,
            ignore_spaces: true,
            ..Normalisation::default()
        });
        assert_eq!(words.apply(" The  Theory, of an apple!"), "theory of apple");
    }

    #[test]
    fn the_most_frequent_answer_counts() {
        let texts = |list: &[&str], math: bool| {
            let of = Texts {
                ways: Vec::new(),
                normaliser: Normaliser::new(
                    "t",
                    &Normalisation {
                        math,
                        ..Normalisation::default()
                    },
                )
                .unwrap(),
                metrics: Vec::new(),
                votes: Vec::new(),
            };
            of.most_frequent(list.iter().map(|text| (*text).to_owned()))
        };
        assert_eq!(texts(&["1", "1/2", "0.5"], true), "1/2");
        let texts = |list: &[&str]| texts(list, false);
        assert_eq!(texts(&["8", "9", "9", "8", "7"]), "8");
        assert_eq!(texts(&["7", "9", "9"]), "9");
        assert_eq!(texts(&[]), "");
    }
}
