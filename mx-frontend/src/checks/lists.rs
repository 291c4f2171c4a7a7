//! DNS lists: who is named there, and what that weighs together. RFC 5782.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::task::JoinSet;

use super::dns::{Answer, Dns};
use crate::config::DnsList;

/// What the lists say of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What all lists that name it weigh together.
    pub(super) weight: i32,
    /// Those that weigh against it.
    pub(super) against: Vec<String>,
}

/// Asks all of them at once. One that does not answer names nobody.
pub(super) async fn look_up(dns: &Arc<Dns>, lists: &[DnsList], client: IpAddr) -> Listed {
    let mut asked = JoinSet::new();
    for (index, list) in lists.iter().enumerate() {
        let (dns, name) = (Arc::clone(dns), query(client, &list.zone));
        asked.spawn(async move { (index, dns.ask(&name, RecordType::A).await) });
    }
    let mut named = vec![false; lists.len()];
    while let Some(answered) = asked.join_next().await {
        if let Ok((index, Answer::Found(records))) = answered {
            named[index] = records.iter().any(|one| lists[index].counts(one));
        }
    }
    let mut listed = Listed::default();
    for (list, _) in lists.iter().zip(named).filter(|(_, is_named)| *is_named) {
        listed.weight = listed.weight.saturating_add(list.weight);
        if list.weight > 0 {
            listed.against.push(list.zone.clone());
        }
    }
    listed
}

impl DnsList {
    /// Whether an answer names the client. Whatever is not in 127.0.0.0/8 is a domain that somebody else has bought, or a
    /// server that answers everything; lists say in 127.255.255.0/24 that they do not answer us.
    fn counts(&self, answer: &RData) -> bool {
        let RData::A(address) = answer else {
            return false;
        };
        let address: Ipv4Addr = address.0;
        let is_word = address.is_loopback() && address.octets()[..3] != [127, 255, 255];
        let mut answers = self.answers.iter();
        is_word && (self.answers.is_empty() || answers.any(|one| one.holds(address.into())))
    }
}

/// The name that stands for an address in a list. RFC 5782 §2.1, §2.4.
fn query(client: IpAddr, zone: &str) -> String {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.{zone}.")
        }
        IpAddr::V6(address) => {
            let mut name = String::with_capacity(64 + zone.len() + 1);
            for octet in address.octets().iter().rev() {
                for half in [octet & 15, octet >> 4] {
                    name.push(char::from_digit(half.into(), 16).unwrap_or('0'));
                    name.push('.');
                }
            }
            format!("{name}{zone}.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::Name;
    use hickory_resolver::proto::rr::rdata::{A, PTR};

    #[test]
    fn an_address_stands_in_a_list_turned_round() {
        let v4 = query("192.0.2.99".parse().unwrap(), "bl.test");
        assert_eq!(v4, "99.2.0.192.bl.test.");
        let mapped = query("::ffff:192.0.2.99".parse().unwrap(), "bl.test");
        assert_eq!(mapped, v4);
        // The example of RFC 5782 §2.4.
        let v6 = query("2001:db8:1:2:3:4:567:89ab".parse().unwrap(), "ugly.test");
        assert_eq!(
            v6,
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.test."
        );
    }

    #[test]
    fn only_answers_that_are_meant_count() {
        let list = |answers: &[&str]| DnsList {
            zone: "bl.test".into(),
            weight: 1,
            answers: answers.iter().map(|one| one.parse().unwrap()).collect(),
        };
        let counts = |answers: &[&str], address: [u8; 4]| {
            list(answers).counts(&RData::A(A(Ipv4Addr::from(address))))
        };
        assert!(counts(&[], [127, 0, 0, 2]));
        assert!(counts(&[], [127, 255, 254, 255]));
        for not_meant in [[127, 255, 255, 254], [192, 0, 2, 1], [126, 0, 0, 2]] {
            assert!(!counts(&[], not_meant), "{not_meant:?}");
            assert!(!counts(&["0.0.0.0/0"], not_meant), "{not_meant:?}");
        }
        assert!(counts(&["127.0.0.4/30", "127.0.0.9"], [127, 0, 0, 7]));
        assert!(!counts(&["127.0.0.4/30", "127.0.0.9"], [127, 0, 0, 8]));
        assert!(!list(&[]).counts(&RData::PTR(PTR(Name::root()))));
    }
}
