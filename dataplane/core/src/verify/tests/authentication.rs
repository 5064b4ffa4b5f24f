//! What the head alone proves, and how it joins a signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn bearer(tokens: &[&str]) -> Authorization {
    let tokens: Vec<Vec<u8>> = tokens.iter().map(|token| token.as_bytes().to_vec()).collect();
    Authorization::new(AuthorizationKind::Bearer, &tokens).unwrap()
}

fn basic(pairs: &[&str]) -> Authorization {
    let pairs: Vec<Vec<u8>> = pairs.iter().map(|pair| pair.as_bytes().to_vec()).collect();
    Authorization::new(AuthorizationKind::Basic, &pairs).unwrap()
}

fn showing(values: &[&str]) -> Headers {
    Headers(values.iter().map(|value| ("authorization".to_string(), value.as_bytes().to_vec())).collect())
}

#[test]
fn only_a_secret_of_the_endpoint_is_taken() {
    use Refusal::{DoubledHeader, MalformedAuthorization, MissingAuthorization, WrongAuthorization};
    let pair = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let long = format!("Bearer {}", "a".repeat(2000));
    let bearer = bearer(&["old-token==", "new.token", "new.token"]);
    let basic = basic(&["acme:secret", "acme:pass:word"]);
    for (wanted, values, expected) in [
        (&bearer, &["Bearer old-token=="][..], Ok(0)),
        (&bearer, &["bearer  new.token"], Ok(1)),
        (&bearer, &[], Err(MissingAuthorization)),
        (&bearer, &["Bearer new.token", "Bearer new.token"], Err(DoubledHeader)),
        (&bearer, &[""], Err(MalformedAuthorization)),
        (&bearer, &["Bearer"], Err(MalformedAuthorization)),
        (&bearer, &["Bearer "], Err(MalformedAuthorization)),
        (&bearer, &["Bearer new.token,new.token"], Err(MalformedAuthorization)),
        (&bearer, &[&*long], Err(MalformedAuthorization)),
        (&bearer, &["new.token"], Err(MalformedAuthorization)),
        (&bearer, &["Basic new.token"], Err(MalformedAuthorization)),
        (&bearer, &["Bearer new.toke"], Err(WrongAuthorization)),
        (&bearer, &["Bearer new.tokens"], Err(WrongAuthorization)),
        (&bearer, &["Bearer New.token"], Err(WrongAuthorization)),
        (&basic, &[&*pair("acme:secret")], Ok(0)),
        (&basic, &[&*pair("acme:pass:word")], Ok(1)),
        (&basic, &[&*pair("acme:pass")], Err(WrongAuthorization)),
        (&basic, &[&*pair(":secret")], Err(WrongAuthorization)),
        (&basic, &[&*pair("acme")], Err(MalformedAuthorization)),
        (&basic, &["Basic acme:secret"], Err(MalformedAuthorization)),
        (&basic, &["Bearer old-token=="], Err(MalformedAuthorization)),
    ] {
        assert_eq!(wanted.check(&showing(values), &TestCrypto), expected, "{values:?}");
    }
}

#[test]
fn what_a_header_cannot_show_is_no_secret() {
    use AuthorizationKind::{Basic, Bearer};
    for (kind, secret, good) in [
        (Bearer, "a", true),
        (Bearer, "a-._~+/=", true),
        (Bearer, "=", false),
        (Bearer, "a=b", false),
        (Bearer, "two words", false),
        (Bearer, "caf\u{e9}", false),
        (Basic, "acme:", true),
        (Basic, "acme:two words", true),
        (Basic, "acme", false),
    ] {
        let made = Authorization::new(kind, &text(secret));
        assert_eq!(made.is_ok(), good, "{secret}");
        assert!(good || made.err() == Some(SchemeError::Credential { index: 0 }));
    }
    assert_eq!(Authorization::new(Bearer, &[]).err(), Some(SchemeError::NoSecret));
    assert_eq!(Authorization::new(Bearer, &text("")).err(), Some(SchemeError::EmptySecret { index: 0 }));
}

/// Brings the whole body at once.
fn finish<'h>(
    wanted: &Authentication,
    started: Started<TestCrypto>,
    headers: &'h Headers,
    body: &[u8],
) -> Result<Verified<'h>, Refusal> {
    match started {
        Started::Held(held) => {
            let expected = fuzz::expected(wanted.held_secrets(), &held, body, &TestCrypto);
            wanted.finish_held(&held, &expected, headers)
        }
        Started::Running(mut check) => {
            check.update(body);
            wanted.finish(check, headers, body, &TestCrypto)
        }
    }
}

#[test]
fn every_proof_that_is_wanted_must_hold() {
    use CertificateRule::{NotAsked, Required};
    use ShownCertificate::{Allowed, Expired, None as Nothing, Other};
    let signed = vectors().into_iter().find(|vector| vector.scheme == "github" && vector.expect == "accept");
    let signed = signed.unwrap();
    let body = signed.body();
    let mut both = signed.headers();
    both.0.push(("authorization".to_string(), b"Bearer token".to_vec()));
    let (unsigned, nothing) = (showing(&["Bearer token"]), showing(&[]));
    let token = || Some(bearer(&["token"]));
    let scheme = || Some(signed.scheme().unwrap());
    for (rule, authorization, signature, headers, shown, expected) in [
        (NotAsked, token(), None, &unsigned, Nothing, None),
        (NotAsked, token(), None, &nothing, Allowed, Some(Refusal::MissingAuthorization)),
        (NotAsked, None, scheme(), &both, Nothing, None),
        (NotAsked, token(), scheme(), &both, Nothing, None),
        (NotAsked, token(), scheme(), &unsigned, Nothing, Some(Refusal::MissingSignature)),
        (NotAsked, token(), scheme(), &signed.headers(), Nothing, Some(Refusal::MissingAuthorization)),
        (Required, None, None, &nothing, Allowed, None),
        (Required, None, None, &nothing, Nothing, Some(Refusal::MissingCertificate)),
        (Required, None, None, &both, Other, Some(Refusal::WrongCertificate)),
        (Required, None, None, &both, Expired, Some(Refusal::ExpiredCertificate)),
        (Required, token(), scheme(), &both, Allowed, None),
        (Required, token(), scheme(), &both, Nothing, Some(Refusal::MissingCertificate)),
    ] {
        let wanted = Authentication::new(rule, authorization, signature).unwrap();
        let started = wanted.start(headers, shown, signed.now_ms, &TestCrypto);
        let outcome = started.and_then(|started| finish(&wanted, started, headers, &body));
        assert_eq!(outcome.err(), expected, "{wanted:?} {shown:?}");
    }
    assert_eq!(Authentication::new(NotAsked, None, None).err(), Some(NoProof));
}

#[test]
fn a_changed_body_is_refused_beside_a_good_token() {
    let scheme = Scheme::github(&text("It's a Secret to Everybody")).unwrap();
    let wanted =
        Authentication::new(CertificateRule::NotAsked, Some(bearer(&["token"])), Some(scheme)).unwrap();
    let signed = vectors().into_iter().find(|vector| vector.scheme == "github" && vector.expect == "accept");
    let mut headers = signed.unwrap().headers();
    headers.0.push(("authorization".to_string(), b"Bearer token".to_vec()));
    let started = wanted.start(&headers, ShownCertificate::None, 0, &TestCrypto).unwrap();
    assert_eq!(finish(&wanted, started, &headers, b"another body"), Err(Refusal::Mismatch));
    let started = wanted.start(&headers, ShownCertificate::None, 0, &TestCrypto).unwrap();
    let Started::Held(held) = started else { panic!("an HMAC-SHA256 is held") };
    let mut check = wanted.release(&held, b"another", &TestCrypto);
    check.update(b" body");
    assert_eq!(wanted.finish(check, &headers, b"", &TestCrypto), Err(Refusal::Mismatch));
}

#[test]
fn debug_shows_no_credential() {
    let shown = format!("{:?} {:?}", bearer(&["hidden-token"]), basic(&["acme:hidden-password"]));
    assert!(!shown.contains("hidden"), "{shown}");
}
