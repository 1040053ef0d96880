//! A base model that is larger than the memory of its device: the weights of its layers are brought there ahead of their use, and
//! released after it.
//!
//! While a layer computes, the weights of the next one are on their way; those of all others are released. So about two layers
//! are in memory at a time, in both directions of a pass.

mod copies;
mod pages;

pub(crate) use copies::LayerCopies;
pub(crate) use pages::LayerPages;

/// A part of the model whose weights are brought and released together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A decoder layer, the lowest is 0.
    Layer(usize),
    /// The output head, or the embedding that it is tied to.
    Head,
}

/// The weights of the layers of a model where they are not used. Clones share them.
#[derive(Debug, Clone)]
pub(crate) enum Offloaded {
    /// In their files.
    Disk(LayerPages),
    /// In main memory.
    Host(LayerCopies),
}

impl Offloaded {
    /// Prepares for the computation of one part: the weights of `next`, the part that is computed after it, are brought
    /// meanwhile, and those of all other parts are released.
    pub(crate) fn enter(&self, now: Part, next: Option<Part>) {
        match self {
            Self::Disk(pages) => pages.enter(now, next),
            Self::Host(copies) => copies.enter(now, next),
        }
    }
}

#[cfg(test)]
mod copies_tests;
#[cfg(test)]
mod tests;
