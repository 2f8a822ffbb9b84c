//! What the kernel holds a worker to: limits, no privileges, its own folders. The list of system calls is in [`super::filter`].
//!
//! Landlock holds the thread that asks for it and those it makes from then on; so it comes before any other thread.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::report::Confinement;

/// Most descriptors at once; each file that a guest has open takes one.
const DESCRIPTORS: u64 = 512;
/// What a worker may need besides the guest: its stacks and heap, and what one call of the guest makes the host hold (128 MiB at most, by
/// Wasmtime).
const OWN_BYTES: u64 = 256 << 20;
/// Addresses set aside besides: the reservation of a memory with its guards, compiled code, libraries, stacks, allocator arenas.
const OWN_ADDRESSES: u64 = 6 << 30;
/// The newest Landlock that this was written for.
const LANDLOCK: ABI = ABI::V6;

/// What can be done before the order is known.
pub(super) fn at_start(user: Option<(u32, u32)>) -> std::io::Result<Confinement> {
    for (resource, most) in [(Resource::Core, 0), (Resource::Nofile, DESCRIPTORS)] {
        limit(resource, most)?;
    }
    if let Some((uid, gid)) = user {
        become_user(uid, gid)?;
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let capabilities_dropped = set_capabilities(None, sets).is_ok();
    rustix::thread::set_no_new_privs(true)?;
    // After the change of user, which clears both.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(Confinement { user: user.is_some(), capabilities_dropped, no_new_privileges: true, ..Confinement::default() })
}

fn become_user(uid: u32, gid: u32) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// What an order adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes that the work may write to memory.
    pub(super) memory: u64,
    /// Bytes of one file.
    pub(super) file: u64,
    /// Seconds of processor time, after which the kernel kills.
    pub(super) cpu_seconds: Option<u64>,
}

pub(super) fn bounds(bounds: Bounds) -> std::io::Result<()> {
    let data = bounds.memory.saturating_add(OWN_BYTES);
    limit(Resource::Data, data)?;
    limit(Resource::As, data.saturating_add(OWN_ADDRESSES))?;
    limit(Resource::Fsize, bounds.file)?;
    match bounds.cpu_seconds {
        // A second before the kernel kills without a word, it sends SIGXCPU.
        Some(seconds) => between(Resource::Cpu, seconds, seconds.saturating_add(1)),
        None => Ok(()),
    }
}

/// No more threads or processes. Root is above this limit, but not above the filter.
pub(super) fn no_more_threads() -> std::io::Result<()> {
    limit(Resource::Nproc, 0)
}

fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    between(resource, most, most)
}

fn between(resource: Resource, soft: u64, hard: u64) -> std::io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    setrlimit(resource, Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) })?;
    Ok(())
}

/// Closes the file system but for these folders, the network, and others' processes. Gives the version in force.
pub(super) fn landlock(write: Option<BorrowedFd<'_>>, read: Option<BorrowedFd<'_>>) -> wasmtime::Result<Option<u32>> {
    let unusable =
        AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::MakeFifo | AccessFs::Execute;
    let writing: BitFlags<AccessFs> = AccessFs::from_all(LANDLOCK) & !(unusable | AccessFs::IoctlDev);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    if let Some(folder) = write {
        rules = rules.add_rule(PathBeneath::new(folder, writing))?;
    }
    if let Some(folder) = read {
        rules = rules.add_rule(PathBeneath::new(folder, AccessFs::ReadFile | AccessFs::ReadDir))?;
    }
    let status = rules.restrict_self()?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Ok(None),
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            Ok(u32::try_from((effective_abi as i32).min(LANDLOCK as i32)).ok())
        }
        (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => Ok(None),
    }
}
