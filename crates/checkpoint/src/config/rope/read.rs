//! Reads the scaling of the rotary frequencies from `config.json`.

use serde_json::Value;

use super::{ORIGINAL, RopeScaling, default_beta_fast, default_beta_slow, default_truncate};
use crate::config::{ConfigError, Keys, default_max_position_embeddings};

/// A table `rope_parameters` or `rope_scaling`, and the file that it is in.
pub(in crate::config) struct RopeTable<'a> {
    /// The keys of the file.
    pub(in crate::config) top: &'a Keys<'a>,
    /// The keys of the table.
    pub(in crate::config) inner: &'a Keys<'a>,
    /// The name of the table.
    pub(in crate::config) name: &'a str,
}

impl RopeTable<'_> {
    /// The scaling that the table describes, with the defaults of transformers.
    pub(in crate::config) fn scaling(&self) -> Result<RopeScaling, ConfigError> {
        let inner = self.inner;
        let kind = inner.get("rope_type").or_else(|| inner.get("type"));
        let has_divisors =
            inner.get("short_factor").is_some() || inner.get("long_factor").is_some();
        match kind.and_then(Value::as_str) {
            Some("default") => Ok(RopeScaling::Default),
            None if kind.is_none() => Ok(RopeScaling::Default),
            Some("linear") => Ok(RopeScaling::Linear {
                factor: self.number("factor")?,
            }),
            // transformers does not read the original context of this kind
            Some("dynamic") => Ok(RopeScaling::Dynamic {
                factor: self.number("factor")?,
            }),
            // earlier names of Phi-3 for LongRoPE
            Some("longrope" | "su") => self.long_rope(),
            Some("yarn") if has_divisors => self.long_rope(),
            Some("yarn") => self.yarn(),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: self.number("factor")?,
                low_freq_factor: self.number("low_freq_factor")?,
                high_freq_factor: self.number("high_freq_factor")?,
                original_max_position_embeddings: self.required_original()?,
            }),
            _ => {
                let expected =
                    "\"default\", \"linear\", \"dynamic\", \"yarn\", \"longrope\" or \"llama3\"";
                Err(self
                    .top
                    .error(&format!("{}.rope_type", self.name), expected, kind))
            }
        }
    }

    fn yarn(&self) -> Result<RopeScaling, ConfigError> {
        let max = self.max_position_embeddings()?;
        let original = self.original()?.unwrap_or(max);
        let factor = self.optional("factor")?;
        let truncate = match self.inner.get("truncate") {
            None => default_truncate(),
            Some(_) => self.named(self.inner.flag("truncate"))?,
        };
        Ok(RopeScaling::Yarn {
            factor: match factor {
                Some(factor) => factor,
                // null, as in some DeepSeek models
                None if self.inner.json.get("factor").is_some() => max as f64 / original as f64,
                None => return Err(self.missing("factor")),
            },
            original_max_position_embeddings: original,
            beta_fast: self.nonzero("beta_fast")?.unwrap_or(default_beta_fast()),
            beta_slow: self.nonzero("beta_slow")?.unwrap_or(default_beta_slow()),
            attention_factor: self.optional("attention_factor")?,
            mscale: self.nonzero("mscale")?,
            mscale_all_dim: self.nonzero("mscale_all_dim")?,
            truncate,
        })
    }

    fn long_rope(&self) -> Result<RopeScaling, ConfigError> {
        Ok(RopeScaling::LongRope {
            short_factor: self.numbers("short_factor")?,
            long_factor: self.numbers("long_factor")?,
            original_max_position_embeddings: self.required_original()?,
            factor: self.optional("factor")?,
            attention_factor: self.optional("attention_factor")?,
        })
    }

    fn missing(&self, key: &str) -> ConfigError {
        let key = format!("{}.{key}", self.name);
        self.top.error(&key, "a positive number", None)
    }

    /// The error of a key of the table, with the name of the table.
    fn named<T>(&self, found: Result<T, ConfigError>) -> Result<T, ConfigError> {
        found.map_err(|error| match error {
            ConfigError::Key {
                path,
                key,
                expected,
                found,
            } => ConfigError::Key {
                path,
                key: format!("{}.{key}", self.name),
                expected,
                found,
            },
            other => other,
        })
    }

    fn number(&self, key: &str) -> Result<f64, ConfigError> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    fn optional(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let found = self.inner.get(key);
        found.map_or(Ok(None), |_| {
            self.named(self.inner.number_or(key, 1.0)).map(Some)
        })
    }

    /// As [`RopeTable::optional`]; zero means that there is none, as in Python.
    fn nonzero(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        match self.inner.get(key).and_then(Value::as_f64) {
            Some(0.0) => Ok(None),
            _ => self.optional(key),
        }
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>, ConfigError> {
        let found = self.inner.get(key);
        let list = found.and_then(Value::as_array);
        let numbers = list.and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| {
            let key = format!("{}.{key}", self.name);
            self.top.error(&key, "a list of numbers", found)
        })
    }

    /// The context before scaling: the key of the file takes precedence over that of the table.
    fn original(&self) -> Result<Option<usize>, ConfigError> {
        if self.top.get(ORIGINAL).is_some() {
            return self.top.size(ORIGINAL).map(Some);
        }
        let found = self.inner.get(ORIGINAL);
        found.map_or(Ok(None), |_| {
            self.named(self.inner.size(ORIGINAL)).map(Some)
        })
    }

    fn required_original(&self) -> Result<usize, ConfigError> {
        self.original()?.ok_or_else(|| {
            let key = format!("{}.{ORIGINAL}", self.name);
            let expected = "a positive integer: the context before scaling, in tokens";
            self.top.error(&key, expected, None)
        })
    }

    fn max_position_embeddings(&self) -> Result<usize, ConfigError> {
        let default = self
            .top
            .size_or("max_sequence_length", default_max_position_embeddings())?;
        self.top.size_or("max_position_embeddings", default)
    }
}
