//! Durations as Go writes them: `1h`, `90s`, `1h30m`, `1.5h`, `250ms`.

use std::time::Duration;

/// Reads a Go duration, rounded down to milliseconds. `None` for anything else, and for more than
/// a signed 64-bit count of nanoseconds holds (292 years), as in Go. A sign is not accepted: no
/// setting here can be negative.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanoseconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        nanoseconds += number.parse::<f64>().ok()? * nanoseconds_in(unit)?;
        rest = tail;
    }
    let within = !text.is_empty() && nanoseconds <= i64::MAX as f64;
    within.then_some(Duration::from_millis((nanoseconds / 1e6) as u64))
}

fn nanoseconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

/// A duration in its largest whole unit, rounded up: `12s`, `29m`, `3h`, `6d`.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1000);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds.div_ceil(60)),
        7_200..172_800 => format!("{}h", seconds.div_ceil(3_600)),
        _ => format!("{}d", seconds.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("1h", Some(3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            (".5s", Some(500)),
            ("250ms", Some(250)),
            ("1500us", Some(1)),
            ("0", Some(0)),
            ("", None),
            ("1", None),
            ("h", None),
            ("1 h", None),
            ("1d", None),
            ("-1h", None),
            ("1..5h", None),
            ("9999999h", None),
        ] {
            assert_eq!(parse(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn durations_are_short() {
        for (seconds, expected) in
            [(0, "0s"), (12, "12s"), (119, "119s"), (1_740, "29m"), (7_300, "3h"), (604_800, "7d")]
        {
            assert_eq!(short(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(short(Duration::from_millis(1)), "1s");
    }
}
