//! The tokenizer in the metadata of a file.

use simmer_files::size::counted;

use super::metadata::required;
use super::{Array, GgufError, Metadata};

/// The values of `tokenizer.ggml.*` and `tokenizer.chat_template*`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocabulary {
    /// The kind of tokenizer: "llama" (SentencePiece), "gpt2" (byte-level BPE).
    pub model: String,
    /// The pre-tokenizer, by llama.cpp's name.
    pub pre: Option<String>,
    /// The tokens; the index is the id.
    pub tokens: Vec<String>,
    /// The score of each token.
    pub scores: Option<Vec<f32>>,
    /// The kind of each token.
    pub kinds: Option<Vec<TokenKind>>,
    /// BPE merges by priority, each as two tokens with a space between.
    pub merges: Option<Vec<String>>,
    /// BOS token.
    pub bos: Option<u32>,
    /// EOS token.
    pub eos: Option<u32>,
    /// End-of-turn token.
    pub eot: Option<u32>,
    /// End-of-message token, before the answer of a tool.
    pub eom: Option<u32>,
    /// Unknown token.
    pub unknown: Option<u32>,
    /// Padding token.
    pub padding: Option<u32>,
    /// Whether `bos` is added before a text.
    pub add_bos: Option<bool>,
    /// Whether `eos` is added after a text.
    pub add_eos: Option<bool>,
    /// Whether a space is added before a text.
    pub add_space_prefix: Option<bool>,
    /// Whether repeated spaces become one.
    pub remove_extra_whitespaces: Option<bool>,
    /// Whether special tokens absorb the spaces after them, as Phi-3's do. No key says so: the architecture or the
    /// model's name does.
    pub rstrip: bool,
    /// The chat template.
    pub chat_template: Option<String>,
    /// Further chat templates, by name.
    pub chat_templates: Vec<(String, String)>,
}

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenKind {
    /// Undefined.
    Undefined = 0,
    /// A piece of text.
    Normal = 1,
    /// The unknown token.
    Unknown = 2,
    /// A control token; no text is encoded to it.
    Control = 3,
    /// A user-defined token, found in text before all others.
    UserDefined = 4,
    /// Unused.
    Unused = 5,
    /// One byte: `<0x0A>`.
    Byte = 6,
}

impl TokenKind {
    const ALL: [Self; 7] = [
        Self::Undefined,
        Self::Normal,
        Self::Unknown,
        Self::Control,
        Self::UserDefined,
        Self::Unused,
        Self::Byte,
    ];
}

const TEMPLATE: &str = "tokenizer.chat_template";
const TEMPLATES: &str = "tokenizer.chat_templates";

impl Vocabulary {
    /// Reads the metadata of a file.
    ///
    /// # Errors
    /// If a key is missing or has another type, if lists have different lengths, or if a special token is not in the
    /// vocabulary.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, GgufError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let text = |name: &str| {
            metadata
                .string(&key(name))
                .map(|text| text.map(str::to_owned))
        };
        let flag = |name: &str| metadata.flag(&key(name));
        let tokens = required(&key("tokens"), metadata.strings(&key("tokens"))?)?;
        let id = |name: &str| special_token(metadata, &key(name), tokens.len());
        let vocabulary = Self {
            model: required(&key("model"), text("model")?)?,
            pre: text("pre")?,
            scores: metadata.floats(&key("scores"))?,
            kinds: kinds(metadata, &key("token_type"))?,
            merges: metadata.strings(&key("merges"))?,
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            eom: id("eom_token_id")?,
            unknown: id("unknown_token_id")?,
            padding: id("padding_token_id")?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
            rstrip: is_phi3(metadata)?,
            chat_template: metadata.string(TEMPLATE)?.map(str::to_owned),
            chat_templates: chat_templates(metadata)?,
            tokens,
        };
        let tokens = vocabulary.tokens.len();
        same_length("scores", vocabulary.scores.as_ref().map(Vec::len), tokens)?;
        same_length(
            "token_type",
            vocabulary.kinds.as_ref().map(Vec::len),
            tokens,
        )?;
        Ok(vocabulary)
    }

    /// Sets the keys that [`Vocabulary::from_metadata`] reads.
    pub fn write_to(&self, metadata: &mut Metadata) {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        metadata.set(key("model"), self.model.as_str());
        if let Some(pre) = &self.pre {
            metadata.set(key("pre"), pre.as_str());
        }
        metadata.set(key("tokens"), Array::strings(&self.tokens));
        if let Some(scores) = &self.scores {
            metadata.set(key("scores"), Array::floats(scores));
        }
        if let Some(kinds) = &self.kinds {
            let kinds: Vec<_> = kinds.iter().map(|&kind| kind as i32).collect();
            metadata.set(key("token_type"), Array::integers(&kinds));
        }
        if let Some(merges) = &self.merges {
            metadata.set(key("merges"), Array::strings(merges));
        }
        for (name, id) in [
            ("bos_token_id", self.bos),
            ("eos_token_id", self.eos),
            ("eot_token_id", self.eot),
            ("eom_token_id", self.eom),
            ("unknown_token_id", self.unknown),
            ("padding_token_id", self.padding),
        ] {
            if let Some(id) = id {
                metadata.set(key(name), id);
            }
        }
        for (name, flag) in [
            ("add_bos_token", self.add_bos),
            ("add_eos_token", self.add_eos),
            ("add_space_prefix", self.add_space_prefix),
            ("remove_extra_whitespaces", self.remove_extra_whitespaces),
        ] {
            if let Some(flag) = flag {
                metadata.set(key(name), flag);
            }
        }
        if let Some(template) = &self.chat_template {
            metadata.set(TEMPLATE, template.as_str());
        }
        if !self.chat_templates.is_empty() {
            let names = self.chat_templates.iter().map(|(name, _)| name);
            metadata.set(TEMPLATES, Array::strings(names));
        }
        for (name, template) in &self.chat_templates {
            metadata.set(format!("{TEMPLATE}.{name}"), template.as_str());
        }
    }
}

/// Whether the file holds a Phi-3. llama.cpp looks for the name alone (`llama_vocab::impl::load`), and does not find it if
/// there is a space in it.
fn is_phi3(metadata: &Metadata) -> Result<bool, GgufError> {
    let name = metadata.string("general.name")?.unwrap_or_default();
    let name = name.to_lowercase();
    let is_named = ["phi-3", "phi3"].iter().any(|phi| name.contains(phi));
    Ok(is_named || metadata.string("general.architecture")? == Some("phi3"))
}

fn special_token(metadata: &Metadata, key: &str, tokens: usize) -> Result<Option<u32>, GgufError> {
    // some writers set all bits if there is none
    let id = metadata
        .unsigned(key)?
        .filter(|&id| id != u64::from(u32::MAX));
    let within = |id| u32::try_from(id).ok().filter(|&id| (id as usize) < tokens);
    let Some(id) = id else {
        return Ok(None);
    };
    within(id).map(Some).ok_or_else(|| GgufError::Key {
        key: key.to_owned(),
        expected: format!("an id below {tokens}"),
        found: id.to_string(),
    })
}

fn kinds(metadata: &Metadata, key: &str) -> Result<Option<Vec<TokenKind>>, GgufError> {
    let kind = |(index, number): (usize, i64)| {
        let kind = usize::try_from(number)
            .ok()
            .and_then(|number| TokenKind::ALL.get(number));
        kind.copied().ok_or_else(|| GgufError::Key {
            key: format!("{key}[{index}]"),
            expected: "0 to 6".to_owned(),
            found: number.to_string(),
        })
    };
    let Some(numbers) = metadata.integers(key)? else {
        return Ok(None);
    };
    numbers
        .into_iter()
        .enumerate()
        .map(kind)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn chat_templates(metadata: &Metadata) -> Result<Vec<(String, String)>, GgufError> {
    let names = metadata.strings(TEMPLATES)?.unwrap_or_default();
    let template = |name: String| {
        let key = format!("{TEMPLATE}.{name}");
        let template = required(&key, metadata.string(&key)?)?;
        Ok((name, template.to_owned()))
    };
    names.into_iter().map(template).collect()
}

fn same_length(name: &str, found: Option<usize>, tokens: usize) -> Result<(), GgufError> {
    match found {
        Some(found) if found != tokens => Err(GgufError::Key {
            key: format!("tokenizer.ggml.{name}"),
            expected: format!("one value for each of {}", counted(tokens, "token")),
            found: counted(found, "value"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vocabulary {
        Vocabulary {
            model: "llama".to_owned(),
            pre: Some("default".to_owned()),
            tokens: ["<unk>", "<s>", "\u{2581}a"].map(str::to_owned).to_vec(),
            scores: Some(vec![0.0, 0.0, -1.0]),
            kinds: Some(vec![
                TokenKind::Unknown,
                TokenKind::Control,
                TokenKind::Normal,
            ]),
            merges: Some(vec!["a b".to_owned()]),
            bos: Some(1),
            eos: Some(2),
            eot: Some(2),
            eom: Some(2),
            unknown: Some(0),
            padding: Some(2),
            add_bos: Some(true),
            add_eos: Some(false),
            add_space_prefix: Some(true),
            remove_extra_whitespaces: Some(false),
            rstrip: false,
            chat_template: Some("{{ messages }}".to_owned()),
            chat_templates: vec![("tool_use".to_owned(), "{{ tools }}".to_owned())],
        }
    }

    #[test]
    fn metadata_and_back() {
        let few = Vocabulary {
            model: "gpt2".to_owned(),
            tokens: vec!["a".to_owned()],
            ..Vocabulary::default()
        };
        for vocabulary in [whole(), few] {
            let mut metadata = Metadata::new();
            vocabulary.write_to(&mut metadata);
            assert_eq!(Vocabulary::from_metadata(&metadata).unwrap(), vocabulary);
        }
    }

    #[test]
    fn phi_3_is_known_by_its_architecture_or_its_name() {
        for (key, value, rstrip) in [
            ("general.architecture", "phi3", true),
            ("general.name", "Phi-3-mini-4k-instruct", true),
            ("general.name", "Mistral 7B", false),
        ] {
            let mut metadata = Metadata::new();
            whole().write_to(&mut metadata);
            metadata.set(key, value);
            assert_eq!(Vocabulary::from_metadata(&metadata).unwrap().rstrip, rstrip);
        }
    }

    #[test]
    fn parts_that_disagree_are_refused() {
        let message = |key: &str, value: super::super::Value| {
            let mut metadata = Metadata::new();
            whole().write_to(&mut metadata);
            metadata.set(key, value);
            Vocabulary::from_metadata(&metadata)
                .unwrap_err()
                .to_string()
        };
        insta::assert_snapshot!(message("tokenizer.ggml.bos_token_id", 3.into()),
            @"`tokenizer.ggml.bos_token_id`: expected an id below 3, found 3");
        insta::assert_snapshot!(
            message("tokenizer.ggml.scores", Array::floats(&[1.0]).into()),
            @"`tokenizer.ggml.scores`: expected one value for each of 3 tokens, found 1 value");
        insta::assert_snapshot!(
            message("tokenizer.ggml.token_type", Array::integers(&[1, 7, 1]).into()),
            @"`tokenizer.ggml.token_type[1]`: expected 0 to 6, found 7");
        insta::assert_snapshot!(
            message("tokenizer.chat_templates", Array::strings(["rag"]).into()),
            @"`tokenizer.chat_template.rag`: expected a value, found nothing");
        insta::assert_snapshot!(Vocabulary::from_metadata(&Metadata::new()).unwrap_err(),
            @"`tokenizer.ggml.tokens`: expected a value, found nothing");
    }
}
