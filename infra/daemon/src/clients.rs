//! How many connections each client has open, so that one client cannot take them all (P7).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::balancers::Network;

/// Connections by client.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Counts connections by client. Per process.
#[derive(Clone, Debug)]
pub struct Clients {
    open: Open,
    each_max: usize,
    whom: Arc<Grouping>,
}

/// Which addresses are one client, and whom no limit is for.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// Leading bits of an IPv4 address that make a client: 0 to 32.
    pub ipv4_bits: u8,
    /// Leading bits of an IPv6 address that make a client: 0 to 128.
    pub ipv6_bits: u8,
    /// Networks and addresses without limits.
    pub exempt: Vec<Network>,
}

impl Grouping {
    /// Each IPv4 address is one client, and each IPv6 /64: who has IPv6 has one to themselves (RFC 6177), so the last 64 bits
    /// tell nobody apart. Loopback is exempt, unless `limit_on_loopback`: there a proxy or a load balancer speaks for many.
    #[must_use]
    pub fn hosts(limit_on_loopback: bool) -> Self {
        let exempt = if limit_on_loopback {
            Vec::new()
        } else {
            Network::LOOPBACK.to_vec()
        };
        Self {
            ipv4_bits: 32,
            ipv6_bits: 64,
            exempt,
        }
    }

    /// The client at an address.
    #[must_use]
    pub fn client(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(four) => {
                let free = 32 - u32::from(self.ipv4_bits.min(32));
                let mask = u32::MAX.checked_shl(free).unwrap_or(0);
                IpAddr::V4((four.to_bits() & mask).into())
            }
            IpAddr::V6(six) => {
                let free = 128 - u32::from(self.ipv6_bits.min(128));
                let mask = u128::MAX.checked_shl(free).unwrap_or(0);
                IpAddr::V6((six.to_bits() & mask).into())
            }
        }
    }

    /// Whether no limit is for whoever is at an address.
    #[must_use]
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.holds(address))
    }
}

/// One admitted connection; dropped, it is counted no more.
#[derive(Debug)]
pub struct Counted {
    /// Where it is counted, and as whose. Nothing: whoever has no limit takes nothing from neighbours that have one.
    place: Option<(Open, IpAddr)>,
    nth: usize,
}

impl Counted {
    /// A connection that is not counted.
    #[must_use]
    pub fn free() -> Self {
        Self {
            place: None,
            nth: 0,
        }
    }

    /// How many connections the client had with this one when it came; 0 when it is not counted.
    #[must_use]
    pub fn nth(&self) -> usize {
        self.nth
    }
}

impl Clients {
    /// Counts nobody yet. Each client may have `each_max` connections; who is exempt any number.
    #[must_use]
    pub fn new(each_max: usize, whom: Grouping) -> Self {
        Self {
            open: Arc::default(),
            each_max,
            whom: Arc::new(whom),
        }
    }

    /// Counts one more connection, unless it is of somebody exempt; or gives nothing when the client has as many as it may.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<Counted> {
        if self.whom.is_exempt(address) {
            return Some(Counted::free());
        }
        let client = self.whom.client(address);
        let mut open = lock(&self.open);
        let count = open.entry(client).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Counted {
            place: Some((Arc::clone(&self.open), client)),
            nth: *count,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((open, client)) = &self.place else {
            return;
        };
        let mut open = lock(open);
        if let Some(count) = open.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                open.remove(client);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_at_its_limit_waits_for_one_of_its_own_to_end() {
        let clients = Clients::new(2, Grouping::hosts(false));
        let first = clients.admit(ip("192.0.2.1")).unwrap();
        let _second = clients.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(clients.admit(ip("192.0.2.1")).is_none());
        let _other = clients.admit(ip("192.0.2.2")).unwrap();
        drop(first);
        assert!(clients.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn addresses_of_one_64_are_one_client_and_nothing_stays_behind() {
        let clients = Clients::new(1, Grouping::hosts(false));
        let one = clients.admit(ip("2001:db8::1")).unwrap();
        assert!(clients.admit(ip("2001:db8::2")).is_none());
        assert!(clients.admit(ip("2001:db8:0:1::1")).is_some());
        drop(one);
        assert!(lock(&clients.open).is_empty());
    }

    #[test]
    fn as_many_bits_as_are_asked_for_make_a_client() {
        let whom = |ipv4_bits, ipv6_bits| Grouping {
            ipv4_bits,
            ipv6_bits,
            exempt: vec!["198.51.100.0/24".parse().unwrap()],
        };
        for (bits, address, client) in [
            (24, "192.0.2.255", "192.0.2.0"),
            (24, "::ffff:192.0.3.1", "192.0.3.0"),
            (32, "192.0.2.255", "192.0.2.255"),
            (0, "192.0.2.255", "0.0.0.0"),
        ] {
            assert_eq!(whom(bits, 64).client(ip(address)), ip(client));
        }
        for (bits, client) in [(64, "2001:db8::"), (128, "2001:db8::1:0:0:7"), (0, "::")] {
            assert_eq!(whom(24, bits).client(ip("2001:db8::1:0:0:7")), ip(client));
        }
        assert!(whom(24, 64).is_exempt(ip("::ffff:198.51.100.7")));
        assert!(!whom(24, 64).is_exempt(ip("198.51.101.7")));
    }

    #[test]
    fn who_is_exempt_takes_nothing_from_neighbours_that_are_not() {
        let whom = Grouping {
            ipv4_bits: 24,
            ipv6_bits: 64,
            exempt: vec!["192.0.2.7".parse().unwrap()],
        };
        let clients = Clients::new(2, whom);
        let free: Vec<_> = (0..5).map(|_| clients.admit(ip("192.0.2.7"))).collect();
        assert!(free.iter().flatten().all(|one| one.nth() == 0));
        let first = clients.admit(ip("192.0.2.8")).unwrap();
        assert_eq!(first.nth(), 1);
        assert_eq!(clients.admit(ip("192.0.2.9")).unwrap().nth(), 2);
        let _second = clients.admit(ip("192.0.2.9")).unwrap();
        assert!(clients.admit(ip("192.0.2.8")).is_none());
        assert!(clients.admit(ip("192.0.2.7")).is_some());
        drop(free);
        assert!(clients.admit(ip("192.0.2.8")).is_none());
    }

    #[test]
    fn loopback_is_limited_only_when_asked_for() {
        let free = Clients::new(1, Grouping::hosts(false));
        let both = (free.admit(ip("127.0.0.1")), free.admit(ip("127.0.0.1")));
        assert!(both.0.is_some() && both.1.is_some());
        let strict = Clients::new(1, Grouping::hosts(true));
        let both = (strict.admit(ip("::1")), strict.admit(ip("::1")));
        assert!(both.0.is_some() && both.1.is_none());
    }
}
