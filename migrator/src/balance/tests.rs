//! What holds for plans of both policies, whatever they are given.

use directory_api::{AccountId, BackendName, BackendState};
use proptest::prelude::*;

use super::peak::Budget;
use super::*;

/// A back-end with room for everything.
pub(super) fn backend(name: &str) -> Backend {
    Backend {
        name: BackendName::new(name).unwrap(),
        state: BackendState::Active,
        weight: 1,
        free: u64::MAX / 4,
    }
}

pub(super) fn backends(count: usize) -> Vec<Backend> {
    (0..count)
        .map(|number| backend(&format!("s{number}")))
        .collect()
}

/// An account that nothing holds.
pub(super) fn account(id: u64, home: u32, octets: u64) -> Account {
    Account {
        id: AccountId(id),
        home,
        octets,
        pinned: false,
        group: None,
        moved_ms: None,
    }
}

pub(super) fn snapshot(backends: Vec<Backend>, accounts: Vec<(Account, [f32; HOURS])>) -> Snapshot {
    let mut snapshot = Snapshot::new(NOW_MS, backends).unwrap();
    for (account, hours) in accounts {
        snapshot.push(account, &hours).unwrap();
    }
    snapshot
}

/// `count` equal accounts, all on the first back-end.
pub(super) fn all_on_the_first(backends: Vec<Backend>, count: u64) -> Snapshot {
    let accounts = (1..=count).map(|id| (account(id, 0, 1_000), [1.0; HOURS]));
    snapshot(backends, accounts.collect())
}

pub(super) const NOW_MS: i64 = 100 * DAY_MS;
pub(super) const DAY_MS: i64 = 86_400_000;

pub(super) fn by_policy() -> [Policy; 2] {
    [
        Policy::Reference(reference::Settings::default()),
        Policy::Peak(peak::Settings::default()),
    ]
}

#[test]
fn what_cannot_be_balanced_is_an_empty_plan_with_its_reason() {
    for policy in by_policy() {
        let nobody = plan(&snapshot(backends(3), Vec::new()), &policy, 1);
        assert_eq!(nobody.idle, Some(Idle::NoAccounts));
        let idle = snapshot(backends(2), vec![(account(1, 0, 1), [0.0; HOURS])]);
        assert_eq!(plan(&idle, &policy, 1).idle, Some(Idle::NoLoad));
        let alone = all_on_the_first(backends(1), 5);
        assert_eq!(plan(&alone, &policy, 1).idle, Some(Idle::NoReceiver));
        let few = snapshot(backends(10), vec![(account(1, 3, 1), [1.0; HOURS])]);
        let few = plan(&few, &policy, 1);
        assert!(few.moves.is_empty() && few.idle.is_some(), "{few:?}");
    }
}

#[test]
fn pinned_accounts_and_full_disks_leave_a_plan_that_says_so() {
    for policy in by_policy() {
        let pinned = (1..=10).map(|id| {
            let account = Account {
                pinned: true,
                ..account(id, 0, 1)
            };
            (account, [1.0; HOURS])
        });
        let pinned = plan(&snapshot(backends(2), pinned.collect()), &policy, 1);
        assert_eq!((pinned.moves.len(), pinned.idle), (0, Some(Idle::Nothing)));
        assert_eq!(pinned.left[0].obstacle, Obstacle::NothingMovable);
        let mut full = backends(2);
        full[1].free = 999;
        let full = plan(&all_on_the_first(full, 10), &policy, 1);
        assert_eq!((full.moves.len(), full.idle), (0, Some(Idle::Nothing)));
        assert_eq!(full.left[0].obstacle, Obstacle::Disk);
    }
}

#[test]
fn what_is_no_load_or_no_home_or_there_twice_is_refused() {
    let mut good = Snapshot::new(0, backends(2)).unwrap();
    for bad in [f32::NAN, f32::INFINITY, -1.0, limit::LOAD_MAX * 2.0] {
        let mut hours = [0.0; HOURS];
        hours[7] = bad;
        let refused = good.push(account(1, 0, 1), &hours).unwrap_err();
        assert!(
            matches!(refused, Unusable::Load { hour: 7, .. }),
            "{refused}"
        );
    }
    let zero = [0.0; HOURS];
    let nowhere = good.push(account(1, 2, 1), &zero);
    assert_eq!(nowhere, Err(Unusable::Home(AccountId(1))));
    good.push(account(1, 0, u64::MAX), &zero).unwrap();
    let twice = good.push(account(1, 0, 0), &zero);
    assert_eq!(twice, Err(Unusable::AccountTwice(AccountId(1))));
    assert_eq!(good.push(account(2, 0, 1), &zero), Err(Unusable::Octets));
    assert_eq!(good.accounts().len(), 1);

    assert_eq!(
        Snapshot::new(0, Vec::new()).unwrap_err(),
        Unusable::NoBackends
    );
    let twice = Snapshot::new(0, vec![backend("a"), backend("a")]);
    assert!(matches!(twice, Err(Unusable::BackendTwice(_))));
    assert_eq!(
        Snapshot::new(0, backends(1_001)).unwrap_err(),
        Unusable::Backends
    );
    assert!(Snapshot::new(0, backends(1_000)).is_ok());
    let none = Backend {
        weight: 0,
        ..backend("a")
    };
    assert!(matches!(
        Snapshot::new(0, vec![none]),
        Err(Unusable::Weightless(_))
    ));
}

/// Small providers of every sort.
fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let state = prop_oneof![
        6 => Just(BackendState::Active),
        1 => Just(BackendState::Draining),
        1 => Just(BackendState::Down)
    ];
    let backends = prop::collection::vec((state, 1_u32..4, 0_u64..200_000), 1..6);
    let any_account = (
        0_u32..6,
        0_u64..50_000,
        prop::bool::weighted(0.1),
        prop::option::weighted(0.2, 0_u32..5),
        prop::option::weighted(0.2, 80_i64..120),
        (0.0_f32..10.0, 0_usize..HOURS, 0.0_f32..30.0),
    );
    (backends, prop::collection::vec(any_account, 0..80)).prop_map(|(backends, accounts)| {
        let count = backends.len() as u32;
        let backends = backends.into_iter().enumerate();
        let backends = backends.map(|(number, (state, weight, free))| Backend {
            state,
            weight,
            free,
            ..backend(&format!("s{number}"))
        });
        let accounts = accounts.into_iter().zip(1..);
        let accounts = accounts.map(|((home, octets, pinned, group, day, load), id)| {
            let mut hours = [load.0; HOURS];
            hours[load.1] += load.2;
            let account = Account {
                pinned,
                group,
                moved_ms: day.map(|day| day * DAY_MS),
                ..account(id, home % count, octets)
            };
            (account, hours)
        });
        snapshot(backends.collect(), accounts.collect())
    })
}

fn budgets() -> impl Strategy<Value = Budget> {
    (0_u64..300_000, 0_u32..20, 0_u64..100_000, 0_u32..10).prop_map(
        |(octets, moves, pair_octets, pair_moves)| Budget {
            octets,
            moves,
            pair_octets,
            pair_moves,
        },
    )
}

fn octets(snapshot: &Snapshot, moves: &[&Move]) -> u64 {
    let octets = moves
        .iter()
        .map(|step| snapshot.accounts()[step.account as usize].octets);
    octets.sum()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_is_the_same_again_moves_each_once_and_conserves_load_and_room(
        snapshot in any_snapshot(), seed in any::<u64>(),
    ) {
        for policy in by_policy() {
            let made = plan(&snapshot, &policy, seed);
            prop_assert_eq!(&made, &plan(&snapshot, &policy, seed));
            prop_assert_eq!(made.moves.is_empty(), made.idle.is_some());
            let before = Loads::of(&snapshot);
            let mut after = before.clone();
            let mut seen = std::collections::HashSet::new();
            for step in &made.moves {
                let account = &snapshot.accounts()[step.account as usize];
                prop_assert!(seen.insert(step.account), "moved twice");
                prop_assert_eq!(account.home, step.from);
                prop_assert!(!account.pinned, "pinned");
                prop_assert_ne!(step.from, step.to);
                let to = &snapshot.backends()[step.to as usize];
                prop_assert_eq!(to.state, BackendState::Active);
                let hours = snapshot.hours(step.account as usize);
                after.carry(&hours, step.from as usize, step.to as usize);
            }
            for hour in 0..HOURS {
                let sum = |loads: &Loads| loads.0.iter().map(|hours| hours[hour]).sum::<f64>();
                prop_assert!((sum(&before) - sum(&after)).abs() < 1e-6);
            }
            for (number, backend) in snapshot.backends().iter().enumerate() {
                let come = made.moves.iter().filter(|step| step.to as usize == number);
                prop_assert!(octets(&snapshot, &come.collect::<Vec<_>>()) <= backend.free);
            }
        }
    }

    #[test]
    fn peak_keeps_budgets_and_groups_and_lets_rest_what_has_moved(
        snapshot in any_snapshot(), budget in budgets(),
    ) {
        let settings = peak::Settings { budget: budget.clone(), ..peak::Settings::default() };
        let made = peak::plan(&snapshot, &settings);
        let all: Vec<&Move> = made.moves.iter().collect();
        prop_assert!(octets(&snapshot, &all) <= budget.octets);
        prop_assert!(all.len() <= budget.moves as usize);
        for from in 0..6 {
            for to in 0..6 {
                let pair: Vec<&Move> =
                    all.iter().copied().filter(|step| (step.from, step.to) == (from, to)).collect();
                prop_assert!(octets(&snapshot, &pair) <= budget.pair_octets);
                prop_assert!(pair.len() <= budget.pair_moves as usize);
            }
        }
        for step in &made.moves {
            let account = &snapshot.accounts()[step.account as usize];
            if step.why != Why::Draining {
                let rested = account.moved_ms.is_none_or(|at| NOW_MS - at >= 14 * DAY_MS);
                prop_assert!(rested, "moved lately");
            }
            // Who is of the same group and lived in the same place goes along.
            for (index, other) in snapshot.accounts().iter().enumerate() {
                if account.group.is_some() && other.group == account.group {
                    let along = made.moves.iter().find(|step| step.account as usize == index);
                    if other.home == account.home {
                        prop_assert_eq!(along.map(|along| along.to), Some(step.to));
                    } else {
                        prop_assert_eq!(step.why, Why::Draining, "a group that was apart");
                    }
                }
            }
        }
    }

    #[test]
    fn no_rule_but_draining_brings_a_receiver_above_its_limit(
        snapshot in any_snapshot(), seed in any::<u64>(),
    ) {
        let metric = |hours: &Hours, weight: u32| hours.iter().sum::<f64>() / f64::from(weight);
        let mut loads = Loads::of(&snapshot);
        let active: Vec<usize> = (0..snapshot.backends().len())
            .filter(|b| snapshot.backends()[*b].state == BackendState::Active)
            .collect();
        let sum: f64 = active.iter().map(|b| loads.0[*b].iter().sum::<f64>()).sum();
        let weight: f64 = active.iter().map(|b| f64::from(snapshot.backends()[*b].weight)).sum();
        for step in plan(&snapshot, &by_policy()[0], seed).moves {
            let to = step.to as usize;
            loads.carry(&snapshot.hours(step.account as usize), step.from as usize, to);
            let now = metric(&loads.0[to], snapshot.backends()[to].weight);
            prop_assert!(now <= sum / weight * (1.0 + 1e-9), "{now} above {}", sum / weight);
        }
    }

    #[test]
    fn peak_keeps_receivers_at_their_limit_in_every_hour(snapshot in any_snapshot()) {
        let settings = peak::Settings { unsteady: 0.0, ..peak::Settings::default() };
        let (mut active, mut weight) = (Vec::new(), 0.0);
        let mut sums = [0.0; HOURS];
        let mut loads: Vec<Hours> = Loads::of(&snapshot).0.iter().map(loads::smooth).collect();
        for (number, backend) in snapshot.backends().iter().enumerate() {
            if backend.state == BackendState::Active {
                active.push(number);
                weight += f64::from(backend.weight);
            }
            if backend.state != BackendState::Down {
                for (sum, hour) in sums.iter_mut().zip(&loads[number]) {
                    *sum += hour;
                }
            }
        }
        let worst = |hours: &[f64]| hours.iter().copied().fold(0.0, f64::max);
        let share = |to: usize, hours: &Hours| {
            let weight_of = f64::from(snapshot.backends()[to].weight);
            let by_hour = (0..HOURS).map(|hour| {
                let day = worst(&sums[hour / 24 * 24..][..24]);
                let average = day.max(worst(&sums) / 2.0) / weight;
                hours[hour] / weight_of / average
            });
            by_hour.fold(0.0, f64::max)
        };
        let carry = |moves: &[Move], loads: &mut [Hours]| {
            for step in moves {
                let hours = loads::smooth(&snapshot.hours(step.account as usize));
                for (hour, load) in hours.iter().enumerate() {
                    loads[step.to as usize][hour] += load;
                    loads[step.from as usize][hour] -= load;
                }
            }
        };
        // What comes off a draining back-end has to go somewhere, and goes first.
        let moves = peak::plan(&snapshot, &settings).moves;
        let (draining, others): (Vec<_>, Vec<_>) =
            moves.into_iter().partition(|step| step.why == Why::Draining);
        carry(&draining, &mut loads);
        let before = loads.clone();
        carry(&others, &mut loads);
        for backend in active {
            // Who was above its limit is no worse than it was.
            let limit = share(backend, &before[backend]).max(1.03);
            let now = share(backend, &loads[backend]);
            prop_assert!(now <= limit + 1e-6, "back-end {}: {} of {}", backend, now, limit);
        }
    }
}
