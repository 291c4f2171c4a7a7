#![allow(clippy::unwrap_used)]

use super::*;

/// RFC 7677 §3.
const BARE: &str = "n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn iterations(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn keys(password: &str) -> Keys {
    let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Keys::of(password, salt, iterations(4_096)).unwrap()
}

#[test]
fn the_example_of_the_rfc_is_played_word_for_word() {
    let message = format!("n,,{BARE}");
    let first = ClientFirst::parse(message.as_bytes()).unwrap();
    assert_eq!(
        (first.flag, first.header, first.acts_as, first.bare),
        (Flag::Unable, "n,,", None, BARE)
    );
    assert_eq!(
        (first.user.as_str(), first.nonce),
        ("user", "rOprNGfwEbeRWgbNEkqO")
    );
    let nonce = format!("{}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", first.nonce);
    let keys = keys("pencil");
    assert_eq!(
        server_first(&nonce, &keys.salt, keys.iterations),
        SERVER_FIRST
    );
    let last = ClientFinal::parse(FINAL.as_bytes()).unwrap();
    assert_eq!(
        (last.bound_to.as_slice(), last.nonce),
        (&b"n,,"[..], nonce.as_str())
    );
    let exchange = Exchange::new(first.bare, SERVER_FIRST, last.without_proof);
    assert!(exchange.is_proved_by(&last.proof, &keys));
    assert_eq!(exchange.server_final(&keys), SERVER_FINAL);
}

#[test]
fn a_proof_is_of_one_password_and_of_all_that_was_said() {
    let last = ClientFinal::parse(FINAL.as_bytes()).unwrap();
    let proves = |bare: &str, server: &str, without: &str, keys: &Keys| {
        Exchange::new(bare, server, without).is_proved_by(&last.proof, keys)
    };
    let (right, without) = (keys("pencil"), last.without_proof);
    assert!(proves(BARE, SERVER_FIRST, without, &right));
    assert!(!proves(BARE, SERVER_FIRST, without, &keys("pencil ")));
    assert!(!proves(
        &BARE.replace("user", "root"),
        SERVER_FIRST,
        without,
        &right
    ));
    assert!(!proves(
        BARE,
        &SERVER_FIRST.replace("4096", "4097"),
        without,
        &right
    ));
    assert!(!proves(
        BARE,
        SERVER_FIRST,
        &without.replace("biws", "eSws"),
        &right
    ));
    let exchange = Exchange::new(BARE, SERVER_FIRST, without);
    assert!(!exchange.is_proved_by(&[0; KEY_OCTETS], &right));
}

#[test]
fn a_first_message_is_read_with_all_that_may_be_in_it() {
    let read = |text: &'static str| ClientFirst::parse(text.as_bytes()).unwrap();
    let bound = read("p=tls-exporter,a=boss,n=a=2Cb=3D,r=x!~,z=more");
    assert_eq!(bound.flag, Flag::Binds("tls-exporter"));
    assert_eq!(bound.acts_as.as_deref(), Some("boss"));
    assert_eq!((bound.user.as_str(), bound.nonce), ("a,b=", "x!~"));
    assert_eq!(bound.header, "p=tls-exporter,a=boss,");
    assert_eq!(read("y,,n=\u{e9},r=x").flag, Flag::ThinksServerUnable);
}

#[test]
fn what_is_no_message_is_refused() {
    let long = format!("n,,n={},r=x", "u".repeat(MESSAGE_MAX_OCTETS));
    let nonce = format!("n,,n=u,r={}", "x".repeat(NONCE_MAX_OCTETS + 1));
    for text in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=u",
        "n,,n=,r=x",
        "n,,r=x,n=u",
        "n,,n=u,r=",
        "n,,n=u,r=\u{e9}",
        "n,,m=x,n=u,r=x",
        "n,,n=u,r=x,m=y",
        "n,,n=u,r=x,",
        "n,,n=u,r=x,1=y",
        "x,,n=u,r=x",
        "p=,,n=u,r=x",
        "p=a b,,n=u,r=x",
        "p,,n=u,r=x",
        "n,b=u,n=u,r=x",
        "n,a=,n=u,r=x",
        "n,,n=a=b,r=x",
        "n,,n=a=2c,r=x",
        "n,,n=a\0,r=x",
        &long,
        &nonce,
    ] {
        assert_eq!(
            ClientFirst::parse(text.as_bytes()),
            Err(Malformed),
            "{text:.40}"
        );
    }
    assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=x"), Err(Malformed));
    let proof = BASE64.encode(&[0; KEY_OCTETS]);
    for text in [
        "".to_owned(),
        "c=biws,r=x".to_owned(),
        format!("c=biws,p={proof}"),
        format!("r=x,c=biws,p={proof}"),
        format!("c=b!,r=x,p={proof}"),
        format!("c=biws,r=x,p={proof}A"),
        "c=biws,r=x,p=".to_owned(),
        "c=biws,r=x,p=AAAA".to_owned(),
        format!("c=biws,r=x,m=y,p={proof}"),
        format!("c=biws,r=x,p={proof},z=y"),
    ] {
        assert_eq!(
            ClientFinal::parse(text.as_bytes()),
            Err(Malformed),
            "{text}"
        );
    }
    let more = format!("c=biws,r=x,z=y,p={proof}");
    assert_eq!(ClientFinal::parse(more.as_bytes()).unwrap().nonce, "x");
}

#[test]
fn keys_match_their_password_in_either_form_of_its_characters() {
    let keys = keys("caf\u{e9}");
    assert!(keys.match_password("caf\u{e9}"));
    assert!(keys.match_password("cafe\u{301}"));
    assert!(!keys.match_password("cafe"));
    assert!(!keys.match_password("caf\u{e9}\u{7}"));
}
