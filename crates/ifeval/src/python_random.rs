//! Python's `random`: MT19937 (Matsumoto and Nishimura, 1998). Programs that are compared with draw with it.

use std::collections::BTreeSet;

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// The generator `random.Random`.
#[derive(Debug, Clone)]
pub struct PythonRandom {
    state: [u32; SIZE],
    at: usize,
    /// The second of a pair of normally distributed numbers.
    normal: Option<f64>,
}

impl PythonRandom {
    /// The generator after `seed(number)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [0; SIZE];
        fill(&mut state, 19_650_218);
        let mut at = 1;
        for _ in 0..SIZE {
            // the key is one word, whose index is 0
            state[at] =
                (state[at] ^ mixed(state[at - 1]).wrapping_mul(1_664_525)).wrapping_add(seed);
            advance(&mut state, &mut at);
        }
        for _ in 1..SIZE {
            state[at] = (state[at] ^ mixed(state[at - 1]).wrapping_mul(1_566_083_941))
                .wrapping_sub(at as u32);
            advance(&mut state, &mut at);
        }
        state[0] = 1 << 31;
        Self {
            state,
            at: SIZE,
            normal: None,
        }
    }

    fn twist(&mut self) {
        for at in 0..SIZE {
            let bits = self.state[at] & 0x8000_0000 | self.state[(at + 1) % SIZE] & 0x7fff_ffff;
            let odd = if bits & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + MIDDLE) % SIZE] ^ bits >> 1 ^ odd;
        }
        self.at = 0;
    }

    fn next(&mut self) -> u32 {
        if self.at == SIZE {
            self.twist();
        }
        let mut bits = self.state[self.at];
        self.at += 1;
        bits ^= bits >> 11;
        bits ^= bits << 7 & 0x9d2c_5680;
        bits ^= bits << 15 & 0xefc6_0000;
        bits ^ bits >> 18
    }

    /// `random()`.
    fn unit(&mut self) -> f64 {
        let high = f64::from(self.next() >> 5);
        let low = f64::from(self.next() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// `gauss(0, 1)`.
    pub fn gauss(&mut self) -> f64 {
        if let Some(normal) = self.normal.take() {
            return normal;
        }
        let angle = self.unit() * std::f64::consts::TAU;
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        self.normal = Some(angle.sin() * radius);
        angle.cos() * radius
    }

    /// The index that `choice` returns for a list of `count` items.
    pub fn below(&mut self, count: usize) -> usize {
        let bits = usize::BITS - count.leading_zeros();
        loop {
            let index = (self.next() >> (u32::BITS - bits)) as usize;
            if index < count {
                return index;
            }
        }
    }

    /// The indices of the items that `sample(items, count)` returns, for a list of `items` items.
    ///
    /// # Panics
    /// If there are fewer items than `count`.
    pub fn sample(&mut self, items: usize, count: usize) -> Vec<usize> {
        assert!(count <= items, "{count} of {items} items");
        // as Python: a list of all where that is smaller than a set of those that were drawn
        let mut set = 21;
        if count > 5 {
            set += 4_usize.pow(((count * 3) as f64).log(4.0).ceil() as u32);
        }
        if items <= set {
            let mut all: Vec<usize> = (0..items).collect();
            return (0..count)
                .map(|drawn| {
                    let at = self.below(items - drawn);
                    let found = all[at];
                    all[at] = all[items - drawn - 1];
                    found
                })
                .collect();
        }
        let mut seen = BTreeSet::new();
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            let at = self.below(items);
            if seen.insert(at) {
                found.push(at);
            }
        }
        found
    }
}

fn fill(state: &mut [u32; SIZE], seed: u32) {
    state[0] = seed;
    for at in 1..SIZE {
        state[at] = mixed(state[at - 1])
            .wrapping_mul(1_812_433_253)
            .wrapping_add(at as u32);
    }
}

fn mixed(word: u32) -> u32 {
    word ^ word >> 30
}

fn advance(state: &mut [u32; SIZE], at: &mut usize) {
    *at += 1;
    if *at == SIZE {
        state[0] = state[SIZE - 1];
        *at = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values printed by Python 3.11.
    #[test]
    fn it_is_pythons() {
        let mut random = PythonRandom::new(0);
        let words: Vec<u32> = (0..3).map(|_| random.next()).collect();
        assert_eq!(words, [3_626_764_237, 1_654_615_998, 3_255_389_356]);
        let mut random = PythonRandom::new(0);
        assert!((random.gauss() - 0.941_715_404_680_664_4).abs() < 1e-15);
        assert!((random.gauss() + 1.396_578_104_701_149_8).abs() < 1e-15);
        let chosen: Vec<usize> = (0..4).map(|_| random.below(1000)).collect();
        assert_eq!(chosen, [430, 41, 265, 988]);
        let mut random = PythonRandom::new(1234);
        assert_eq!(random.sample(7473, 5), [6374, 3610, 957, 61, 742]);
        assert_eq!(random.sample(21, 5), [18, 1, 2, 3, 11]);
        assert_eq!(random.sample(22, 5), [7, 0, 11, 20, 19]);
        assert_eq!(random.sample(100, 8), [61, 78, 59, 19, 11, 23, 91, 14]);
        assert_eq!(random.sample(84, 8), [1, 64, 62, 31, 8, 69, 59, 79]);
        assert_eq!(random.sample(85, 8), [76, 11, 65, 74, 5, 34, 71, 8]);
        assert_eq!(random.sample(3, 3), [2, 1, 0]);
        assert_eq!(random.sample(7473, 64)[60..], [4774, 6688, 3834, 3898]);
    }
}
