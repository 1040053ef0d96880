//! Lists cut into groups that are computed together.

/// Groups of items that follow each other, each with a total size of at most `most`; a larger item is a group of its own.
pub(crate) fn groups<T>(
    mut items: &[T],
    most: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        if items.is_empty() {
            return None;
        }
        let mut total = 0;
        let fitting = items.iter().take_while(|item| {
            total += size(item);
            total <= most
        });
        let (now, later) = items.split_at(fitting.count().max(1));
        items = later;
        Some(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_what_fits() {
        let of = |items: &[usize]| -> Vec<Vec<usize>> {
            let groups = groups(items, 7, |item| *item);
            groups.map(<[usize]>::to_vec).collect()
        };
        assert!(of(&[]).is_empty());
        assert_eq!(
            of(&[3, 4, 1, 9, 0, 7, 2]),
            [vec![3, 4], vec![1], vec![9], vec![0, 7], vec![2]]
        );
    }
}
