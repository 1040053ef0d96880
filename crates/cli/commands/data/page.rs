//! The page of `simmer data preview --html`.

use serde::Serialize;
use simmer_page::{PageError, Template, render};

use super::preview::{Lengths, Page};
use super::shown::{ShownToken, visible};

const PAGE: Template = Template {
    name: "data.html",
    text: include_str!("page.html"),
};
/// The width of the longest bar, in rem.
const WIDEST: f64 = 30.0;

/// What the template is filled with.
#[derive(Serialize)]
struct Context<'a> {
    title: &'a str,
    summary: &'a str,
    examples: Vec<Example<'a>>,
    bins: Vec<Bin>,
    lengths: String,
    packing: &'a str,
    lint: &'a str,
}

#[derive(Serialize)]
struct Example<'a> {
    title: &'a str,
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    trained: bool,
    special: bool,
}

/// A bar of the histogram of lengths.
#[derive(Serialize)]
struct Bin {
    label: String,
    width: f64,
    count: usize,
}

/// The whole page.
pub(super) fn html(page: &Page) -> Result<String, PageError> {
    let examples = page.examples.iter().map(|shown| Example {
        title: &shown.title,
        tokens: shown.tokens.iter().map(Token::of).collect(),
    });
    let context = Context {
        title: &page.name,
        summary: &page.summary,
        examples: examples.collect(),
        bins: bins(&page.lengths),
        lengths: page.lengths.summary(),
        packing: &page.packing,
        lint: &page.lint,
    };
    render(PAGE, &[], &context)
}

impl Token {
    fn of(token: &ShownToken) -> Self {
        Self {
            id: token.id,
            text: visible(&token.text),
            trained: token.trained,
            special: token.special,
        }
    }
}

fn bins(lengths: &Lengths) -> Vec<Bin> {
    let counts = lengths.bins.iter().map(|(_, count)| *count);
    let most = counts.max().unwrap_or(1).max(1);
    let bins = lengths.bins.iter().map(|(first, count)| Bin {
        label: lengths.label(*first),
        width: WIDEST * *count as f64 / most as f64,
        count: *count,
    });
    bins.collect()
}
