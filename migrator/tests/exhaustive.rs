//! Every way in which a move can go: two migrators, an operator who gives it up, requests that are lost, answered into the void,
//! delayed or doubled, migrators and processes that die at every point. All states that can be reached are looked at.
//!
//! What comes next is asked of the migrator's own [`step`](migrator::step), what the directory takes of its own
//! [`MoveState::can_become`]; what back-ends answer is written down here as `store-backend/src/volume/sequencer/moves.rs` decides it.
#![allow(clippy::unwrap_used)]

use std::collections::{HashSet, VecDeque};

use directory_api::Epoch;
use directory_api::wire::{MoveId, MoveState};
use migrator::step::{Step, can_abort, compare, next};
use store_api::SetHash;
use store_api::transfer::{AccountState, Summary};

/// The account at the source. Its mail is a number that grows with each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// `undone`: this move was given up here.
    Active {
        undone: bool,
    },
    Frozen,
    Moved,
}

/// The account at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Absent,
    Importing { has: u8 },
    Active { has: u8 },
    Discarded,
}

/// What migrators ask. Whoever answers is durable when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    Save(MoveState),
    CompareAndSet,
    Offer,
    Freeze,
    Thaw,
    Pull {
        is_last: bool,
    },
    Discard,
    Activate,
    Release,
    /// Sums of both sides: nothing changes.
    Compare,
    /// Whether the home has changed: nothing changes.
    Home,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    record: MoveState,
    /// The commit point.
    is_switched: bool,
    source: Source,
    /// What the source has.
    written: u8,
    target: Target,
    /// A source that was restarted knows of no offer.
    is_offered: bool,
    /// Sent, and not arrived yet.
    late: Vec<Request>,
    migrators: [Migrator; 2],
}

/// A migrator: nothing, or at work on the record as it knows it, with what it will ask next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Migrator {
    Idle,
    Works {
        known: MoveState,
        asks: Vec<Request>,
        /// It gives the move up.
        undoes: bool,
        has_verified: bool,
    },
}

const WRITES_MAX: u8 = 2;
const LATE_MAX: usize = 2;

impl World {
    fn new() -> Self {
        Self {
            record: MoveState::Planned,
            is_switched: false,
            source: Source::Active { undone: false },
            written: 1,
            target: Target::Absent,
            is_offered: false,
            late: Vec::new(),
            migrators: [Migrator::Idle, Migrator::Idle],
        }
    }

    /// What a participant does with a request.
    fn arrives(&mut self, request: Request) -> Answer {
        let done = match request {
            Request::Save(state) => self.save(state),
            Request::CompareAndSet => {
                let is_now = self.record == MoveState::Verified && !self.is_switched;
                self.is_switched |= is_now;
                is_now
            }
            Request::Offer => match self.source {
                Source::Active { undone: false } | Source::Frozen => {
                    self.is_offered = true;
                    true
                }
                Source::Active { undone: true } | Source::Moved => false,
            },
            Request::Freeze => match self.source {
                Source::Active { undone: false } => {
                    self.source = Source::Frozen;
                    self.is_offered = true;
                    true
                }
                Source::Frozen => {
                    self.is_offered = true;
                    true
                }
                Source::Active { undone: true } | Source::Moved => false,
            },
            Request::Thaw => match self.source {
                Source::Active { .. } | Source::Frozen => {
                    self.source = Source::Active { undone: true };
                    self.is_offered = false;
                    true
                }
                Source::Moved => false,
            },
            Request::Pull { is_last } => self.pull(is_last),
            Request::Discard => match self.target {
                Target::Absent | Target::Importing { .. } | Target::Discarded => {
                    self.target = Target::Discarded;
                    true
                }
                Target::Active { .. } => false,
            },
            Request::Activate => match self.target {
                Target::Importing { has } | Target::Active { has } => {
                    self.target = Target::Active { has };
                    true
                }
                Target::Absent | Target::Discarded => false,
            },
            Request::Release => match self.source {
                Source::Frozen | Source::Moved => {
                    self.source = Source::Moved;
                    true
                }
                Source::Active { .. } => false,
            },
            Request::Compare => self.compares(),
            Request::Home => self.is_switched,
        };
        match done {
            true => Answer::Done,
            false => Answer::Refused,
        }
    }

    fn save(&mut self, state: MoveState) -> bool {
        let out_of_step = match state {
            MoveState::Switched => !self.is_switched,
            MoveState::Released | MoveState::Aborted => false,
            _ => self.is_switched,
        };
        let is_taken = self.record.can_become(state) && !out_of_step;
        if is_taken {
            self.record = state;
        }
        is_taken
    }

    /// An import begins whatever the source says; then it is asked.
    fn pull(&mut self, is_last: bool) -> bool {
        match self.target {
            Target::Absent => self.target = Target::Importing { has: 0 },
            Target::Importing { .. } => {}
            Target::Active { .. } | Target::Discarded => return false,
        }
        let may_read = match self.source {
            Source::Active { .. } => self.is_offered && !is_last,
            Source::Frozen => self.is_offered,
            Source::Moved => false,
        };
        if may_read {
            self.target = Target::Importing { has: self.written };
        }
        may_read
    }

    fn compares(&self) -> bool {
        let summary = |state, has: u8| Summary {
            state,
            epoch: Epoch::FIRST,
            move_id: Some(MoveId::from_octets([1; 16])),
            messages: has.into(),
            octets: 0,
            set_hash: Some(SetHash([has; 32])),
        };
        let source = match self.source {
            Source::Active { .. } => AccountState::Active,
            Source::Frozen => AccountState::Frozen,
            Source::Moved => AccountState::Moved,
        };
        let (target, has) = match self.target {
            Target::Absent | Target::Discarded => (AccountState::Absent, 0),
            Target::Importing { has } => (AccountState::Importing, has),
            Target::Active { has } => (AccountState::Active, has),
        };
        let id = MoveId::from_octets([1; 16]);
        compare(id, &summary(source, self.written), &summary(target, has)).is_ok()
    }

    /// What must be true at every moment.
    fn check(&self) {
        let source_takes_writes = matches!(self.source, Source::Active { .. });
        if let Target::Active { has } = self.target {
            assert!(!source_takes_writes, "two owners: {self:?}");
            assert!(has >= self.written, "mail is lost: {self:?}");
            assert!(self.is_switched, "opened before the commit point: {self:?}");
        }
        // The source keeps all that it has; where it has given the account away, the target has it.
        let has_moved = self.source == Source::Moved;
        assert!(
            !has_moved || matches!(self.target, Target::Active { .. }),
            "nobody has it: {self:?}"
        );
        if self.is_switched {
            let complete = match self.target {
                Target::Importing { has } | Target::Active { has } => has >= self.written,
                Target::Absent | Target::Discarded => false,
            };
            assert!(complete, "the home has no complete copy: {self:?}");
        }
    }

    /// Everything that may happen next.
    fn successors(&self) -> Vec<Self> {
        let mut found = Vec::new();
        // A user writes where the account is open.
        if self.written < WRITES_MAX && matches!(self.source, Source::Active { .. }) {
            let mut world = self.clone();
            world.written += 1;
            found.push(world);
        }
        if self.is_offered {
            let mut world = self.clone();
            world.is_offered = false;
            found.push(world);
        }
        for at in 0..self.late.len() {
            let mut world = self.clone();
            let request = world.late.remove(at);
            let mut again = world.clone();
            again.arrives(request);
            found.push(again);
            // Lost.
            found.push(world);
        }
        for who in 0..self.migrators.len() {
            self.steps_of(who, &mut found);
        }
        found
    }

    fn steps_of(&self, who: usize, found: &mut Vec<Self>) {
        let with = |migrator: Migrator| {
            let mut world = self.clone();
            world.migrators[who] = migrator;
            world
        };
        let Migrator::Works { asks, .. } = &self.migrators[who] else {
            if !self.record.is_final() {
                found.push(with(Migrator::begins(self.record)));
                // An operator gives the move up.
                found.extend(Migrator::gives_up(self.record).map(with));
            }
            return;
        };
        // It dies.
        found.push(with(Migrator::Idle));
        let request = asks[0];
        // Lost on its way.
        let mut lost = self.clone();
        lost.failed(who);
        found.push(lost.clone());
        // On its way for longer than anybody waits.
        if lost.late.len() < LATE_MAX && changes_something(request) {
            lost.late.push(request);
            lost.late.sort_by_key(|request| order(*request));
            found.push(lost);
        }
        let mut arrived = self.clone();
        let answer = arrived.arrives(request);
        // Answered into the void.
        let mut unheard = arrived.clone();
        unheard.failed(who);
        found.push(unheard);
        arrived.answered(who, answer);
        // Twice: the second one comes later.
        if arrived.late.len() < LATE_MAX && changes_something(request) {
            let mut twice = arrived.clone();
            twice.late.push(request);
            twice.late.sort_by_key(|request| order(*request));
            found.push(twice);
        }
        found.push(arrived);
    }

    /// A request was answered.
    fn answered(&mut self, who: usize, answer: Answer) {
        let Migrator::Works {
            known,
            asks,
            undoes,
            has_verified,
        } = &mut self.migrators[who]
        else {
            return;
        };
        let request = asks.remove(0);
        let undone = *undoes && matches!(request, Request::Thaw | Request::Discard);
        match (request, answer) {
            (Request::Save(state), Answer::Done) => *known = state,
            (Request::Compare, Answer::Done) => *has_verified = true,
            // Switched by an earlier attempt: there is nothing more to ask.
            (Request::Home, Answer::Done) => *asks = vec![Request::Save(MoveState::Switched)],
            (Request::Home, Answer::Refused) if asks.is_empty() => return self.failed_with(who),
            (Request::Home, Answer::Refused) => {}
            // The home tells whether an earlier one has got through.
            (Request::CompareAndSet, Answer::Refused) => {
                *asks = vec![Request::Home];
                return;
            }
            (_, Answer::Done) => {}
            // Nothing of the move is there to be undone.
            (_, Answer::Refused) if undone => {}
            (_, Answer::Refused) => return self.failed_with(who),
        }
        if asks.is_empty() {
            let (known, undoes, has_verified) = (*known, *undoes, *has_verified);
            self.migrators[who] = match known.is_final() {
                true => Migrator::Idle,
                false => Migrator::goes_on(known, undoes, has_verified),
            };
        }
    }

    /// No answer came.
    fn failed(&mut self, who: usize) {
        self.failed_with(who);
    }

    fn failed_with(&mut self, who: usize) {
        let Migrator::Works { known, undoes, .. } = &self.migrators[who] else {
            return;
        };
        let gives_up = (!undoes).then(|| Migrator::gives_up(*known)).flatten();
        self.migrators[who] = gives_up.unwrap_or(Migrator::Idle);
    }

    /// Faults end: one migrator takes the move up, and nothing is on its way.
    fn must_end(&self) {
        let mut world = self.clone();
        world.late.clear();
        world.migrators = [Migrator::Idle, Migrator::Idle];
        for _ in 0..100 {
            if world.record.is_final() {
                let is_right = match world.record {
                    MoveState::Released => {
                        world.source == Source::Moved
                            && matches!(world.target, Target::Active { .. })
                    }
                    _ => {
                        matches!(world.source, Source::Active { .. })
                            && !matches!(world.target, Target::Importing { .. })
                    }
                };
                assert!(is_right, "{self:?} ends as {world:?}");
                return;
            }
            match &world.migrators[0] {
                Migrator::Idle => world.migrators[0] = Migrator::begins(world.record),
                Migrator::Works { asks, .. } => {
                    let answer = world.arrives(asks[0]);
                    world.answered(0, answer);
                }
            }
        }
        panic!("{self:?} does not end: {world:?}");
    }
}

impl Migrator {
    fn begins(record: MoveState) -> Self {
        Self::goes_on(record, record == MoveState::Aborting, false)
    }

    /// The requests of the next step, as `perform.rs` makes them.
    fn goes_on(known: MoveState, undoes: bool, has_verified: bool) -> Self {
        let save = Request::Save;
        let asks = match next(known) {
            Step::Offer => vec![Request::Offer, save(MoveState::Copying)],
            Step::Copy => vec![
                Request::Offer,
                Request::Pull { is_last: false },
                Request::Freeze,
                save(MoveState::Frozen),
            ],
            Step::Verify => vec![
                Request::Freeze,
                Request::Pull { is_last: true },
                Request::Compare,
                save(MoveState::Verified),
            ],
            Step::Switch if has_verified => {
                vec![Request::CompareAndSet, save(MoveState::Switched)]
            }
            Step::Switch => vec![
                Request::Home,
                Request::Compare,
                Request::CompareAndSet,
                save(MoveState::Switched),
            ],
            Step::Release => vec![
                Request::Activate,
                Request::Release,
                save(MoveState::Released),
            ],
            Step::Undo => vec![Request::Thaw, Request::Discard, save(MoveState::Aborted)],
            Step::Done => return Self::Idle,
        };
        Self::Works {
            known,
            asks,
            undoes,
            has_verified,
        }
    }

    fn gives_up(known: MoveState) -> Option<Self> {
        can_abort(known).then(|| Self::Works {
            known,
            asks: vec![
                Request::Save(MoveState::Aborting),
                Request::Thaw,
                Request::Discard,
                Request::Save(MoveState::Aborted),
            ],
            undoes: true,
            has_verified: false,
        })
    }
}

/// So that two worlds with the same requests on their way are one.
fn order(request: Request) -> (u8, u8) {
    match request {
        Request::Save(state) => (0, state as u8),
        Request::CompareAndSet => (1, 0),
        Request::Offer => (2, 0),
        Request::Freeze => (3, 0),
        Request::Thaw => (4, 0),
        Request::Pull { is_last } => (5, is_last.into()),
        Request::Discard => (6, 0),
        Request::Activate => (7, 0),
        Request::Release => (8, 0),
        Request::Compare => (9, 0),
        Request::Home => (10, 0),
    }
}

fn changes_something(request: Request) -> bool {
    !matches!(request, Request::Compare | Request::Home)
}

#[test]
fn at_most_one_owner_and_at_least_one_complete_copy_and_every_move_ends() {
    let first = World::new();
    let mut seen = HashSet::from([first.clone()]);
    let mut open = VecDeque::from([first]);
    let (mut released, mut aborted) = (0u64, 0u64);
    while let Some(world) = open.pop_front() {
        world.check();
        world.must_end();
        match world.record {
            MoveState::Released => released += 1,
            MoveState::Aborted => aborted += 1,
            _ => {}
        }
        for next in world.successors() {
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    // What is not reached is not shown.
    assert!(released > 100 && aborted > 100, "{released}, {aborted}");
    assert!(seen.len() > 10_000, "{}", seen.len());
    println!("{} states", seen.len());
}

#[test]
fn the_search_finds_a_source_that_would_forget_that_it_was_undone() {
    // The same world but for one rule: as if a thaw left nothing behind.
    let mut world = World::new();
    world.late.push(Request::Freeze);
    world.record = MoveState::Aborted;
    world.arrives(Request::Thaw);
    assert_eq!(world.arrives(Request::Freeze), Answer::Refused);
    world.source = Source::Active { undone: false };
    world.arrives(Request::Freeze);
    let found = std::panic::catch_unwind(|| world.must_end());
    assert!(found.is_err(), "it is frozen, and nobody would thaw it");
}
