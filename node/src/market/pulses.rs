//! The renter's meter at work: one task for each instance that this node rents and that is said to run, which asks the helper in it.
//!
//! Owns the tasks and when they ask; what the answers say of the lease is the engine's.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use souk_network::NetworkHandle;
use souk_protocol::{
    LeaseId, Millis, NodeId,
    lease::LeaseState,
    machine::{
        io::Input,
        renter_lease::heartbeat::{Beat, answer_within, ask_every},
    },
    message::StreamOpen,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    commands::open_stream,
    task::{Internal, Market},
};
use crate::{
    access::pulse::{Asker, Heard},
    clock,
};

/// After a host that could not be reached.
const AGAIN: Duration = Duration::from_secs(5);

/// An instance that is asked.
#[derive(Debug)]
struct Asked {
    /// How many of its events are known.
    events: Arc<AtomicU32>,
    _ends: DropGuard,
}

/// All instances that are asked.
#[derive(Debug, Default)]
pub(super) struct Pulses(BTreeMap<LeaseId, Asked>);

impl Market {
    /// Asks this instance from now on, or no longer, as it runs or not.
    pub(super) fn ask_pulse(&mut self, lease: LeaseId) {
        let rented = self.engine.renter().leases().get(&lease);
        let Some(held) = rented.filter(|held| held.state() == LeaseState::Running) else {
            self.pulses.0.remove(&lease);
            return;
        };
        if let Some(asked) = self.pulses.0.get(&lease) {
            asked.events.store(held.events_seen(), Ordering::Relaxed);
            return;
        }
        let events = Arc::new(AtomicU32::new(held.events_seen()));
        let ends = CancellationToken::new();
        let tick = held.draft().tick;
        let task = Task {
            network: self.network.clone(),
            host: held.host(),
            lease,
            every: ask_every(tick).to_std(),
            within: answer_within(tick).to_std(),
            events: Arc::clone(&events),
            told: self.internal.clone(),
        };
        let ended = ends.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task.run() => {}
                () = ended.cancelled() => {}
            }
        });
        self.pulses.0.insert(lease, Asked { events, _ends: ends.drop_guard() });
    }

    /// At a start: asks all that run.
    pub(super) fn ask_pulses(&mut self) {
        let leases: Vec<LeaseId> = self.engine.renter().leases().keys().copied().collect();
        for lease in leases {
            self.ask_pulse(lease);
        }
    }
}

/// One instance's questions.
struct Task {
    network: NetworkHandle,
    host: NodeId,
    lease: LeaseId,
    every: Duration,
    within: Duration,
    events: Arc<AtomicU32>,
    told: mpsc::Sender<Internal>,
}

impl Task {
    async fn run(self) {
        let mut way = None;
        // Begun through a relay, it would keep that from being let go.
        let mut through_relay = false;
        loop {
            if through_relay && !self.network.is_relayed(&self.host) {
                way = None;
            }
            if way.is_none() {
                through_relay = self.network.is_relayed(&self.host);
            }
            let (began, events) = (Instant::now(), self.events.load(Ordering::Relaxed));
            let old = way.is_some();
            let mut heard;
            (way, heard) = self.ask(way).await;
            if old && way.is_none() && heard.beat == Beat::Silent {
                // The helper has ended, not what it is to speak for: another one may answer.
                (way, heard) = self.ask(None).await;
            }
            tracing::trace!(lease = %self.lease.short(), ?heard, "the renter's meter");
            if !self.tell(heard, events).await {
                return;
            }
            let pause = if heard.beat == Beat::Unheard { self.every.max(AGAIN) } else { self.every };
            way = self.listen(way, began + pause, events).await;
        }
    }

    async fn ask(&self, way: Option<Asker>) -> (Option<Asker>, Heard) {
        let way = match way {
            Some(way) => way,
            None => {
                let asked = clock::since_start();
                match open_stream(&self.network, self.host, &StreamOpen::Pulse { lease: self.lease }).await {
                    Ok(stream) => Asker::over(stream),
                    Err(_) => return (None, Heard { asked, beat: Beat::Unheard }),
                }
            }
        };
        way.ask(self.within).await
    }

    /// Hears what comes late, until the next question.
    async fn listen(&self, mut way: Option<Asker>, until: Instant, events: u32) -> Option<Asker> {
        while let Some(there) = &mut way {
            let heard = tokio::select! {
                heard = there.late() => heard,
                () = tokio::time::sleep_until(until) => return way,
            };
            match heard {
                Some(heard) => {
                    self.tell(heard, events).await;
                }
                // It has ended. The next question finds another way, or why there is none.
                None => way = None,
            }
        }
        tokio::time::sleep_until(until).await;
        None
    }

    /// False if nobody listens any more.
    async fn tell(&self, heard: Heard, events_seen: u32) -> bool {
        let Heard { asked, beat } = heard;
        let at: Millis = clock::since_start();
        let input = Input::Beat { lease: self.lease, events_seen, asked, at, beat };
        self.told.send(Internal::Beat(input)).await.is_ok()
    }
}
