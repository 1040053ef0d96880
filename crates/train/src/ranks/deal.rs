//! Deals the micro-batches of a step to ranks.

use std::ops::Range;

/// One range of micro-batches for each rank, one after another, so that the largest share has as few tokens as possible. Every
/// rank has a micro-batch if there are enough.
pub(crate) fn deal(tokens: &[usize], ranks: usize) -> Vec<Range<usize>> {
    let (mut least, mut most) = (
        tokens.iter().copied().max().unwrap_or(0),
        tokens.iter().sum::<usize>(),
    );
    while least < most {
        let middle = least + (most - least) / 2;
        if shares(tokens, ranks, middle).is_some() {
            most = middle;
        } else {
            least = middle + 1;
        }
    }
    shares(tokens, ranks, most).unwrap_or_else(|| vec![0..tokens.len(); 1])
}

/// Shares of at most so many tokens each, if they hold all.
fn shares(tokens: &[usize], ranks: usize, most: usize) -> Option<Vec<Range<usize>>> {
    let mut all = Vec::with_capacity(ranks);
    let mut start = 0;
    for rank in 0..ranks {
        let after = ranks - rank - 1;
        // one stays for each of the others
        let end_of_all = tokens.len().saturating_sub(after).max(start);
        let mut end = start;
        let mut sum = 0;
        while end < end_of_all && sum + tokens[end] <= most {
            sum += tokens[end];
            end += 1;
        }
        // with fewer micro-batches than ranks the first ones have one each
        if end == start && start < tokens.len() && tokens[start] <= most {
            end += 1;
        }
        all.push(start..end);
        start = end;
    }
    (start == tokens.len()).then_some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_micro_batch_is_dealt_once(
            tokens in prop::collection::vec(1..50_usize, 0..20),
            ranks in 1..9_usize,
        ) {
            let dealt = deal(&tokens, ranks);
            prop_assert_eq!(dealt.len(), ranks);
            let all: Vec<usize> = dealt.iter().cloned().flatten().collect();
            prop_assert_eq!(all, (0..tokens.len()).collect::<Vec<_>>());
            let idle = dealt.iter().filter(|share| share.is_empty()).count();
            prop_assert_eq!(idle, ranks.saturating_sub(tokens.len()));
            prop_assert!(tokens.is_empty() || !dealt[0].is_empty());
        }
    }

    #[test]
    fn shares_have_like_numbers_of_tokens() {
        assert_eq!(deal(&[4, 4, 4, 4], 2), [0..2, 2..4]);
        assert_eq!(deal(&[9, 1, 1, 1, 6], 2), [0..1, 1..5]);
        assert_eq!(deal(&[9, 1, 1, 1, 6], 3), [0..1, 1..4, 4..5]);
        assert_eq!(deal(&[5], 3), [0..1, 1..1, 1..1]);
    }
}
