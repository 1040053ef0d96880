//! What a user can do with a finished run: commands to copy.

use std::path::Path;

use simmer_train::Recipe;

use super::quoted;

/// The prompt of the command, if the recipe has none.
const PROMPT: &str = "What can you do?";

/// The next commands after a run in the folder `out`.
pub(super) fn next(recipe: &Recipe, out: &Path, weights: &Path) -> String {
    let word = |path: &Path| quoted(&path.display().to_string());
    let mut lines = vec![
        "\nnext:".to_owned(),
        format!("  simmer report {}", word(out)),
    ];
    let prompts = recipe.samples.iter().flat_map(|samples| &samples.prompts);
    let prompt = prompts.map(String::as_str).next().unwrap_or(PROMPT);
    let system = recipe.samples.as_ref();
    let system = system.and_then(|samples| samples.system.as_deref());
    let system = system.map_or_else(String::new, |text| format!("--system {} ", quoted(text)));
    let prompt = format!("{system}--prompt {}", quoted(prompt));
    match (recipe.method.adapter(), &recipe.base.path) {
        (None, _) => lines.push(format!(
            "  simmer generate --base {}{} {prompt}",
            word(weights),
            template(recipe)
        )),
        (Some(table), Some(base)) => {
            let model = format!("--base {} --adapter {}", word(base), word(weights));
            lines.push(format!("  simmer generate {model} {prompt}"));
            if table.kind().cannot_merge.is_none() {
                let merged = word(&out.join("merged"));
                lines.push(format!("  simmer merge {model} --out {merged}"));
            }
        }
        // an adapter of random weights, which are not on disk
        (Some(_), None) => {}
    }
    lines.join("\n")
}

/// How to publish the adapter: an adapter on the hub needs the name that its base model has there. `again` is the command that
/// resumes the run.
pub(super) fn publish(recipe: &Recipe, weights: &Path, again: &str) -> Option<String> {
    let (Some(_), Some(base)) = (recipe.method.adapter(), &recipe.base.path) else {
        return None;
    };
    Some(match recipe.base.on_hub() {
        Some(_) => {
            let weights = quoted(&weights.display().to_string());
            format!("to publish the adapter: hf upload ORG/NAME {weights}")
        }
        None => format!(
            "before publishing the adapter, name its base model on the hub; base_model is now a path of this machine, {}:\n  \
             {again} --set base.hub_name=ORG/NAME",
            base.display()
        ),
    })
}

/// The option for the template of the training, which a model's folder does not name; an adapter's does.
fn template(recipe: &Recipe) -> String {
    let of_samples = recipe.samples.as_ref();
    let of_samples = of_samples.and_then(|samples| samples.template.as_deref());
    let of_data = recipe.data.train.first();
    let of_data = of_data.map(|source| source.template.as_str());
    match of_samples.or(of_data) {
        None | Some("completion") => String::new(),
        Some("chat") => " --chat".to_owned(),
        Some(name) => format!(" --template {}", quoted(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let recipe = Recipe::parse(Path::new("r.toml"), text, &[]).unwrap();
        next(&recipe, Path::new("my runs/a"), Path::new("my runs/a/w"))
    }

    #[test]
    fn an_adapter_is_published_with_its_bases_name() {
        let said = |base: &str| {
            let text = format!(
                "[base]\n{base}\n[method.lora]\n[data]\ntrain = [{{ path = 'x.jsonl', template = 'alpaca' }}]\n\
                 max_tokens = 64\n[train]\nepochs = 1\nbatch_size = 1\nlearning_rate = 1e-3\n"
            );
            let recipe = Recipe::parse(Path::new("r.toml"), &text, &[]).unwrap();
            publish(
                &recipe,
                Path::new("runs/a/adapter"),
                "simmer train r.toml --resume",
            )
            .unwrap()
        };
        insta::assert_snapshot!(said("path = './base'"), @"
        before publishing the adapter, name its base model on the hub; base_model is now a path of this machine, ./base:
          simmer train r.toml --resume --set base.hub_name=ORG/NAME
        ");
        let known = "to publish the adapter: hf upload ORG/NAME runs/a/adapter";
        assert_eq!(said("path = 'hf://org/base@v1'"), known);
        assert_eq!(said("path = './base'\nhub_name = 'org/base'"), known);
    }

    #[test]
    fn the_next_commands_can_be_copied() {
        let lora = |base: &str, more: &str| {
            let data =
                "[data]\ntrain = [{ path = 'x.jsonl', template = 'alpaca' }]\nmax_tokens = 64\n";
            let train = "[train]\nepochs = 1\nbatch_size = 1\nlearning_rate = 1e-3\n";
            of(&format!(
                "[base]\n{base}\n[method.lora]\n{data}{train}{more}"
            ))
        };
        let samples = "[samples]\nprompts = [\"What's that?\"]\n";
        let full = "[base]\npath = 'a'\n[method.full]\n[data]\n\
            train = [{ path = 'x.jsonl', template = 'chat' }]\nmax_tokens = 64\n\
            [train]\nepochs = 1\nbatch_size = 1\nlearning_rate = 1e-3\n";
        let said = [
            lora("path = 'org/base'", samples),
            lora("path = './my base'", ""),
            of(full),
        ];
        insta::assert_snapshot!(said.join("\n"), @r"

        next:
          simmer report 'my runs/a'
          simmer generate --base org/base --adapter 'my runs/a/w' --prompt 'What'\''s that?'
          simmer merge --base org/base --adapter 'my runs/a/w' --out 'my runs/a/merged'

        next:
          simmer report 'my runs/a'
          simmer generate --base './my base' --adapter 'my runs/a/w' --prompt 'What can you do?'
          simmer merge --base './my base' --adapter 'my runs/a/w' --out 'my runs/a/merged'

        next:
          simmer report 'my runs/a'
          simmer generate --base 'my runs/a/w' --chat --prompt 'What can you do?'
        ");
    }
}
