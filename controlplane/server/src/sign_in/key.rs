//! The key of this control plane for sign-in, in a file of its own: without it, a copy of the database lets nobody guess
//! passwords, and has no key of anybody's one-time codes.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use zeroize::Zeroizing;

use super::secret::random;
use crate::ControlError;
use crate::directory::{Directory, KEY_MODE, SIGN_IN_KEY};

/// 32 bytes.
pub(crate) struct SignInKey(pub(super) Zeroizing<[u8; 32]>);

impl SignInKey {
    /// The one in the directory; made if there is none yet.
    pub(crate) fn load(directory: &Directory) -> Result<Self, ControlError> {
        let path = directory.path(SIGN_IN_KEY);
        if !path.exists() {
            let text = Zeroizing::new(BASE64_STANDARD.encode(*Zeroizing::new(random::<32>())));
            match directory.create(SIGN_IN_KEY, &text, KEY_MODE) {
                // Another process was faster.
                Err(_) if path.exists() => {}
                made => made?,
            }
        }
        let text = directory.read(SIGN_IN_KEY)?;
        let bytes = BASE64_STANDARD.decode(text.trim()).map(Zeroizing::new).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        let bytes = bytes.ok_or(ControlError::Content { path, what: "32 bytes in base64" })?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}
