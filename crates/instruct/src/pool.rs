//! All instructions so far: those of the seeds, then those that were generated and kept.

use simmer_data::Random;
use simmer_rouge::Similarity;

use crate::filter::Reason;
use crate::seeds::Seeds;

/// How many of the most similar instructions are recorded, as the original programs do.
const NEAREST: usize = 10;

/// The instructions.
pub(crate) struct Pool {
    texts: Vec<String>,
    similarity: Similarity,
    seeds: usize,
    limit: f64,
}

/// How similar a kept instruction is to those before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Place {
    /// The most similar ones, by their numbers in the pool.
    pub(crate) nearest: Vec<(usize, f64)>,
    /// The mean of the scores with all.
    pub(crate) mean: f64,
}

impl Pool {
    pub(crate) fn new(seeds: &Seeds, limit: f64) -> Self {
        let mut similarity = Similarity::default();
        let texts: Vec<String> = seeds
            .all
            .iter()
            .map(|seed| seed.instruction.clone())
            .collect();
        for text in &texts {
            similarity.push(text);
        }
        Self {
            seeds: texts.len(),
            texts,
            similarity,
            limit,
        }
    }

    /// The number of generated instructions.
    pub(crate) fn generated(&self) -> usize {
        self.texts.len() - self.seeds
    }

    /// An instruction by its number.
    pub(crate) fn text(&self, number: usize) -> &str {
        &self.texts[number]
    }

    /// All instructions.
    pub(crate) fn into_texts(self) -> Vec<String> {
        self.texts
    }

    /// Adds an instruction, unless it is similar to one before it.
    pub(crate) fn add(&mut self, instruction: &str) -> Result<Place, Reason> {
        let similar = self.similarity.compare(instruction);
        let max = similar.max();
        if max > self.limit {
            return Err(Reason::Similar(max));
        }
        self.similarity.push(instruction);
        self.texts.push(instruction.to_owned());
        Ok(Place {
            nearest: similar.nearest(NEAREST),
            mean: similar.mean(),
        })
    }

    /// The instructions of a prompt: `generated` generated ones, or as many as there are, the rest from the seeds, shuffled.
    pub(crate) fn sample(&self, count: usize, generated: usize, random: &mut Random) -> Vec<usize> {
        let own = sample(self.generated(), generated, random);
        let mut chosen: Vec<usize> = own.into_iter().map(|number| self.seeds + number).collect();
        chosen.extend(sample(self.seeds, count - chosen.len(), random));
        let order = random.permutation(chosen.len());
        order.into_iter().map(|place| chosen[place]).collect()
    }
}

/// Distinct numbers below `of`, at most as many as there are, in random order.
pub(crate) fn sample(of: usize, count: usize, random: &mut Random) -> Vec<usize> {
    if count * 4 >= of {
        let mut order = random.permutation(of);
        order.truncate(count);
        return order;
    }
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let number = random.below(of as u64) as usize;
        if !chosen.contains(&number) {
            chosen.push(number);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_distinct_and_reach_all() {
        let mut random = Random::new(1, 2);
        let mut counts = [0; 20];
        for _ in 0..2000 {
            let mut chosen = sample(20, 3, &mut random);
            for number in &chosen {
                counts[*number] += 1;
            }
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), 3);
        }
        // 300 each, standard deviation 16
        assert!(
            counts.iter().all(|count| (220..380).contains(count)),
            "{counts:?}"
        );
        assert_eq!(sample(2, 5, &mut random).len(), 2);
    }
}
