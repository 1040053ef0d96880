//! The scores that attention weighs keys by.

use crate::Rows;

/// How attention scores the keys that a query sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Factor of `q·k`, usually `1 / √head_dim`.
    pub scale: f64,
    /// Sliding window: the number of keys that a query sees at most, its own included. A query at
    /// position `p` of its row sees the keys at positions above `p - window`, up to `p`. If `None`, it
    /// sees all keys up to its own. `sliding_window` in Hugging Face's configurations.
    pub window: Option<usize>,
    /// Soft cap `c` of a score `s`, which becomes `c · tanh(s / c)`. `attn_logit_softcapping` in
    /// Hugging Face's configurations.
    pub soft_cap: Option<f64>,
}

impl Scores {
    /// Scores of all keys up to the query's own, `scale · q·k`.
    pub fn scaled(scale: f64) -> Self {
        Self {
            scale,
            window: None,
            soft_cap: None,
        }
    }

    /// The same scores, without a window if no row has more keys than that.
    ///
    /// # Panics
    /// If the window is zero, or the soft cap is not a positive number.
    pub(super) fn within(self, rows: &Rows) -> Self {
        assert!(
            self.window != Some(0),
            "a window of attention needs at least one key"
        );
        assert!(
            self.soft_cap.is_none_or(|cap| cap > 0.0 && cap.is_finite()),
            "the soft cap of attention scores is a positive number"
        );
        let hides = |window: &usize| rows.iter().any(|row| row.key_count() > *window);
        Self {
            window: self.window.filter(hides),
            ..self
        }
    }
}
