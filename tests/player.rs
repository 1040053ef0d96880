//! A model that plays its part, for the unit tests of `crates/instruct` and `crates/judge`.

use simmer_instruct::{Completion, Completions, Finish, InstructError, Prompt, Request, Stop};

/// What a player answers to the text of a prompt and the seed of its request.
type Says<'a> = Box<dyn FnMut(&str, u64) -> Completion + 'a>;

/// Says what a function says, and remembers the prompts.
pub(crate) struct Player<'a> {
    says: Says<'a>,
    /// How many prompts it answers before it fails.
    pub(crate) left: usize,
    /// The prompts that it has answered.
    pub(crate) prompts: Vec<String>,
}

impl<'a> Player<'a> {
    pub(crate) fn new(says: impl FnMut(&str, u64) -> Completion + 'a) -> Self {
        Self {
            says: Box::new(says),
            left: usize::MAX,
            prompts: Vec::new(),
        }
    }
}

/// A completion that ends by itself.
pub(crate) fn completion(text: String) -> Completion {
    Completion {
        text,
        finish: Finish::Stop,
        prompt_tokens: None,
        completion_tokens: None,
    }
}

/// A prompt as text: of messages, a line each.
fn shown(prompt: &Prompt<'_>) -> String {
    match prompt {
        Prompt::Text(text) => (*text).to_owned(),
        Prompt::Chat(messages) => {
            let lines = messages.iter().map(|message| {
                let role = message.role.to_string();
                [&role, ": ", &message.content, "\n"].concat()
            });
            lines.collect()
        }
    }
}

impl Completions for Player<'_> {
    fn name(&self) -> String {
        "player".to_owned()
    }

    fn computes_batches(&self) -> bool {
        false
    }

    fn complete(
        &mut self,
        requests: &[Request<'_>],
        _: Stop<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError> {
        for (number, request) in requests.iter().enumerate() {
            if self.left == 0 {
                return Err(InstructError::Model("gone".to_owned()));
            }
            self.left -= 1;
            let prompt = shown(&request.prompt);
            let said = (self.says)(&prompt, request.seed);
            self.prompts.push(prompt);
            done(number, said)?;
        }
        Ok(())
    }
}
