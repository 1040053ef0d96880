//! The compressed tables of this crate.

use std::io::Read;

use flate2::read::GzDecoder;

/// The text of a table.
#[expect(
    clippy::expect_used,
    reason = "the file is part of the program, and the tests read it"
)]
pub(super) fn unpack(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes)
        .read_to_string(&mut text)
        .expect("a table of this crate");
    text
}
