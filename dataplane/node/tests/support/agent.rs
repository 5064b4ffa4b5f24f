//! A stand-in for the agent of a managed node: it publishes generations, and says which one counts.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::{Lab, change};

/// The directory in which an agent publishes.
pub struct Agent {
    /// What the node is started with.
    pub directory: PathBuf,
}

impl Agent {
    /// One that has published nothing.
    pub fn new(lab: &Lab) -> Self {
        let directory = lab.path("managed");
        fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    /// Writes `gen-NUMBER` with the lab's bundle and public certificate, the SVID `pki/SVID.pem`, and `text`.
    pub fn publish(&self, lab: &Lab, number: u64, svid: &str, text: &str) -> PathBuf {
        let key = format!("\"{}\"", lab.path(&format!("pki/{svid}.key")).display());
        self.publish_text(lab, number, svid, &change(text, "\"SVID KEY\"", &key))
    }

    /// The same, with the configuration as it is.
    pub fn publish_text(&self, lab: &Lab, number: u64, svid: &str, text: &str) -> PathBuf {
        let generation = self.directory.join(format!("gen-{number}"));
        fs::create_dir(&generation).unwrap();
        for (name, from) in [
            ("svid.pem", format!("pki/{svid}.pem")),
            ("bundle.pem", "pki/bundle.pem".to_owned()),
            ("public.pem", "pki/public.pem".to_owned()),
        ] {
            fs::copy(lab.path(&from), generation.join(name)).unwrap();
        }
        fs::write(generation.join("node.toml"), text).unwrap();
        generation
    }

    /// What `current` leads to from now on, in one step.
    pub fn lead(&self, target: &str) {
        let next = self.directory.join("next");
        symlink(target, &next).unwrap();
        fs::rename(next, self.directory.join("current")).unwrap();
    }

    /// Both.
    pub fn publish_and_lead(&self, lab: &Lab, number: u64, svid: &str, text: &str) -> PathBuf {
        let generation = self.publish(lab, number, svid, text);
        self.lead(&format!("gen-{number}"));
        generation
    }
}

/// The configuration of the ingester `edge` for a generation: what is public lies in it, the rest stays where it is.
pub fn managed_text(lab: &Lab, text: &str) -> String {
    let absolute = |name: &str| format!("\"{}\"", lab.path(name).display());
    let text = change(text, "data_dir = \"edge\"", &format!("data_dir = {}", absolute("edge")));
    let text = change(&text, "\"pki/edge.pem\"", "\"svid.pem\"");
    let text = change(&text, "\"pki/edge.key\"", "\"SVID KEY\"");
    let text = change(&text, "\"pki/bundle.pem\"", "\"bundle.pem\"");
    let text = change(&text, "\"pki/public.pem\"", "\"public.pem\"");
    let text = change(&text, "\"pki/public.key\"", &absolute("pki/public.key"));
    let secrets = format!("\"{}/", lab.path("secrets").display());
    text.replace("\"secrets/", &secrets)
}

/// `text` with a deny list at `file`.
pub fn with_deny_list(text: &str, file: &Path) -> String {
    change(text, "[identity]\n", &format!("[identity]\ndeny_list_file = \"{}\"\n", file.display()))
}
