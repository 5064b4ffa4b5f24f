//! Which process may have which secret: default deny, and all conditions of a grant must hold.

use std::path::PathBuf;

use zen_lock::SecretName;

use crate::vault::Author;

/// Who a caller is, as the kernel says; never as the caller says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// What it runs, if lockd may know (it needs `CAP_SYS_PTRACE` for processes of other users).
    pub executable: Option<Executable>,
    /// The systemd service or scope it belongs to.
    pub unit: Option<String>,
}

/// A running program: its path, and whether that path still leads to the file that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// As the kernel names it.
    pub path: PathBuf,
    /// Device and inode of what runs.
    pub file: (u64, u64),
    /// Whether the file at the path, in lockd's mounts, is the one that runs.
    pub is_in_place: bool,
}

/// Names of secrets: one, or all below a namespace or an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `NAMESPACE/NAME/KEY`.
    Exact(SecretName),
    /// `NAMESPACE/NAME/*`.
    Object(String, String),
    /// `NAMESPACE/*`.
    Namespace(String),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Runs as this user.
    pub uid: Option<u32>,
    /// Runs in this group.
    pub gid: Option<u32>,
    /// Runs this file.
    pub executable: Option<PathBuf>,
    /// Belongs to this systemd unit.
    pub unit: Option<String>,
    /// What it may have.
    pub secrets: Vec<Pattern>,
}

/// Whose signature secrets must bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Which secrets.
    pub secrets: Vec<Pattern>,
    /// One of these signed.
    pub authors: Vec<Author>,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Who may have what.
    pub grants: Vec<Grant>,
    /// What must be signed.
    pub signed: Vec<Signed>,
}

/// Why nothing is granted: the condition that failed in the grant which came closest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// No grant has the secret.
    Secret,
    /// Another user.
    User,
    /// Another group.
    Group,
    /// Another unit, or none.
    Unit,
    /// Another program, or one that lockd may not know.
    Executable,
    /// The right path, and another file is there now.
    Replaced,
}

impl Denial {
    /// For receipts and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Secret => "no grant has this secret",
            Self::User => "another user",
            Self::Group => "another group",
            Self::Unit => "another systemd unit",
            Self::Executable => "another executable",
            Self::Replaced => "the executable was replaced",
        }
    }
}

impl Pattern {
    /// Reads a name, or one that ends in `/*`.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(prefix) = text.strip_suffix("/*") else {
            return SecretName::parse(text).ok().map(Self::Exact);
        };
        let parts: Vec<&str> = prefix.split('/').collect();
        match parts[..] {
            [namespace] if SecretName::is_segment(namespace) => Some(Self::Namespace(namespace.to_owned())),
            [namespace, name] if SecretName::is_segment(namespace) && SecretName::is_segment(name) => {
                Some(Self::Object(namespace.to_owned(), name.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether it names this secret.
    pub fn matches(&self, secret: &SecretName) -> bool {
        match self {
            Self::Exact(name) => name == secret,
            Self::Object(namespace, name) => secret.namespace() == namespace && secret.name() == name,
            Self::Namespace(namespace) => secret.namespace() == namespace,
        }
    }
}

impl Policy {
    /// Whether the caller may have the secret.
    pub fn judge(&self, caller: &Identity, secret: &SecretName) -> Result<(), Denial> {
        let grants = self.grants.iter().filter(|grant| names(&grant.secrets, secret));
        let mut closest = Denial::Secret;
        for grant in grants {
            match grant.fails_for(caller) {
                None => return Ok(()),
                Some(denial) => closest = closest.max(denial),
            }
        }
        Err(closest)
    }

    /// Whether the caller's user and group have any grant: nobody else needs a place.
    pub fn knows(&self, uid: u32, gid: u32) -> bool {
        let is = |wanted: Option<u32>, has| wanted.is_none_or(|wanted| wanted == has);
        self.grants.iter().any(|grant| is(grant.uid, uid) && is(grant.gid, gid))
    }

    /// Whose signature the secret needs: one out of each list.
    pub fn authors(&self, secret: &SecretName) -> Vec<&[Author]> {
        let signed = self.signed.iter().filter(|signed| names(&signed.secrets, secret));
        signed.map(|signed| signed.authors.as_slice()).collect()
    }
}

impl Grant {
    /// The first condition that does not hold.
    fn fails_for(&self, caller: &Identity) -> Option<Denial> {
        if self.uid.is_some_and(|uid| uid != caller.uid) {
            return Some(Denial::User);
        }
        if self.gid.is_some_and(|gid| gid != caller.gid) {
            return Some(Denial::Group);
        }
        if self.unit.is_some() && self.unit != caller.unit {
            return Some(Denial::Unit);
        }
        let wanted = self.executable.as_ref()?;
        match &caller.executable {
            // A file that was removed or renamed over is named with this at its end.
            Some(runs)
                if runs.path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) == wanted.to_str() =>
            {
                Some(Denial::Replaced)
            }
            Some(runs) if runs.path != *wanted => Some(Denial::Executable),
            Some(runs) if !runs.is_in_place => Some(Denial::Replaced),
            Some(_) => None,
            None => Some(Denial::Executable),
        }
    }
}

fn names(patterns: &[Pattern], secret: &SecretName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a caller somebody else.
    type Change = fn(&mut Identity);

    fn secret(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    fn grant() -> Grant {
        Grant {
            uid: Some(7),
            gid: Some(8),
            executable: Some("/usr/bin/zen-dataplane".into()),
            unit: Some("zen-dataplane.service".to_owned()),
            secrets: vec![Pattern::parse("edge/*").unwrap()],
        }
    }

    fn caller() -> Identity {
        let executable =
            Executable { path: "/usr/bin/zen-dataplane".into(), file: (1, 2), is_in_place: true };
        let unit = Some("zen-dataplane.service".to_owned());
        Identity { uid: 7, gid: 8, executable: Some(executable), unit }
    }

    #[test]
    fn patterns_match_whole_parts() {
        for (pattern, name, matches) in [
            ("a/b/c", "a/b/c", true),
            ("a/b/c", "a/b/cd", false),
            ("a/b/*", "a/b/c", true),
            ("a/b/*", "a/bc/d", false),
            ("a/*", "a/b/c", true),
            ("a/*", "ab/b/c", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&secret(name)), matches, "{pattern} {name}");
        }
        for pattern in ["", "*", "/*", "a", "a/b", "a/b/c/*", "a*", "a/*/c", "a/b*", "../*", "a/b/c*"] {
            assert_eq!(Pattern::parse(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn each_condition_counts() {
        let policy = Policy { grants: vec![grant()], signed: Vec::new() };
        let wanted = secret("edge/webhooks/github");
        assert_eq!(policy.judge(&caller(), &wanted), Ok(()));
        assert_eq!(policy.judge(&caller(), &secret("core/webhooks/github")), Err(Denial::Secret));
        let changes: [(Change, Denial); 9] = [
            (|caller| caller.uid = 0, Denial::User),
            (|caller| caller.gid = 0, Denial::Group),
            (|caller| caller.unit = None, Denial::Unit),
            (|caller| caller.unit = Some("zen-dataplane".to_owned()), Denial::Unit),
            (|caller| caller.executable = None, Denial::Executable),
            (|caller| of(caller).path = "/usr/bin/zen-dataplanes".into(), Denial::Executable),
            (|caller| of(caller).path = "/tmp/usr/bin/zen-dataplane".into(), Denial::Executable),
            (|caller| of(caller).path = "/usr/bin/zen-dataplane (deleted)".into(), Denial::Replaced),
            (|caller| of(caller).is_in_place = false, Denial::Replaced),
        ];
        for (change, denial) in changes {
            let mut other = caller();
            change(&mut other);
            assert_eq!(policy.judge(&other, &wanted), Err(denial), "{other:?}");
        }
    }

    fn of(caller: &mut Identity) -> &mut Executable {
        caller.executable.as_mut().unwrap()
    }

    #[test]
    fn one_grant_suffices_and_none_is_nothing() {
        let wanted = secret("edge/webhooks/github");
        assert_eq!(Policy::default().judge(&caller(), &wanted), Err(Denial::Secret));
        let other = Grant { uid: Some(9), ..grant() };
        let both = Policy { grants: vec![other, grant()], signed: Vec::new() };
        assert_eq!(both.judge(&caller(), &wanted), Ok(()));
        assert!(both.knows(9, 8) && both.knows(7, 8) && !both.knows(7, 9) && !both.knows(10, 8));
    }
}
