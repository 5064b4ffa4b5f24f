//! Devices without a browser that ask for a token (RFC 8628): a long code that the device keeps, and a short one that a person
//! who is signed in confirms. Without clock and network.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::secret;

/// How long somebody may take to confirm, ms.
pub(crate) const DEVICE_LIFE_MS: u64 = 10 * 60 * 1000;
/// How often a device may ask, ms.
pub(crate) const DEVICE_INTERVAL_MS: u64 = 5_000;
/// Most devices that wait; then nobody else may begin.
pub(crate) const DEVICES_MAX: usize = 1024;
/// No vowels, so no words; nothing that looks like something else.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// What a device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nobody has said anything yet.
    Pending,
    /// It asks too often.
    SlowDown,
    /// Somebody said no.
    Denied,
    /// There is no such code, or no more.
    Expired,
}

/// Who said yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    pub(super) person: String,
    pub(super) actor: String,
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Open,
    Yes(Confirmed),
    No,
}

struct Device {
    user_code: String,
    begun_ms: u64,
    next_ms: u64,
    verdict: Verdict,
}

/// All that wait, by the hash of their long code.
#[derive(Default)]
pub(super) struct Devices(HashMap<[u8; 32], Device>);

impl Devices {
    /// A long code and a short one; none if too many wait.
    pub(super) fn begin(&mut self, now_ms: u64) -> Option<(Zeroizing<String>, String)> {
        self.0.retain(|_, device| device.begun_ms + DEVICE_LIFE_MS > now_ms);
        if self.0.len() >= DEVICES_MAX {
            return None;
        }
        let user_code = loop {
            let code = user_code();
            if self.0.values().all(|device| device.user_code != code) {
                break code;
            }
        };
        let (text, hash) = secret::new();
        let device = Device {
            user_code: user_code.clone(),
            begun_ms: now_ms,
            next_ms: now_ms,
            verdict: Verdict::Open,
        };
        self.0.insert(hash, device);
        Some((text, user_code))
    }

    /// Says yes, or no, to a short code; false if nobody waits with it.
    pub(super) fn decide(&mut self, typed: &str, verdict: Option<Confirmed>, now_ms: u64) -> bool {
        let typed: String =
            typed.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
        let is_it = |device: &&mut Device| {
            device.user_code.replace('-', "") == typed
                && device.verdict == Verdict::Open
                && device.begun_ms + DEVICE_LIFE_MS > now_ms
        };
        let Some(device) = self.0.values_mut().find(is_it) else { return false };
        device.verdict = verdict.map_or(Verdict::No, Verdict::Yes);
        true
    }

    /// Who said yes to a long code; that is told once.
    pub(super) fn ask(&mut self, code: &str, now_ms: u64) -> Result<Confirmed, Asked> {
        let hash = secret::hash(code).ok_or(Asked::Expired)?;
        let device = self.0.get_mut(&hash).filter(|device| device.begun_ms + DEVICE_LIFE_MS > now_ms);
        let device = device.ok_or(Asked::Expired)?;
        if device.verdict == Verdict::Open {
            let is_early = now_ms < device.next_ms;
            device.next_ms = now_ms + DEVICE_INTERVAL_MS;
            return Err(if is_early { Asked::SlowDown } else { Asked::Pending });
        }
        match self.0.remove(&hash).map(|device| device.verdict) {
            Some(Verdict::Yes(confirmed)) => Ok(confirmed),
            _ => Err(Asked::Denied),
        }
    }
}

fn user_code() -> String {
    let mut letters = String::with_capacity(9);
    while letters.len() < 9 {
        // 240 is a multiple of 20: each letter is as likely as another.
        let [byte] = secret::random::<1>();
        if letters.len() == 4 {
            letters.push('-');
        } else if byte < 240 {
            letters.push(char::from(LETTERS[usize::from(byte % 20)]));
        }
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Confirmed {
        Confirmed { person: "ann".to_owned(), actor: "person:ann".to_owned() }
    }

    #[test]
    fn a_token_is_given_once_to_whom_somebody_said_yes() {
        let mut devices = Devices::default();
        let (code, user_code) = devices.begin(0).unwrap();
        assert_eq!(devices.ask(&code, 0), Err(Asked::Pending));
        assert_eq!(devices.ask(&code, 1), Err(Asked::SlowDown));
        assert!(!devices.decide("BBBB-BBBB", Some(ann()), 1) || user_code == "BBBB-BBBB");
        let typed = user_code.to_lowercase().replace('-', " ");
        assert!(devices.decide(&typed, Some(ann()), 1));
        assert!(!devices.decide(&typed, None, 1), "it is decided");
        assert_eq!(devices.ask(&code, 2), Ok(ann()));
        assert_eq!(devices.ask(&code, 2), Err(Asked::Expired), "once");

        let (code, user_code) = devices.begin(0).unwrap();
        assert!(devices.decide(&user_code, None, 0));
        assert_eq!(devices.ask(&code, 0), Err(Asked::Denied));
        let (code, user_code) = devices.begin(0).unwrap();
        assert!(!devices.decide(&user_code, Some(ann()), DEVICE_LIFE_MS));
        assert_eq!(devices.ask(&code, DEVICE_LIFE_MS), Err(Asked::Expired));
        for bad in ["", "x", &user_code] {
            assert_eq!(devices.ask(bad, 0), Err(Asked::Expired), "{bad}");
        }
        while devices.0.len() < DEVICES_MAX {
            devices.begin(5).unwrap();
        }
        assert!(devices.begin(5).is_none());
        assert!(devices.begin(DEVICE_LIFE_MS + 5).is_some(), "those before are over");
    }
}
