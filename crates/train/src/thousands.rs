//! Counts with thousands separators.

/// A count with thousands separators: `1,869,504`.
pub(crate) fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_at_a_time() {
        let texts = [0, 999, 1000, 217_088, 12_345_678].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "217,088", "12,345,678"]);
    }
}
