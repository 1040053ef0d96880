//! Encodes and decodes texts, to compare with other programs: `encode TOKENIZER` reads one JSON string per line from
//! standard input and prints `{"ids": [...], "decoded": "..."}` for each. Special tokens in a text are ordinary text.

use std::io::{BufRead, BufReader, BufWriter, Write};

use simmer_data::Tokenizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: encode TOKENIZER")?;
    let tokenizer = Tokenizer::from_path(path)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in BufReader::new(std::io::stdin()).lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = tokenizer.encode_plain(&text)?.ids;
        let decoded = tokenizer.decode(&ids, false)?;
        writeln!(
            out,
            "{}",
            serde_json::json!({"ids": ids, "decoded": decoded})
        )?;
    }
    Ok(out.flush()?)
}
