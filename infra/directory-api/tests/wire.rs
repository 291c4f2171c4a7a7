//! The octets of version 1: every later build must read and write these.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use directory_api::wire::{
    AccountChange, AccountNew, AddressEdit, AddressPut, AnnounceRequest, Change, ChangeKind,
    CompareAndSet, Credential, DomainPut, Import, ImportReply, LoginRequest, LookupReply,
    LookupRequest, MoveRecord, Target, code,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the text, and writes the same text again.
fn golden<T: Serialize + DeserializeOwned + Debug>(text: &str) -> T {
    let value: T = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
    value
}

#[test]
fn version_1_is_written_as_it_was_agreed() {
    golden::<LookupRequest>(r#"{"addresses":["ann@x.test"]}"#);
    golden::<LookupReply>(concat!(
        r#"{"change":9,"results":["#,
        r#"{"address":"a@x.test","verdict":{"accounts":[{"account":7,"home":{"backend":"b1","volume":"v1","epoch":3}}]},"via":["b@x.test"]},"#,
        r#"{"address":"c@x.test","verdict":"unknown_address"},"#,
        r#"{"address":"c@y.test","verdict":"unknown_domain"}]}"#,
    ));
    golden::<LoginRequest>(
        r#"{"user":"ann","password":"p","service":"imap","client_address":"::1","secured":true,"backend":"b1"}"#,
    );
    golden::<AddressPut>(r#"{"targets":[{"account":7},{"address":"b@x.test"}]}"#);
    golden::<AnnounceRequest>(
        r#"{"backend":"b1","address":"h:1","volumes":[{"name":"v1","incarnation":"000000000000000000000000000000ff","position":5}]}"#,
    );
    golden::<CompareAndSet>(r#"{"from_epoch":1,"to":{"backend":"b2","volume":"v1"}}"#);
    golden::<AccountNew>(r#"{"login_name":"ann","credential":{"password":"p"}}"#);
    golden::<DomainPut>(r#"{"alias_of":"x.test"}"#);
    golden::<DomainPut>(r#"{"own":true}"#);
    golden::<DomainPut>("{}");
    golden::<AccountChange>(
        r#"{"app_passwords":[{"name":"phone","credential":{"hashed":"{SSHA256}x"},"services":["imap"]}],"remove_app_passwords":["laptop"],"status":"closing"}"#,
    );
    golden::<AddressEdit>(r#"{"add":[{"account":7}],"remove":[{"address":"b@x.test"}]}"#);
    golden::<Import>(concat!(
        r#"{"rows":[{"domain":{"name":"y.test","alias_of":"x.test"}},"#,
        r#"{"account":{"login_name":"ann@x.test","credential":{"hashed":"{PLAIN}x"},"quota_octets":5}},"#,
        r#"{"address":{"address":"a@x.test","targets":[{"login":"ann@x.test"},{"account":7},{"address":"b@x.test"}]}}],"#,
        r#""update":true,"update_passwords":false,"on_trial":true}"#,
    ));
    golden::<ImportReply>(
        r#"{"change":9,"outcomes":["created","equal","updated",{"refused":{"code":"exists","message":"m"}}]}"#,
    );
    golden::<MoveRecord>(concat!(
        r#"{"account":7,"id":"01010101010101010101010101010101","from":{"backend":"b1","volume":"v1","epoch":1},"#,
        r#""to":{"backend":"b2","volume":"v1"},"state":"frozen","started_ms":1,"updated_ms":2}"#,
    ));
    golden::<Change>(r#"{"number":1,"kind":"home","key":"7","at_ms":3}"#);
    golden::<Change>(r#"{"number":2,"kind":"hash","key":"7","at_ms":3}"#);
}

#[test]
fn a_request_with_an_unknown_field_is_refused_and_a_reply_with_one_is_read() {
    assert!(serde_json::from_str::<LookupRequest>(r#"{"addresses":[],"adresses":[]}"#).is_err());
    let reply = r#"{"change":1,"results":[],"novelty":true}"#;
    assert!(serde_json::from_str::<LookupReply>(reply).is_ok());
    let change = r#"{"number":1,"kind":"group","key":"g","at_ms":3}"#;
    assert_eq!(
        serde_json::from_str::<Change>(change).unwrap().kind,
        ChangeKind::Other
    );
    let verdict = r#"{"change":1,"results":[{"address":"a@x","verdict":{"relay":"y"}}]}"#;
    assert!(
        serde_json::from_str::<LookupReply>(verdict).is_err(),
        "an unknown verdict is no answer"
    );
    assert!(serde_json::from_str::<Target>(r#"{"pipe":"/bin/sh"}"#).is_err());
}

#[test]
fn no_password_is_ever_printed() {
    let login: LoginRequest = serde_json::from_str(
        r#"{"user":"ann","password":"hunter2","service":"imap","client_address":"::1","secured":true}"#,
    )
    .unwrap();
    let account = AccountNew::new(
        "ann".parse().unwrap(),
        Some(Credential::Hashed(login.password.clone())),
    );
    assert!(!format!("{login:?} {account:?}").contains("hunter2"));
}

#[test]
fn every_reason_of_a_refusal_is_explained() {
    let page = include_str!("../../docs/REASONS.md");
    for reason in [
        code::BAD_CREDENTIALS,
        code::SERVICE_FORBIDDEN,
        code::SUSPENDED,
        code::CLOSING,
        code::FOREIGN_BACKEND,
        code::MOVING,
        code::HOME_DOWN,
        code::THROTTLED,
        code::TOO_MANY_TARGETS,
        "unknown_address",
        "unknown_domain",
        "directory_away",
        "directory_refused",
    ] {
        let is_here = |line: &str| {
            let code = line
                .strip_prefix("| ")
                .and_then(|line| line.split(" |").next());
            code.is_some_and(|codes| codes.split(", ").any(|one| one == format!("`{reason}`")))
        };
        assert!(page.lines().any(is_here), "{reason}");
    }
}
