//! Sliding windows, and which layers have them.
//!
//! `attention.sliding_window` is a number of tokens, the query's own included. `attention.sliding_window_pattern` is a number
//! n, if all layers except every n-th have the window, or a list with true for each layer that has it.

use simmer_files::size::counted;

use super::read::Keys;
use crate::config::{LayerType, ModelConfig};
use crate::family::{GgufWindows, Windows};
use crate::gguf::metadata::required;
use crate::gguf::{Array, GgufError, Metadata, Value};

const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";

/// Sets the window and the layers that have it.
pub(super) fn read(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), GgufError> {
    let family = config.family;
    let default = match family.gguf.windows {
        GgufWindows::Applied { default } => default,
        GgufWindows::Ignored | GgufWindows::IgnoredButRequired => None,
    };
    let window = keys.optional_size(WINDOW)?;
    let window = window.or(default).filter(|&tokens| tokens > 0);
    let every = match family.windows {
        Windows::Never => {
            return match window {
                None => Ok(()),
                Some(window) => Err(keys.wrong(WINDOW, "none in this family", &window.to_string())),
            };
        }
        Windows::EveryLayer => {
            config.sliding_window = window;
            return Ok(());
        }
        Windows::LastLayers | Windows::LayersWithoutPositions => None,
        Windows::ExceptEvery(n) => Some(n),
    };
    if window.is_none() {
        return Ok(());
    }
    let layers = config.num_hidden_layers;
    let pattern = keys.name(PATTERN);
    let slides = match keys.metadata.get(&pattern) {
        Some(Value::Array(_)) => required(&pattern, keys.metadata.flags(&pattern)?)?,
        Some(_) => except_every(keys.size(PATTERN)?, layers),
        None => except_every(required(&pattern, every)?, layers),
    };
    if slides.len() != layers {
        let expected = format!("one value for each of {}", counted(layers, "layer"));
        return Err(keys.wrong(PATTERN, &expected, &slides.len().to_string()));
    }
    if slides.contains(&true) {
        config.sliding_window = window;
        config.layer_types = slides.into_iter().map(LayerType::sliding).collect();
    }
    Ok(())
}

/// Checks that llama.cpp gives the window to the layers that have it.
///
/// # Errors
/// If it does not.
pub(super) fn check(config: &ModelConfig) -> Result<(), GgufError> {
    if applied(config).is_none() || period(config).is_some() {
        return Ok(());
    }
    Err(GgufError::Inexpressible {
        architecture: config.family.gguf.architecture,
        key: "layer_types",
        found: "does not have full attention in every n-th layer alone".to_owned(),
    })
}

/// The n of the pattern that has to be written, because llama.cpp assumes another; and the one that it assumes.
pub(super) fn written_period(config: &ModelConfig) -> Option<(usize, usize)> {
    let usual = applied(config)?;
    let windows = config.family.gguf.windows;
    let has_default = matches!(windows, GgufWindows::Applied { default: Some(_) });
    let n = period(config).filter(|&n| n != usual)?;
    (has_default || config.sliding_window.is_some()).then_some((n, usual))
}

/// Writes the window and the layers that have it.
pub(super) fn write(config: &ModelConfig, metadata: &mut Metadata) {
    let gguf = &config.family.gguf;
    let name = |key| format!("{}.{key}", gguf.architecture);
    let window = match (config.sliding_window, gguf.windows) {
        (None, GgufWindows::IgnoredButRequired) => Some(0),
        (window, _) => window,
    };
    if let Some(window) = window {
        metadata.set(
            name(WINDOW),
            Value::U32(window.try_into().unwrap_or(u32::MAX)),
        );
    }
    if let Some((n, _)) = written_period(config) {
        let n = Value::U32(n.try_into().unwrap_or(u32::MAX));
        metadata.set(name(PATTERN), n);
    } else if applied(config).is_none()
        && config.sliding_window.is_some()
        && !config.layer_types.is_empty()
    {
        metadata.set(name(PATTERN), Array::flags(&slides(config)));
    }
}

/// The n that llama.cpp assumes, if it applies windows to all layers of the family except every n-th.
fn applied(config: &ModelConfig) -> Option<usize> {
    match (config.family.gguf.windows, config.family.windows) {
        (GgufWindows::Applied { .. }, Windows::ExceptEvery(n)) => Some(n),
        _ => None,
    }
}

/// The n of a model whose layers all have a window except every n-th; preferably the usual one.
fn period(config: &ModelConfig) -> Option<usize> {
    let layers = config.num_hidden_layers;
    let slides = slides(config);
    // one more than the layers: all of them have the window
    let mut candidates = applied(config).into_iter().chain(1..=layers + 1);
    candidates.find(|&n| except_every(n, layers) == slides)
}

/// For each layer, whether it has the window.
fn slides(config: &ModelConfig) -> Vec<bool> {
    let layers = 0..config.num_hidden_layers;
    layers.map(|layer| config.window(layer).is_some()).collect()
}

fn except_every(n: usize, layers: usize) -> Vec<bool> {
    // llama.cpp reads 0 as a window in all layers
    let slides = |layer: usize| n == 0 || !(layer + 1).is_multiple_of(n);
    (0..layers).map(slides).collect()
}
