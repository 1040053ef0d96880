//! N-grams of one to three characters, after normalisation.

/// An n-gram as a number: 21 bits per character, the last character in the lowest bits.
pub(super) type Gram = u64;

const BITS: u32 = 21;

/// The number of an n-gram.
pub(super) fn gram(chars: impl Iterator<Item = char>) -> Gram {
    chars.fold(0, |gram, char| gram << BITS | u64::from(u32::from(char)))
}

/// The last characters of a word, including the space before it.
pub(super) struct Window {
    chars: Vec<char>,
    /// Whether they belong to a word in capitals, which is ignored.
    capitals: bool,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            chars: vec![' '],
            capitals: false,
        }
    }

    fn last(&self) -> char {
        self.chars.last().copied().unwrap_or(' ')
    }

    /// Adds a normalised character.
    pub(super) fn push(&mut self, char: char) {
        let last = self.last();
        if last == ' ' {
            *self = Self::new();
            if char == ' ' {
                return;
            }
        } else if self.chars.len() == 3 {
            self.chars.remove(0);
        }
        self.chars.push(char);
        // a capital after another kind of letter changes nothing
        if !char.is_uppercase() {
            self.capitals = false;
        } else if last.is_uppercase() {
            self.capitals = true;
        }
    }

    /// The n-grams that end here.
    pub(super) fn grams(&self) -> impl Iterator<Item = Gram> {
        let longest = if self.capitals { 0 } else { self.chars.len() };
        (1..=longest).map(|count| gram(self.chars[self.chars.len() - count..].iter().copied()))
    }
}

/// The normalised character, except for Chinese characters.
pub(super) fn normal(char: char) -> char {
    match char {
        'A'..='Z' | 'a'..='z' => char,
        '\0'..='\x7f' | '\u{a0}' | '«' | '°' | '»' | '\u{2000}'..='\u{206f}' => ' ',
        // Romanian: comma below instead of cedilla
        'ș' => 'ş',
        'ț' => 'ţ',
        // the Persian yeh as the Arabic yeh
        '\u{6cc}' => '\u{64a}',
        '\u{1ea0}'..='\u{1eff}' => '\u{1ec3}',
        '\u{3040}'..='\u{309f}' => '\u{3042}',
        '\u{30a0}'..='\u{30ff}' => '\u{30a2}',
        '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' => '\u{3105}',
        '\u{ac00}'..='\u{d7af}' => '\u{ac00}',
        _ => char,
    }
}

const VOWELS: &str = "AEIOUYaeiouyÂÊÔâêôĂăƠơƯư";
const TONES: [(char, &str); 5] = [
    ('\u{300}', "ÀÈÌÒÙỲàèìòùỳẦỀỒầềồẰằỜờỪừ"),
    ('\u{301}', "ÁÉÍÓÚÝáéíóúýẤẾỐấếốẮắỚớỨứ"),
    ('\u{303}', "ÃẼĨÕŨỸãẽĩõũỹẪỄỖẫễỗẴẵỠỡỮữ"),
    ('\u{309}', "ẢẺỈỎỦỶảẻỉỏủỷẨỂỔẩểổẲẳỞởỬử"),
    ('\u{323}', "ẠẸỊỌỤỴạẹịọụỵẬỆỘậệộẶặỢợỰự"),
];

/// Combines Vietnamese letters with the tone marks after them.
pub(super) fn compose_vietnamese(text: &str) -> String {
    let mut composed = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match chars.peek().and_then(|tone| with_tone(char, *tone)) {
            Some(one) => {
                composed.push(one);
                chars.next();
            }
            None => composed.push(char),
        }
    }
    composed
}

fn with_tone(vowel: char, tone: char) -> Option<char> {
    let (_, composed) = TONES.iter().find(|(sign, _)| *sign == tone)?;
    let index = VOWELS.chars().position(|char| char == vowel)?;
    composed.chars().nth(index)
}
