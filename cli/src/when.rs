//! Times as people write and read them: `2h` from now, RFC 3339, `3m12s ago`.
//!
//! Invariant: nothing here reads the clock; callers pass `now`, so that all rows of one table are measured from one moment.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A moment: an RFC 3339 time, a local date and time, or a duration from now.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(from_now) = text.parse::<api::quantity::Duration>() {
        let micros = i64::try_from(from_now.0).map_err(|_| "too far away".to_owned())?;
        return now.checked_add(jiff::SignedDuration::from_micros(micros)).map_err(|_| "too far away".to_owned());
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return local.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp()).map_err(|error| error.to_string());
    }
    Err("neither a time (2026-12-24T18:00:00Z, or 2026-12-24T18:00 in local time) nor a duration from now (2h, 1h30m)".to_owned())
}

/// Seconds as `3m12s`: the two largest units, nothing below a second.
pub(crate) fn span(seconds: i64) -> String {
    const UNITS: [(&str, i64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let seconds = seconds.max(0);
    let first = UNITS.iter().position(|(_, length)| seconds >= *length).unwrap_or(3);
    let (unit, length) = UNITS[first];
    let whole = seconds / length;
    match UNITS.get(first + 1).map(|(unit, smaller)| (unit, seconds % length / smaller)) {
        Some((smaller, rest)) if rest > 0 => format!("{whole}{unit}{rest}{smaller}"),
        _ => format!("{whole}{unit}"),
    }
}

/// The time from `from` to `to`, as [`span`]; nothing negative.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    span(to.as_second() - from.as_second())
}

/// A moment in the local zone and how far it is: `2026-12-24 18:00:00 (3m12s ago)`.
pub(crate) fn moment(at: Timestamp, now: Timestamp) -> String {
    let local = at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    if at > now { format!("{local} (in {})", between(now, at)) } else { format!("{local} ({} ago)", between(at, now)) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn moments_are_read() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(parse("2h", now).unwrap(), "2026-01-01T02:00:00Z".parse().unwrap());
        assert_eq!(parse("2026-03-01T00:00:00+02:00", now).unwrap(), "2026-02-28T22:00:00Z".parse().unwrap());
        let local: DateTime = "2026-03-01T10:00:00".parse().unwrap();
        assert_eq!(parse("2026-03-01T10:00", now).unwrap(), local.to_zoned(TimeZone::system()).unwrap().timestamp());
        for bad in ["", "tomorrow", "-2h", "2", "2026-13-01T00:00:00Z", "9999999d"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in
            [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (192, "3m12s"), (7_265, "2h1m"), (86_400, "1d"), (90_061, "1d1h")]
        {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }
}
