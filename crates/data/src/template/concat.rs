//! Operators of texts as Python computes them: `~`, `+` and `%`.
//!
//! minijinja turns the operands of `~` into text itself, and writes some floats and lists otherwise than Python. So a
//! template's source is changed before it is compiled: `a ~ b` becomes `(a)|string ~ (b)|string`, with our filter
//! `string`. Also, a text that is marked as `safe` escapes the texts that are added to it: `'<'|safe + a` becomes
//! `'<'|safe + (a)|escape`. `a % b`, which formats texts, becomes `(a)|__mod__(b)`. No line is moved, so line numbers in errors stay right.

use std::ops::Range;

/// The source with the filters that compute operators as Python does.
pub(super) fn as_in_python(source: &str) -> String {
    // It binds its operands first.
    let source = with_filter(source, Join::Percent);
    let source = with_filter(&source, Join::Tilde);
    if source.contains("safe") {
        return with_filter(&source, Join::Plus);
    }
    source
}

/// An operator of texts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    /// `~`, whose operands become texts.
    Tilde,
    /// `+`, whose operands are escaped if one is `safe`, as those of markupsafe's `Markup.__add__`.
    Plus,
    /// `%`, which formats a text or is the remainder of numbers.
    Percent,
}

/// The source with a filter on the operands of an operator.
fn with_filter(source: &str, join: Join) -> String {
    if !source.contains(join.operator()) {
        return source.to_owned();
    }
    let mut edits = Vec::new();
    let mut at = 0;
    while let Some((kind, start)) = opening(source, at) {
        at = match kind {
            Tag::Comment => after(source, start, "#}"),
            Tag::Print | Tag::Block => {
                let mut scan = Scan::new(source, start, kind, join);
                let end = scan.run();
                edits.append(&mut scan.edits);
                let tag = source[start..end].trim_matches(['-', '+', ' ', '\t', '\n', '\r']);
                match tag.split(|c: char| !c.is_alphanumeric()).next() {
                    Some("raw") if kind == Tag::Block => raw_end(source, end),
                    _ => end,
                }
            }
        };
    }
    edits.sort_by_key(|edit: &Edit| edit.place);
    let (mut out, mut done) = (String::with_capacity(source.len()), 0);
    for Edit {
        place,
        removed,
        text,
    } in edits
    {
        out.push_str(&source[done..place]);
        out.push_str(text);
        done = place + removed;
    }
    out.push_str(&source[done..]);
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// `{{ }}`
    Print,
    /// `{% %}`
    Block,
    /// `{# #}`
    Comment,
}

/// The next tag, and the place after its opening delimiter.
fn opening(source: &str, from: usize) -> Option<(Tag, usize)> {
    let mut at = from;
    loop {
        at += source.get(at..)?.find('{')?;
        let kind = match source.as_bytes().get(at + 1) {
            Some(b'{') => Tag::Print,
            Some(b'%') => Tag::Block,
            Some(b'#') => Tag::Comment,
            _ => {
                at += 1;
                continue;
            }
        };
        return Some((kind, at + 2));
    }
}

/// The place after the next `end`, or the end of the source.
fn after(source: &str, from: usize, end: &str) -> usize {
    let found = source[from..].find(end);
    found.map_or(source.len(), |place| from + place + end.len())
}

/// The place of the tag that ends a raw block, or the end of the source.
fn raw_end(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(place) = source[at..].find("{%") {
        at += place + 2;
        let word = source[at..].trim_start_matches(['-', '+', ' ', '\t', '\n', '\r']);
        if word.starts_with("endraw") {
            return at;
        }
    }
    source.len()
}

impl Join {
    fn operator(self) -> char {
        match self {
            Join::Tilde => '~',
            Join::Plus => '+',
            Join::Percent => '%',
        }
    }

    /// The filter of an operand; `None` if it needs none.
    fn filter(self, operand: &str, all: &[&str]) -> Option<&'static str> {
        let is_safe = |operand: &str| {
            let filtered = operand.strip_suffix("safe").map(str::trim_end);
            filtered.is_some_and(|filtered| filtered.ends_with('|'))
        };
        match self {
            Join::Tilde => (!is_literal(operand)).then_some(")|string"),
            Join::Plus => {
                let escapes = all.iter().any(|operand| is_safe(operand));
                (escapes && !is_safe(operand)).then_some(")|escape")
            }
            // Its operands are those of a call.
            Join::Percent => None,
        }
    }
}

/// The operands of an operator so far at one depth of brackets.
#[derive(Default)]
struct Operands {
    found: Vec<Range<usize>>,
    current: Option<Range<usize>>,
    operators: usize,
    /// The operators `*`, `/`, `//` and `%` in the current operand: where they are, and whether they are `%`.
    products: Vec<(usize, bool)>,
}

/// A change of the source: a text in the place of `removed` bytes.
struct Edit {
    place: usize,
    removed: usize,
    text: &'static str,
}

impl Edit {
    fn insert(place: usize, text: &'static str) -> Edit {
        Edit {
            place,
            removed: 0,
            text,
        }
    }
}

/// A scan of the expressions in one tag.
struct Scan<'s> {
    source: &'s str,
    at: usize,
    kind: Tag,
    join: Join,
    levels: Vec<Operands>,
    /// The last word, or a closing bracket; empty after an operator.
    last: &'s str,
    /// The word before that.
    earlier: &'s str,
    edits: Vec<Edit>,
}

/// Words that end an operand.
const WORDS: [&str; 6] = ["and", "or", "not", "in", "if", "else"];

impl<'s> Scan<'s> {
    fn new(source: &'s str, at: usize, kind: Tag, join: Join) -> Scan<'s> {
        // The sign of white space control belongs to the delimiter.
        let sign = source[at..].starts_with(['-', '+']);
        Scan {
            source,
            at: at + usize::from(sign),
            kind,
            join,
            levels: vec![Operands::default()],
            last: "",
            earlier: "",
            edits: Vec::new(),
        }
    }

    /// Scans to the end of the tag, and returns the place after it.
    fn run(&mut self) -> usize {
        let mut first = self.kind == Tag::Block;
        while let Some(character) = self.source[self.at..].chars().next() {
            if let Some(end) = self.closed() {
                self.finish();
                return end;
            }
            match character {
                '"' | '\'' => self.token(self.string(character), "''"),
                '(' | '[' | '{' => {
                    self.token(1, "");
                    self.levels.push(Operands::default());
                }
                ')' | ']' | '}' => {
                    self.finish();
                    if self.levels.len() > 1 {
                        self.levels.pop();
                    }
                    self.token(1, ")");
                }
                c if c.is_whitespace() => self.at += c.len_utf8(),
                c if c.is_alphanumeric() || c == '_' => self.word(&mut first),
                '*' | '/' | '%' if self.join == Join::Percent => self.product(character),
                '~' if self.join == Join::Percent => self.end_operand(),
                c if c == self.join.operator() => self.operator(),
                // `~` binds its operands first.
                '~' => self.token(1, ""),
                ',' | ':' | '=' | '<' | '>' | '!' | '+' => self.end_operand(),
                // A sign before a number is a part of the operand.
                '-' if !self.last.is_empty() => self.end_operand(),
                c => self.token(c.len_utf8(), ""),
            }
        }
        self.source.len()
    }

    /// The place after the tag's end, if it is here and no bracket is open.
    fn closed(&self) -> Option<usize> {
        let rest = &self.source[self.at..];
        let end = if self.kind == Tag::Print { "}}" } else { "%}" };
        let signs = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        (self.levels.len() == 1 && signs.starts_with(end))
            .then(|| self.at + rest.len() - signs.len() + end.len())
    }

    /// The length of the string literal here.
    fn string(&self, quote: char) -> usize {
        let mut escaped = false;
        for (place, character) in self.source[self.at..].char_indices().skip(1) {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => return place + c.len_utf8(),
                _ => {}
            }
        }
        self.source.len() - self.at
    }

    fn word(&mut self, first: &mut bool) {
        let rest = &self.source[self.at..];
        let number = rest.starts_with(|c: char| c.is_ascii_digit());
        let mut exponent = false;
        let length = rest.find(|c: char| {
            let part = c.is_alphanumeric() || c == '_' || number && c == '.';
            let sign = number && exponent && (c == '-' || c == '+');
            exponent = matches!(c, 'e' | 'E');
            !(part || sign)
        });
        let length = length.unwrap_or(rest.len());
        let word = &rest[..length];
        // `is not defined` and `is in list` belong to the operand.
        let test = self.last == "is" || self.last == "not" && self.earlier == "is";
        let ends = WORDS.contains(&word) && !test;
        if ends || *first {
            self.end_operand_of(length);
            if ends {
                // What follows starts an operand.
                self.last = "";
            }
        } else {
            self.token(length, word);
        }
        *first = false;
    }

    /// A token of `length` bytes in the current operand.
    fn token(&mut self, length: usize, last: &'s str) {
        let (start, end) = (self.at, self.at + length);
        if let Some(level) = self.levels.last_mut() {
            match &mut level.current {
                Some(current) => current.end = end,
                None => level.current = Some(start..end),
            }
        }
        self.at = end;
        self.earlier = std::mem::replace(&mut self.last, last);
    }

    fn operator(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.operators += 1;
            level.found.extend(level.current.take());
        }
        self.at += 1;
        self.last = "";
    }

    /// An operator that binds as `%` does, or `**`, which binds first.
    fn product(&mut self, character: char) {
        let double = character != '%' && self.source[self.at + 1..].starts_with(character);
        if let Some(level) = self.levels.last_mut()
            && level.current.is_some()
            && !(double && character == '*')
        {
            level.products.push((self.at, character == '%'));
        }
        self.token(if double { 2 } else { 1 }, "");
    }

    /// Turns each `%` of a chain into a call of the filter, with everything before it in brackets.
    fn remainders(&mut self, operand: &Range<usize>, products: &[(usize, bool)]) {
        let ends = products.iter().skip(1).map(|(place, _)| *place);
        let ends = ends.chain([operand.end]);
        for ((place, _), end) in products
            .iter()
            .zip(ends)
            .filter(|((_, percent), _)| *percent)
        {
            let right = self.source[place + 1..end].trim_end();
            // A missing operand is an error, which the unchanged source shows.
            if right.is_empty() {
                return;
            }
            self.edits.push(Edit::insert(operand.start, "("));
            self.edits.push(Edit {
                place: *place,
                removed: 1,
                text: ")|__mod__(",
            });
            self.edits.push(Edit::insert(place + 1 + right.len(), ")"));
        }
    }

    /// Ends the chain of operands at an operator of one character.
    fn end_operand(&mut self) {
        self.end_operand_of(1);
        self.last = "";
    }

    fn end_operand_of(&mut self, length: usize) {
        self.finish();
        self.at += length;
    }

    /// Puts the filter on the operands of this chain.
    fn finish(&mut self) {
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        let Operands {
            mut found,
            current,
            operators,
            products,
        } = std::mem::take(level);
        if let Some(operand) = &current {
            self.remainders(operand, &products);
        }
        found.extend(current);
        // A missing operand is an error, which the unchanged source shows.
        if operators > 0 && found.len() == operators + 1 {
            let all: Vec<&str> = found
                .iter()
                .map(|part| &self.source[part.clone()])
                .collect();
            for (operand, text) in found.iter().zip(&all) {
                if let Some(filter) = self.join.filter(text, &all) {
                    self.edits.push(Edit::insert(operand.start, "("));
                    self.edits.push(Edit::insert(operand.end, filter));
                }
            }
        }
    }
}

/// Whether an operand is one string literal, whose text is known.
fn is_literal(operand: &str) -> bool {
    let mut quotes = operand.chars();
    let quote = quotes.next();
    matches!(quote, Some('"' | '\''))
        && quote == operand.chars().next_back()
        && operand.chars().filter(|&c| Some(c) == quote).count() == 2
        && !operand.contains('\\')
}

#[cfg(test)]
mod tests {
    use super::{Join, as_in_python, with_filter};

    #[test]
    fn operands_get_the_filter() {
        let same = [
            "a ~ b",
            "{# a ~ b #}",
            "{% raw %}{{ a ~ b }}{%- endraw %}",
            "{{ '~' }}",
            "{{ a ~ }}",
            "{{ 'a' ~ \"b\" }}",
        ];
        for source in same {
            assert_eq!(as_in_python(source), source);
        }
        for (source, expected) in [
            ("{{ a ~ b }}", "{{ (a)|string ~ (b)|string }}"),
            ("{{- 'x' ~ a.b['~'] -}}", "{{- 'x' ~ (a.b['~'])|string -}}"),
            (
                "{{ a|trim ~ 2 * x ~ -1 + 1e-7 ~ y }}",
                "{{ (a|trim)|string ~ (2 * x)|string ~ (-1)|string + (1e-7)|string ~ (y)|string }}",
            ),
            (
                "{% if a ~ b == c and not d ~ e in f %}{{ f(x ~ 1, k=[y ~ 2]) }}",
                "{% if (a)|string ~ (b)|string == c and not (d)|string ~ (e)|string in f %}\
                 {{ f((x)|string ~ (1)|string, k=[(y)|string ~ (2)|string]) }}",
            ),
            (
                "{% set x = a ~ (b ~ c) if y is not defined else d ~ e is none %}",
                "{% set x = (a)|string ~ (((b)|string ~ (c)|string))|string if y is not defined \
                 else (d)|string ~ (e is none)|string %}",
            ),
            (
                "{% for m in [a ~ '}}'] %}{{ {'k': m ~ 'é'} }}{% raw %}{{ a ~ b }}{% endraw %}{{ c ~ d }}",
                "{% for m in [(a)|string ~ '}}'] %}{{ {'k': (m)|string ~ 'é'} }}{% raw %}{{ a ~ b }}{% endraw %}\
                 {{ (c)|string ~ (d)|string }}",
            ),
        ] {
            assert_eq!(as_in_python(source), expected);
        }
    }

    #[test]
    fn a_safe_text_escapes_what_is_added() {
        for (source, expected) in [
            ("{{ a + b }}{{ safe + c }}", "{{ a + b }}{{ safe + c }}"),
            (
                "{{ 'x'|safe + a['b'] + '<'|safe + t | tojson() }}",
                "{{ 'x'|safe + (a['b'])|escape + '<'|safe + (t | tojson())|escape }}",
            ),
            (
                "{{ f('<' + a | safe, b + c) - (d|safe + 1 * e) }}",
                "{{ f(('<')|escape + a | safe, b + c) - (d|safe + (1 * e)|escape) }}",
            ),
            (
                "{% set x = -1 + a|safe ~ b if c + d %}",
                "{% set x = -1 + (a|safe)|string ~ (b)|string if c + d %}",
            ),
        ] {
            assert_eq!(as_in_python(source), expected);
        }
    }

    #[test]
    fn a_remainder_becomes_a_call() {
        for (source, expected) in [
            (
                "{% if a %}{{ '%' }}{# a % b #}{% endif %}",
                "{% if a %}{{ '%' }}{# a % b #}{% endif %}",
            ),
            ("{{ a % }}{{ % b }}", "{{ a % }}{{ % b }}"),
            (
                "{{ 'x %s' % a.b['k']|trim }}",
                "{{ ('x %s' )|__mod__( a.b['k']|trim) }}",
            ),
            (
                "{% if loop.index0 % 2 == 1 and not 2 * x % -y**2 * z -%}",
                "{% if (loop.index0 )|__mod__( 2) == 1 and not (2 * x )|__mod__( -y**2) * z -%}",
            ),
            (
                "{{ a - b % c % (d % e) ~ f }}",
                "{{ a - ((b )|__mod__( c) )|__mod__( ((d )|__mod__( e))) ~ f }}",
            ),
            (
                "{% set x = '%s' % (a, 1) if b else c //d%e %}",
                "{% set x = ('%s' )|__mod__( (a, 1)) if b else (c //d)|__mod__(e) %}",
            ),
        ] {
            assert_eq!(with_filter(source, Join::Percent), expected);
        }
    }

    #[test]
    fn no_source_stops_the_scan() {
        for source in [
            "{{ a ~ 'b",
            "{{ a ~ (",
            "{% x ~ y",
            "{{ ) ~ a }}",
            "{{ ~",
            "{#~",
            "{{'\\",
            "{{ a + 'b'|safe + }}",
            "{{ safe + (",
        ] {
            as_in_python(source);
            with_filter(source, Join::Plus);
            with_filter(&source.replace(['~', '+'], "%"), Join::Percent);
        }
    }
}
