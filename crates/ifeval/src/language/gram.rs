//! Groups of one to three characters, the same for characters that tell the same.

/// An n-gram in one number: 21 bits a character, the last one lowest.
pub(super) type Gram = u64;

const BITS: u32 = 21;

/// The number of some characters.
pub(super) fn gram(chars: impl Iterator<Item = char>) -> Gram {
    chars.fold(0, |gram, char| gram << BITS | u64::from(u32::from(char)))
}

/// The last characters of a word, with the space before it.
pub(super) struct Window {
    chars: Vec<char>,
    /// Whether these are capitals of a word in capitals, which tell nothing.
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

    /// Adds a normal character.
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
        // one capital after a letter that is none leaves the word as it is
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

/// A character as the profiles have it, but for Chinese ones.
pub(super) fn normal(char: char) -> char {
    match char {
        'A'..='Z' | 'a'..='z' => char,
        '\0'..='\x7f' | '\u{a0}' | '«' | '°' | '»' | '\u{2000}'..='\u{206f}' => ' ',
        // Romanian: a comma below, or a cedilla
        'ș' => 'ş',
        'ț' => 'ţ',
        // the yeh of Persian and that of Arabic
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

/// Vietnamese letters and the signs of tones after them, made one character.
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
