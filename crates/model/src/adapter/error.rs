//! Errors of adapters.

use std::io;
use std::path::{Path, PathBuf};

use simmer_checkpoint::gguf::GgufError;
use simmer_checkpoint::pth::PthError;
use simmer_checkpoint::{CheckpointError, Difference};
use simmer_files::WriteError;
use simmer_files::size::{are, counted};
use simmer_hint::Hint;
use thiserror::Error;

use super::targets::SelectionError;

/// An adapter that cannot be read, written, or attached to its base model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// An error of the operating system.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What failed, as a verb.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A folder without an adapter.
    #[error("{}: no {missing} in this folder{found}", folder.display())]
    NotAnAdapter {
        /// The folder.
        folder: PathBuf,
        /// The missing file.
        missing: &'static str,
        /// What the folder has instead, as the end of the sentence; may be empty.
        found: String,
    },
    /// An `adapter_config.json` that is not a JSON object.
    #[error("{}: {source}", file.display())]
    ConfigJson {
        /// The file.
        file: PathBuf,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// A key whose value has the wrong type or range.
    #[error("{}: `{key}`: expected {expected}, found {found}", file.display())]
    ConfigValue {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The expected type or range.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// A key that makes the adapter compute something that simmer does not support.
    #[error("{}: `{key}` = {found} is not supported: {why}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What the key does.
        why: &'static str,
    },
    /// A value of a recipe's table that is out of range.
    #[error("[method.{table}] `{key}`: {why}")]
    Setting {
        /// The table in `[method]`.
        table: &'static str,
        /// The key.
        key: &'static str,
        /// What was expected and found.
        why: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// Modules that cannot be selected.
    #[error("{}", source)]
    Selection {
        /// What is wrong.
        #[from]
        source: SelectionError,
    },
    /// A setting that is out of range, or that another one excludes.
    #[error("{key}: {why}")]
    Conflict {
        /// The key.
        key: &'static str,
        /// Why it is not valid.
        why: String,
    },
    /// A base model that a kind of adapter cannot be used with.
    #[error("{kind} cannot be used with this base model: {why}")]
    BaseModel {
        /// The kind.
        kind: &'static str,
        /// Why not.
        why: String,
    },
    /// A checkpoint of the original LLaMA-Adapter that cannot be read.
    #[error("{}: a checkpoint of LLaMA-Adapter: {why}", file.display())]
    Original {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An adapter that another form cannot hold.
    #[error("{}: cannot be converted to {form} form: {why}", folder.display())]
    OtherForm {
        /// The adapter.
        folder: PathBuf,
        /// Whose form, with its possessive.
        form: &'static str,
        /// Why not.
        why: String,
    },
    /// An adapter that cannot be merged.
    #[error("{}: {kind} cannot be merged into its base model: {why}", folder.display())]
    NoMerge {
        /// The adapter.
        folder: PathBuf,
        /// Its kind.
        kind: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A module of the family's table that the forward pass does not have.
    #[error("`{module}` cannot be changed by an adapter: simmer's model has no such module")]
    NoField {
        /// The module.
        module: String,
    },
    /// A weight file that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file or folder that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A pickled weight file that cannot be read.
    #[error("{}: {source}", file.display())]
    Pickled {
        /// The file.
        file: PathBuf,
        /// The error in the file.
        source: PthError,
    },
    /// A file without any low-rank branch.
    #[error("{}: no LoRA tensors in this file; {found}", file.display())]
    NoBranch {
        /// The file.
        file: PathBuf,
        /// What the file has instead, as the end of the sentence.
        found: String,
    },
    /// Two adapters that cannot be compared.
    #[error("{} and {} are for different base models:\n{differences}", first.display(), second.display())]
    OtherBase {
        /// The first.
        first: PathBuf,
        /// The second.
        second: PathBuf,
        /// The modules whose shapes differ, one per line.
        differences: String,
    },
    /// Tensors that do not fit the base model.
    #[error("{}: the adapter does not fit the base model{diagnosis}{}", file.display(), listed(difference.as_deref()))]
    Mismatch {
        /// The weight file.
        file: PathBuf,
        /// All differences; `None` if the adapter is for another base model, whose tensors all differ.
        difference: Option<Box<Difference>>,
        /// Which base model it seems to be for, as the end of the sentence.
        diagnosis: String,
    },
    /// Copies of a tensor for the embedding and the output head that differ.
    #[error("{}: tensors `{}` and `{}` differ; the base model uses one matrix as embedding and as output head", file.display(), tensors[0], tensors[1])]
    Untied {
        /// The weight file.
        file: PathBuf,
        /// The two tensors.
        tensors: [String; 2],
    },
    /// A weight that is NaN or infinite.
    #[error("{}: tensor `{tensor}`: {count} of {} NaN or infinite", file.display(), are(*of, "value"))]
    NotFinite {
        /// The weight file.
        file: PathBuf,
        /// The first tensor with such a value.
        tensor: String,
        /// The number of such values in it.
        count: usize,
        /// The number of its values.
        of: usize,
    },
    /// An adapter of a classifier or of a reward model.
    #[error("{}: tensor `{tensor}` {shape:?} is the head of a classifier or a reward model{}; simmer runs language models only", file.display(), task(task_type.as_deref()))]
    Head {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The configuration's `task_type`.
        task_type: Option<String>,
    },
    /// A GGUF file instead of a folder in PEFT's layout.
    #[error("{}: {what}; expected an adapter in PEFT's layout", file.display())]
    GgufInstead {
        /// The file.
        file: PathBuf,
        /// What it holds.
        what: &'static str,
    },
    /// A weight file instead of its folder.
    #[error("{}: a file; expected the folder of an adapter", file.display())]
    FileInstead {
        /// The file.
        file: PathBuf,
    },
    /// Modules whose factors do not match.
    #[error("{}: no module has a lora_A and a lora_B that match: {example}{}", file.display(), others(*count))]
    NoPair {
        /// The weight file.
        file: PathBuf,
        /// The first module and its fault.
        example: String,
        /// The number of modules.
        count: usize,
    },
    /// A `simmer.json` of another version.
    #[error("{}: `version`: expected 1, found {found}", file.display())]
    SettingsVersion {
        /// The file.
        file: PathBuf,
        /// The version.
        found: u32,
    },
    /// An adapter that llama.cpp cannot apply.
    #[error("{}: llama.cpp applies only low-rank branches; this adapter also has: {found}", folder.display())]
    NotForLlama {
        /// The adapter.
        folder: PathBuf,
        /// What else it has.
        found: String,
    },
    /// An adapter that GGUF cannot hold.
    #[error("{}: {source}", folder.display())]
    Gguf {
        /// The adapter.
        folder: PathBuf,
        /// The reason.
        source: GgufError,
    },
    /// A dtype that is not supported in adapters.
    #[error("{}: tensor `{tensor}`: expected dtype F32, F16 or BF16, found {found}", file.display())]
    Dtype {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        found: String,
    },
}

impl Hint for AdapterError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Selection { source } => source.hint(),
            Self::Setting { hint, .. } => hint.clone(),
            Self::BaseModel { .. } => Some(
                "train LoRA ([method.lora]) or (IA)³ ([method.ia3]), which every base model can have".to_owned(),
            ),
            Self::Original { .. } => Some(
                "save the two kinds of tensors alone, as `extract_adapter_from_checkpoint.py` of the original does; a folder with \
                 the file as adapter_model.bin, and adapter_config.json with peft_type LLAMA_ADAPTER, may set adapter_len and \
                 adapter_layers"
                    .to_owned(),
            ),
            Self::NoMerge { .. } => Some(
                "use base model and adapter together: --base and --adapter of `simmer generate`, `chat` and `eval`"
                    .to_owned(),
            ),
            Self::Checkpoint(error) => error.hint(),
            Self::Write(error) => error.hint(),
            Self::NotFinite { .. } => Some(
                "the training run diverged: use one of its earlier checkpoints, or train again with a lower learning rate"
                    .to_owned(),
            ),
            Self::Head { .. } => Some(
                "use an adapter that was trained to generate text (task_type CAUSAL_LM)".to_owned(),
            ),
            Self::GgufInstead { .. } => Some(
                "use the folder that the GGUF file was converted from; llama.cpp loads the file with --lora"
                    .to_owned(),
            ),
            Self::FileInstead { file } => Some(format!(
                "give the folder, {}",
                file.parent().unwrap_or(file).display()
            )),
            Self::NoPair { .. } => Some(
                "fused modules of early PEFT (`enable_lora`) cannot be read; merge the adapter with the version of PEFT \
                 that trained it"
                    .to_owned(),
            ),
            Self::SettingsVersion { .. } => Some(
                "update simmer, or remove the file to use the adapter without its prompt template"
                    .to_owned(),
            ),
            Self::Pickled { source, .. } => source.hint(),
            Self::Untied { .. } => Some(
                "use the base model that the adapter was trained on, whose `tie_word_embeddings` was false"
                    .to_owned(),
            ),
            Self::Mismatch { difference, .. } => Some(mismatch(difference.as_deref())),
            Self::NotForLlama { .. } => Some(
                "merge the adapter into its base model, and convert the merged model".to_owned(),
            ),
            Self::Gguf { source, .. } => source.hint(),
            Self::Unsupported { found, .. } if found.contains("pissa_niter_") => Some(
                "no program can compute the same start again; where its initial adapter was kept, PEFT's `save_pretrained` with \
                 `path_initial_model_for_weight_conversion` saves it as plain LoRA"
                    .to_owned(),
            ),
            Self::Unsupported { key, found, .. } if cannot_be_merged(key, found) => {
                Some("use it with PEFT, which cannot merge it either; or train an adapter of another type".to_owned())
            }
            Self::Unsupported { .. } => Some(
                "merge this adapter into its base model with PEFT, and use the merged model"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Types of PEFT that add inputs and change no weight.
const PROMPTS: [&str; 4] = ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "CPT"];

/// Whether PEFT refuses to merge an adapter with this key: prompts, branches that depend on the text (`alora_invocation_tokens`,
/// `arrow_config`), those beside GPTQ (`use_qalora`), and biases beside layers that have none, as LLaMA's.
///
/// Source: PEFT 0.21.2, `merge` in `tuners/lora/`.
fn cannot_be_merged(key: &str, found: &str) -> bool {
    const KEYS: [&str; 4] = ["alora_", "arrow_config", "use_qalora", "lora_bias"];
    PROMPTS.iter().any(|kind| found.contains(kind))
        || KEYS.iter().any(|start| key.starts_with(start))
}

/// The hint for tensors that do not fit: those of another base model, unless the adapter's own files differ.
fn mismatch(difference: Option<&Difference>) -> String {
    if let Some(difference) = difference
        && difference.misshapen.is_empty()
    {
        let config =
            "correct `target_modules`, `rank_pattern` and `modules_to_save` in adapter_config.json";
        if difference.unexpected.is_empty() {
            return format!(
                "download or save the adapter again: its file is incomplete; or {config}"
            );
        }
        if difference.missing.is_empty() {
            return format!("{config}: it does not name these tensors");
        }
    }
    if let Some(rank) = difference.and_then(other_rank) {
        return format!(
            "correct `r` or `rank_pattern` in adapter_config.json: these tensors have rank {rank}"
        );
    }
    "use the base model that the adapter was trained on; `base_model_name_or_path` in its adapter_config.json names it"
        .to_owned()
}

/// The rank of the tensors in the file, if nothing but the rank differs.
fn other_rank(difference: &Difference) -> Option<usize> {
    let ranks = difference.misshapen.iter().map(|(name, expected, found)| {
        let rank = usize::from(name.contains("lora_B"));
        let is_rank = expected.len() == 2
            && found.len() == 2
            && expected[rank] != found[rank]
            && expected[1 - rank] == found[1 - rank];
        is_rank.then(|| found[rank])
    });
    let ranks: Vec<usize> = ranks.collect::<Option<_>>()?;
    let is_alone = difference.missing.is_empty() && difference.unexpected.is_empty();
    let first = *ranks.first()?;
    (is_alone && ranks.iter().all(|rank| *rank == first)).then_some(first)
}

fn listed(difference: Option<&Difference>) -> String {
    difference.map_or_else(String::new, |difference| format!(":\n{difference}"))
}

fn task(task_type: Option<&str>) -> String {
    let named = task_type.filter(|task| *task != "CAUSAL_LM");
    named.map_or_else(String::new, |task| format!(" (task_type {task})"))
}

fn others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        _ => format!("; the other {} likewise", counted(count - 1, "module")),
    }
}

impl AdapterError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_what_does_not_fit() {
        let key = |matrix: &str| {
            format!("base_model.model.model.layers.0.self_attn.q_proj.{matrix}.weight")
        };
        let hint = |difference: &Difference| mismatch(Some(difference));
        let rank = Difference {
            misshapen: vec![
                (key("lora_A"), vec![8, 192], vec![16, 192]),
                (key("lora_B"), vec![192, 8], vec![192, 16]),
            ],
            ..Difference::default()
        };
        assert!(hint(&rank).contains("these tensors have rank 16"));
        let width = Difference {
            misshapen: vec![(key("lora_B"), vec![24, 4], vec![16, 4])],
            ..Difference::default()
        };
        assert!(hint(&width).starts_with("use the base model"));
        let missing = Difference {
            missing: vec![(key("lora_B"), vec![192, 8])],
            ..Difference::default()
        };
        assert!(hint(&missing).contains("its file is incomplete"));
        let unexpected = Difference {
            unexpected: missing.missing.clone(),
            ..Difference::default()
        };
        assert!(hint(&unexpected).contains("does not name these tensors"));
        assert!(mismatch(None).starts_with("use the base model"));
    }
}
