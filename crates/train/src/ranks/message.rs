//! What rank 0 tells the others: that trained tensors follow, and micro-batches to compute.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use simmer_data::MicroBatch;

use super::RanksError;

/// What rank 0 sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// The GPUs of all ranks are connected now: NCCL's id.
    Gpus(Vec<u8>),
    /// The trained tensors have changed; they follow, from the rank above or between GPUs: one buffer in f32.
    Weights,
    /// A share of a step: compute its gradient.
    Step(Share),
    /// Micro-batches to measure the loss of, each alone.
    Measure(Vec<Part>),
    /// The run has ended.
    End,
}

/// The share of a step for one rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// The factor of all losses, `1 / labels of the step`, as bits.
    pub(crate) factor: u64,
    /// The micro-batches of each rank.
    pub(crate) shares: Vec<Range<usize>>,
    /// Those of this rank.
    pub(crate) parts: Vec<Part>,
}

/// A micro-batch with the keys of its dropout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) micro_batch: MicroBatch,
    pub(crate) dropout_keys: Option<Vec<u64>>,
}

const WEIGHTS: u8 = 1;
const STEP: u8 = 2;
const MEASURE: u8 = 3;
const END: u8 = 4;
const GPUS: u8 = 5;

impl Message {
    /// A byte that says what it is, then the rest: numbers as they are, or JSON.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let tagged = |tag: u8, json: serde_json::Result<Vec<u8>>| {
            // numbers and lists always have a text
            [vec![tag], json.unwrap_or_default()].concat()
        };
        match self {
            Self::Gpus(id) => [&[GPUS], &id[..]].concat(),
            Self::Weights => vec![WEIGHTS],
            Self::Step(share) => tagged(STEP, serde_json::to_vec(share)),
            Self::Measure(parts) => tagged(MEASURE, serde_json::to_vec(parts)),
            Self::End => vec![END],
        }
    }

    /// # Errors
    /// Bytes that [`Message::encode`] does not write.
    pub(crate) fn decode(bytes: &[u8], from: usize) -> Result<Self, RanksError> {
        let wrong = |why: String| RanksError::Message { rank: from, why };
        let json = |error: serde_json::Error| wrong(error.to_string());
        match bytes.split_first() {
            Some((&GPUS, id)) => Ok(Self::Gpus(id.to_vec())),
            Some((&WEIGHTS, [])) => Ok(Self::Weights),
            Some((&STEP, text)) => Ok(Self::Step(serde_json::from_slice(text).map_err(json)?)),
            Some((&MEASURE, text)) => {
                Ok(Self::Measure(serde_json::from_slice(text).map_err(json)?))
            }
            Some((&END, [])) => Ok(Self::End),
            Some((tag, rest)) => Err(wrong(format!("tag {tag} with {} bytes", rest.len()))),
            None => Err(wrong("nothing".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives() {
        let part = Part {
            micro_batch: MicroBatch {
                tokens: vec![1, 2, 3],
                targets: vec![2, -100, -100],
                rows: vec![0, 2, 3],
                positions: vec![0, 1, 0],
                examples: vec![4, 0],
            },
            dropout_keys: Some(vec![u64::MAX, 7, 0]),
        };
        let share = Share {
            factor: (1.0 / 3.0_f64).to_bits(),
            shares: vec![0..1, 1..1],
            parts: vec![part.clone()],
        };
        for message in [
            Message::Gpus(vec![7, 0, 255]),
            Message::Weights,
            Message::Step(share),
            Message::Measure(vec![part]),
            Message::End,
        ] {
            assert_eq!(Message::decode(&message.encode(), 0), Ok(message));
        }
        for wrong in [
            &[][..],
            &[9],
            &[STEP, b'x'],
            &[END, 1],
            &[WEIGHTS, 0, 0, 0, 0],
        ] {
            let error = Message::decode(wrong, 3).unwrap_err();
            assert!(
                matches!(error, RanksError::Message { rank: 3, .. }),
                "{error}"
            );
        }
    }
}
