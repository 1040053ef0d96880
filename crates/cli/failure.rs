//! What a person reads when a command fails: the chain of causes, then a hint.

use simmer_data::{DataError, template::TemplateError, tokenizer::TokenizerError};
use simmer_hint::Hint as _;
use simmer_model::GenerateError;
use simmer_model::adapter::AdapterError;
use simmer_model::base::BaseError;
use simmer_model::checkpoint::convert::ConvertError;
use simmer_model::checkpoint::hub::HubError;
use simmer_model::checkpoint::{CheckpointError, PretrainedError};
use simmer_model::device::DeviceError;
use simmer_model::merge::MergeError;

use crate::output::note;

/// Prints an error with its causes and, where one of them has one, a hint.
pub(crate) fn report(error: &anyhow::Error) {
    note(&describe(error));
}

fn describe(error: &anyhow::Error) -> String {
    let mut lines = format!("error: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // transparent errors repeat their cause
        if !shown.contains(&text) {
            lines = format!("{lines}\n  because: {text}");
            shown = text;
        }
    }
    if let Some(hint) = error.chain().find_map(hint) {
        lines = format!("{lines}\nhint: {hint}");
    }
    lines
}

/// The hint of an error that has one. A library's error type that gives hints is listed here.
fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    fn of<E: std::error::Error + 'static>(
        error: &(dyn std::error::Error + 'static),
        hint: fn(&E) -> Option<String>,
    ) -> Option<String> {
        error.downcast_ref::<E>().and_then(hint)
    }
    of(error, DataError::hint)
        .or_else(|| of(error, TemplateError::hint))
        .or_else(|| of(error, TokenizerError::hint))
        .or_else(|| of(error, AdapterError::hint))
        .or_else(|| of(error, BaseError::hint))
        .or_else(|| of(error, PretrainedError::hint))
        .or_else(|| of(error, DeviceError::hint))
        .or_else(|| of(error, CheckpointError::hint))
        .or_else(|| of(error, ConvertError::hint))
        .or_else(|| of(error, HubError::hint))
        .or_else(|| of(error, MergeError::hint))
        .or_else(|| of(error, GenerateError::hint))
        .or_else(|| of(error, simmer_eval::EvalError::hint))
        .or_else(|| of(error, simmer_train::TrainError::hint))
        .or_else(|| of(error, simmer_train::RecipeError::hint))
}
