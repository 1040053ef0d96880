//! Tables for a terminal: if one is wider, its widest column of text is shortened.

use std::ops::Range;

use console::measure_text_width;

/// The space between two columns.
const GAP: usize = 2;
/// The narrowest that a column of text gets, with its ellipsis.
const NARROWEST: usize = 8;

/// Text whose tables fit into a terminal of so many columns, as far as shorter texts make them fit.
///
/// A table is two lines or more with the same gaps. A last column that lines can be broken in, as [`folded`] does it, is not
/// shortened.
///
/// [`folded`]: crate::folded::folded
pub(crate) fn fitted(text: &str, columns: usize) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let fits = |line: &&str| measure_text_width(line) <= columns;
    if lines.iter().all(fits) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(lines.len());
    for block in lines.chunk_by(|a, b| is_row(a) && is_row(b)) {
        let table = (block.len() > 1 && !block.iter().all(fits))
            .then(|| shortened(block, columns))
            .flatten();
        out.extend(table.unwrap_or_else(|| block.iter().map(|&line| line.to_owned()).collect()));
    }
    out.join("\n")
}

/// Whether a line may be one of a table. A character of a table is one column wide, and has no colour.
fn is_row(line: &str) -> bool {
    line.trim().contains("  ") && measure_text_width(line) == line.chars().count()
}

/// The lines with one column shortened; `None` if that does not make them fit.
fn shortened(lines: &[&str], columns: usize) -> Option<Vec<String>> {
    let rows: Vec<Vec<char>> = lines.iter().map(|line| line.chars().collect()).collect();
    let width = rows.iter().map(Vec::len).max()?;
    let cells = cells(&rows, width);
    let last = cells.last()?;
    // there, lines are broken and go on below
    if cells.len() < 2 || last.start <= columns / 2 && !is_numbers(&rows, last) {
        return None;
    }
    let texts = cells.iter().filter(|cell| !is_numbers(&rows, cell));
    let widest = texts.max_by_key(|cell| cell.len())?;
    let room = widest.len().checked_sub(width - columns)?;
    if room < NARROWEST {
        return None;
    }
    let line = |row: &Vec<char>| {
        let part =
            |range: Range<usize>| row.get(range.start.min(row.len())..range.end.min(row.len()));
        let cell = part(widest.clone()).unwrap_or_default();
        let text: String = cell.iter().collect();
        let text = text.trim_end();
        let mut out: String = part(0..widest.start).unwrap_or_default().iter().collect();
        if text.chars().count() > room {
            out.extend(text.chars().take(room - 1));
            out.push('…');
        } else {
            out.push_str(text);
        }
        let after = part(widest.end..row.len()).unwrap_or_default();
        if !after.is_empty() {
            let missing = (widest.start + room).saturating_sub(out.chars().count());
            out.extend(std::iter::repeat_n(' ', missing));
            out.extend(after);
        }
        out
    };
    Some(rows.iter().map(line).collect())
}

/// The columns of a table: where not all rows have spaces.
fn cells(rows: &[Vec<char>], width: usize) -> Vec<Range<usize>> {
    let blank = |at: usize| rows.iter().all(|row| row.get(at).is_none_or(|&c| c == ' '));
    let mut cells: Vec<Range<usize>> = Vec::new();
    for at in (0..width).filter(|&at| !blank(at)) {
        match cells.last_mut() {
            Some(cell) if at < cell.end + GAP => cell.end = at + 1,
            _ => cells.push(at..at + 1),
        }
    }
    cells
}

/// Whether a column has numbers only, but for its title.
fn is_numbers(rows: &[Vec<char>], cell: &Range<usize>) -> bool {
    rows.iter().skip(1).all(|row| {
        let text = row.get(cell.start.min(row.len())..cell.end.min(row.len()));
        let text: String = text.unwrap_or_default().iter().collect();
        let text = text.trim();
        text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit() || "+-[".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_text_of_a_table_is_shortened() {
        let table = "tasks:\n\
                     task                            metric    base    tuned\n\
                     questions/of/the/kitchen/texts  accuracy  0.2500  0.7500\n\
                     short                           accuracy  0.5000  0.6250\n\n\
                     A note that has two  spaces, and that is longer than the terminal is wide";
        insta::assert_snapshot!(fitted(table, 44), @"
        tasks:
        task                metric    base    tuned
        questions/of/the/…  accuracy  0.2500  0.7500
        short               accuracy  0.5000  0.6250

        A note that has two  spaces, and that is longer than the terminal is wide
        ");
        // it has room, or it has too little
        assert_eq!(fitted(table, 80), table);
        assert_eq!(fitted(table, 30), table);
        // lines are broken in the last column
        let list = "name   what it is, in many words of text\nother  another one";
        assert_eq!(fitted(list, 30), list);
        // colours and wide characters stay
        let colours = table.replace("short", "\u{1b}[1mshort\u{1b}[0m");
        assert!(fitted(&colours, 44).contains("\u{1b}[1mshort\u{1b}[0m  "));
    }
}
