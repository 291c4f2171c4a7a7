//! CAPABILITY and ENABLE. RFC 9051 §6.1.1, §6.3.1, RFC 5161.

use std::sync::OnceLock;

use mail_proto::imap::capability::Enable;
use mail_proto::imap::encode::{Code, Condition};

use super::Session;
use super::reply::{Failure, Reply};

/// What works, and nothing else.
pub(super) const ADVERTISED: &[&str] = &[
    "IMAP4rev1",
    "IMAP4rev2",
    "ACL",
    "BINARY",
    "CHILDREN",
    "COMPRESS=DEFLATE",
    "CONDSTORE",
    "CREATE-SPECIAL-USE",
    "ENABLE",
    "ESEARCH",
    "ESORT",
    "ID",
    "IDLE",
    "INPROGRESS",
    "LIST-EXTENDED",
    "LIST-MYRIGHTS",
    "LIST-STATUS",
    "LITERAL+",
    "METADATA",
    "MOVE",
    "MULTIAPPEND",
    "NAMESPACE",
    "NOTIFY",
    "OBJECTID",
    "PARTIAL",
    "PREVIEW",
    "QRESYNC",
    "QUOTA",
    "QUOTA=RES-MESSAGE",
    "QUOTA=RES-STORAGE",
    "REPLACE",
    "RIGHTS=kxte",
    "SASL-IR",
    "SAVEDATE",
    "SEARCHRES",
    "SORT",
    "SORT=DISPLAY",
    "SPECIAL-USE",
    "STATUS=SIZE",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "UIDONLY",
    "UIDPLUS",
    "UNSELECT",
    "UTF8=ACCEPT",
    "WITHIN",
];

/// The same in one line, for a proxy that compares it with what it announces before the login.
pub(crate) fn advertised() -> &'static str {
    static LINE: OnceLock<String> = OnceLock::new();
    LINE.get_or_init(|| ADVERTISED.join(" "))
}

/// CAPABILITY.
pub(super) fn run(session: &mut Session<'_>) -> Result<Reply, Failure> {
    let limits = limits(session);
    session.encoder().capability(with(&limits));
    Ok(Reply::ok("done"))
}

/// The answer to the login; with the capabilities, so that no client has to ask.
pub(super) fn tell_login(session: &mut Session<'_>, tag: &str) {
    let limits = limits(session);
    let names: Vec<&str> = with(&limits).collect();
    let code = Code::Capability(&names);
    session
        .encoder()
        .tagged(tag, Condition::Ok, Some(&code), "logged in");
}

/// The capabilities whose values are settings: `APPENDLIMIT=…` (RFC 7889), `MESSAGELIMIT=…` (RFC 9738).
fn limits(session: &Session<'_>) -> Vec<String> {
    let service = &session.service;
    let mut limits = vec![format!("APPENDLIMIT={}", service.message_size_max_bytes)];
    if service.message_limit.count > 0 {
        limits.push(format!("MESSAGELIMIT={}", service.message_limit.count));
    }
    limits
}

fn with(limits: &[String]) -> impl Iterator<Item = &str> {
    let limits = limits.iter().map(String::as_str);
    ADVERTISED.iter().copied().chain(limits)
}

/// ENABLE: what was asked for and is advertised; the rest is passed over.
pub(super) fn enable(session: &mut Session<'_>, wanted: &[Enable]) -> Result<Reply, Failure> {
    let before = session.state.enabled;
    let mut switched_on = Vec::new();
    for one in wanted.iter().filter(|one| ADVERTISED.contains(&one.name())) {
        session.state.enabled.enable(*one);
        // What was asked for is told, also CONDSTORE behind the QRESYNC that implies it: imapflow believes no more
        // than what ENABLED names.
        let mut fresh = before;
        if fresh.enable(*one) && !switched_on.contains(&one.name()) {
            switched_on.push(one.name());
        }
    }
    session.encoder().enabled(switched_on);
    Ok(Reply::ok("done"))
}
