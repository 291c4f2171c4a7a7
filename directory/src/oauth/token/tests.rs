#![allow(clippy::unwrap_used)]

use aws_lc_rs::hmac;
use testkit::issuer::Issuer;

use super::super::keys::KeySetError;
use super::*;

const NOW_S: i64 = 1_700_000_000;

fn settings() -> OauthSettings {
    OauthSettings {
        issuer: "https://id.x.test".to_owned(),
        audience: "mail".to_owned(),
        ..OauthSettings::default()
    }
}

/// Claims that are good for a minute, some of them replaced; `null` takes one away.
fn claims(changes: &Value) -> String {
    let mut claims = serde_json::json!({
        "iss": "https://id.x.test", "aud": "mail", "email": "ann@x.test", "email_verified": true,
        "iat": NOW_S, "exp": NOW_S + 60,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    claims.to_string()
}

fn good() -> String {
    claims(&serde_json::json!({}))
}

struct Site {
    issuer: Issuer,
    keys: KeySet,
}

impl Site {
    fn new() -> Self {
        let issuer = Issuer::new();
        let keys = KeySet::parse(issuer.key_set().as_bytes()).unwrap();
        Self { issuer, keys }
    }

    fn check(&self, token: &str) -> Result<String, TokenError> {
        user_of(token, &self.keys, &settings(), NOW_S)
    }

    fn claimed(&self, changes: &Value) -> Result<String, TokenError> {
        self.check(&self.issuer.token("EdDSA", &claims(changes)))
    }
}

#[test]
fn a_good_token_says_who_the_user_is_by_each_algorithm() {
    let site = Site::new();
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        let token = site.issuer.token(algorithm, &good());
        assert_eq!(
            site.check(&token),
            Ok("ann@x.test".to_owned()),
            "{algorithm}"
        );
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(site.check(&format!("{signed}.")), Err(TokenError::Forged));
        let other = Issuer::new().token(algorithm, &good());
        assert_eq!(
            site.check(&other),
            Err(TokenError::Forged),
            "{algorithm} of another issuer"
        );
        // Other claims under the same signature.
        let (header, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let eve = claims(&serde_json::json!({"email": "eve@x.test"}));
        let bent = format!(
            "{header}.{}.{signature}",
            BASE64URL_NOPAD.encode(eve.as_bytes())
        );
        assert_eq!(site.check(&bent), Err(TokenError::Forged));
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let site = Site::new();
    let of = |signer: &str, header: &str| site.check(&site.issuer.signed(signer, header, &good()));
    assert!(of("EdDSA", r#"{"alg":"EdDSA","kid":"EdDSA"}"#).is_ok());
    assert!(of("EdDSA", r#"{"typ":"at+JWT","alg":"EdDSA","kid":"EdDSA"}"#).is_ok());
    for (header, why) in [
        (r#"{"alg":"none","kid":"EdDSA"}"#, TokenError::UnknownKey),
        (r#"{"alg":"none"}"#, TokenError::UnknownKey),
        (r#"{"alg":"HS256","kid":"EdDSA"}"#, TokenError::UnknownKey),
        (r#"{"alg":"eddsa","kid":"EdDSA"}"#, TokenError::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"ES256"}"#, TokenError::UnknownKey),
        (r#"{"alg":"ES256","kid":"ES256"}"#, TokenError::Forged),
        (
            r#"{"alg":"EdDSA","kid":"yesterday"}"#,
            TokenError::UnknownKey,
        ),
        (r#"{"alg":"EdDSA"}"#, TokenError::UnknownKey),
        (r#"{"kid":"EdDSA"}"#, TokenError::UnknownKey),
        (r#"{"alg":"EdDSA","kid":7}"#, TokenError::Malformed),
        (
            r#"{"alg":"EdDSA","kid":"EdDSA","crit":["b64"],"b64":false}"#,
            TokenError::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"EdDSA","typ":"dpop+jwt"}"#,
            TokenError::Malformed,
        ),
        (
            r#"{"alg":"none","kid":"EdDSA","alg":"EdDSA"}"#,
            TokenError::Malformed,
        ),
        ("[]", TokenError::Malformed),
    ] {
        assert_eq!(of("EdDSA", header), Err(why), "{header}");
    }
    // A public key taken for a secret.
    for key in site.issuer.keys() {
        let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","kid":"RS256"}"#);
        let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(good().as_bytes()));
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let tag = hmac::sign(&secret, signed.as_bytes());
        let token = format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()));
        assert_eq!(site.check(&token), Err(TokenError::UnknownKey));
    }
}

#[test]
fn what_is_cut_or_too_long_is_no_token() {
    let site = Site::new();
    let token = site.issuer.token("EdDSA", &good());
    for cut in 0..token.len() {
        assert!(site.check(&token[..cut]).is_err(), "{cut}");
    }
    for bent in [
        format!("{token}="),
        format!("{token}.x"),
        format!(" {token}"),
        token.replace('.', ".."),
    ] {
        assert!(site.check(&bent).is_err(), "{bent}");
    }
    let padded = |count: usize| claims(&serde_json::json!({"x": "x".repeat(count)}));
    let most = (0..).map(|more| site.issuer.token("EdDSA", &padded(11_000 + more)));
    let (mut below, mut above) = (String::new(), String::new());
    for token in most {
        if token.len() > TOKEN_MAX_OCTETS {
            above = token;
            break;
        }
        below = token;
    }
    assert!(site.check(&below).is_ok(), "{}", below.len());
    assert_eq!(site.check(&above), Err(TokenError::Malformed));
}

#[test]
fn a_token_is_of_this_issuer_for_this_audience_and_now() {
    use serde_json::json;
    let site = Site::new();
    for (changes, why) in [
        (json!({"iss": "https://id.y.test"}), TokenError::Foreign),
        (json!({"iss": null}), TokenError::Foreign),
        (json!({"iss": ["https://id.x.test"]}), TokenError::Foreign),
        (json!({"aud": "calendar"}), TokenError::Foreign),
        (json!({"aud": ["calendar", 7]}), TokenError::Foreign),
        (json!({"aud": null}), TokenError::Foreign),
        (json!({"exp": null}), TokenError::Expired),
        (json!({"exp": NOW_S - LEEWAY_S}), TokenError::Expired),
        (json!({"exp": "soon"}), TokenError::Malformed),
        (
            json!({"nbf": NOW_S + LEEWAY_S + 1}),
            TokenError::NotYetValid,
        ),
        (
            json!({"iat": NOW_S + LEEWAY_S + 1}),
            TokenError::NotYetValid,
        ),
        (json!({"nbf": "now"}), TokenError::Malformed),
        (json!({"email": null}), TokenError::NoUser),
        (json!({"email": ""}), TokenError::NoUser),
        (json!({"email": ["ann@x.test"]}), TokenError::NoUser),
        (json!({"email_verified": false}), TokenError::Unverified),
        (json!({"email_verified": "false"}), TokenError::Unverified),
        (json!({"email_verified": null}), TokenError::Unverified),
    ] {
        assert_eq!(site.claimed(&changes), Err(why), "{changes}");
    }
    for changes in [
        json!({"aud": ["calendar", "mail"]}),
        json!({"exp": NOW_S - LEEWAY_S + 1}),
        json!({"exp": 1.9e9}),
        json!({"exp": i64::MAX}),
        json!({"nbf": NOW_S + LEEWAY_S, "iat": NOW_S + LEEWAY_S}),
        json!({"nbf": i64::MIN}),
        json!({"email_verified": "true"}),
    ] {
        assert!(site.claimed(&changes).is_ok(), "{changes}");
    }
    let twice = good().replacen('{', r#"{"email":"eve@x.test","#, 1);
    let token = site.issuer.token("EdDSA", &twice);
    assert_eq!(site.check(&token), Err(TokenError::Malformed), "{twice}");
    let trusting = OauthSettings {
        trust_unsaid_email: true,
        ..settings()
    };
    for (said, is_taken) in [(json!(null), true), (json!(false), false)] {
        let claims = claims(&json!({"email_verified": said}));
        let token = site.issuer.token("EdDSA", &claims);
        let taken = user_of(&token, &site.keys, &trusting, NOW_S).is_ok();
        assert_eq!(taken, is_taken, "{claims}");
    }
    let by_name = OauthSettings {
        user_claim: "preferred_username".to_owned(),
        ..settings()
    };
    let changes = json!({"preferred_username": "ann", "email_verified": false});
    let token = site.issuer.token("EdDSA", &claims(&changes));
    assert_eq!(
        user_of(&token, &site.keys, &by_name, NOW_S),
        Ok("ann".to_owned())
    );
}

#[test]
fn a_key_set_has_keys_that_can_be_told_apart_and_no_secrets() {
    let issuer = Issuer::new();
    let [ed25519, p256, rsa] = issuer.keys().try_into().unwrap();
    let parse =
        |keys: &[&str]| KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes());
    let secret = r#"{"kty":"oct","kid":"RS256","k":"AAAA"}"#;
    let encrypting = rsa.replace(r#""use":"sig""#, r#""use":"enc""#);
    let other_algorithm = rsa.replace(r#""alg":"RS256""#, r#""alg":"PS256""#);
    let short = rsa.replace(r#""n":""#, r#""m":"","n":"AQ","o":""#);
    for lone in [
        secret,
        &encrypting,
        &other_algorithm,
        &short,
        r#"{"kty":"EC"}"#,
        "7",
    ] {
        assert_eq!(parse(&[lone]).err(), Some(KeySetError::Empty), "{lone}");
        assert!(parse(&[lone, &p256]).is_ok(), "{lone}");
    }
    assert_eq!(
        parse(&[&rsa, &ed25519, &rsa]).err(),
        Some(KeySetError::Ambiguous)
    );
    let nameless = ed25519.replace(r#""kid":"EdDSA","#, "");
    assert_eq!(
        parse(&[&nameless, &rsa]).err(),
        Some(KeySetError::Ambiguous)
    );
    assert!(parse(&[&nameless]).unwrap().find(None).is_some());
    assert!(parse(&[&nameless]).unwrap().find(Some("x")).is_none());
    assert_eq!(KeySet::parse(b"{}").err(), Some(KeySetError::Malformed));
    let many = vec![&*rsa; 101];
    assert_eq!(parse(&many).err(), Some(KeySetError::TooMany));
}
