//! Address of the hub, folder of the cache, and access token.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::HubError;

const HUB: &str = "https://huggingface.co";

/// The settings in Hugging Face's environment variables.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Address of the hub or of a mirror, without a trailing slash.
    pub endpoint: String,
    /// The folder of `models--ORG--NAME` folders.
    pub cache: PathBuf,
    /// Access token; sent to the endpoint only.
    pub token: Option<Token>,
    /// Send no requests.
    pub offline: bool,
    /// Maximum retries of a request without progress.
    pub retries: u32,
    /// Pause before the first retry; doubled for each further one.
    pub pause: Duration,
    /// Timeout for a connection, an answer, or more data.
    pub patience: Duration,
}

/// A secret that its `Debug` form does not show.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// # Errors
    ///
    /// If the text is not valid in a request header. The message names `from`, not the text.
    pub fn new(text: &str, from: impl Into<String>) -> Result<Self, HubError> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HubError::Token { from: from.into() });
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl HubConfig {
    /// The public hub, without settings of the environment.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: HUB.to_owned(),
            cache: cache.into(),
            token: None,
            offline: false,
            retries: 5,
            pause: Duration::from_secs(1),
            patience: Duration::from_secs(30),
        }
    }

    /// `HF_ENDPOINT`; `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or in
    /// `$XDG_CACHE_HOME/huggingface`, or in `~/.cache/huggingface`; `HF_TOKEN`, or the file that
    /// `hf auth login` writes (`HF_TOKEN_PATH`, or `token` in `HF_HOME`); `HF_HUB_OFFLINE`. Older names of these
    /// variables are read if the current ones are not set.
    ///
    /// # Errors
    ///
    /// If there is no home folder for the cache, the token file cannot be read, or the token is invalid.
    ///
    /// # Source
    ///
    /// huggingface_hub's `constants.py`.
    pub fn from_env() -> Result<Self, HubError> {
        let variable = |name: &str| env::var(name).ok();
        Self::from_variables(&variable, env::home_dir().as_deref())
    }

    pub(super) fn from_variables(
        variable: &dyn Fn(&str) -> Option<String>,
        home: Option<&Path>,
    ) -> Result<Self, HubError> {
        let any = |names: &[&str]| {
            let mut values = names.iter().filter_map(|name| variable(name));
            values.find(|value| !value.trim().is_empty())
        };
        let path = |names: &[&str]| any(names).map(|text| expanded(&text, home));
        let hf_home = path(&["HF_HOME"])
            .or_else(|| path(&["XDG_CACHE_HOME"]).map(|cache| cache.join("huggingface")))
            .or_else(|| home.map(|home| home.join(".cache/huggingface")));
        let cache = path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
            .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
            .ok_or(HubError::NoHome)?;
        let token_file =
            path(&["HF_TOKEN_PATH"]).or_else(|| hf_home.map(|home| home.join("token")));
        let token = match any(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
            Some(text) => Some(Token::new(&text, "HF_TOKEN")?),
            None => token_file.as_deref().map_or(Ok(None), token_in)?,
        };
        let offline = any(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]);
        let endpoint = any(&["HF_ENDPOINT"]);
        let base = Self::new(cache);
        Ok(Self {
            endpoint: endpoint.map_or(base.endpoint, |text| {
                text.trim().trim_end_matches('/').to_owned()
            }),
            token,
            offline: offline.is_some_and(|text| is_true(&text)),
            ..base
        })
    }
}

fn token_in(file: &Path) -> Result<Option<Token>, HubError> {
    match fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Token::new(&text, file.display().to_string()).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HubError::io(file, "read the token in")(error)),
    }
}

fn is_true(text: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&text.trim().to_ascii_uppercase().as_str())
}

/// Expands `~/`, which a shell may have left.
fn expanded(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use simmer_hint::Hint as _;

    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<HubConfig, HubError> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        HubConfig::from_variables(&lookup, Some(Path::new("/home/me")))
    }

    #[test]
    fn where_the_cache_is() {
        for (variables, cache) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub"),
            (
                &[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/c")],
                "/home/me/hf/hub",
            ),
            (
                &[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")],
                "/models",
            ),
            (&[("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HOME", "")], "/home/me/.cache/huggingface/hub"),
        ] {
            assert_eq!(config(variables).unwrap().cache, Path::new(cache));
        }
        let none = HubConfig::from_variables(&|_| None, None).unwrap_err();
        assert!(none.hint().unwrap().contains("HF_HOME"));
    }

    #[test]
    fn endpoint_and_offline() {
        let plain = config(&[]).unwrap();
        assert_eq!((plain.endpoint.as_str(), plain.offline), (HUB, false));
        let mirror = config(&[
            ("HF_ENDPOINT", "https://mirror/"),
            ("HF_HUB_OFFLINE", "yes"),
        ]);
        let mirror = mirror.unwrap();
        assert_eq!(
            (mirror.endpoint.as_str(), mirror.offline),
            ("https://mirror", true)
        );
        assert!(!config(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert!(config(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
    }

    #[test]
    fn the_token_is_found_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert!(config(&[("HF_HOME", home)]).unwrap().token.is_none());
        fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let secret = |variables: &[(&str, &str)]| {
            let config = config(variables).unwrap();
            assert!(!format!("{config:?}").contains("hf_"), "{config:?}");
            config.token.unwrap().secret().to_owned()
        };
        assert_eq!(secret(&[("HF_HOME", home)]), "hf_file");
        assert_eq!(
            secret(&[("HF_HOME", home), ("HF_TOKEN", " hf_own ")]),
            "hf_own"
        );
        let error = config(&[("HF_TOKEN", "hf_a\r\nX-Evil: 1")]).unwrap_err();
        insta::assert_snapshot!(error, @"HF_TOKEN: expected an access token, one word of ASCII characters");
    }
}
