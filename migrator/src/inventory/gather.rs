//! Gathers the inventory: who lives where from the directory, what it costs from every back-end.

use std::collections::{HashMap, HashSet};

use daemon::clock::now_ms;
use daemon::link::CallError;
use directory_api::client::{DirectoryClient, DirectoryError};
use directory_api::wire::{self, ListQuery, Page, PlacedBy, limit};
use directory_api::{AccountId, BackendName, BackendState};
use store_api::Backends;
use store_api::backends::BackendAway;
use store_api::load::{AccountLoad, Hourly, LoadClient, LoadRequest, VolumeLoad, Week};

use super::{Account, Backend, Inventory};

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The directory gave no answer.
    #[error("directory did not tell what there is")]
    Directory(#[from] DirectoryError),
    /// A back-end's address is not known.
    #[error("back-end {0} cannot be asked; a plan needs all that are not set down")]
    Backend(BackendName, #[source] BackendAway),
    /// It gave no answer.
    #[error(
        "back-end {0} did not tell what its accounts cost; a plan needs all that are not set down"
    )]
    Call(BackendName, #[source] CallError),
    /// One of its volumes is not open: its accounts would count for nothing.
    #[error("volume {1} of back-end {0} is not open; a plan needs all of them")]
    Closed(BackendName, directory_api::VolumeName),
}

/// Asks the directory and every back-end that is not down. Of one that is down nothing is known, and nothing is moved.
///
/// # Errors
/// [`GatherError`]: of half of the load no plan is made.
pub async fn gather(
    directory: &DirectoryClient,
    backends: &Backends,
) -> Result<Inventory, GatherError> {
    let taken_ms = now_ms();
    let mut all = Vec::new();
    let mut costs = Costs::default();
    for one in directory.own_backends().await? {
        let mut free_octets = 0;
        if one.state != BackendState::Down {
            free_octets = ask(backends, &one.name, &mut costs).await?;
        }
        all.push(Backend {
            name: one.name,
            state: one.state,
            weight: one.weight,
            free_octets,
        });
    }
    let names: HashSet<BackendName> = all.iter().map(|one| one.name.clone()).collect();
    let mut accounts = Vec::new();
    let pages = |query| async move { directory.accounts(&query).await };
    each(pages, |one: wire::Account| {
        // Who lives on another mail system is not ours to move.
        if names.contains(&one.home.backend) {
            let moved = one.placed.filter(|placed| placed.by == PlacedBy::Move);
            let (octets, hours) = costs.take(one.id);
            accounts.push(Account {
                account: one.id,
                home: one.home.backend,
                epoch: one.home.epoch,
                octets,
                moved_ms: moved.map(|placed| placed.at_ms),
                hours,
            });
        }
    })
    .await?;
    accounts.sort_unstable_by_key(|one| one.account);
    Ok(Inventory {
        taken_ms,
        backends: all,
        accounts,
    })
}

/// Asks page after page.
async fn each<T, F: Future<Output = Result<Page<T>, DirectoryError>>>(
    page: impl Fn(ListQuery) -> F,
    mut take: impl FnMut(T),
) -> Result<(), DirectoryError> {
    let mut query = ListQuery {
        limit: Some(limit::PAGE_ROWS_MAX),
        ..ListQuery::default()
    };
    loop {
        let page = page(query.clone()).await?;
        page.items.into_iter().for_each(&mut take);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// All accounts of a back-end. Returns the octets that may be placed there.
async fn ask(
    backends: &Backends,
    name: &BackendName,
    costs: &mut Costs,
) -> Result<u64, GatherError> {
    let link = backends.link(name).await;
    let link = link.map_err(|error| GatherError::Backend(name.clone(), error))?;
    let client = LoadClient::new(link);
    let failed = |error| GatherError::Call(name.clone(), error);
    let reply = client.ask(&LoadRequest::Volumes).await.map_err(failed)?;
    let mut free: u64 = 0;
    for volume in reply.volumes {
        if !volume.is_open {
            return Err(GatherError::Closed(name.clone(), volume.name));
        }
        if !volume.is_nearly_full {
            free = free.saturating_add(volume.free_bytes);
        }
        let volume_name = volume.name.clone();
        let at = costs.volume(volume);
        let each = client.each_account(&volume_name, |one| costs.add(at, &one));
        each.await.map_err(failed)?;
    }
    Ok(free)
}

/// What accounts cost, by number. Most have one home that has counted for them, and take some 400 octets.
#[derive(Default)]
struct Costs {
    volumes: Vec<VolumeLoad>,
    of: HashMap<AccountId, Cost>,
    /// Those that have moved: put together of all their homes.
    moved: HashMap<AccountId, Hourly>,
}

struct Cost {
    octets: u64,
    volume: usize,
    hours: Option<Week>,
}

impl Costs {
    fn volume(&mut self, volume: VolumeLoad) -> usize {
        self.volumes.push(volume);
        self.volumes.len() - 1
    }

    fn add(&mut self, at: usize, one: &AccountLoad) {
        let volume = &self.volumes[at];
        let octets = if one.is_home { one.stored_octets } else { 0 };
        if let Some(known) = self.of.get_mut(&one.account) {
            known.octets += octets;
            let hourly = self.moved.entry(one.account).or_insert_with(|| {
                let rates = known.hours.clone().unwrap_or_default();
                Hourly::of_rates(&self.volumes[known.volume], &rates)
            });
            hourly.add(volume, one);
            return;
        }
        let mut hourly = Hourly::default();
        hourly.add(volume, one);
        let has_cost = one.figures.cost_us() > 0.0;
        let cost = Cost {
            octets,
            volume: at,
            hours: has_cost.then(|| Week::of(&hourly.rates())),
        };
        self.of.insert(one.account, cost);
    }

    fn take(&mut self, account: AccountId) -> (u64, Option<Week>) {
        let Some(cost) = self.of.remove(&account) else {
            return (0, None);
        };
        let hours = match self.moved.remove(&account) {
            Some(hourly) => Some(Week::of(&hourly.rates())),
            None => cost.hours,
        };
        (cost.octets, hours)
    }
}
