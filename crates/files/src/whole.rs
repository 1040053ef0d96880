//! Opens untrusted files, and reads small ones completely.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Opens a regular file for reading. Others are refused: opening a pipe may block for ever, and reading a device may never
/// end.
///
/// # Errors
///
/// Errors of the operating system, and if `path` is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() {
        return File::open(path);
    }
    let found = if kind.is_dir() {
        "a folder"
    } else {
        "a device or a pipe"
    };
    let problem = format!("expected a file, found {found}");
    Err(io::Error::new(ErrorKind::InvalidInput, problem))
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
///
/// As [`open`], and if the file is larger.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut found = file.metadata()?.len();
    let mut bytes = Vec::new();
    if found <= most {
        // the file may have grown since
        file.take(most + 1).read_to_end(&mut bytes)?;
        found = bytes.len() as u64;
    }
    if found > most {
        let problem = format!("expected at most {most} bytes, found {found}");
        return Err(io::Error::new(ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// [`read`] for text.
///
/// # Errors
///
/// As [`read`], and if the file is not UTF-8; the message has the offset of the first invalid byte.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| {
        let problem = format!("byte {} is not UTF-8", error.utf8_error().valid_up_to());
        io::Error::new(ErrorKind::InvalidData, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        let more = read(&path, 3).unwrap_err().to_string();
        assert_eq!(more, "expected at most 3 bytes, found 4");
        fs::write(&path, b"ab\xFFd").unwrap();
        let text = read_text(&path, 9).unwrap_err().to_string();
        assert_eq!(text, "byte 2 is not UTF-8");
        let folder = read(folder.path(), 9).unwrap_err().to_string();
        assert_eq!(folder, "expected a file, found a folder");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_no_file() {
        let endless = read(Path::new("/dev/zero"), 9).unwrap_err().to_string();
        assert_eq!(endless, "expected a file, found a device or a pipe");
    }
}
