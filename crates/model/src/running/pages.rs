//! The places of a cache that texts hold, in pages.
//!
//! Source: Kwon et al. 2023 (PagedAttention), section 4.

use std::collections::BTreeSet;
use std::ops::Range;

/// Tokens per page of a cache.
pub const PAGE: usize = 64;

/// The pages of a cache.
#[derive(Debug)]
pub(super) struct Pages {
    /// How many texts hold each page that was ever used.
    holders: Vec<u32>,
    /// Pages that were used, and are held by no text.
    free: BTreeSet<usize>,
    /// The most pages.
    most: usize,
}

/// Where the keys of a text are.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    /// The pages that the text holds, its own and those of a text that it begins like.
    pages: Vec<usize>,
    /// Its places, in order of position.
    pub(super) ranges: Vec<Range<usize>>,
    /// The rest of its last page.
    room: Range<usize>,
}

impl Pages {
    /// Pages for up to `places` tokens.
    pub(super) fn new(places: usize) -> Self {
        Self {
            holders: Vec::new(),
            free: BTreeSet::new(),
            most: places.div_ceil(PAGE),
        }
    }

    /// Number of pages that no text holds.
    pub(super) fn left(&self) -> usize {
        self.free.len() + self.most.saturating_sub(self.holders.len())
    }

    /// Number of places before the end of the last page that was ever used.
    pub(super) fn end(&self) -> usize {
        self.holders.len() * PAGE
    }

    /// The first page that no text holds; `None` if there is none.
    pub(super) fn take(&mut self) -> Option<usize> {
        if let Some(page) = self.free.pop_first() {
            self.holders[page] = 1;
            return Some(page);
        }
        (self.holders.len() < self.most).then(|| {
            self.holders.push(1);
            self.holders.len() - 1
        })
    }

    fn share(&mut self, page: usize) {
        self.holders[page] += 1;
    }

    /// Gives back the pages of a text.
    pub(super) fn release(&mut self, keys: &mut Keys) {
        for page in std::mem::take(keys).pages {
            self.holders[page] -= 1;
            if self.holders[page] == 0 {
                self.free.insert(page);
            }
        }
    }

    /// The first `count` keys of another text. What follows goes to pages of its own.
    pub(super) fn beginning(&mut self, of: &Keys, count: usize) -> Keys {
        let mut keys = Keys::default();
        let mut left = count;
        for range in &of.ranges {
            let taken = range.start..range.end.min(range.start + left);
            left -= taken.len();
            if taken.is_empty() {
                break;
            }
            for page in taken.start / PAGE..taken.end.div_ceil(PAGE) {
                self.share(page);
                keys.pages.push(page);
            }
            keys.ranges.push(taken);
        }
        keys
    }
}

impl Keys {
    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// How many new pages `count` more keys need.
    pub(super) fn pages_for(&self, count: usize) -> usize {
        count.saturating_sub(self.room.len()).div_ceil(PAGE)
    }

    /// The places of `count` more keys; fewer if there are no more pages.
    pub(super) fn grow(&mut self, count: usize, pages: &mut Pages) -> Vec<usize> {
        let mut places = Vec::with_capacity(count);
        while places.len() < count {
            if self.room.is_empty() {
                let Some(page) = pages.take() else { break };
                self.pages.push(page);
                self.room = page * PAGE..(page + 1) * PAGE;
            }
            let taken = (count - places.len()).min(self.room.len());
            let new = self.room.start..self.room.start + taken;
            self.room.start = new.end;
            places.extend(new.clone());
            match self.ranges.last_mut() {
                Some(last) if last.end == new.start => last.end = new.end,
                _ => self.ranges.push(new),
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_grows_through_pages_that_follow_each_other() {
        let mut pages = Pages::new(4 * PAGE);
        let mut keys = Keys::default();
        assert_eq!(keys.grow(100, &mut pages), (0..100).collect::<Vec<_>>());
        assert_eq!(keys.pages_for(28), 0);
        assert_eq!(keys.pages_for(29), 1);
        assert_eq!(keys.grow(30, &mut pages), (100..130).collect::<Vec<_>>());
        assert_eq!(keys.ranges, vec![0..130; 1]);
        assert_eq!((pages.left(), pages.end()), (1, 3 * PAGE));
    }

    #[test]
    fn a_page_is_free_when_no_text_holds_it() {
        let mut pages = Pages::new(3 * PAGE);
        let mut first = Keys::default();
        let _ = first.grow(70, &mut pages);
        let mut second = pages.beginning(&first, 65);
        assert_eq!(second.ranges, vec![0..65; 1]);
        // the rest of the second page belongs to the first text
        assert_eq!(second.grow(2, &mut pages), [128, 129]);
        assert_eq!(second.len(), 67);
        pages.release(&mut first);
        assert_eq!(pages.left(), 0);
        assert!(Keys::default().grow(1, &mut pages).is_empty());
        pages.release(&mut second);
        assert_eq!(pages.left(), 3);
        assert_eq!(Keys::default().grow(1, &mut pages), [0]);
    }

    #[test]
    fn a_beginning_may_end_with_a_page() {
        let mut pages = Pages::new(4 * PAGE);
        let mut first = Keys::default();
        let _ = first.grow(2 * PAGE, &mut pages);
        let mut second = pages.beginning(&first, PAGE);
        pages.release(&mut first);
        assert_eq!(pages.left(), 3);
        assert_eq!(second.grow(1, &mut pages), [PAGE]);
        assert_eq!(second.ranges, vec![0..PAGE + 1; 1]);
        assert_eq!(pages.beginning(&second, 0).len(), 0);
    }
}
