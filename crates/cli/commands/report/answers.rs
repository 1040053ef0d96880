//! Answers and scores of base and trained models, side by side.

use serde::Serialize;
use simmer_eval::Bootstrap;
use simmer_eval::report::MetricReport;

use super::page::Named;
use super::run::Run;

/// A sample prompt and its answers.
#[derive(Serialize)]
pub(super) struct Prompt<'a> {
    text: &'a str,
    before: Vec<Answer<'a>>,
    after: Vec<Answer<'a>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    /// The runs that gave it; empty if the page has a single run.
    runs: Vec<Named<'a>>,
    text: &'a str,
}

/// The answers of runs to their sample prompts.
pub(super) fn prompts(runs: &[Run]) -> Vec<Prompt<'_>> {
    let mut prompts: Vec<Prompt<'_>> = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let samples = run.comparison.iter();
        for sample in samples.flat_map(|comparison| &comparison.samples) {
            let place = prompts.iter().position(|known| known.text == sample.prompt);
            let place = place.unwrap_or_else(|| {
                prompts.push(Prompt {
                    text: &sample.prompt,
                    before: Vec::new(),
                    after: Vec::new(),
                });
                prompts.len() - 1
            });
            let Prompt { before, after, .. } = &mut prompts[place];
            let name = (runs.len() > 1).then(|| Named::of(number, run));
            // runs of one base model have the same answer before training
            match before
                .iter_mut()
                .find(|answer| answer.text == sample.before)
            {
                Some(answer) => answer.runs.extend(name.clone()),
                None => before.push(Answer::new(name.clone(), &sample.before)),
            }
            after.push(Answer::new(name, &sample.after));
        }
    }
    for answer in prompts
        .iter_mut()
        .flat_map(|prompt| prompt.before.iter_mut().chain(&mut prompt.after))
    {
        answer.text = answer.text.trim();
    }
    prompts
}

impl<'a> Answer<'a> {
    fn new(run: Option<Named<'a>>, text: &'a str) -> Self {
        Self {
            runs: run.into_iter().collect(),
            text,
        }
    }
}

/// The scores of a run's base and trained model by one metric.
#[derive(Serialize)]
pub(super) struct Scored {
    /// The run's number.
    run: usize,
    /// Held-out rows.
    rows: usize,
    cells: Vec<String>,
}

/// The scores of base and trained models.
pub(super) fn scores(runs: &[Run]) -> Vec<Scored> {
    let mut rows = Vec::new();
    for (run, of) in runs.iter().enumerate() {
        if let Some(comparison) = &of.comparison {
            rows.extend(comparison.scores.iter().map(|metric| Scored {
                run,
                rows: comparison.held_out_rows,
                cells: score(metric),
            }));
        }
    }
    rows
}

fn score(metric: &MetricReport) -> Vec<String> {
    let means = metric.means.iter().map(|mean| match mean.stderr {
        Some(stderr) => format!("{:.4} ± {stderr:.4}", mean.value),
        None => format!("{:.4}", mean.value),
    });
    let differences = metric.differences.iter().flat_map(|found| {
        let value = format!("{:+.4}", found.value);
        let Some(Bootstrap { interval, p }) = found.bootstrap else {
            return [value, "–".to_owned(), "–".to_owned()];
        };
        let [low, high] = interval;
        let interval = format!("{low:+.4} to {high:+.4}");
        [value, interval, format!("{p:.4}")]
    });
    std::iter::once(metric.metric.clone())
        .chain(means)
        .chain(differences)
        .collect()
}
