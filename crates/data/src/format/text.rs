//! Rows of `text` alone, all of it trained on.

use super::row::Row;
use super::{Format, Spec};
use crate::conversation::Content;
use crate::error::RowError;

pub(super) const SPEC: Spec = Spec {
    name: "text",
    keys: "`text`",
    mark: "text",
    fields: &["text"],
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    let text = row.required(Format::Text, &["text"])?;
    if text.is_empty() {
        return Err(RowError::EmptyKey { key: "text" });
    }
    Ok(Content::Text(text))
}
