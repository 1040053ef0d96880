//! Sizes and counts as people read them.

/// Bytes in a binary unit: `12 bytes`, `1.5 KiB`, `269.1 MiB`, `1.35 GiB`, `12.6 GiB`.
pub fn readable(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TEN_GIB: u64 = 10 * GIB;
    match bytes {
        0..KIB => format!("{bytes} bytes"),
        KIB..MIB => format!("{:.1} KiB", bytes as f64 / KIB as f64),
        MIB..GIB => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        GIB..TEN_GIB => format!("{:.2} GiB", bytes as f64 / GIB as f64),
        TEN_GIB.. => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

/// A count with thousands separators: `6,738,415,616`.
pub fn grouped(count: u64) -> String {
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
    fn counts_have_three_digits_at_a_time() {
        let texts = [0, 7, 999, 1000, 217_088, 12_345_678, 6_738_415_616].map(grouped);
        assert_eq!(
            texts,
            [
                "0",
                "7",
                "999",
                "1,000",
                "217,088",
                "12,345,678",
                "6,738,415,616"
            ]
        );
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(readable(1023), "1023 bytes");
        assert_eq!(readable(1536), "1.5 KiB");
        assert_eq!(readable(1 << 20), "1.0 MiB");
        assert_eq!(readable(16_777_216), "16.0 MiB");
        assert_eq!(readable(1 << 30), "1.00 GiB");
        assert_eq!(readable(13_476_839_424), "12.6 GiB");
    }
}
