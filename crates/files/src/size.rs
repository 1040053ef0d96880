//! Sizes, counts and times as people read them.

/// Bytes in a binary unit: `12 bytes`, `1.5 KiB`, `269.1 MiB`, `1.35 GiB`, `12.6 GiB`.
pub fn readable(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TEN_GIB: u64 = 10 * GIB;
    match bytes {
        0..KIB => counted(bytes as usize, "byte"),
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

/// A count with its noun: `1 row`, `12 rows`, `2 batches`, `3 entries`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {}", plural(count, noun))
}

/// A count with its noun and verb: `1 row is`, `12 rows are`.
pub fn are(count: usize, noun: &str) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(count, noun))
}

/// The noun of a count, which another place writes: `row` of 1, else `rows`.
pub fn plural(count: usize, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if count == 1 => noun.to_owned(),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with("ch") || noun.ends_with(['s', 'x']) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// A time of so many seconds: `12 ms`, `9.57 s`, `43 s`, `5 min 12 s`, `47 min`, `3 h 12 min`, `2 d 4 h`. Below 10 s,
/// whole seconds have no decimals: `9 s`.
pub fn duration(seconds: f64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let is_whole = seconds.fract() == 0.0;
    if seconds < 0.9995 && !is_whole {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 9.995 && !is_whole {
        return format!("{seconds:.2} s");
    }
    let parts = |time: u64, large: u64, small: u64, names: [&str; 2]| {
        let time = (time + small / 2) / small * small;
        let (many, few) = (time / large, time % large / small);
        match few {
            0 => format!("{many} {}", names[0]),
            few => format!("{many} {} {few} {}", names[0], names[1]),
        }
    };
    match seconds.round() as u64 {
        time @ 0..100 => format!("{time} s"),
        time if time < 10 * MINUTE => parts(time, MINUTE, 1, ["min", "s"]),
        time if time < 100 * MINUTE => format!("{} min", (time + 30) / MINUTE),
        time if time < 2 * DAY => parts(time, HOUR, MINUTE, ["h", "min"]),
        time => parts(time, DAY, HOUR, ["d", "h"]),
    }
}

/// A number before a unit, with three digits and a metric prefix: `670 G`, `1.24 T`, `31.0 M`.
pub fn with_prefix(number: f64) -> String {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let (mut number, mut prefix) = (number, 0);
    while number >= 999.5 && prefix + 1 < PREFIXES.len() {
        number /= 1e3;
        prefix += 1;
    }
    let digits = if number < 9.995 {
        2
    } else {
        usize::from(number < 99.95)
    };
    format!("{number:.digits$} {}", PREFIXES[prefix])
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
    fn one_is_no_plural() {
        assert_eq!(
            [0, 1, 2].map(|count| counted(count, "row")),
            ["0 rows", "1 row", "2 rows"]
        );
        let nouns = ["batch", "entry", "key", "index", "loss", "trained token"];
        assert_eq!(nouns.map(|noun| plural(1, noun)), nouns);
        assert_eq!(
            nouns.map(|noun| plural(2, noun)),
            [
                "batches",
                "entries",
                "keys",
                "indexes",
                "losses",
                "trained tokens"
            ]
        );
        assert_eq!(
            [1, 2].map(|count| are(count, "file")),
            ["1 file is", "2 files are"]
        );
        assert_eq!(readable(1), "1 byte");
    }

    #[test]
    fn times_have_two_units_at_most() {
        let texts = [
            0.0, 0.012, 0.9999, 9.0, 9.567, 9.999, 43.4, 99.4, 312.0, 300.0, 599.6, 2820.0,
            11_520.0, 7200.0, 172_800.0, 187_200.0,
        ]
        .map(duration);
        assert_eq!(
            texts,
            [
                "0 s",
                "12 ms",
                "1.00 s",
                "9 s",
                "9.57 s",
                "10 s",
                "43 s",
                "99 s",
                "5 min 12 s",
                "5 min",
                "10 min",
                "47 min",
                "3 h 12 min",
                "2 h",
                "2 d",
                "2 d 4 h"
            ]
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.5, 12.3456, 999.4, 999.9, 670e9, 1.2399e12, 31e6, 4e18].map(with_prefix);
        assert_eq!(
            texts,
            [
                "0.50 ", "12.3 ", "999 ", "1.00 k", "670 G", "1.24 T", "31.0 M", "4000 P"
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
