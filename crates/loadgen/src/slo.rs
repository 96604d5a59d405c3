//! The highest rate that keeps a promise about latency.
//!
//! Rates are tried upwards by doubling until one breaks the promise, then the gap is halved until it is small; what
//! was found is tried once more, longer, and lowered while it does not hold. Every trial is open-loop: a rate that a
//! server keeps only by making callers wait is not kept.
//!
//! Not here: the trials themselves, which the caller runs.

use std::str::FromStr;
use std::time::Duration;

use crate::plan::Report;

/// Doublings, at most.
const DOUBLINGS_MAX: usize = 24;
/// Halvings, at most.
const HALVINGS_MAX: usize = 8;
/// The gap that is small enough.
const PRECISION: f64 = 1.04;
/// How often a found rate is lowered.
const CONFIRMATIONS_MAX: usize = 5;
/// By how much.
const LOWER: f64 = 0.93;

/// A quantile of the latency and its bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Between 0 and 1.
    pub share: f64,
    /// The quantile must not exceed it.
    pub latency: Duration,
}

impl FromStr for Objective {
    type Err = String;

    /// `p99=5ms`, `p99.9=800us`, `p50=1s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?}: expected a quantile and a latency such as p99=5ms");
        let (quantile, latency) = text.split_once('=').ok_or_else(bad)?;
        let percent: f64 = quantile.trim().strip_prefix('p').ok_or_else(bad)?.parse().map_err(|_| bad())?;
        if !(percent > 0.0 && percent < 100.0) {
            return Err(format!("{text:?}: the quantile must lie between p0 and p100"));
        }
        let latency = latency.trim();
        let digits = latency.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let number: f64 = digits.parse().map_err(|_| bad())?;
        let seconds = match &latency[digits.len()..] {
            "us" => number / 1e6,
            "ms" => number / 1e3,
            "s" => number,
            _ => return Err(format!("{text:?}: the latency needs a unit: us, ms or s")),
        };
        if !(seconds > 0.0 && seconds < 3600.0) {
            return Err(bad());
        }
        Ok(Self { share: percent / 100.0, latency: Duration::from_secs_f64(seconds) })
    }
}

impl Objective {
    /// Why a run does not keep the promise; `None` where it does.
    pub fn broken_by(&self, report: &Report) -> Option<String> {
        if report.failed() > 0 {
            let (what, count) = report.failures.iter().max_by_key(|(_, count)| **count)?;
            return Some(format!("{count} of {} requests failed: {what}", report.due));
        }
        if report.is_cut || report.answered == 0 {
            return Some("the schedule could not be kept".into());
        }
        let seen = report.latency.quantile(self.share);
        (seen > self.latency).then(|| format!("p{} is {seen:.1?}", trimmed(self.share * 100.0)))
    }
}

/// 99.9 as `99.9`, 99 as `99`.
fn trimmed(percent: f64) -> String {
    let text = format!("{percent:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p{} <= {:?}", trimmed(self.share * 100.0), self.latency)
    }
}

/// One rate that was tried.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Requests a second.
    pub rate: f64,
    /// Why the promise was broken; `None` where it was kept.
    pub broken: Option<String>,
    /// What came of it.
    pub report: Report,
}

/// What the search found.
#[derive(Debug, Clone)]
pub enum Found {
    /// The promise holds at this rate, and not much above it.
    Rate(Box<Trial>),
    /// It holds at every rate that was tried up to this one.
    AtLeast(Box<Trial>),
    /// It does not hold even at this low rate.
    Never(Box<Trial>),
}

/// How far the search goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The first rate.
    pub rate_min: f64,
    /// No higher rate is tried.
    pub rate_max: f64,
}

/// Finds the rate. `run` makes one trial at a rate, longer where it is told to; `seen` hears of each.
pub fn search<E>(
    objective: &Objective,
    bounds: Bounds,
    mut run: impl FnMut(f64, bool) -> Result<Report, E>,
    mut seen: impl FnMut(&Trial),
) -> Result<Found, E> {
    let mut attempt = |rate: f64, is_long: bool| -> Result<Trial, E> {
        let report = run(rate, is_long)?;
        let trial = Trial { rate, broken: objective.broken_by(&report), report };
        seen(&trial);
        Ok(trial)
    };
    let mut kept: Option<Trial> = None;
    let mut broken: Option<Trial> = None;
    let mut rate = bounds.rate_min;
    for _ in 0..DOUBLINGS_MAX {
        let trial = attempt(rate, false)?;
        if trial.broken.is_some() {
            broken = Some(trial);
            break;
        }
        kept = Some(trial);
        if rate >= bounds.rate_max {
            break;
        }
        rate = (rate * 2.0).min(bounds.rate_max);
    }
    let (mut low, mut high) = match (kept, broken) {
        (Some(low), Some(high)) => (low, high.rate),
        (Some(top), None) => return Ok(Found::AtLeast(Box::new(top))),
        (None, Some(first)) => return Ok(Found::Never(Box::new(first))),
        (None, None) => unreachable!("the first trial is either"),
    };
    for _ in 0..HALVINGS_MAX {
        if high / low.rate <= PRECISION {
            break;
        }
        // The geometric mean halves the gap as a ratio.
        let trial = attempt((high * low.rate).sqrt(), false)?;
        if trial.broken.is_none() {
            low = trial;
        } else {
            high = trial.rate;
        }
    }
    let mut rate = low.rate;
    for _ in 0..CONFIRMATIONS_MAX {
        let trial = attempt(rate, true)?;
        if trial.broken.is_none() {
            return Ok(Found::Rate(Box::new(trial)));
        }
        rate *= LOWER;
    }
    let last = attempt(rate, true)?;
    Ok(if last.broken.is_none() { Found::Rate(Box::new(last)) } else { Found::Never(Box::new(last)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(latency_us: u64, failures: u64) -> Report {
        let mut report = Report { due: 100, answered: 100 - failures, seconds: 1.0, ..Report::default() };
        (0..100).for_each(|_| report.latency.record(latency_us * 1000));
        if failures > 0 {
            report.failures.insert("HTTP 503".into(), failures);
        }
        report
    }

    /// A server whose latency grows slowly up to a rate and without bound beyond it.
    fn find(knee: f64, bounds: Bounds) -> (Found, usize) {
        let objective: Objective = "p99=5ms".parse().expect("legal");
        let mut trials = 0;
        let run = |rate: f64, _| {
            let latency = if rate <= knee { 1000 } else { 50_000 };
            Ok::<_, ()>(report(latency, 0))
        };
        let found = search(&objective, bounds, run, |_| trials += 1).expect("no failure");
        (found, trials)
    }

    #[test]
    fn the_rate_is_found_within_its_precision() {
        let bounds = Bounds { rate_min: 100.0, rate_max: 1e6 };
        for knee in [120.0, 3333.0, 29_000.0] {
            let (Found::Rate(trial), trials) = find(knee, bounds) else { panic!("there is one") };
            assert!(trial.rate <= knee && trial.rate >= knee / PRECISION, "{} for {knee}", trial.rate);
            assert!(trials < 20, "{trials}");
        }
        assert!(matches!(find(50.0, bounds).0, Found::Never(_)));
        let few = Bounds { rate_min: 100.0, rate_max: 1000.0 };
        assert!(matches!(find(5000.0, few).0, Found::AtLeast(trial) if trial.rate == 1000.0));
    }

    #[test]
    fn one_failed_request_breaks_the_promise() {
        let objective: Objective = "p50=1s".parse().expect("legal");
        assert_eq!(objective.broken_by(&report(1, 0)), None);
        assert_eq!(objective.broken_by(&report(1, 2)).as_deref(), Some("2 of 100 requests failed: HTTP 503"));
        let slow = objective.broken_by(&report(2_000_000, 0)).expect("too slow");
        assert!(slow.starts_with("p50 is 2."), "{slow}");
    }

    #[test]
    fn objectives_are_read_and_shown() {
        for (text, shown) in
            [("p99=5ms", "p99 <= 5ms"), ("p99.9=800us", "p99.9 <= 800µs"), ("p50=1.5s", "p50 <= 1.5s")]
        {
            assert_eq!(text.parse::<Objective>().expect(text).to_string(), shown);
        }
        for text in ["99=5ms", "p99", "p99=5", "p0=1s", "p100=1s", "p99=-1ms", "p99=xms"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
