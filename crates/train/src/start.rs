//! Where an adapter starts on a base model that is quantised while it is loaded.

use simmer_data::Dataset;
use simmer_files::size::counted;
use simmer_model::LlamaForCausalLM;
use simmer_model::adapter::{Init, make_up_for_quantisation, selection};
use simmer_model::base::Base;

use crate::config::MicroBatchTokens;
use crate::error::TrainError;
use crate::observer::Observer;
use crate::prepared::of_adapter;
use crate::recipe::{Method, Recipe};

/// Training rows whose activations QERA counts: more change little.
const ROWS: usize = 64;

/// The model of a new run; with `init_lora_weights = "loftq"` or `"qera"`, its branches make up for the error of the quantisation.
///
/// # Errors
/// If the weights cannot be read again.
pub(crate) fn at_error(
    recipe: &Recipe,
    model: LlamaForCausalLM,
    base: &Base,
    data: &Dataset,
    observer: &mut dyn Observer,
) -> Result<LlamaForCausalLM, TrainError> {
    let Method::Lora(lora) = &recipe.method else {
        return Ok(model);
    };
    let init = lora.init_lora_weights;
    if !init.is_of_error() {
        return Ok(model);
    }
    let rows = some_rows(data);
    let by = match init {
        Init::Qera => format!(" by the activations of {}", counted(rows.len(), "row")),
        _ => String::new(),
    };
    observer.on_notice(&format!(
        "the adapter starts at the error of the quantisation{by} (init_lora_weights = \"{init}\")"
    ));
    let tokens = match recipe.train.micro_batch_tokens {
        MicroBatchTokens::Tokens(tokens) => tokens,
        MicroBatchTokens::Auto => usize::MAX,
    };
    let selection = selection(lora, model.config()).map_err(of_adapter)?;
    let seed = recipe.train.seed;
    Ok(make_up_for_quantisation(
        model, &selection, init, base, &rows, tokens, seed,
    )?)
}

/// Rows at equal distances, so that each source has its share.
fn some_rows(data: &Dataset) -> Vec<&[u32]> {
    let examples = data.examples().unwrap_or_default();
    let count = examples.len().min(ROWS);
    let rows = (0..count).map(|at| &examples[at * examples.len() / count]);
    rows.map(|example| &example.tokens[..]).collect()
}
