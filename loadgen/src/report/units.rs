//! Numbers for people: three significant digits and a unit.

/// `12.3 µs` from nanoseconds.
pub(crate) fn nanoseconds(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v < 1e3 => (value, "ns"),
        v if v < 1e6 => (value / 1e3, "µs"),
        v if v < 1e9 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(scaled))
}

/// `1.23 M` from a rate or a count. Below 10,000 in full.
pub(crate) fn si(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v < 1e4 => return three_digits(value),
        v if v < 1e6 => (value / 1e3, "k"),
        v if v < 1e9 => (value / 1e6, "M"),
        _ => (value / 1e9, "G"),
    };
    format!("{} {unit}", three_digits(scaled))
}

/// `1.23 MiB` from bytes.
pub(crate) fn bytes(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v < 10_240.0 => (value, "B"),
        v if v < 10_485_760.0 => (value / 1_024.0, "KiB"),
        v if v < 10_737_418_240.0 => (value / 1_048_576.0, "MiB"),
        _ => (value / 1_073_741_824.0, "GiB"),
    };
    format!("{} {unit}", three_digits(scaled))
}

/// `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, at least the whole number, with thousands separated.
pub(crate) fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    // Where rounding makes one digit more of it, one place less is shown.
    let places = match magnitude {
        0.0 => 0,
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.0995 => 2,
        _ => 3,
    };
    if places > 0 {
        return format!("{value:.places$}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a magnitude that was rounded; what u64 cannot hold is shown as its maximum"
    )]
    let whole = count(magnitude.round() as u64);
    if value < 0.0 && whole != "0" {
        format!("-{whole}")
    } else {
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        for (value, text) in [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (1_000.0, "1.00 µs"),
            (12_345.0, "12.3 µs"),
            (99_960.0, "100 µs"),
            (2_500_000.0, "2.50 ms"),
            (3_200_000_000.0, "3.20 s"),
        ] {
            assert_eq!(nanoseconds(value), text);
        }
        assert_eq!(si(9_999.0), "9,999");
        assert_eq!(si(20_000.0), "20.0 k");
        assert_eq!(si(2_130_000.0), "2.13 M");
        assert_eq!(si(0.25), "0.25");
        assert_eq!(si(0.012), "0.012");
        assert_eq!(si(-12.0), "-12.0");
        assert_eq!(bytes(1_777.0), "1,777 B");
        assert_eq!(bytes(2_097_152.0), "2,048 KiB");
        assert_eq!(bytes(20_971_520.0), "20.0 MiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(three_digits(f64::NAN), "–");
    }
}
