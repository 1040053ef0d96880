//! Sizes of files and memory as people read them.

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

#[cfg(test)]
mod tests {
    use super::*;

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
