//! Files: whom a path may be trusted with, keys, the directory of sealed files, and writes that happen or do not.

mod key_file;
mod tree;
mod trusted;
mod write;

pub use key_file::{Descriptor, KeyFile, KeyFileError, KeySource};
pub use tree::{SEALED_EXTENSION, SealedFiles, TreeError};
pub use trusted::{PathFault, check_path};
pub use write::{create_new, replace};
