//! The base model of a new recipe: its tokenizer and its shape, without its weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use simmer_checkpoint::ModelConfig;
use simmer_checkpoint::hub::{Place, What};
use simmer_checkpoint::layout::parameter_count;
use simmer_data::Tokenizer;
use simmer_data::tokenizer::TokenizerError;
use simmer_files::size::readable;
use simmer_model::base::{Base, BaseConfig, BasePrecision};
use simmer_train::{TrainError, tokenizer};

use crate::failure::{Context, Failure};
use crate::{embedded, hub, output};

/// The most bytes of a configuration.
const LARGEST: u64 = 4 << 20;

/// A base model, opened.
pub(super) struct BaseModel {
    /// As given: a path, or a name on the hub.
    pub(super) name: String,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) base: Base,
    /// Bytes of the weights that are still on the hub.
    pub(super) not_downloaded: Option<u64>,
}

impl BaseModel {
    /// Opens a folder, a `.gguf` file, or a name on the hub. Of a name on the hub, only the tokenizer and the
    /// configuration are downloaded.
    pub(super) fn open(name: &str) -> Result<Self, Failure> {
        let given = Path::new(name);
        let on_hub = !given.exists() && !embedded::is_embedded(given);
        if on_hub
            && let Place::Hub { name: hub, .. } = Place::of(given)?
            && let Some(file) = hub.file()
        {
            output::note(&format!(
                "{name}: downloading {file}, which holds the tokenizer and the weights"
            ));
        }
        let found = hub::locate(given, What::Tokenizer)?;
        let tokenizer = tokenizer::open(&found).map_err(not_opened)?;
        for note in tokenizer.notes() {
            output::note(note);
        }
        let mut config = BaseConfig::from_path(name);
        config.locate(Some(found.clone()), None);
        let (base, not_downloaded) = match config.open() {
            Ok(base) => (base, None),
            Err(_) if on_hub && found.is_dir() => {
                let base = without_weights(&found)
                    .with_context(|| format!("{name}: its configuration cannot be used"))?;
                let bytes = base.bytes()[0];
                (base, Some(bytes))
            }
            Err(error) => return Err(error.into()),
        };
        tokenizer.check_vocabulary(base.config.vocab_size)?;
        Ok(Self {
            name: name.to_owned(),
            tokenizer: Arc::new(tokenizer),
            base,
            not_downloaded,
        })
    }

    /// Its size, and what is not yet here, on one line.
    pub(super) fn about(&self) -> String {
        let parameters = parameter_count(&self.base.config) as u64;
        let size = format!(
            "base model {}: {} parameters",
            self.name,
            simmer_files::size::grouped(parameters)
        );
        match self.not_downloaded {
            None => size,
            Some(bytes) => format!(
                "{size}; only its tokenizer and configuration were read, `simmer train` downloads its weights ({})",
                readable(bytes)
            ),
        }
    }
}

/// An error of opening the tokenizer. There is no recipe yet that could name another.
fn not_opened(error: TrainError) -> Failure {
    match error {
        TrainError::Tokenizer(TokenizerError::Read { ref path, .. })
            if path.ends_with("tokenizer.json") =>
        {
            Failure::from(error).with_hint(
                "name a base model with `tokenizer.json` or `tokenizer.model`: --base MODEL; of Meta's, copy \
                 `tokenizer.model` from one level up",
            )
        }
        other => other.into(),
    }
}

/// A model of which only the configuration is here.
fn without_weights(folder: &Path) -> Result<Base, Failure> {
    let mut config = BaseConfig::from_path(folder);
    (config.path, config.tokenizer) = (None, Some(PathBuf::from(folder)));
    config.init = Some(ModelConfig::from_folder(folder)?);
    config.precision = Some(stored(folder));
    Ok(config.open()?)
}

/// The dtype of the weights, as the configuration names it; models without a name for it are mostly in 16 bits.
fn stored(folder: &Path) -> BasePrecision {
    let text = simmer_files::read_text(&folder.join("config.json"), LARGEST);
    let json: Option<Value> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    let dtype = json.as_ref().and_then(|json| {
        let dtype = json.get("dtype").or_else(|| json.get("torch_dtype"))?;
        dtype.as_str()
    });
    match dtype {
        Some("float32") => BasePrecision::F32,
        Some("float16") => BasePrecision::F16,
        _ => BasePrecision::Bf16,
    }
}
