use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::format::{Format, Reader, Reading};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The contents of a file with these bytes, read in chunks of `chunk` rows.
fn contents(name: &str, bytes: &[u8], chunk: usize) -> Result<Vec<crate::Content>, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let said = |error: DataError| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    };
    let mut reader =
        Reader::open(std::slice::from_ref(&path), &Reading::default()).map_err(said)?;
    let mut contents = Vec::new();
    loop {
        let rows = reader.next_chunk(chunk).map_err(said)?;
        if rows.is_empty() {
            return Ok(contents);
        }
        contents.extend(rows.into_iter().map(|row| row.content));
    }
}

fn error(name: &str, bytes: impl AsRef<[u8]>) -> String {
    contents(name, bytes.as_ref(), 1000).unwrap_err()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_file_type_gives_the_same_rows(
        rows in prop::collection::vec(("[^\0]{1,30}", "[^\0]{0,30}"), 1..12),
        chunk in 1usize..7,
        indent in 0usize..3,
    ) {
        let rows: Vec<_> = rows.into_iter().filter(|(text, _)| !text.trim().is_empty()).collect();
        prop_assume!(!rows.is_empty());
        let objects: Vec<_> = rows.iter().map(|(a, b)| json!({"prompt": a, "completion": b})).collect();
        let array = match indent {
            0 => serde_json::to_vec(&objects),
            _ => serde_json::to_vec_pretty(&objects),
        }.unwrap();
        let lines: String = objects.iter().flat_map(|row| [row.to_string(), "\n".into()]).collect();
        let mut csv = ::csv::Writer::from_writer(Vec::new());
        csv.write_record(["prompt", "completion"]).unwrap();
        for (a, b) in &rows {
            csv.write_record([a, b]).unwrap();
        }
        let csv = csv.into_inner().unwrap();
        let expected: Vec<_> = rows
            .iter()
            .map(|(a, b)| crate::Content::Completion { prompt: a.clone(), completion: Some(b.clone()) })
            .collect();
        for (name, bytes) in [
            ("a.json", array.clone()),
            ("a.jsonl", lines.clone().into_bytes()),
            ("a.csv", csv),
            ("a.json.gz", gzip(&array)),
            // A gzip file may have several members, one after another.
            ("a.jsonl.gz", [gzip(lines.as_bytes()), gzip(b"\n")].concat()),
            ("a.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).unwrap()),
        ] {
            let read = contents(name, &bytes, chunk);
            prop_assert_eq!(read.as_ref(), Ok(&expected), "{}", name);
        }
    }

    /// Any text is split as serde_json parses it as an array, or refused if serde_json refuses it.
    #[test]
    fn arrays_are_split_as_they_are_parsed(text in r#"\[([ ,\[\]{}":\\a1\n]|1,|"a",|\{"a":1\},){0,12}\]?"#) {
        let mut records = json::Records::new(text.as_bytes());
        let mut cut = Vec::new();
        let mut whole = true;
        loop {
            match records.next() {
                Ok(Some((Content::Json(text, _), _))) => cut.push(text),
                Ok(None) => break,
                _ => {
                    whole = false;
                    break;
                }
            }
        }
        let cut: Option<Vec<Value>> = cut.iter().map(|text| serde_json::from_str(text).ok()).collect();
        let cut = cut.filter(|_| whole);
        prop_assert_eq!(cut, serde_json::from_str::<Vec<Value>>(&text).ok());
    }
}

#[test]
fn damaged_files_are_named() {
    let row = json!({"prompt": "a", "completion": "b"});
    let rows: String = format!("{row}\n").repeat(100_000);
    insta::assert_snapshot!(error("a.jsonl", format!("{rows}{{\"prompt\": \"a\", }}")), @r"a.jsonl: invalid JSON at line 100001 column 17: trailing comma");
    let array = format!(
        "[\n{}\n{{\"prompt\" \"a\"}}]",
        format!("{row},").repeat(1000)
    );
    insta::assert_snapshot!(error("a.json", array), @r"a.json: invalid JSON at line 3 column 11: expected `:`");
    insta::assert_snapshot!(error("a.json", format!("[{row}, {row}")), @"a.json: invalid JSON at line 1 column 66: EOF while parsing a list");
    insta::assert_snapshot!(error("a.json", format!("[{row} {row}]")), @"a.json: invalid JSON at line 1 column 34: trailing characters");
    insta::assert_snapshot!(error("a.json", format!("[{row},]")), @"a.json: invalid JSON at line 1 column 34: trailing comma");
    insta::assert_snapshot!(error("a.json", format!("[{row}] x")), @"a.json: invalid JSON at line 1 column 35: trailing characters");
    let packed = gzip(rows.as_bytes());
    insta::assert_snapshot!(error("a.jsonl.gz", &packed[..packed.len() / 2]), @"a.jsonl.gz: damaged after row 49956: incomplete deflate stream");
    insta::assert_snapshot!(error("a.jsonl.gz", b"plain text"), @"a.jsonl.gz: damaged after row 0: invalid gzip header");
    let packed = zstd::encode_all(rows.as_bytes(), 1).unwrap();
    insta::assert_snapshot!(error("a.jsonl.zst", &packed[..packed.len() / 2]), @"a.jsonl.zst: damaged after row 40960: incomplete frame");
    insta::assert_snapshot!(error("a.csv", "prompt,completion\na,b\nc\n"), @"a.csv: line 3: expected 2 fields as in the header, found 1");
    insta::assert_snapshot!(error("a.csv", "prompt,answer\na,b\n"), @"a.csv: row 1 (line 2): missing key `completion`; the row has `prompt`, `answer`");
    insta::assert_snapshot!(error("a.csv", "prompt,prompt\na,b\n"), @"a.csv: line 1: duplicate column `prompt`");
    insta::assert_snapshot!(error("a.parquet", "no parquet at all"), @"a.parquet: invalid Parquet after row 0: Parquet error: Invalid Parquet file. Corrupt footer");
    insta::assert_snapshot!(error("a.csv", ""), @"a.csv: no rows");
}

/// A Parquet file with a column of texts and one of numbers.
fn parquet_file(path: &Path) {
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    let schema = "message rows { required binary prompt (UTF8); required int64 completion; }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, std::sync::Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts = [ByteArray::from("a"), ByteArray::from("é")];
    column
        .typed::<ByteArrayType>()
        .write_batch(&texts, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&[1, 2], None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_has_types() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.parquet");
    parquet_file(&path);
    let read = |path: &PathBuf| {
        let mut records = Records::open(path, &std::sync::Arc::default()).unwrap();
        let mut rows = Vec::new();
        while let Some(Record {
            content: Content::Columns(columns),
            ..
        }) = records.next().unwrap()
        {
            rows.push(
                columns
                    .into_iter()
                    .map(|(_, value)| value)
                    .collect::<Vec<_>>(),
            );
        }
        rows
    };
    let expected = [vec![json!("a"), json!(1)], vec![json!("é"), json!(2)]];
    assert_eq!(read(&path), expected);
    let packed = folder.path().join("rows.parquet.gz");
    fs::write(&packed, gzip(&fs::read(&path).unwrap())).unwrap();
    assert_eq!(read(&packed), expected);
    let reading = Reading {
        format: Some(Format::PromptCompletion),
        ..Reading::default()
    };
    let mut reader = Reader::open(&[path], &reading).unwrap();
    let error = reader.next_chunk(10).unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&folder.path().display().to_string(), "DIR"), @"DIR/rows.parquet: row 1: key `completion`: expected a string, found a number");
}

/// A damaged file gives an error or other rows, and never a panic.
#[test]
fn parquet_with_a_wrong_byte_does_not_panic() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.parquet");
    parquet_file(&path);
    let good = fs::read(&path).unwrap();
    let mut errors = 0;
    for place in 0..good.len() {
        for wrong in [0x00, 0x7F, 0xFF] {
            let mut bytes = good.clone();
            bytes[place] = wrong;
            errors += usize::from(contents("rows.parquet", &bytes, 9).is_err());
        }
    }
    assert!(errors > good.len() / 2, "{errors}");
}

#[test]
fn a_csv_that_ends_within_quotes() {
    insta::assert_snapshot!(error("rows.csv", "prompt,completion\na,b\nc,\"d\ne,f\n"), @"rows.csv: line 3: a quoted field that starts in this row has no closing quote");
    insta::assert_snapshot!(error("rows.csv", "prompt,\"completion"), @"rows.csv: line 1: a quoted field that starts in this row has no closing quote");
    let rows = contents("rows.csv", b"prompt,completion\na,\"b\"", 9).unwrap();
    assert_eq!(
        rows,
        contents("rows.csv", b"prompt,completion\r\na,b\r\n", 9).unwrap()
    );
}

#[test]
fn a_row_longer_than_any_real_one() {
    let long = "b".repeat(MAX_RECORD + 9);
    insta::assert_snapshot!(error("rows.csv", format!("prompt,completion\na,b\na,{long}\n")), @"rows.csv: row 2 (line 3) is longer than 64 MiB");
    insta::assert_snapshot!(error("rows.jsonl", format!("{{\"text\": \"a\"}}\n{{\"text\": \"{long}\"}}\n")), @"rows.jsonl: row 2 (line 2) is longer than 64 MiB");
    insta::assert_snapshot!(error("rows.json", format!("[{{\"text\": \"a\"}},\n{{\"text\": \"{long}\"}}]")), @"rows.json: row 2 (line 2) is longer than 64 MiB");
}
