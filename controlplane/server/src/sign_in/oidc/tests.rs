//! The negative matrix of ID tokens, each refused for its own reason; through real HTTP it is in `tests/sign_in`.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value, json};

use super::keys::Key;
use super::token::{Expected, Identity, TOKEN_BYTES_MAX, TokenFault, check};

const NOW: u64 = 1_800_000_000;

struct Signers {
    rsa: RsaKeyPair,
    rsa_public: Vec<u8>,
    other: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Signers {
    fn new() -> Self {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa_public = rsa.public_key().as_der().unwrap().as_ref().to_vec();
        Self {
            rsa,
            rsa_public,
            other: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    fn set(&self) -> Value {
        let rsa = self.rsa.public_key();
        let point = self.p256.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256",
             "n": encoded(rsa.modulus().big_endian_without_leading_zero()),
             "e": encoded(rsa.exponent().big_endian_without_leading_zero())},
            {"kty": "EC", "kid": "e", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..])},
            {"kty": "OKP", "kid": "o", "crv": "Ed25519", "x": encoded(self.ed25519.public_key())},
            {"kty": "oct", "kid": "s", "k": encoded([7; 32])},
            {"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"},
        ]})
    }

    fn signed(&self, header: &Value, claims: &Value, signer: &str) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let random = SystemRandom::new();
        let rsa = |key: &RsaKeyPair| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
            signature
        };
        let hmac = |key: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()).as_ref().to_vec()
        };
        let signature = match signer {
            "rsa" => rsa(&self.rsa),
            "other" => rsa(&self.other),
            "p256" => self.p256.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            "ed25519" => self.ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            "hmac of the RSA key" => hmac(&self.rsa_public),
            "hmac of the set's key" => hmac(&[7; 32]),
            _ => Vec::new(),
        };
        format!("{message}.{}", encoded(signature))
    }
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "sub": "ann", "aud": "zen", "exp": NOW + 300, "iat": NOW, "nonce": "n",
        "groups": ["a", 1, "b"], "name": "Ann"})
}

/// The good claims with some others; null takes one away.
fn with(changes: &Value) -> Value {
    let mut all = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all
}

fn verdict(signers: &Signers, token: &str) -> Result<Identity, TokenFault> {
    let keys = Key::read_all(signers.set().to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 3, "keys of other kinds and uses are passed over");
    let expected = Expected {
        issuer: "https://id.example",
        client_id: "zen",
        nonce: "n",
        now: NOW,
        groups_claim: "groups",
    };
    check(token, &keys, &expected)
}

#[test]
fn a_good_token_says_who_it_is() {
    let signers = Signers::new();
    for (header, signer) in [
        (json!({"alg": "RS256", "kid": "r"}), "rsa"),
        (json!({"alg": "RS256"}), "rsa"),
        (json!({"alg": "ES256", "kid": "e", "typ": "JWT"}), "p256"),
        (json!({"alg": "EdDSA", "kid": "o"}), "ed25519"),
    ] {
        let identity = verdict(&signers, &signers.signed(&header, &claims(), signer)).unwrap();
        assert_eq!((identity.subject.as_str(), identity.display.as_str()), ("ann", "Ann"), "{header}");
        assert_eq!(identity.groups, ["a", "b"]);
    }
    for changes in [
        json!({"aud": ["zen"]}),
        json!({"aud": ["zen", "other"], "azp": "zen"}),
        json!({"exp": NOW - 59, "iat": NOW + 60, "nbf": NOW + 60}),
        json!({"groups": null, "name": 1, "email": "ann@id.example"}),
    ] {
        let token = signers.signed(&json!({"alg": "RS256", "kid": "r"}), &with(&changes), "rsa");
        assert!(verdict(&signers, &token).is_ok(), "{changes}");
    }
}

#[test]
fn each_rule_that_a_token_breaks_has_its_own_verdict() {
    use TokenFault as F;
    let signers = Signers::new();
    let rs256 = json!({"alg": "RS256", "kid": "r"});
    for (changes, fault) in [
        (json!({"iss": "https://id.example/"}), F::Issuer),
        (json!({"iss": "https://evil.example"}), F::Issuer),
        (json!({"iss": null}), F::Form),
        (json!({"sub": ""}), F::Subject),
        (json!({"sub": "a".repeat(256)}), F::Subject),
        (json!({"sub": "a\nb"}), F::Subject),
        (json!({"sub": 1}), F::Form),
        (json!({"aud": "other"}), F::Audience),
        (json!({"aud": []}), F::Audience),
        (json!({"aud": ["other", "zen2"]}), F::Audience),
        (json!({"aud": ["zen", "other"]}), F::AuthorizedParty),
        (json!({"azp": "other"}), F::AuthorizedParty),
        (json!({"exp": NOW - 60}), F::Expired),
        (json!({"exp": 0}), F::Expired),
        (json!({"exp": null}), F::Form),
        (json!({"exp": "soon"}), F::Form),
        (json!({"iat": NOW + 61}), F::Future),
        (json!({"nbf": NOW + 61}), F::Future),
        (json!({"nonce": "m"}), F::Nonce),
        (json!({"nonce": null}), F::Nonce),
        (json!({"nonce": ""}), F::Nonce),
    ] {
        let token = signers.signed(&rs256, &with(&changes), "rsa");
        assert_eq!(verdict(&signers, &token).unwrap_err(), fault, "{changes}");
    }
}

#[test]
fn neither_algorithm_nor_key_is_the_tokens_choice() {
    use TokenFault as F;
    let signers = Signers::new();
    let own_key = signers.set()["keys"][0].clone();
    for (header, signer, fault) in [
        (json!({"alg": "none"}), "nobody", F::Algorithm),
        (json!({"alg": "None", "kid": "r"}), "nobody", F::Algorithm),
        (json!({"alg": "HS256", "kid": "r"}), "hmac of the RSA key", F::Algorithm),
        (json!({"alg": "HS256", "kid": "s"}), "hmac of the set's key", F::Algorithm),
        (json!({"alg": "RS512", "kid": "r"}), "rsa", F::Algorithm),
        (json!({"alg": "RS256", "kid": "r"}), "nobody", F::Signature),
        (json!({"alg": "RS256", "kid": "r"}), "other", F::Signature),
        (json!({"alg": "RS256", "kid": "r"}), "hmac of the RSA key", F::Signature),
        (json!({"alg": "RS256", "kid": "../../../dev/null"}), "nobody", F::Key),
        (json!({"alg": "RS256", "kid": "' OR 1=1 --"}), "other", F::Key),
        (json!({"alg": "RS256", "kid": "enc"}), "rsa", F::Key),
        (json!({"alg": "RS256", "kid": "e"}), "p256", F::Key),
        (json!({"alg": "ES256", "kid": "r"}), "rsa", F::Key),
        (json!({"alg": "ES256", "kid": "s"}), "hmac of the set's key", F::Key),
        (
            json!({"alg": "RS256", "kid": "r", "jwk": own_key, "jku": "https://evil.example/"}),
            "other",
            F::Signature,
        ),
        (json!({"alg": "RS256", "kid": "r", "crit": ["b64"], "b64": false}), "rsa", F::Critical),
        (json!({"kid": "r"}), "rsa", F::Form),
    ] {
        let token = signers.signed(&header, &claims(), signer);
        assert_eq!(verdict(&signers, &token).unwrap_err(), fault, "{header}");
    }
}

#[test]
fn what_is_no_token_is_refused_at_each_cut_and_flip() {
    let signers = Signers::new();
    let token = signers.signed(&json!({"alg": "EdDSA", "kid": "o"}), &claims(), "ed25519");
    assert!(verdict(&signers, &token).is_ok());
    for at in 0..token.len() {
        assert!(verdict(&signers, &token[..at]).is_err(), "cut at {at}");
        let mut other = token.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        assert!(verdict(&signers, std::str::from_utf8(&other).unwrap()).is_err(), "another byte at {at}");
    }
    for text in ["", ".", "..", "...", "e30.e30.", &format!("{token}."), &format!("{token}=")] {
        assert_eq!(verdict(&signers, text).unwrap_err(), TokenFault::Form, "{text}");
    }
    assert_eq!(verdict(&signers, &"a".repeat(TOKEN_BYTES_MAX + 1)).unwrap_err(), TokenFault::Length);
    let doubled =
        r#"{"iss":"https://id.example","sub":"ann","sub":"bob","aud":"zen","exp":9e9,"iat":1,"nonce":"n"}"#;
    let message = format!("{}.{}", encoded(r#"{"alg":"EdDSA","kid":"o"}"#), encoded(doubled));
    let token = format!("{message}.{}", encoded(signers.ed25519.sign(message.as_bytes())));
    assert_eq!(verdict(&signers, &token).unwrap_err(), TokenFault::Form, "a subject that is there twice");
}
