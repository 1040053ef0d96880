//! The page of `simmer data preview --html`: one file that needs nothing else.

use std::fmt::Write as _;

use simmer_eval::page::{self, escape};

use super::preview::Page;
use super::shown::{ShownToken, visible};

const STYLE: &str = "
:root { --line: #8884; --trained: #2a9d4a33; --edge: #2a9d4a; --special: #b5179e; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: 6px; padding: .8rem; }
pre.example { font: 14px/1.7 ui-monospace, monospace; }
.t { border-radius: 2px; } .t.on { background: var(--trained); box-shadow: inset 0 -2px var(--edge); }
.t.special { color: var(--special); font-weight: 600; }
body.bounds .t { outline: 1px solid var(--line); }
.legend span, .legend label { margin-right: 1.2rem; } table { border-collapse: collapse; } td { padding: 0 .5rem; }
.bar { background: #4a7fb5; height: 1rem; border-radius: 2px; } .n { text-align: right; font-variant-numeric: tabular-nums; }
";

/// The whole page.
pub(super) fn html(page: &Page) -> String {
    let mut html = format!(
        "<h1>{}: the data as the model sees it</h1>\n<pre>{}</pre>\n\
         <p class=\"legend\"><span class=\"t on\">trained on</span><span>read only</span>\
         <span class=\"t special\">special token</span>\
         <label><input type=\"checkbox\" onchange=\"document.body.classList.toggle('bounds')\"> token boundaries</label>\
         (a token's id shows under the pointer)</p>\n",
        escape(&page.name),
        escape(&page.summary)
    );
    for shown in &page.examples {
        let _ = write!(
            html,
            "<h2>{}</h2>\n<pre class=\"example\">",
            escape(&shown.title)
        );
        for (place, token) in shown.tokens.iter().enumerate() {
            html.push_str(&span(place, token));
        }
        html.push_str("</pre>\n");
    }
    html.push_str("<h2>Tokens of an example</h2>\n<table>\n");
    let most = page
        .lengths
        .bins
        .iter()
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(1)
        .max(1);
    for (first, count) in &page.lengths.bins {
        let width = 30.0 * *count as f64 / most as f64;
        let _ = writeln!(
            html,
            "<tr><td class=\"n\">{}</td><td><div class=\"bar\" style=\"width:{width:.2}rem\"></div></td><td class=\"n\">{count}</td></tr>",
            page.lengths.label(*first)
        );
    }
    let _ = write!(
        html,
        "</table>\n<p>{}</p>\n<h2>Packing</h2>\n<p>{}</p>\n<h2>Findings</h2>\n<pre>{}</pre>\n",
        escape(&page.lengths.summary()),
        escape(&page.packing),
        escape(&page.lint)
    );
    page::page(&page.name, STYLE, &html)
}

fn span(place: usize, token: &ShownToken) -> String {
    let on = if token.trained { " on" } else { "" };
    let special = if token.special { " special" } else { "" };
    format!(
        "<span class=\"t{on}{special}\" title=\"token {place}, id {}\">{}</span>",
        token.id,
        escape(&visible(&token.text))
    )
}
