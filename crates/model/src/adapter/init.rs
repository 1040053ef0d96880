//! How the factors A and B of a low-rank branch start: PEFT's `init_lora_weights`.
//!
//! By default B is zero. PiSSA and OLoRA start at factors of the weight itself; the branch then computes the change since the
//! start ([`super::kind::PISSA`]). LoftQ and QERA start at factors of the error of a quantised weight
//! ([`super::quantisation_error`]); their branch is plain LoRA.
//!
//! Source: Meng et al. 2024 (PiSSA), equations 2 to 4; Büyükakyüz 2024 (OLoRA), section 3; PEFT 0.21 `lora/layer.py`,
//! `pissa_init` and `olora_init`.
//!
//! Axes: O output features, I input features, r rank.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decomposition::{Matrix, Truncated, first_of_qr, randomised, truncated};
use super::kind::{Kind, LORA, OLORA, PISSA};

/// How A and B start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Init {
    /// A is random and B zero, so that the branch adds nothing (`true`).
    #[default]
    Zero,
    /// The largest singular values of the weight and their vectors (`"pissa"`).
    Pissa,
    /// The same by random projection with this many iterations (`"pissa_niter_N"`).
    PissaNiter(usize),
    /// The first columns of Q and rows of R in the weight's QR decomposition (`"olora"`).
    Olora,
    /// The largest singular values of the error of a quantised weight (`"loftq"`).
    Loftq,
    /// The branch that leaves the least error of the layer's outputs for some training rows (`"qera"`).
    Qera,
}

/// The factors that a branch starts with, whose product is part of the weight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Factors {
    /// `[r, I]`
    pub(crate) a: Vec<f32>,
    /// `[O, r]`
    pub(crate) b: Vec<f32>,
}

/// The most iterations of a randomised start.
const MOST_ITERATIONS: usize = 1000;

impl Init {
    /// What `init_lora_weights` may be in a recipe.
    pub(super) const EXPECTED: &str =
        "true, \"pissa\", \"pissa_niter_N\", \"olora\", \"loftq\" or \"qera\"";

    /// A start at factors of the weight by the name in PEFT's configuration; `None` for other names.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("olora") {
            return Some(Self::Olora);
        }
        if name == "pissa" {
            return Some(Self::Pissa);
        }
        let iterations = name.strip_prefix("pissa_niter_")?.parse().ok()?;
        (iterations <= MOST_ITERATIONS).then_some(Self::PissaNiter(iterations))
    }

    /// The value of PEFT's key; every start that is not at factors of the weight counts as [`Init::Zero`].
    pub(super) fn of_peft(value: &Value) -> Self {
        let named = value.as_str().and_then(Self::named);
        named.unwrap_or_default()
    }

    /// A start by its name in a recipe.
    fn of_recipe(name: &str) -> Option<Self> {
        match name {
            "loftq" => Some(Self::Loftq),
            "qera" => Some(Self::Qera),
            name => Self::named(name),
        }
    }

    /// The value of PEFT's key. An adapter that started at an error is saved as any other: it is used as it is.
    pub(super) fn to_peft(self) -> Value {
        match self {
            Self::Zero | Self::Loftq | Self::Qera => Value::Bool(true),
            named => Value::String(named.to_string()),
        }
    }

    /// Whether it starts at factors of the weight.
    pub fn is_of_weight(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora)
    }

    /// Whether it starts at factors of the error of a quantised weight.
    pub fn is_of_error(self) -> bool {
        matches!(self, Self::Loftq | Self::Qera)
    }

    /// Whether it depends on random numbers that no file has.
    pub(super) fn is_random(self) -> bool {
        matches!(self, Self::PissaNiter(_))
    }

    /// The kind of adapter that starts so.
    pub(super) fn kind(self) -> &'static Kind {
        match self {
            Self::Zero | Self::Loftq | Self::Qera => &LORA,
            Self::Pissa | Self::PissaNiter(_) => &PISSA,
            Self::Olora => &OLORA,
        }
    }

    /// The factors of a module's weight; `None` if it does not start at them. `scale · B·A` is the part of the weight that they
    /// stand for, with OLoRA `scale` times as much.
    ///
    /// # Shapes
    /// `weight`: `[O, I]`
    pub(crate) fn factors(
        self,
        module: &str,
        weight: &[f32],
        shape: [usize; 2],
        rank: usize,
        scale: f64,
        seed: u64,
    ) -> Option<Factors> {
        let matrix = Matrix {
            values: weight,
            shape,
        };
        let found = match self {
            Self::Zero | Self::Loftq | Self::Qera => return None,
            Self::Pissa => truncated(matrix, rank),
            Self::PissaNiter(iterations) => {
                let stream = format!("{module}.pissa");
                randomised(matrix, rank, iterations, seed, &stream)
            }
            Self::Olora => {
                let [q, r] = first_of_qr(matrix, rank);
                return Some(Factors::of(&q, &r));
            }
        };
        Some(Factors::of_values(found, scale))
    }
}

impl Factors {
    /// From the columns of B and the rows of A.
    fn of(b: &[Vec<f64>], a: &[Vec<f64>]) -> Self {
        let rows = b.first().map_or(0, Vec::len);
        let b = (0..rows).flat_map(|row| b.iter().map(move |column| column[row] as f32));
        Self {
            b: b.collect(),
            a: a.iter().flatten().map(|value| *value as f32).collect(),
        }
    }

    /// `√(σ/s)` of each pair of vectors on either side.
    pub(super) fn of_values(mut found: Truncated, scale: f64) -> Self {
        let sides = found.left.iter_mut().zip(&mut found.right);
        for ((left, right), value) in sides.zip(&found.values) {
            let root = (value / scale).sqrt();
            for value in left.iter_mut().chain(right) {
                *value *= root;
            }
        }
        Self::of(&found.left, &found.right)
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("true"),
            Self::Pissa => f.write_str("pissa"),
            Self::PissaNiter(iterations) => write!(f, "pissa_niter_{iterations}"),
            Self::Olora => f.write_str("olora"),
            Self::Loftq => f.write_str("loftq"),
            Self::Qera => f.write_str("qera"),
        }
    }
}

impl Serialize for Init {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Zero => serializer.serialize_bool(true),
            named => serializer.collect_str(named),
        }
    }
}

impl schemars::JsonSchema for Init {
    fn schema_name() -> Cow<'static, str> {
        "Init".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "const": true },
                { "type": "string", "pattern": "^(pissa|pissa_niter_[0-9]+|olora|loftq|qera)$" }
            ]
        })
    }
}

impl<'de> Deserialize<'de> for Init {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InitVisitor;

        impl Visitor<'_> for InitVisitor {
            type Value = Init;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Init::EXPECTED)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Init, E> {
                if value {
                    return Ok(Init::Zero);
                }
                Err(E::custom(format!(
                    "expected {}, found false: with a random B the model would not start as the base model",
                    Init::EXPECTED
                )))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Init, E> {
                let expected = Init::EXPECTED;
                Init::of_recipe(name)
                    .ok_or_else(|| E::custom(format!("expected {expected}, found \"{name}\"")))
            }
        }

        deserializer.deserialize_any(InitVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_peft() {
        for (name, init) in [
            ("pissa", Init::Pissa),
            ("pissa_niter_16", Init::PissaNiter(16)),
            ("olora", Init::Olora),
        ] {
            assert_eq!(Init::named(name), Some(init));
            assert_eq!(init.to_peft(), name);
            assert_eq!(Init::of_peft(&init.to_peft()), init);
        }
        for name in ["", "PiSSA", "pissa_niter_", "pissa_niter_-1", "gaussian"] {
            assert_eq!(Init::named(name), None, "{name}");
        }
        assert_eq!(Init::of_peft(&Value::Bool(false)), Init::Zero);
    }

    #[test]
    fn factors_stand_for_a_part_of_the_weight() {
        // singular values 4, 2 and 1, of unit vectors
        let weight = [0.0, 2.0, 0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let product = |init: Init, scale: f64| {
            let Factors { a, b } = init
                .factors("q_proj", &weight, [3, 3], 2, scale, 7)
                .unwrap();
            let element = |at: usize| {
                let (row, column) = (at / 3, at % 3);
                (0..2)
                    .map(|k| f64::from(b[row * 2 + k]) * f64::from(a[k * 3 + column]) * scale)
                    .sum::<f64>()
            };
            (0..9).map(element).collect::<Vec<f64>>()
        };
        let largest = [0.0, 2.0, 0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        for (init, scale) in [
            (Init::Pissa, 2.0),
            (Init::PissaNiter(20), 0.5),
            // the first two columns of Q span the same
            (Init::Olora, 1.0),
        ] {
            for (found, expected) in product(init, scale).iter().zip(largest) {
                // f32 factors of the order of one
                assert!((found - expected).abs() < 1e-5, "{init}: {found}");
            }
        }
    }
}
