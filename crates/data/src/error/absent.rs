//! Keys that rows should have, under the names that `fields` gives them.

use std::fmt;

use crate::nearest::nearest;

/// A key of a format that a row does not have, and what `fields` says that the rows call it.
///
/// Its text is `reply`, which `fields` reads as `output`; of a key without another name it is the key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// The rows' own name, which is the key itself if `fields` does not name it.
    pub own: String,
    /// The key of the format that it is read as.
    pub key: String,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{}`", self.own)?;
        if self.is_renamed() {
            write!(f, ", which `fields` reads as `{}`", self.key)?;
        }
        Ok(())
    }
}

impl Absent {
    /// Whether `fields` has another name for the key.
    pub(super) fn is_renamed(&self) -> bool {
        self.own != self.key
    }

    /// The hint for names in `fields` that a row with these keys does not have.
    pub(super) fn hint(absent: &[Absent], keys: &[String]) -> String {
        let near = |own: &str| {
            let near = nearest(own, keys.iter().map(String::as_str));
            near.filter(|(similarity, _)| *similarity > 0.8)
        };
        for Absent { own, key } in absent {
            if let Some((_, near)) = near(own) {
                return format!("did you mean {key} = \"{near}\"?");
            }
            // the two sides are swapped
            if keys.contains(key) {
                return format!(
                    "the key of a format comes first, then the rows' own name: {own} = \"{key}\""
                );
            }
        }
        "`fields` has the keys of a format, each with the rows' own name for it: instruction = \"question\", output = \"answer\"".to_owned()
    }
}
