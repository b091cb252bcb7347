//! What a client asks for: `$history/<range>/<filter>`, and points in time as people write them.
//!
//! A range is `FROM`, `FROM..` or `FROM..TO`. A point is so long ago (`-90s`, `-15m`, `-24h`, `-7d`), a time
//! of RFC 3339 or a date alone (`2026-11-21T08:30:00Z`, `2026-11-21T08:30:00.5-05:00`, `2026-11-21`, which is
//! UTC), or seconds since 1970 (`1795248000`, `1795248000.25`). No offset east of UTC can be written: a `+`
//! must be alone in its level [MQTT-4.7.1-2].

/// What the topic filter of such a subscription begins with.
pub const PREFIX: &str = crate::topic::HISTORY_PREFIX;

/// The name of the user property that tells when a message was received, in UTC.
pub const RECEIVED_AT: &str = "received-at";

/// Microseconds since 1970.
pub type Micros = u64;

const SECOND: Micros = 1_000_000;
const DAY: Micros = 86_400 * SECOND;

/// Years that [`format`] writes with four digits.
const LAST_YEAR: u64 = 9_999;

/// A subscription to what was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The first point that is wanted.
    pub from: Micros,
    /// Where it ends.
    pub until: Until,
    /// What topics are matched against.
    pub filter: &'a str,
}

/// Where a replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// With the last message that was there when the subscription was made.
    Subscribed,
    /// The same, and before this point.
    Before(Micros),
    /// Not at all: it goes on with what is published.
    Never,
}

/// Text that is no such subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRange;

impl<'a> Request<'a> {
    /// Reads a topic filter that begins with [`PREFIX`].
    ///
    /// # Errors
    /// No range stands in its second level, or nothing behind it.
    pub fn parse(text: &'a str, now: Micros) -> Result<Self, NoRange> {
        let rest = text.strip_prefix(PREFIX).ok_or(NoRange)?;
        let (range, filter) = rest.split_once('/').ok_or(NoRange)?;
        if filter.is_empty() {
            return Err(NoRange);
        }
        let (from, until) = match range.split_once("..") {
            None => (range, Until::Subscribed),
            Some((from, "")) => (from, Until::Never),
            Some((from, to)) => (from, Until::Before(point(to, now).ok_or(NoRange)?)),
        };
        Ok(Self {
            from: point(from, now).ok_or(NoRange)?,
            until,
            filter,
        })
    }
}

/// A point in time.
fn point(text: &str, now: Micros) -> Option<Micros> {
    if let Some(ago) = text.strip_prefix('-') {
        let (number, unit) = ago.split_at(ago.len().checked_sub(1)?);
        let unit = match unit {
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => DAY,
            _ => return None,
        };
        return Some(now.saturating_sub(digits(number)?.checked_mul(unit)?));
    }
    match text.as_bytes() {
        [_, _, _, _, b'-', ..] => date_time(text),
        _ => seconds(text),
    }
}

/// Digits alone.
fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// Seconds with a fraction, maybe.
fn seconds(text: &str) -> Option<Micros> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = digits(whole)?.checked_mul(SECOND)?;
    whole.checked_add(micros(fraction)?)
}

/// What stands behind the point of a fraction of a second.
fn micros(fraction: &str) -> Option<Micros> {
    digits(fraction)?;
    let first: String = fraction.chars().chain("000000".chars()).take(6).collect();
    first.parse().ok()
}

fn date_time(text: &str) -> Option<Micros> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let day = days_since_1970(year, month, day)?.checked_mul(DAY)?;
    let Some(time) = time else { return Some(day) };
    let (clock, offset) = match time.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => {
            let (clock, offset) = time.split_once('-')?;
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            (clock, in_day(hours, minutes, 0)?)
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hours, minutes, seconds] = numbers(clock, ':', [2, 2, 2])?;
    // West of UTC it is earlier there.
    day.checked_add(in_day(hours, minutes, seconds)? + micros(fraction)? + offset)
}

/// So many numbers with so many digits.
fn numbers<const N: usize>(text: &str, between: char, lengths: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (number, length) in found.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        *number = digits(part)?;
    }
    parts.next().is_none().then_some(found)
}

/// A leap second is the second before it.
fn in_day(hours: u64, minutes: u64, seconds: u64) -> Option<Micros> {
    let fits = hours < 24 && minutes < 60 && seconds <= 60;
    fits.then(|| (hours * 3_600 + minutes * 60 + seconds.min(59)) * SECOND)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970 to the begin of `year`.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    Some(days_before(year) + months + day - 1)
}

/// A point as RFC 3339 writes it, in UTC, with microseconds.
#[must_use]
pub fn format(at: Micros) -> String {
    let (day, within) = (at / DAY, at % DAY);
    let mut year = (1970 + day / 366).min(LAST_YEAR);
    while year < LAST_YEAR && days_before(year + 1) <= day {
        year += 1;
    }
    let mut day = day - days_before(year);
    let mut month = 1;
    while month < 12 && day >= days_in(year, month) {
        day -= days_in(year, month);
        month += 1;
    }
    let seconds = within / SECOND;
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        day + 1,
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        within % SECOND
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21T00:00:00Z.
    const TODAY: Micros = 1_795_219_200 * SECOND;

    fn parse(range: &str) -> Option<(Micros, Until)> {
        let text = format!("$history/{range}/a/+");
        let request = Request::parse(&text, TODAY).ok()?;
        assert_eq!(request.filter, "a/+");
        Some((request.from, request.until))
    }

    #[test]
    fn points_are_read_in_every_form() {
        for (text, expected) in [
            ("-24h", TODAY - DAY),
            ("-90s", TODAY - 90 * SECOND),
            ("-15m", TODAY - 900 * SECOND),
            ("-7d", TODAY - 7 * DAY),
            ("-99999999d", 0),
            ("0", 0),
            ("1795219200", TODAY),
            ("1795219200.25", TODAY + 250_000),
            ("2026-11-21", TODAY),
            ("2026-11-21T00:00:00Z", TODAY),
            ("2026-11-20T19:00:00.000001-05:00", TODAY + 1),
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T12:00:00Z", 1_709_208_000 * SECOND),
        ] {
            assert_eq!(parse(text), Some((expected, Until::Subscribed)), "{text}");
        }
    }

    #[test]
    fn a_range_says_where_it_ends() {
        let from = TODAY - DAY;
        assert_eq!(parse("-24h.."), Some((from, Until::Never)));
        let to = Until::Before(TODAY - 3_600 * SECOND);
        assert_eq!(parse("-24h..-1h"), Some((from, to)));
        let both = "2026-11-20T00:00:00.5Z..1795219200.5";
        let to = Until::Before(TODAY + 500_000);
        assert_eq!(parse(both), Some((from + 500_000, to)));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "-",
            "-h",
            "-5",
            "-5w",
            "x",
            "..",
            "..-1h",
            "-1h...",
            "-1h..x",
            "+",
            "#",
            "1.",
            "1.x",
            ".5",
            "2026-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:00Z",
            "2026-11-21T00:00:00",
            "1969-12-31",
            "99999999999999999999",
            "--5h",
            "-5.5h",
            "2026-11-21t00:00:00Z",
            "0x5",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["$history/-1h", "$history/-1h/", "$history", "a/-1h/b"] {
            assert_eq!(Request::parse(text, TODAY), Err(NoRange), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(at in 0..253_402_300_800_000_000_u64) {
            let text = format(at);
            prop_assert_eq!(point(&text, 0), Some(at), "{}", text);
        }
    }
}
