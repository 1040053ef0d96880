//! Which weights an adapter is merged into: those that it was trained on, or the original ones of a quantised model.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use simmer_checkpoint::Pretrained;
use simmer_checkpoint::hub::What;
use simmer_model::adapter::QuantisedBase;
use simmer_model::base::{BasePrecision, QuantisedOnLoad};
use simmer_model::merge::OtherForm;

use crate::failure::Failure;
use crate::{hub, loaded};

/// The weights that an adapter is merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// The quantised weights, widened.
    Dequantised,
    /// The weights before quantisation.
    Original,
}

/// The options for adapters that were trained on a quantised base model.
#[derive(Debug, Args)]
pub(super) struct BaseArgs {
    /// For an adapter trained on a quantised base: merge into its dequantised weights, for which the adapter is exact,
    /// or into the original ones. Default: dequantised
    #[arg(long, value_parser = target, value_name = "dequantised|original")]
    into: Option<Into>,
    /// The model that a base stored in nf4, int8, fp8 or a type of GGUF was quantised from: needed for --into original,
    /// and to measure the error of the quantisation
    #[arg(long, value_name = "MODEL")]
    original: Option<PathBuf>,
    /// How the base was quantised while it was loaded for training. Default: as `simmer.json` of the adapter says
    #[arg(long, value_parser = precision, value_name = "nf4|fp4|int8")]
    precision: Option<BasePrecision>,
    /// Whether the scales of nf4 and fp4 were quantised too (bitsandbytes: `bnb_4bit_use_double_quant`)
    #[arg(
        long,
        value_name = "true|false",
        default_value_t = true,
        action = ArgAction::Set,
        requires = "precision"
    )]
    double_quant: bool,
}

fn target(text: &str) -> Result<Into, String> {
    match text {
        "dequantised" | "dequantized" => Ok(Into::Dequantised),
        "original" => Ok(Into::Original),
        _ => Err(format!("expected dequantised or original, found {text}")),
    }
}

fn precision(text: &str) -> Result<BasePrecision, String> {
    let known = loaded::precision(text).ok();
    let quantised = known.filter(|precision| precision.is_quantised());
    quantised.ok_or_else(|| format!("expected nf4, fp4 or int8, found {text}"))
}

/// A base model, and how its weights are quantised while it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) path: PathBuf,
    pub(super) on_load: Option<QuantisedOnLoad>,
}

/// The forms of the base model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bases {
    pub(super) into: Into,
    /// The form that the adapter is merged into.
    pub(super) target: Form,
    /// The other form, if the base model is quantised and both are at hand.
    pub(super) other: Option<Form>,
    /// The type of the quantised weights that the adapter was trained on.
    quantised: Option<String>,
    /// A warning.
    pub(super) warning: Option<String>,
}

impl BaseArgs {
    /// Chooses the weights by the options, the base model at `base`, and what the adapter says about its training.
    pub(super) fn choose(
        &self,
        base: &Path,
        trained_on: Option<&QuantisedBase>,
    ) -> Result<Bases, Failure> {
        let model = Pretrained::open(base)?;
        let stored = model.checkpoint.most_quantised().map(|(_, kind)| kind);
        let original = self.original.as_deref();
        let original = original.map(|path| hub::locate(path, What::Model));
        self.of(base, stored, original.transpose()?, trained_on)
    }

    /// `stored` is the quantised type that the base model is stored in.
    fn of(
        &self,
        base: &Path,
        stored: Option<&str>,
        original: Option<PathBuf>,
        trained_on: Option<&QuantisedBase>,
    ) -> Result<Bases, Failure> {
        let shown = base.display();
        let form = |path: &Path, on_load| Form {
            path: path.to_owned(),
            on_load,
        };
        if let (Some(kind), Some(_)) = (stored, self.precision) {
            return Err(Failure::new(format!(
                "--precision: {shown} is already stored in {kind}, so that nothing is quantised while it is loaded"
            ))
            .with_hint("remove --precision; name the model that it was quantised from with --original"));
        }
        if let (None, Some(_)) = (stored, &original) {
            return Err(Failure::new(format!(
                "--original: {shown} is not stored in a quantised type, so that it is the original itself"
            ))
            .with_hint("remove --original, or give the quantised model with --base"));
        }
        let named = self.precision.map(|precision| QuantisedOnLoad {
            precision,
            double_quant: self.double_quant,
        });
        // a model that is stored in a quantised type stays in it
        let on_load = match stored {
            Some(_) => None,
            None => named.or_else(|| trained_on?.on_load()),
        };
        let trained = form(base, on_load);
        let is_another = trained_on.filter(|trained_on| match (stored, on_load) {
            (Some(kind), _) => trained_on.kind != kind,
            (None, on_load) => trained_on.on_load() != on_load,
        });
        let (kind, original) = match (stored, on_load) {
            (Some(kind), _) => (kind.to_owned(), original.map(|path| form(&path, None))),
            (None, Some(quantised)) => (quantised.to_string(), Some(form(base, None))),
            (None, None) => return self.plain(base, trained_on),
        };
        let (into, target, other) = match (self.into, original) {
            (None | Some(Into::Dequantised), original) => (Into::Dequantised, trained, original),
            (Some(Into::Original), Some(original)) => (Into::Original, original, Some(trained)),
            (Some(Into::Original), None) => {
                return Err(Failure::new(format!(
                    "--into original: {shown} is stored in {kind}, and has no original weights"
                ))
                .with_hint("name the model that it was quantised from with --original MODEL"));
            }
        };
        Ok(Bases {
            into,
            target,
            other,
            warning: is_another.map(|trained_on| another(trained_on, &kind)),
            quantised: Some(kind),
        })
    }

    /// A base model that is not quantised, as far as is known.
    fn plain(&self, base: &Path, trained_on: Option<&QuantisedBase>) -> Result<Bases, Failure> {
        let shown = base.display();
        if self.into == Some(Into::Dequantised) {
            let error = format!("--into dequantised: {shown} is not quantised");
            let hint = match trained_on {
                Some(QuantisedBase { kind, .. }) => {
                    format!("the adapter was trained on a model in {kind}: name it with --base")
                }
                None => "remove --into; for an adapter that was trained on this model quantised while it was loaded \
                         (QLoRA), say how with --precision"
                    .to_owned(),
            };
            return Err(Failure::new(error).with_hint(hint));
        }
        let warning = trained_on.map(|QuantisedBase { kind, .. }| {
            format!(
                "the adapter was trained on a base model in {kind}, and {shown} is not quantised: the merged model \
                 differs from the trained one by the error of the quantisation. To measure it, name the quantised model \
                 with --base and this one with --original"
            )
        });
        Ok(Bases {
            into: Into::Original,
            target: Form {
                path: base.to_owned(),
                on_load: None,
            },
            other: None,
            quantised: None,
            warning,
        })
    }
}

/// The warning for a base model that is quantised in another way than that of the training.
fn another(trained_on: &QuantisedBase, kind: &str) -> String {
    let trained = match trained_on.on_load() {
        Some(on_load) => format!("quantised to {on_load} while it was loaded"),
        None => format!("stored in {}", trained_on.kind),
    };
    format!(
        "the adapter was trained on a base model {trained}, and this one is in {kind}: the merged model differs from the \
         trained one"
    )
}

impl Into {
    /// Its name in options and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dequantised => "dequantised",
            Self::Original => "original",
        }
    }
}

impl Bases {
    /// The other form, for the merge to measure the error of the quantisation.
    pub(super) fn other(&self) -> Option<OtherForm<'_>> {
        let form = self.other.as_ref()?;
        Some(match self.into {
            Into::Dequantised => OtherForm::Original(&form.path),
            Into::Original => OtherForm::Quantised {
                path: &form.path,
                on_load: form.on_load,
            },
        })
    }

    /// A sentence that says which weights the adapter was merged into.
    pub(super) fn describe(&self) -> String {
        let target = self.target.path.display();
        match (self.into, &self.quantised, &self.other) {
            (Into::Dequantised, Some(kind), other) => {
                let target = match self.target.on_load {
                    Some(_) => format!("{target} quantised to {kind} and widened again"),
                    None => format!("{target}, stored in {kind}, widened"),
                };
                let more = match other {
                    Some(_) => "--into original merges into the weights before quantisation",
                    None => {
                        "--original MODEL, the model that it was quantised from, measures the error of the quantisation"
                    }
                };
                let trained = match self.warning {
                    Some(_) => "",
                    None => ", as in training",
                };
                format!("merged into the dequantised base model: {target}{trained} ({more})")
            }
            (Into::Original, Some(kind), Some(trained)) => {
                let base = trained.path.display();
                let trained = match trained.on_load {
                    Some(_) => format!("that model quantised to {kind}"),
                    None => format!("{base}, stored in {kind}"),
                };
                format!(
                    "merged into the original base model: {target}; the adapter was trained on {trained}, so that the \
                     merged model differs from the trained one by the error of the quantisation"
                )
            }
            _ => format!("merged into the original base model: {target}, which is not quantised"),
        }
    }
}

#[cfg(test)]
mod tests;
