//! A request that is answered: its prompts, its texts, and what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_blocking;

use crate::answer::{Piece, Reading, Spoken, read};
use crate::error::ApiError;
use crate::form::Form;
use crate::grammar::Grammar;
use crate::job::{Event, Job, Reader};
use crate::metrics::{Metrics, Ticket};
use crate::prompt::Messages;
use crate::server::{App, Served};
use crate::settings::{Settings, unforeseen};
use crate::tools::{CallForm, Hearing, Tools};
use crate::{chat, completion};

/// The two kinds of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Text,
}

/// A request whose prompts are tokenised.
pub(crate) struct Answering {
    app: Arc<App>,
    /// Which of the served models.
    model: usize,
    pub(crate) kind: Kind,
    pub(crate) settings: Settings,
    /// For how many of the most likely tokens log-probabilities are told; `None`: for none, and not for the token itself.
    pub(crate) top: Option<usize>,
    /// What each answer has to be.
    grammar: Option<Grammar>,
    /// The tools that the model may call.
    tools: Option<Tools>,
    /// The tokens of each prompt, and its text.
    prompts: Vec<(Vec<u32>, String)>,
    /// Whether an answer begins with its prompt.
    pub(crate) echo: bool,
    id: String,
    created: u64,
    began: Instant,
    /// Whether it is counted and logged.
    is_done: AtomicBool,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.prompts.is_empty() && !self.is_done.load(Ordering::Relaxed) {
            let seconds = self.began.elapsed().as_secs_f64();
            let name = &self.served().name;
            (self.app.log)(&format!("{name}: the client has gone after {seconds:.2} s"));
        }
    }
}

/// The prompts of a request.
pub(crate) struct Tokenised {
    /// The tokens of each, and its text.
    pub(crate) prompts: Vec<(Vec<u32>, String)>,
    /// What an answer has to be, beside what the settings say.
    pub(crate) form: Option<Form>,
}

/// The numbers of tokens of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    prompt: usize,
    cached: usize,
    completion: usize,
}

impl Usage {
    pub(crate) fn of_prompts(answering: &Answering) -> Self {
        Self {
            prompt: answering
                .prompts
                .iter()
                .map(|(tokens, _)| tokens.len())
                .sum(),
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, spoken: &Spoken) {
        self.cached += spoken.cached;
        self.completion += spoken.tokens;
    }

    /// Tokens of prompts that were in the cache: several answers share one prompt.
    fn cached(self) -> usize {
        self.cached.min(self.prompt)
    }

    pub(crate) fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached()},
        })
    }
}

impl Answering {
    pub(crate) fn new(app: Arc<App>, model: usize, kind: Kind, settings: Settings) -> Self {
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let start = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        Self {
            app,
            model,
            kind,
            settings,
            top: None,
            grammar: None,
            tools: None,
            prompts: Vec::new(),
            echo: false,
            id: format!("{start}-{:016x}", unforeseen()),
            created: created.as_secs(),
            began: Instant::now(),
            is_done: AtomicBool::new(false),
        }
    }

    fn served(&self) -> &Served {
        &self.app.served[self.model]
    }

    /// # Errors
    /// If a prompt leaves no room for an answer, or too many texts wait already.
    fn check(&self) -> Result<(), ApiError> {
        let context = self.served().context;
        let key = match self.kind {
            Kind::Chat => "messages",
            Kind::Text => "prompt",
        };
        // a prompt that is only scored may fill the context
        let most = if self.settings.max_tokens == Some(0) {
            context
        } else {
            context - 1
        };
        if let Some((tokens, _)) = self.prompts.iter().find(|(tokens, _)| tokens.len() > most) {
            return Err(ApiError::too_long(key, tokens.len(), context));
        }
        let most = self.app.most_texts;
        if self.choices() > most {
            let key = if self.prompts.len() > 1 {
                "prompt"
            } else {
                "n"
            };
            let found = self.choices();
            let message = format!("expected at most {most} answers to a request, found {found}");
            return Err(ApiError::of(key, message));
        }
        let waiting = self.app.metrics.texts.load(Ordering::Relaxed) as usize;
        if waiting + self.choices() > most {
            return Err(ApiError::overloaded(waiting));
        }
        Ok(())
    }

    /// Number of answers.
    pub(crate) fn choices(&self) -> usize {
        self.prompts.len() * self.settings.n
    }

    /// Hands a text to the model. Returns which prompt it continues, and where its events come from.
    pub(crate) fn submit(
        &self,
        index: usize,
    ) -> Result<(usize, UnboundedReceiver<Event>), ApiError> {
        let prompt = index / self.settings.n;
        let (tokens, _) = &self.prompts[prompt];
        let room = self.served().context - tokens.len();
        let mut sampling = self.settings.sampling.clone();
        // the numbers of the first answer are those of the seed itself
        let apart = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sampling.seed = sampling.seed.wrapping_add(apart);
        let (events, from) = unbounded_channel();
        let job = Job {
            model: self.model,
            tokens: tokens.clone(),
            max_tokens: self.settings.max_tokens.map_or(room, |most| most.min(room)),
            sampling,
            top: self.top.unwrap_or(0),
            scores_prompt: self.reading(prompt).scores_prompt(),
            grammar: self.grammar.as_ref().map(Grammar::another),
            reader: Reader {
                events,
                ticket: Ticket::new(&self.app.metrics),
            },
        };
        self.app.jobs.send(job).map_err(|_| ApiError::ending())?;
        Ok((prompt, from))
    }

    /// How the answer to a prompt is read.
    pub(crate) fn reading(&self, prompt: usize) -> Reading<'_> {
        let (tokens, text) = &self.prompts[prompt];
        Reading {
            tokenizer: &self.served().tokenizer,
            stops: &self.settings.stop,
            prompt: tokens,
            echo: self.echo.then_some(text.as_str()),
            log_probs: self.top.is_some(),
            with_specials: self.call_form().is_some_and(|form| form.is_special),
        }
    }

    /// How the model writes calls, if it may write some.
    fn call_form(&self) -> Option<&CallForm> {
        self.tools.as_ref()?;
        self.app.call_form(self.model).ok()
    }

    /// What tells the calls of an answer from its text, if it may have some.
    pub(crate) fn hearing(&self) -> Option<Hearing<'_>> {
        let tools = self.tools.as_ref()?;
        let form = self.call_form()?;
        Some(Hearing::new(form, tools.is_forced(), tools.is_single()))
    }

    async fn one(&self, index: usize) -> Result<(Value, Spoken), ApiError> {
        let (prompt, events) = self.submit(index)?;
        let mut whole = Piece::default();
        let spoken = read(events, &self.reading(prompt), &mut whole).await?;
        let spoken = spoken.ok_or_else(ApiError::ending)?;
        let log_probs = self.top.is_some();
        let mut calls = Vec::new();
        if let Some(mut hearing) = self.hearing() {
            whole.text = hearing.push(&whole.text);
            let (rest, found) = hearing.finish();
            whole.text.push_str(&rest);
            calls = found;
        }
        let choice = match self.kind {
            Kind::Chat => chat::choice(index, &whole, &calls, &spoken, log_probs),
            Kind::Text => completion::choice(index, &whole, Some(&spoken), log_probs, 0),
        };
        Ok((choice, spoken))
    }

    pub(crate) async fn all(&self) -> Result<(Response, Usage), ApiError> {
        let answers = (0..self.choices()).map(|index| self.one(index));
        let mut usage = Usage::of_prompts(self);
        let mut choices = Vec::new();
        for (choice, spoken) in try_join_all(answers).await? {
            usage.add(&spoken);
            choices.push(choice);
        }
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        };
        let mut whole = self.body(object, choices);
        whole["usage"] = usage.json();
        Ok((Json(whole).into_response(), usage))
    }

    /// A chunk of a stream.
    pub(crate) fn chunk(&self, choices: Vec<Value>) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        };
        let mut chunk = self.body(object, choices);
        if self.settings.stream_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn body(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.served().name,
            "system_fingerprint": self.served().fingerprint,
            "choices": choices,
        })
    }

    /// Counts and logs a request that has been answered.
    pub(crate) fn done(&self, usage: &Usage, failure: Option<&ApiError>) {
        self.is_done.store(true, Ordering::Relaxed);
        let metrics = &self.app.metrics;
        Metrics::add(&metrics.prompt_tokens, usage.prompt);
        Metrics::add(&metrics.cached_tokens, usage.cached());
        Metrics::add(&metrics.generated_tokens, usage.completion);
        let seconds = self.began.elapsed().as_secs_f64();
        let name = &self.served().name;
        let (prompt, cached, completion) = (usage.prompt, usage.cached(), usage.completion);
        if let Some(error) = failure {
            Metrics::add(&metrics.failed, 1);
            (self.app.log)(&format!(
                "{name}: failed after {seconds:.2} s: {}",
                error.message
            ));
            return;
        }
        (self.app.log)(&format!(
            "{name}: {} ({cached} cached) + {completion} new in {seconds:.2} s",
            if prompt == 1 {
                "1 token".to_owned()
            } else {
                format!("{prompt} tokens")
            }
        ));
    }

    /// A chat with tools, or without.
    pub(crate) async fn with_messages(
        mut self,
        messages: Messages,
        tools: Option<Tools>,
    ) -> Result<Self, ApiError> {
        self.tools.clone_from(&tools);
        self.tokenised(move |app, model| {
            let served = &app.served[model];
            let form = tools.as_ref().map(|_| app.call_form(model)).transpose()?;
            let forced = tools.as_ref().zip(form);
            let forced = forced.filter(|(tools, _)| tools.is_forced());
            let begin = forced.map_or("", |(_, form)| form.start.as_str());
            let list = tools.as_ref().map(Tools::list);
            Ok(Tokenised {
                prompts: vec![(messages.tokens(served, list, begin)?, String::new())],
                form: forced.map(|(tools, form)| tools.form(form)),
            })
        })
        .await
    }

    /// The same with its prompts and its grammar, which are read on a thread of their own: long ones take a while.
    pub(crate) async fn tokenised(
        mut self,
        prompts: impl FnOnce(&App, usize) -> Result<Tokenised, ApiError> + Send + 'static,
    ) -> Result<Self, ApiError> {
        let (app, model) = (Arc::clone(&self.app), self.model);
        let permit = Arc::clone(&app.tokenised).acquire_owned().await;
        let form = self.settings.form.clone();
        let read = spawn_blocking(move || {
            let _permit = permit;
            let Tokenised {
                prompts,
                form: forced,
            } = prompts(&app, model)?;
            let grammar = forced.or(form).map(|form| app.grammar(model, &form));
            Ok::<_, ApiError>((prompts, grammar.transpose()?))
        });
        let read = read.await;
        let read = read.map_err(|error| ApiError::internal(error.to_string()))?;
        (self.prompts, self.grammar) = read?;
        if let Err(error) = self.check() {
            // it is logged as refused
            self.is_done.store(true, Ordering::Relaxed);
            return Err(error);
        }
        Ok(self)
    }
}
