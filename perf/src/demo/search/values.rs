//! What must not be found of a secret: its text, and the bytes that the text stands for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zen_search::Value;
use zeroize::Zeroizing;

use crate::error::LabError;
use crate::lab::{Kind, Secret};
use crate::signature::secret_bytes;

/// Bytes of a P-256 private key, and what comes before them in DER: version, then an OCTET STRING of 32 (RFC 5915).
const SCALAR_BYTES: usize = 32;
const BEFORE_SCALAR: [u8; 5] = [2, 1, 1, 4, SCALAR_BYTES as u8];

/// The values of a secret of the lab.
pub(super) fn of_secret(secret: &Secret) -> Vec<Value> {
    if secret.kind == Kind::PrivateKey {
        return of_private_key(&secret.name(), &secret.value);
    }
    let decoded = secret_bytes(&secret.value).or_else(|| hex_bytes(&secret.value));
    let decoded = decoded.map(|bytes| value(format!("{}, decoded,", secret.name()), bytes));
    let text = value(secret.name(), secret.value.as_bytes().to_vec());
    [Some(text), decoded].into_iter().flatten().collect()
}

/// The value of the key file of zen-lockd.
pub(super) fn of_own_key(file: &str) -> Result<Value, LabError> {
    let line = file.lines().find(|line| line.starts_with("AGE-SECRET-KEY-"));
    let line = line.ok_or_else(|| LabError::Tool {
        what: "zen-lockd keygen".to_owned(),
        reason: "wrote no age identity".to_owned(),
    })?;
    Ok(value("the key of zen-lockd".to_owned(), line.trim().as_bytes().to_vec()))
}

/// The scalar, which all of DER and of base64 in one line has in it, and the lines of PEM that have parts of it.
fn of_private_key(name: &str, pem: &str) -> Vec<Value> {
    let lines: Vec<&str> = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let der = Zeroizing::new(STANDARD.decode(lines.concat()).expect("the lab wrote this PEM"));
    let found = der.windows(BEFORE_SCALAR.len()).position(|window| window == BEFORE_SCALAR);
    let start = found.expect("the lab's keys are of P-256") + BEFORE_SCALAR.len();
    let scalar = start..start + SCALAR_BYTES;
    let mut values = vec![value(format!("{name}, the scalar,"), der[scalar.clone()].to_vec())];
    let mut at = 0;
    for line in lines {
        let covered = at..at + line.len() / 4 * 3;
        // The rest is the public key, which certificates have too.
        if covered.start < scalar.end && scalar.start < covered.end {
            values.push(value(format!("{name}, a line of PEM,"), line.as_bytes().to_vec()));
        }
        at = covered.end;
    }
    values
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    zen_core::id::decode_hex(text.as_bytes(), &mut bytes).is_ok().then_some(bytes)
}

fn value(name: String, bytes: Vec<u8>) -> Value {
    Value { name, bytes: bytes.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Lab, Shape};
    use crate::signature::hex;
    use zen_search::Needles;

    fn hits(values: &[Value], text: &[u8]) -> usize {
        Needles::new(values).scan(text).unwrap().1.len()
    }

    #[test]
    fn a_private_key_is_found_however_it_is_packed() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::make(directory.path(), Shape::DEMO, 1).unwrap();
        let pem = lab.secret(Kind::PrivateKey, "edge-1");
        let values = of_private_key("it", pem);
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(&body).unwrap();
        for packed in [
            pem.as_bytes(),
            pem.replace('\n', "\r\n").as_bytes(),
            serde_json::json!({ "key": pem }).to_string().as_bytes(),
            STANDARD.encode(pem).as_bytes(),
            body.as_bytes(),
            &der,
            &der[20..],
            hex(&der).as_bytes(),
            format!("{der:?}").as_bytes(),
        ] {
            assert!(hits(&values, packed) > 0, "{}", String::from_utf8_lossy(packed));
        }
        for name in ["edge-1", "public", "bundle"] {
            assert_eq!(hits(&values, &std::fs::read(lab.pki.certificate(name)).unwrap()), 0, "{name}");
        }
        assert_eq!(hits(&values, lab.secret(Kind::PrivateKey, "inside").as_bytes()), 0);
    }

    #[test]
    fn texts_stand_for_bytes() {
        let secret = |value: &str| Secret {
            kind: Kind::Target,
            key: "it".to_owned(),
            value: Zeroizing::new(value.to_owned()),
        };
        let bytes = |text: &str| of_secret(&secret(text)).into_iter().map(|value| value.bytes.to_vec());
        let key = *b"0123456789abcdef";
        assert!(bytes("whsec_MDEyMzQ1Njc4OWFiY2RlZg==").any(|bytes| bytes == key));
        assert!(bytes("30313233343536373839616263646566").any(|bytes| bytes == key));
        assert_eq!(bytes("a phrase of somebody").count(), 1);
    }

    #[test]
    fn the_own_key_is_the_identity_alone() {
        let file = "# created: today\n# public key: age1x\nAGE-SECRET-KEY-1QQQQ\n";
        assert_eq!(*of_own_key(file).unwrap().bytes, b"AGE-SECRET-KEY-1QQQQ");
        assert!(of_own_key("# nothing\n").is_err());
    }
}
