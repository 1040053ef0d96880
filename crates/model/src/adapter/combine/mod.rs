//! Combines adapters of one base model into one LoRA adapter: `Δ = Σ wᵢ Δᵢ`, or one of the methods that drop a part of each
//! Δᵢ first, on the exact updates `Δᵢ = sᵢ·Bᵢ·Aᵢ` of each module.
//!
//! PEFT's `add_weighted_adapter` applies most of these methods to A and to B apart, which also mixes A of one adapter
//! with B of another; its variants in `_svd` work on updates, as everything here does. Ranks and targets may differ:
//! an adapter without a branch beside a module changes nothing there.
//!
//! Every branch of the result has the same rank r and scale 1 (`lora_alpha` = r): smaller ones are filled up with zeros, so that
//! programs that do not read `rank_pattern` take the file.
//!
//! Axes: O output features, I input features, r rank, R sum of the ranks of all adapters.

mod dense;
mod error;
mod method;
mod product;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use rayon::prelude::*;
use serde::Serialize;
use simmer_checkpoint::Dtype;
use simmer_files::Existing;

pub use self::error::CombineError;
pub use self::method::{MajoritySign, Method};
use self::product::Product;
use self::sources::{Branch, Sources};
use super::AdapterError;
use super::card::Card;
use super::config::AdapterConfig;
use super::decomposition::Truncated;
use super::kind;
use super::limits::{Limit, limits};
use super::peft::{AdapterFolder, KEY_PREFIX};
use super::spectrum::norm;

/// An adapter and its weight in a combination.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedAdapter {
    /// Its folder.
    pub folder: PathBuf,
    /// Its weight; it may be negative.
    pub weight: f64,
}

impl WeightedAdapter {
    /// An adapter as it is, with weight 1.
    pub fn whole(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            weight: 1.0,
        }
    }
}

/// How adapters are combined.
#[derive(Debug, Clone, PartialEq)]
pub struct CombineOptions {
    /// What is computed from the updates.
    pub method: Method,
    /// The rank of the result. `None`: the default of the method.
    pub rank: Option<usize>,
    /// The share of the elements of each update that is kept, of methods that drop the others.
    pub density: Option<f64>,
    /// How the sign of an element is elected, of methods that elect one. `None`: that of the sum.
    pub majority_sign: Option<MajoritySign>,
    /// The seed of what is random. `None`: 0.
    pub seed: Option<u64>,
    /// A randomised decomposition with this many iterations instead of the exact one.
    pub iterations: Option<usize>,
    /// Dtype of the written factors: F32, F16 or BF16.
    pub dtype: Dtype,
}

/// A combined adapter.
#[derive(Debug)]
pub struct Combined {
    config: AdapterConfig,
    tensors: BTreeMap<String, TensorData>,
    card: Card,
    /// What became of each module.
    pub modules: Vec<CombinedModule>,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
}

/// A module of a combined adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CombinedModule {
    /// Its module path.
    pub module: String,
    /// The rank of its branch in each adapter; 0 without a branch.
    pub ranks: Vec<usize>,
    /// The rank of its branch in the result, without zeros.
    pub rank: usize,
    /// ‖Δ‖ before truncation and rounding.
    pub norm: f64,
    /// ‖Δ - B·A‖ with the factors as they are written.
    pub error: f64,
}

impl CombinedModule {
    /// The error relative to ‖Δ‖; 0 of an update that is zero.
    pub fn relative_error(&self) -> f64 {
        relative(self.error, self.norm)
    }
}

/// The factors of a combined module, in f64.
struct Combination {
    factors: Factors,
    norm: f64,
}

impl Truncated {
    /// The factors of its first r values: `B = U √σ` and `A = √σ Vᵀ`.
    fn halves(self, rank: usize) -> Factors {
        let roots: Vec<f64> = self
            .values
            .iter()
            .take(rank)
            .map(|value| value.sqrt())
            .collect();
        let scaled = |columns: Vec<Vec<f64>>| {
            let pairs = columns.into_iter().zip(&roots);
            pairs
                .map(|(column, root)| column.into_iter().map(|value| value * root).collect())
                .collect()
        };
        Factors {
            b: scaled(self.left),
            a: scaled(self.right),
        }
    }
}

/// Factors of an update, one column for each unit of the rank.
struct Factors {
    /// Columns of B, of length O.
    b: Vec<Vec<f64>>,
    /// Rows of A, of length I.
    a: Vec<Vec<f64>>,
}

impl Factors {
    /// An update that is zero has factors of zeros.
    fn or_zero(mut self, [rows, columns]: [usize; 2]) -> Self {
        if self.a.is_empty() {
            self.a.push(vec![0.0; columns]);
            self.b.push(vec![0.0; rows]);
        }
        self
    }
}

/// Combines adapters.
///
/// `progress` gets the modules that are done, and their number.
///
/// # Errors
/// See [`CombineError`].
pub fn combine(
    adapters: &[WeightedAdapter],
    options: &CombineOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Combined, CombineError> {
    options.check(adapters)?;
    let sources = Sources::open(adapters)?;
    let names = sources.modules();
    let weights: Vec<f64> = adapters.iter().map(|adapter| adapter.weight).collect();
    let largest = sources.largest_rank();
    let mut modules = Vec::with_capacity(names.len());
    let mut rounded = Vec::with_capacity(names.len());
    // one after another where updates are formed as a whole: one alone is large, and its computation has tasks of its own
    let combine = |name: &&str| options.module(name, &sources.branches(name), &weights, largest);
    let combined: Vec<(CombinedModule, Factors, bool)> = if options.method.is_dense() {
        let done = names.iter().enumerate().map(|(at, name)| {
            let found = combine(name);
            progress(at + 1, names.len());
            found
        });
        done.collect::<Result<_, _>>()?
    } else {
        names.par_iter().map(combine).collect::<Result<_, _>>()?
    };
    for (module, factors, is_embedding) in combined {
        rounded.push((module.module.clone(), factors, is_embedding));
        modules.push(module);
    }
    let rank = modules.iter().map(|module| module.rank).max().unwrap_or(0);
    let rank = rank.max(1);
    let mut tensors = BTreeMap::new();
    for (module, factors, is_embedding) in rounded {
        let [a, b] = kind::factors(is_embedding);
        let key = |end: &str| format!("{KEY_PREFIX}{module}{end}");
        tensors.insert(key(a.end), options.rows(&factors.a, rank));
        tensors.insert(key(b.end), options.columns(&factors.b, rank));
    }
    tensors.extend(sources.base_weights()?);
    Ok(Combined {
        config: sources.config(rank),
        tensors,
        card: sources.card(options, &modules),
        modules,
        warnings: sources.warnings(),
    })
}

impl CombineOptions {
    /// A weighted sum without loss: the factors one after another.
    pub fn exact() -> Self {
        Self {
            method: Method::Cat,
            rank: None,
            density: None,
            majority_sign: None,
            seed: None,
            iterations: None,
            dtype: Dtype::F32,
        }
    }

    fn check(&self, adapters: &[WeightedAdapter]) -> Result<(), CombineError> {
        let wrong = |option, why| Err(CombineError::Option { option, why });
        let method = self.method.name();
        if let Some(adapter) = adapters.iter().find(|of| !of.weight.is_finite()) {
            let why = format!("expected a number, found {}", adapter.weight);
            return wrong("--weight", why);
        }
        match self.density {
            Some(_) if !self.method.drops() => {
                return wrong("--density", format!("`{method}` drops nothing"));
            }
            None if self.method.drops() => {
                let why = format!(
                    "`{method}` needs the share of each update that is kept; usual values are 0.2 to 0.7"
                );
                return wrong("--density", why);
            }
            Some(density) if !(density > 0.0 && density <= 1.0) => {
                let why = format!("expected a number above 0 and at most 1, found {density}");
                return wrong("--density", why);
            }
            _ => (),
        }
        if self.rank == Some(0) {
            return wrong("--rank", "expected at least 1, found 0".to_owned());
        }
        if self.rank.is_some() && self.method == Method::Cat {
            let why = "`cat` keeps the factors as they are, and so the sum of their ranks; `svd` finds the best ones of a rank";
            return wrong("--rank", why.to_owned());
        }
        if self.iterations.is_some() && !self.method.is_dense() {
            let why = format!("`{method}` needs no decomposition of a whole update");
            return wrong("--svd-iterations", why);
        }
        self.check_unused()
    }

    /// Refuses options that the method has no use for.
    fn check_unused(&self) -> Result<(), CombineError> {
        let wrong = |option, why| Err(CombineError::Option { option, why });
        let method = self.method.name();
        if self.majority_sign.is_some() && !self.method.elects() {
            return wrong("--majority-sign", format!("`{method}` elects no sign"));
        }
        if self.seed.is_some() && !self.method.is_random() && self.iterations.is_none() {
            return wrong("--seed", format!("nothing in `{method}` is random"));
        }
        Ok(())
    }

    /// The factors of one module, rounded to the written dtype, and whether it is an embedding.
    fn module(
        &self,
        name: &str,
        branches: &[Option<&Branch>],
        weights: &[f64],
        largest: usize,
    ) -> Result<(CombinedModule, Factors, bool), CombineError> {
        let present: Vec<(&Branch, f64)> = branches
            .iter()
            .zip(weights)
            .filter_map(|(branch, weight)| Some(((*branch)?, *weight)))
            .collect();
        let (Combination { factors, norm }, error) = if self.method.is_dense() {
            let seeds = (self.seed.unwrap_or_default(), name);
            let update = dense::Update::of(&present, self, seeds);
            let (factors, norm) =
                update.truncated(self.rank.unwrap_or(largest), self.iterations, seeds);
            let factors = self.rounded(factors);
            let error = update.error(&factors);
            (Combination { factors, norm }, error)
        } else {
            let product = Product::of(&present);
            let factors = match self.method {
                Method::Cat => product.factors(),
                Method::Svd => product.truncated(self.rank.unwrap_or(largest)),
                _ => product.truncated(self.rank.unwrap_or(usize::MAX)),
            };
            let factors = self.rounded(factors);
            let error = product.error(&factors);
            let norm = product.norm();
            (Combination { factors, norm }, error)
        };
        let finite = factors.a.iter().chain(&factors.b).flatten();
        if !finite.copied().all(f64::is_finite) || !norm.is_finite() {
            return Err(CombineError::NotFinite {
                module: name.to_owned(),
                dtype: self.dtype,
            });
        }
        let module = CombinedModule {
            module: name.to_owned(),
            ranks: branches
                .iter()
                .map(|branch| branch.map_or(0, Branch::rank))
                .collect(),
            rank: factors.a.len(),
            norm,
            error,
        };
        let sides = present.first().map_or([0, 0], |(branch, _)| branch.sides());
        let factors = factors.or_zero(sides);
        let is_embedding = present.iter().any(|(branch, _)| branch.is_embedding());
        Ok((module, factors, is_embedding))
    }

    /// Factors with the values that the file has.
    fn rounded(&self, mut factors: Factors) -> Factors {
        let all = factors.a.iter_mut().chain(&mut factors.b);
        for value in all.flatten() {
            *value = match self.dtype {
                Dtype::BF16 => half::bf16::from_f64(*value).to_f64(),
                Dtype::F16 => half::f16::from_f64(*value).to_f64(),
                _ => f64::from(*value as f32),
            };
        }
        factors
    }

    /// `[r, I]`, with rows of zeros up to the rank.
    fn rows(&self, rows: &[Vec<f64>], rank: usize) -> TensorData {
        let length = rows.first().map_or(0, Vec::len);
        let mut values: Vec<f32> = rows.iter().flatten().map(|value| *value as f32).collect();
        values.resize(rank * length, 0.0);
        self.tensor(values, [rank, length])
    }

    /// `[O, r]`, with columns of zeros up to the rank.
    fn columns(&self, columns: &[Vec<f64>], rank: usize) -> TensorData {
        let length = columns.first().map_or(0, Vec::len);
        let mut values = vec![0.0_f32; length * rank];
        for (at, column) in columns.iter().enumerate() {
            for (row, value) in column.iter().enumerate() {
                values[row * rank + at] = *value as f32;
            }
        }
        self.tensor(values, [length, rank])
    }

    fn tensor(&self, values: Vec<f32>, shape: [usize; 2]) -> TensorData {
        TensorData::new(values, shape).convert_dtype(match self.dtype {
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            _ => DType::F32,
        })
    }
}

impl Combined {
    /// The error of all modules together, relative to the norm of all updates.
    pub fn relative_error(&self) -> f64 {
        relative_error(&self.modules)
    }

    /// The rank of all branches.
    pub fn rank(&self) -> usize {
        self.config.r
    }

    /// Saves it as an adapter in PEFT's layout, with copies of the files `beside`. Returns the programs that do not take it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save(&self, folder: &Path, beside: &[PathBuf]) -> Result<Vec<Limit>, AdapterError> {
        let Self {
            config,
            tensors,
            card,
            ..
        } = self;
        AdapterFolder::save(folder, config, tensors, beside, card, Existing::Refuse)?;
        Ok(limits(config, card.vocab_size.is_some()))
    }
}

/// The error of modules together, relative to the norm of their updates.
fn relative_error(modules: &[CombinedModule]) -> f64 {
    let together = |of: fn(&CombinedModule) -> f64| {
        let values: Vec<f64> = modules.iter().map(of).collect();
        norm(&values)
    };
    relative(
        together(|module| module.error),
        together(|module| module.norm),
    )
}

fn relative(error: f64, norm: f64) -> f64 {
    if norm > 0.0 { error / norm } else { 0.0 }
}

#[cfg(test)]
mod tests;
