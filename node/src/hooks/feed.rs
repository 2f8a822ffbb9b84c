//! How the market tells hooks what happens: by marking what may have news, and showing it.
//!
//! Owns the queue between both. The market never waits for it: when it is full, what was marked stays marked and is shown with
//! the next change or tick. What is shown is a lease as it is, with its numbered steps, so nothing is lost by showing it late.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use souk_protocol::LeaseId;
use tokio::sync::mpsc;

use super::{event::Happening, machine::Machine, watch::Sight};

/// News that the hooks' task has not read. When full, leases stay marked.
pub const NEWS: usize = 256;

/// What the market shows.
#[derive(Debug)]
pub enum News {
    /// A lease.
    Lease(Box<Sight>),
    /// This machine.
    Machine(Machine),
    /// Something that is news by itself.
    Told(Box<Happening>),
}

/// The market's end.
#[derive(Debug)]
pub struct Feed {
    news: mpsc::Sender<News>,
    wanted: Arc<AtomicBool>,
    marked: BTreeSet<LeaseId>,
    machine: bool,
    disks: BTreeMap<LeaseId, (u64, u64)>,
}

impl Feed {
    pub(super) fn new(
        news: mpsc::Sender<News>,
        wanted: Arc<AtomicBool>,
        leases: impl IntoIterator<Item = LeaseId>,
    ) -> Self {
        Self { news, wanted, marked: leases.into_iter().collect(), machine: true, disks: BTreeMap::new() }
    }

    /// Whether there is any hook. Without one nothing is marked or shown.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// A lease may have news.
    pub fn mark(&mut self, lease: LeaseId) {
        if self.wanted() {
            self.marked.insert(lease);
        }
    }

    /// This machine may have news.
    pub const fn mark_machine(&mut self) {
        self.machine = true;
    }

    /// An instance of this machine has so many bytes on its disk, of so many granted.
    pub fn disk(&mut self, lease: LeaseId, used: u64, granted: u64) {
        self.disks.insert(lease, (used, granted));
        self.mark(lease);
    }

    /// What was last said of an instance's disk.
    #[must_use]
    pub fn disk_of(&self, lease: &LeaseId) -> Option<(u64, u64)> {
        self.disks.get(lease).copied()
    }

    /// Tells something that is news by itself. False if there is no room: tell it again later.
    pub fn tell(&self, happening: Happening) -> bool {
        !self.wanted() || self.news.try_send(News::Told(Box::new(happening))).is_ok()
    }

    /// Whether something is to be shown.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.wanted() && (self.machine || !self.marked.is_empty())
    }

    /// Whether the machine is to be shown. It is not marked any more then.
    pub const fn take_machine(&mut self) -> bool {
        std::mem::replace(&mut self.machine, false)
    }

    /// Shows the machine; a node that hosts nothing has none to show.
    pub fn show_machine(&mut self, machine: Option<Machine>) {
        if let Some(machine) = machine {
            self.machine = self.news.try_send(News::Machine(machine)).is_err();
        }
    }

    /// The next marked lease, if there is room to show it.
    pub fn take(&mut self) -> Option<LeaseId> {
        if self.news.capacity() == 0 {
            return None;
        }
        self.marked.pop_first()
    }

    /// Shows a lease.
    pub fn show(&mut self, sight: Sight) {
        let lease = sight.view.lease;
        if !sight.held {
            self.disks.remove(&lease);
        }
        if self.news.try_send(News::Lease(Box::new(sight))).is_err() {
            self.marked.insert(lease);
        }
    }
}
