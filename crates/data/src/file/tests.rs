use std::fs;
use std::io::{Read, Write};
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
        // Lists on lines of their own are rows, and no array.
        prop_assume!(!text.lines().skip(1).any(|line| line.trim_start().starts_with('[')));
        let mut records = json::Records::new(text.as_bytes(), None);
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
    let twice = gzip(&gzip(rows.as_bytes()));
    insta::assert_snapshot!(error("a.jsonl.gz", &twice), @"a.jsonl.gz: expected rows of JSON, found gzip data");
    insta::assert_snapshot!(error("a.jsonl", gzip(b"{}")), @"a.jsonl: expected rows of JSON, found gzip data");
    insta::assert_snapshot!(error("a.jsonl.gz", b"PK\x03\x04"), @"a.jsonl.gz: expected compressed data, as the name says, found a zip archive or a spreadsheet");
    insta::assert_snapshot!(error("a.csv", b"\xff\xfea\0"), @"a.csv: expected a table of text, found UTF-16 text");
    insta::assert_snapshot!(error("a.parquet", b"<!doctype html>"), @"a.parquet: expected a Parquet file, found an HTML page");
    insta::assert_snapshot!(error("a.json", b"PAR1"), @"a.json: expected rows of JSON, found a Parquet file");
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

/// A row keeps one value of each name, so that a second column would be lost.
#[test]
fn two_columns_of_one_name_are_refused() {
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    for schema in [
        "message rows { required binary a (UTF8); required binary output (UTF8); required binary output (UTF8); }",
        "message rows { required group a { required int64 output; required int64 output; } }",
    ] {
        let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
        let mut bytes = Vec::new();
        let writer = SerializedFileWriter::new(&mut bytes, schema, std::sync::Arc::default());
        writer.unwrap().close().unwrap();
        assert_eq!(
            error("a.parquet", &bytes),
            "a.parquet: duplicate column `output`"
        );
    }
    let field = |name| Field::new(name, DataType::Utf8, false);
    let fields = ["a", "output", "output"].map(field).to_vec();
    let column: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["x"]));
    let columns = vec![column.clone(), column.clone(), column];
    let batch = RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    assert_eq!(
        error("a.arrow", &bytes),
        "a.arrow: duplicate column `output`"
    );
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

/// The rows of a file as JSON, with their lines, and errors in their places.
fn listed(name: &str, bytes: impl AsRef<[u8]>) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let said = |error: &DataError| {
        let text = error.to_string();
        text.replace(&format!("{}/", folder.path().display()), "")
    };
    let mut records = match Records::open(&path, &std::sync::Arc::default()) {
        Ok(records) => records,
        Err(error) => return vec![said(&error)],
    };
    let mut rows = Vec::new();
    loop {
        match records.next_row() {
            Ok(None) => return rows,
            Ok(Some(Ok(record))) => rows.push(match record.value() {
                Ok(value) => format!("{}: {value}", record.origin.line),
                Err(error) => said(&error),
            }),
            Ok(Some(Err(bad))) => rows.push(said(&bad.error)),
            Err(error) => {
                rows.push(format!("end: {}", said(&error)));
                return rows;
            }
        }
    }
}

#[test]
fn objects_may_have_several_lines() {
    let pretty = "{\n  \"a\": [\n    {\"b\": \"}\"}\n  ]\n}";
    let rows = [
        r#"1: {"a":[{"b":"}"}]}"#,
        r#"7: {"a":[{"b":"}"}]}"#,
        r#"12: {"c":1}"#,
    ];
    let file = format!("{pretty}\n\n{pretty}\n{{\"c\": 1}}\n");
    assert_eq!(listed("a.jsonl", &file), rows);
    assert_eq!(listed("a.json", file.replace('\n', "\r\n")), rows);
    assert_eq!(listed("a.json", file.replace('\n', "\r")), rows);
    assert_eq!(listed("a.json", format!("\u{FEFF}{file}")), rows);
    // without indentation, and after rows of one line
    let flat = pretty.replace("\n  ", "\n").replace("\n  ", "\n");
    assert_eq!(
        listed("a.jsonl", format!("{{\"c\": 1}}\n{flat}\n{{}}")),
        [r#"1: {"c":1}"#, r#"2: {"a":[{"b":"}"}]}"#, "7: {}"]
    );
    // a mistake inside
    let wrong = pretty.replace("\"}\"", "x");
    assert_eq!(
        listed("a.json", format!("{wrong}\n{pretty}")),
        [
            "a.json: invalid JSON at line 3 column 11: expected value",
            r#"6: {"a":[{"b":"}"}]}"#
        ]
    );
    insta::assert_snapshot!(listed("a.json", "{\n \"a\": 1,\n").join("\n"), @"a.json: invalid JSON at line 2 column 8: EOF while parsing a value");
}

#[test]
fn a_damaged_line_spoils_no_other_row() {
    let file = "{\"a\": 1}\n{\"a\": [\n{\"a\": 2}\n{\"a\": \"x\n{\"a\": 3}\nno\n{\"a\": 4}\n";
    insta::assert_snapshot!(listed("a.jsonl", file).join("\n"), @r#"
    1: {"a":1}
    a.jsonl: invalid JSON at line 2 column 7: EOF while parsing a list
    3: {"a":2}
    a.jsonl: invalid JSON at line 4 column 8: EOF while parsing a string
    5: {"a":3}
    a.jsonl: invalid JSON at line 6 column 2: expected ident
    7: {"a":4}
    "#);
    let file = b"{\"a\": \"\xFF\"}\r\n{\"a\": 2}\r\n";
    assert_eq!(
        listed("a.jsonl", file),
        ["a.jsonl: line 1 is not UTF-8", r#"2: {"a":2}"#]
    );
}

#[test]
fn lists_are_the_messages_of_rows() {
    let list = r#"[{"role":"user","content":"a"}]"#;
    let row = format!(r#"{{"messages":{list}}}"#);
    assert_eq!(
        listed("a.jsonl", format!("{list}\n{list}\n")),
        [format!("1: {row}"), format!("2: {row}")]
    );
    assert_eq!(
        listed("a.json", format!("[{list},\n{list}]")),
        [format!("1: {row}"), format!("2: {row}")]
    );
    assert_eq!(
        listed("a.json", list),
        [r#"1: {"role":"user","content":"a"}"#]
    );
    insta::assert_snapshot!(error("a.jsonl", "[1, 2]\n[3]\n"), @"a.jsonl: row 1 (line 1): expected an object, found a list");
}

#[test]
fn rows_may_be_below_a_key() {
    let row = r#"{"prompt":"a","completion":"b"}"#;
    let rows = [format!("3: {row}"), format!("4: {row}")];
    let file = format!("{{\"version\": 1,\n\"data\": [\n{row},\n{row}],\n\"n\": 2}}");
    assert_eq!(listed("a.json", &file), rows);
    assert_eq!(listed("a.json.gz", gzip(file.as_bytes())), rows);
    insta::assert_snapshot!(listed("a.json", format!("{{\"train\": [{row}], \"test\": [{row}]}}")).join("\n"), @"a.json: the file is one object with several lists of objects, `train`, `test`; expected one list of rows");
}

#[test]
fn texts_are_lines_paragraphs_or_documents() {
    let by = |sample_by: SampleBy| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "\u{FEFF}\r\nOne.\r\n  Two. \r\n \r\n\r\nThree.").unwrap();
        let opening = Opening {
            sample_by,
            ..Opening::default()
        };
        let mut records = Records::open_as(&path, opening, &std::sync::Arc::default()).unwrap();
        let mut rows = Vec::new();
        while let Some(record) = records.next().unwrap() {
            let value = record.value().unwrap();
            rows.push((
                record.origin.line,
                value["text"].as_str().unwrap().to_owned(),
            ));
        }
        rows
    };
    let rows = |rows: &[(usize, &str)]| -> Vec<(usize, String)> {
        rows.iter()
            .map(|(line, text)| (*line, (*text).to_owned()))
            .collect()
    };
    assert_eq!(
        by(SampleBy::Line),
        rows(&[(2, "One."), (3, "  Two. "), (6, "Three.")])
    );
    assert_eq!(
        by(SampleBy::Paragraph),
        rows(&[(2, "One.\n  Two. "), (6, "Three.")])
    );
    assert_eq!(
        by(SampleBy::Document),
        rows(&[(2, "One.\n  Two. \n\n\nThree.")])
    );
    assert!(listed("a.txt", " \n\n").is_empty());
    assert_eq!(
        listed("a.txt", b"a\n\xFF\nb"),
        [
            r#"1: {"text":"a"}"#,
            "a.txt: line 2 is not UTF-8",
            r#"3: {"text":"b"}"#
        ]
    );
}

#[test]
fn csv_may_have_other_delimiters() {
    let rows = [
        r#"2: {"prompt":"a,b","completion":"c"}"#,
        r#"3: {"prompt":"d","completion":"e"}"#,
    ];
    assert_eq!(listed("a.csv", "prompt,completion\n\"a,b\",c\nd,e\n"), rows);
    assert_eq!(listed("a.csv", "prompt;completion\na,b;c\nd;e\n"), rows);
    // spaces around a name
    assert_eq!(listed("a.csv", "prompt ; completion\na,b;c\nd;e\n"), rows);
    assert_eq!(listed("a.csv", "prompt\tcompletion\na,b\tc\nd\te\n"), rows);
    assert_eq!(
        listed("a.csv", "\u{FEFF}\"prompt\";completion\r\na,b;c\r\nd;e\r\n"),
        rows
    );
    insta::assert_snapshot!(listed("a.csv", "a;b\nc;d;e\nf;g\n").join("\n"), @r#"
    a.csv: line 2: expected 2 fields as in the header, found 3 (fields are separated by semicolons, as in the header)
    3: {"a":"f","b":"g"}
    "#);
}

#[test]
fn csv_lines_are_counted_with_every_line_end() {
    let rows = [
        r#"1: {"a":"1","b":"x\ny"}"#,
        r#"3: {"a":"2","b":""}"#,
        r#"6: {"a":"3","b":""}"#,
    ];
    let rows = rows.map(|row| {
        let (line, row) = row.split_once(':').unwrap();
        format!("{}:{row}", line.parse::<usize>().unwrap() + 1)
    });
    let file = "a,b\n1,\"x\ny\"\n2,\n\n\n3,\n";
    assert_eq!(listed("a.csv", file), rows);
    let windows: Vec<_> = rows
        .iter()
        .map(|row| row.replace("\\n", "\\r\\n"))
        .collect();
    assert_eq!(listed("a.csv", file.replace('\n', "\r\n")), windows);
    let returns: Vec<_> = rows.iter().map(|row| row.replace("\\n", "\\r")).collect();
    assert_eq!(listed("a.csv", file.replace('\n', "\r")), returns);
}

/// Files that end in the middle of a row, in gzip. Each is small enough to be looked at as a whole before its first row.
#[test]
fn a_cut_file_is_read_up_to_its_last_whole_row() {
    let rows: Vec<String> = (0..2000)
        .map(|i| json!({"prompt": i * i % 977, "completion": "b"}).to_string())
        .collect();
    let table: Vec<String> = (0..2000).map(|i| format!("{},b", i * i % 977)).collect();
    for (name, text, end, before) in [
        ("a.json.gz", format!("[{}]", rows.join(",\n")), "},", 0),
        ("a.jsonl.gz", rows.join("\n"), "\n", 0),
        ("a.txt.gz", rows.join("\n"), "\n", 0),
        // The header is no row.
        ("a.csv.gz", format!("p,c\n{}", table.join("\n")), "\n", 1),
    ] {
        let packed = gzip(text.as_bytes());
        let cut = &packed[..packed.len() / 2];
        let mut left = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(cut);
        decoder.read_to_end(&mut left).unwrap_err();
        let whole = String::from_utf8_lossy(&left).matches(end).count() - before;
        assert!(whole > 100, "{name}: {whole}");
        let found = listed(name, cut);
        let expected = format!("end: {name}: damaged after row {whole}: incomplete deflate stream");
        assert_eq!((found.len() - 1, found.last()), (whole, Some(&expected)));
    }
}

#[test]
fn a_pointer_of_git_lfs_is_named() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n";
    for name in [
        "a.jsonl",
        "a.csv",
        "a.parquet",
        "a.arrow",
        "a.json.gz",
        "a.txt",
    ] {
        let found = format!(
            "{name}: expected rows, found a git-lfs pointer: the file itself was not downloaded"
        );
        assert_eq!(listed(name, pointer), [found]);
    }
}

/// A table with a column of each common type, as a stream or as a file.
fn arrow_bytes(stream: bool) -> Vec<u8> {
    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::{
        ArrayRef, DictionaryArray, Float64Array, Int64Array, LargeStringArray, RecordBatch,
        StringArray, StructArray, TimestampSecondArray, types::Int8Type,
    };
    use arrow_schema::{DataType, Field};
    use std::sync::Arc;

    let role: ArrayRef = Arc::new(StringArray::from(vec!["user", "assistant"]));
    let weight: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1)]));
    let message = StructArray::from(vec![
        (Arc::new(Field::new("role", DataType::Utf8, true)), role),
        (
            Arc::new(Field::new("weight", DataType::Int64, true)),
            weight,
        ),
    ]);
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("x"), None]);
    tags.append_null();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "text",
            Arc::new(LargeStringArray::from(vec![Some("a"), None])),
        ),
        ("message", Arc::new(message)),
        ("tags", Arc::new(tags.finish())),
        ("score", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
        (
            "kind",
            Arc::new(
                ["k", "l"]
                    .into_iter()
                    .collect::<DictionaryArray<Int8Type>>(),
            ),
        ),
        ("at", Arc::new(TimestampSecondArray::from(vec![0, 1]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    if stream {
        let mut writer =
            arrow_ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    } else {
        let mut writer =
            arrow_ipc::writer::FileWriter::try_new(&mut bytes, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }
    bytes
}

#[test]
fn arrow_has_types() {
    let rows = [
        r#"0: {"text":"a","message":{"role":"user","weight":null},"tags":["x",null],"score":0.5,"kind":"k","at":"1970-01-01 00:00:00"}"#,
        r#"0: {"text":null,"message":{"role":"assistant","weight":1},"tags":null,"score":null,"kind":"l","at":"1970-01-01 00:00:01"}"#,
    ];
    for bytes in [arrow_bytes(true), arrow_bytes(false)] {
        assert_eq!(listed("a.arrow", &bytes), [rows, rows].concat());
        assert_eq!(listed("a.arrow.gz", gzip(&bytes)), [rows, rows].concat());
        let cut = listed("a.arrow", &bytes[..bytes.len() / 2]);
        let last = cut.last().unwrap();
        assert!(last.contains("a.arrow: invalid Arrow after row "), "{last}");
    }
    insta::assert_snapshot!(listed("a.arrow", "plain text, no Arrow").join("\n"), @"a.arrow: invalid Arrow after row 0: Parser error: Unexpected end of stream: expected 1767992432 metadata bytes, got 16");
}

/// A damaged file gives an error or other rows, and never a panic.
#[test]
fn arrow_with_a_wrong_byte_does_not_panic() {
    for good in [arrow_bytes(true), arrow_bytes(false)] {
        let mut errors = 0;
        for place in (0..good.len()).step_by(5) {
            for wrong in [0x00, 0x7F, 0xFF] {
                let mut bytes = good.clone();
                bytes[place] = wrong;
                let rows = listed("a.arrow", &bytes);
                errors += usize::from(rows.iter().any(|row| row.contains("invalid Arrow")));
            }
        }
        assert!(errors > good.len() / 20, "{errors} of {}", good.len());
    }
}
