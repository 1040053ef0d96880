//! `simmer chat`: a conversation.

mod input;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use simmer_data::example::prompt_tokens;
use simmer_data::{Conversation, Message, Role, Template};
use simmer_files::size::counted;
use simmer_model::{KvCache, Sampling, Stop};

use super::generate::AnswerArgs;
use crate::failure::Failure;
use crate::loaded::{Loaded, ModelArgs};
use crate::{interrupt, output};
use input::{COMMANDS, HELP, Input, Typed, command};

/// Chat with a model
///
/// Type a message and press Enter; a line that ends with `\` continues on the next one. The arrow keys edit the line and
/// recall earlier messages, which are kept in memory only. `/help` lists the commands. Ctrl-C ends an answer; at the
/// prompt, twice Ctrl-C or Ctrl-D ends the program. Without a terminal, messages are read line by line, so a file can be
/// piped in.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer chat --base HuggingFaceTB/SmolLM2-135M-Instruct
  simmer chat --base data/tiny-base --adapter runs/quickstart/adapter --system 'Be brief.'")]
pub(crate) struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompt template; `chat` is the chat template of the model. Default: the one that the adapter was trained with,
    /// else `chat`
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    answer: AnswerArgs,
}

/// A conversation with a model.
struct Talk<'a> {
    loaded: &'a Loaded,
    template: &'a Template,
    sampling: Sampling,
    max_new_tokens: usize,
    system: Option<&'a str>,
    messages: Vec<Message>,
    seen: Seen,
    /// Set by Ctrl-C while `answering`.
    stop: Arc<AtomicBool>,
    answering: Arc<AtomicBool>,
}

impl Chat {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let sampling = self.answer.sampling()?;
        let loaded = self.model.load()?;
        let template = match loaded.prompt_template(self.template.as_deref())? {
            Some(template) => template,
            None => loaded.template("chat")?,
        };
        let answering = Arc::new(AtomicBool::new(false));
        let mut talk = Talk {
            loaded: &loaded,
            template: &template,
            sampling,
            max_new_tokens: self.answer.max_new_tokens,
            system: self.system.as_deref(),
            messages: Vec::new(),
            seen: Seen::default(),
            stop: interrupt::flag_of_ctrl_c(Arc::clone(&answering)),
            answering,
        };
        talk.reset();
        talk.check_system()?;
        talk.run(&mut Input::new()?)
    }
}

impl Talk<'_> {
    /// Refuses a system message for which the template has no place, before the first message.
    fn check_system(&self) -> Result<(), Failure> {
        if self.system.is_some() {
            let mut first = self.messages.clone();
            first.push(Message::new(Role::User, "Hello"));
            self.template.prompt(&Conversation::chat(first))?;
        }
        Ok(())
    }

    fn run(&mut self, input: &mut Input) -> Result<(), Failure> {
        if input.is_interactive() {
            output::note("Type a message. /help lists the commands.");
        }
        let mut interrupted = false;
        loop {
            let typed = input.read()?;
            if matches!(typed, Typed::Interrupted) && !interrupted {
                interrupted = true;
                output::note("Ctrl-C again, Ctrl-D or /quit ends the program.");
                continue;
            }
            interrupted = false;
            let text = match typed {
                Typed::End | Typed::Interrupted => return Ok(()),
                Typed::Text(text) => text,
            };
            match command(&text) {
                Ok("") => {}
                Ok(message) => {
                    let said = self.say(message);
                    match said {
                        Err(failure) if input.is_interactive() => failure.report(),
                        said => said?,
                    }
                }
                Err("/quit") => return Ok(()),
                Err("/reset") => self.reset(),
                Err("/help") => output::note(HELP),
                Err(unknown) => output::note(&format!(
                    "error: unknown command `{unknown}`; commands: {}\n\
                     hint: to send a message that begins with `/`, type `//`",
                    COMMANDS.join(", ")
                )),
            }
        }
    }

    /// Starts a new conversation.
    fn reset(&mut self) {
        let system = self.system.into_iter();
        self.messages = system
            .map(|text| Message::new(Role::System, text))
            .collect();
    }

    /// Sends a message and shows the answer. After an error the conversation is as before.
    fn say(&mut self, message: &str) -> Result<(), Failure> {
        let before = self.messages.len();
        self.messages.push(Message::new(Role::User, message));
        let answered = self.answer();
        if answered.is_err() {
            self.messages.truncate(before);
            self.seen = Seen::default();
        }
        answered
    }

    fn answer(&mut self) -> Result<(), Failure> {
        let prompt = self.prompt()?;
        let mut text = String::new();
        let mut show = |piece: &str| -> Result<(), Failure> {
            text.push_str(piece);
            output::answer(piece)?;
            if self.stop.load(Ordering::SeqCst) {
                return Err(Failure::new("interrupted"));
            }
            Ok(())
        };
        self.answering.store(true, Ordering::SeqCst);
        let answer = self.loaded.answer(
            &prompt,
            self.seen.for_prompt(&prompt),
            self.max_new_tokens,
            &self.sampling,
            &mut show,
        );
        self.answering.store(false, Ordering::SeqCst);
        let stopped = self.stop.swap(false, Ordering::SeqCst);
        output::line("")?;
        let answer = match answer {
            Err(_) if stopped => {
                output::note("(stopped; the conversation goes on after these words)");
                self.seen = Seen::default();
                self.messages.push(Message::new(Role::Assistant, &text));
                return Ok(());
            }
            answer => answer?,
        };
        self.seen.remember(&prompt, &answer.tokens);
        if answer.stop == Stop::Context {
            output::note(
                "The conversation has filled the context of the model; /reset starts a new one.",
            );
        }
        let text = text_of(self.loaded, &answer.tokens)?;
        self.messages.push(Message::new(Role::Assistant, text));
        Ok(())
    }

    /// The tokens of the conversation so far.
    fn prompt(&self) -> Result<Vec<u32>, Failure> {
        let has_answer = self
            .messages
            .iter()
            .any(|turn| turn.role == Role::Assistant);
        let conversation = Conversation::chat(self.messages.clone());
        let prompt = self.template.prompt(&conversation).map_err(|error| {
            let failure = Failure::from(error);
            if has_answer {
                failure.with_hint(
                    "type /reset first: this template may have room for one question only",
                )
            } else {
                failure
            }
        })?;
        let tokens = prompt_tokens(&prompt, &self.loaded.tokenizer)?;
        let limit = self.loaded.model.config().max_position_embeddings;
        if has_answer && tokens.len() > limit {
            let text = format!(
                "the conversation has {} with this message, the model takes {limit} (max_position_embeddings)",
                counted(tokens.len(), "token")
            );
            return Err(Failure::new(text).with_hint("/reset starts a new conversation"));
        }
        Ok(tokens)
    }
}

fn text_of(loaded: &Loaded, tokens: &[u32]) -> Result<String, Failure> {
    Ok(loaded.tokenizer.decode(tokens, true)?)
}

/// The KV cache of the conversation so far, and its tokens.
#[derive(Default)]
struct Seen {
    tokens: Vec<u32>,
    cache: KvCache,
}

impl Seen {
    /// The cache; emptied if the new prompt does not start with the cached tokens (a template may
    /// render earlier turns differently).
    fn for_prompt(&mut self, prompt: &[u32]) -> &mut KvCache {
        let held = &self.tokens[..self.cache.len().min(self.tokens.len())];
        if !prompt.starts_with(held) {
            self.cache = KvCache::default();
        }
        &mut self.cache
    }

    fn remember(&mut self, prompt: &[u32], answer: &[u32]) {
        self.tokens = [prompt, answer].concat();
    }
}
