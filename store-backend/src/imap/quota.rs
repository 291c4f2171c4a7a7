//! GETQUOTA, GETQUOTAROOT, SETQUOTA, and the word before a quota is used up. RFC 9208.
//!
//! An account has one quota root, `""`, for all of its mailboxes, and none when nothing is limited. Counted are
//! all messages of the account and their octets as RFC822.SIZE tells them, shared bodies each time. The limits are the
//! directory's; the volume enforces them.

use directory_api::AccountId;
use mail_proto::imap::encode::{Code, Condition};
use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::place::{demand, is_others};
use super::reply::{Failure, Reply};
use crate::volume::{AccountInfo, Rights};

/// The one quota root of an account.
const ROOT: &str = "";
/// STORAGE is told in units of so many octets. RFC 9208 §5.1.
const UNIT_OCTETS: u64 = 1024;

/// GETQUOTA.
pub(super) async fn run(session: &mut Session<'_>, root: &str) -> Result<Reply, Failure> {
    let Some(limited) = limited(session).await?.filter(|_| root == ROOT) else {
        return Ok(Reply::no("NONEXISTENT", "there is no such quota root"));
    };
    tell(session, &limited);
    Ok(Reply::ok("done"))
}

/// GETQUOTAROOT.
pub(super) async fn root_of(
    session: &mut Session<'_>,
    name: &MailboxName,
) -> Result<Reply, Failure> {
    // RFC 9208 §4.1.2: it may ask before it makes the mailbox.
    let is_own = !is_others(name.as_str());
    if !is_own {
        // How much others have is theirs to know.
        demand(session, name).await?.place.need(Rights::READ)?;
    }
    match limited(session).await?.filter(|_| is_own) {
        Some(limited) => {
            session.encoder().quota_root(name, &[ROOT]);
            tell(session, &limited);
        }
        None => session.encoder().quota_root(name, &[]),
    }
    Ok(Reply::ok("done"))
}

/// SETQUOTA: limits are the operator's, who sets them at the directory.
pub(super) fn set() -> Reply {
    Reply::no("NOPERM", "limits are set by the operator")
}

/// Says so when a limit is near or reached: what else a client shows of it, it must ask for (RFC 9208 §4.3.1).
/// `owner`: of the mailbox in use; how full another user's account is, is not told.
pub(super) async fn warn(session: &mut Session<'_>, owner: AccountId) -> Result<(), Failure> {
    let percent = session.service.quota_warning_percent;
    let Some(percent) = percent.filter(|_| owner == session.state.account) else {
        return Ok(());
    };
    let near = |info: &AccountInfo| {
        let (messages, octets) = (info.message_count, info.size_octets);
        info.quota.is_near(percent, messages, octets)
    };
    if limited(session).await?.is_some_and(|info| near(&info)) {
        let code = Code::Word("OVERQUOTA");
        let text = "the account's quota is nearly or fully used up";
        session.encoder().untagged(Condition::No, Some(&code), text);
    }
    Ok(())
}

/// The account, if anything of it is limited.
async fn limited(session: &mut Session<'_>) -> Result<Option<AccountInfo>, Failure> {
    let info = session
        .service
        .home
        .volume
        .account(session.state.account)
        .await?;
    Ok(info.filter(|info| info.quota.is_limited()))
}

/// QUOTA: what is used, and of how much. A part of a unit is a unit used, and none to use.
fn tell(session: &mut Session<'_>, info: &AccountInfo) {
    let used = info.size_octets.div_ceil(UNIT_OCTETS);
    let storage = info
        .quota
        .octets
        .map(|most| ("STORAGE", used, most / UNIT_OCTETS));
    let messages = info
        .quota
        .messages
        .map(|most| ("MESSAGE", info.message_count, most));
    let resources: Vec<_> = storage.into_iter().chain(messages).collect();
    session.encoder().quota(ROOT, &resources);
}
