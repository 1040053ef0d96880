//! When the next request may be sent.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::completion::Stop;
use crate::error::InstructError;

/// How long to sleep before looking whether to stop.
const GLANCE: Duration = Duration::from_millis(50);
/// The longest pause before a repetition that the server did not ask for.
const LONGEST: Duration = Duration::from_mins(1);

/// The rate of requests.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time between two requests.
    between: Duration,
    next: Mutex<Instant>,
}

/// Waits, unless it is told to stop.
pub(super) fn sleep(until: Instant, stop: Stop<'_>) -> Result<(), InstructError> {
    loop {
        if stop() {
            return Err(InstructError::interrupted());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(GLANCE));
    }
}

impl Pace {
    pub(super) fn new(per_minute: u32) -> Self {
        let between = Duration::from_mins(1)
            .checked_div(per_minute)
            .unwrap_or_default();
        Self {
            between,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for the turn of a request.
    pub(super) fn wait(&self, stop: Stop<'_>) -> Result<(), InstructError> {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + self.between;
            turn
        };
        sleep(turn, stop)
    }

    /// Lets nobody send before a time, because the server asked for it.
    pub(super) fn hold(&self, until: Instant) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(until);
    }
}

/// The pause before repetition number `attempt`, from 0: it doubles, up to a minute, and differs by up to a half between
/// requests, so that they do not all come back at once.
pub(super) fn backoff(first: f64, attempt: u32, seed: u64) -> Duration {
    let seconds = first * 2_f64.powi(attempt.min(16) as i32);
    let part = (seed >> 11) as f64 / (1_u64 << 53) as f64;
    Duration::from_secs_f64((seconds * (1.0 - part / 2.0)).min(LONGEST.as_secs_f64()))
}

/// The pause of a header `Retry-After`: seconds, or a date.
pub(super) fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = DateTime::parse_from_rfc2822(header).ok()?;
    Some(
        (date.with_timezone(&Utc) - now)
            .to_std()
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        assert_eq!(
            [0, 1, 3, 9].map(|attempt| backoff(2.0, attempt, 0)),
            [2, 4, 16, 60].map(Duration::from_secs)
        );
        assert!((1.0..1.001).contains(&backoff(2.0, 0, u64::MAX).as_secs_f64()));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc2822("Wed, 21 Oct 2015 07:28:00 GMT")
            .unwrap()
            .to_utc();
        let seconds = |header| retry_after(header, now).map(|pause| pause.as_secs_f64());
        assert_eq!(seconds("7"), Some(7.0));
        assert_eq!(seconds("0.5"), Some(0.5));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:30 GMT"), Some(30.0));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:27:00 GMT"), Some(0.0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }
}
