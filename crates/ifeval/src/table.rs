//! The tables that come with the program, compressed.

use std::io::Read;

use flate2::read::GzDecoder;

/// A table's text.
#[expect(
    clippy::expect_used,
    reason = "a file of this crate, which the tests read"
)]
pub(super) fn unpack(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes)
        .read_to_string(&mut text)
        .expect("a table of this crate");
    text
}
