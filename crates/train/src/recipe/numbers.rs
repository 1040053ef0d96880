//! The numbers of a recipe as people write them.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Numbers below this are written with an exponent: `1e-8` for `0.00000001`.
const SMALL: f64 = 1e-3;
/// So are numbers from this on.
const LARGE: f64 = 1e9;

/// A TOML text with its very small and very large numbers written with an exponent.
pub(super) fn with_exponents(text: &str) -> String {
    let mut places = Vec::new();
    if let Ok(root) = DeTable::parse(text) {
        in_table(root.get_ref(), &mut places);
    }
    places.sort_by_key(|(place, _)| place.start);
    let mut shown = text.to_owned();
    for (place, number) in places.into_iter().rev() {
        shown.replace_range(place, &number);
    }
    shown
}

fn in_table(table: &DeTable<'_>, places: &mut Vec<(Range<usize>, String)>) {
    for (_, value) in table {
        in_value(value.get_ref(), value.span(), places);
    }
}

fn in_value(value: &DeValue<'_>, place: Range<usize>, places: &mut Vec<(Range<usize>, String)>) {
    match value {
        DeValue::Table(table) => in_table(table, places),
        DeValue::Array(array) => {
            for value in array {
                in_value(value.get_ref(), value.span(), places);
            }
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse::<f64>();
            let odd = |number: &f64| {
                let size = number.abs();
                number.is_finite() && size > 0.0 && !(SMALL..LARGE).contains(&size)
            };
            if let Some(number) = number.ok().filter(odd) {
                places.push((place, format!("{number:e}")));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_numbers_get_exponents() {
        let text = "a = 0.00000001\nb = 0.0003\nc = 0.999\nd = \"0.00000001\"\ne = [0.00015, 16.0]\n\
                    [t]\nf = 0.0\ng = 500000.0\nh = -0.00001\n";
        let shown = with_exponents(text);
        assert_eq!(
            shown,
            "a = 1e-8\nb = 3e-4\nc = 0.999\nd = \"0.00000001\"\ne = [1.5e-4, 16.0]\n\
             [t]\nf = 0.0\ng = 500000.0\nh = -1e-5\n"
        );
        let parse = |text: &str| text.parse::<toml::Table>().unwrap();
        assert_eq!(parse(&shown), parse(text));
    }
}
