//! What accounts cost their back-end: `POST /v1/load`, asked by the migrator and by operators.
//!
//! Everything is a decayed sum: what was caused a half-life ago counts half. Beside the sums stands for how many hours, decayed
//! alike, it was looked ([`VolumeLoad::observed_h`]), so that their quotient is what an account costs in an hour, however long ago
//! the count began and whichever half-life is set. An account that has moved has sums at both of its homes: they are added, and
//! divided by the longer of the two times ([`Hourly`]).
//!
//! By hour of the week an account has one number, its cost ([`Figures::cost_us`]). The heaviest accounts of a volume have a week of
//! their own; of all others one week is kept together, whose shape stands for each of them.

use std::time::Duration;

use daemon::link::{CallError, Link};
use data_encoding::BASE64;
use directory_api::{AccountId, VolumeName};
use http::Method;
use serde::{Deserialize, Serialize};

/// The path of version 1.
pub const PATH: &str = "/v1/load";

/// Accounts of one answer at most.
pub const ACCOUNTS_MAX: usize = 2_000;

/// Hours of a week; hour 0 begins on Monday at 00:00 UTC.
pub const HOURS: usize = 168;

/// `POST /v1/load`. Role: migrator or operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum LoadRequest {
    /// The volumes alone.
    Volumes,
    /// Accounts of one volume by their number, [`ACCOUNTS_MAX`] at most, each with its week if it has one.
    Accounts {
        /// Which volume.
        volume: VolumeName,
        /// Those behind this one; from the first when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<AccountId>,
    },
    /// The accounts of all volumes that cost most, the most costly first, without their weeks.
    Heaviest {
        /// How many, [`ACCOUNTS_MAX`] at most.
        count: usize,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadReply {
    /// All volumes of the back-end, open or not.
    pub volumes: Vec<VolumeLoad>,
    /// Those asked for.
    pub accounts: Vec<AccountLoad>,
    /// Whether the volume has more accounts behind the last one.
    pub has_more: bool,
}

/// How much a volume has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeLoad {
    /// Its name.
    pub name: VolumeName,
    /// Whether it can be asked now; else all that follows is zero.
    pub is_open: bool,
    /// Accounts that live there, or have lived there.
    pub accounts: u64,
    /// Of its file system.
    pub size_bytes: u64,
    /// What may still be placed there before it refuses what takes room.
    pub free_bytes: u64,
    /// It refuses what takes room.
    pub is_nearly_full: bool,
    /// Reads and writes that wait, or are being done.
    pub outstanding: u64,
    /// Hours for which was looked, decayed.
    pub observed_h: f64,
    /// Sums over all accounts.
    pub total: Figures,
    /// The same as `observed_h` of each hour of the week.
    pub observed: Week,
    /// Costs of all accounts without a week of their own.
    pub rest: Week,
}

/// What one account costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountLoad {
    /// Which.
    pub account: AccountId,
    /// On which volume.
    pub volume: VolumeName,
    /// Whether it lives there; else it has moved away, or comes just now.
    pub is_home: bool,
    /// Octets of all its messages, bodies that it shares with others counted whole.
    pub stored_octets: u64,
    /// Sums.
    pub figures: Figures,
    /// Costs by hour of the week, if it has a week of its own and it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub week: Option<Week>,
}

/// What was caused: decayed sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Octets written and synced for it; of a message for several accounts each has its part.
    pub synced_octets: f64,
    /// Octets of messages read.
    pub read_octets: f64,
    /// Reads and writes that the volume was asked for.
    pub operations: f64,
    /// Microseconds of processor time, as sampled.
    pub cpu_us: f64,
    /// Sessions begun.
    pub sessions: f64,
}

impl Figures {
    /// All of it in one number: microseconds for which a machine is busy with it, disk and processor taken together.
    #[must_use]
    pub fn cost_us(&self) -> f64 {
        self.cpu_us
            + self.synced_octets * SYNCED_OCTET_US
            + self.read_octets * READ_OCTET_US
            + self.operations * OPERATION_US
            + self.sessions * SESSION_US
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.synced_octets += other.synced_octets;
        self.read_octets += other.read_octets;
        self.operations += other.operations;
        self.cpu_us += other.cpu_us;
        self.sessions += other.sessions;
    }
}

// Only the ratios count, and they must be the same everywhere, or back-ends could not be compared: so they are no settings.

/// An octet is written to the journal, and again to its file: about 100 MB/s each.
const SYNCED_OCTET_US: f64 = 0.02;
/// An octet from a disk, or from memory, at 500 MB/s.
const READ_OCTET_US: f64 = 0.002;
/// Some pages of the index and a part of a sync that many share: a journal takes 20,000 of them a second.
const OPERATION_US: f64 = 50.0;
/// A grant is verified, a stream opened, a line logged; mail programs that come each minute are felt.
const SESSION_US: f64 = 500.0;

/// The load of one hour in two octets: the upper half of an `f32`.
///
/// A million accounts have 168 million of them: 336 MB instead of 672. Seven bits after the point
/// are an error of 0.4 % at most, in either direction, which is far below what an hour of a week
/// is known by; the load of a back-end is summed from the same values, so that nothing appears or
/// vanishes when an account moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed(u16);

impl Packed {
    /// `load` is finite and not negative.
    #[must_use]
    pub fn new(load: f32) -> Self {
        let bits = load.to_bits();
        // Rounded to the nearest. What is checked at the entry is far below the largest exponent.
        Self(u16::try_from((bits + 0x8000) >> 16).unwrap_or(u16::MAX))
    }

    /// The load.
    #[must_use]
    pub fn load(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// As it is kept, little-endian.
    #[must_use]
    pub fn octets(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }

    /// Back from [`octets`](Self::octets); none of what is no load.
    #[must_use]
    pub fn of(octets: [u8; 2]) -> Option<Self> {
        let packed = Self(u16::from_le_bytes(octets));
        let load = packed.load();
        (load.is_finite() && load >= 0.0 && load.is_sign_positive()).then_some(packed)
    }
}

/// A number for each hour of the week; in JSON base64 of 336 octets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Week(pub Box<[Packed; HOURS]>);

impl Default for Week {
    fn default() -> Self {
        Self(Box::new([Packed::default(); HOURS]))
    }
}

impl Week {
    /// Packs numbers that are finite and not negative.
    #[must_use]
    pub fn of(hours: &[f32; HOURS]) -> Self {
        Self(Box::new(hours.map(Packed::new)))
    }

    /// One hour.
    #[must_use]
    pub fn load(&self, hour: usize) -> f64 {
        f64::from(self.0[hour].load())
    }

    /// All hours together.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.0.iter().map(|hour| f64::from(hour.load())).sum()
    }
}

/// Not a week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {HOURS} loads in base64")]
pub struct NoWeek;

impl TryFrom<String> for Week {
    type Error = NoWeek;

    fn try_from(text: String) -> Result<Self, NoWeek> {
        let octets = BASE64.decode(text.as_bytes()).map_err(|_| NoWeek)?;
        let hours = octets
            .chunks(2)
            .map(|pair| Packed::of(pair.try_into().ok()?));
        let hours: Vec<Packed> = hours.collect::<Option<_>>().ok_or(NoWeek)?;
        Ok(Self(hours.try_into().map_err(|_| NoWeek)?))
    }
}

impl From<Week> for String {
    fn from(week: Week) -> Self {
        let octets: Vec<u8> = week.0.iter().flat_map(|hour| hour.octets()).collect();
        BASE64.encode(&octets)
    }
}

/// What an account costs in each hour of the week, put together of what its homes have counted.
#[derive(Clone, Debug)]
pub struct Hourly {
    sums: [f64; HOURS],
    observed: [f64; HOURS],
    sum: f64,
    observed_h: f64,
}

impl Default for Hourly {
    fn default() -> Self {
        Self {
            sums: [0.0; HOURS],
            observed: [0.0; HOURS],
            sum: 0.0,
            observed_h: 0.0,
        }
    }
}

impl Hourly {
    /// Adds what one volume has counted of the account.
    pub fn add(&mut self, volume: &VolumeLoad, account: &AccountLoad) {
        let sum = account.figures.cost_us();
        self.sum += sum;
        self.observed_h = self.observed_h.max(volume.observed_h);
        let shape = Shape::of(volume);
        for hour in 0..HOURS {
            self.sums[hour] += match &account.week {
                Some(week) => week.load(hour),
                None => shape.of_sum(sum, volume.observed_h, hour),
            };
            self.observed[hour] = self.observed[hour].max(volume.observed.load(hour));
        }
    }

    /// As if what [`rates`](Self::rates) gave of one volume had been added.
    #[must_use]
    pub fn of_rates(volume: &VolumeLoad, rates: &Week) -> Self {
        let observed: [f64; HOURS] = std::array::from_fn(|hour| volume.observed.load(hour));
        Self {
            sums: std::array::from_fn(|hour| rates.load(hour) * observed[hour]),
            observed,
            sum: rates.sum() / HOURS as f64 * volume.observed_h,
            observed_h: volume.observed_h,
        }
    }

    /// Microseconds of cost in each hour. In one that was not observed yet it is as in all of them.
    #[must_use]
    pub fn rates(&self) -> [f32; HOURS] {
        let mean = match self.observed_h > 0.0 {
            true => self.sum / self.observed_h,
            false => 0.0,
        };
        std::array::from_fn(|hour| match self.observed[hour] > 0.0 {
            true => (self.sums[hour] / self.observed[hour]) as f32,
            false => mean as f32,
        })
    }
}

/// How the accounts without a week of their own spread what they cost over the week.
pub struct Shape<'a> {
    rest: &'a Week,
    observed: &'a Week,
    /// What they cost in an hour, mean of the hours that were observed; none: nothing is known.
    mean: f64,
}

impl<'a> Shape<'a> {
    /// That of a volume.
    #[must_use]
    pub fn of(volume: &'a VolumeLoad) -> Self {
        Self::new(&volume.rest, &volume.observed)
    }

    /// The same of its two weeks.
    #[must_use]
    pub fn new(rest: &'a Week, observed: &'a Week) -> Self {
        let hours = observed.sum();
        let mean = match hours > 0.0 {
            true => rest.sum() / hours,
            false => 0.0,
        };
        Self {
            rest,
            observed,
            mean,
        }
    }

    /// The part of a decayed `sum` over `observed_h` that belongs to this hour, as a decayed sum of that hour.
    #[must_use]
    pub fn of_sum(&self, sum: f64, observed_h: f64, hour: usize) -> f64 {
        if observed_h <= 0.0 {
            return 0.0;
        }
        let hourly = sum / observed_h;
        match self.mean > 0.0 {
            true => hourly * self.rest.load(hour) / self.mean,
            false => hourly * self.observed.load(hour),
        }
    }
}

/// Asks one back-end.
#[derive(Clone, Debug)]
pub struct LoadClient {
    link: Link,
}

impl LoadClient {
    /// Asks over `link`.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ask(&self, request: &LoadRequest) -> Result<LoadReply, CallError> {
        self.link.json(Method::POST, PATH, request, DEADLINE).await
    }

    /// All accounts of a volume, handed over as they come.
    ///
    /// # Errors
    /// [`CallError`]; some may have been handed over.
    pub async fn each_account(
        &self,
        volume: &VolumeName,
        mut take: impl FnMut(AccountLoad),
    ) -> Result<(), CallError> {
        let mut after = None;
        loop {
            let request = LoadRequest::Accounts {
                volume: volume.clone(),
                after,
            };
            let reply = self.ask(&request).await?;
            let last = reply.accounts.last().map(|last| last.account);
            reply.accounts.into_iter().for_each(&mut take);
            // A page without any would be asked for again for ever.
            match last.filter(|last| reply.has_more && after.is_none_or(|after| after < *last)) {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }
}

/// Some thousand rows of an index, perhaps while the table of a million accounts is written.
const DEADLINE: Duration = Duration::from_secs(30);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_load_is_right_within_four_thousandths_and_zero_stays_zero() {
        assert_eq!(Packed::new(0.0).load(), 0.0);
        for load in [1e-30_f32, 0.001, 0.999, 1.0, 1.003, 77.7, 1e15] {
            let packed = Packed::new(load);
            let back = packed.load();
            assert!((back / load - 1.0).abs() <= 0.004, "{load} {back}");
            assert_eq!(Packed::of(packed.octets()), Some(packed));
        }
        for bits in [0x7f80_u16, 0x7fc0, 0xff80, 0x8000, 0xbf80] {
            assert_eq!(Packed::of(bits.to_le_bytes()), None, "{bits:x}");
        }
    }

    #[test]
    fn a_week_reads_back_from_json_and_what_is_none_is_refused() {
        let mut hours = [0.0; HOURS];
        hours[7] = 3.0;
        let week = Week::of(&hours);
        let text = serde_json::to_string(&week).unwrap();
        assert_eq!(serde_json::from_str::<Week>(&text).unwrap(), week);
        let whole = String::from(week);
        for cut in [0, 2, 444, 446] {
            assert_eq!(Week::try_from(whole[..cut].to_owned()), Err(NoWeek));
        }
        let infinite = BASE64.encode(&[0x80, 0x7f].repeat(HOURS));
        assert_eq!(Week::try_from(infinite), Err(NoWeek));
        assert_eq!(Week::try_from(format!("{whole}AAAA")), Err(NoWeek));
    }

    fn volume(observed_h: f64, observed: f32) -> VolumeLoad {
        VolumeLoad {
            name: "d1".parse().unwrap(),
            is_open: true,
            accounts: 1,
            size_bytes: 0,
            free_bytes: 0,
            is_nearly_full: false,
            outstanding: 0,
            observed_h,
            total: Figures::default(),
            observed: Week::of(&[observed; HOURS]),
            rest: Week::default(),
        }
    }

    fn account(cost_us: f64, week: Option<Week>) -> AccountLoad {
        AccountLoad {
            account: AccountId(1),
            volume: "d1".parse().unwrap(),
            is_home: true,
            stored_octets: 0,
            figures: Figures {
                cpu_us: cost_us,
                ..Figures::default()
            },
            week,
        }
    }

    #[test]
    fn an_account_that_has_moved_costs_what_it_cost_in_both_places_together() {
        // Three quarters of the time at the old home, then at one that has not been looked at for longer than that.
        let mut hourly = Hourly::default();
        hourly.add(
            &volume(100.0, 2.0),
            &account(750.0, Some(Week::of(&[15.0; HOURS]))),
        );
        let (old, new) = (hourly.clone(), volume(25.0, 1.0));
        hourly.add(&new, &account(250.0, Some(Week::of(&[5.0; HOURS]))));
        assert_eq!(hourly.rates(), [10.0; HOURS]);
        let mut again = Hourly::of_rates(&volume(100.0, 2.0), &Week::of(&old.rates()));
        again.add(&new, &account(250.0, Some(Week::of(&[5.0; HOURS]))));
        assert_eq!(again.rates(), hourly.rates());
    }

    #[test]
    fn an_account_without_a_week_has_the_shape_of_the_rest_and_its_own_height() {
        let mut rest = [10.0; HOURS];
        rest[3] = 178.0;
        let volume = VolumeLoad {
            rest: Week::of(&rest),
            ..volume(100.0, 2.0)
        };
        let mut hourly = Hourly::default();
        hourly.add(&volume, &account(700.0, None));
        let rates = hourly.rates();
        let mean = rates.iter().sum::<f32>() / HOURS as f32;
        assert!((mean / 7.0 - 1.0).abs() < 0.01, "{mean}");
        assert!((rates[3] / rates[4] / 17.8 - 1.0).abs() < 0.01);
    }

    #[test]
    fn an_hour_that_was_not_observed_is_as_all_of_them() {
        let mut hourly = Hourly::default();
        hourly.add(&volume(10.0, 0.0), &account(50.0, Some(Week::default())));
        assert_eq!(hourly.rates(), [5.0; HOURS]);
        assert_eq!(Hourly::default().rates(), [0.0; HOURS]);
    }
}
