//! A run in numbers.

use chrono::DateTime;
use simmer_files::size::{grouped, readable};
use simmer_train::program::version_and_commit;

use super::run::{Run, State};

/// The cell of a run in a row, if it has one.
type Cell = fn(&Run) -> Option<String>;

/// The names of the rows, with a cell for each run.
pub(super) fn rows(runs: &[Run]) -> Vec<(&'static str, Vec<String>)> {
    let cell: [(&str, Cell); 12] = [
        ("steps", |run| Some(steps(run))),
        ("skipped steps (train.guard)", skipped),
        ("loss, first → last step", loss),
        ("validation loss, last", |run| {
            let last = run.validations.last()?;
            Some(format!("{:.4}", last.validation_loss))
        }),
        ("validation loss, best", best),
        ("tokens seen", tokens),
        ("time", time),
        ("tokens/s", rate),
        ("peak memory", memory),
        ("trainable parameters", trained),
        ("device", |run| {
            let manifest = run.manifest.as_ref()?;
            Some(format!("{} ({})", manifest.device, manifest.system))
        }),
        ("started", started),
    ];
    let rows = cell.into_iter().map(|(name, cell)| {
        let cells: Vec<Option<String>> = runs.iter().map(cell).collect();
        (name, cells)
    });
    // rows that are empty for all runs are dropped
    let rows = rows.filter(|(_, cells)| cells.iter().any(Option::is_some));
    let shown = |cells: Vec<Option<String>>| cells.into_iter().map(Option::unwrap_or_default);
    rows.map(|(name, cells)| (name, shown(cells).collect()))
        .collect()
}

/// The state of a run, in words.
pub(super) fn state(run: &Run) -> String {
    let done = run.done();
    let all = run.counts.as_ref().map(|counts| counts.steps);
    let of = all.map_or_else(String::new, |all| format!(" of {all}"));
    let is_early = all.is_some_and(|all| done < all);
    match (run.state, done) {
        (State::Finished, _) if is_early => format!("finished early, at step {done}{of}"),
        (State::Finished, _) => "finished".to_owned(),
        (State::Running, 0) => "running, before its first step".to_owned(),
        (State::Running, _) => format!("running, at step {done}{of}"),
        (State::Stopped, 0) => "stopped before its first step".to_owned(),
        (State::Stopped, _) => format!("stopped at step {done}{of}; resume with --resume"),
    }
}

fn steps(run: &Run) -> String {
    let all = run.counts.as_ref().map(|counts| counts.steps);
    let of = all.map_or_else(String::new, |all| format!(" of {}", grouped(all)));
    let epochs = run
        .steps
        .last()
        .map_or_else(String::new, |last| format!(", epoch {:.2}", last.epoch));
    format!("{}{of}{epochs}", grouped(run.done()))
}

fn skipped(run: &Run) -> Option<String> {
    (!run.skips.is_empty()).then(|| grouped(run.skips.len() as u64))
}

fn loss(run: &Run) -> Option<String> {
    let [first, last] = [run.steps.first()?, run.steps.last()?];
    Some(format!("{:.4} → {:.4}", first.loss, last.loss))
}

fn best(run: &Run) -> Option<String> {
    let best = run
        .validations
        .iter()
        .min_by(|a, b| a.validation_loss.total_cmp(&b.validation_loss))?;
    Some(format!("{:.4} at step {}", best.validation_loss, best.step))
}

fn tokens(run: &Run) -> Option<String> {
    let sum = |of: fn(&simmer_train::StepMetrics) -> u64| grouped(run.steps.iter().map(of).sum());
    let seen = sum(|step| step.tokens);
    let targets = sum(|step| step.targets);
    (!run.steps.is_empty()).then(|| format!("{seen}, {targets} of them trained on"))
}

fn seconds(run: &Run) -> f64 {
    let steps: f64 = run.steps.iter().map(|step| step.seconds).sum();
    steps
        + run
            .validations
            .iter()
            .map(|validation| validation.seconds)
            .sum::<f64>()
}

fn time(run: &Run) -> Option<String> {
    (!run.steps.is_empty()).then(|| duration(seconds(run)))
}

fn rate(run: &Run) -> Option<String> {
    let tokens: u64 = run.steps.iter().map(|step| step.tokens).sum();
    let seconds: f64 = run.steps.iter().map(|step| step.seconds).sum();
    (seconds > 0.0).then(|| grouped((tokens as f64 / seconds).round() as u64))
}

fn memory(run: &Run) -> Option<String> {
    let peak = run.steps.iter().filter_map(|step| step.peak_memory).max()?;
    Some(readable(peak))
}

fn trained(run: &Run) -> Option<String> {
    let counts = run.counts.as_ref()?;
    let percent = 100.0 * counts.trained as f64 / counts.parameters().max(1) as f64;
    let [trained, all] = [counts.trained, counts.parameters()].map(|count| grouped(count as u64));
    Some(format!("{trained} of {all} ({percent:.2} %)"))
}

fn started(run: &Run) -> Option<String> {
    let first = run.steps.first().filter(|first| first.time > 0.0);
    let started =
        first.and_then(|first| DateTime::from_timestamp((first.time - first.seconds) as i64, 0));
    let started = started.map(|time| format!("{} UTC", time.format("%Y-%m-%d %H:%M")));
    let version = run.manifest.as_ref().map(|manifest| {
        format!(
            "simmer {}",
            version_and_commit(&manifest.simmer, &manifest.commit, "")
        )
    });
    let parts: Vec<String> = started.into_iter().chain(version).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let parts = [
        (whole / 86400, "d"),
        (whole / 3600 % 24, "h"),
        (whole / 60 % 60, "min"),
        (whole % 60, "s"),
    ];
    if whole < 10 {
        return format!("{seconds:.1} s");
    }
    let shown = parts.iter().skip_while(|(count, _)| *count == 0).take(2);
    let shown: Vec<String> = shown
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let times = [0.25, 59.6, 61.0, 3600.0, 90_061.0].map(duration);
        assert_eq!(
            times,
            ["0.2 s", "1 min 0 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]
        );
    }
}
