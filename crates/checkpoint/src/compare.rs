//! Compares the tensors that a model or an adapter expects with those in a file.

use std::collections::BTreeMap;
use std::fmt;

/// All differences between the expected and the found tensors.
///
/// [`Display`](fmt::Display) prints one line per difference; layers with the same difference share a line:
/// `model.layers.{0-31}.mlp.up_proj.weight`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Missing: name and expected shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Unexpected: name and found shape.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// Wrong shape: name, expected, found.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

/// Compares in both directions.
///
/// # Errors
///
/// All differences, together.
pub fn compare(
    expected: &BTreeMap<String, Vec<usize>>,
    found: &BTreeMap<String, Vec<usize>>,
) -> Result<(), Difference> {
    let mut difference = Difference::default();
    for (name, shape) in expected {
        match found.get(name) {
            None => difference.missing.push((name.clone(), shape.clone())),
            Some(other) if other != shape => {
                let misshapen = (name.clone(), shape.clone(), other.clone());
                difference.misshapen.push(misshapen);
            }
            Some(_) => {}
        }
    }
    for (name, shape) in found {
        if !expected.contains_key(name) {
            difference.unexpected.push((name.clone(), shape.clone()));
        }
    }
    if difference == Difference::default() {
        Ok(())
    } else {
        Err(difference)
    }
}

impl std::error::Error for Difference {}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self
            .missing
            .iter()
            .map(|(name, shape)| (name.as_str(), format!("missing, expected {shape:?}")));
        let misshapen = self.misshapen.iter().map(|(name, expected, found)| {
            (
                name.as_str(),
                format!("expected {expected:?}, found {found:?}"),
            )
        });
        let unexpected = self
            .unexpected
            .iter()
            .map(|(name, shape)| (name.as_str(), format!("unexpected, found {shape:?}")));
        let all: Vec<_> = missing.chain(misshapen).chain(unexpected).collect();
        let lines = fold_layers(&all);
        for (position, line) in lines.iter().enumerate() {
            let newline = if position == 0 { "" } else { "\n" };
            write!(f, "{newline}  {line}")?;
        }
        Ok(())
    }
}

/// Joins the lines of names that differ only in their first number and have the same text.
fn fold_layers(differences: &[(&str, String)]) -> Vec<String> {
    let mut groups: Vec<(&str, &str, &str, Vec<usize>)> = Vec::new();
    for (name, said) in differences {
        let (before, layer, after) = split_layer(name);
        let same = groups
            .iter_mut()
            .find(|group| group.0 == before && group.1 == after && group.2 == said);
        match (same, layer) {
            (Some(group), Some(layer)) => group.3.push(layer),
            _ => groups.push((before, after, said, layer.into_iter().collect())),
        }
    }
    groups
        .into_iter()
        .map(|(before, after, said, mut layers)| {
            layers.sort_unstable();
            let layer = match layers.as_slice() {
                [] => String::new(),
                [one] => one.to_string(),
                many => format!("{{{}}}", ranges(many)),
            };
            format!("{before}{layer}{after}: {said}")
        })
        .collect()
}

/// Splits a name around its first numeric part: `model.layers.` `12` `.mlp`.
fn split_layer(name: &str) -> (&str, Option<usize>, &str) {
    let mut start = 0;
    for part in name.split('.') {
        if let Ok(layer) = part.parse() {
            // "007" would be printed as "7"
            if part == "0" || !part.starts_with(['0', '+']) {
                return (&name[..start], Some(layer), &name[start + part.len()..]);
            }
        }
        start += part.len() + 1;
    }
    (name, None, "")
}

/// "0-3,7" for sorted numbers.
fn ranges(numbers: &[usize]) -> String {
    numbers
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(usize::to_string).collect(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(tensors: &[(&str, &[usize])]) -> BTreeMap<String, Vec<usize>> {
        tensors
            .iter()
            .map(|(name, shape)| ((*name).to_owned(), shape.to_vec()))
            .collect()
    }

    #[test]
    fn equal_sets_differ_in_nothing() {
        let tensors = shapes(&[("a", &[1]), ("b", &[2, 3])]);
        assert_eq!(compare(&tensors, &tensors), Ok(()));
    }

    #[test]
    fn everything_is_listed_and_layers_share_a_line() {
        let mut expected = shapes(&[("model.norm.weight", &[8]), ("lm_head.weight", &[16, 8])]);
        let mut found = shapes(&[("lm_head.weight", &[17, 8]), ("extra.bias", &[3])]);
        for layer in 0..12 {
            expected.insert(format!("model.layers.{layer}.up.weight"), vec![4, 8]);
            expected.insert(format!("model.layers.{layer}.down.weight"), vec![8, 4]);
            if layer != 5 {
                found.insert(format!("model.layers.{layer}.up.weight"), vec![4, 9]);
            }
        }
        let difference = compare(&expected, &found).unwrap_err();
        assert_eq!(difference.missing.len(), 14);
        assert_eq!(difference.misshapen.len(), 12);
        assert_eq!(difference.unexpected.len(), 1);
        insta::assert_snapshot!(difference, @r"
          model.layers.{0-11}.down.weight: missing, expected [8, 4]
          model.layers.5.up.weight: missing, expected [4, 8]
          model.norm.weight: missing, expected [8]
          lm_head.weight: expected [16, 8], found [17, 8]
          model.layers.{0-4,6-11}.up.weight: expected [4, 8], found [4, 9]
          extra.bias: unexpected, found [3]
        ");
    }
}
