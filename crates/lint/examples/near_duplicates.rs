//! Texts that are nearly an earlier one, for comparisons with other programs: with a JSON string a line on standard input,
//! gives the number of that earlier line (from 0) or `null` a line.

use std::io::{BufWriter, Write, stdin, stdout};

use simmer_lint::near_duplicates;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<String> = stdin().lines().collect::<Result<_, _>>()?;
    let texts: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    let mut out = BufWriter::new(stdout().lock());
    for earlier in near_duplicates(texts.iter().map(String::as_str)) {
        writeln!(out, "{}", serde_json::json!(earlier))?;
    }
    Ok(out.flush()?)
}
