//! What `simmer init` shows before it writes a recipe: the rows, three examples, and the choices.

use std::fmt::Write as _;

use console::Style;
use simmer_data::{Example, Tokenizer};
use simmer_files::size::readable;
use simmer_model::Recompute;

use super::base::BaseModel;
use super::plan::Plan;
use super::settings::Held;
use super::text::counted;
use crate::commands::data::shown::{runs, styled, tokens, visible};
use crate::failure::Failure;

/// How many examples are shown.
const EXAMPLES: usize = 3;
/// A longer piece of an example is shown without its middle.
const PIECE: usize = 600;
/// The beginning and the end that are shown of it, in characters.
const ENDS: [usize; 2] = [350, 150];

/// What is shown, in three parts.
pub(super) struct Screen {
    pub(super) head: String,
    /// Their line breaks are those of the rows.
    pub(super) examples: String,
    pub(super) choices: String,
}

impl Plan {
    /// The rows, examples and choices as text.
    pub(super) fn screen(&self, model: &BaseModel, colours: bool) -> Result<Screen, Failure> {
        let mut head = format!("{}\n{}", model.about(), self.data.report);
        if let Some(fields) = &self.settings.fields {
            let _ = write!(
                head,
                "\n  the rows' keys have names of their own: fields = {fields}"
            );
        }
        let marks = if colours {
            "what is green is trained on"
        } else {
            "what stands between ⟦ and ⟧ is trained on"
        };
        let examples = self.examples(model, colours)?;
        Ok(Screen {
            head,
            examples: format!("{examples}\n({marks})\n"),
            choices: self.choices().join("\n"),
        })
    }

    fn examples(&self, model: &BaseModel, colours: bool) -> Result<String, Failure> {
        let bold = Style::new().bold().force_styling(colours);
        let mut text = String::new();
        let examples = self.data.examples().unwrap_or_default();
        for example in examples.iter().take(EXAMPLES) {
            let title = format!(
                "── {}: {}, {} trained on ──",
                example.origin,
                counted(example.tokens.len(), "token"),
                example.targets()
            );
            let _ = writeln!(text, "\n{}", bold.apply_to(title));
            let example = shown(example, &model.tokenizer, colours)?;
            let _ = writeln!(text, "{}", example.trim_end_matches('\n'));
        }
        Ok(text)
    }

    /// The choices that depend on rows, model or machine, each with its reason.
    fn choices(&self) -> Vec<String> {
        let settings = &self.settings;
        let validation = match settings.validation {
            Held::Nothing => "too few rows for a validation set".to_owned(),
            Held::Split => "validation on the validation split of the folder".to_owned(),
            Held::Fraction(_) | Held::Rows(_) => format!(
                "{} held out for validation",
                counted(self.data.validation.len(), "row")
            ),
        };
        let recompute = match settings.recompute {
            Recompute::None => "",
            Recompute::Mlp => ", recompute = \"mlp\"",
            Recompute::Layer => ", recompute = \"layer\"",
        };
        let memory = match self.room {
            Some(room) => format!(
                "about {} of the {} that are free",
                readable(self.needed),
                readable(room.available)
            ),
            None => format!("about {}", readable(self.needed)),
        };
        let mut lines = vec![
            format!(
                "purpose {}: it learns to {}",
                settings.purpose,
                settings.purpose.learns()
            ),
            format!(
                "template `{}`: {}",
                settings.template.name, settings.template.why
            ),
            format!("max_tokens = {}: {}", settings.max_tokens, settings.lengths),
            format!(
                "epochs = {}, batch_size = {}: {}; {validation}",
                settings.epochs,
                settings.batch_size,
                counted(settings.steps(), "step")
            ),
            format!(
                "micro_batch_tokens = {}{recompute}: {memory} on {}",
                settings.micro_batch_tokens, self.device
            ),
        ];
        if settings.paragraphs {
            lines.push("sample_by = \"paragraph\": the lines of the text are short".to_owned());
        }
        lines.extend(self.findings());
        lines
    }

    /// What the linter found.
    fn findings(&self) -> Vec<String> {
        let [errors, _] = self.lint.counts();
        let mut lines = Vec::new();
        for finding in &self.lint.findings {
            let rows = match finding.rows {
                0 => String::new(),
                rows => format!(" in {}", counted(rows, "row")),
            };
            lines.push(format!(
                "{}: {}{rows}: {}",
                finding.severity,
                finding.kind,
                finding.kind.means()
            ));
        }
        if errors > 0 {
            lines.push(
                "`simmer train` stops at these errors; `simmer data lint` lists the rows"
                    .to_owned(),
            );
        }
        lines
    }
}

/// An example with its labels marked; the middle of long pieces is left out.
fn shown(example: &Example, tokenizer: &Tokenizer, colours: bool) -> Result<String, Failure> {
    let mut text = String::new();
    for (look, piece) in runs(&tokens(example, tokenizer)?) {
        text += &styled(look, &shortened(&visible(&piece)), colours);
    }
    Ok(text)
}

fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= PIECE {
        return text.to_owned();
    }
    let [first, last] = ENDS;
    let head: String = text.chars().take(first).collect();
    let tail: String = text.chars().skip(count - last).collect();
    format!(
        "{head} [... {} ...] {tail}",
        counted(count - first - last, "character")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_long_piece_is_left_out() {
        let text = "ä".repeat(PIECE);
        assert_eq!(shortened(&text), text);
        let long = shortened(&"ä".repeat(PIECE + 1));
        assert!(long.contains("ä [... 101 characters ...] ä"), "{long}");
    }
}
