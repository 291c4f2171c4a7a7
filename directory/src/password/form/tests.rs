//! What other servers wrote, read here; and what is refused.
#![allow(clippy::unwrap_used)]

use super::*;

/// Passwords and what was stored of them: by Dovecot 2.4 and its own tests, by the specifications
/// of SHA-crypt, bcrypt's (`crypt_blowfish`) and PBKDF2 (RFC 6070), by the reference Argon2.
const WRITTEN: &[(&str, &str)] = &[
    (
        "test",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$vBb99oJ12p3WAdYlaMHz1A$jtFOtbo/sYV9OSlTxDo/nVNq3uArHd5GJSEx0ty85Cc",
    ),
    (
        "password",
        "{ARGON2ID}$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
    ),
    (
        "pässwörd",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$B1nLvFKhhBtdRGyES6aHdg$EewP7FksQl6atLsqly1puRvhhcJKRqHAuSXbGvPL1cY",
    ),
    (
        "test",
        "{BLF-CRYPT}$2y$05$11ipvo5dR6CwkzwmhwM26OXgzXwhV2PyPuLV.Qi31ILcRcThQpEiW",
    ),
    (
        "U*U",
        "{blf-crypt}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    ),
    (
        "U*U*",
        "{CRYPT}$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK",
    ),
    (
        "secret",
        "{BLF-CRYPT}$2y$06$Xss15/ED03fWfCHGv67Ncer9MHl3o5s/6wV5TAfPGPRqmGQa5ewni",
    ),
    (
        "pässwörd",
        "{BLF-CRYPT}$2y$05$dpkNnVvoQ2djhJ9UKyOPT.egOolU9.OJmpRRRYwLuu2gK79EC0ewS",
    ),
    (
        "Hello world!",
        "{SHA512-CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "Hello world!",
        "{Sha512-Crypt}$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
    (
        "secret",
        "{CRYPT}$6$rounds=20000$RC0hUR/Cb8zRzeXI$MXQZVLuApVJ7LsvTWFiiZUrWz0PAOnkcnwNFhiQNCs7HlJL95PxfbKfLLelAxsjPKDOs3iHlJXytNS6dJgCOC/",
    ),
    (
        "pässwörd",
        "{SHA512-CRYPT.B64}JDYkbVltY3RoTW4xVTdIM3RvRiRnT25iT3dKcnJuTFRYV01HRkU3TThxbkU4d2ZqT3RNTktPQU5UWEJHSkJvZ2p3MHZlMVp3bG5mZ2s2U3FZLzZnOUp3T2ZsOUQ4ZXJZNmNOZTRzYWN0MA==",
    ),
    (
        "Hello world!",
        "{SHA256-CRYPT}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
    ),
    (
        "Hello world!",
        "{SHA256-CRYPT}$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
    ),
    (
        "secret",
        "{CRYPT}$5$rounds=1000$0hODDq7PYe1FCmOm$wbORQKJBkyYHA3tKwjp.aA2Hm.BUHzrTcbUB6fpRs2B",
    ),
    (
        "pässwörd",
        "{SHA256-CRYPT}$5$oLJanHrGbAtQCiNq$nJowa62.eGtSoy4hTyJAdDQMjYP8vXE03Ida/0jy2BC",
    ),
    (
        "password",
        "{PBKDF2}$1$salt$1$0c60c80f961f0e71f3a9b524af6012062fe037a6",
    ),
    (
        "password",
        "{PBKDF2}$1$salt$4096$4b007901b765489abead49d926f721d065a429c1",
    ),
    (
        "test",
        "{pbkdf2}$1$bUnT4Pl7yFtYX0KU$5000$50A83CAFDC517B9F46519415E53C6A858908680A",
    ),
    (
        "pässwörd",
        "{PBKDF2}$1$Oq40RRMMd2.pcy1Q$5000$e7cb532b4b4c57eb58bcb6101610c5f39399f29f",
    ),
    // RFC 7677's example, and one made by Python's hashlib.
    (
        "pencil",
        "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    ),
    (
        "pässwörd",
        "{scram-SHA-256}10000,MDEyMzQ1Njc4OWFi,CoTYuyk/r9Krf5rJz9fadCLWVms7XYp/mOr6qcgSY4A=,uc7F9UelO7hICa1NUgBo+/vv3yATdx77HqSsUOtUb2I=",
    ),
    ("test", "{SSHA}H/zrDv8FXUu1JmwvVYijfrYEF34jVZcO"),
    ("secret", "{ssha}iQrL+xd/s2lVWm1ZUufKoAbHRkjX2kzd"),
    (
        "pässwörd",
        "{SSHA.HEX}4f31f16a19360fec2c12586381235c97a651dbc2461586c3",
    ),
    (
        "secret",
        "{SSHA256}hi4gWHjm5z9yOSyWBH2RWOqf7vzbWsmXdjwRlNEMSxiNT+gU",
    ),
    (
        "pässwörd",
        "{SSHA256.base64}42poDYahtRV3YlVoHwaUTkky4lMIpSiZhe+m7EmlACURkrYC",
    ),
    (
        "password",
        "{ssha512}dOeDLmVpHJThhHeag10Hm2g4T7s3SBE6rGHcXUolXJHVufY4qT782rwZ/0XE6cuLcBZ0KpnwmUzRpAEtZBdv+JYEEtZQs/uC",
    ),
    (
        "pässwörd",
        "{SSHA512}xP1SR/fWAyRTdNfhuGNgZmP5kfnL2r51GP062cwgB4k9/cC2xHa9CCHjHaQXR74IpHVDN1JA6M0WU8VpmJo8t9yxK4k=",
    ),
    ("test", "{SMD5}JTu1KRwptKZJg/RLd+6Vn5GUd0M="),
    ("secret", "{SMD5}KQWpYMF9mCeXPU/iScyHtjFoSzU="),
    ("pässwörd", "{SMD5.b64}1DZDzCQCLf93pQ5jVofV7T2S0+w="),
    ("test", "{PLAIN}test"),
    ("pässwörd", "{PLAIN.B64}cMOkc3N3w7ZyZA=="),
    ("a}b{c", "{cleartext}a}b{c"),
    ("AB", "{CLEAR.hex}4142"),
];

fn parse(stored: &str) -> Form {
    Form::parse(stored).unwrap_or_else(|error| panic!("{stored}: {error}"))
}

#[test]
fn what_other_servers_wrote_is_the_password_and_no_other() {
    for (password, stored) in WRITTEN {
        let form = parse(stored);
        assert!(form.matches(password), "{password:?} {stored}");
        let longer = format!("{password} ");
        let nul = format!("{password}\0");
        let twice = format!("{password}\0{password}");
        let wrongs = [
            "",
            "wrong",
            "Test",
            "passwörd",
            &longer,
            &nul,
            &twice,
            &password[1..],
        ];
        // A check of 64 MiB takes a while.
        let tried = if stored.contains("ARGON2") {
            2
        } else {
            wrongs.len()
        };
        for wrong in &wrongs[..tried] {
            assert!(!form.matches(wrong), "{wrong:?} {stored}");
        }
    }
}

#[test]
fn a_password_of_1024_octets_is_checked_to_its_last() {
    let long = "a".repeat(1_024);
    let mut other = "a".repeat(1_023);
    other.push('b');
    // Dovecot's own, but SHA-crypt's, which its crypt(3) refuses above 511 octets: passlib's.
    for stored in [
        "{PBKDF2}$1$D592SMAvmM4wJ//S$1000$838d77846452b649a6c0bbd103a1be51ab17eca5",
        "{SSHA}jjrTjv2detHkwVwsaktScPdAkQcYkb5p",
        "{SMD5}W/7P6BPt6O/4puxpJ4MnlaavqyI=",
        "{SHA512-CRYPT}$6$rounds=1000$saltsalt$NaoL.gDm0O9yE5TtiXWuAkBbxLInaJz40ZOF5MhaCNrO4qsR/MHp8BzRe0IYZcjpEQn/.rb07x66rwxKRdeHe0",
        "{SHA256-CRYPT}$5$rounds=1000$saltsalt$VtyLSAbzLZKrIgfNj/j2sAQVS84R4tZy9MmacoQV3MA",
    ] {
        let form = parse(stored);
        assert!(form.matches(&long), "{stored}");
        assert!(!form.matches(&other), "{stored}");
        assert!(!form.matches(&format!("{long}a")), "{stored}: 1,025 octets");
    }
    let plain = |octets| Form::parse(&format!("{{PLAIN}}{}", "a".repeat(octets)));
    assert!(plain(1_024).unwrap().matches(&long));
    let refused = plain(1_025).err().unwrap();
    assert!(refused.to_string().contains("1025"), "{refused}");
}

#[test]
fn bcrypt_takes_the_first_72_octets_as_crypt_does() {
    const SEEN: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let form = parse("{BLF-CRYPT}$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui");
    assert_eq!(SEEN.len(), 72);
    assert!(form.matches(&format!("{SEEN}chars after 72 are ignored")));
    assert!(form.matches(&format!("{SEEN}and others are too")));
    assert!(form.matches(SEEN));
    assert!(!form.matches(&SEEN[..71]));
    let dovecot = parse("{BLF-CRYPT}$2y$04$344AGsy1tgniuhXWiOiyAOUg6Z1UOEVd43t9dIKuGo9YQVbk8LYG.");
    assert!(dovecot.matches(&"a".repeat(1_024)));
}

#[test]
fn a_stored_form_that_is_cut_or_garbled_is_refused() {
    for (_, stored) in WRITTEN.iter().filter(|(_, stored)| {
        !stored.to_uppercase().contains("{PLAIN") && !stored.to_uppercase().contains("{CLEAR")
    }) {
        let text = stored.find('}').unwrap() + 1;
        // PBKDF2's and SHA-crypt's last character; base64 that is cut is no longer a whole quartet.
        assert!(
            Form::parse(&stored[..stored.len() - 1]).is_err(),
            "{stored} cut"
        );
        assert!(
            Form::parse(&stored[..text]).is_err(),
            "{stored} without text"
        );
        for garbled in ["!", "*", " ", "\n", "\0", "é"] {
            let garbled = format!("{stored}{garbled}");
            assert!(Form::parse(&garbled).is_err(), "{garbled:?}");
        }
    }
    for other in [
        "",
        "}{",
        "{",
        "{}",
        "{PLAIN}",
        "plain",
        "{PLAIN.B64}!",
        "{PLAIN.B64}/w==",
        "{PLAIN.ROT13}cynva",
        "{PLAIN",
        "{MD5}x",
        "{MD5-CRYPT}$1$GgvxyNz8$OjZhLh4P.gF1lxYEbLZ3e/",
        "{CRYPT}$1$GgvxyNz8$OjZhLh4P.gF1lxYEbLZ3e/",
        "{CRYPT}//EsnG9FLTKjo",
        "{CRYPT}*0",
        "{SHA512-CRYPT}!",
        "{ARGON2ID}x",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$vBb99oJ12p3WAdYlaMHz1A",
        "{ARGON2ID}$argon2i$v=19$m=32768,t=4,p=1$f2iuP4aUeNMrgu34fhOkkg$1XSZZMWlIs0zmE+snlUIcLADO3GXbA2O/hsQmmc317k",
        "{BLF-CRYPT}$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "{BLF-CRYPT}$2y$5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW0",
        "{SHA512-CRYPT}$6$rounds=+5000$saltsalt$x",
        "{SHA512-CRYPT}$6$rounds=$saltsalt$x",
        "{SHA512-CRYPT}$6$$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        "{PBKDF2}$2$salt$1$0c60c80f961f0e71f3a9b524af6012062fe037a6",
        "{PBKDF2}$1$salt$-1$0c60c80f961f0e71f3a9b524af6012062fe037a6",
        "{PBKDF2}$1$salt$0c60c80f961f0e71f3a9b524af6012062fe037a6",
        "{SSHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=",
        "{SSHA256}AAAA",
        "SCRAM-SHA-256$4096",
        "SCRAM-SHA-1$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "{SCRAM-SHA-256}-4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,AAAA",
    ] {
        assert!(Form::parse(other).is_err(), "{other:?}");
    }
}

#[test]
fn a_number_is_taken_at_its_limit_and_refused_one_beyond_with_the_limit_named() {
    let argon2id = |m: u64, t: u64, p: u64| {
        format!(
            "{{ARGON2ID}}$argon2id$v=19$m={m},t={t},p={p}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
        )
    };
    let bcrypt = |cost: u64| {
        format!("{{BLF-CRYPT}}$2y${cost:02}$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")
    };
    let sha = |kind: u64, rounds: u64| {
        let hash = if kind == 5 {
            "z".repeat(42)
        } else {
            "z".repeat(85)
        };
        format!("{{CRYPT}}${kind}$rounds={rounds}$saltsalt${hash}.")
    };
    let pbkdf2 = |iterations: u64| {
        format!("{{PBKDF2}}$1$salt${iterations}$0c60c80f961f0e71f3a9b524af6012062fe037a6")
    };
    let ssha = |salt: u64| {
        format!(
            "{{SSHA.HEX}}{}",
            "00".repeat(20 + usize::try_from(salt).unwrap())
        )
    };
    let scram = |iterations: u64, salt: u64| {
        let salt = BASE64.encode(&vec![0; usize::try_from(salt).unwrap()]);
        let key = BASE64.encode(&[0; 32]);
        format!("{{SCRAM-SHA-256}}{iterations},{salt},{key},{key}")
    };
    type Limit<'a> = (&'a str, &'a dyn Fn(u64) -> String, u64, u64);
    let limits: [Limit<'_>; 11] = [
        ("memory", &|m| argon2id(m, 1, 1), 8, 262_144),
        ("passes", &|t| argon2id(8_192, t, 1), 1, 128),
        ("parallelism", &|p| argon2id(1_024, 1, p), 1, 16),
        ("cost", &bcrypt, 4, 14),
        ("rounds", &|rounds| sha(5, rounds), 1_000, 1_000_000),
        ("rounds", &|rounds| sha(6, rounds), 1_000, 1_000_000),
        ("iterations", &pbkdf2, 1, 2_000_000),
        ("iterations", &|i| scram(i, 16), 4_096, 1_000_000),
        ("salt", &|salt| scram(4_096, salt), 1, 64),
        ("salt", &ssha, 1, 64),
        (
            "salt",
            &|salt| {
                format!(
                    "{{CRYPT}}$5${}${}",
                    "s".repeat(usize::try_from(salt).unwrap()),
                    "z".repeat(43)
                )
            },
            1,
            16,
        ),
    ];
    for (what, form, least, most) in limits {
        for allowed in [least, least + 1, most - 1, most] {
            parse(&form(allowed));
        }
        assert!(
            Form::parse(&form(least - 1)).is_err(),
            "{what} {}",
            least - 1
        );
        for beyond in [most + 1, most * 4] {
            let Err(refused) = Form::parse(&form(beyond)) else {
                panic!("{what} of {beyond} was taken");
            };
            assert!(
                matches!(refused, FormError::OutOfLimits { .. }),
                "{refused}"
            );
            let said = refused.to_string();
            assert!(said.contains(what), "{said}");
        }
    }
    let most = sha(6, 1_000_001);
    let said = Form::parse(&most).err().unwrap().to_string();
    assert_eq!(
        said,
        "the stored form's rounds of 1000001 is outside the limits of SHA512-CRYPT: 1000 to 1000000"
    );
    // More digits than 64 bits have.
    for hostile in [
        "{SHA512-CRYPT}$6$rounds=99999999999999999999999$saltsalt$x".to_owned(),
        "{PBKDF2}$1$salt$99999999999999999999999$0c60c80f961f0e71f3a9b524af6012062fe037a6"
            .to_owned(),
        argon2id(u64::from(u32::MAX), u64::from(u32::MAX), 1),
        bcrypt(31),
        format!("{{SSHA}}{}", "A".repeat(4_096)),
    ] {
        assert!(
            matches!(Form::parse(&hostile), Err(FormError::OutOfLimits { .. })),
            "{hostile:.80}"
        );
    }
}

#[test]
fn rounds_times_the_passwords_length_are_limited_too() {
    // At the limit of rounds a short password is checked; one that would take seconds is wrong at once.
    let form = parse(&format!(
        "{{SHA512-CRYPT}}$6$rounds=1000000$saltsalt${}.",
        "z".repeat(85)
    ));
    let start = std::time::Instant::now();
    assert!(!form.matches(&"a".repeat(1_024)));
    let refused = start.elapsed();
    let start = std::time::Instant::now();
    assert!(!form.matches("a"));
    assert!(start.elapsed() > refused * 10, "{refused:?}");
}

#[test]
fn a_new_password_is_current_and_nothing_imported_is() {
    let new = crate::password::hash("x").unwrap();
    assert!(parse(new.secret.reveal()).is_current());
    for (_, stored) in WRITTEN {
        assert!(!parse(stored).is_current(), "{stored}");
    }
    let of_another_server = new.secret.reveal().replace("t=2", "t=3");
    assert!(!parse(&of_another_server).is_current());
}
