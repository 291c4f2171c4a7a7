//! What a planner says: what to move, and what it leaves as it is, each with its reason.

use serde::{Deserialize, Serialize};

/// One account to move. Numbers are indexes into the snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move {
    /// Which account.
    pub account: u32,
    /// The back-end where it lives.
    pub from: u32,
    /// The back-end that shall have it.
    pub to: u32,
    /// Why this one.
    pub why: Why,
}

/// Why an account is to move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Why {
    /// Its back-end is above the average; it was drawn by its cost.
    Drawn {
        /// Its cost against the average of a back-end.
        share: f64,
    },
    /// It relieves the worst hour of its back-end.
    WorstHour {
        /// Hour of the week.
        hour: u16,
        /// How far the back-end is above the average in that hour, before this move.
        above: f64,
        /// How much of that this account is.
        relief: f64,
    },
    /// The receiver is far below the average: it is new, or was emptied.
    Fill {
        /// Hour of the week.
        hour: u16,
        /// What this account is in that hour, against the average of a back-end.
        share: f64,
    },
    /// It makes room for others, in hours that are not the worst of the back-end that it comes to.
    Exchange {
        /// The worst hour of the week of that back-end.
        hour: u16,
        /// What this account is in that hour, against the average of a back-end.
        share: f64,
    },
    /// Its back-end is being emptied.
    Draining,
}

/// An account too heavy to be moved by a rule: somebody should look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Giant {
    /// Which account.
    pub account: u32,
    /// Its load in its worst hour against the average of a back-end in the worst hour of all.
    pub share: f64,
    /// It was moved all the same, because its back-end is being emptied.
    pub moved: bool,
}

/// A back-end that stays above the average, or is not empty as it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left {
    /// Which back-end.
    pub backend: u32,
    /// How far its worst hour stays above the average.
    pub above: f64,
    /// Accounts that stay though the back-end is being emptied.
    pub accounts: u32,
    /// What was in the way of the last account that was tried.
    pub obstacle: Obstacle,
}

/// What is in the way of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// What may be moved in a day, or between these two back-ends, is used up.
    Budget,
    /// Whoever took it would come above the average.
    Average,
    /// Nobody has room for it on disk.
    Disk,
    /// What is left is pinned, was moved lately, is too heavy, or is a group of which a part lives
    /// elsewhere.
    NothingMovable,
    /// There is no other active back-end.
    NoReceiver,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Budget => "the day's budget is used up",
            Self::Average => "whoever took more would come above the average",
            Self::Disk => "nobody else has room on disk",
            Self::NothingMovable => {
                "what is left is pinned, was moved lately, is too heavy, or is part of a group"
            }
            Self::NoReceiver => "there is no other active back-end",
        })
    }
}

/// Why a plan has no moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// Nobody has an account.
    NoAccounts,
    /// Nobody has a load.
    NoLoad,
    /// There is no active back-end beside the one that would give.
    NoReceiver,
    /// Nobody deviates significantly.
    Balanced,
    /// Somebody does, and nothing can be done: see what is left.
    Nothing,
}

impl std::fmt::Display for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoAccounts => "there are no accounts",
            Self::NoLoad => "no account has caused any load",
            Self::NoReceiver => "there is no other active back-end to move to",
            Self::Balanced => "no back-end deviates significantly from the average",
            Self::Nothing => "a back-end deviates, but nothing that would help can be moved",
        })
    }
}

/// What to do, for one day.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which they should be done.
    pub moves: Vec<Move>,
    /// Why there are none.
    pub idle: Option<Idle>,
    /// The heaviest first.
    pub giants: Vec<Giant>,
    /// Back-ends that stay as they should not be.
    pub left: Vec<Left>,
}

impl Plan {
    pub(super) fn idle(idle: Idle) -> Self {
        Self {
            idle: Some(idle),
            ..Self::default()
        }
    }
}
