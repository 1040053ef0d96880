//! The filters that templates and expressions of tasks have beside Jinja's own.

use fancy_regex::Regex;
use serde_json::Value;
use simmer_data::template::Blanks;

use super::literal;
use crate::metric::boxed;

/// Adds the filters of tasks.
pub(crate) fn add_filters(blanks: &mut Blanks) {
    blanks.add_filter("python", literal::value_of);
    blanks.add_filter("boxed", in_box);
    blanks.add_filter("full_stop", with_full_stop);
    blanks.add_filter_with("without", without);
    blanks.add_filter_with("position", position);
    blanks.add_filter("whole_number", whole_number);
    blanks.add_filter("truth", truth);
    blanks.add_filter_with("ones", ones);
}

/// A text without what matches a pattern.
fn without(text: &Value, pattern: &Value) -> Result<Value, String> {
    let (Value::String(text), Value::String(pattern)) = (text, pattern) else {
        return Err(format!(
            "expected a text and a pattern, found {text} and {pattern}"
        ));
    };
    let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
    Ok(pattern.replace_all(text, "").into_owned().into())
}

/// Where a value stands in a list, from 0.
fn position(list: &Value, value: &Value) -> Result<Value, String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = items.iter().position(|item| item == value);
    let found = found.ok_or_else(|| format!("expected one of {list}, found {value}"))?;
    Ok(found.into())
}

/// A text, or each of several, with a full stop at its end.
fn with_full_stop(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) if text.ends_with('.') => Ok(value.clone()),
        Value::String(text) => Ok(format!("{text}.").into()),
        Value::Array(items) => items.iter().map(with_full_stop).collect(),
        other => Err(format!("expected texts, found {other}")),
    }
}

/// The answer in the last box of a solution in LaTeX.
fn in_box(solution: &Value) -> Result<Value, String> {
    let found = solution.as_str().and_then(boxed);
    let found =
        found.ok_or_else(|| format!(r"expected a text with \boxed{{...}}, found {solution}"))?;
    Ok(found.into())
}

/// A whole number, or a text with one. Jinja's `int` makes 3 of 3.7, and 0 of any other text.
fn whole_number(value: &Value) -> Result<Value, String> {
    let number = match value {
        Value::Number(_) => whole(value),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| format!("expected a whole number, found {value}"))?;
    Ok(number.into())
}

/// A number without a fraction; files of columns store some whole numbers as floats.
pub(super) fn whole(value: &Value) -> Option<i64> {
    let float = || {
        value
            .as_f64()
            .filter(|float| float.fract() == 0.0 && float.abs() < 1e15)
    };
    value.as_i64().or_else(|| Some(float()? as i64))
}

/// True or false, also as 1 or 0, or as a text. Jinja's `if` is true for every text.
fn truth(value: &Value) -> Result<Value, String> {
    let found = match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(_) => whole(value).and_then(|number| match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }),
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    };
    let found = found.ok_or_else(|| format!("expected true or false, found {value}"))?;
    Ok(found.into())
}

/// The positions of the ones in a list of zeros and ones, which has one for each of some choices.
fn ones(labels: &Value, choices: &Value) -> Result<Value, String> {
    let [found, expected] = [labels, choices].map(|list| list.as_array().map_or(0, Vec::len));
    if found != expected {
        return Err(format!(
            "expected 0 or 1 for each of {expected} choices, found {labels}"
        ));
    }
    let mut places = Vec::new();
    for (place, label) in labels.as_array().into_iter().flatten().enumerate() {
        match whole(label) {
            Some(0) => {}
            Some(1) => places.push(place),
            _ => return Err(format!("expected 0 or 1, found {label}")),
        }
    }
    Ok(places.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_whole_numbers() {
        for (value, number) in [
            (json!(2), 2),
            (json!(2.0), 2),
            (json!("3"), 3),
            (json!(" -1 "), -1),
        ] {
            assert_eq!(whole_number(&value), Ok(json!(number)), "{value}");
        }
        for value in [
            json!(3.7),
            json!("3.7"),
            json!(""),
            json!("B"),
            json!(null),
            json!(true),
            json!([1]),
        ] {
            whole_number(&value).unwrap_err();
        }
    }

    #[test]
    fn truths_are_not_guessed() {
        for (value, expected) in [
            (json!(true), true),
            (json!("False"), false),
            (json!("yes"), true),
            (json!(0), false),
            (json!(1.0), true),
        ] {
            assert_eq!(truth(&value), Ok(json!(expected)), "{value}");
        }
        for value in [json!("maybe"), json!(2), json!(null), json!("")] {
            truth(&value).unwrap_err();
        }
    }

    #[test]
    fn ones_are_found_where_they_are() {
        let choices = json!(["a", "b", "c"]);
        assert_eq!(ones(&json!([0, 1, 1]), &choices), Ok(json!([1, 2])));
        for labels in [
            json!([0, 1]),
            json!([0, 2, 0]),
            json!(["x", 1, 0]),
            json!(null),
        ] {
            ones(&labels, &choices).unwrap_err();
        }
    }
}
