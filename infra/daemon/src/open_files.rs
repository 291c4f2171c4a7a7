//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Lets this process have as many open as it may allow itself. Who starts it mostly allows 1,024 at first, for the sake of
/// programs that use `select`: fewer than the connections of one tier.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if raised != limit
        && let Err(cause) = setrlimit(Resource::Nofile, raised)
    {
        warn!(%cause, "cannot have more files open");
    }
}

/// Complains when so many connections are more than may be open.
pub fn expect(connections_max: usize) {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return;
    };
    if limit < (connections_max as u64).saturating_add(OTHERS) {
        warn!(
            limit,
            connections_max,
            "fewer files may be open than connections: raise the limit (LimitNOFILE, ulimit -n)"
        );
    }
}

/// Listeners, links, logs and what the runtime has.
const OTHERS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_be_open_as_the_process_may_allow_itself() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.maximum.unwrap_or(1 << 20) - 1;
        let lowered = Rlimit {
            current: Some(lower),
            ..before
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        raise();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
