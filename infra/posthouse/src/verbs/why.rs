//! `posthouse why NAME`: where mail for a name goes, where its account lives, why somebody was refused.
//!
//! Asks the directory step by step and changes nothing. What each code means and what to do about it
//! stands in `infra/docs/REASONS.md`.

use std::collections::BTreeSet;

use daemon::output::print_line;
use directory_api::wire::{
    Account, AddressEntry, Backend, Credentials, MoveRecord, PlacedBy, Refusal, Refusals, Refused,
    Target, Verdict,
};
use directory_api::{
    AccountId, AccountStatus, Address, BackendState, DirectoryClient, DirectoryError, DomainName,
    LoginName,
};
use serde::Serialize;

use super::{Output, VerbError, block_on, told};
use crate::backup::Moment;
use crate::cli::{Source, connect};

/// Whom to ask about.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// An address, or a login name
    name: String,
}

/// Everything that is known about a name.
#[derive(Serialize)]
struct Why {
    name: String,
    /// What mail for it meets on its way.
    steps: Vec<Step>,
    /// `accepted`, or the code of the refusal.
    mail: Option<String>,
    /// The account that logs in under it.
    login: Option<AccountId>,
    accounts: Vec<Known>,
    refusals: Refusals,
}

/// One step of the way of mail.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// The address is there.
    Address(AddressEntry),
    /// Its domain is another name of one.
    DomainAlias { address: Address, of: DomainName },
    /// It is a subaddress of one that is there (RFC 5233).
    Subaddress { address: Address, of: Address },
    /// There is no such address, and its domain has a catch-all.
    Caught { address: Address, by: Address },
    /// The domain is ours, and there is no such address.
    UnknownAddress(Address),
    /// The domain is not ours.
    UnknownDomain(Address),
}

/// What is known of an account.
#[derive(Serialize)]
struct Known {
    account: Account,
    credentials: Credentials,
    backend: Option<Backend>,
    last_move: Option<MoveRecord>,
}

pub(crate) fn perform(options: Options, source: Source, output: &Output) -> Result<(), VerbError> {
    block_on(async {
        let directory = connect(source)?;
        let why = ask(&directory, options.name).await?;
        if output.json {
            print_line(serde_json::to_string(&why).unwrap_or_default());
        } else {
            why.print();
        }
        Ok(())
    })?
}

async fn ask(directory: &DirectoryClient, name: String) -> Result<Why, VerbError> {
    let (mut steps, mut mail) = (Vec::new(), None);
    let mut accounts = BTreeSet::new();
    if let Ok(address) = name.parse::<Address>() {
        steps = walk(directory, address.clone(), &mut accounts).await?;
        mail = Some(match directory.lookup(&address).await {
            Ok(Verdict::Accounts(_)) => "accepted".to_owned(),
            Ok(Verdict::External { .. }) => "external_target".to_owned(),
            Ok(Verdict::UnknownAddress) => "unknown_address".to_owned(),
            Ok(Verdict::UnknownDomain) => "unknown_domain".to_owned(),
            Err(DirectoryError::Refused(problem)) => problem.code.into_owned(),
            Err(error) => return Err(told(NOUN, &name, error)),
        });
    }
    let login = login_of(directory, &name, &steps).await?;
    accounts.extend(login);
    let mut known = Vec::new();
    for account in accounts.into_iter().take(ACCOUNTS_MAX) {
        known.extend(look_at(directory, account).await?);
    }
    let refusals = directory.refusals(&name).await;
    Ok(Why {
        refusals: refusals.map_err(|error| told(NOUN, &name, error))?,
        name,
        steps,
        mail,
        login,
        accounts: known,
    })
}

/// The way of mail, breadth first as the directory goes it.
async fn walk(
    directory: &DirectoryClient,
    from: Address,
    accounts: &mut BTreeSet<AccountId>,
) -> Result<Vec<Step>, VerbError> {
    let mut waiting = vec![from];
    let mut steps = Vec::new();
    while let Some(address) = waiting.get(steps.len()).cloned() {
        if steps.len() == STEPS_MAX {
            break;
        }
        let mut found = Vec::new();
        steps.push(match directory.address(&address).await {
            Ok(entry) => {
                for target in &entry.targets {
                    match target {
                        Target::Account(account) => _ = accounts.insert(*account),
                        Target::Address(alias) => found.push(alias.clone()),
                    }
                }
                Step::Address(entry)
            }
            Err(DirectoryError::Unknown) => match alias_of(directory, &address).await? {
                Some(Some(of)) => {
                    found.extend(Address::new(address.local(), of.as_str()));
                    Step::DomainAlias { address, of }
                }
                Some(None) => {
                    // Only who writes to the domain is caught, under its other name too.
                    let is_asked = matches!(&steps[..], [] | [Step::DomainAlias { .. }]);
                    let step = other_name(directory, address, is_asked).await?;
                    match &step {
                        Step::Subaddress { of: other, .. } | Step::Caught { by: other, .. } => {
                            found.push(other.clone());
                        }
                        _ => {}
                    }
                    step
                }
                None => Step::UnknownDomain(address),
            },
            Err(error) => return Err(told(NOUN, &address, error)),
        });
        found.retain(|one| !waiting.contains(one));
        waiting.extend(found);
    }
    Ok(steps)
}

/// As what mail finds an address that is not there itself.
async fn other_name(
    directory: &DirectoryClient,
    address: Address,
    is_asked: bool,
) -> Result<Step, VerbError> {
    let is_there = async |other: &Address| match directory.address(other).await {
        Ok(_) => Ok(true),
        Err(DirectoryError::Unknown) => Ok(false),
        Err(error) => Err(told(NOUN, other, error)),
    };
    if let Some((of, _)) = address.subaddress()
        && is_there(&of).await?
    {
        return Ok(Step::Subaddress { address, of });
    }
    let by = address.catch_all();
    Ok(match is_asked && is_there(&by).await? {
        true => Step::Caught { address, by },
        false => Step::UnknownAddress(address),
    })
}

/// `None`: the domain is not ours.
async fn alias_of(
    directory: &DirectoryClient,
    address: &Address,
) -> Result<Option<Option<DomainName>>, VerbError> {
    let Ok(name) = DomainName::new(address.domain()) else {
        return Ok(None);
    };
    match directory.domain(&name).await {
        Ok(domain) => Ok(Some(domain.alias_of)),
        Err(DirectoryError::Unknown) => Ok(None),
        Err(error) => Err(told(NOUN, &name, error)),
    }
}

/// Who logs in under the name: an account that bears it, or what a domain alias makes of it.
async fn login_of(
    directory: &DirectoryClient,
    name: &str,
    steps: &[Step],
) -> Result<Option<AccountId>, VerbError> {
    let mut names = vec![name.to_owned()];
    if let Some(Step::DomainAlias { address, of }) = steps.first() {
        names.push(format!("{}@{of}", address.local()));
    }
    for name in names {
        let Ok(login_name) = LoginName::new(name.as_str()) else {
            continue;
        };
        match directory.account_of(&login_name).await {
            Ok(account) => return Ok(Some(account.id)),
            Err(DirectoryError::Unknown) => {}
            Err(error) => return Err(told(NOUN, &name, error)),
        }
    }
    Ok(None)
}

/// `None`: it was removed meanwhile.
async fn look_at(directory: &DirectoryClient, id: AccountId) -> Result<Option<Known>, VerbError> {
    let there = |error| told("account", &id, error);
    let (account, credentials) =
        match (directory.account(id).await, directory.credentials(id).await) {
            (Ok(account), Ok(credentials)) => (account, credentials),
            (Err(DirectoryError::Unknown), _) | (_, Err(DirectoryError::Unknown)) => {
                return Ok(None);
            }
            (Err(error), _) | (_, Err(error)) => return Err(there(error)),
        };
    let backend = optional(directory.backend(&account.home.backend).await).map_err(there)?;
    let last_move = optional(directory.move_of(id).await).map_err(there)?;
    Ok(Some(Known {
        account,
        credentials,
        backend,
        last_move,
    }))
}

fn optional<T>(answer: Result<T, DirectoryError>) -> Result<Option<T>, DirectoryError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(DirectoryError::Unknown) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Why {
    fn print(&self) {
        for step in &self.steps {
            print_line(step.told());
        }
        match self.mail.as_deref() {
            None => print_line(format_args!(
                "{}: is no address, no mail comes to it",
                self.name
            )),
            Some("accepted") => print_line("mail: accepted, unless a home is full or away"),
            Some(code) => print_line(format_args!("mail: refused, {code}")),
        }
        match self.login {
            Some(account) => print_line(format_args!("login: as account {account}")),
            None => print_line("login: nobody has this name, bad_credentials"),
        }
        for known in &self.accounts {
            known.print();
        }
        let since = Moment(self.refusals.since_ms);
        if self.refusals.items.is_empty() {
            print_line(format_args!(
                "refusals: none that the directory remembers; it started at {since} and knows nothing from before"
            ));
        } else {
            print_line(format_args!(
                "refusals that the directory remembers, which started at {since}:"
            ));
        }
        for refusal in &self.refusals.items {
            print_line(format_args!("  {}", told_of(refusal)));
        }
        print_line("what the codes mean: infra/docs/REASONS.md");
    }
}

impl Step {
    fn told(&self) -> String {
        match self {
            Self::Address(entry) => {
                let target = |target: &Target| match target {
                    Target::Account(account) => format!("account {account}"),
                    Target::Address(address) => address.to_string(),
                };
                let targets: Vec<String> =
                    entry.targets.iter().take(SHOWN_MAX).map(target).collect();
                let more = match entry.targets.len().saturating_sub(SHOWN_MAX) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!(
                    "{}: delivers to {}{more}",
                    entry.address,
                    targets.join(", ")
                )
            }
            Self::DomainAlias { address, of } => {
                format!("{address}: the domain is another name of {of}")
            }
            Self::Subaddress { address, of } => format!("{address}: is a subaddress of {of}"),
            Self::Caught { address, by } => {
                format!("{address}: is not there, {by} gets its mail")
            }
            Self::UnknownAddress(address) => format!("{address}: is not there, and its domain is"),
            Self::UnknownDomain(address) => format!("{address}: the domain is not ours"),
        }
    }
}

impl Known {
    fn print(&self) {
        let account = &self.account;
        let services: Vec<&str> = account.services.iter().map(|one| one.as_str()).collect();
        let status = match account.status {
            AccountStatus::Active => "active",
            AccountStatus::Suspended => "suspended: it gets mail and nobody can log in",
            AccountStatus::Closing => "closing: it gets no mail and nobody can log in",
            AccountStatus::Other => "of a status that a newer program knows: nobody can log in",
        };
        print_line(format_args!(
            "account {}, {}: {status}; may use {}",
            account.id,
            account.login_name,
            if services.is_empty() {
                "nothing".to_owned()
            } else {
                services.join(", ")
            },
        ));
        let home = &account.home;
        let why = match account.placed {
            None => "since before this was kept".to_owned(),
            Some(placed) => {
                let why = match placed.by {
                    PlacedBy::Balance => {
                        "made there, where the fewest accounts were for the weight"
                    }
                    PlacedBy::Demand => "made there as was demanded",
                    PlacedBy::Move => "brought by a move",
                    PlacedBy::Hand => "pointed there by hand",
                    PlacedBy::Other => "for a reason that this version does not know",
                };
                format!("since {}, {why}", Moment(placed.at_ms))
            }
        };
        print_line(format_args!(
            "  home: {}/{} at epoch {} {why}",
            home.backend, home.volume, home.epoch
        ));
        let (state, address) = match &self.backend {
            None => (
                "not known to the directory: nobody can log in (home_down)",
                "nowhere".to_owned(),
            ),
            Some(backend) => {
                let state = match backend.state {
                    BackendState::Active => "active",
                    BackendState::Draining => "draining: it serves, and takes no new accounts",
                    BackendState::Down => {
                        "down: nobody can log in (home_down), mail waits or is held"
                    }
                };
                let address = match &backend.foreign {
                    Some(foreign) => format!("another mail system, {}", foreign.told()),
                    None => backend.address.clone(),
                };
                (state, address)
            }
        };
        print_line(format_args!(
            "  back-end {}, at {address}: {state}",
            home.backend
        ));
        if self
            .backend
            .as_ref()
            .is_some_and(|backend| backend.foreign.is_some())
        {
            print_line(
                "  mail: its own system is to deliver it; our front-ends refuse it for now (foreign_home)",
            );
        }
        if let Some(last) = &self.last_move {
            let held = match last.state.holds_logins() {
                true => ": nobody can log in (moving)",
                false => "",
            };
            print_line(format_args!(
                "  last move: from {}/{} to {}/{}, begun {}, {} since {}{held}",
                last.from.backend,
                last.from.volume,
                last.to.backend,
                last.to.volume,
                Moment(last.started_ms),
                format!("{:?}", last.state).to_lowercase(),
                Moment(last.updated_ms),
            ));
        }
        match &account.ldap {
            None => {}
            Some(ldap) => match ldap.gone_ms {
                None => print_line(format_args!("  from LDAP: {}", ldap.dn)),
                Some(at) => print_line(format_args!(
                    "  from LDAP: {}, which is gone since {}; `account remove` removes the mail",
                    ldap.dn,
                    Moment(at)
                )),
            },
        }
        if self.credentials.items.is_empty() {
            print_line("  password: none, nobody can log in");
        }
        for one in &self.credentials.items {
            let name = match &one.name {
                None => "password".to_owned(),
                Some(name) => format!("app password {name}"),
            };
            let last = one.last_used_ms.map_or("never used".to_owned(), |ms| {
                format!("last used {}", Moment(ms))
            });
            let kept = if one.scheme == "LDAP" {
                ", which LDAP checks"
            } else {
                ""
            };
            print_line(format_args!("  {name}{kept}: {last}"));
        }
    }
}

fn told_of(refusal: &Refusal) -> String {
    let at = Moment(refusal.at_ms);
    let (code, by) = (&refusal.code, &refusal.by);
    match &refusal.of {
        Refused::Login {
            service,
            client_address,
        } => {
            let service = service.as_str();
            format!("{at} login to {service} from {client_address} by {by}: {code}")
        }
        Refused::Recipient => format!("{at} recipient, asked by {by}: {code}"),
    }
}

const NOUN: &str = "name";
/// Steps that are told; the directory goes a thousand.
const STEPS_MAX: usize = 100;
/// Accounts that are told of one group.
const ACCOUNTS_MAX: usize = 20;
/// Targets of one address that are told.
const SHOWN_MAX: usize = 20;
