//! Tasks whose answers are generated text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use simmer_model::Sampling;

use super::{Extraction, Normalisation, Task, TextMetric};

/// A prompt to continue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The prompt.
    pub prompt: String,
    /// The start of the answer, which the model continues. In a chat it begins the assistant's message; else it stands after
    /// the prompt. Few-shot examples with a template for their answers have it before the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// An expression for the right answers: a text, or a list of texts that are all right.
    pub answers: Option<String>,
    /// An expression for wrong answers, with which an answer is compared, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
    /// A template for the program that checks an answer, which is its field `answer`. If it runs to its end, the answer is
    /// right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Stop sequences; they are not part of the answer.
    #[serde(default)]
    pub until: Vec<String>,
    /// The maximum number of new tokens.
    pub max_new_tokens: usize,
    /// The number of answers to each question. If above 1, answers are sampled and the most frequent one counts.
    #[serde(default = "one")]
    pub samples: usize,
    /// The temperature, see [`simmer_model::Sampling`]; 0 is greedy decoding.
    #[serde(default)]
    pub temperature: f64,
    /// How many of the first samples vote, for the metric `majority`. Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<usize>,
    /// The `k` of the metric `pass_at_k`. Those above the number of samples are left out. Default: 1, 10 and 100.
    #[serde(default, skip_serializing)]
    pub pass_at: Vec<usize>,
    /// How to extract the answer from the text, by name.
    #[serde(default)]
    pub extract: BTreeMap<String, Extraction>,
    /// What is ignored when texts are compared.
    #[serde(default)]
    pub normalise: Normalisation,
    /// The metrics.
    pub metrics: Vec<TextMetric>,
}

fn one() -> usize {
    1
}

impl Generation {
    /// The `k` of pass@k that this number of samples can estimate.
    pub(crate) fn pass_at(&self, samples: usize) -> Vec<usize> {
        let all = if self.pass_at.is_empty() {
            &[1, 10, 100]
        } else {
            self.pass_at.as_slice()
        };
        let estimated = all.iter().filter(|k| (1..=samples).contains(*k));
        estimated.copied().collect()
    }

    /// How many of the first samples vote, for each score.
    pub(crate) fn votes(&self, samples: usize) -> Vec<usize> {
        let fewer = self.votes.iter().filter(|votes| **votes < samples);
        std::iter::once(samples).chain(fewer.copied()).collect()
    }

    /// How its answers are sampled, except for their seeds.
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            ..Sampling::default()
        }
    }

    /// What a metric needs must be there, and the temperature in its range.
    pub(super) fn check(&self) -> Result<(), String> {
        let sampling = self.sampling().check();
        sampling.map_err(|error| format!("[generation]: {error}"))?;
        let needs = [
            (TextMetric::PassAtK, "pass_at_k", "program", &self.program),
            (TextMetric::Similarity, "similarity", "wrong", &self.wrong),
        ];
        for (metric, name, key, value) in needs {
            if self.metrics.contains(&metric) != value.is_some() {
                return Err(format!(
                    "[generation]: the metric `{name}` and the key `{key}` need each other"
                ));
            }
        }
        Ok(())
    }
}

impl Task {
    /// The task with `samples` sampled answers to each question. If texts are compared, the most frequent answer is scored,
    /// too.
    pub fn with_samples(mut self, samples: usize, temperature: f64) -> Self {
        if let Some(generation) = &mut self.generation {
            generation.samples = samples;
            generation.temperature = temperature;
            let compares = generation.metrics.contains(&TextMetric::ExactMatch);
            let votes = generation.metrics.contains(&TextMetric::Majority);
            if samples > 1 && compares && !votes {
                generation.metrics.push(TextMetric::Majority);
            }
        }
        self
    }

    /// The task with other `k` of pass@k.
    pub fn with_pass_at(mut self, pass_at: &[usize]) -> Self {
        if let Some(generation) = &mut self.generation
            && generation.program.is_some()
        {
            generation.pass_at = pass_at.to_vec();
        }
        self
    }

    /// Whether its answers are programs, which have to be run.
    pub fn runs_code(&self) -> bool {
        self.has(TextMetric::PassAtK)
    }

    /// Whether another program has to say how toxic its answers are.
    pub fn needs_scorer(&self) -> bool {
        self.has(TextMetric::Toxicity)
    }

    fn has(&self, metric: TextMetric) -> bool {
        let generation = self.generation.as_ref();
        generation.is_some_and(|generation| generation.metrics.contains(&metric))
    }
}
