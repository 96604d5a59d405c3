//! Times as texts: the `date` header, and the time of an event.
//!
//! Not here: clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The text of the `date` header, made once a second.
#[derive(Debug, Default)]
pub(crate) struct Date {
    /// Until when it is right.
    until: Option<Instant>,
    text: Vec<u8>,
}

impl Date {
    /// At a time that is about now. The clock of days is asked once a second only.
    pub(crate) fn at(&mut self, now: Instant) -> &[u8] {
        if self.until.is_none_or(|until| now >= until) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let left = Duration::from_secs(1) - Duration::from_nanos(u64::from(since.subsec_nanos()));
            self.until = now.checked_add(left);
            self.text = imf_date(since.as_secs()).into_bytes();
        }
        &self.text
    }
}

/// Year, month and day of a day since 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    // Howard Hinnant's days-to-civil: years begin in March, so that leap days come last.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

/// `1994-11-06T08:49:37.123456Z`.
pub(crate) fn timestamp(now: SystemTime) -> String {
    let mut text = Vec::with_capacity(27);
    put_timestamp(&mut text, now);
    String::from_utf8(text).unwrap_or_default()
}

/// Appends the same.
pub(crate) fn put_timestamp(out: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let second = since.as_secs();
    let (year, month, day) = civil(second / 86_400);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600 % 24, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (u64::from(since.subsec_micros()), 6, b'Z'),
    ];
    for (number, digits, behind) in parts {
        let places = (0..digits).rev();
        out.extend(places.map(|place| b'0' + (number / 10_u64.pow(place) % 10) as u8));
        out.push(behind);
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_date(second: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = second / 86_400;
    let (year, month, day) = civil(days);
    let (hour, minute, rest) = (second / 3600 % 24, second / 60 % 60, second % 60);
    let (name, month) = (DAYS[(days % 7) as usize], MONTHS[(month - 1) as usize]);
    format!("{name}, {day:02} {month} {year} {hour:02}:{minute:02}:{rest:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_standard() {
        assert_eq!(imf_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(imf_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        let then = UNIX_EPOCH + Duration::from_micros(951_782_400_000_007);
        assert_eq!(timestamp(then), "2000-02-29T00:00:00.000007Z");
    }
}
