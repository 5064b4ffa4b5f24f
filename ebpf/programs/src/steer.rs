//! steer: a new connection goes to the worker that is pinned to the processor which received it (`sk_reuseport/migrate`,
//! Linux 5.14). Where there is none, or it no longer listens, the kernel's hash decides. A connection that waits at a listener
//! which closes goes to another of the group.

#![no_std]
#![no_main]

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::{map, sk_reuseport};
use aya_ebpf::maps::{Array, PerCpuArray, ReusePortSockArray};
use aya_ebpf::programs::SkReuseportContext;
use zen_ebpf_abi::steer::{Counts, NO_WORKER, PROCESSORS_MAX, WORKERS_MAX};

/// `SK_PASS`: the socket that was selected, or the kernel's hash.
const PASS: u32 = 1;

/// The listener of each worker.
#[map]
static LISTENERS: ReusePortSockArray = ReusePortSockArray::with_max_entries(WORKERS_MAX, 0);
/// The worker of each processor, from 1.
#[map]
static WORKERS: Array<u32> = Array::with_max_entries(PROCESSORS_MAX, 0);
#[map]
static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

#[sk_reuseport(migrate)]
fn zen_steer(ctx: SkReuseportContext) -> u32 {
    // SAFETY: the helper has no preconditions.
    let processor = unsafe { bpf_get_smp_processor_id() };
    let worker = WORKERS.get(processor).copied().unwrap_or(NO_WORKER);
    let steered = worker != NO_WORKER && LISTENERS.select_reuseport(&ctx, worker.wrapping_sub(1)).is_ok();
    if let Some(counts) = COUNTS.get_ptr_mut(0) {
        // SAFETY: the entry is this processor's own.
        let counts = unsafe { &mut *counts };
        counts.steered += steered as u64;
        counts.hashed += !steered as u64;
    }
    PASS
}

zen_ebpf_programs::object!();
