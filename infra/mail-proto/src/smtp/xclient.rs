//! XCLIENT: a filter or relay in front of us tells whom it speaks for, as Postfix's XCLIENT_README describes it.

use std::net::{IpAddr, Ipv6Addr};

use super::reply::Reply;

/// What a peer told of its client. What it does not know, or did not say, is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XClient {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The client's port.
    pub port: Option<u16>,
    /// The client's name in the DNS, as far as the peer vouches for it.
    pub name: Option<String>,
}

/// What is announced. LOGIN is not: nobody logs in here.
pub(super) const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO DESTADDR DESTPORT";

impl XClient {
    /// Reads what follows the verb. PROTO and HELO are checked and passed over, for the client is to name itself anew;
    /// so are DESTADDR and DESTPORT.
    pub(super) fn parse(arguments: &str) -> Result<Self, Reply> {
        let mut told = Self::default();
        let mut words = arguments
            .split([' ', '\t'])
            .filter(|word| !word.is_empty())
            .peekable();
        words.peek().ok_or(SYNTAX)?;
        for word in words {
            let (name, value) = word.split_once('=').ok_or(SYNTAX)?;
            let value = decode_xtext(value).ok_or(BAD_VALUE)?;
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            let value = Some(value).filter(|value| !is_unknown(value));
            if is("ADDR") {
                told.address = value.map(|value| parse_address(&value)).transpose()?;
            } else if is("PORT") {
                told.port = value
                    .map(|value| value.parse().map_err(|_| BAD_VALUE))
                    .transpose()?;
            } else if is("NAME") {
                told.name = value.map(parse_name).transpose()?;
            } else if !["PROTO", "HELO", "DESTADDR", "DESTPORT"]
                .into_iter()
                .any(is)
            {
                return Err(UNKNOWN_ATTRIBUTE);
            }
        }
        Ok(told)
    }
}

fn is_unknown(value: &str) -> bool {
    value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]")
}

fn parse_address(value: &str) -> Result<IpAddr, Reply> {
    let six = value
        .get(..5)
        .filter(|prefix| prefix.eq_ignore_ascii_case("IPV6:"));
    let address = match six {
        Some(_) => value[5..].parse::<Ipv6Addr>().map(IpAddr::V6),
        None => value.parse::<IpAddr>(),
    };
    address.map_err(|_| BAD_VALUE)
}

fn parse_name(value: String) -> Result<String, Reply> {
    let fits = (1..=NAME_MAX).contains(&value.len())
        && value
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet));
    if fits { Ok(value) } else { Err(BAD_VALUE) }
}

/// RFC 3461 §4: `+` and two capital hexadecimal digits stand for an octet. None where it is none, or no text.
fn decode_xtext(value: &str) -> Option<String> {
    let mut octets = value.bytes();
    let mut out = Vec::with_capacity(value.len());
    while let Some(octet) = octets.next() {
        out.push(match octet {
            b'+' => hexadecimal(octets.next()?)? << 4 | hexadecimal(octets.next()?)?,
            b'!'..=b'~' if octet != b'=' => octet,
            _ => return None,
        });
    }
    String::from_utf8(out).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

const NAME_MAX: usize = 255;
const SYNTAX: Reply = Reply::new(501, (5, 5, 4), "syntax: XCLIENT attribute=value ...");
const BAD_VALUE: Reply = Reply::new(501, (5, 5, 4), "bad attribute value");
const UNKNOWN_ATTRIBUTE: Reply = Reply::new(501, (5, 5, 4), "attribute not recognised");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_told_is_read_and_what_is_unknown_is_none() {
        let told = XClient::parse("ADDR=192.0.2.7 port=4711 NAME=a+2Eb.test PROTO=ESMTP HELO=x");
        let expected = XClient {
            address: Some("192.0.2.7".parse().unwrap()),
            port: Some(4711),
            name: Some("a.b.test".into()),
        };
        assert_eq!(told, Ok(expected));
        let told = XClient::parse("ADDR=IPV6:2001:db8::7 NAME=[TEMPUNAVAIL] PORT=[unavailable]");
        let told = told.unwrap();
        assert_eq!(told.address, Some("2001:db8::7".parse().unwrap()));
        assert_eq!((told.port, told.name), (None, None));
    }

    #[test]
    fn nonsense_is_refused_whole() {
        let long = format!("NAME={}", "a".repeat(256));
        for arguments in [
            "",
            "ADDR",
            "ADDR=",
            "ADDR=192.0.2",
            "ADDR=IPV6:192.0.2.7",
            "PORT=65536",
            "LOGIN=ann",
            "NAME=a b",
            "NAME=a+0Db",
            "NAME=a+2eb",
            "NAME=a+2",
            "NAME=a=b",
            "HELO=+FF",
            &long,
        ] {
            let refusal = XClient::parse(arguments).unwrap_err();
            assert_eq!(refusal.code, 501, "{arguments}");
        }
    }
}
