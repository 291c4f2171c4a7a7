//! MAIL: opens a transaction. Its identifiers are made here, once.

use daemon::random;
use data_encoding::BASE32_DNSSEC;
use mail_proto::smtp::Mail;
use store_api::TxnId;
use tokio::time::Instant;

use super::envelope::Envelope;
use crate::checks::Looking;
use crate::frontend::Shared;
use crate::recipients::Recipients;
use crate::timeline::{Stage, Timeline};

pub(super) fn begin(
    shared: &Shared,
    mail: Mail,
    mut timeline: Timeline,
    looking: Option<Looking>,
    is_foreign: bool,
) -> Box<Envelope> {
    timeline.charge(Stage::BeforeMail, Instant::now());
    Box::new(Envelope {
        mail,
        txn: TxnId(random::token128()),
        trace_id: trace_id(),
        recipients: Recipients::new(shared.limits.accounts_max),
        links: Vec::new(),
        is_foreign,
        looking,
        looked: None,
        screened: None,
        timeline,
    })
}

/// Sixteen characters that survive being read out over the telephone: 80 random bits in base-32.
fn trace_id() -> String {
    let mut octets = [0; 10];
    random::fill(&mut octets);
    BASE32_DNSSEC.encode(&octets)
}
