#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use directory_api::{AccountId, BackendName, VolumeName};
use durable::{Disk, RealDisk};
use store_api::load::{AccountLoad, Figures, HOURS, Hourly, VolumeLoad};
use testkit::fault_disk::{FaultDisk, Loss};

use super::table::WEEKS_MAX;
use super::{Charge, Table, file};
use crate::volume::{Volume, VolumeConfig};

const HOUR_MS: i64 = 3_600_000;
/// A Monday at 00:00 UTC.
const MONDAY_MS: i64 = 1_764_547_200_000;
const H: Duration = Duration::from_secs(14 * 24 * 3600);

fn operations(count: u32) -> Charge {
    Charge {
        operations: count,
        ..Charge::default()
    }
}

/// Lets hours pass in each of which the accounts do so many operations.
fn pass(table: &mut Table, from_hour: i64, hours: i64, does: impl Fn(i64) -> Vec<(u64, u32)>) {
    for hour in from_hour..from_hour + hours {
        let did = does(hour).into_iter();
        let counted: Vec<_> = did
            .map(|(account, count)| (AccountId(account), operations(count)))
            .collect();
        // In the middle of the hour, and at its end.
        table.fold(MONDAY_MS + hour * HOUR_MS + HOUR_MS / 2, &counted);
        table.fold(MONDAY_MS + (hour + 1) * HOUR_MS, &[]);
    }
}

fn started() -> Table {
    let mut table = Table::new(H);
    table.fold(MONDAY_MS, &[]);
    table
}

fn rates(table: &Table, account: u64) -> [f32; HOURS] {
    let (observed_h, observed, rest) = table.observed();
    let volume = VolumeLoad {
        name: "d1".parse().unwrap(),
        is_open: true,
        accounts: 0,
        size_bytes: 0,
        free_bytes: 0,
        is_nearly_full: false,
        outstanding: 0,
        observed_h,
        total: Figures::default(),
        observed,
        rest,
    };
    let (figures, week) = table.of(AccountId(account));
    let mut hourly = Hourly::default();
    hourly.add(
        &volume,
        &AccountLoad {
            account: AccountId(account),
            volume: "d1".parse().unwrap(),
            is_home: true,
            stored_octets: 0,
            figures,
            week,
        },
    );
    hourly.rates()
}

fn is_near(value: f64, wanted: f64) -> bool {
    (value / wanted - 1.0).abs() < 0.02
}

#[test]
fn what_was_caused_a_half_life_ago_counts_half() {
    let mut table = started();
    table.fold(MONDAY_MS, &[(AccountId(7), operations(1000))]);
    assert_eq!(table.of(AccountId(7)).0.operations, 1000.0);
    table.fold(MONDAY_MS + 14 * 24 * HOUR_MS, &[]);
    assert!(is_near(table.of(AccountId(7)).0.operations, 500.0));
    assert_eq!(table.of(AccountId(8)).0, Figures::default());
}

#[test]
fn a_steady_cost_reads_the_same_after_a_day_and_after_a_year() {
    for days in [1, 20, 365] {
        let mut table = started();
        pass(&mut table, 0, days * 24, |_| vec![(1, 100)]);
        let (observed_h, _, _) = table.observed();
        let per_hour = table.of(AccountId(1)).0.operations / observed_h;
        assert!(is_near(per_hour, 100.0), "{days} days: {per_hour}");
        let rates = rates(&table, 1);
        assert!(
            rates.iter().all(|rate| is_near((*rate).into(), 5000.0)),
            "{days} days: {rates:?}"
        );
    }
}

#[test]
fn each_hour_of_the_week_has_its_own_cost() {
    let mut table = started();
    // On Wednesday at noon.
    let does = |hour: i64| match hour.rem_euclid(168) == 2 * 24 + 12 {
        true => vec![(1, 1000)],
        false => vec![(1, 10)],
    };
    pass(&mut table, 0, 3 * 168, does);
    let rates = rates(&table, 1);
    for (hour, rate) in rates.into_iter().enumerate() {
        let wanted = if hour == 60 { 50_000.0 } else { 500.0 };
        assert!(is_near(rate.into(), wanted), "hour {hour}: {rate}");
    }
}

#[test]
fn a_clock_that_was_put_back_undoes_nothing() {
    let mut table = started();
    pass(&mut table, 0, 50, |_| vec![(1, 100)]);
    let before = table.of(AccountId(1)).0.operations;
    table.fold(MONDAY_MS, &[]);
    table.fold(MONDAY_MS + 1, &[(AccountId(1), operations(1))]);
    assert!((table.of(AccountId(1)).0.operations - before - 1.0).abs() < 0.5);
    assert!(is_near(table.observed().0, 50.0 * 0.95));
}

#[test]
fn only_the_heaviest_have_weeks_and_all_weeks_together_are_what_all_have_cost() {
    let count = WEEKS_MAX as u64 + 3_000;
    let mut table = started();
    // Who is light changes on the second day.
    let does = |hour: i64| {
        let weight = move |account: u64| match (account % 20, hour < 24) {
            (0, true) | (1, false) => 1,
            _ => 3,
        };
        (1..=count)
            .map(|account| (account, weight(account)))
            .collect()
    };
    pass(&mut table, 0, 24, does);
    assert_eq!(table.weeks.len(), WEEKS_MAX);
    let (_, observed, rest) = table.observed();
    assert!(rest.sum() > 0.0);
    let of_weeks: f64 = table
        .weeks
        .values()
        .flat_map(|week| week.iter())
        .map(|hour| f64::from(hour.load()))
        .sum();
    let total = of_weeks + rest.sum();
    let caused = table.rows.iter().map(|row| row.figures().cost_us());
    let caused: f64 = caused.sum::<f64>() / table.observed().0 * observed.sum();
    assert!(is_near(total, caused), "{total} {caused}");
    // One of the light ones has the height that is its own.
    let light = (1..=count).find(|account| !table.weeks.contains_key(&AccountId(*account)));
    let mean = rates(&table, light.unwrap()).iter().sum::<f32>() / HOURS as f32;
    let own = table.of(AccountId(light.unwrap())).0.cost_us() / table.observed().0;
    assert!(is_near(mean.into(), own), "{mean} {own}");
    pass(&mut table, 24, 2, does);
    assert_eq!(table.weeks.len(), WEEKS_MAX);
}

#[test]
fn who_costs_nothing_any_more_is_forgotten() {
    let mut table = started();
    pass(&mut table, 0, 24, |_| vec![(1, 1), (2, 5000)]);
    assert_eq!(table.rows.len(), 2);
    pass(&mut table, 24, 100 * 24, |_| Vec::new());
    let left: Vec<_> = table.rows.iter().map(|row| row.account.0).collect();
    assert_eq!(left, [2]);
}

#[test]
fn the_heaviest_come_first() {
    let mut table = started();
    let counted: Vec<_> = [(1, 5), (2, 50), (3, 20), (4, 50)]
        .map(|(account, count)| (AccountId(account), operations(count)))
        .into();
    table.fold(MONDAY_MS + 1, &counted);
    assert_eq!(table.heaviest(3), [2, 4, 3].map(AccountId));
    assert_eq!(table.heaviest(9).len(), 4);
    assert_eq!(table.heaviest(0), []);
}

#[test]
fn no_charge_makes_a_sum_infinite() {
    let mut table = started();
    let most = Charge {
        synced_octets: u64::MAX,
        read_octets: u64::MAX,
        cpu_ns: u64::MAX,
        operations: u32::MAX,
        sessions: u32::MAX,
    };
    pass(&mut table, 0, 2, |_| Vec::new());
    for minute in 0..200 {
        table.fold(
            MONDAY_MS + 2 * HOUR_MS + minute * 60_000,
            &[(AccountId(1), most)],
        );
    }
    assert!(rates(&table, 1).iter().all(|rate| rate.is_finite()));
}

fn open(folder: &std::path::Path) -> Volume {
    let backend = BackendName::new("b1").unwrap();
    let name = VolumeName::new("d1").unwrap();
    let config = VolumeConfig {
        index_map_size_bytes: 64 << 20,
        ..VolumeConfig::new(folder, backend, name)
    };
    Volume::open(config, Arc::new(RealDisk)).unwrap()
}

#[test]
fn a_restart_forgets_nothing_that_was_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let volume = open(folder.path());
    {
        let mut table = volume.load().table();
        table.fold(MONDAY_MS, &[]);
        pass(&mut table, 0, 200, |hour| {
            vec![(1, 100), (9, 1 + hour as u32)]
        });
    }
    volume.save_load().unwrap();
    // A second time: it takes the first one's place.
    volume.save_load().unwrap();
    let before = {
        let table = volume.load().table();
        (table.of(AccountId(9)), table.observed())
    };
    volume.close();
    drop(volume);
    let volume = open(folder.path());
    let now = MONDAY_MS + 200 * HOUR_MS;
    volume.restore_load(now);
    let table = volume.load().table();
    assert_eq!((table.of(AccountId(9)), table.observed()), before);
    drop(table);
    // A week in which nothing was counted makes it older, not lighter.
    volume.restore_load(now + 168 * HOUR_MS);
    let table = volume.load().table();
    let factor = 0.5_f64.sqrt();
    let (before, (observed_h, _, _)) = (before.0.0.operations, before.1);
    let after = table.of(AccountId(9)).0.operations;
    assert!(is_near(after, before * factor));
    assert!(is_near(after / table.observed().0, before / observed_h));
}

#[test]
fn a_file_that_is_not_whole_costs_what_was_counted_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let volume = open(folder.path());
    volume.load().charge(AccountId(1), operations(5));
    volume.fold_load(MONDAY_MS);
    volume.save_load().unwrap();
    let path = folder.path().join(file::FILE);
    let whole = std::fs::read(&path).unwrap();
    let mut broken: Vec<Vec<u8>> = (0..whole.len())
        .step_by(37)
        .map(|cut| whole[..cut].to_vec())
        .collect();
    for at in (0..whole.len()).step_by(53) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        broken.push(flipped);
    }
    broken.push([&whole[..], b"x"].concat());
    broken.push(vec![0; 4096]);
    for octets in broken {
        *volume.load().table() = Table::new(H);
        std::fs::write(&path, octets).unwrap();
        volume.restore_load(MONDAY_MS);
        assert_eq!(volume.load().table().total(), Figures::default());
    }
    std::fs::write(&path, whole).unwrap();
    volume.restore_load(MONDAY_MS);
    assert_eq!(volume.load().table().total().operations, 5.0);
}

#[test]
fn a_power_cut_at_any_write_leaves_the_old_file_or_the_new_one() {
    let (mut old, mut new) = (started(), started());
    pass(&mut old, 0, 3, |_| vec![(1, 100)]);
    pass(&mut new, 0, 9, |_| {
        (1..500).map(|account| (account, 7)).collect()
    });
    let folder = std::path::Path::new("/v");
    let counts = |table: Table| table.rows.len();
    for loss in Loss::ALL {
        let mut seen = Vec::new();
        for cut in 0.. {
            let disk = FaultDisk::new(cut);
            disk.create_dir_all(folder).unwrap();
            disk.sync_dir(std::path::Path::new("/")).unwrap();
            file::save(&disk, folder, &old).unwrap();
            disk.cut_power_after(cut);
            let saved = file::save(&disk, folder, &new).is_ok();
            disk.power_on(loss);
            let found = file::read(&disk, &folder.join(file::FILE)).unwrap();
            let found = counts(found.unwrap());
            assert!(!saved || found == 499, "{loss:?}, cut after {cut}: {found}");
            assert!(found == 1 || found == 499, "{loss:?}, cut after {cut}");
            seen.push(found);
            if saved {
                break;
            }
        }
        assert!(seen.len() > 3 && seen[0] == 1, "{seen:?}");
    }
}

#[test]
fn whoever_asks_what_accounts_cost_does_not_wait_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultDisk::new(1);
    let config = VolumeConfig {
        index_map_size_bytes: 64 << 20,
        journal_segment_size_bytes: 2 << 20,
        ..VolumeConfig::new(
            folder.path(),
            BackendName::new("b1").unwrap(),
            VolumeName::new("d1").unwrap(),
        )
    };
    let volume = Volume::open(config, Arc::new(disk.clone())).unwrap();
    volume.load().charge(AccountId(1), operations(5));
    volume.fold_load(MONDAY_MS);
    disk.hold(Some(&folder.path().join("load.new")));
    let saving = volume.clone();
    let saving = std::thread::spawn(move || saving.save_load());
    while !disk.is_awaited() {
        std::thread::yield_now();
    }
    assert_eq!(volume.load().table().heaviest(9), [AccountId(1)]);
    volume.fold_load(MONDAY_MS + 1);
    disk.hold(None);
    saving.join().unwrap().unwrap();
}
