//! Verdicts beside the answers, as an HTML page.

use serde::Serialize;
use simmer_page::{PageError, Template, render};

use crate::result::Results;

const PAGE: Template = Template {
    name: "judged.html",
    text: include_str!("page.html"),
};

/// What the template is filled with.
#[derive(Serialize)]
struct Context<'a> {
    title: String,
    summary: String,
    results: &'a Results<'a>,
}

/// The page: one file that loads nothing else; every text is escaped.
///
/// # Errors
/// If its template has a mistake.
pub fn html(results: &Results<'_>) -> Result<String, PageError> {
    let context = Context {
        title: format!("Judged: {}", results.report.models.join(" against ")),
        summary: results.report.text(),
        results,
    };
    render(PAGE, &[], &context)
}
