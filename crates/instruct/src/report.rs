//! What a run made, in numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use simmer_files::size::{counted, grouped};

use crate::completion::{Completion, Finish};
use crate::endpoint::EndpointConfig;
use crate::filter::Reason;
use crate::recipe::{GenerateRecipe, ModelConfig};
use crate::run::{Ended, Made, Outcome};
use crate::verbs::verb_and_noun;

/// How many verbs the report has, and how many objects of each, as the figure of the paper.
const VERBS: usize = 20;
const NOUNS: usize = 4;

/// The report of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The method.
    pub method: String,
    /// The model.
    pub model: String,
    /// Why the run ended.
    pub ended: Ended,
    /// `row` or `conversation`.
    pub kind: &'static str,
    /// The rows, or conversations.
    pub rows: usize,
    /// The rows of the seeds among them.
    pub of_seeds: usize,
    /// The instructions that were kept.
    pub instructions: usize,
    /// How many of these are classification tasks, if the method asks.
    pub classification: Option<usize>,
    /// How much was dropped, by reason.
    pub dropped: BTreeMap<&'static str, usize>,
    /// Requests and tokens.
    pub spent: Spent,
    /// How diverse the kept instructions are.
    pub diversity: Diversity,
    /// The mean number of words.
    pub words: Lengths,
}

/// Requests and tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Prompts that were completed.
    pub requests: usize,
    /// Completions that reached their maximum number of tokens.
    pub truncated: usize,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of completions.
    pub completion_tokens: u64,
    /// Completions of which the server does not say how many tokens they have.
    pub without_tokens: usize,
    /// The cost by the recipe's prices.
    pub cost: Option<f64>,
}

/// How diverse instructions are.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Diversity {
    /// How verbs and nouns are found.
    pub method: &'static str,
    /// Instructions with a verb and its object.
    pub with_both: usize,
    /// Different pairs of them.
    pub pairs: usize,
    /// The most frequent verbs: name, count, and the most frequent objects.
    pub verbs: Vec<Verb>,
    /// How many instructions have their largest ROUGE-L with an earlier one in each tenth.
    pub nearest_rouge_l: [usize; 10],
}

/// A verb of instructions.
#[derive(Debug, Clone, Serialize)]
pub struct Verb {
    /// The verb.
    pub name: String,
    /// The instructions with it.
    pub count: usize,
    /// Its most frequent objects.
    pub nouns: Vec<(String, usize)>,
}

/// Mean numbers of words.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Lengths {
    /// Of instructions; of the questions in conversations.
    pub instruction: f64,
    /// Of inputs that are not empty.
    pub input: f64,
    /// Of outputs; of the answers in conversations.
    pub output: f64,
    /// Rows without an input.
    pub without_input: usize,
}

impl Report {
    /// The report of a run whose journal has these completions.
    pub fn new<'a>(
        recipe: &GenerateRecipe,
        model: &str,
        outcome: &Outcome,
        completions: impl Iterator<Item = &'a Completion>,
    ) -> Self {
        let mut dropped = BTreeMap::new();
        for one in &outcome.dropped {
            *dropped.entry(one.reason.name()).or_insert(0) += 1;
        }
        let kinds = outcome
            .instructions
            .iter()
            .filter_map(|kept| kept.is_classification);
        let asked: Vec<bool> = kinds.collect();
        let (kind, rows, of_seeds) = match &outcome.made {
            Made::Rows(rows) => (
                "row",
                rows.len(),
                rows.iter().filter(|row| row.of.is_none()).count(),
            ),
            Made::Dialogues(all) => ("conversation", all.len(), 0),
        };
        let endpoint = match &recipe.model {
            ModelConfig::Endpoint(endpoint) => Some(endpoint),
            ModelConfig::Local(_) => None,
        };
        Self {
            method: recipe.method.clone(),
            model: model.to_owned(),
            ended: outcome.ended,
            kind,
            rows,
            of_seeds,
            instructions: outcome.instructions.len(),
            classification: (!asked.is_empty()).then(|| asked.iter().filter(|yes| **yes).count()),
            dropped,
            spent: Spent::new(endpoint, completions),
            diversity: Diversity::new(outcome),
            words: Lengths::new(outcome),
        }
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = write!(text, "kept {}", counted(self.rows, self.kind));
        if self.instructions > 0 {
            let _ = write!(text, " of {}", counted(self.instructions, "instruction"));
        }
        if let Some(count) = self.classification {
            let _ = write!(text, ", {count} of them classification tasks");
        }
        if self.of_seeds > 0 {
            let _ = write!(
                text,
                ", with {} of the seeds",
                counted(self.of_seeds, "row")
            );
        }
        let ended = match self.ended {
            Ended::Target if self.rows == 0 => {
                "the target of instructions is reached, and nothing is left of them"
            }
            Ended::Target => "the target is reached",
            Ended::MaxBatches => "max_batches was reached before the target",
            Ended::Patience => "nothing was kept of the last batches (patience)",
            Ended::Seeds => "every seed was used before the target was reached",
        };
        let _ = write!(
            text,
            "; {ended}\n\ndropped {}",
            grouped(self.dropped.values().sum::<usize>() as u64)
        );
        let mut dropped: Vec<_> = self.dropped.iter().collect();
        dropped.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), **name));
        for (name, count) in dropped {
            let _ = write!(text, "\n{count:>8}  {name}: {}", Reason::meaning(name));
        }
        let _ = write!(text, "\n\n{}", self.spent.text());
        if self.words.output > 0.0 {
            let Lengths {
                instruction,
                input,
                output,
                without_input,
            } = self.words;
            let _ = if self.kind == "conversation" {
                write!(
                    text,
                    "\nwords on average: question {instruction:.1}, answer {output:.1}"
                )
            } else {
                write!(
                    text,
                    "\nwords on average: instruction {instruction:.1}, input {input:.1} ({without_input} without), output {output:.1}"
                )
            };
        }
        text + &self.diversity.text(self.instructions)
    }
}

impl Spent {
    /// What completions needed; the prices are those of the endpoint.
    pub fn new<'a>(
        endpoint: Option<&EndpointConfig>,
        completions: impl Iterator<Item = &'a Completion>,
    ) -> Self {
        let mut spent = Self::default();
        let mut all: Vec<&Completion> = completions.collect();
        // sums of floating-point numbers depend on the order, that of the journal's map does not stay
        all.sort_by_key(|completion| (completion.prompt_tokens, completion.completion_tokens));
        let mut cost = 0.0;
        for completion in all {
            spent.requests += 1;
            spent.truncated += usize::from(completion.finish == Finish::Length);
            spent.prompt_tokens += completion.prompt_tokens.unwrap_or(0);
            spent.completion_tokens += completion.completion_tokens.unwrap_or(0);
            spent.without_tokens += usize::from(completion.completion_tokens.is_none());
            if let Some(endpoint) = endpoint {
                cost += endpoint.cost(completion);
            }
        }
        let priced =
            |endpoint: &EndpointConfig| endpoint.price_prompt + endpoint.price_completion > 0.0;
        let has_prices = endpoint.is_some_and(priced);
        spent.cost = has_prices.then_some(cost);
        spent
    }

    /// The same for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} completed, {} tokens of prompts, {} of completions",
            counted(self.requests, "prompt"),
            grouped(self.prompt_tokens),
            grouped(self.completion_tokens)
        );
        if self.truncated > 0 {
            let _ = write!(text, "; {} reached max_tokens", self.truncated);
        }
        if self.without_tokens > 0 {
            let _ = write!(text, "; {} without a count of tokens", self.without_tokens);
        }
        if let Some(cost) = self.cost {
            let _ = write!(text, "; cost {cost:.2}");
        }
        text
    }
}

impl Diversity {
    fn new(outcome: &Outcome) -> Self {
        let mut found: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        let mut diversity = Self {
            method: "heuristic: first verb, last word of the noun phrase after it",
            ..Self::default()
        };
        for kept in &outcome.instructions {
            let score = kept.nearest.first().map_or(0.0, |(_, score)| *score);
            diversity.nearest_rouge_l[((score * 10.0) as usize).min(9)] += 1;
            if let (Some(verb), Some(noun)) = verb_and_noun(&kept.text) {
                *found.entry(verb).or_default().entry(noun).or_insert(0) += 1;
                diversity.with_both += 1;
            }
        }
        diversity.pairs = found.values().map(BTreeMap::len).sum();
        let verbs = found.into_iter().map(|(verb, nouns)| Verb {
            name: verb,
            count: nouns.values().sum(),
            nouns: most(nouns.into_iter().collect(), NOUNS),
        });
        let mut verbs: Vec<Verb> = verbs.collect();
        verbs.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        verbs.truncate(VERBS);
        diversity.verbs = verbs;
        diversity
    }

    fn text(&self, instructions: usize) -> String {
        if self.verbs.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "\n\nverb and object ({}): found in {} of {instructions}, {} different pairs",
            self.method, self.with_both, self.pairs
        );
        for verb in &self.verbs {
            let nouns: Vec<String> = verb
                .nouns
                .iter()
                .map(|(noun, count)| format!("{noun} {count}"))
                .collect();
            let _ = write!(
                text,
                "\n{:>8}  {}: {}",
                verb.count,
                verb.name,
                nouns.join(", ")
            );
        }
        text
    }
}

fn most(mut counts: Vec<(String, usize)>, count: usize) -> Vec<(String, usize)> {
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(count);
    counts
}

impl Lengths {
    fn new(outcome: &Outcome) -> Self {
        let count = |text: &str| crate::python::words(text).count();
        let mean =
            |lengths: &[usize]| lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
        let (mut instructions, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        let mut without_input = 0;
        match &outcome.made {
            Made::Rows(rows) => {
                for row in rows {
                    instructions.push(count(&row.instruction));
                    outputs.push(count(&row.output));
                    if row.input.is_empty() {
                        without_input += 1;
                    } else {
                        inputs.push(count(&row.input));
                    }
                }
            }
            Made::Dialogues(all) => {
                for (question, answer) in all.iter().flat_map(|(dialogue, _)| &dialogue.turns) {
                    instructions.push(count(question));
                    outputs.push(count(answer));
                }
            }
        }
        Self {
            instruction: mean(&instructions),
            input: mean(&inputs),
            output: mean(&outputs),
            without_input,
        }
    }
}
