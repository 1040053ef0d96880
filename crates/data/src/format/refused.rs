//! What rows say that cannot be trained on: preferences, media, and weights other than 0 and 1.

use serde_json::Value;

use super::row::Row;
use crate::conversation::{Content, Role};
use crate::error::{RowError, json_type};

/// Words of keys of preferences: `chosen`, `rejected_response` (TRL, LLaMA-Factory, ms-swift), `score_chosen`.
const PREFERENCES: [&str; 2] = ["chosen", "rejected"];

/// Other keys of preferences (LLaMA-Factory's KTO, BeaverTails, reward models).
const VERDICTS: [&str; 7] = [
    "kto_tag",
    "kto_label",
    "preference",
    "preferred",
    "is_preferred",
    "better_response_id",
    "safer_response_id",
];

/// Words of keys of images, audio and video.
const MEDIA: [&str; 13] = [
    "image", "images", "img", "imgs", "pixel", "audio", "audios", "wav", "wavs", "speech", "video",
    "videos", "frames",
];

/// Words that may stand beside them where the value is the medium or the place of it.
const HOLDERS: [&str; 20] = [
    "path", "paths", "url", "urls", "uri", "file", "files", "filename", "bytes", "base64", "b64",
    "data", "values", "array", "arrays", "input", "inputs", "list", "obj", "raw",
];

/// Keys of the weight of a row in the loss.
const WEIGHTS: [&str; 6] = [
    "weight",
    "loss_weight",
    "sample_weight",
    "example_weight",
    "instance_weight",
    "loss_scale",
];

/// Keys that say whether a row is trained on, if they are true or false. `loss` may also be a measured loss.
const SWITCHES: [&str; 3] = ["train", "training", "loss"];

/// Whether the key is one of images, audio or video: `image`, `imagePaths`, `input_audio`, `<video>`.
pub(super) fn is_medium(key: &str) -> bool {
    let words = words(key);
    let is_one = |known: &[&str], word: &String| known.contains(&word.as_str());
    words.iter().any(|word| is_one(&MEDIA, word))
        && words
            .iter()
            .all(|word| is_one(&MEDIA, word) || is_one(&HOLDERS, word))
}

/// Whether the key is one of preferences.
pub(super) fn is_preference(key: &str) -> bool {
    let words = words(key);
    words
        .iter()
        .any(|word| PREFERENCES.contains(&word.as_str()))
        || VERDICTS.contains(&words.join("_").as_str())
}

/// The words of a key, in lower case: `imagePaths` and `Image-Paths` are `image` and `paths`.
fn words(key: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for letter in key.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && lower) {
            words.push(String::new());
        }
        lower = letter.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphanumeric()) {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Refuses a row with preferences or media.
pub(super) fn check(row: &Row) -> Result<(), RowError> {
    for (key, value) in row.entries() {
        if Row::is_blank(value) {
            continue;
        }
        if is_preference(key) || (key == "label" && is_verdict(value)) {
            return Err(RowError::Preference { key: key.into() });
        }
        if is_medium(key) {
            return Err(RowError::Medium {
                key: key.into(),
                kind: None,
            });
        }
    }
    Ok(())
}

/// Whether a label says that an answer is good or bad.
fn is_verdict(label: &Value) -> bool {
    switch(label).is_some()
}

/// True or false; CSV has them as text.
fn switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

/// Applies the weight of a row: 1 changes nothing, 0 takes its answers out of the loss.
pub(super) fn weigh(row: &mut Row, content: &mut Content) -> Result<(), RowError> {
    let switches = SWITCHES
        .into_iter()
        .filter(|key| row.get(key).and_then(switch).is_some());
    let keys: Vec<_> = WEIGHTS.into_iter().chain(switches).collect();
    for key in keys {
        let Some(value) = row.take(key).filter(|value| !Row::is_blank(value)) else {
            continue;
        };
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if switch(&value).is_none() => text.trim().parse().ok(),
            value => switch(value).map(|on| f64::from(u8::from(on))),
        };
        match (number, &mut *content) {
            (Some(1.0), _) => {}
            (Some(0.0), Content::Messages(messages)) => {
                for message in messages {
                    if message.role == Role::Assistant {
                        message.train = Some(false);
                    }
                }
            }
            (number, _) => {
                return Err(RowError::Weight {
                    key: key.into(),
                    found: number
                        .map_or_else(|| json_type(&value).into(), |number| number.to_string()),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conversation::Message;

    #[test]
    fn keys_of_media_and_preferences_are_known_by_their_words() {
        for key in [
            "image",
            "Images",
            "<video>",
            "imagePaths",
            "image-url",
            "audio_file",
            "wav",
            "input_audio",
            "img",
            "video_files",
            "pixel_values",
            "image_base64",
        ] {
            assert!(is_medium(key), "{key}");
        }
        for key in [
            "text",
            "file",
            "image_caption",
            "video_title",
            "num_images",
            "has_audio",
            "imagination",
            "url",
        ] {
            assert!(!is_medium(key), "{key}");
        }
        for key in [
            "chosen",
            "Rejected",
            "score_chosen",
            "rejectedMessages",
            "kto_tag",
        ] {
            assert!(is_preference(key), "{key}");
        }
        for key in ["label", "score", "choice", "unchosen"] {
            assert!(!is_preference(key), "{key}");
        }
    }

    #[test]
    fn a_row_may_be_switched_off() {
        let turns = |row: serde_json::Value| {
            let mut content = Content::Messages(vec![
                Message::new(Role::User, "a"),
                Message::new(Role::Assistant, "b"),
            ]);
            let entries = row.as_object().unwrap().clone().into_iter().collect();
            weigh(&mut Row::new(entries), &mut content).map(|()| match content {
                Content::Messages(messages) => messages[1].train,
                _ => None,
            })
        };
        assert_eq!(turns(json!({"train": false})).unwrap(), Some(false));
        assert_eq!(turns(json!({"example_weight": "0"})).unwrap(), Some(false));
        assert_eq!(turns(json!({"weight": false})).unwrap(), Some(false));
        assert_eq!(turns(json!({"train": "true"})).unwrap(), None);
        // a measured loss
        assert_eq!(turns(json!({"loss": 0.0})).unwrap(), None);
        let error = turns(json!({"loss_weight": 0.5})).unwrap_err();
        assert!(error.to_string().contains("found 0.5"), "{error}");
    }
}
