//! Converts an adapter to GGUF, for llama.cpp.

use std::path::Path;

use simmer_checkpoint::Bytes;
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::gguf::adapter::{LoraModule, write_adapter};
use simmer_checkpoint::gguf::{GgmlType, Gguf};
use simmer_checkpoint::layout::modules;
use simmer_files::size::counted;
use simmer_files::{WriteError, try_write_file};

use super::kind::{self, Trained};
use super::peft::{AdapterFolder, KEY_PREFIX};
use super::targets::Selection;
use super::{AdapterError, peft::AdapterTensors};

/// Writes an adapter, for a base model with this configuration, as one `.gguf` file in
/// f32. Returns notes for the user, one sentence each.
///
/// # Errors
/// If the adapter does not fit the base model, if it has anything except low-rank branches (llama.cpp supports
/// nothing else), and if the output exists. Then no partial output remains.
pub fn to_gguf(
    folder: &AdapterFolder,
    config: &ModelConfig,
    out: &Path,
) -> Result<Vec<String>, AdapterError> {
    if out.exists() {
        let path = out.to_owned();
        return Err(WriteError::OutputExists { path }.into());
    }
    let adapter = folder.folder();
    let selection = folder.select(&modules(config))?;
    let tensors = folder.tensors(&selection)?;
    check_plain_lora(adapter, &selection, &tensors)?;
    let values = |module: &str, tensor: &Trained| -> Vec<f32> {
        // loading has checked that the key exists
        let key = format!("{KEY_PREFIX}{module}{}", tensor.end);
        let data = tensors.trained.get(&key);
        data.map_or_else(Vec::new, |data| data.iter::<f32>().collect())
    };
    let sides: Vec<[Vec<f32>; 2]> = selection
        .adapted
        .iter()
        .map(|module| {
            kind::factors(module.is_embedding()).map(|tensor| values(&module.name, tensor))
        })
        .collect();
    let loras: Vec<LoraModule<'_>> = selection
        .adapted
        .iter()
        .zip(&sides)
        .map(|(module, [a, b])| LoraModule {
            name: &module.name,
            rank: module.rank,
            scaling: module.scaling,
            a,
            b,
        })
        .collect();
    let mut notes = folder.warnings().to_vec();
    notes.extend(selection.warnings.iter().cloned());
    let folded = write(adapter, config, out, &loras)?;
    if let Some(first) = folded.first() {
        notes.push(format!(
            "llama.cpp has one alpha for all modules; {} with another, whose scale is \
             multiplied into B ({first}, ...)",
            counted(folded.len(), "module")
        ));
    }
    Ok(notes)
}

/// The error for a GGUF file in the place of an adapter in PEFT's layout; `None` if the bytes are no GGUF file.
pub(super) fn instead_of_peft(file: &Path, bytes: &Bytes) -> Option<AdapterError> {
    if !bytes.starts_with(b"GGUF") {
        return None;
    }
    let kind = Gguf::parse(bytes.clone()).ok().and_then(|gguf| {
        let kind = gguf.metadata().string("general.type").ok()?;
        kind.map(str::to_owned)
    });
    Some(AdapterError::GgufInstead {
        file: file.to_owned(),
        what: match kind.as_deref() {
            Some("adapter") => "a GGUF adapter, for llama.cpp",
            _ => "a GGUF file, for llama.cpp",
        },
    })
}

fn write(
    adapter: &Path,
    config: &ModelConfig,
    out: &Path,
    loras: &[LoraModule<'_>],
) -> Result<Vec<String>, AdapterError> {
    let name = adapter.file_name().map(|name| name.to_string_lossy());
    let name = name.as_deref().unwrap_or("adapter");
    let mut folded = Vec::new();
    try_write_file(out, |file| {
        let modules = write_adapter(file, config, name, GgmlType::F32, loras);
        let modules = modules.map_err(|source| AdapterError::Gguf {
            folder: adapter.to_owned(),
            source,
        })?;
        folded = modules.into_iter().map(str::to_owned).collect();
        Ok::<(), AdapterError>(())
    })?;
    Ok(folded)
}

/// Checks that the adapter has only low-rank branches.
fn check_plain_lora(
    adapter: &Path,
    selection: &Selection,
    tensors: &AdapterTensors,
) -> Result<(), AdapterError> {
    let saved = selection.saved.iter().map(|module| module.name.clone());
    let biases = selection.biases.iter();
    let biases = biases.map(|module| format!("{}.bias", module.name));
    let weights = tensors.base_weights.keys().cloned();
    let rows = selection.tokens.iter();
    let rows = rows.map(|module| format!("rows of {}", module.name));
    let kinds = selection.adapted.iter().map(|module| module.adapter);
    let kinds = kinds.chain(selection.attention.iter().map(|module| module.adapter));
    let beyond = kinds
        .into_iter()
        .find_map(|kind| Some((kind.name, kind.beyond_low_rank?)));
    let beyond = beyond.map(|(name, what)| format!("{what} ({name})"));
    let more: Vec<String> = beyond
        .into_iter()
        .chain(saved)
        .chain(biases)
        .chain(weights)
        .chain(rows)
        .collect();
    if more.is_empty() {
        return Ok(());
    }
    Err(AdapterError::NotForLlama {
        folder: adapter.to_owned(),
        found: more.join(", "),
    })
}
