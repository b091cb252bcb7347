//! What stands in a certificate: names, and until when it holds.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

fn parse(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(certificate).ok()
}

fn alternative_names(certificate: &Certificate) -> Vec<GeneralName> {
    match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(Some((_, names))) => names.0,
        _ => Vec::new(),
    }
}

/// The common name of the subject; the last one, which is the most specific, if there are several.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = parse(certificate)?;
    let subject = &certificate.tbs_certificate.subject.0;
    let parts = subject.iter().flat_map(|part| part.0.iter());
    let named = parts.rev().find(|part| part.oid == CN)?;
    let value = &named.value;
    let text = match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok()?.as_str().to_owned(),
        Tag::PrintableString => PrintableStringRef::try_from(value)
            .ok()?
            .as_str()
            .to_owned(),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok()?.as_str().to_owned(),
        _ => return None,
    };
    usable(text)
}

/// The first of the alternative names that is one of a client.
pub(super) fn alternative_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = parse(certificate)?;
    let names = alternative_names(&certificate);
    let text = names.into_iter().find_map(|name| match name {
        GeneralName::Rfc822Name(text) | GeneralName::DnsName(text) => Some(text.to_string()),
        GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
        GeneralName::IpAddress(address) => match address.as_bytes() {
            bytes @ [_, _, _, _] => {
                let bytes: [u8; 4] = bytes.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).to_string())
            }
            bytes => {
                let bytes: [u8; 16] = bytes.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).to_string())
            }
        },
        _ => None,
    });
    usable(text?)
}

/// The whole subject, as RFC 4514 writes it.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    usable(parse(certificate)?.tbs_certificate.subject.to_string())
}

/// A name with a character that no MQTT string may have is none.
fn usable(text: String) -> Option<String> {
    (!text.is_empty() && !text.contains('\0')).then_some(text)
}

/// The names of a server, in small letters, a wildcard included.
pub(super) fn server_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Some(certificate) = parse(certificate) else {
        return Vec::new();
    };
    let names = alternative_names(&certificate).into_iter();
    names
        .filter_map(|name| match name {
            GeneralName::DnsName(text) => Some(text.to_string().to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Until when a certificate holds, in seconds since 1970.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let certificate = parse(certificate)?;
    let time = certificate.tbs_certificate.validity.not_after;
    Some(time.to_unix_duration().as_secs())
}

/// When the next list of revocations is due, in seconds since 1970.
pub(super) fn next_update(list: &[u8]) -> Option<u64> {
    let list = CertificateList::from_der(list).ok()?;
    Some(list.tbs_cert_list.next_update?.to_unix_duration().as_secs())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_client_is_called_as_is_asked_for() {
        let certificate = certificate(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::OrganizationName, "Fleet, Inc.");
            name.push(DnType::CommonName, "wagon-7 \u{e9}");
            params.subject_alt_names = vec![
                SanType::URI("urn:wagon:7".try_into().unwrap()),
                SanType::DnsName("seven.example.org".try_into().unwrap()),
            ];
        });
        assert_eq!(common_name(&certificate).unwrap(), "wagon-7 \u{e9}");
        assert_eq!(alternative_name(&certificate).unwrap(), "urn:wagon:7");
        let subject = subject(&certificate).unwrap();
        assert!(
            subject.contains("CN=wagon-7") && subject.contains("O=Fleet\\, Inc."),
            "{subject}"
        );
    }

    #[test]
    fn a_certificate_without_names_names_nobody() {
        let empty = certificate(|_| ());
        assert_eq!(
            (common_name(&empty), alternative_name(&empty)),
            (None, None)
        );
        assert_eq!(subject(&empty), None);
        assert_eq!(common_name(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn addresses_are_names_too() {
        for (ip, text) in [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::7")] {
            let certificate = certificate(|params| {
                params.subject_alt_names = vec![SanType::IpAddress(ip.parse().unwrap())];
            });
            assert_eq!(alternative_name(&certificate).unwrap(), text);
        }
    }

    #[test]
    fn a_server_has_the_names_of_its_certificate() {
        let certificate = certificate(|params| {
            params.not_after = rcgen::date_time_ymd(2033, 1, 1);
            params.subject_alt_names = vec![
                SanType::DnsName("MQTT.example.org".try_into().unwrap()),
                SanType::DnsName("*.example.net".try_into().unwrap()),
            ];
        });
        assert_eq!(
            server_names(&certificate),
            ["mqtt.example.org", "*.example.net"]
        );
        assert_eq!(not_after(&certificate), Some(1_988_150_400));
    }
}
