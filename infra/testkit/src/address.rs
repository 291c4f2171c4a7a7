//! Addresses at which nobody listens, for servers that must be told where to before they start.
//!
//! A port that the kernel chose and that was given back may be taken by any outgoing connection of a test beside.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Ports of this process, each given once.
static BLOCK: Mutex<Option<Block>> = Mutex::new(None);

/// Ports that are ours as long as the lock is held: till the process ends.
struct Block {
    next: u16,
    end: u16,
    _lock: File,
}

/// A loopback address at which nobody listens. Its port is below those of outgoing connections, and no other test is given it as
/// long as this process lives.
///
/// # Panics
/// When all ports are taken.
#[must_use]
pub fn unused_address() -> SocketAddr {
    let mut block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some(ours) = block.as_mut().filter(|ours| ours.next < ours.end) else {
            let full = block.replace(take_block());
            // Its ports are in use: the lock stays until the process ends.
            std::mem::forget(full);
            continue;
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ours.next));
        ours.next += 1;
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn take_block() -> Block {
    let folder = std::env::temp_dir().join("posthouse-test-ports");
    fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
    let ports = unused_ports();
    for next in ports.clone().step_by(usize::from(SIZE)) {
        let lock = File::create(folder.join(next.to_string()));
        let lock = lock.expect("the folder for temporary files can be written");
        if lock.try_lock().is_ok() {
            let end = (next + SIZE).min(ports.end);
            return Block {
                next,
                end,
                _lock: lock,
            };
        }
    }
    panic!("no free ports in {ports:?}");
}

/// Ports that no outgoing connection is given on this machine: the lower half is for [`unused_address`], the upper for whole systems.
///
/// # Panics
/// When fewer than 4,000 are left.
#[must_use]
pub fn ports_of_systems() -> Range<u16> {
    let (middle, end) = middle_and_end();
    middle..end
}

fn unused_ports() -> Range<u16> {
    FIRST..middle_and_end().0
}

fn middle_and_end() -> (u16, u16) {
    let range = fs::read_to_string(OUTGOING).expect(OUTGOING);
    let end = range
        .split_whitespace()
        .next()
        .and_then(|low| low.parse().ok());
    let end: u16 = end.expect(OUTGOING);
    assert!(
        end >= FIRST + 4_000,
        "{OUTGOING} begins at {end}: tests need 4,000 ports from {FIRST} that no outgoing connection is given"
    );
    (FIRST + (end - FIRST) / 2, end)
}

/// From which port to which Linux takes those of outgoing connections.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Above those that need a privilege.
const FIRST: u16 = 1_100;
const SIZE: u16 = 100;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_address_is_given_once_and_can_be_listened_on() {
        let given: Vec<SocketAddr> = (0..250).map(|_| unused_address()).collect();
        let distinct: BTreeSet<_> = given.iter().collect();
        assert_eq!(distinct.len(), given.len());
        for address in given {
            assert!(unused_ports().contains(&address.port()), "{address}");
            TcpListener::bind(address).expect("nobody else listens there");
        }
    }
}
