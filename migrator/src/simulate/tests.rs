use super::*;
use crate::balance::{peak, reference};

fn settings(policy: Option<Policy>) -> Settings {
    Settings {
        days: 16,
        scenario: Scenario::Standard,
        policy,
        seed: 3,
        half_life_days: 14.0,
    }
}

fn peak() -> Option<Policy> {
    Some(Policy::Peak(peak::Settings::default()))
}

const SMALL: Size = Size {
    accounts: 1_500,
    backends: 3,
};

#[test]
fn a_seed_gives_one_report_and_another_seed_another() {
    let report = |seed| {
        let settings = Settings {
            seed,
            ..settings(peak())
        };
        serde_json::to_string(&run(SMALL, &settings).unwrap()).unwrap()
    };
    assert_eq!(report(1), report(1));
    assert_ne!(report(1), report(2));
}

#[test]
fn peak_is_better_than_nothing_and_copies_less_than_the_reference() {
    let nothing = run(SMALL, &settings(None)).unwrap();
    let ours = run(SMALL, &settings(peak())).unwrap();
    let reference = Policy::Reference(reference::Settings::default());
    let reference = run(SMALL, &settings(Some(reference))).unwrap();
    assert_eq!((nothing.moves, nothing.moved_share_total), (0, 0.0));
    assert!(
        ours.peak_to_mean_mean < nothing.peak_to_mean_mean,
        "{ours:?}"
    );
    assert!(ours.moved_share_total < reference.moved_share_total);
    assert_eq!(ours.removed_14d_share, 0.0);
}

#[test]
fn every_scenario_runs_to_its_end_and_the_smallest_ones_too() {
    use clap::ValueEnum;
    for scenario in Scenario::value_variants() {
        let settings = Settings {
            scenario: *scenario,
            days: 9,
            ..settings(peak())
        };
        assert_eq!(run(SMALL, &settings).unwrap().daily.len(), 9);
    }
    for (accounts, backends, days) in [(1, 1, 1), (3, 1, 2), (5, 5, 3)] {
        let settings = Settings {
            days,
            scenario: Scenario::NodeLoss,
            ..settings(peak())
        };
        let report = run(Size { accounts, backends }, &settings).unwrap();
        let json = serde_json::to_string(&report).unwrap();
        // What is not a number is null in JSON; only the time to fill may be that.
        assert!(json.matches("null").count() <= 1, "{json}");
    }
}

#[test]
fn more_back_ends_than_a_plan_is_made_for_are_refused() {
    let size = Size {
        accounts: 2_000,
        backends: 1_001,
    };
    let refused = run(size, &settings(None)).unwrap_err();
    assert_eq!(refused, crate::balance::Unusable::Backends);
}

#[test]
fn recorded_load_is_simulated_with_its_own_homes_and_weeks() {
    let mut recorded = crate::inventory::tests::inventory(600);
    for (number, account) in recorded.accounts.iter_mut().enumerate() {
        // Two thirds on the first back-end.
        if number % 3 == 0 {
            account.home = "b2".parse().unwrap();
        }
    }
    let nothing = run_recorded(&recorded, &settings(None)).unwrap();
    let ours = run_recorded(&recorded, &settings(peak())).unwrap();
    assert_eq!((ours.accounts, ours.backends), (600, 2));
    // The first has a third more than the mean, and far more when another has joined.
    assert!(nothing.peak_to_mean_mean > 1.2);
    assert!(ours.moves > 20 && ours.peak_to_mean_mean < nothing.peak_to_mean_mean);
    let page = crate::present::page::of_simulation(&ours);
    assert_eq!(page.matches("<svg").count(), 4);
}
