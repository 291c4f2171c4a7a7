//! How many connections each client has open, so that one client cannot take them all (P7).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections by client. Per process.
#[derive(Clone, Debug)]
pub struct Clients {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    each_max: usize,
    on_loopback: bool,
}

/// One counted connection; dropped, it is counted no more.
#[derive(Debug)]
pub struct Counted {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: IpAddr,
}

impl Clients {
    /// Counts nobody yet. Each client may have `each_max` connections; one on loopback any number,
    /// unless `on_loopback`: there a proxy or a load balancer speaks for many.
    #[must_use]
    pub fn new(each_max: usize, on_loopback: bool) -> Self {
        Self {
            open: Arc::default(),
            each_max,
            on_loopback,
        }
    }

    /// Counts one more connection, or gives nothing when the client has as many as it may.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<Counted> {
        let client = client_of(address);
        let limited = self.on_loopback || !address.to_canonical().is_loopback();
        let mut open = lock(&self.open);
        let count = open.entry(client).or_default();
        if limited && *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Counted {
            open: Arc::clone(&self.open),
            client,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// The client at an address. One with IPv6 has a /64 to itself (RFC 6177), therefore the last 64 bits tell nobody apart.
#[must_use]
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() >> 64 << 64).into()),
        four @ IpAddr::V4(_) => four,
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
        let clients = Clients::new(2, false);
        let first = clients.admit(ip("192.0.2.1")).unwrap();
        let _second = clients.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(clients.admit(ip("192.0.2.1")).is_none());
        let _other = clients.admit(ip("192.0.2.2")).unwrap();
        drop(first);
        assert!(clients.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn addresses_of_one_64_are_one_client_and_nothing_stays_behind() {
        let clients = Clients::new(1, false);
        let one = clients.admit(ip("2001:db8::1")).unwrap();
        assert!(clients.admit(ip("2001:db8::2")).is_none());
        assert!(clients.admit(ip("2001:db8:0:1::1")).is_some());
        drop(one);
        assert!(lock(&clients.open).is_empty());
    }

    #[test]
    fn loopback_is_limited_only_when_asked_for() {
        let free = Clients::new(1, false);
        let both = (free.admit(ip("127.0.0.1")), free.admit(ip("127.0.0.1")));
        assert!(both.0.is_some() && both.1.is_some());
        let strict = Clients::new(1, true);
        let both = (strict.admit(ip("::1")), strict.admit(ip("::1")));
        assert!(both.0.is_some() && both.1.is_none());
    }
}
