//! Formulas in LaTeX: the answer in a box, and the comparison of MATH.
//!
//! Two formulas are the same answer if they are the same text after their notation is unified. The rules are those of the
//! data set's authors, with what they do on unusual texts, so that scores equal published ones.
//!
//! Source: Hendrycks et al. 2021 (MATH); lm-evaluation-harness, `hendrycks_math/utils.py`.

/// Precedes formulas whose notation cannot be unified, which are compared as they are.
const AS_IT_IS: char = '\0';

/// A formula whose notation cannot be unified.
struct Unusual;

/// The formula in unified notation. Formulas that mean the same give the same text.
pub(super) fn unified(formula: &str) -> String {
    match simplified(formula) {
        Ok(text) => text,
        Err(Unusual) => format!("{AS_IT_IS}{formula}"),
    }
}

/// The content of the last `\boxed{...}` or `\fbox{...}` of a solution, or what follows the last `\boxed ` up to a dollar
/// sign. `None` if there is none, or its braces do not match.
pub(crate) fn boxed(solution: &str) -> Option<&str> {
    if let Some((_, after)) = solution.rsplit_once(r"\boxed ") {
        return after.split('$').next();
    }
    let mut names = [r"\boxed", r"\fbox"].into_iter();
    let (start, name) = names.find_map(|name| Some((solution.rfind(name)?, name)))?;
    let after = solution[start + name.len()..].strip_prefix('{')?;
    let mut open = 1;
    for (at, c) in after.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(&after[..at]);
        }
    }
    None
}

fn simplified(formula: &str) -> Result<String, Unusual> {
    const UNIFIED: [(&str, &str); 10] = [
        ("\n", ""),
        (r"\!", ""),
        (r"\\", r"\"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        (r"\left", ""),
        (r"\right", ""),
        (r"^{\circ}", ""),
        (r"^\circ", ""),
        (r"\$", ""),
    ];
    let mut text = formula.to_owned();
    for (from, to) in UNIFIED {
        text = text.replace(from, to);
    }
    text = without_units(text)?;
    text = text.replace(r"\%", "");
    // numbers begin with a digit
    text = text.replace(" .", " 0.").replace("{.", "{0.");
    if text.is_empty() {
        return Ok(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    text = with_braces_after_root(&without_name(text))?;
    text = text.replace(' ', "");
    text = with_braces_in_fractions(&text)?;
    if text == "0.5" {
        return Ok(r"\frac{1}{2}".to_owned());
    }
    as_fraction(text)
}

/// Without what follows `\text{ `, which begins a unit.
fn without_units(text: String) -> Result<String, Unusual> {
    let mut parts = text.split(r"\text{ ");
    let before = parts.next().unwrap_or_default();
    match (parts.next(), parts.next()) {
        (None, _) => Ok(text),
        (Some(_), None) => Ok(before.to_owned()),
        (Some(_), Some(_)) => Err(Unusual),
    }
}

/// Without a name of at most two characters before the only equals sign, such as `k = `.
fn without_name(text: String) -> String {
    let mut parts = text.split('=');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(value), None) if name.chars().count() <= 2 => value.to_owned(),
        _ => text,
    }
}

/// `\sqrt3` as `\sqrt{3}`
fn with_braces_after_root(text: &str) -> Result<String, Unusual> {
    let mut parts = text.split(r"\sqrt");
    let mut new = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let first = part.chars().next().ok_or(Unusual)?;
        new.push_str(r"\sqrt");
        if first == '{' {
            new.push_str(part);
        } else {
            let rest = &part[first.len_utf8()..];
            new.extend(["{", &part[..first.len_utf8()], "}", rest]);
        }
    }
    Ok(new)
}

/// `\frac12` and `\frac1{72}` with both in braces.
fn with_braces_in_fractions(text: &str) -> Result<String, Unusual> {
    let mut parts = text.split(r"\frac");
    let mut new = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        new.push_str(r"\frac");
        let mut characters = part.chars();
        let first = characters.next().ok_or(Unusual)?;
        if first == '{' {
            new.push_str(part);
            continue;
        }
        let Some(second) = characters.next() else {
            return Ok(text.to_owned());
        };
        let rest = characters.as_str();
        new.extend(['{', first, '}']);
        if second == '{' {
            new.push(second);
        } else {
            new.extend(['{', second, '}']);
        }
        new.push_str(rest);
    }
    Ok(new)
}

/// `3/4` as `\frac{3}{4}`
fn as_fraction(text: String) -> Result<String, Unusual> {
    let mut parts = text.split('/');
    let (Some(above), Some(below), None) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(text);
    };
    let [above, below] = [whole(above)?, whole(below)?];
    if text == format!("{above}/{below}") {
        return Ok(format!(r"\frac{{{above}}}{{{below}}}"));
    }
    Ok(text)
}

/// A whole number as Python writes it again, from the ways in which Python's `int` takes it.
fn whole(text: &str) -> Result<String, Unusual> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let is_number = |group: &str| !group.is_empty() && group.bytes().all(|c| c.is_ascii_digit());
    if !digits.split('_').all(is_number) {
        return Err(Unusual);
    }
    let digits = digits.replace('_', "");
    let digits = digits.trim_start_matches('0');
    Ok(if digits.is_empty() {
        "0".to_owned()
    } else {
        format!("{sign}{digits}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations_of_the_same_formula_are_unified() {
        let same = [
            (r"\frac12", r"\frac{1}{2}"),
            (r"\dfrac1{72}", r"\tfrac{1}{72}"),
            ("1/2", r"\frac{1}{2}"),
            ("0.5", r"\frac12"),
            (".5", "0.5"),
            (r"x=3", "3"),
            (r"10\text{ cm}", "10"),
            (r"45^\circ", "45^{\\circ}"),
            (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
            (r"\sqrt3", r"\sqrt{3}"),
            (r"50\%", "50"),
            (r"\$1,000", "1,000"),
        ];
        for (a, b) in same {
            assert_eq!(unified(a), unified(b), "{a} and {b}");
        }
        for (a, b) in [("a/b", "a / b"), ("long=3", "3"), ("01/2", r"\frac{1}{2}")] {
            assert_ne!(unified(a), unified(b), "{a} and {b}");
        }
        assert_eq!(unified(r"x\sqrt"), unified(r"x\sqrt"));
    }

    #[test]
    fn the_last_box_is_found() {
        assert_eq!(boxed(r"So $\boxed{\frac{1}{2}}$."), Some(r"\frac{1}{2}"));
        assert_eq!(boxed(r"\boxed{1}, no, \boxed{2}"), Some("2"));
        assert_eq!(boxed(r"\fbox{7}"), Some("7"));
        assert_eq!(boxed(r"it is $\boxed 3$ or"), Some("3"));
        assert_eq!(boxed(r"\boxed{\frac{1}{2}"), None);
        assert_eq!(boxed("3"), None);
    }
}
