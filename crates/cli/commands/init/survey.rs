//! A pass over all rows before a recipe is written: how long they are, and which cannot be used.

use simmer_data::bad::Unusable;
use simmer_data::dataset;
use simmer_data::report::SourceReport;
use simmer_data::tokenizer::TokenizerError;
use simmer_data::{
    BadRows, Content, Conversation, DataError, Inspect, Outcome, Role, RowView, Tokenizer,
};

use super::base::BaseModel;
use super::rows::{Candidate, Rows};
use super::settings::{LONGEST, Settings};
use super::text::counted;
use crate::commands::row_hints::hinted;
use crate::failure::{Context, Failure};

/// The longest prompt that is shown at the end of a run, in characters.
const PROMPT: usize = 160;
/// The longest system message before it, in characters.
const SYSTEM: usize = 2000;
/// How many different prompts are taken from the rows.
const PROMPTS: usize = 2;
/// The words of a text that are its prompt.
const WORDS: usize = 8;
/// Rows of a text file below this median of tokens are rather lines of a paragraph.
const LINE: usize = 64;

/// The lengths of all rows.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The tokens of each example without a limit, sorted.
    pub(super) lengths: Vec<usize>,
    /// The labels of each, sorted.
    targets: Vec<usize>,
    /// Short prompts of some rows.
    pub(super) prompts: Vec<String>,
    /// The system message of these rows.
    pub(super) system: Option<String>,
    /// What was read.
    pub(super) report: Option<SourceReport>,
}

/// What is seen of one row.
pub(super) struct Seen {
    /// Tokens and labels of its examples.
    sizes: Vec<(usize, usize)>,
    prompt: Option<Prompt>,
}

/// A short prompt of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    system: Option<String>,
    text: String,
}

impl Inspect for Survey {
    type Found = Seen;

    fn check(&self, view: &RowView<'_>) -> Result<Seen, TokenizerError> {
        let size = |outcome: &Outcome| match outcome {
            Outcome::Kept { example, .. } => Some((example.tokens.len(), example.targets())),
            Outcome::Overlong { .. } | Outcome::Untrained { .. } | Outcome::Weightless { .. } => {
                None
            }
        };
        Ok(Seen {
            sizes: view.outcomes.iter().filter_map(size).collect(),
            prompt: prompt(view.row),
        })
    }

    fn add(&mut self, _source: usize, seen: Seen) {
        for (tokens, targets) in seen.sizes {
            self.lengths.push(tokens);
            self.targets.push(targets);
        }
        if self.prompts.len() < PROMPTS
            && let Some(Prompt { system, text }) = seen.prompt
            && !self.prompts.contains(&text)
            // a recipe has one system message for all
            && (self.prompts.is_empty() || self.system == system)
        {
            self.prompts.push(text);
            self.system = system;
        }
    }
}

impl Survey {
    /// Reads every row as the settings say, whatever its length.
    fn of(settings: &Settings, rows: &Rows, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let mut data = settings.recipe()?.data;
        rows.locate(&mut data.train[0]);
        let mut survey = Self::default();
        let report = dataset::check(&data, tokenizer, &mut survey);
        let mut report = report.map_err(hinted)?;
        survey.lengths.sort_unstable();
        survey.targets.sort_unstable();
        survey.report = report.train.pop();
        Ok(survey)
    }

    /// The number of examples.
    pub(super) fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The length that this share of the rows does not exceed.
    pub(super) fn length(&self, share: f64) -> usize {
        at(&self.lengths, share)
    }

    /// The number of labels that this share of the rows does not exceed.
    pub(super) fn target_count(&self, share: f64) -> usize {
        at(&self.targets, share)
    }

    /// How many rows have more tokens.
    pub(super) fn longer_than(&self, tokens: usize) -> usize {
        let fitting = self.lengths.partition_point(|length| *length <= tokens);
        self.lengths.len() - fitting
    }

    /// Rows that cannot be used.
    pub(super) fn unusable(&self) -> Option<&Unusable> {
        self.report.as_ref().map(|report| &report.unusable)
    }

    fn unusable_rows(&self) -> usize {
        self.unusable().map_or(0, |unusable| unusable.rows)
    }
}

/// The value at a share of a sorted list.
fn at(sorted: &[usize], share: f64) -> usize {
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// A prompt that shows what a row teaches: a short question on one line, or the first words of a text.
fn prompt(row: &Conversation) -> Option<Prompt> {
    if let Content::Text(text) = &row.content {
        let line = text.lines().find(|line| !line.trim().is_empty())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let prompt = words[..words.len().min(WORDS).min(words.len().div_ceil(2))].join(" ");
        return (prompt.chars().count() <= PROMPT).then_some(Prompt {
            system: None,
            text: prompt,
        });
    }
    let messages = row.messages()?;
    let (system, messages) = match messages.split_first()? {
        (first, rest) if first.role == Role::System => (Some(&first.content), rest),
        _ => (None, &messages[..]),
    };
    let first = messages.first()?;
    let fits = row.tools.is_none()
        && system.is_none_or(|system| system.chars().count() <= SYSTEM)
        && first.role == Role::User
        && !first.content.trim().is_empty()
        && !first.content.trim_end().contains('\n')
        && first.content.chars().count() <= PROMPT;
    fits.then(|| Prompt {
        system: system.cloned(),
        text: first.content.clone(),
    })
}

/// Chooses the template by reading every row with each candidate, until one renders all of them. Returns the settings with the
/// template, and what was read.
pub(super) fn choose(
    mut settings: Settings,
    rows: &Rows,
    model: &BaseModel,
    given: Option<&str>,
) -> Result<(Settings, Survey), Failure> {
    let candidates = match given {
        Some(name) => vec![Candidate {
            name: name.to_owned(),
            why: "as --template says".to_owned(),
        }],
        None => rows.templates(&model.tokenizer),
    };
    settings.max_tokens = LONGEST;
    let mut best: Option<(Candidate, Survey)> = None;
    let mut failed: Option<(String, Failure)> = None;
    let count = candidates.len();
    for (place, mut candidate) in candidates.into_iter().enumerate() {
        settings.template = candidate.clone();
        let survey = match Survey::of(&settings, rows, &model.tokenizer) {
            Ok(survey) => survey,
            // a chat template that cannot be used does not stop the others
            Err(failure) if place + 1 < count && is_of_template(&failure) => {
                failed.get_or_insert((candidate.name, failure));
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let unusable = survey.unusable_rows();
        if let Some((first, of_first)) = &best {
            candidate.why = cannot(first, of_first);
        } else if let Some((name, failure)) = &failed {
            candidate.why = format!("template `{name}` cannot be used: {failure}");
        }
        let better = best
            .as_ref()
            .is_none_or(|(_, best)| unusable < best.unusable_rows());
        if better {
            best = Some((candidate, survey));
        }
        if unusable == 0 {
            break;
        }
    }
    let (template, survey) = best.with_context(|| format!("{}: no template", rows.path))?;
    settings.template = template;
    let survey = settings.with_paragraphs(rows, survey, model)?;
    settings.check_unusable(rows, &survey, model)?;
    Ok((settings, survey))
}

/// Why another template is chosen.
fn cannot(first: &Candidate, survey: &Survey) -> String {
    let kind = survey
        .unusable()
        .and_then(|unusable| unusable.kinds.first());
    let what = kind.map_or_else(String::new, |kind| format!(": {}", kind.what));
    format!(
        "template `{}` cannot render {}{what}",
        first.name,
        counted(survey.unusable_rows(), "row")
    )
}

fn is_of_template(failure: &Failure) -> bool {
    matches!(
        failure.downcast_ref::<DataError>(),
        Some(DataError::Template(_))
    )
}

impl Settings {
    /// Reads a text file by paragraphs if its lines are short and it has paragraphs.
    fn with_paragraphs(
        &mut self,
        rows: &Rows,
        survey: Survey,
        model: &BaseModel,
    ) -> Result<Survey, Failure> {
        if !rows.are_texts || survey.length(0.5) >= LINE {
            return Ok(survey);
        }
        let lines = survey.rows();
        self.paragraphs = true;
        let paragraphs = Survey::of(self, rows, &model.tokenizer)?;
        if paragraphs.rows() < lines {
            return Ok(paragraphs);
        }
        self.paragraphs = false;
        Ok(survey)
    }

    /// Leaves out rows that cannot be used, if they are few.
    ///
    /// # Errors
    /// The first of them, if they are many.
    fn check_unusable(
        &mut self,
        rows: &Rows,
        survey: &Survey,
        model: &BaseModel,
    ) -> Result<(), Failure> {
        let bad = survey.unusable_rows();
        if bad == 0 {
            return Ok(());
        }
        let mut data = self.recipe()?.data;
        rows.locate(&mut data.train[0]);
        let all = survey.report.as_ref().map_or(bad, |report| report.rows);
        if bad < all && bad as f64 <= data.max_bad_share * all as f64 {
            self.left_out = bad;
            return Ok(());
        }
        data.bad_rows = BadRows::Error;
        let first = dataset::read(&data, &model.tokenizer, usize::MAX, &mut ());
        let context = format!(
            "{}: {bad} of {} cannot be used",
            rows.path,
            counted(all, "row")
        );
        Err(match first {
            Err(error) => {
                let failure = hinted(error).within(context);
                let most = format!(
                    "rows that cannot be used are left out if they are at most {}% of all",
                    100.0 * data.max_bad_share
                );
                if bad < all {
                    failure.and_hint(&most)
                } else {
                    failure
                }
            }
            Ok(_) => Failure::new(context),
        })
    }
}

#[cfg(test)]
mod tests {
    use simmer_data::Message;

    use super::*;

    #[test]
    fn shares_of_sorted_lengths() {
        let survey = Survey {
            lengths: (1..=200).collect(),
            ..Survey::default()
        };
        assert_eq!(
            [0.5, 0.99, 1.0].map(|share| survey.length(share)),
            [100, 198, 200]
        );
        assert_eq!(survey.longer_than(198), 2);
        assert_eq!(Survey::default().length(0.5), 0);
    }

    #[test]
    fn prompts_are_short_questions_or_first_words() {
        let text = Conversation::new(Content::Text("\nThe soup is hot and salty.".into()));
        let of = |system: Option<&str>, text: &str| {
            Some(Prompt {
                system: system.map(str::to_owned),
                text: text.to_owned(),
            })
        };
        assert_eq!(prompt(&text), of(None, "The soup is"));
        let question = "What is a spoon?";
        assert_eq!(prompt(&Conversation::prompt(question)), of(None, question));
        let turns = |system: &str| {
            Conversation::chat(vec![
                Message::new(Role::System, system),
                Message::new(Role::User, question),
                Message::new(Role::Assistant, "A tool."),
            ])
        };
        let brief = "Be brief.";
        assert_eq!(prompt(&turns(brief)), of(Some(brief), question));
        assert_eq!(prompt(&turns(&"x".repeat(SYSTEM + 1))), None);
        assert_eq!(prompt(&Conversation::prompt("a\nb")), None);
        assert_eq!(prompt(&Conversation::prompt("x".repeat(PROMPT + 1))), None);
    }
}
