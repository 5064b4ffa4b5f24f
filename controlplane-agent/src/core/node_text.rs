//! The one place in a node's configuration that the control plane cannot know: which key its certificate belongs to.

use super::{OWN_NAMESPACE, key_name};

/// Replaced by the private key's place in lockd, wherever it stands.
pub const PLACEHOLDER: &str = "{{private_key}}";

/// A configuration that would not use the certificate that comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its configuration has no {PLACEHOLDER} where the private key belongs")]
pub struct NoPlaceholder;

/// A member's configuration with the place of its key; all else stays as it is.
pub fn with_private_key(node: &str, member: &str, key: u64) -> Result<String, NoPlaceholder> {
    if !node.contains(PLACEHOLDER) {
        return Err(NoPlaceholder);
    }
    Ok(node.replace(PLACEHOLDER, &format!("lockd:{OWN_NAMESPACE}/{member}/{}", key_name(key))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_s_place_is_put_in_and_nothing_else_changes() {
        let node = "[identity]\nprivate_key_file = \"{{private_key}}\"\n# {{other}} {{ private_key }}\n";
        let expected =
            "[identity]\nprivate_key_file = \"lockd:zen/edge-1/key-7\"\n# {{other}} {{ private_key }}\n";
        assert_eq!(with_private_key(node, "edge-1", 7).unwrap(), expected);
        assert_eq!(
            with_private_key("a {{private_key}} {{private_key}}", "b", 1).unwrap(),
            "a lockd:zen/b/key-1 lockd:zen/b/key-1"
        );
        for node in ["", "private_key_file = \"key.pem\"", "{{private_key}", "{{PRIVATE_KEY}}"] {
            assert_eq!(with_private_key(node, "edge-1", 7), Err(NoPlaceholder), "{node}");
        }
    }
}
