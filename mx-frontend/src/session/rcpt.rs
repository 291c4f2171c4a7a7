//! RCPT: whose mail this is and where it lives.

use daemon::link::Link;
use directory_api::wire::{Located, Verdict};
use directory_api::{Address as Key, BackendName, DirectoryError, Home, VolumeName};
use mail_proto::Address;
use mail_proto::smtp::ForwardPath;
use store_api::backends::BackendAway;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::envelope::Envelope;
use crate::frontend::Shared;
use crate::reply::RecipientRefusal;
use crate::timeline::Stage;

/// Resolves one recipient and adds its accounts to the envelope, or says why not.
pub(super) async fn add(
    shared: &Shared,
    envelope: &mut Envelope,
    path: ForwardPath,
) -> Result<(), RecipientRefusal> {
    let address = match path {
        ForwardPath::Mailbox(address) => address,
        ForwardPath::Postmaster => shared.postmaster.clone(),
    };
    let asked = key(&address)?;
    let postmaster = key(&shared.postmaster);
    // As the directory knows them: in whatever case it was written.
    let mut is_postmaster = postmaster.as_ref().is_ok_and(|one| *one == asked);
    let mut verdict = shared.directory.lookup(&asked).await;
    if matches!(verdict, Ok(Verdict::UnknownAddress))
        && asked.local() == "postmaster"
        && !is_postmaster
    {
        // RFC 5321 §4.5.1: every domain of ours has one.
        is_postmaster = true;
        verdict = shared.directory.lookup(&postmaster?).await;
    }
    if let Err(error) = &verdict {
        warn!(trace_id = envelope.trace_id, %error, "recipient could not be looked up");
    }
    let located = match judge(verdict) {
        // That it is not set up is our mistake, and no verdict on the address.
        Err(RecipientRefusal::UnknownUser | RecipientRefusal::RelayDenied) if is_postmaster => {
            // Health says what to do, and has logged it once.
            debug!(trace_id = envelope.trace_id, postmaster = %shared.postmaster, "nobody reads the mail for postmaster");
            return Err(RecipientRefusal::PostmasterUnset);
        }
        Err(RecipientRefusal::ExternalTarget) => {
            info!(trace_id = envelope.trace_id, %address, reason = "external_target", "recipient is an alias of addresses that are not ours");
            return Err(RecipientRefusal::ExternalTarget);
        }
        judged => judged?,
    };
    envelope.timeline.charge(Stage::Recipients, Instant::now());
    // Homes, by volume, that take no mail now.
    let mut down: Vec<(BackendName, VolumeName)> = Vec::new();
    for place in &located {
        let Home {
            backend, volume, ..
        } = &place.home;
        let takes = match link_to(shared, envelope, backend).await? {
            Some(link) => !shared.away.is_away(&link, &place.home).await,
            None => false,
        };
        if !takes {
            warn!(trace_id = envelope.trace_id, %backend, %volume, "home of the recipient takes no mail");
            down.push((backend.clone(), volume.clone()));
        }
    }
    let mut holders = Vec::with_capacity(down.len());
    if !down.is_empty() {
        let holder = find_holder(shared, envelope, &down)
            .await
            .ok_or(RecipientRefusal::BackendAway)?;
        let held = down.into_iter();
        holders.extend(held.map(|(backend, volume)| (backend, volume, holder.clone())));
    }
    // Once RCPT said yes, quota refuses nothing (DESIGN §6). Nor does it where the home cannot say.
    let declared = envelope.mail.size;
    if holders.is_empty() {
        let rooms = shared.rooms.are_full(&shared.backends, &located, declared);
        if rooms.await {
            let for_good = shared.limits.over_quota_is_permanent;
            return Err(RecipientRefusal::OverQuota { for_good });
        }
    }
    envelope.timeline.charge(Stage::Connect, Instant::now());
    let added = envelope.recipients.add(address, located, &holders);
    added.map_err(|_| RecipientRefusal::TooManyAccounts)
}

/// The link to a home, connected now, so that DATA need not wait, and so that a home that is down is known before the sender
/// spends its octets. None: it cannot be reached.
async fn link_to(
    shared: &Shared,
    envelope: &mut Envelope,
    backend: &BackendName,
) -> Result<Option<Link>, RecipientRefusal> {
    if let Some(link) = envelope.link(backend) {
        return Ok(Some(link.clone()));
    }
    let link = match shared.backends.link(backend).await {
        Ok(link) => link,
        Err(BackendAway::Foreign(_)) => {
            info!(trace_id = envelope.trace_id, %backend, reason = "foreign_home", "recipient lives on another mail system");
            return Err(RecipientRefusal::ForeignHome);
        }
        Err(error @ BackendAway::Unknown { .. }) => {
            warn!(trace_id = envelope.trace_id, %backend, %error, "home could not be found");
            return Ok(None);
        }
    };
    if let Err(error) = link.ready().await {
        warn!(trace_id = envelope.trace_id, %backend, %error, "home cannot be reached");
        return Ok(None);
    }
    envelope.links.push((backend.clone(), link.clone()));
    Ok(Some(link))
}

/// A sibling that holds the message for homes that are down.
async fn find_holder(
    shared: &Shared,
    envelope: &mut Envelope,
    down: &[(BackendName, VolumeName)],
) -> Option<BackendName> {
    let connected: Vec<BackendName> = envelope
        .links
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    // One that cannot be reached holds nothing; of one with a volume that is away, another may.
    let unreachable = down.iter().map(|(backend, _)| backend);
    let unreachable: Vec<BackendName> = unreachable
        .filter(|backend| !connected.contains(backend))
        .cloned()
        .collect();
    let (backends, away) = (&shared.backends, &shared.away);
    let found = shared
        .holders
        .find(backends, away, connected, &unreachable)
        .await;
    let (holder, link) = found?;
    if envelope.link(&holder).is_none() {
        envelope.links.push((holder.clone(), link));
    }
    info!(trace_id = envelope.trace_id, %holder, "mail for a home that is down will be held");
    Some(holder)
}

/// The address as the directory knows addresses.
pub(super) fn key(address: &Address) -> Result<Key, RecipientRefusal> {
    // An address literal names a host, not one of our domains.
    if address.domain().starts_with('[') {
        return Err(RecipientRefusal::RelayDenied);
    }
    Key::new(address.local(), address.domain()).map_err(|_| RecipientRefusal::BadAddress)
}

/// What the directory's answer means for the sender. Whatever is not a clear verdict is temporary (P6).
fn judge(verdict: Result<Verdict, DirectoryError>) -> Result<Vec<Located>, RecipientRefusal> {
    match verdict {
        Ok(Verdict::Accounts(located)) if !located.is_empty() => Ok(located),
        Ok(Verdict::External { .. }) => Err(RecipientRefusal::ExternalTarget),
        Ok(Verdict::UnknownAddress) => Err(RecipientRefusal::UnknownUser),
        Ok(Verdict::UnknownDomain) => Err(RecipientRefusal::RelayDenied),
        Ok(Verdict::Accounts(_)) | Err(_) => Err(RecipientRefusal::DirectoryAway),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{address, located};

    #[test]
    fn only_a_clear_verdict_is_final() {
        use RecipientRefusal::{DirectoryAway, ExternalTarget, RelayDenied, UnknownUser};
        let one = vec![located(1, "b1", 1)];
        let external = Verdict::External {
            accounts: one.clone(),
            external: vec!["bob@elsewhere.test".parse().unwrap()],
        };
        assert_eq!(judge(Ok(external)), Err(ExternalTarget));
        assert_eq!(judge(Ok(Verdict::Accounts(one.clone()))), Ok(one));
        assert_eq!(judge(Ok(Verdict::UnknownAddress)), Err(UnknownUser));
        assert_eq!(judge(Ok(Verdict::UnknownDomain)), Err(RelayDenied));
        assert_eq!(judge(Ok(Verdict::Accounts(vec![]))), Err(DirectoryAway));
        assert_eq!(judge(Err(DirectoryError::Unknown)), Err(DirectoryAway));
    }

    #[test]
    fn an_address_literal_is_not_one_of_our_domains() {
        assert_eq!(
            key(&address("ann@[127.0.0.1]")),
            Err(RecipientRefusal::RelayDenied)
        );
        assert_eq!(
            key(&address("Ann@Example.TEST")).unwrap().as_str(),
            "ann@example.test"
        );
    }
}
