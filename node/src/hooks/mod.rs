//! Hooks: the owner's URLs and programs that hear of what happens at this node.
//!
//! The market shows what changes ([`feed`]); [`watch`] and [`machine`] say what of it is an event; [`task`] keeps each event on
//! [`disk`] until the hook has it, and makes the attempts ([`delivery`]). An event is delivered at least once, always with the
//! same id and bytes. Nothing here decides anything for the market, and the market never waits for it.

mod commands;
pub mod delivery;
pub mod disk;
pub mod event;
pub mod feed;
pub mod machine;
pub mod queue;
pub mod target;
pub mod task;
pub mod watch;
mod words;

use tokio::sync::{mpsc, oneshot};

use crate::{
    api::types::{HookDelivery, HookLogRequest, HookRequest, HookView, HooksView},
    market::{CommandError, ErrorCode, command::Reply},
};

pub use event::{Event, EventKind, Happening};
pub use feed::Feed;
pub use machine::Machine;
pub use task::{HooksTask, open};
pub use watch::Sight;

/// Commands waiting for the hooks' task. When full, the asker is told that the node is busy.
const COMMANDS: usize = 16;

/// One thing asked of the hooks' task.
#[derive(Debug)]
pub enum Command {
    /// All hooks.
    List(Reply<HooksView>),
    /// Adds one.
    Add {
        /// Which.
        request: HookRequest,
        /// Whether it may be a program: not for who asks over the network, be it loopback.
        programs: bool,
        /// The hook.
        reply: Reply<HookView>,
    },
    /// Removes one, and what waits for it.
    Remove {
        /// Its name.
        name: String,
        /// The hook as it was.
        reply: Reply<HookView>,
    },
    /// Sends a test event now, past the queue, once.
    Test {
        /// The hook's name.
        name: String,
        /// What became of it.
        reply: Reply<HookDelivery>,
    },
    /// What became of deliveries, oldest first.
    Log {
        /// Of which hook, and how many.
        request: HookLogRequest,
        /// The newest.
        reply: Reply<Vec<HookDelivery>>,
    },
}

/// Asks the hooks' task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HooksHandle(mpsc::Sender<Command>);

impl HooksHandle {
    fn channel() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(COMMANDS);
        (Self(sender), receiver)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// `busy` or `stopping`, and whatever the command answers.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(make(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                CommandError::new(ErrorCode::Busy, "the node's hooks have too much to do").hint("ask again in a second")
            }
            mpsc::error::TrySendError::Closed(_) => CommandError::stopping(),
        })?;
        answer.await.unwrap_or_else(|_| Err(CommandError::stopping()))
    }
}
