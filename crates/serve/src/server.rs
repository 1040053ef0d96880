//! The server: its models, its address, and its thread.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::{io, thread};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use simmer_data::{Template, Tokenizer};
use tokio::runtime::Builder;
use tokio::sync::{Notify, Semaphore};

use crate::error::{ApiError, ServeError};
use crate::form::Form;
use crate::grammar::{Grammar, Grammars};
use crate::job::Job;
use crate::metrics::Metrics;
use crate::routes;
use crate::tools::CallForm;

/// The most bytes of a request.
pub(crate) const BODY_BYTES: usize = 16 << 20;
/// How many requests are tokenised at the same time: a long text takes memory meanwhile.
const TOKENISED: usize = 2;

/// A model as clients see it.
#[derive(Debug)]
pub struct Served {
    /// The name by which requests choose it.
    pub name: String,
    /// Where it is: a folder, a file, or a name on the hub.
    pub root: String,
    /// The name of the base model, if this one is an adapter of it.
    pub parent: Option<String>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// What conversations are rendered with, or why there is nothing.
    pub template: Result<Template, String>,
    /// Tokens of the context.
    pub context: usize,
    /// Number of tokens of the vocabulary.
    pub vocabulary: usize,
    /// The tokens that end a text.
    pub eos: Vec<u32>,
    /// Bytes of the longest token, as the vocabulary spells it.
    pub longest_token: usize,
    /// Differs if the weights or the arithmetic do.
    pub fingerprint: String,
    /// When the server began, in seconds since 1970.
    pub created: u64,
}

/// Settings of requests that do not name them.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// Divides the logits.
    pub temperature: f64,
    /// Sample among the fewest tokens whose probabilities add up to it.
    pub top_p: f64,
    /// Sample among so many of the most likely tokens; 0: among all.
    pub top_k: usize,
    /// Penalty on tokens in the text; 1: none.
    pub repetition_penalty: f64,
}

impl Default for Defaults {
    /// Those of OpenAI's API.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            repetition_penalty: 1.0,
        }
    }
}

/// How a server is set up.
pub struct Setup {
    /// The models, the first of which answers requests without a name if it is the only one.
    pub served: Vec<Served>,
    /// Settings of requests that do not name them.
    pub defaults: Defaults,
    /// The key that clients have to send.
    pub key: Option<String>,
    /// The origin of the pages of other servers that may send requests from a browser, or `*`.
    pub allowed_origin: Option<HeaderValue>,
    /// The most texts that are continued or wait.
    pub most_texts: usize,
    /// Gets a line for each request.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
}

/// What the handlers of requests share.
pub(crate) struct App {
    pub(crate) served: Vec<Served>,
    /// For each of them what makes grammars, from the first request on that asks for one.
    grammars: Vec<OnceLock<Result<Grammars, String>>>,
    /// For each of them how it writes calls of tools, from the first request on that has some.
    call_forms: Vec<OnceLock<Result<CallForm, String>>>,
    pub(crate) defaults: Defaults,
    key: Option<String>,
    allowed_origin: Option<HeaderValue>,
    pub(crate) most_texts: usize,
    pub(crate) log: Box<dyn Fn(&str) + Send + Sync>,
    pub(crate) jobs: Sender<Job>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tokenised: Arc<Semaphore>,
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: JoinHandle<io::Result<()>>,
}

impl Served {
    /// What conversations are rendered with.
    pub(crate) fn template(&self) -> Result<&Template, ApiError> {
        self.template.as_ref().map_err(|why| {
            let name = &self.name;
            ApiError::bad(format!(
                "the model `{name}` cannot chat: {why}; use /v1/completions, or start the server with --template NAME"
            ))
        })
    }

    /// Refuses a text that cannot be shorter than the context, before it is tokenised: that takes long, and much memory.
    pub(crate) fn check_length(&self, key: &str, text: &str) -> Result<(), ApiError> {
        if text.len() / self.longest_token.max(1) > self.context {
            return Err(ApiError::text_too_long(key, text.len(), self.context));
        }
        Ok(())
    }

    /// As the list of models has it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "simmer",
            "root": self.root,
            "parent": self.parent,
            "max_model_len": self.context,
        })
    }
}

impl App {
    /// The model of this name; without a name the only one.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<usize, ApiError> {
        let names = || {
            self.served
                .iter()
                .map(|served| served.name.as_str())
                .collect::<Vec<_>>()
        };
        match name {
            Some(name) => {
                let found = self.served.iter().position(|served| served.name == name);
                found.ok_or_else(|| ApiError::no_model(name, &names()))
            }
            None if self.served.len() == 1 => Ok(0),
            None => {
                let names = names().join("`, `");
                Err(ApiError::of(
                    "model",
                    format!("missing; expected one of: `{names}`"),
                ))
            }
        }
    }

    /// What limits the answers of a model to a form.
    pub(crate) fn grammar(&self, model: usize, form: &Form) -> Result<Grammar, ApiError> {
        let served = &self.served[model];
        let grammars =
            self.grammars[model].get_or_init(|| Grammars::new(&served.tokenizer, &served.eos));
        let failed = |problem: String| ApiError::of(&form.key, problem);
        let grammars = grammars
            .as_ref()
            .map_err(|problem| failed(problem.clone()))?;
        grammars.grammar(&form.kind).map_err(failed)
    }
}

impl App {
    /// How a model writes calls.
    pub(crate) fn call_form(&self, model: usize) -> Result<&CallForm, ApiError> {
        let served = &self.served[model];
        let template = served.template()?;
        let form = &self.call_forms[model];
        let form = form.get_or_init(|| CallForm::of(template, &served.tokenizer));
        form.as_ref().map_err(|why| {
            let name = &served.name;
            ApiError::of(
                "tools",
                format!("the model `{name}` cannot call tools: {why}"),
            )
        })
    }
}

impl Server {
    /// Answers the requests of a listener on a thread of its own; texts to continue go to `jobs`.
    ///
    /// # Errors
    /// [`ServeError::Accept`] if the listener or the thread fails.
    pub fn start(
        setup: Setup,
        listener: TcpListener,
        jobs: Sender<Job>,
    ) -> Result<Self, ServeError> {
        let failed = ServeError::Accept;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let app = Arc::new(App {
            call_forms: setup.served.iter().map(|_| OnceLock::new()).collect(),
            grammars: setup.served.iter().map(|_| OnceLock::new()).collect(),
            served: setup.served,
            defaults: setup.defaults,
            key: setup.key,
            allowed_origin: setup.allowed_origin,
            most_texts: setup.most_texts,
            log: setup.log,
            jobs,
            metrics: Arc::new(Metrics::default()),
            tokenised: Arc::new(Semaphore::new(TOKENISED)),
        });
        let thread = thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                let runtime = Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .build()?;
                runtime.block_on(async move {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let ended = async move { stopped.notified().await };
                    axum::serve(listener, router(app))
                        .with_graceful_shutdown(ended)
                        .await
                })
            });
        Ok(Self {
            address,
            stop,
            thread: thread.map_err(ServeError::Accept)?,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections. Requests that are being answered are answered to their ends.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Whether the last request is answered, after [`Server::stop`], or the server has failed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// [`ServeError::Accept`] if the server has failed.
    pub fn join(self) -> Result<(), ServeError> {
        match self.thread.join() {
            Ok(ended) => ended.map_err(ServeError::Accept),
            Err(_) => Err(ServeError::Accept(io::Error::other(
                "the thread of the server has panicked",
            ))),
        }
    }
}

/// Opens an address of this machine; port 0 is any free one. Connections wait until a server is started on it.
///
/// # Errors
/// [`ServeError::Listen`] if it cannot be opened.
pub fn listen(host: &str, port: u16) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen {
        address: format!("{host}:{port}"),
        source,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, port).to_socket_addrs().map_err(failed)?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    TcpListener::bind(&addresses[..]).map_err(failed)
}

fn router(app: Arc<App>) -> Router {
    let mut guarded = Router::new();
    // clients are set up with and without `/v1`, and with a slash at the end
    for (begin, end) in [("/v1", ""), ("/v1", "/"), ("", ""), ("", "/")] {
        let path = |name: &str| format!("{begin}/{name}{end}");
        guarded = guarded
            .route(&path("chat/completions"), post(routes::chat_completions))
            .route(&path("completions"), post(routes::completions))
            .route(&path("models"), get(routes::models));
    }
    let guarded = guarded
        .route("/v1/models/{*name}", get(routes::model))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), with_key));
    Router::new()
        .merge(guarded)
        .route("/health", get(routes::health))
        .route("/metrics", get(routes::metrics))
        .fallback(routes::nowhere)
        .method_not_allowed_fallback(routes::other_method)
        .layer(from_fn_with_state(Arc::clone(&app), for_browsers))
        .with_state(app)
}

/// Lets requests pass that have the key.
async fn with_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if let Some(key) = &app.key
        && !has_key(request.headers(), key)
    {
        Metrics::add(&app.metrics.requests, 1);
        Metrics::add(&app.metrics.failed, 1);
        (app.log)("refused (401): without the key");
        return ApiError::no_key().into_response();
    }
    next.run(request).await
}

/// Whether a request has the key. Takes as long for a wrong key as for the right one.
fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().split_at_checked(7));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let given = given.map_or(&b""[..], |(_, given)| given);
    let differs = given
        .iter()
        .zip(key.as_bytes())
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == key.len() && differs == 0
}

/// Lets the pages of other servers send requests, if they may.
///
/// Source: WHATWG, Fetch, section 3.3 (CORS).
async fn for_browsers(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(origin) = &app.allowed_origin else {
        return next.run(request).await;
    };
    let asks_first = request.method() == Method::OPTIONS;
    let asked = request
        .headers()
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.cloned();
    let mut response = if asks_first {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if asks_first {
        let methods = HeaderValue::from_static("GET, POST");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        // OpenAI's package for browsers sends some of its own
        let usual = HeaderValue::from_static("Authorization, Content-Type");
        let allowed = asked.unwrap_or(usual);
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("600"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}
