//! A report as text for the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use simmer_files::size::{counted, grouped};
use simmer_instruct::Spent;

use crate::report::{Report, Single, Versus};
use crate::statistics::Interval;

impl Report {
    /// The report as people read it.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} ({}), {} by {}, prompts {}\n",
            counted(self.questions, "question"),
            counted(self.turns, "turn"),
            counted(self.verdicts, "verdict"),
            self.judge,
            self.prompts
        );
        if let Some(versus) = &self.pairwise {
            versus.write(&mut text, &self.models);
        }
        if let Some(single) = &self.single {
            single.write(&mut text, &self.models);
        }
        if let Some(agreement) = &self.agreement {
            let _ = write!(
                text,
                "\nagreement of the judge with itself: {:.1}% of {} pairs of verdicts are equal",
                100.0 * agreement.equal,
                grouped(agreement.pairs as u64)
            );
            if let Some(difference) = agreement.mean_difference {
                let _ = write!(text, ", mean difference {difference:.2}");
            }
            text.push('\n');
        }
        for note in self.notes() {
            let _ = writeln!(text, "{note}");
        }
        for (what, spent) in self.spent_in_order() {
            let _ = writeln!(text, "{what}: {}", spent.text());
        }
        text.trim_end().to_owned()
    }

    /// What was spent: on the answers of the models, in their order, then on verdicts.
    fn spent_in_order(&self) -> Vec<(&str, &Spent)> {
        let mut all: Vec<(&str, &Spent)> = self
            .spent
            .iter()
            .map(|(what, spent)| (what.as_str(), spent))
            .collect();
        let place = |what: &str| {
            let model = what.strip_prefix("answers of ");
            let place = self
                .models
                .iter()
                .position(|name| Some(name.as_str()) == model);
            place.unwrap_or(self.models.len())
        };
        all.sort_by_key(|(what, _)| place(what));
        all
    }

    /// What a reader of the numbers must know.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.no_verdict > 0 {
            notes.push(format!(
                "no verdict: {} of {}, left out of every number",
                grouped(self.no_verdict as u64),
                grouped(self.verdicts as u64)
            ));
        }
        let judge = self.spent.get("verdicts");
        let truncated = judge.map_or(0, |spent| spent.truncated);
        if self.no_verdict > 0 && truncated > 0 {
            notes.push(format!(
                "{} of the judge reached max_tokens, some of them before a verdict: increase judge.max_tokens",
                counted(truncated, "text")
            ));
        }
        if self.asked_again > 0 {
            notes.push(format!(
                "asked again: {} of {} were found in a later attempt",
                grouped(self.asked_again as u64),
                counted(self.verdicts, "verdict")
            ));
        }
        if self.without_reference > 0 {
            notes.push(format!(
                "without a reference answer: {} of a category that is judged beside one",
                counted(self.without_reference, "question")
            ));
        }
        for (number, name) in self.models.iter().enumerate() {
            let counts = [
                (&self.truncated_answers, "that reached max_tokens"),
                (&self.empty_answers, "that are empty"),
            ];
            for (counts, what) in counts {
                let count = counts.get(number).copied().unwrap_or(0);
                if count > 0 {
                    notes.push(format!("{name}: answers {what}: {}", grouped(count as u64)));
                }
            }
        }
        notes
    }
}

/// A share in percent with its interval.
pub(crate) fn percent(estimate: &Interval) -> String {
    let value = 100.0 * estimate.value;
    match estimate.interval {
        Some([low, high]) => format!("{value:.1}% ({:.1} to {:.1})", 100.0 * low, 100.0 * high),
        None => format!("{value:.1}%"),
    }
}

/// A rating with its interval.
pub(crate) fn rated(estimate: &Interval) -> String {
    match estimate.interval {
        Some([low, high]) => format!("{:.2} ({low:.2} to {high:.2})", estimate.value),
        None => format!("{:.2}", estimate.value),
    }
}

/// Rows of names and cells, in columns.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

/// A row for each group of any model.
fn groups(
    kind: &str,
    all: &[&BTreeMap<String, Interval>],
    cell: fn(&Interval) -> String,
) -> Vec<Vec<String>> {
    let mut names: Vec<&String> = all.iter().flat_map(|groups| groups.keys()).collect();
    names.sort();
    names.dedup();
    let row = |name: &String| {
        let found: Vec<Option<&Interval>> = all.iter().map(|groups| groups.get(name)).collect();
        let questions = found.iter().flatten().map(|found| found.questions).max();
        let cells = found
            .iter()
            .map(|found| found.map_or_else(|| "-".to_owned(), cell));
        let mut row = vec![format!("{kind}{name}"), questions.unwrap_or(0).to_string()];
        row.extend(cells);
        row
    };
    names.into_iter().map(row).collect()
}

impl Versus {
    fn write(&self, text: &mut String, models: &[String]) {
        let [first, second] = models else { return };
        let _ = writeln!(
            text,
            "{first} against {second}: wins {}, losses {}, ties {}, without two verdicts {}\n",
            self.wins, self.losses, self.ties, self.no_verdict
        );
        // nothing was compared
        if self.position.pairs == 0 {
            return;
        }
        let mut rows = vec![vec![
            "win rate, a tie is a half".to_owned(),
            "questions".to_owned(),
            "95% interval".to_owned(),
        ]];
        if let Some(rate) = &self.win_rate {
            rows.push(vec![
                "all".to_owned(),
                rate.questions.to_string(),
                percent(rate),
            ]);
        }
        if let Some(rate) = self
            .length
            .as_ref()
            .and_then(|length| length.win_rate.as_ref())
        {
            rows.push(vec![
                "at equal length".to_owned(),
                rate.questions.to_string(),
                percent(rate),
            ]);
        }
        rows.extend(groups("turn ", &[&self.turns], percent));
        rows.extend(groups("", &[&self.categories], percent));
        text.push_str(&table(&rows));
        let position = &self.position;
        let share = |count: usize| 100.0 * count as f64 / position.pairs.max(1) as f64;
        let _ = writeln!(
            text,
            "\nposition: the verdict changes with the order in {:.1}% of {} pairs (a tie then); the first answer wins both times \
             in {:.1}%, the second in {:.1}%",
            share(position.changed),
            position.pairs,
            share(position.first_wins),
            share(position.second_wins)
        );
        if let Some(length) = &self.length {
            let _ = write!(
                text,
                "length: {first} {:.0} characters, {second} {:.0}",
                length.characters[0], length.characters[1]
            );
            if let Some(longer) = length.longer_wins {
                let _ = write!(text, "; the longer answer wins {:.1}%", 100.0 * longer);
            }
            text.push('\n');
        }
    }
}

impl Single {
    fn write(&self, text: &mut String, models: &[String]) {
        let mut head = vec!["mean rating".to_owned(), "questions".to_owned()];
        head.extend(models.iter().map(|name| format!("{name} (95% interval)")));
        let mut all = vec!["all".to_owned()];
        let means: Vec<Option<&Interval>> = self
            .models
            .iter()
            .map(|model| model.mean.as_ref())
            .collect();
        let questions = means.iter().flatten().map(|mean| mean.questions).max();
        all.push(questions.unwrap_or(0).to_string());
        all.extend(
            means
                .iter()
                .map(|mean| mean.map_or_else(|| "-".to_owned(), rated)),
        );
        let mut rows = vec![head, all];
        let turns: Vec<_> = self.models.iter().map(|model| &model.turns).collect();
        let categories: Vec<_> = self.models.iter().map(|model| &model.categories).collect();
        rows.extend(groups("turn ", &turns, rated));
        rows.extend(groups("", &categories, rated));
        text.push('\n');
        text.push_str(&table(&rows));
        if let Some(difference) = &self.difference {
            let _ = writeln!(text, "\ndifference: {}", rated(difference));
        }
    }
}
