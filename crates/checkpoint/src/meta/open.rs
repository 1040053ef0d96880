//! Reads Meta's layout: checks that the parts agree with `params.json` and with each other, and locates Hugging Face's
//! tensors in them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::Value;
use simmer_files::size::counted;

use super::layout::{FAMILY, MetaTensor, ROTARY, embedding, head, in_first_layer, tensors};
use super::{MetaError, PARAMS_FILE, Params, Split, shard_file};
use crate::config::ConfigError;
use crate::family::Role;
use crate::mapped::Mapped;
use crate::pth::{PthFile, PthTensor};
use crate::stored::{Joined, Piece, Stored};
use crate::{
    Checkpoint, CheckpointError, Dtype, Layout, MAX_TEXT_BYTES, ModelConfig, Pretrained,
    TensorInfo, compare,
};

/// Rows per comparison of the head with the embedding.
const COMPARED_ROWS: usize = 1024;
/// Maximum number of a part; the largest model has 16 parts.
const MAX_SHARDS: usize = 100;

/// One `consolidated.NN.pth`.
struct Shard {
    file: String,
    map: Mapped,
    tensors: HashMap<String, PthTensor>,
}

impl Shard {
    fn tensor(&self, name: &str) -> Option<&PthTensor> {
        self.tensors.get(name)
    }

    /// The rows of one of its matrices.
    fn rows(&self, name: &str) -> Option<usize> {
        self.tensor(name)?.info.shape.first().copied()
    }
}

/// Opens a folder of `params.json` and `consolidated.NN.pth`.
///
/// A head that equals the embedding is read as tied, because the layout has no key for it. The tokenizer defines the BOS
/// and EOS tokens.
///
/// # Errors
/// Missing and damaged files, parts of different models, and all tensors that contradict `params.json`, listed together;
/// see [`MetaError`].
pub fn open(folder: &Path) -> Result<Pretrained, MetaError> {
    let path = folder.join(PARAMS_FILE);
    let params = Params::from_json(&read_json(&path)?, &path)?;
    let shards = open_shards(folder)?;
    check_count(folder, &shards, &params)?;
    let mut config = config(&path, &params, &shards)?;
    let mut expected = tensors(&config, embedding_split(&shards, &params));
    // a tied head may be missing
    let head = head();
    if shards.iter().all(|shard| shard.tensor(&head).is_none()) {
        config.tie_word_embeddings = true;
        expected.retain(|tensor| tensor.name != head);
    }
    check_tensors(folder, &shards, &expected)?;
    check_agreement(folder, &shards, &expected)?;
    let mut stored: BTreeMap<String, Stored> = expected
        .iter()
        .filter_map(|tensor| Some((tensor.hugging_face.clone(), place(tensor, &shards)?)))
        .collect();
    if let Some(frequencies) = shards[0].tensor(ROTARY.0) {
        let plain = Stored::plain(frequencies.info.clone(), 0, frequencies.range.clone());
        stored.insert(ROTARY.1.to_owned(), plain);
    }
    let files: Vec<Mapped> = shards.into_iter().map(|shard| shard.map).collect();
    if is_tied(&stored, &files) {
        stored.remove(&FAMILY.head.weight());
        config.tie_word_embeddings = true;
    }
    let checkpoint = Checkpoint::of(folder, Layout::Meta, files, stored, &config);
    Ok(Pretrained { config, checkpoint })
}

fn read_json(path: &Path) -> Result<Value, ConfigError> {
    let text =
        simmer_files::read_text(path, MAX_TEXT_BYTES).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
    serde_json::from_str(&text).map_err(|source| ConfigError::Json {
        path: path.to_owned(),
        source,
    })
}

/// Maps and reads the parts; their numbers must have no gaps.
fn open_shards(folder: &Path) -> Result<Vec<Shard>, MetaError> {
    let entries = fs::read_dir(folder).map_err(CheckpointError::io(folder, "open folder"))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io(folder, "read"))?;
        let name = entry.file_name();
        let number = |name: &str| -> Option<usize> {
            let number = name.strip_prefix("consolidated.")?.strip_suffix(".pth")?;
            number
                .parse()
                .ok()
                .filter(|&number| shard_file(number) == name)
        };
        numbers.extend(name.to_str().and_then(number));
    }
    let Some(&last) = numbers.iter().max() else {
        let folder = folder.to_owned();
        return Err(MetaError::NoShards { folder });
    };
    if last >= MAX_SHARDS || numbers.len() != last + 1 {
        let total = last.min(MAX_SHARDS) + 1;
        let missing = (0..total).filter(|number| !numbers.contains(number));
        return Err(MetaError::ShardsMissing {
            folder: folder.to_owned(),
            missing: missing.map(shard_file).collect(),
            total,
            reason: format!("{} exists", shard_file(last)),
        });
    }
    let open = |number| {
        let file = shard_file(number);
        let path = folder.join(&file);
        let map = Mapped::open(&path)?;
        let pth = PthFile::parse(&map).map_err(|source| MetaError::Pth { path, source })?;
        let tensors = pth.into_tensors();
        let tensors = tensors
            .map(|tensor| (tensor.name.clone(), tensor))
            .collect();
        Ok(Shard { file, map, tensors })
    };
    (0..=last).map(open).collect()
}

/// Checks the number of parts against the number of rows of a query projection.
fn check_count(folder: &Path, shards: &[Shard], params: &Params) -> Result<(), MetaError> {
    let query = in_first_layer(Role::Query);
    let Some(rows) = shards[0].rows(&query) else {
        return Ok(());
    };
    let expected = if rows > 0 && params.dim.is_multiple_of(rows) {
        params.dim / rows
    } else {
        return Ok(());
    };
    let reason = format!("{query} has {rows} of {}", counted(params.dim, "row"));
    let folder = folder.to_owned();
    if expected > MAX_SHARDS || expected == shards.len() {
        Ok(())
    } else if expected > shards.len() {
        Err(MetaError::ShardsMissing {
            folder,
            missing: (shards.len()..expected).map(shard_file).collect(),
            total: expected,
            reason,
        })
    } else {
        Err(MetaError::TooManyShards {
            folder,
            found: shards.len(),
            expected,
            reason,
        })
    }
}

/// How the embedding is split: by rows in Llama 3, by columns in earlier models.
fn embedding_split(shards: &[Shard], params: &Params) -> Split {
    let embedding = shards[0].tensor(&embedding());
    match embedding.map(|tensor| tensor.info.shape.as_slice()) {
        Some(&[_, columns]) if columns == params.dim => Split::Rows,
        _ => Split::Columns,
    }
}

fn config(path: &Path, params: &Params, shards: &[Shard]) -> Result<ModelConfig, MetaError> {
    let wrong = |key: &str, expected: String, found: String| ConfigError::Key {
        path: path.to_owned(),
        key: key.to_owned(),
        expected,
        found,
    };
    let tensors = shards[0].tensors.len();
    if params.n_layers > tensors {
        let expected = format!(
            "at most the {} of {}",
            counted(tensors, "tensor"),
            shards[0].file
        );
        return Err(wrong("n_layers", expected, params.n_layers.to_string()).into());
    }
    let rows = |name: &str| {
        let rows = shards.iter().filter_map(|shard| shard.rows(name));
        rows.fold(0, usize::saturating_add)
    };
    let embedding_rows = match embedding_split(shards, params) {
        Split::Rows => rows(&embedding()),
        _ => shards[0].rows(&embedding()).unwrap_or(0),
    };
    let intermediate_size = params.intermediate_size().unwrap_or(0);
    let gate = in_first_layer(Role::Gate);
    let gate_rows = rows(&gate);
    if gate_rows != 0 && gate_rows != intermediate_size {
        let key = "multiple_of` and `ffn_dim_multiplier";
        let expected = format!(
            "values that give the {} of {gate}",
            counted(gate_rows, "row")
        );
        let multiplier = params.ffn_dim_multiplier;
        let multiplier = multiplier.map_or("nothing".to_owned(), |found| found.to_string());
        let found = format!(
            "{} and {multiplier}, which give {intermediate_size}",
            params.multiple_of
        );
        return Err(wrong(key, expected, found).into());
    }
    let config = ModelConfig {
        vocab_size: params.vocab_size.unwrap_or(embedding_rows),
        hidden_size: params.dim,
        intermediate_size,
        num_hidden_layers: params.n_layers,
        num_attention_heads: params.n_heads,
        num_key_value_heads: params.n_kv_heads,
        head_dim: params.dim / params.n_heads,
        rms_norm_eps: params.norm_eps,
        rope_theta: params.rope_theta,
        rope_scaling: params.rope_scaling.clone(),
        max_position_embeddings: params.max_seq_len,
        attention_bias: false,
        mlp_bias: false,
        tie_word_embeddings: false,
        bos_token_id: None,
        eos_token_id: Vec::new(),
        ..ModelConfig::of_family(FAMILY)
    };
    config.check(path)?;
    Ok(config)
}

/// Compares the tensors of each part with the configuration.
fn check_tensors(
    folder: &Path,
    shards: &[Shard],
    expected: &[MetaTensor],
) -> Result<(), MetaError> {
    let shapes = expected.iter().map(|tensor| {
        let shape = tensor.shard_shape(shards.len());
        (tensor.name.clone(), shape)
    });
    let shapes: BTreeMap<String, Vec<usize>> = shapes.collect();
    let differing = shards.iter().filter_map(|shard| {
        let tensors = shard.tensors.values();
        let found = tensors
            .filter(|tensor| tensor.name != ROTARY.0)
            .map(|tensor| (tensor.name.clone(), tensor.info.shape.clone()));
        let difference = compare(&shapes, &found.collect()).err()?;
        Some((shard.file.clone(), difference))
    });
    let differences: Vec<_> = differing.collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(MetaError::Difference {
        folder: folder.to_owned(),
        differences,
    })
}

/// Checks that the parts are of one model: dtypes are the same in all parts, and so are the tensors that each part has
/// completely.
fn check_agreement(
    folder: &Path,
    shards: &[Shard],
    expected: &[MetaTensor],
) -> Result<(), MetaError> {
    for tensor in expected {
        let first = &shards[0].tensors[&tensor.name];
        let dtype = first.info.dtype;
        if !matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32) {
            return Err(MetaError::Dtype {
                folder: folder.to_owned(),
                tensor: tensor.name.clone(),
                found: dtype.to_string(),
            });
        }
        for shard in &shards[1..] {
            let other = &shard.tensors[&tensor.name];
            let what = if other.info.dtype != dtype {
                format!("is {dtype} and {}", other.info.dtype)
            } else if tensor.split == Split::Whole
                && shard.map[other.range.clone()] != shards[0].map[first.range.clone()]
            {
                "differs, but is the same in every part of a model".to_owned()
            } else {
                continue;
            };
            return Err(MetaError::DifferentModels {
                folder: folder.to_owned(),
                tensor: tensor.name.clone(),
                first: shards[0].file.clone(),
                second: shard.file.clone(),
                what,
            });
        }
    }
    Ok(())
}

/// The pieces of a tensor in the parts.
fn place(tensor: &MetaTensor, shards: &[Shard]) -> Option<Stored> {
    let parts = if tensor.split == Split::Whole {
        &shards[..1]
    } else {
        shards
    };
    let pieces = parts.iter().enumerate().map(|(file, shard)| {
        let range = shard.tensor(&tensor.name)?.range.clone();
        Some(Piece { file, range })
    });
    let info = TensorInfo {
        dtype: shards[0].tensor(&tensor.name)?.info.dtype,
        shape: tensor.shape.clone(),
    };
    Some(Stored {
        pieces: pieces.collect::<Option<_>>()?,
        joined: match tensor.split {
            Split::Columns => Joined::Columns,
            Split::Rows | Split::Whole => Joined::Rows,
        },
        paired: tensor.paired,
        ..Stored::plain(info, 0, 0..0)
    })
}

/// Whether the head equals the embedding; heads that do not mostly differ in the first row.
fn is_tied(stored: &BTreeMap<String, Stored>, files: &[Mapped]) -> bool {
    let [head, embedding] = [&FAMILY.head, &FAMILY.embedding].map(|end| stored.get(&end.weight()));
    let (Some(head), Some(embedding)) = (head, embedding) else {
        return false;
    };
    let rows = head.rows();
    head.info == embedding.info
        && (0..rows).step_by(COMPARED_ROWS).all(|first| {
            let rows = first..rows.min(first + COMPARED_ROWS);
            let same =
                head.read_rows(files, rows.clone()) == embedding.read_rows(files, rows.clone());
            head.release(files, rows.clone());
            embedding.release(files, rows);
            same
        })
}
