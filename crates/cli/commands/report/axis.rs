//! An axis: the position of a value, and ticks at round numbers.

/// A range of values, linear or logarithmic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) is_log: bool,
    /// The smallest distance between ticks.
    least_gap: f64,
}

/// The start of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// At 0.
    AtZero,
    /// At the least value; logarithmic if the greatest is much larger.
    AtLeast,
}

impl Axis {
    /// An axis for these values; there may be none.
    pub(super) fn new(values: impl Iterator<Item = f64> + Clone, begins: Begins) -> Self {
        const FAR: f64 = 50.0;
        let values = values.filter(|value| value.is_finite());
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        if least > most {
            return Self {
                least: 0.0,
                most: 1.0,
                is_log: false,
                least_gap: 0.0,
            };
        }
        let is_log = begins == Begins::AtLeast && least > 0.0 && most / least > FAR;
        if is_log {
            let [least, most] = [least / 1.1, most * 1.1];
            return Self {
                least,
                most,
                is_log,
                least_gap: 0.0,
            };
        }
        let least = if begins == Begins::AtZero {
            least.min(0.0)
        } else {
            least
        };
        let room = 0.04 * (most - least);
        let room = if room > 0.0 {
            room
        } else {
            (0.5 * most.abs()).max(0.5)
        };
        let below = if begins == Begins::AtZero && least == 0.0 {
            0.0
        } else {
            room
        };
        Self {
            least: least - below,
            most: most + room,
            is_log,
            least_gap: 0.0,
        }
    }

    /// The axis of steps.
    pub(super) fn of_steps(least: f64, most: f64) -> Self {
        let most = if most > least { most } else { least + 1.0 };
        Self {
            least,
            most,
            is_log: false,
            least_gap: 1.0,
        }
    }

    /// The position of a value: 0 at the start of the axis, 1 at its end.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.is_log {
            (value / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        }
    }

    /// About `count` ticks at round numbers, with their labels.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        if self.is_log {
            return self.log_ticks(count);
        }
        let gap = round_up((self.most - self.least) / count as f64).max(self.least_gap);
        let first = (self.least / gap - 1e-9).ceil() as i64;
        let last = (self.most / gap + 1e-9).floor() as i64;
        let ticks = (first..=last).map(|number| number as f64 * gap);
        let reach = self.least.abs().max(self.most.abs());
        ticks
            .map(|value| (value, label(value, gap, reach)))
            .collect()
    }

    fn log_ticks(&self, count: usize) -> Vec<(f64, String)> {
        let decades = self.least.log10().floor() as i32..=self.most.log10().ceil() as i32;
        let in_each: &[f64] = if decades.clone().count() <= count {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let every = (decades.clone().count() / count).max(1);
        let values = decades.step_by(every).flat_map(|decade| {
            let unit = 10_f64.powi(decade);
            in_each.iter().map(move |part| (part * unit, unit))
        });
        let inside = values.filter(|(value, _)| (self.least..=self.most).contains(value));
        inside
            .map(|(value, gap)| (value, label(value, gap, value)))
            .collect()
    }
}

/// The next of 1, 2, 5, 10, 20, ...
fn round_up(gap: f64) -> f64 {
    let unit = 10_f64.powf(gap.log10().floor());
    let part = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|part| part * unit >= gap * (1.0 - 1e-9));
    part.unwrap_or(10.0) * unit
}

/// The shortest label that distinguishes values `gap` apart; `reach`, the largest value, sets the unit.
fn label(value: f64, gap: f64, reach: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| reach >= 10.0 * unit && gap >= unit / 100.0);
    if let Some((unit, letter)) = unit {
        return format!("{}{letter}", plain(value / unit, gap / unit));
    }
    if reach < 1e-2 {
        let power = reach.log10().floor();
        let unit = 10_f64.powf(power);
        return format!("{}e{power}", plain(value / unit, gap / unit));
    }
    plain(value, gap)
}

fn plain(value: f64, gap: f64) -> String {
    let decimals = (-gap.log10() - 1e-9).ceil().clamp(0.0, 9.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> String {
        let ticks = axis.ticks(5).into_iter().map(|(_, label)| label);
        ticks.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round() {
        let of = |values: &[f64], begins| labels(&Axis::new(values.iter().copied(), begins));
        let lines = [
            of(&[7.6, 0.3], Begins::AtLeast),
            of(&[900.0, 0.02, 4.0], Begins::AtLeast),
            of(&[1e-9, 1e9], Begins::AtLeast),
            of(&[4e-4, 0.0], Begins::AtZero),
            of(&[18131.0, 17000.0], Begins::AtZero),
            of(&[2.3456, 2.3457], Begins::AtLeast),
            of(&[3.0], Begins::AtLeast),
            of(&[0.0], Begins::AtZero),
            of(&[-1.0, 1.0], Begins::AtZero),
            of(&[f64::NAN], Begins::AtZero),
            labels(&Axis::of_steps(1.0, 296.0)),
            labels(&Axis::of_steps(1.0, 100_000.0)),
            labels(&Axis::of_steps(0.0, 0.0)),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        2 4 6
        0.1 1 10 100
        1e-6 0.01 100 1000k
        0 1e-4 2e-4 3e-4 4e-4
        0 5k 10k 15k
        2.34560 2.34565 2.34570
        2 3 4
        0 0.1 0.2 0.3 0.4 0.5
        -1.0 -0.5 0 0.5 1.0
        0 0.2 0.4 0.6 0.8 1.0
        100 200
        20k 40k 60k 80k 100k
        0 1
        ");
    }

    #[test]
    fn values_stand_between_the_ends() {
        let axis = Axis::new([1.0, 100.0, 10.0].into_iter(), Begins::AtLeast);
        assert!(axis.is_log && (axis.place(10.0) - 0.5).abs() < 1e-12);
        let axis = Axis::of_steps(1.0, 5.0);
        let places = [1.0, 2.0, 5.0].map(|step| axis.place(step).to_string());
        assert_eq!(places, ["0", "0.25", "1"]);
    }
}
