//! `simmer data preview`: shows examples as the model sees them.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use console::Style;
use simmer_data::dataset::Checked;
use simmer_data::{Cursor, Example, Order, Tokenizer, pack};
use simmer_files::size::{are, counted};
use simmer_lint::LintReport;
use simmer_train::Recipe;

use super::shown::{Look, ShownToken, runs, styled, tokens, visible};
use super::{Named, page};
use crate::failure::Failure;
use crate::output::{self, note};
use crate::{page_file, progress};

/// How many rows of each source of a stream are read.
const STREAM_ROWS: usize = 10_000;

/// Show a recipe's examples as the model sees them
///
/// Labels (the text that is trained on) are green and bold on a terminal, and between ⟦ and ⟧
/// elsewhere. Special tokens are magenta. Then follow the lengths of all examples and the number of
/// micro-batches.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer data preview my.toml
  simmer data preview my.toml --row 17 --ids
  simmer data preview my.toml --html preview.html")]
pub(super) struct Preview {
    #[command(flatten)]
    named: Named,
    /// Number of examples to show from each source
    #[arg(long, short = 'n', default_value_t = 3, value_name = "N")]
    rows: usize,
    /// Show this row of each source instead, counted from 1
    #[arg(long, value_name = "ROW", conflicts_with = "rows")]
    row: Option<usize>,
    /// Mark token boundaries
    #[arg(long)]
    tokens: bool,
    /// Show one token per line: position, ID, whether it is trained on, text
    #[arg(long)]
    ids: bool,
    /// Write an HTML page instead
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

/// An example to show.
pub(super) struct Shown {
    pub(super) title: String,
    pub(super) tokens: Vec<ShownToken>,
}

/// Everything to show.
pub(super) struct Page {
    pub(super) name: String,
    pub(super) summary: String,
    pub(super) lint: String,
    pub(super) examples: Vec<Shown>,
    pub(super) lengths: Lengths,
    pub(super) packing: String,
}

impl Preview {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(path) = &self.html {
            page_file::check(path, "--html")?;
        }
        let (recipe, tokenizer) = self.named.open()?;
        let spinner = progress::spinner("reading");
        let rows = if recipe.data.stream {
            STREAM_ROWS
        } else {
            usize::MAX
        };
        let read = simmer_lint::read(&recipe.data, &tokenizer, rows);
        spinner.finish_and_clear();
        let (data, lint) = read?;
        let page = self.page(&recipe, &data, &lint, &tokenizer)?;
        match &self.html {
            None => output::print(&self.text(&page)),
            Some(path) => {
                let html = page::html(&page)?;
                page_file::write(path, &html)?;
                note(&page.summary);
                output::line(&path.display().to_string())
            }
        }
    }

    fn page(
        &self,
        recipe: &Recipe,
        data: &Checked,
        lint: &LintReport,
        tokenizer: &Tokenizer,
    ) -> Result<Page, Failure> {
        let all: Vec<&Example> = data.train.iter().flatten().collect();
        let shown = |example: &Example| -> Result<Shown, Failure> {
            let origin = &example.origin;
            Ok(Shown {
                title: format!(
                    "{origin}: {}, {} trained on",
                    counted(example.tokens.len(), "token"),
                    example.targets()
                ),
                tokens: tokens(example, tokenizer)?,
            })
        };
        let chosen: Vec<&Example> = match self.row {
            None => data
                .train
                .iter()
                .flat_map(|source| source.iter().take(self.rows))
                .collect(),
            Some(row) => {
                let of_row = all.iter().filter(|example| example.origin.row == row);
                of_row.copied().collect()
            }
        };
        if let (Some(row), []) = (self.row, chosen.as_slice()) {
            return Err(no_example(row, data));
        }
        Ok(Page {
            name: self.named.recipe.display().to_string(),
            summary: data.report.to_string(),
            lint: lint.to_string(),
            examples: chosen
                .into_iter()
                .map(shown)
                .collect::<Result<_, Failure>>()?,
            lengths: Lengths::of(&all, recipe.data.max_tokens),
            packing: packing(recipe, data),
        })
    }

    fn text(&self, page: &Page) -> String {
        let (bold, dim) = (Style::new().bold(), Style::new().dim());
        let mut text = String::new();
        for shown in &page.examples {
            let _ = writeln!(text, "{}", bold.apply_to(format!("── {} ──", shown.title)));
            if self.ids {
                text.push_str(&table(&shown.tokens));
            } else if self.tokens {
                text.push_str(&bounded(&shown.tokens));
            } else {
                for (look, piece) in runs(&shown.tokens) {
                    text.push_str(&styled(look, &visible(&piece), console::colors_enabled()));
                }
            }
            text.push_str("\n\n");
        }
        let _ = writeln!(text, "{}\n", page.summary);
        let _ = writeln!(
            text,
            "{}\n{}",
            bold.apply_to("Tokens per example"),
            page.lengths.text()
        );
        let _ = writeln!(text, "\n{}\n{}", bold.apply_to("Packing"), page.packing);
        let _ = writeln!(text, "\n{}", dim.apply_to(&page.lint));
        text
    }
}

/// The error of a row without an example.
fn no_example(row: usize, data: &Checked) -> Failure {
    let sources = &data.report.train;
    if row > 0 && sources.iter().any(|source| row <= source.rows) {
        return Failure::new(format!("row {row} has no example: it was skipped"))
            .and_hint("`simmer data lint` lists the rows that were skipped");
    }
    let rows = sources
        .iter()
        .map(|source| format!("{} has rows 1 to {}", source.path, source.rows));
    let rows = rows.collect::<Vec<_>>().join(", ");
    Failure::new(format!("there is no row {row}: {rows}"))
}

/// Text with a bar before each token.
fn bounded(tokens: &[ShownToken]) -> String {
    let piece = |token: &ShownToken| {
        let look = Look {
            trained: token.trained,
            special: token.special,
        };
        styled(
            look,
            &visible(&token.text).replace('\n', "↵\n"),
            console::colors_enabled(),
        )
    };
    let pieces: Vec<String> = tokens.iter().map(piece).collect();
    pieces.join("|")
}

/// One line per token.
fn table(tokens: &[ShownToken]) -> String {
    let mut text = format!("{:>6}  {:>7}  {:7}  text\n", "token", "ID", "trained");
    for (place, token) in tokens.iter().enumerate() {
        let trained = if token.trained { "yes" } else { "" };
        let _ = writeln!(
            text,
            "{place:>6}  {:>7}  {trained:7}  {:?}",
            token.id, token.text
        );
    }
    text
}

/// The lengths of examples.
pub(super) struct Lengths {
    /// The smallest length of each bin, and the number of its examples.
    pub(super) bins: Vec<(usize, usize)>,
    width: usize,
    mean: f64,
    median: usize,
    longest: usize,
}

/// The number of bins of the histogram.
const BINS: usize = 16;

impl Lengths {
    fn of(examples: &[&Example], max_tokens: usize) -> Self {
        let mut lengths: Vec<usize> = examples
            .iter()
            .map(|example| example.tokens.len())
            .collect();
        lengths.sort_unstable();
        let longest = lengths.last().copied().unwrap_or(0);
        let width = longest.min(max_tokens).max(1).div_ceil(BINS).max(1);
        let mut bins: Vec<(usize, usize)> =
            (0..=longest / width).map(|bin| (bin * width, 0)).collect();
        for length in &lengths {
            bins[length / width].1 += 1;
        }
        Self {
            bins,
            width,
            mean: lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64,
            median: lengths.get(lengths.len() / 2).copied().unwrap_or(0),
            longest,
        }
    }

    pub(super) fn summary(&self) -> String {
        let Self {
            mean,
            median,
            longest,
            ..
        } = self;
        format!("mean {mean:.1}, median {median}, longest {longest}")
    }

    /// The label of a bin.
    pub(super) fn label(&self, first: usize) -> String {
        format!("{first}-{}", first + self.width - 1)
    }

    fn text(&self) -> String {
        let most = self
            .bins
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(1)
            .max(1);
        let mut text = String::new();
        for (first, count) in &self.bins {
            let bar = "█".repeat((40 * count).div_ceil(most));
            let _ = writeln!(text, "{:>11} {bar} {count}", self.label(*first));
        }
        text + &self.summary()
    }
}

/// The steps and micro-batches of the first epoch.
fn packing(recipe: &Recipe, data: &Checked) -> String {
    let budget = recipe.train.micro_batch_tokens.tokens();
    let all: usize = data.train.iter().map(Vec::len).sum();
    // without rows to train on, `train` says why
    let train = data.training(&recipe.data, recipe.train.seed);
    let train = train.unwrap_or_else(|_| data.train.clone());
    let order = Order {
        sources: train.iter().map(Vec::len).collect(),
        weights: recipe
            .data
            .train
            .iter()
            .map(|source| source.weight)
            .collect(),
        batch_size: recipe.train.batch_size,
        shuffle: recipe.data.shuffle.then_some(recipe.train.seed),
    };
    let examples: Vec<&Example> = train.iter().flatten().collect();
    let held_out = all - examples.len();
    let (mut full, mut all, mut tokens, mut before_last) = (0, 0, 0, 0);
    let steps = order.steps_per_epoch();
    for batch in order.batches(Cursor::default()).take(steps) {
        let chosen: Vec<&Example> = batch.rows.iter().map(|row| examples[*row]).collect();
        let micro: Vec<usize> = pack(&chosen, budget)
            .iter()
            .map(|micro| micro.tokens.len())
            .collect();
        all += micro.len();
        tokens += micro.iter().sum::<usize>();
        let least = micro.iter().min().copied().unwrap_or(0);
        full += micro.len().saturating_sub(1);
        before_last += micro.iter().sum::<usize>() - least;
    }
    let share =
        |tokens: usize, count: usize| 100.0 * tokens as f64 / (count.max(1) * budget) as f64;
    let mut text = format!(
        "{} of {} per epoch, in {} without padding; train.micro_batch_tokens = {budget} \
         is filled to {:.1}%",
        counted(steps, "step"),
        counted(order.batch_size, "example"),
        counted(all, "micro-batch"),
        share(tokens, all)
    );
    if full > 0 {
        let _ = write!(
            text,
            ", to {:.1}% without the last micro-batch of each step",
            share(before_last, full)
        );
    }
    if held_out > 0 {
        let _ = write!(
            text,
            "\n{} held out for validation",
            are(held_out, "example")
        );
    }
    text
}
