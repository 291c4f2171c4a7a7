#![allow(clippy::unwrap_used)]

use super::*;
use crate::balance::peak;
use crate::inventory::tests::inventory;

fn made(accounts: u64) -> PlanFile {
    let policy = Policy::Peak(peak::Settings::default());
    let inventory = inventory(accounts);
    PlanFile::make(&inventory, &policy, 1, &HashSet::new(), (5, 1_000)).unwrap()
}

#[test]
fn a_plan_says_what_moves_and_what_comes_of_it() {
    let plan = made(400);
    assert_eq!(plan.accounts, 400);
    assert!(plan.moves.len() > 180, "{}", plan.moves.len());
    let octets: u64 = plan.moves.iter().map(|one| one.octets).sum();
    assert_eq!(plan.moved_octets, octets);
    let wanted = octets as f64 / 1_000.0 + plan.moves.len() as f64 * 0.5;
    assert!((plan.duration_s - wanted).abs() < 1e-6);
    let average = plan.average();
    assert!((average - 1_400.0).abs() < 1.0, "{average}");
    let [first, second] = &plan.backends[..] else {
        panic!("two back-ends");
    };
    assert!((first.worst(&first.before, average).1 - 2.0).abs() < 0.01);
    assert!(first.worst(&first.after, average).1 <= 1.05);
    assert_eq!(second.worst(&second.before, average).1, 0.0);
    assert!(second.worst(&second.after, average).1 >= 0.95);
    for one in &plan.moves {
        assert!(one.epoch == Epoch(3) && !one.why.told().is_empty());
    }
}

#[test]
fn a_plan_that_was_saved_reads_back_and_half_of_one_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    let plan = made(40);
    plan.save(&path).unwrap();
    plan.save(&path).unwrap();
    let read = PlanFile::read(&path).unwrap();
    assert_eq!(read.moves.len(), plan.moves.len());
    for (read, made) in read.moves.iter().zip(&plan.moves) {
        let of = |one: &PlannedMove| (one.account, one.epoch, one.to.clone(), one.octets);
        assert_eq!(of(read), of(made));
    }
    assert_eq!((read.taken_ms, read.accounts), (plan.taken_ms, 40));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 3] {
        assert!(PlanFile::parse(&whole[..cut]).is_err());
    }
    let text = String::from_utf8(whole).unwrap();
    let later = text.replace("\"posthouse_plan\": 1", "\"posthouse_plan\": 2");
    let refused = PlanFile::parse(later.as_bytes());
    assert!(matches!(refused, Err(ReadError::Version(2))));
    assert!(PlanFile::parse(b"{}").is_err());
}

#[test]
fn a_plan_that_contradicts_itself_is_refused() {
    let mut twice = made(40);
    let first = twice.moves[0].clone();
    twice.moves.push(first);
    let mut nowhere = made(40);
    nowhere.moves[0].to = "b9".parse().unwrap();
    let mut stays = made(40);
    stays.moves[0].to = stays.moves[0].from.clone();
    for wrong in [twice, nowhere, stays] {
        let octets = serde_json::to_vec(&wrong).unwrap();
        let refused = PlanFile::parse(&octets);
        assert!(matches!(refused, Err(ReadError::Contradiction(_))));
    }
    let mut short = made(40);
    short.backends[0].after.pop();
    let octets = serde_json::to_vec(&short).unwrap();
    assert!(matches!(PlanFile::parse(&octets), Err(ReadError::Form(_))));
}

#[test]
fn who_is_pinned_stays() {
    let policy = Policy::Peak(peak::Settings::default());
    let inventory = inventory(100);
    let all: HashSet<_> = (1..=100).map(AccountId).collect();
    let plan = PlanFile::make(&inventory, &policy, 1, &all, (5, 1_000)).unwrap();
    assert_eq!(plan.moves, []);
    assert_eq!(plan.left.len(), 1);
}
