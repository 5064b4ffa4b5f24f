//! The objects, and their programs and maps by name.

use aya::maps::{Map, MapData, MapError};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use zen_ebpf_abi::VERSION;

use crate::error::{EbpfError, chain, reason};

/// In front of the version, in each object.
const MARK: &[u8] = b"zen-ebpf-abi=";

/// A file with programs and maps.
pub(crate) struct Object {
    pub(crate) name: &'static str,
    bytes: &'static [u8],
}

macro_rules! object {
    ($name:literal) => {
        Object { name: $name, bytes: include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $name)) }
    };
}

pub(crate) const GUARD: Object = object!("guard.o");
pub(crate) const FENCE: Object = object!("fence.o");
pub(crate) const STEER: Object = object!("steer.o");
pub(crate) const OBSERVE: Object = object!("observe.o");

/// An object in the kernel: its maps are made, its programs are not loaded yet.
pub(crate) struct Loaded {
    object: &'static str,
    ebpf: Ebpf,
}

impl Object {
    /// Makes its maps; `sizes` are those that differ from what it says.
    pub(crate) fn load(&self, sizes: &[(&str, u32)]) -> Result<Loaded, EbpfError> {
        let object = self.name;
        let found = version(self.bytes).unwrap_or(0);
        if found != VERSION {
            return Err(EbpfError::Version { object, found, wanted: VERSION });
        }
        let mut loader = EbpfLoader::new();
        for (map, size) in sizes {
            loader.map_max_entries(map, *size);
        }
        match loader.load(self.bytes) {
            Ok(ebpf) => Ok(Loaded { object, ebpf }),
            Err(aya::EbpfError::MapError(error)) => Err(EbpfError::Maps { object, reason: chain(&error) }),
            Err(error) => Err(EbpfError::Object { object, what: chain(&error) }),
        }
    }
}

impl Loaded {
    /// A map that is written once; programs that are loaded later find it by its descriptor, so it stays here.
    pub(crate) fn map_mut<'a, T>(&'a mut self, name: &'static str) -> Result<T, EbpfError>
    where
        T: TryFrom<&'a mut Map, Error = MapError>,
    {
        let lacks = self.lacks(name);
        let map = self.ebpf.map_mut(name).ok_or(lacks)?;
        T::try_from(map).map_err(|source| EbpfError::Table { table: name, source })
    }

    /// A map that is used while the programs run.
    pub(crate) fn map<T>(&mut self, name: &'static str) -> Result<T, EbpfError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let Some(map) = self.ebpf.take_map(name) else { return Err(self.lacks(name)) };
        T::try_from(map).map_err(|source| EbpfError::Table { table: name, source })
    }

    /// Loads a program.
    pub(crate) fn program<'a, P>(
        &'a mut self,
        name: &'static str,
        kernel: &'static str,
        load: impl FnOnce(&mut P) -> Result<(), ProgramError>,
    ) -> Result<&'a mut P, EbpfError>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let object = self.object;
        let lacks = || EbpfError::Object { object, what: format!("it has no {name}") };
        let program = self.ebpf.program_mut(name).ok_or_else(lacks)?;
        let program: &mut P = program.try_into().map_err(|_| lacks())?;
        load(program).map_err(|error| EbpfError::Load { program: name, kernel, reason: reason(&error) })?;
        Ok(program)
    }

    fn lacks(&self, name: &str) -> EbpfError {
        EbpfError::Object { object: self.object, what: format!("it has no {name}") }
    }
}

/// Maps with a name take errors with it.
pub(crate) fn table<T>(name: &'static str, result: Result<T, MapError>) -> Result<T, EbpfError> {
    result.map_err(|source| EbpfError::Table { table: name, source })
}

/// Shorthand for maps that own their descriptor.
pub(crate) type Owned = MapData;

fn version(bytes: &[u8]) -> Option<u32> {
    let at = bytes.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = bytes.get(at..at + 3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_says_its_version() {
        for object in [GUARD, FENCE, STEER, OBSERVE] {
            assert_eq!(version(object.bytes), Some(VERSION), "{}", object.name);
        }
    }

    #[test]
    fn an_object_of_another_version_is_refused_before_anything_is_made() {
        for (bytes, expected) in [
            (&b"\x7fELF zen-ebpf-abi=002"[..], 2),
            (b"\x7fELF", 0),
            (b"zen-ebpf-abi=0", 0),
            (b"zen-ebpf-abi=x01", 0),
        ] {
            let object = Object { name: "other.o", bytes };
            let Err(EbpfError::Version { found, wanted, .. }) = object.load(&[]) else {
                panic!("{} was taken", String::from_utf8_lossy(bytes))
            };
            assert_eq!((found, wanted), (expected, VERSION));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let object = Object { name: "none.o", bytes: b"zen-ebpf-abi=001 and nothing else" };
        let Err(error) = object.load(&[]) else { panic!("it was taken") };
        assert!(error.to_string().contains("scripts/build-ebpf"), "{error}");
    }
}
