//! Whether a run can resume with a recipe: the keys that have changed since it started.

use toml::{Table, Value};

/// Keys that do not affect the result. The contents of files are compared by their hashes instead of their paths.
const FREE: &[&str] = &[
    "base.hub_name",
    "base.offload",
    "base.path",
    "base.tokenizer",
    "data.max_bad_share",
    "method.lora.convert_to_lora",
    "method.lora.from",
    "method.ia3.from",
    "method.adaption_prompt.from",
    "train.checkpoint_every",
    "train.compare_rows",
    "train.keep",
    "train.track",
];

/// Keys that change the result only by rounding.
const ROUNDING: &[&str] = &[
    "device",
    "train.micro_batch_tokens",
    "train.recompute",
    "train.share_prefixes",
];

/// The changes between two recipes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Keys that change the result by more than rounding, with both values.
    pub(crate) refused: Vec<String>,
    /// Keys that change the result only by rounding, with both values.
    pub(crate) rounding: Vec<String>,
    /// Whether the first ones may change the validation loss of the same weights; the validation rows are not looked at.
    pub(crate) alters_losses: bool,
}

/// Compares two resolved recipes.
pub(crate) fn changes(before: &Table, now: &Table) -> Changes {
    let mut all = Vec::new();
    compare("", before, now, &mut all);
    let mut changes = Changes::default();
    for (key, line) in all {
        if ROUNDING.contains(&key.as_str()) {
            changes.rounding.push(line);
        } else if !is_free(&key) {
            changes.alters_losses |= alters_losses(&key);
            changes.refused.push(line);
        }
    }
    changes
}

/// Keys of `train` say how weights come about, and those of `data` which rows there are; the seed also makes a random base model.
fn alters_losses(key: &str) -> bool {
    key == "train.seed" || !(key.starts_with("train.") || key.starts_with("data."))
}

fn is_free(key: &str) -> bool {
    let begins = |start: &str| key.starts_with(start) && key.rsplit('.').next() == Some("path");
    FREE.contains(&key)
        || key.starts_with("samples")
        || key.starts_with("data.lint")
        || key.starts_with("train.checkpoint_every.")
        || key.starts_with("train.track.")
        || begins("data.train.")
        || begins("data.validation.files.")
}

fn compare(below: &str, before: &Table, now: &Table, changes: &mut Vec<(String, String)>) {
    let added = now.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        compare_values(
            &format!("{below}{key}"),
            before.get(key),
            now.get(key),
            changes,
        );
    }
}

fn compare_values(
    key: &str,
    before: Option<&Value>,
    now: Option<&Value>,
    changes: &mut Vec<(String, String)>,
) {
    match (before, now) {
        (Some(Value::Table(before)), Some(Value::Table(now))) => {
            compare(&format!("{key}."), before, now, changes);
        }
        (Some(Value::Array(before)), Some(Value::Array(now))) if before.len() == now.len() => {
            for (place, (before, now)) in before.iter().zip(now).enumerate() {
                compare_values(&format!("{key}.{place}"), Some(before), Some(now), changes);
            }
        }
        (before, now) if before != now => {
            let shown = |value: Option<&Value>| {
                value.map_or_else(|| "not given".to_owned(), ToString::to_string)
            };
            let line = format!("{key}: was {}, is {}", shown(before), shown(now));
            changes.push((key.to_owned(), line));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_alter_the_mathematics_are_named() {
        let parse = |text: &str| text.parse::<Table>().unwrap();
        let before = parse(
            "device = 'cpu'\n[base]\npath = 'a'\noffload = 'disk'\n[data]\ntrain = [{ path = 'x', template = 'alpaca' }]\n\
             [train]\nkeep = 2\nlearning_rate = 1e-4\nmicro_batch_tokens = 64\ncheckpoint_every = 'epoch'",
        );
        let now = parse(
            "device = 'auto'\n[base]\npath = 'b'\n[data]\ntrain = [{ path = 'y', template = 'chat' }]\n\
             [train]\nkeep = 5\nlearning_rate = 2e-4\nmicro_batch_tokens = 99\ncheckpoint_every = { steps = 3 }",
        );
        let Changes {
            refused,
            rounding,
            alters_losses,
        } = changes(&before, &now);
        assert!(!alters_losses);
        assert_eq!(
            refused,
            [
                "data.train.0.template: was \"alpaca\", is \"chat\"",
                "train.learning_rate: was 0.0001, is 0.0002",
            ]
        );
        assert_eq!(
            rounding,
            [
                "device: was \"cpu\", is \"auto\"",
                "train.micro_batch_tokens: was 64, is 99"
            ]
        );
        for other in [
            "[base]\ninit = 'a'",
            "[method.lora]\nalpha = 3",
            "[train]\nseed = 3",
        ] {
            assert!(changes(&before, &parse(other)).alters_losses, "{other}");
        }
    }
}
