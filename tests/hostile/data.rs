//! Data files of every kind.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use simmer_data::format::{Reader, Reading};

use super::{Folder, deep, shown};

const ROW: &str = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
/// More than a row may have.
const LONG: usize = (64 << 20) + 99;

fn read(folder: &Folder, name: &str) -> Result<usize, simmer_data::DataError> {
    let mut reader = Reader::open(&[folder.at(name)], &Reading::default())?;
    let mut rows = 0;
    loop {
        match reader.next_chunk(1000)?.len() {
            0 => return Ok(rows),
            more => rows += more,
        }
    }
}

fn said(name: &str, content: impl AsRef<[u8]>) -> String {
    let folder = Folder::empty().with(name, content);
    folder.said(read(&folder, name))
}

#[cfg(unix)]
#[test]
fn no_files() {
    let device = |name: &str| {
        let folder = Folder::empty().with_link(name, "/dev/zero");
        folder.said(read(&folder, name))
    };
    let folder = Folder::empty();
    let pipe = std::process::Command::new("mkfifo")
        .arg(folder.at("x.jsonl"))
        .status();
    assert!(pipe.unwrap().success());
    fs::create_dir(folder.at("folder.csv")).unwrap();
    shown(
        "data::no_files",
        &[
            (
                "a pipe that nobody writes into",
                folder.said(read(&folder, "x.jsonl")),
            ),
            ("a device that never ends", device("x.jsonl")),
            ("the same, as Parquet", device("x.parquet")),
            ("the same, as gzip", device("x.json.gz")),
            (
                "a folder with the name of a file",
                folder.said(read(&folder, "folder.csv")),
            ),
        ],
    );
}

#[test]
fn rows() {
    let long = "b".repeat(LONG);
    let after = |row: &str| format!("{ROW}{row}\n");
    shown(
        "data::rows",
        &[
            ("an empty file", said("x.jsonl", "")),
            ("no JSON", said("x.jsonl", after("{\"prompt\": "))),
            ("a million `[` in a line", said("x.jsonl", after(&deep()))),
            ("a million `[` in an array", said("x.json", deep())),
            (
                "a million `[` in a field",
                said("x.jsonl", after(&format!("{{\"prompt\": {}", deep()))),
            ),
            (
                "a line of more than 64 MiB",
                said("x.jsonl", after(&format!("{{\"prompt\": \"{long}"))),
            ),
            (
                "an element of more than 64 MiB",
                said("x.json", format!("[{{\"prompt\": \"{long}")),
            ),
            (
                "a CSV field of more than 64 MiB",
                said("x.csv", format!("prompt,completion\n\"{long}")),
            ),
            (
                "blanks of more than 64 MiB, without an end",
                said("x.jsonl", " ".repeat(LONG)),
            ),
            (
                "invalid UTF-8",
                said(
                    "x.jsonl",
                    [ROW.as_bytes(), b"{\"prompt\": \"\xFF\"}\n"].concat(),
                ),
            ),
            (
                "half a surrogate",
                said(
                    "x.jsonl",
                    after(r#"{"prompt": "\ud800", "completion": "b"}"#),
                ),
            ),
            ("a NUL byte outside of texts", said("x.jsonl", after("\0"))),
            (
                "a number beyond all numbers",
                said("x.jsonl", after(r#"{"prompt": "a", "completion": 1e999}"#)),
            ),
            ("UTF-16", said("x.jsonl", b"\xFF\xFE{\0}\0")),
            (
                "a CSV that ends within quotes",
                said("x.csv", "prompt,completion\na,\"b"),
            ),
            (
                "a CSV row with a field too many",
                said("x.csv", "prompt,completion\na,b,c\n"),
            ),
            ("a folder without data", {
                let folder = Folder::empty();
                folder.said(simmer_data::file::files(folder.path()))
            }),
        ],
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files() {
    let rows = ROW.repeat(10_000);
    let packed = gzip(rows.as_bytes());
    let mut wrong = packed.clone();
    let end = wrong.len();
    wrong[end - 6] ^= 1;
    shown(
        "data::compressed_files",
        &[
            ("no gzip", said("x.jsonl.gz", ROW)),
            ("gzip that was cut", said("x.jsonl.gz", &packed[..end - 9])),
            ("gzip with a wrong checksum", said("x.jsonl.gz", &wrong)),
            ("no zstd", said("x.jsonl.zst", ROW)),
            (
                "a zstd frame that wants a window of 2^41 bytes",
                said("x.jsonl.zst", b"\x28\xB5\x2F\xFD\x00\xF8\x00\x00\x00"),
            ),
            (
                "a row of more than 64 MiB in 64 KiB",
                said("x.jsonl.gz", gzip(&vec![b'b'; LONG])),
            ),
            ("2 GiB of rows in 2 MiB of zstd", {
                // A frame of its own for every part, all of them the same; long rows are read quickly.
                let row = ROW.replace("\": \"", &format!("\": \"{}", "long ".repeat(100)));
                let rows = row.repeat((36 << 20) / row.len());
                let part = zstd::encode_all(rows.as_bytes(), 1).unwrap();
                said("x.jsonl.zst", part.repeat(60))
            }),
        ],
    );
}

/// A Parquet file with one row: a list of so many ones.
fn list(folder: &Folder, name: &str, items: usize) {
    use parquet::data_type::Int32Type;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    let schema = "message rows { required group prompt (LIST) { repeated group list { required int32 element; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(folder.at(name)).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let mut repetition = vec![1; items];
    repetition[0] = 0;
    let levels = vec![1; items];
    let column_writer = column.typed::<Int32Type>();
    column_writer
        .write_batch(&vec![1; items], Some(&levels), Some(&repetition))
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// A Parquet file whose only column lies in so many groups.
fn nested(groups: usize) -> Vec<u8> {
    // Thrift's compact protocol: version 1, the schema as a list of structs, no rows, no parts.
    let mut metadata = vec![0x15, 0x02, 0x19, 0xFC];
    let mut count = groups + 1;
    while count > 0x7F {
        metadata.push(count as u8 | 0x80);
        count >>= 7;
    }
    metadata.push(count as u8);
    for _ in 0..groups {
        // repetition required, no name, one child
        metadata.extend([0x35, 0x00, 0x18, 0x00, 0x15, 0x02, 0x00]);
    }
    // an int32
    metadata.extend([0x15, 0x02, 0x25, 0x00, 0x18, 0x01, b'a', 0x00]);
    metadata.extend([0x16, 0x00, 0x19, 0x0C, 0x00]);
    let length = metadata.len() as u32;
    [b"PAR1", &metadata[..], &length.to_le_bytes(), b"PAR1"].concat()
}

#[test]
fn parquet_files() {
    let folder = Folder::empty();
    list(&folder, "whole.parquet", 1000);
    let whole = fs::read(folder.at("whole.parquet")).unwrap();
    let mut length = whole.clone();
    let end = length.len();
    length[end - 8..end - 4].copy_from_slice(&u32::MAX.to_le_bytes());
    shown(
        "data::parquet_files",
        &[
            ("no Parquet", said("x.parquet", "plain text")),
            ("a file that was cut", said("x.parquet", &whole[..end / 2])),
            ("metadata longer than the file", said("x.parquet", &length)),
            (
                "a row with a list of 20 million numbers in a few hundred bytes",
                {
                    list(&folder, "x.parquet", 20_000_000);
                    folder.said(read(&folder, "x.parquet"))
                },
            ),
            (
                "columns in 300,000 groups",
                said("x.parquet", nested(300_000)),
            ),
        ],
    );
}
