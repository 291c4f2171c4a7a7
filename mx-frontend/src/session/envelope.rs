//! A transaction between MAIL and DATA.

use daemon::link::Link;
use directory_api::BackendName;
use mail_proto::smtp::Mail;
use store_api::TxnId;

use crate::checks::{Finding, Looked, Looking};
use crate::recipients::Recipients;
use crate::timeline::Timeline;

/// Who the message is from and who receives it.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) mail: Mail,
    pub(crate) txn: TxnId,
    pub(crate) trace_id: String,
    pub(crate) recipients: Recipients,
    /// A link to each back-end, found at RCPT so that DATA need not wait. Few: a scan finds one.
    pub(crate) links: Vec<(BackendName, Link)>,
    /// Whether it comes from somebody who is not believed to have checked anything for us.
    pub(crate) is_foreign: bool,
    /// What the checks are still looking up.
    pub(crate) looking: Option<Looking>,
    /// What they have looked up.
    pub(crate) looked: Option<Looked>,
    /// What the checks say, once they were asked.
    pub(crate) screened: Option<Result<(), Finding>>,
    pub(crate) timeline: Timeline,
}

impl Envelope {
    pub(crate) fn link(&self, backend: &BackendName) -> Option<&Link> {
        self.links
            .iter()
            .find(|(name, _)| name == backend)
            .map(|(_, link)| link)
    }
}
