//! One test a rule, by its name.

use super::super::tests::{DAY_MS, NOW_MS, account, all_on_the_first, backends, snapshot};
use super::super::{Account, HOURS};
use super::*;

fn planned(snapshot: &Snapshot, seed: u64) -> Plan {
    plan(snapshot, &Settings::default(), seed)
}

/// Accounts with these costs, each on its back-end.
fn costs_of(backends_count: usize, homes_and_costs: &[(u32, f32)]) -> Snapshot {
    let accounts = homes_and_costs.iter().zip(1..);
    let accounts = accounts.map(|((home, cost), id)| (account(id, *home, 1), [*cost; HOURS]));
    snapshot(backends(backends_count), accounts.collect())
}

#[test]
fn a_metric_per_server_over_a_reasonable_time() {
    // One has all of its load in one hour, the other the same spread over the week: equal.
    let mut burst = [0.0; HOURS];
    burst[30] = 168.0;
    let equal = vec![(account(1, 0, 1), burst), (account(2, 1, 1), [1.0; HOURS])];
    let equal = planned(&snapshot(backends(2), equal), 1);
    assert_eq!(equal.idle, Some(Idle::Balanced));
}

#[test]
fn act_only_when_a_server_deviates_significantly_from_the_average() {
    let nearly = [[(0, 1.0); 107].as_slice(), &[(1, 1.0); 93]].concat();
    assert_eq!(planned(&costs_of(2, &nearly), 1).idle, Some(Idle::Balanced));
    let far = [[(0, 1.0); 109].as_slice(), &[(1, 1.0); 91]].concat();
    assert_eq!(planned(&costs_of(2, &far), 1).moves.len(), 9);
}

#[test]
fn order_users_by_decayed_metric_cost() {
    // Of one user at cost 8 and eight at cost 1 the first one drawn is the dear one half the time.
    let users = [
        [(0, 8.0)].as_slice(),
        &[(0, 1.0); 8],
        &[(0, 40.0), (1, 1.0)],
    ]
    .concat();
    let users = costs_of(2, &users);
    let costs = costs(&users);
    let mut random = Random::new(1);
    let firsts = (0..2_000).map(|_| draw(&users, &costs, 0, &Settings::default(), &mut random));
    let dear = firsts
        .filter(|order| order.iter().find(|user| **user != 9) == Some(&0))
        .count();
    assert!((900..1_100).contains(&dear), "{dear}");
}

#[test]
fn migrations_are_remembered_for_n_days_and_the_time_since_discounts_the_cost() {
    let settings = Settings::default();
    assert_eq!(discount(None, &settings), 1.0);
    assert_eq!(discount(Some(0.0), &settings), 0.0);
    assert_eq!(discount(Some(7.0), &settings), 0.5);
    assert_eq!(discount(Some(14.0), &settings), 1.0);
    assert_eq!(discount(Some(1e9), &settings), 1.0);
    // One who has just moved is not drawn at all, also when the clock that noted it ran ahead.
    for moved_ms in [NOW_MS, NOW_MS + DAY_MS, i64::MAX] {
        let moved = |id| Account {
            moved_ms: Some(moved_ms),
            ..account(id, 0, 1)
        };
        let all = (1..=10).map(|id| (moved(id), [1.0; HOURS])).collect();
        assert_eq!(planned(&snapshot(backends(2), all), 1).moves, []);
    }
}

#[test]
fn the_list_is_drawn_at_random_with_weight() {
    let many = all_on_the_first(backends(2), 50);
    let users = |seed| -> Vec<u32> {
        planned(&many, seed)
            .moves
            .iter()
            .map(|m| m.account)
            .collect()
    };
    assert_eq!(users(1), users(1));
    assert_ne!(users(1), users(2));
}

#[test]
fn from_the_most_to_the_least_loaded() {
    let three = [[(0, 1.0); 30].as_slice(), &[(1, 1.0); 60], &[(2, 1.0); 3]].concat();
    let plan = planned(&costs_of(3, &three), 1);
    assert_eq!((plan.moves[0].from, plan.moves[0].to), (1, 2));
}

#[test]
fn only_if_the_receiver_does_not_come_above_the_average() {
    // The only user of the first is more than the average: nobody can take him.
    let plan = planned(&costs_of(3, &[(0, 10.0), (1, 1.0), (2, 1.0)]), 1);
    assert_eq!(plan.moves, []);
    assert_eq!(plan.left[0].obstacle, Obstacle::Average);
}

#[test]
fn then_the_next_most_loaded_until_nothing_is_possible() {
    let four = [[(0, 1.0); 60].as_slice(), &[(1, 1.0); 50], &[(2, 1.0); 10]].concat();
    let plan = planned(&costs_of(4, &four), 1);
    let gave: std::collections::BTreeSet<u32> = plan.moves.iter().map(|step| step.from).collect();
    assert_eq!(gave, [0, 1].into());
    // 30 is the average; all are at it.
    assert_eq!(plan.moves.len(), 50);
    assert_eq!(plan.left, []);
}
