//! What a client calls itself in HELO or EHLO. RFC 5321 §4.1.1.1, §4.1.3.

use std::net::IpAddr;

use mail_proto::Address;

use super::Check;

/// What is wrong with the name, if anything is.
pub(super) fn judge(name: &str, client: IpAddr, hostname: &str) -> Option<Check> {
    let without_dot = name.strip_suffix('.').unwrap_or(name);
    if without_dot.eq_ignore_ascii_case(hostname) {
        return Some(Check::HeloOwnName);
    }
    // A name is what can stand behind the @ of an address; underscores, which real hosts have, are borne there.
    let Ok(address) = format!("x@{without_dot}").parse::<Address>() else {
        return Some(Check::HeloSyntax);
    };
    let Some(literal) = address.domain().strip_prefix('[') else {
        return (!is_full_name(address.domain())).then_some(Check::HeloSyntax);
    };
    let literal = literal.trim_end_matches(']');
    let tag_length = "IPv6:".len();
    let told: Option<IpAddr> = match literal.get(..tag_length) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => literal[tag_length..].parse().ok(),
        _ => literal.parse().ok(),
    };
    let is_its_own = told.is_some_and(|told| told.to_canonical() == client.to_canonical());
    (!is_its_own).then_some(Check::HeloLiteral)
}

/// With a domain, and no address without brackets: no domain at the top is a number.
fn is_full_name(name: &str) -> bool {
    let last = name.rsplit_once('.').map(|(_, last)| last);
    last.is_some_and(|last| !last.bytes().all(|octet| octet.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str) -> Option<Check> {
        judge(name, "192.0.2.7".parse().unwrap(), "mx.example.test")
    }

    #[test]
    fn full_names_and_the_client_s_own_address_are_right() {
        for name in [
            "client.test",
            "client.test.",
            "my_host.client.test",
            "a.b.c.d.e.xn--p1ai",
            "1.2.3.test",
            "[192.0.2.7]",
            "[IPv6:::ffff:192.0.2.7]",
            "[ipv6:::ffff:c000:207]",
        ] {
            assert_eq!(judged(name), None, "{name}");
        }
        let client = "2001:db8::7".parse().unwrap();
        assert_eq!(judge("[IPv6:2001:DB8:0::7]", client, "mx"), None);
    }

    #[test]
    fn what_is_no_full_name_is_found() {
        let label_too_long = format!("{}.test", "x".repeat(64));
        let too_long = ["x".repeat(60).as_str(); 5].join(".");
        for name in [
            "",
            ".",
            "localhost",
            "192.0.2.7",
            "client..test",
            "-client.test",
            "client-.test",
            "cli(ent.test",
            "[192.0.2.7",
            "[192.0.2]",
            "[2001:db8::7]",
            "[]",
            "[192.0.2.7]x",
            "[IPv6:192.0.2.7]",
            "é.test",
            &label_too_long,
            &too_long,
        ] {
            assert_eq!(judged(name), Some(Check::HeloSyntax), "{name}");
        }
        let label = format!("{}.test", "x".repeat(63));
        assert_eq!(judged(&label), None);
    }

    #[test]
    fn our_name_and_the_addresses_of_others_are_found() {
        for name in ["mx.example.test", "MX.Example.Test", "mx.example.test."] {
            assert_eq!(judged(name), Some(Check::HeloOwnName), "{name}");
        }
        let none = judge("localhost", "192.0.2.7".parse().unwrap(), "localhost");
        assert_eq!(none, Some(Check::HeloOwnName));
        for name in ["[192.0.2.8]", "[IPv6:2001:db8::7]"] {
            assert_eq!(judged(name), Some(Check::HeloLiteral), "{name}");
        }
    }
}
