//! `simmer chat`: a conversation.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use simmer_data::example::prompt_tokens;
use simmer_data::{Conversation, Message, Role};
use simmer_model::{KvCache, Stop};

use super::generate::AnswerArgs;
use crate::failure::Failure;
use crate::loaded::{Loaded, ModelArgs};
use crate::output;

/// Chat with a model
///
/// Type a message and press Enter. `/reset` starts a new conversation; `/quit` or the end of the input
/// ends the program. Messages are read line by line, so a file can be piped in.
#[derive(Debug, Args)]
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

impl Chat {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let sampling = self.answer.sampling()?;
        let loaded = self.model.load()?;
        let template = match loaded.prompt_template(self.template.as_deref())? {
            Some(template) => template,
            None => loaded.template("chat")?,
        };
        let start = || -> Vec<Message> {
            let system = self.system.iter();
            system
                .map(|text| Message::new(Role::System, text))
                .collect()
        };
        if self.system.is_some() {
            // refused before the first message, if the template has no place for it
            let mut first = start();
            first.push(Message::new(Role::User, "Hello"));
            template.prompt(&Conversation::chat(first))?;
        }
        let mut messages = start();
        let mut cache = Seen::default();
        let interactive = io::stdin().is_terminal();
        if interactive {
            output::note(
                "Type a message. /reset starts a new conversation, /quit ends the program.",
            );
        }
        loop {
            if interactive {
                output::print("> ")?;
            }
            let mut line = String::new();
            if io::stdin().lock().read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim() {
                "" => continue,
                "/quit" => return Ok(()),
                "/reset" => {
                    messages = start();
                    continue;
                }
                text => messages.push(Message::new(Role::User, text)),
            }
            let prompt = template.prompt(&Conversation::chat(messages.clone()))?;
            let prompt = prompt_tokens(&prompt, &loaded.tokenizer)?;
            let answer = loaded.answer(
                &prompt,
                cache.for_prompt(&prompt),
                self.answer.max_new_tokens,
                &sampling,
                &mut output::print,
            )?;
            output::line("")?;
            cache.remember(&prompt, &answer.tokens);
            if answer.stop == Stop::Context {
                output::note(
                    "The conversation has filled the context of the model; /reset starts a new one.",
                );
            }
            messages.push(Message::new(
                Role::Assistant,
                text_of(&loaded, &answer.tokens)?,
            ));
        }
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
