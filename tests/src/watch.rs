//! A look, all the time, at how many containers of a node run at once.
#![allow(clippy::unwrap_used, reason = "a harness: what does not work fails the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{docker::Docker, node::Node};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Counts the running containers of a node until it is asked, or dropped.
#[derive(Debug)]
pub struct Watch {
    over: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    looks: Option<JoinHandle<usize>>,
}

impl Watch {
    /// Begins.
    #[must_use]
    pub fn over(docker: &Docker, node: &Node) -> Self {
        let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (docker, filter) = (docker.clone(), format!("label=souk.node={}", node.id));
        let (end, seen) = (Arc::clone(&over), Arc::clone(&most));
        let looks = std::thread::spawn(move || {
            let mut looks = 0;
            while !end.load(Ordering::Relaxed) {
                let running = docker.cli(&["ps", "-q", "--filter", &filter]).ok().split_whitespace().count();
                seen.fetch_max(running, Ordering::Relaxed);
                looks += 1;
                std::thread::sleep(LOOK);
            }
            looks
        });
        Self { over, most, looks: Some(looks) }
    }

    /// How many ran at once at most, so far.
    #[must_use]
    pub fn so_far(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Ends: how many ran at once at most.
    ///
    /// # Panics
    /// If it has not looked often enough to say.
    #[must_use]
    pub fn most(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        let looks = self.looks.take().unwrap().join().unwrap();
        assert!(looks > 10, "it looked {looks} times");
        self.so_far()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
