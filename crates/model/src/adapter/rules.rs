//! Applies the rules of a configuration to one module.

use fancy_regex::Regex;

use super::config::AdapterConfig;
use super::names::{Patterns, Targets};
use super::unmatched::SelectionError;

/// Matches the layer index after the path of the list of layers.
const NUMBER: &str = r"\.(?P<idx>\d+)\.";

/// The rules of a configuration, with compiled regular expressions.
pub(super) struct Rules<'a> {
    exclude: Option<Matcher<'a>>,
    save: Vec<Regex>,
    targets: Matcher<'a>,
    layers: Option<&'a [usize]>,
    layer_number: Vec<Regex>,
}

pub(super) enum Matcher<'a> {
    Names(&'a [String]),
    Whole(Regex),
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        config: &'a AdapterConfig,
        targets: &'a Targets,
    ) -> Result<Self, SelectionError> {
        let exclude = match &config.exclude_modules {
            Some(targets) if !targets.is_empty() => Some(Matcher::new("exclude_modules", targets)?),
            _ => None,
        };
        let save = config.modules_to_save.iter().flatten();
        let patterns = config
            .layers_pattern
            .as_ref()
            .filter(|names| !names.is_empty());
        let layer_number = match patterns {
            None => vec![regex("layers_pattern", r".*?\.[^.]*", "^", NUMBER)?],
            Some(names) => names
                .iter()
                .map(|name| regex("layers_pattern", name, r"^(?:^|.*?\.)", NUMBER))
                .collect::<Result<_, _>>()?,
        };
        let layers = config
            .layers_to_transform
            .as_ref()
            .map(|layers| &layers.0[..]);
        Ok(Self {
            exclude,
            save: save
                .map(|name| regex("modules_to_save", name, r"^(?:(^|.*\.)", r"($|\..*))"))
                .collect::<Result<_, _>>()?,
            targets: Matcher::new("target_modules", targets)?,
            layers: layers.filter(|layers| !layers.is_empty()),
            layer_number,
        })
    }

    pub(super) fn excludes(&self, path: &str) -> Result<bool, SelectionError> {
        let excluded = match &self.exclude {
            Some(matcher) => matcher.matches("exclude_modules", path)?,
            None => false,
        };
        if excluded {
            return Ok(true);
        }
        for pattern in &self.save {
            if is_match("modules_to_save", pattern, path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn targets(&self, path: &str) -> Result<bool, SelectionError> {
        if !self.targets.matches("target_modules", path)? {
            return Ok(false);
        }
        // a full module path in the list is not restricted by layers_to_transform
        let whole =
            matches!(&self.targets, Matcher::Names(names) if names.iter().any(|n| n == path));
        match self.layers {
            Some(layers) if !whole => {
                let layer = self.layer(path)?;
                Ok(layer.is_some_and(|layer| layers.contains(&layer)))
            }
            _ => Ok(true),
        }
    }

    /// The layer index in a module path, from the first pattern that matches.
    fn layer(&self, path: &str) -> Result<Option<usize>, SelectionError> {
        for pattern in &self.layer_number {
            let captures = pattern
                .captures(path)
                .map_err(|source| bad_regex("layers_pattern", pattern.as_str(), source))?;
            if let Some(number) =
                captures.and_then(|found| found.name("idx").map(|m| m.as_str().parse().ok()))
            {
                return Ok(number);
            }
        }
        Ok(None)
    }
}

impl<'a> Matcher<'a> {
    pub(super) fn new(key: &'static str, targets: &'a Targets) -> Result<Self, SelectionError> {
        Ok(match targets {
            Targets::Names(names) => Self::Names(names),
            Targets::Regex(pattern) => Self::Whole(regex(key, pattern, "^(?:", ")$")?),
        })
    }

    pub(super) fn matches(&self, key: &'static str, path: &str) -> Result<bool, SelectionError> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_end(path, name))),
            Self::Whole(pattern) => is_match(key, pattern, path),
        }
    }
}

/// Whether a module path is `name`, or ends in `.name`.
pub(super) fn is_end(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Compiles a pattern of the configuration with what PEFT adds around it.
fn regex(
    key: &'static str,
    pattern: &str,
    before: &str,
    after: &str,
) -> Result<Regex, SelectionError> {
    // First alone, so that positions in an error refer to what the user wrote.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&format!("{before}{pattern}{after}")))
        .map_err(|source| bad_regex(key, pattern, source))
}

/// Matching can fail, too, when it exceeds the backtracking limit.
pub(super) fn is_match(
    key: &'static str,
    pattern: &Regex,
    path: &str,
) -> Result<bool, SelectionError> {
    pattern
        .is_match(path)
        .map_err(|source| bad_regex(key, pattern.as_str(), source))
}

fn bad_regex(key: &'static str, pattern: &str, source: fancy_regex::Error) -> SelectionError {
    SelectionError::Regex {
        key,
        pattern: pattern.to_owned(),
        source: Box::new(source),
    }
}

impl AdapterConfig {
    /// Rank of a module: that of the first entry of `rank_pattern` that matches, else `r`.
    pub(super) fn rank_of(&self, module: &str) -> Result<usize, SelectionError> {
        let rank = patterned("rank_pattern", &self.rank_pattern, module)?;
        Ok(rank.unwrap_or(self.r))
    }

    /// Alpha of a module: that of the first entry of `alpha_pattern` that matches, else `lora_alpha`.
    pub(super) fn alpha_of(&self, module: &str) -> Result<f64, SelectionError> {
        let alpha = patterned("alpha_pattern", &self.alpha_pattern, module)?;
        Ok(alpha.unwrap_or(self.lora_alpha))
    }

    /// The scale of B·A: alpha/rank, or alpha/√rank with `use_rslora`.
    pub(super) fn scaling(&self, alpha: f64, rank: usize) -> f64 {
        let rank = rank as f64;
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

/// The value of the first pattern that matches a module path or its end.
fn patterned<T: Copy>(
    key: &'static str,
    patterns: &Patterns<T>,
    path: &str,
) -> Result<Option<T>, SelectionError> {
    for (pattern, value) in patterns.iter() {
        if is_match(key, &end_regex(key, pattern)?, path)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// Compiles a pattern of `rank_pattern` or `alpha_pattern`: for the whole module path, or its end after a dot.
pub(super) fn end_regex(key: &'static str, pattern: &str) -> Result<Regex, SelectionError> {
    regex(key, pattern, r"^(.*\.)?(", ")$")
}
