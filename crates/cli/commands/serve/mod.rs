//! `simmer serve`: a server of OpenAI's API.

mod engine;
mod model;

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use simmer_files::size::{counted, readable};
use simmer_serve::{Defaults, HeaderValue, Served, Server, Setup, listen};

use self::engine::Engine;
use self::model::{Named, cache_bytes};
use crate::failure::{Failure, bail};
use crate::loaded::{ComputeArgs, Loaded};
use crate::{interrupt, output};

/// The variable that holds the key that clients have to send.
const KEY: &str = "SIMMER_API_KEY";

/// Serve a model and its adapters with OpenAI's API
///
/// Programs that speak to OpenAI's API speak to this server at http://HOST:PORT/v1: chat completions, completions and the list
/// of models. A request chooses the base model or one of its adapters with `model`; all share the weights of the base model.
/// Requests are answered together, several at a time. If the variable SIMMER_API_KEY is set, clients have to send that key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer serve --base HuggingFaceTB/SmolLM2-135M-Instruct
  simmer serve --base data/tiny-base --adapter kitchen=runs/quickstart/adapter --port 8000")]
pub(crate) struct Serve {
    /// Base model: a folder, a .gguf file, or a name on the Hugging Face Hub
    #[arg(long, value_name = "MODEL")]
    base: PathBuf,
    /// Adapter in PEFT's layout: a folder, or a name on the Hugging Face Hub; requests choose it by NAME. Can be repeated
    #[arg(long = "adapter", value_name = "[NAME=]ADAPTER", value_parser = Named::parse)]
    adapters: Vec<Named>,
    /// Name by which requests choose the base model. Default: as given with --base
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    computing: ComputeArgs,
    /// Prompt template of chats; `chat` is the chat template of the model. Default: the one that an adapter was trained
    /// with, else `chat`
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Address to listen on; 0.0.0.0: on all addresses of this machine
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: String,
    /// Port to listen on; 0: any free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Answers that are computed at the same time; others wait
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    together: u16,
    /// Answers that are computed or wait at most; further requests are refused
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
    /// Longest text of prompt and answer, in tokens. Default: the context of the model
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    context: Option<u32>,
    /// Tokens whose keys and values are kept at most, for each of the models, and at least those of one text; what is not in use
    /// is kept for prompts that begin alike
    #[arg(long, default_value_t = 16_384, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1 << 30))]
    cache_tokens: u32,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Origin (scheme and host) of web pages that may send requests from a browser; *: all
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Option<String>,
}

/// Settings of requests that do not name them.
#[derive(Debug, Args)]
struct SamplingArgs {
    /// Sampling temperature of requests without one
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    temperature: f64,
    /// `top_p` of requests without one
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f64,
    /// `top_k` of requests without one; 0: all tokens
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// `repetition_penalty` of requests without one; 1: none
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f64,
}

impl SamplingArgs {
    fn defaults(&self) -> Result<Defaults, Failure> {
        let sampling = simmer_model::Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
            ..simmer_model::Sampling::default()
        };
        sampling.check()?;
        Ok(Defaults {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
        })
    }
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let defaults = self.sampling.defaults()?;
        let key = key()?;
        let origin = self.allow_origin.as_deref().map(origin).transpose()?;
        let names = self.names()?;
        // before the model is loaded, which takes long
        let listener = listen(&self.host, self.port)?;
        let adapters = self.adapters.iter().map(|named| Some(named.path.as_path()));
        let adapters: Vec<_> = std::iter::once(None).chain(adapters).collect();
        let base = self.computing.base(&self.base);
        let loaded = Loaded::open_each(&base, &adapters, &self.computing.devices()?)?;
        let served = names.iter().zip(&loaded).zip(&adapters);
        let served =
            served.map(|((name, loaded), adapter)| self.served(name, loaded, adapter.is_some()));
        let served: Vec<Served> = served.collect::<Result<_, _>>()?;
        let contexts: Vec<usize> = served.iter().map(|served| served.context).collect();
        let (sender, jobs) = channel();
        let server = Server::start(
            Setup {
                served,
                defaults,
                key: key.clone(),
                allowed_origin: origin,
                most_texts: self.queue as usize,
                log: Box::new(|line| output::note(&line.replace(char::is_control, " "))),
            },
            listener,
            sender,
        )?;
        self.tell(&server, &names, &loaded[0], key.is_some())?;
        let runs = Arc::new(AtomicBool::new(true));
        let stop = interrupt::flag(
            "No more requests are accepted; those that wait are answered. Ctrl-C again ends the program at once.",
            runs,
        );
        let mut engine = Engine::new(
            &loaded,
            &contexts,
            self.cache_tokens as usize,
            usize::from(self.together),
        );
        if engine.run(&jobs, &server, &stop) {
            return Ok(server.join()?);
        }
        output::note("closed connections that were still open");
        Ok(())
    }

    /// The names of the base model and of its adapters.
    fn names(&self) -> Result<Vec<String>, Failure> {
        let base = self.base.display().to_string();
        let base = self
            .name
            .clone()
            .unwrap_or_else(|| base.trim_end_matches('/').to_owned());
        let names =
            std::iter::once(base).chain(self.adapters.iter().map(|named| named.name.clone()));
        let names: Vec<String> = names.collect();
        for (number, name) in names.iter().enumerate() {
            if name.is_empty() {
                bail!("--name, --adapter: a model needs a name");
            }
            if names[..number].contains(name) {
                let text = format!("--adapter: two models have the name `{name}`");
                return Err(
                    Failure::new(text).with_hint("name an adapter with --adapter NAME=ADAPTER")
                );
            }
        }
        Ok(names)
    }

    fn served(&self, name: &str, loaded: &Loaded, is_adapter: bool) -> Result<Served, Failure> {
        let chosen = self.template.as_deref();
        let template = match loaded.prompt_template(chosen)? {
            Some(template) => Ok(template),
            None => loaded.template("chat").map_err(|failure| {
                output::note(&format!("no chats: {failure}"));
                "it has no chat template that can be used".to_owned()
            }),
        };
        let limit = loaded.model.config().max_position_embeddings;
        let context = self.context.map_or(limit, |context| context as usize);
        if context > limit {
            bail!("--context: expected at most {limit}, the context of the model, found {context}");
        }
        let root = if is_adapter {
            let found = self.adapters.iter().find(|named| named.name == name);
            found.map(|named| named.path.display().to_string())
        } else {
            None
        };
        let base = self.base.display().to_string();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Served {
            name: name.to_owned(),
            parent: is_adapter.then(|| base.clone()),
            root: root.unwrap_or(base),
            tokenizer: Arc::clone(&loaded.tokenizer),
            template,
            context,
            vocabulary: loaded.model.config().vocab_size,
            eos: loaded.eos.clone(),
            longest_token: loaded.longest_token(),
            fingerprint: format!(
                "simmer-{}",
                &loaded.identity[..loaded.identity.len().min(12)]
            ),
            created: now.as_secs(),
        })
    }

    fn tell(
        &self,
        server: &Server,
        names: &[String],
        loaded: &Loaded,
        has_key: bool,
    ) -> Result<(), Failure> {
        let address = server.address();
        let bytes = cache_bytes(loaded, self.cache_tokens as usize, self.context);
        output::note(&format!(
            "cache: up to {} for each of {}, as they are needed",
            readable(bytes),
            counted(names.len(), "model")
        ));
        if !address.ip().is_loopback() && !has_key {
            output::note(&format!(
                "warning: other machines can use this server without a key; set {KEY} to ask for one"
            ));
        }
        output::line(&format!(
            "serving {} at http://{address}/v1",
            names.join(", ")
        ))
    }
}

/// The origin of web pages: `*`, or a scheme with a host and perhaps a port, as browsers send it.
fn origin(text: &str) -> Result<HeaderValue, Failure> {
    let host = text.split_once("://").map(|(_, host)| host);
    let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
    let parsed = HeaderValue::from_str(text)
        .ok()
        .filter(|_| is_origin || text == "*");
    parsed.ok_or_else(|| {
        let text = format!(
            "--allow-origin: expected an origin such as https://example.org, or *, found {text}"
        );
        Failure::new(text)
            .with_hint("a browser sends scheme, host and port, and nothing after them")
    })
}

/// The key that clients have to send.
fn key() -> Result<Option<String>, Failure> {
    let Some(key) = env::var_os(KEY).filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    let key = key.into_string().unwrap_or_default();
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()) {
        let text = format!("{KEY}: expected letters, digits and signs of ASCII, without spaces");
        return Err(Failure::new(text).with_hint(format!("unset {KEY} to serve without a key")));
    }
    Ok(Some(key))
}
