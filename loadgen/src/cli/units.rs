//! Numbers as people write them: `10k`, `1M`, `30s`, `5ms`, `1KiB`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A number, with `k`, `M` or `G` for thousands, millions and billions.
///
/// # Errors
/// What is wrong with the text.
pub fn number(text: &str) -> Result<f64, String> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        "g" | "G" => 1e9,
        _ => return Err(format!("{unit:?} is no unit of a number: use k, M or G")),
    };
    parse(digits, text).map(|value| value * factor)
}

/// A whole number with the same units.
///
/// # Errors
/// What is wrong with the text.
pub fn count(text: &str) -> Result<u64, String> {
    let value = number(text)?;
    if value.fract() != 0.0 {
        return Err(format!("{text:?} is not a whole number"));
    }
    Ok(value as u64)
}

/// A whole number that counts clients, topics or threads.
///
/// # Errors
/// What is wrong with the text.
pub fn clients(text: &str) -> Result<u32, String> {
    u32::try_from(count(text)?).map_err(|_| format!("{text:?} is too large"))
}

/// A rate per second.
///
/// # Errors
/// What is wrong with the text.
pub fn rate(text: &str) -> Result<f64, String> {
    let value = number(text.strip_suffix("/s").unwrap_or(text))?;
    if value > 0.0 {
        Ok(value)
    } else {
        Err("a rate must be above 0".to_owned())
    }
}

/// A time; without a unit seconds.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => {
            return Err(format!(
                "{unit:?} is no unit of time: use ns, us, ms, s, m or h"
            ));
        }
    };
    let seconds = parse(digits, text)? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{text:?}: {error}"))
}

/// A time in milliseconds where there is no unit, as emqtt-bench has them.
///
/// # Errors
/// What is wrong with the text.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    if split(text).1.is_empty() {
        return duration(&format!("{text}ms"));
    }
    duration(text)
}

/// Bytes.
///
/// # Errors
/// What is wrong with the text.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1.0,
        "k" | "kB" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "K" | "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        _ => {
            return Err(format!(
                "{unit:?} is no unit of bytes: use B, kB, KiB, MB or MiB"
            ));
        }
    };
    let value = parse(digits, text)? * factor;
    if value.fract() != 0.0 {
        return Err(format!("{text:?} is not a whole number of bytes"));
    }
    Ok(value as usize)
}

/// Source addresses: a list of addresses and networks (`127.0.0.2,127.0.1.0/28`). Of a network all
/// addresses are taken but the first and the last, which name the network and everybody in it.
///
/// # Errors
/// What is wrong with the text.
pub fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    const MOST: u32 = 1 << 16;
    let mut addresses = Vec::new();
    for part in text.split(',') {
        let Some((network, prefix)) = part.split_once('/') else {
            addresses.push(
                part.parse()
                    .map_err(|_| format!("{part:?} is no address"))?,
            );
            continue;
        };
        let network: Ipv4Addr = network
            .parse()
            .map_err(|_| format!("{network:?} is no IPv4 address"))?;
        let prefix: u32 = prefix
            .parse()
            .ok()
            .filter(|&prefix| prefix <= 32)
            .ok_or_else(|| format!("{part:?} is no network"))?;
        let size = 1_u64 << (32 - prefix);
        let first = u64::from(u32::from(network)) & !(size - 1);
        let hosts = if size > 2 {
            first + 1..first + size - 1
        } else {
            first..first + size
        };
        let hosts = hosts
            .take(MOST as usize)
            .filter_map(|host| u32::try_from(host).ok());
        addresses.extend(hosts.map(|host| IpAddr::from(Ipv4Addr::from(host))));
    }
    Ok(addresses)
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit() && character != '.' && character != '_')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn parse(digits: &str, text: &str) -> Result<f64, String> {
    let plain: String = digits
        .chars()
        .filter(|&character| character != '_')
        .collect();
    plain
        .parse()
        .map_err(|_| format!("{text:?} does not begin with a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_their_units() {
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(count("1M"), Ok(1_000_000));
        assert_eq!(count("1.5K"), Ok(1_500));
        assert_eq!(count("1_000"), Ok(1_000));
        assert!(
            count("1.5").is_err()
                && count("").is_err()
                && count("k").is_err()
                && count("5x").is_err()
        );
        assert_eq!(rate("250k/s"), Ok(250_000.0));
        assert!(rate("0").is_err() && rate("-1").is_err());
        assert!(clients("5G").is_err());
    }

    #[test]
    fn times() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(milliseconds("100"), Ok(Duration::from_millis(100)));
        assert_eq!(milliseconds("1s"), Ok(Duration::from_secs(1)));
        assert!(duration("5 weeks").is_err() && duration("-1s").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("64"), Ok(64));
        assert_eq!(bytes("64B"), Ok(64));
        assert_eq!(bytes("1KiB"), Ok(1_024));
        assert_eq!(bytes("1kB"), Ok(1_000));
        assert!(bytes("1bit").is_err() && bytes("0.3").is_err());
    }

    #[test]
    fn networks_are_spread_out() {
        let of = |text| addresses(text).map(|addresses| addresses.len());
        assert_eq!(of("127.0.0.1,127.0.0.2"), Ok(2));
        assert_eq!(of("127.0.1.0/28"), Ok(14));
        assert_eq!(of("127.0.0.0/8"), Ok(65_536));
        assert_eq!(of("127.0.0.9/32"), Ok(1));
        assert_eq!(addresses("10.0.0.7/30").unwrap()[0].to_string(), "10.0.0.5");
        assert!(of("localhost").is_err() && of("127.0.0.1/33").is_err());
    }
}
