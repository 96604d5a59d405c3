//! Cron expressions of five fields, and the next time that one names. Pure.
//!
//! The syntax is that of upstream's parser (`robfig/cron`, standard): lists, ranges, steps, names of months and days, `?`, and
//! the macros `@hourly` to `@yearly`. When both days of the month and of the week are restricted, either suffices.

use jiff::civil::{DateTime, Time};
use jiff::{Span, Timestamp, tz::TimeZone};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that names no time within these years never fires (30 February).
const YEARS_MAX: i16 = 5;

/// Times as sets of bits, one for each value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether either kind of day suffices.
    either_day: bool,
}

/// The text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no cron schedule: {why}")]
pub struct ScheduleError {
    text: String,
    why: String,
}

impl std::str::FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let fail = |why: String| ScheduleError { text: text.to_owned(), why };
        let fields = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(fail(format!("expected 5 fields, found {}", fields.len())));
        };
        let field = |text: &str, first, last, names: &[&str]| bits(text, first, last, names).map_err(fail);
        // Sunday is 0 and 7.
        let weekdays = field(weekday, 0, 7, &DAYS)?;
        let open = |text: &str| text.starts_with(['*', '?']);
        Ok(Self {
            minutes: field(minute, 0, 59, &[])?,
            hours: field(hour, 0, 23, &[])?,
            days: field(day, 1, 31, &[])?,
            months: field(month, 1, 12, &MONTHS)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            either_day: !open(day) && !open(weekday),
        })
    }
}

fn bits(text: &str, first: u32, last: u32, names: &[&str]) -> Result<u64, String> {
    let number = |part: &str| {
        let by_name = names.iter().position(|name| part.eq_ignore_ascii_case(name));
        // Names of months begin with 1, those of days with 0: as their fields do.
        let by_name = by_name.and_then(|at| u32::try_from(at).ok()).map(|at| at + first);
        let value = by_name.or_else(|| part.parse().ok());
        let value = value.filter(|value| (first..=last).contains(value));
        value.ok_or_else(|| format!("\"{part}\" is not from {first} to {last}"))
    };
    let mut all = 0u64;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (from, to) = match range {
            "*" | "?" => (first, last),
            range => match range.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                // `5/15` runs on to the end.
                None if step.is_some() => (number(range)?, last),
                None => (number(range)?, number(range)?),
            },
        };
        let step: usize =
            step.map_or(Ok(1), |step| step.parse().map_err(|_| format!("\"{step}\" is no step")))?;
        if step == 0 || from > to {
            return Err(format!("\"{part}\" is an empty range"));
        }
        (from..=to).step_by(step).for_each(|value| all |= 1 << value);
    }
    Ok(all)
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

impl Schedule {
    /// The first time after `after`, on the clocks of `zone`.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(after);
        let minute = start.with().second(0).subsec_nanosecond(0).build().ok()?;
        let mut at = minute.checked_add(Span::new().minutes(1)).ok()?;
        while at.year() <= start.year() + YEARS_MAX {
            match self.skip(at) {
                Some(later) => at = later?,
                None => {
                    let time = zone.to_timestamp(at).ok()?;
                    // Clocks that went back name the same minute twice; the second time is not another.
                    if time > after {
                        return Some(time);
                    }
                    at = at.checked_add(Span::new().minutes(1)).ok()?;
                }
            }
        }
        None
    }

    /// `None`: the minute is named. Otherwise the next minute that may be (`Some(None)`: the calendar ends).
    #[allow(clippy::option_option, reason = "two different absences, told apart where they are made")]
    fn skip(&self, at: DateTime) -> Option<Option<DateTime>> {
        let midnight = |date: jiff::civil::Date| date.to_datetime(Time::midnight());
        if !has(self.months, at.month()) {
            let next = at.date().first_of_month().checked_add(Span::new().months(1)).ok();
            return Some(next.map(midnight));
        }
        let (day, weekday) =
            (has(self.days, at.day()), has(self.weekdays, at.weekday().to_sunday_zero_offset()));
        let named = if self.either_day { day || weekday } else { day && weekday };
        if !named {
            return Some(at.date().tomorrow().ok().map(midnight));
        }
        if !has(self.hours, at.hour()) {
            let hour = at.with().minute(0).build().ok();
            return Some(hour.and_then(|hour| hour.checked_add(Span::new().hours(1)).ok()));
        }
        if !has(self.minutes, at.minute()) {
            return Some(at.checked_add(Span::new().minutes(1)).ok());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_the_one_that_people_mean() {
        let cases = [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("0 9 * * 1-5", "2026-01-02T10:00:00Z", "2026-01-05T09:00:00Z"),
            ("0 0 13 * fri", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("30 4 1,15 * *", "2026-01-01T04:30:00Z", "2026-01-15T04:30:00Z"),
            ("0 0 29 feb ?", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:05:01Z", "2026-01-01T00:25:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@yearly", "2026-05-05T00:00:00Z", "2027-01-01T00:00:00Z"),
        ];
        for (text, after, want) in cases {
            let next = text.parse::<Schedule>().unwrap().next_after(after.parse().unwrap(), &TimeZone::UTC);
            assert_eq!(next, Some(want.parse().unwrap()), "{text}");
        }
        let never: Schedule = "0 0 30 2 *".parse().unwrap();
        assert_eq!(never.next_after("2026-01-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "x * * * *",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
