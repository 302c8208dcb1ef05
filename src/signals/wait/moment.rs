//! Spans and points of time as providers write them.

use std::time::{Duration, UNIX_EPOCH};

use crate::time::Timestamp;

/// A number this large is a point in time: no limit lasts for 31 years.
const FIRST_EPOCH: f64 = 1e9;
/// And this one counts milliseconds.
const FIRST_EPOCH_IN_MILLIS: f64 = 1e12;

const DAY: i64 = 86_400;

/// Words before a wait in prose.
const BEFORE_A_WAIT: [&str; 9] = [
    "try again in ",
    "try again after ",
    "retry in ",
    "retry after ",
    "reset after ",
    "reset in ",
    "resets in ",
    "regain access on ",
    "please wait ",
];

/// A wait in any form: seconds (`17`, `1.5`), with units (`6m0s`, `20 ms`, `2 hours`), a point in
/// time in seconds or milliseconds since the epoch, as an HTTP date or as RFC 3339. What is past is
/// no wait at all, so zero.
#[inline(never)]
pub(in crate::signals) fn of(text: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(number) = text.parse::<f64>() {
        return of_number(number, now);
    }
    match span(text) {
        Some((wait, "")) => Some(wait),
        _ => http_date(text).or_else(|| date_time(text)).map(|time| time.since(now)),
    }
}

fn http_date(text: &str) -> Option<Timestamp> {
    let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::EPOCH + since_epoch)
}

/// A bare number of milliseconds.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    seconds(text.trim().parse::<f64>().ok()? / 1000.0)
}

/// The wait in a sentence, in lower case; of several the last, because what a message quotes comes
/// before the provider's advice.
pub(super) fn in_prose(message: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(message).ok()?;
    let begin = BEFORE_A_WAIT
        .iter()
        .filter_map(|words| text.rfind(words).map(|at| at + words.len()))
        .max()?;
    let rest = text.get(begin..)?;
    span(rest).map(|(wait, _)| wait).or_else(|| date_time(rest).map(|time| time.since(now)))
}

/// Quotas per day of the Gemini API begin anew at midnight, Pacific time.
pub(super) fn until_midnight_in_california(now: Timestamp) -> Duration {
    let now = (now.as_millis() / 1000) as i64;
    let hours = if is_summer_in_california(now) { 7 } else { 8 };
    Duration::from_secs((DAY - (now - hours * 3600).rem_euclid(DAY)) as u64)
}

/// Summer time there: from the second Sunday of March to the first of November, at two o'clock.
fn is_summer_in_california(now: i64) -> bool {
    // A year is 365.2425 days; around New Year, where this may be off, it is winter either way.
    let year = 1970 + now * 400 / (146_097 * DAY);
    let begin = sunday_from(days_since_epoch(year, 3, 8)) * DAY + 10 * 3600;
    let end = sunday_from(days_since_epoch(year, 11, 1)) * DAY + 9 * 3600;
    (begin..end).contains(&now)
}

/// That day or the next one that is a Sunday; the epoch was a Thursday.
fn sunday_from(day: i64) -> i64 {
    day + (3 - day).rem_euclid(7)
}

#[inline(never)]
fn of_number(number: f64, now: Timestamp) -> Option<Duration> {
    let since_epoch = match number {
        FIRST_EPOCH_IN_MILLIS.. => number / 1000.0,
        FIRST_EPOCH.. => number,
        _ => return seconds(number),
    };
    Some((Timestamp::EPOCH + seconds(since_epoch)?).since(now))
}

fn seconds(seconds: f64) -> Option<Duration> {
    (seconds.is_finite() && seconds >= 0.0)
        .then(|| Duration::from_millis((seconds * 1000.0 + 0.5) as u64))
}

/// One or more numbers with their units, and what follows them. A number without a unit is seconds.
#[inline(never)]
fn span(text: &str) -> Option<(Duration, &str)> {
    let mut total = 0.0;
    let mut rest = text;
    let mut is_first = true;
    while let Some((number, tail)) = number(rest) {
        let tail = tail.trim_start_matches(' ');
        let unit_end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (word, behind) = tail.split_at(unit_end);
        let (unit, behind) = match unit(word) {
            Some(unit) => (unit, behind),
            None if is_first => (1.0, tail),
            None => break,
        };
        total += number * unit;
        is_first = false;
        rest = behind.trim_start_matches(' ');
    }
    if is_first { None } else { Some((seconds(total)?, rest)) }
}

/// A number without a sign. A point that ends a sentence does not belong to it; digits that go on
/// with a dash are a date.
#[inline(never)]
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let digits = text.get(..end)?.trim_end_matches('.');
    let rest = text.get(digits.len()..)?;
    if rest.starts_with(['-', ':']) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

fn unit(word: &str) -> Option<f64> {
    Some(match word {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => DAY as f64,
        _ => return None,
    })
}

/// RFC 3339, also as prose has it: `2026-12-01 at 00:00 utc`. A time without a zone could be
/// anywhere, so it is none.
fn date_time(text: &str) -> Option<Timestamp> {
    let (year, rest) = field(text, "")?;
    let (month, rest) = field(rest, "-")?;
    let (day, rest) = field(rest, "-")?;
    let rest = rest.trim_start_matches(['T', 't', ' ']);
    let rest = rest.strip_prefix("at ").unwrap_or(rest);
    let (hour, rest) = field(rest, "")?;
    let (minute, rest) = field(rest, ":")?;
    let (second, rest) = field(rest, ":").unwrap_or((0, rest));
    let rest = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit()).trim_start();
    let zone = match rest.as_bytes().first()? {
        b'Z' | b'z' => 0,
        b'u' | b'U' => 0,
        sign @ (b'+' | b'-') => {
            let (hours, rest) = field(rest.get(1..)?, "")?;
            let (minutes, _) = field(rest, ":").unwrap_or((0, rest));
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let is_a_date = (1970..10_000).contains(&year) && (1..13).contains(&month);
    let days = is_a_date.then(|| days_since_epoch(year, month, day))?;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second - zone;
    Some(Timestamp::from_secs(u64::try_from(seconds).ok()?))
}

/// A number of at most four digits behind a separator.
fn field<'t>(text: &'t str, separator: &str) -> Option<(i64, &'t str)> {
    let text = text.strip_prefix(separator)?;
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.len() <= 4).then(|| digits.parse().ok())?.map(|number| (number, rest))
}

/// Days from the epoch to a date of the Gregorian calendar. Years are counted from March, so that
/// the leap day is the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sat, 21 Nov 2026 12:00:00 GMT
    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn milliseconds_of(wait: Option<Duration>) -> Option<u128> {
        wait.map(|wait| wait.as_millis())
    }

    #[test]
    fn a_wait_is_read_in_every_form() {
        for (text, expected) in [
            ("17", Some(17_000)),
            ("0", Some(0)),
            (" 1.5 ", Some(1_500)),
            ("30s", Some(30_000)),
            ("20ms", Some(20)),
            ("6m0s", Some(360_000)),
            ("1h2m3.5s", Some(3_723_500)),
            ("2m59.56s", Some(179_560)),
            ("26 seconds", Some(26_000)),
            ("1 day 2 hours", Some(93_600_000)),
            ("1795262430", Some(30_000)),
            ("1795262430000", Some(30_000)),
            ("1795262400", Some(0)),
            ("1700000000", Some(0)),
            ("Sat, 21 Nov 2026 12:00:30 GMT", Some(30_000)),
            ("Sat, 21 Nov 2026 11:00:00 GMT", Some(0)),
            ("2026-11-21T12:00:30Z", Some(30_000)),
            ("2026-11-21T12:00:30.250Z", Some(30_000)),
            ("2026-11-21T14:00:30+02:00", Some(30_000)),
            ("2026-11-21T04:00:30-08:00", Some(30_000)),
            ("2026-12-01T00:00:00Z", Some((9 * 24 + 12) * 3_600_000)),
            ("2026-11-21 12:00:30", None),
            ("soon", None),
            ("-1", None),
            ("inf", None),
            ("NaN", None),
            ("", None),
            ("5 apples", None),
            ("2026-99-99T99:99:99Z", None),
            ("2026-", None),
        ] {
            assert_eq!(milliseconds_of(of(text.as_bytes(), NOON)), expected, "{text:?}");
        }
    }

    #[test]
    fn a_wait_is_found_in_a_sentence() {
        for (text, expected) in [
            ("please try again in 11.054s. visit https://…", Some(11_054)),
            ("please try again in 7m12s.", Some(432_000)),
            ("please try again in 20ms", Some(20)),
            ("please retry after 26 seconds. please go here", Some(26_000)),
            ("please retry in 38.5s.", Some(38_500)),
            ("your quota will reset after 2h10m.", Some(7_800_000)),
            ("you will regain access on 2026-12-01 at 00:00 utc.", Some((9 * 24 + 12) * 3_600_000)),
            ("limit for `x try again in 900h` reached. try again in 2s", Some(2_000)),
            ("try again in a while", None),
            ("wait", None),
        ] {
            assert_eq!(milliseconds_of(in_prose(text.as_bytes(), NOON)), expected, "{text}");
        }
    }

    #[test]
    fn a_day_in_california_ends_at_its_own_midnight() {
        for (now, hours) in [
            (1_795_262_400, 20), // 21 Nov 2026, noon UTC: 4 in the morning, winter
            (1_782_043_200, 19), // 21 Jun 2026, noon UTC: 5 in the morning, summer
            (1_793_520_000, 23), // 1 Nov 2026, 8 UTC: 1 in the morning, still summer
        ] {
            let wait = until_midnight_in_california(Timestamp::from_secs(now));
            assert_eq!(wait.as_secs(), hours * 3600, "{now}");
        }
    }
}
