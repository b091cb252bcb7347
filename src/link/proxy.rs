//! The PROXY protocol, versions 1 and 2: by a header in front of a connection a proxy says for whom it
//! connects. Who is believed is not decided here.
//!
//! Read as its specification of 2020 has it: version 1 is a line of at most 107 bytes, version 2 a
//! binary header whose length stands in it. Health checks (`LOCAL`) and addresses of unknown kinds
//! (`UNKNOWN`) leave the address as it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The client's address, if it is told.
    pub address: Option<SocketAddr>,
    /// The common name in the certificate that the client has shown to the proxy, if the proxy has
    /// verified it.
    pub certificate_name: Option<String>,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is none.
    Missing,
    /// A line of version 1 that does not end where it must.
    TooLong,
    /// A line of version 1 that says something else than two addresses.
    BadLine,
    /// A version or command that does not exist.
    BadVersion,
    /// Addresses that do not fit into their length, or entries that do not.
    BadLength,
    /// A name that is no text.
    BadName,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the connection does not begin with one",
            Self::TooLong => "a line of version 1 has at most 107 bytes",
            Self::BadLine => "the line of version 1 cannot be read",
            Self::BadVersion => "neither version 1 nor 2, or an unknown command",
            Self::BadLength => "its parts do not fit into its length",
            Self::BadName => "the name of the certificate is no text",
        })
    }
}

/// Bytes of a line of version 1, its end included.
const LINE: usize = 107;

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";

/// Bytes of the fixed part of version 2.
const FIXED: usize = 16;

/// Bytes behind it that are taken: addresses and what proxies say of TLS, certificates excluded.
const MOST: usize = 4 * 1024;

/// Gathers a header.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
}

impl Reader {
    /// Takes bytes from the socket. Returns the header once it is complete, and how many of `bytes`
    /// belong to it.
    ///
    /// # Errors
    /// As soon as it can be no header.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<(Header, usize)>, Refusal> {
        let before = self.bytes.len();
        let room = (FIXED + MOST).saturating_sub(before);
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        match parse(&self.bytes)? {
            Some((header, used)) => {
                self.bytes = Vec::new();
                Ok(Some((header, used - before)))
            }
            None => Ok(None),
        }
    }
}

/// Reads a header at the start of `bytes`; `None` if it is not complete. Returns how long it is.
///
/// # Errors
/// If it is none, however it goes on.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Refusal> {
    let starts = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes[..length] == with[..length]
    };
    if starts(&SIGNATURE) {
        parse_binary(bytes)
    } else if starts(WORD) {
        parse_line(bytes)
    } else {
        Err(Refusal::Missing)
    }
}

fn parse_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, Refusal> {
    let Some(end) = bytes.iter().take(LINE).position(|&byte| byte == b'\n') else {
        return match bytes.len() < LINE {
            true => Ok(None),
            false => Err(Refusal::TooLong),
        };
    };
    let line = bytes.get(WORD.len()..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").ok_or(Refusal::BadLine)?;
    let line = std::str::from_utf8(line).map_err(|_| Refusal::BadLine)?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some((Header::default(), end + 1)));
    }
    let words: Vec<&str> = line.split(' ').collect();
    let [kind, source, destination, source_port, destination_port] = words[..] else {
        return Err(Refusal::BadLine);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match kind {
            "TCP4" => text.parse().ok().map(IpAddr::V4),
            "TCP6" => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| -> Option<u16> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| plain)
    };
    let read = || {
        address(destination)?;
        port(destination_port)?;
        Some(SocketAddr::new(address(source)?, port(source_port)?))
    };
    let header = Header {
        address: Some(read().ok_or(Refusal::BadLine)?),
        certificate_name: None,
    };
    Ok(Some((header, end + 1)))
}

fn parse_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Refusal> {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Refusal::BadVersion),
    };
    if length > MOST {
        return Err(Refusal::BadLength);
    }
    let Some(body) = bytes.get(FIXED..FIXED + length) else {
        return Ok(None);
    };
    let used = FIXED + length;
    if local {
        return Ok(Some((Header::default(), used)));
    }
    let (address, rest) = match fixed[13] {
        0x11 | 0x12 => {
            let (address, rest) = body.split_first_chunk::<12>().ok_or(Refusal::BadLength)?;
            let [a, b, c, d, ..] = *address;
            let port = u16::from_be_bytes([address[8], address[9]]);
            let ip = Ipv4Addr::new(a, b, c, d);
            (Some(SocketAddr::new(ip.into(), port)), rest)
        }
        0x21 | 0x22 => {
            let (address, rest) = body.split_first_chunk::<36>().ok_or(Refusal::BadLength)?;
            let ip = address.first_chunk::<16>().ok_or(Refusal::BadLength)?;
            let port = u16::from_be_bytes([address[32], address[33]]);
            (
                Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), port)),
                rest,
            )
        }
        // Unix sockets: two paths.
        0x31 | 0x32 => (None, body.get(216..).ok_or(Refusal::BadLength)?),
        // Unspecified: whatever follows cannot be told apart.
        _ => (None, &[][..]),
    };
    let header = Header {
        address,
        certificate_name: certificate_name(rest)?,
    };
    Ok(Some((header, used)))
}

/// Walks over entries of type, length and value.
fn entries<'a>(mut bytes: &'a [u8], mut each: impl FnMut(u8, &'a [u8])) -> Result<(), Refusal> {
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<3>().ok_or(Refusal::BadLength)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Refusal::BadLength)?;
        each(head[0], value);
        bytes = rest;
    }
    Ok(())
}

/// The common name in the certificate of a client that the proxy has verified.
fn certificate_name(bytes: &[u8]) -> Result<Option<String>, Refusal> {
    const TLS: u8 = 0x20;
    const COMMON_NAME: u8 = 0x22;
    /// Flags: by TLS, with a certificate on this connection or in this session.
    const BY_TLS: u8 = 1;
    const WITH_CERTIFICATE: u8 = 2 | 4;
    let mut tls = None;
    entries(bytes, |kind, value| {
        if kind == TLS {
            tls = Some(value);
        }
    })?;
    let Some(tls) = tls else {
        return Ok(None);
    };
    let (head, rest) = tls.split_first_chunk::<5>().ok_or(Refusal::BadLength)?;
    let verified = head[1..] == [0; 4];
    let mut name = None;
    entries(rest, |kind, value| {
        if kind == COMMON_NAME {
            name = Some(value);
        }
    })?;
    if !verified || head[0] & BY_TLS == 0 || head[0] & WITH_CERTIFICATE == 0 {
        return Ok(None);
    }
    let Some(name) = name else {
        return Ok(None);
    };
    match std::str::from_utf8(name) {
        Ok("") => Ok(None),
        Ok(name) if !name.contains('\0') => Ok(Some(name.to_owned())),
        _ => Err(Refusal::BadName),
    }
}

/// Addresses that have a prefix in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is one of them. An IPv4 address that comes as one of IPv6 is what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let shift = 32 - u32::from(self.prefix);
                shift == 32 || (ours.to_bits() ^ theirs.to_bits()) >> shift == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let shift = 128 - u32::from(self.prefix);
                shift == 128 || (ours.to_bits() ^ theirs.to_bits()) >> shift == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(drop)?,
            None => most,
        };
        match prefix <= most {
            true => Ok(Self { address, prefix }),
            false => Err(()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        match self.prefix == whole {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn entry(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
        bytes
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0xc0, 0, 0, 80];

    fn with_name(flags: u8, verify: u32, name: &[u8]) -> Vec<u8> {
        let mut tls = vec![flags];
        tls.extend(verify.to_be_bytes());
        tls.extend(entry(0x21, b"TLSv1.3"));
        tls.extend(entry(0x22, name));
        let mut body = FOUR.to_vec();
        body.extend(entry(0x01, b"mqtt"));
        body.extend(entry(0x20, &tls));
        v2(0x21, 0x11, &body)
    }

    fn good() -> Vec<(Vec<u8>, Header)> {
        let at = |text: &str| Header {
            address: Some(text.parse().unwrap()),
            certificate_name: None,
        };
        let mut six = [0_u8; 36];
        six[15] = 1;
        six[32..34].copy_from_slice(&7_u16.to_be_bytes());
        vec![
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 49152 80\r\n".to_vec(),
                at("192.0.2.1:49152"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
                at("[2001:db8::1]:1"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Header::default()),
            (
                b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n".to_vec(),
                Header::default(),
            ),
            (v2(0x21, 0x11, &FOUR), at("192.0.2.1:49152")),
            (v2(0x21, 0x21, &six), at("[::1]:7")),
            (v2(0x20, 0x00, &[]), Header::default()),
            (v2(0x20, 0x11, &FOUR), Header::default()),
            (v2(0x21, 0x31, &[0; 216]), Header::default()),
            (
                with_name(3, 0, "wagon-7".as_bytes()),
                Header {
                    certificate_name: Some("wagon-7".to_owned()),
                    ..at("192.0.2.1:49152")
                },
            ),
        ]
    }

    #[test]
    fn headers_are_read_wherever_they_are_cut() {
        for (mut bytes, header) in good() {
            let length = bytes.len();
            bytes.extend(b"\x10\x0c\0\x04MQTT");
            for cut in 0..bytes.len() {
                let mut reader = Reader::default();
                let first = reader.read(&bytes[..cut]).unwrap();
                let (read, used) = match first {
                    Some((read, used)) => (read, used),
                    None => {
                        let (read, used) = reader.read(&bytes[cut..]).unwrap().unwrap();
                        (read, cut + used)
                    }
                };
                assert_eq!((&read, used), (&header, length));
            }
        }
    }

    #[test]
    fn a_name_counts_only_if_the_proxy_has_verified_it() {
        for (flags, verify) in [(0, 0), (1, 0), (2, 0), (3, 1), (7, 0xff)] {
            let (header, _) = parse(&with_name(flags, verify, b"x")).unwrap().unwrap();
            assert_eq!(header.certificate_name, None, "{flags} {verify}");
            assert!(header.address.is_some());
        }
        assert_eq!(parse(&with_name(3, 0, b"\xff")), Err(Refusal::BadName));
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let bad: [(&[u8], Refusal); 10] = [
            (b"\x10", Refusal::Missing),
            (b"PROXX", Refusal::Missing),
            (b"\r\n\r\n\0\r\nQUIX", Refusal::Missing),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Refusal::BadLine),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", Refusal::BadLine),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 +2\r\n", Refusal::BadLine),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Refusal::BadLine),
            (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Refusal::BadLine),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Refusal::BadLine),
            (b"PROXY \xff\r\n", Refusal::BadLine),
        ];
        for (bytes, refusal) in bad {
            assert_eq!(
                parse(bytes),
                Err(refusal),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
        assert_eq!(
            parse(&[b"PROXY ".as_slice(), &[b'1'; 101]].concat()),
            Err(Refusal::TooLong)
        );
        assert_eq!(parse(&v2(0x22, 0x11, &FOUR)), Err(Refusal::BadVersion));
        assert_eq!(parse(&v2(0x11, 0x11, &FOUR)), Err(Refusal::BadVersion));
        assert_eq!(parse(&v2(0x21, 0x11, &FOUR[..11])), Err(Refusal::BadLength));
        assert_eq!(parse(&v2(0x21, 0x21, &FOUR)), Err(Refusal::BadLength));
        let cut = [FOUR.as_slice(), &[4, 0]].concat();
        assert_eq!(parse(&v2(0x21, 0x11, &cut)), Err(Refusal::BadLength));
        assert_eq!(
            parse(&v2(0x21, 0, &vec![0; MOST + 1])),
            Err(Refusal::BadLength)
        );
    }

    #[test]
    fn networks_hold_what_they_should() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("10.0.0.0/8").contains(ip("10.255.0.1")));
        assert!(!network("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(network("0.0.0.0/0").contains(ip("192.0.2.1")));
        assert!(!network("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(network("127.0.0.1").contains(ip("::ffff:127.0.0.1")));
        assert!(network("2001:db8::/32").contains(ip("2001:db8:1::")));
        assert!(!network("::1").contains(ip("::2")));
        assert!(network("::/0").contains(ip("::2")));
        for wrong in [
            "",
            "10.0.0.0/33",
            "::1/129",
            "example.org",
            "10.0.0.0/x",
            "1.2.3.4:5",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        for text in ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"] {
            assert_eq!(network(text).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_surprise_the_reader(bytes: Vec<u8>, cut: prop::sample::Index, binary: bool) {
            let start: &[u8] = if binary { &SIGNATURE } else { WORD };
            let bytes = [start, &bytes].concat();
            let cut = cut.index(bytes.len() + 1);
            let mut reader = Reader::default();
            let mut split = reader.read(&bytes[..cut]);
            if split == Ok(None) {
                split = reader.read(&bytes[cut..])
                    .map(|found| found.map(|(header, used)| (header, cut + used)));
            }
            prop_assert_eq!(split, parse(&bytes));
        }
    }
}
