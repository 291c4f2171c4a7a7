//! Blocks of free ports: tests run beside each other, in several processes.

use std::fs::{self, File};

use posthouse::ports::{Port, Ports};
use testkit::address::ports_of_systems;

/// A block that is ours as long as this lives.
#[derive(Debug)]
pub struct PortBlock {
    /// Its first port, for `--port-base`.
    pub base: u16,
    _lock: File,
}

impl PortBlock {
    /// Takes a block in which every port is free.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn take() -> Self {
        let folder = std::env::temp_dir().join("posthouse-e2e-ports");
        fs::create_dir_all(&folder).unwrap();
        let ports = ports_of_systems();
        let last = ports.end - SIZE;
        for base in (ports.start..=last).step_by(usize::from(SIZE)) {
            let lock = File::create(folder.join(base.to_string())).unwrap();
            if lock.try_lock().is_ok() && Ports::new(base).unwrap().try_all().is_ok() {
                return Self { base, _lock: lock };
            }
        }
        panic!("no free block of {SIZE} ports in {ports:?}");
    }

    /// Where one thing listens in this block.
    ///
    /// # Panics
    /// Never: blocks end below 65536.
    #[must_use]
    pub fn of(&self, port: Port) -> std::net::SocketAddr {
        Ports::new(self.base).unwrap().of(port)
    }
}

/// The block of `posthouse up`, rounded.
const SIZE: u16 = 60;
