//! What rows say that cannot be trained on: preferences, media, and weights other than 0 and 1.

use serde_json::Value;

use super::row::Row;
use crate::conversation::{Content, Role};
use crate::error::{RowError, json_type};

/// Keys of preferences (TRL's DPO and KTO rows, LLaMA-Factory's and ms-swift's names).
const PREFERENCES: [&str; 10] = [
    "chosen",
    "rejected",
    "chosen_response",
    "rejected_response",
    "chosen_messages",
    "rejected_messages",
    "kto_tag",
    "kto_label",
    "score_chosen",
    "score_rejected",
];

/// Keys of images, audio and video.
const MEDIA: [&str; 20] = [
    "image",
    "images",
    "image_path",
    "image_paths",
    "image_url",
    "image_urls",
    "image_file",
    "image_bytes",
    "audio",
    "audios",
    "audio_path",
    "audio_url",
    "input_audio",
    "video",
    "videos",
    "video_path",
    "video_url",
    "input_image",
    "input_video",
    "pixel_values",
];

/// Keys of the weight of a row in the loss.
const WEIGHTS: [&str; 4] = ["weight", "loss_weight", "sample_weight", "loss_scale"];

/// Whether the key is one of images, audio or video.
pub(super) fn is_medium(key: &str) -> bool {
    MEDIA
        .iter()
        .any(|known| known.eq_ignore_ascii_case(key.trim_start_matches('<').trim_end_matches('>')))
}

/// Refuses a row with preferences or media.
pub(super) fn check(row: &Row) -> Result<(), RowError> {
    for (key, value) in row.entries() {
        if Row::is_blank(value) {
            continue;
        }
        let known = PREFERENCES.contains(&key);
        if known || (key == "label" && is_verdict(value)) {
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

/// Whether a label says that an answer is good or bad. CSV has text alone.
fn is_verdict(label: &Value) -> bool {
    match label {
        Value::Bool(_) => true,
        Value::String(text) => ["true", "false"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word)),
        _ => false,
    }
}

/// Applies the weight of a row: 1 changes nothing, 0 takes its answers out of the loss.
pub(super) fn weigh(row: &mut Row, content: &mut Content) -> Result<(), RowError> {
    for key in WEIGHTS {
        let Some(value) = row.take(key).filter(|value| !Row::is_blank(value)) else {
            continue;
        };
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
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
