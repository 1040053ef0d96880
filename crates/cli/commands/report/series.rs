//! Values over steps: thinned for an image, and smoothed.

/// A value at a step.
pub(super) type Point = (f64, f64);

/// At most about `4 · columns` points, which look the same in an image of that many columns: of each column the first,
/// the least, the greatest and the last. Values that are not finite are skipped.
///
/// Source: Jugel et al. 2014, M4: a visualization-oriented time series data aggregation.
pub(super) fn thinned(points: &[Point], columns: usize) -> Vec<Point> {
    let finite = points
        .iter()
        .copied()
        .filter(|(_, value)| value.is_finite());
    let finite: Vec<Point> = finite.collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else {
        return Vec::new();
    };
    if finite.len() <= 4 * columns {
        return finite;
    }
    let width = ((last.0 - first.0) / columns as f64).max(f64::MIN_POSITIVE);
    let column = |point: &Point| ((point.0 - first.0) / width) as usize;
    let mut kept = Vec::new();
    for group in finite.chunk_by(|a, b| column(a) == column(b)) {
        let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        let ends = [group.first(), group.last()];
        let extremes = [group.iter().min_by(by_value), group.iter().max_by(by_value)];
        let mut four: Vec<Point> = ends
            .into_iter()
            .chain(extremes)
            .flatten()
            .copied()
            .collect();
        four.sort_by(|a, b| a.0.total_cmp(&b.0));
        four.dedup();
        kept.extend(four);
    }
    kept
}

/// The moving average over `window` points, fewer at the ends.
pub(super) fn smoothed(points: &[Point], window: usize) -> Vec<Point> {
    let finite: Vec<Point> = points
        .iter()
        .copied()
        .filter(|(_, value)| value.is_finite())
        .collect();
    let mut sums = vec![0.0];
    for (_, value) in &finite {
        sums.push(sums[sums.len() - 1] + value);
    }
    let half = window / 2;
    let mean = |place: usize| {
        let from = place.saturating_sub(half);
        let to = (place + half + 1).min(finite.len());
        (sums[to] - sums[from]) / (to - from) as f64
    };
    (0..finite.len())
        .map(|place| (finite[place].0, mean(place)))
        .collect()
}

/// The window of the moving average for a number of points; 1 if there are too few to smooth.
pub(super) fn window(points: usize) -> usize {
    if points < 60 { 1 } else { (points / 30) | 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn thinning_keeps_ends_and_extremes(
            values in prop::collection::vec(prop_oneof![20 => -1e3..1e3_f64, 1 => Just(f64::NAN)], 0..3000),
            columns in 1..60_usize,
        ) {
            let points: Vec<Point> = values.iter().enumerate().map(|(step, value)| (step as f64, *value)).collect();
            let kept = thinned(&points, columns);
            let finite: Vec<Point> = points.iter().copied().filter(|point| point.1.is_finite()).collect();
            prop_assert!(kept.len() <= 4 * (columns + 1));
            prop_assert!(kept.iter().all(|point| finite.contains(point)));
            prop_assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
            prop_assert_eq!((kept.first(), kept.last()), (finite.first(), finite.last()));
            let extremes = |points: &[Point]| {
                let values = points.iter().map(|point| point.1);
                (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
            };
            prop_assert_eq!(extremes(&kept), extremes(&finite));
        }
    }

    #[test]
    fn a_mean_is_of_the_points_around() {
        let points = [
            (1.0, 1.0),
            (2.0, 2.0),
            (3.0, f64::NAN),
            (4.0, 6.0),
            (5.0, 0.0),
        ];
        let expected = [(1.0, 1.5), (2.0, 3.0), (4.0, 8.0 / 3.0), (5.0, 3.0)];
        assert_eq!(smoothed(&points, 3), expected);
        assert_eq!(smoothed(&points, 1).len(), 4);
        assert_eq!(smoothed(&[], 9), []);
        assert_eq!(
            [window(3), window(60), window(296), window(100_000)],
            [1, 3, 9, 3333]
        );
    }
}
