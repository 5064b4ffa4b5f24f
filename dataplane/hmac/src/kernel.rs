//! The kernels by name, and which of them this processor has.

use std::fmt;
use std::str::FromStr;

use crate::kernels::one::One;
#[cfg(target_arch = "aarch64")]
use crate::kernels::{arm_sha::ArmSha, neon::Neon};
#[cfg(target_arch = "x86_64")]
use crate::kernels::{avx2::Avx2, avx512::Avx512, sha_ni::ShaNi};

/// A way to hash, with a fixed number of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// The `hmac` and `sha2` crates, a message at a time.
    Portable,
    /// aws-lc-rs, a message at a time: never beside others.
    OneAwsLc,
    /// The lanes' own way with one lane, by the compression of the `sha2` crate.
    One,
    /// `x86_64` SHA extensions, one lane.
    ShaNi1,
    /// `x86_64` SHA extensions, two lanes.
    ShaNi2,
    /// `x86_64` SHA extensions, four lanes.
    ShaNi4,
    /// AVX2, eight lanes.
    Avx2,
    /// AVX-512 F and BW, sixteen lanes.
    Avx512,
    /// `ARMv8` SHA2 instructions, one lane.
    ArmSha1,
    /// `ARMv8` SHA2 instructions, two lanes.
    ArmSha2,
    /// `ARMv8` SHA2 instructions, four lanes.
    ArmSha4,
    /// NEON, four lanes.
    Neon,
}

/// No kernel has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no HMAC kernel is named `{name}`; there are {}", names())]
pub struct UnknownKernel {
    name: String,
}

/// A kernel whose instructions were found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    One(One),
    #[cfg(test)]
    Wrong(crate::kernels::wrong::Wrong),
    #[cfg(target_arch = "x86_64")]
    ShaNi1(ShaNi),
    #[cfg(target_arch = "x86_64")]
    ShaNi2(ShaNi),
    #[cfg(target_arch = "x86_64")]
    ShaNi4(ShaNi),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    ArmSha1(ArmSha),
    #[cfg(target_arch = "aarch64")]
    ArmSha2(ArmSha),
    #[cfg(target_arch = "aarch64")]
    ArmSha4(ArmSha),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Kernel {
    /// Every kernel of every architecture, the narrow before the wide.
    pub const ALL: [Self; 12] = [
        Self::Portable,
        Self::OneAwsLc,
        Self::One,
        Self::ShaNi1,
        Self::ArmSha1,
        Self::ShaNi2,
        Self::ArmSha2,
        Self::ShaNi4,
        Self::ArmSha4,
        Self::Neon,
        Self::Avx2,
        Self::Avx512,
    ];

    /// Its name in configuration and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::OneAwsLc => "one-aws-lc",
            Self::One => "one",
            Self::ShaNi1 => "sha-ni-x1",
            Self::ShaNi2 => "sha-ni-x2",
            Self::ShaNi4 => "sha-ni-x4",
            Self::Avx2 => "avx2-x8",
            Self::Avx512 => "avx512-x16",
            Self::ArmSha1 => "armv8-sha-x1",
            Self::ArmSha2 => "armv8-sha-x2",
            Self::ArmSha4 => "armv8-sha-x4",
            Self::Neon => "neon-x4",
        }
    }

    /// How many messages it hashes at once.
    #[must_use]
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable | Self::OneAwsLc | Self::One | Self::ShaNi1 | Self::ArmSha1 => 1,
            Self::ShaNi2 | Self::ArmSha2 => 2,
            Self::ShaNi4 | Self::ArmSha4 | Self::Neon => 4,
            Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }

    /// Whether this processor has its instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        matches!(self, Self::Portable | Self::OneAwsLc) || self.detect().is_some()
    }

    /// The proof that it can run; those that run without lanes have none.
    pub(crate) fn detect(self) -> Option<Proof> {
        match self {
            Self::One => Some(Proof::One(One)),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi1 => ShaNi::detect().map(Proof::ShaNi1),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi2 => ShaNi::detect().map(Proof::ShaNi2),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi4 => ShaNi::detect().map(Proof::ShaNi4),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().map(Proof::Avx2),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().map(Proof::Avx512),
            #[cfg(target_arch = "aarch64")]
            Self::ArmSha1 => ArmSha::detect().map(Proof::ArmSha1),
            #[cfg(target_arch = "aarch64")]
            Self::ArmSha2 => ArmSha::detect().map(Proof::ArmSha2),
            #[cfg(target_arch = "aarch64")]
            Self::ArmSha4 => ArmSha::detect().map(Proof::ArmSha4),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::detect().map(Proof::Neon),
            _ => None,
        }
    }
}

impl FromStr for Kernel {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<Self, UnknownKernel> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| UnknownKernel { name: name.to_owned() })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn names() -> String {
    Kernel::ALL.map(Kernel::name).join(", ")
}
