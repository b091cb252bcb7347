//! `mqtt://user:password@host:port/topic`, or `mqtts://`.

use std::str::FromStr;

/// What such an address holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) topic: Option<String>,
    pub(super) is_tls: bool,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, is_tls) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            _ => {
                let text = "an address looks like mqtt://user:password@host:port/topic or mqtts://";
                return Err(text.to_owned());
            }
        };
        let (authority, topic) = match rest.split_once('/') {
            Some((authority, topic)) => (authority, Some(decoded(topic)?)),
            None => (rest, None),
        };
        // A password may hold an @, a host may not.
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = place_of(place, if is_tls { 8883 } else { 1883 })?;
        let (username, password) =
            match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
                None => (None, None),
                Some((name, "")) => (Some(decoded(name)?), None),
                Some((name, password)) => (Some(decoded(name)?), Some(decoded(password)?)),
            };
        Ok(Self {
            username,
            password,
            host,
            port,
            topic: topic.filter(|topic| !topic.is_empty()),
            is_tls,
        })
    }
}

fn place_of(place: &str, usual: u16) -> Result<(String, u16), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest
                .split_once(']')
                .ok_or_else(|| "an IPv6 address ends with ]".to_owned())?;
            (host, port.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let port = match port {
        None => usual,
        Some(port) => port
            .parse()
            .map_err(|_| format!("`{port}` is not a port"))?,
    };
    Ok((host.to_owned(), port))
}

/// Replaces %41 by A.
fn decoded(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(), digit());
        let value = high
            .zip(low)
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        out.push(value.ok_or_else(|| format!("a % in `{text}` has no two digits behind it"))?);
    }
    String::from_utf8(out).map_err(|_| format!("`{text}` is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_found() {
        let url: Url = "mqtt://me:p%40ss@broker:99/a/b%23".parse().unwrap();
        assert_eq!(url.username.as_deref(), Some("me"));
        assert_eq!(url.password.as_deref(), Some("p@ss"));
        assert_eq!((url.host.as_str(), url.port), ("broker", 99));
        assert_eq!(url.topic.as_deref(), Some("a/b#"));
    }

    #[test]
    fn parts_may_be_left_out() {
        let url: Url = "mqtt://broker".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("broker", 1883));
        assert_eq!((url.username, url.password, url.topic), (None, None, None));
        let url: Url = "mqtt://me@[::1]/".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 1883));
        assert_eq!(
            (url.username.as_deref(), url.password, url.topic),
            (Some("me"), None, None)
        );
    }

    #[test]
    fn tls_has_its_own_scheme_and_port() {
        let url: Url = "mqtts://broker/a".parse().unwrap();
        assert_eq!((url.is_tls, url.port), (true, 8883));
        assert!(!"mqtt://broker".parse::<Url>().unwrap().is_tls);
    }

    #[test]
    fn what_is_none_is_refused() {
        let error = |text: &str| text.parse::<Url>().unwrap_err();
        assert!(error("wss://a").contains("mqtts://"));
        assert!(error("http://a").contains("mqtt://"));
        assert!(error("mqtt://:1").contains("host"));
        assert!(error("mqtt://a:b").contains("not a port"));
        assert!(error("mqtt://a/%4").contains("two digits"));
        assert!(error("mqtt://[::1").contains(']'));
    }
}
