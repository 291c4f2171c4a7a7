//! Whether the time of a refusal tells that the user exists: an unknown user against a wrong password, asked in turns and in
//! an order drawn by lot, of a real directory over the network. First with passwords of its own making alone, then with
//! one brought from another server besides, whose check takes another time.
//!
//! For each pair of kinds it prints how often one of the second kind took longer than one of the first (0.5: as often
//! as not) and how many standard errors that is from 0.5 (Mann-Whitney): within 1.96 is what chance does 19 times in 20.
//! `POSTHOUSE_BENCH_TRIALS` sets the trials of each kind, 10,000 without it: some 10 minutes.

use std::time::{Duration, Instant};

use directory_api::wire::{AccountNew, Credential};
use directory_api::{ClientOptions, DirectoryClient, LoginError};
use tokio::task::JoinSet;

#[path = "../tests/site/mod.rs"]
#[expect(clippy::unwrap_used, reason = "it is the tests' too")]
mod site;

use daemon::identity::Role;
use site::{Site, login, secret};

const TRIALS: usize = 10_000;
/// Of "pass", as a Dovecot with 20,000 rounds has it.
const IMPORTED: &str = "{SHA512-CRYPT}$6$rounds=20000$RC0hUR/Cb8zRzeXI$MXQZVLuApVJ7LsvTWFiiZUrWz0PAOnkcnwNFhiQNCs7HlJL95PxfbKfLLelAxsjPKDOs3iHlJXytNS6dJgCOC/";

/// Who is asked for.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// `#` stands for the trial's number.
    user: &'static str,
}

const UNKNOWN: Kind = Kind {
    name: "unknown user",
    user: "nobody#@x.test",
};
const WRONG: Kind = Kind {
    name: "wrong password",
    user: "ann@x.test",
};
const WRONG_IMPORTED: Kind = Kind {
    name: "wrong password, imported",
    user: "bob@x.test",
};

#[tokio::main]
async fn main() {
    let trials = std::env::var("POSTHOUSE_BENCH_TRIALS").map_or(TRIALS, |set| {
        set.parse().expect("POSTHOUSE_BENCH_TRIALS is a number")
    });
    let site = Site::start().await;
    site.settle().await;
    let client = site.client_with(Role::PopImapProxy, "p1", &ClientOptions::default());
    // One at a time, so that each takes its own time.
    compare(&client, &[UNKNOWN, WRONG], trials, 1).await;

    let hashed = Credential::Hashed(secret(IMPORTED));
    let bob = AccountNew::new("bob@x.test".parse().expect("a name"), Some(hashed));
    let operator = site.client(Role::Operator, "op");
    operator.create_account(&bob).await.expect("bob is made");
    // Answered a quarter of a second late at least, for which nothing is done: many at a time.
    compare(&client, &[UNKNOWN, WRONG, WRONG_IMPORTED], trials, 8).await;
}

async fn compare(client: &DirectoryClient, kinds: &'static [Kind], trials: usize, at_once: usize) {
    let order = by_lot(kinds.len() * trials);
    let mut askers = JoinSet::new();
    for share in order.chunks(order.len().div_ceil(at_once)) {
        askers.spawn(ask(client.clone(), kinds, share.to_vec()));
    }
    let mut took = vec![Vec::new(); kinds.len()];
    for (kind, one) in askers.join_all().await.into_iter().flatten() {
        took[kind].push(one);
    }
    for (kind, took) in kinds.iter().zip(&mut took) {
        took.sort_unstable();
        let mean = took.iter().sum::<Duration>() / u32::try_from(took.len()).expect("fewer trials");
        let median = took[took.len() / 2];
        println!(
            "{:<26} n={} mean {mean:?} median {median:?}",
            kind.name,
            took.len()
        );
    }
    for (kind, took_longer) in kinds.iter().zip(&took).skip(1) {
        let (share, errors) = longer(&took[0], took_longer);
        println!(
            "{} over {}: {share:.4}, {errors:+.2} standard errors",
            kind.name, kinds[0].name
        );
    }
}

/// One trial after the other; a number says which kind and is in its name.
async fn ask(
    client: DirectoryClient,
    kinds: &'static [Kind],
    numbers: Vec<usize>,
) -> Vec<(usize, Duration)> {
    let mut took = Vec::with_capacity(numbers.len());
    for number in numbers {
        let kind = number % kinds.len();
        let user = kinds[kind].user.replace('#', &number.to_string());
        let mut request = login(&user, &format!("wrong{number}"));
        // From another client each time: one alone would wait in line.
        let [_, a, b, c] = u32::try_from(number).expect("fewer trials").to_be_bytes();
        request.client_address = [10, a, b, c].into();
        let start = Instant::now();
        let answer = client.login(&request).await;
        took.push((kind, start.elapsed()));
        assert!(
            matches!(answer, Err(LoginError::BadCredentials)),
            "{answer:?}"
        );
    }
    took
}

/// How often one of the second took longer than one of the first, and how many standard errors that is from half of the time.
/// Both are in order.
#[expect(clippy::cast_precision_loss, reason = "counts of trials")]
fn longer(first: &[Duration], second: &[Duration]) -> (f64, f64) {
    let wins = second.iter().map(|one| {
        let shorter = first.partition_point(|other| other < one);
        let as_long = first.partition_point(|other| other <= one) - shorter;
        shorter as f64 + as_long as f64 / 2.0
    });
    let (m, n) = (first.len() as f64, second.len() as f64);
    let share = wins.sum::<f64>() / (m * n);
    (
        share,
        (share - 0.5) / ((m + n + 1.0) / (12.0 * m * n)).sqrt(),
    )
}

/// The numbers below `count`, shuffled.
fn by_lot(count: usize) -> Vec<usize> {
    let mut numbers: Vec<([u8; 16], usize)> = (0..count)
        .map(|number| (daemon::random::token128(), number))
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|(_, number)| number).collect()
}
