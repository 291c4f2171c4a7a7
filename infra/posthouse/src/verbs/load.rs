//! `posthouse load`: what back-ends have to do, and for whom.

use std::collections::HashMap;

use daemon::output::print_line;
use directory_api::wire::Backend;
use directory_api::{AccountId, BackendName, BackendState, DirectoryClient, VolumeName};
use serde::Serialize;
use store_api::Backends;
use store_api::load::{
    ACCOUNTS_MAX, AccountLoad, Figures, LoadClient, LoadReply, LoadRequest, VolumeLoad,
};

use super::{Output, Row, VerbError, told};
use crate::backup::octets;
use crate::cli::Source;
use crate::cli::reach;

/// What is shown.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this back-end
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
    /// Show so many of the heaviest accounts; 0 for none
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = count)]
    accounts: usize,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count <= ACCOUNTS_MAX => Ok(count),
        _ => Err(format!("is no number from 0 to {ACCOUNTS_MAX}")),
    }
}

/// Asks every back-end and prints.
pub(crate) fn perform(options: Options, source: Source, output: &Output) -> Result<(), VerbError> {
    super::block_on(async {
        let (directory, backends) = reach(source)?;
        options.perform(&directory, &backends, output).await
    })?
}

impl Options {
    async fn perform(
        self,
        directory: &DirectoryClient,
        backends: &Backends,
        output: &Output,
    ) -> Result<(), VerbError> {
        let asked = asked(directory, self.backend.as_ref()).await?;
        let mut volumes = Vec::new();
        let mut accounts = Vec::new();
        for backend in asked {
            // One that gives no answer is told, and keeps nobody from seeing the others.
            let reply = match ask(backends, &backend, self.accounts).await {
                Ok(reply) => reply,
                Err(error) => {
                    eprintln!("posthouse: back-end {}: {error}", backend.name);
                    continue;
                }
            };
            let observed: HashMap<&VolumeName, f64> = reply
                .volumes
                .iter()
                .map(|one| (&one.name, one.observed_h))
                .collect();
            let account = |one: &AccountLoad| Account {
                backend: backend.name.clone(),
                volume: one.volume.clone(),
                account: one.account,
                is_home: one.is_home,
                stored_octets: one.stored_octets,
                in_an_hour: InAnHour::of(&one.figures, observed[&one.volume]),
            };
            let known = |one: &&AccountLoad| observed.contains_key(&one.volume);
            accounts.extend(reply.accounts.iter().filter(known).map(account));
            volumes.extend(reply.volumes.iter().map(|one| Volume::of(&backend, one)));
        }
        accounts.sort_by(|one, other| {
            let busy = |one: &Account| one.in_an_hour.busy_ms;
            busy(other).total_cmp(&busy(one))
        });
        accounts.truncate(self.accounts);
        output.rows(&volumes);
        if !accounts.is_empty() {
            if !output.json {
                print_line("");
            }
            output.rows(&accounts);
        }
        Ok(())
    }
}

/// The back-ends to ask: ours, and not those that are down.
async fn asked(
    directory: &DirectoryClient,
    only: Option<&BackendName>,
) -> Result<Vec<Backend>, VerbError> {
    if let Some(name) = only {
        let backend = directory.backend(name).await;
        return Ok(vec![backend.map_err(|error| told("backend", name, error))?]);
    }
    let own = directory.own_backends().await;
    let mut own = own.map_err(|error| told("backend", "", error))?;
    own.retain(|one| one.state != BackendState::Down);
    Ok(own)
}

async fn ask(backends: &Backends, backend: &Backend, count: usize) -> Result<LoadReply, VerbError> {
    let link = backends.link(&backend.name).await?;
    let request = match count {
        0 => LoadRequest::Volumes,
        count => LoadRequest::Heaviest { count },
    };
    Ok(LoadClient::new(link).ask(&request).await?)
}

/// What is caused in an hour, mean of the last weeks, decayed.
#[derive(Serialize)]
struct InAnHour {
    synced_octets: f64,
    read_octets: f64,
    operations: f64,
    cpu_ms: f64,
    sessions: f64,
    /// All of it in one number: milliseconds for which a machine is busy with it.
    busy_ms: f64,
}

impl InAnHour {
    fn of(figures: &Figures, observed_h: f64) -> Self {
        // A minute is the least that is known.
        let hours = observed_h.max(1.0 / 60.0);
        Self {
            synced_octets: figures.synced_octets / hours,
            read_octets: figures.read_octets / hours,
            operations: figures.operations / hours,
            cpu_ms: figures.cpu_us / hours / 1000.0,
            sessions: figures.sessions / hours,
            busy_ms: figures.cost_us() / hours / 1000.0,
        }
    }

    fn cells(&self) -> [String; 6] {
        [
            octets(self.synced_octets.round() as u64),
            octets(self.read_octets.round() as u64),
            format!("{:.1}", self.operations),
            format!("{:.1} ms", self.cpu_ms),
            format!("{:.1}", self.sessions),
            format!("{:.1} ms", self.busy_ms),
        ]
    }
}

#[derive(Serialize)]
struct Volume {
    backend: BackendName,
    volume: VolumeName,
    state: BackendState,
    weight: u32,
    is_open: bool,
    is_nearly_full: bool,
    accounts: u64,
    free_octets: u64,
    size_octets: u64,
    outstanding: u64,
    observed_h: f64,
    in_an_hour: InAnHour,
}

impl Volume {
    fn of(backend: &Backend, one: &VolumeLoad) -> Self {
        Self {
            backend: backend.name.clone(),
            volume: one.name.clone(),
            state: backend.state,
            weight: backend.weight,
            is_open: one.is_open,
            is_nearly_full: one.is_nearly_full,
            accounts: one.accounts,
            free_octets: one.free_bytes,
            size_octets: one.size_bytes,
            outstanding: one.outstanding,
            observed_h: one.observed_h,
            in_an_hour: InAnHour::of(&one.total, one.observed_h),
        }
    }
}

impl Row for Volume {
    const HEADINGS: &'static [&'static str] = &[
        "BACKEND",
        "VOLUME",
        "STATE",
        "ACCOUNTS",
        "FREE",
        "OF",
        "WAITING",
        "SYNCED/H",
        "READ/H",
        "OPS/H",
        "CPU/H",
        "SESSIONS/H",
        "BUSY/H",
    ];

    fn cells(&self) -> Vec<String> {
        let state = match (self.is_open, self.is_nearly_full) {
            (false, _) => "not open".to_owned(),
            (true, true) => "nearly full".to_owned(),
            (true, false) => format!("{:?}", self.state).to_lowercase(),
        };
        let first = [
            self.backend.to_string(),
            self.volume.to_string(),
            state,
            self.accounts.to_string(),
            octets(self.free_octets),
            octets(self.size_octets),
            self.outstanding.to_string(),
        ];
        first.into_iter().chain(self.in_an_hour.cells()).collect()
    }
}

#[derive(Serialize)]
struct Account {
    backend: BackendName,
    volume: VolumeName,
    account: AccountId,
    is_home: bool,
    stored_octets: u64,
    in_an_hour: InAnHour,
}

impl Row for Account {
    const HEADINGS: &'static [&'static str] = &[
        "ACCOUNT",
        "BACKEND",
        "VOLUME",
        "STORED",
        "SYNCED/H",
        "READ/H",
        "OPS/H",
        "CPU/H",
        "SESSIONS/H",
        "BUSY/H",
    ];

    fn cells(&self) -> Vec<String> {
        let backend = match self.is_home {
            true => self.backend.to_string(),
            false => format!("{} (moved)", self.backend),
        };
        let first = [
            self.account.to_string(),
            backend,
            self.volume.to_string(),
            octets(self.stored_octets),
        ];
        first.into_iter().chain(self.in_an_hour.cells()).collect()
    }
}
