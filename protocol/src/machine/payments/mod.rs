//! Money on its way, outside of souk: what is paid by programs of this node's owner, and what peers say to have paid.
//!
//! Pure. [`Payouts`] takes each payment of ours from the intention to the signed `settle`; [`Arrivals`] each payment of a peer
//! from its `settle` to the word whether it has arrived. Neither owns documents, which the engine signs, nor when something is
//! due, which the account says; and neither runs a program or reads a disk: the shell does, as told by [`Payouts::poll`] and
//! [`Arrivals::poll`].

mod arrivals;
mod payouts;

pub use self::{
    arrivals::{Arrivals, Claim, Found, HowFound, Look},
    payouts::{Answer, By, Limits, NotCancelled, NotOrdered, Payout, PayoutStep, Payouts, Stage},
};

use crate::time::Millis;

/// After how long a program is asked again, and at most.
pub const AGAIN: (Millis, Millis) = (Millis::from_secs(5), Millis::from_mins(10));

/// How long a program may ask to be left alone.
pub const LATER_MOST: Millis = Millis::from_hours(1);

/// The next wait after this one.
const fn longer(wait: Millis) -> Millis {
    let doubled = wait.0.saturating_mul(2);
    Millis(if doubled < AGAIN.1.0 { doubled } else { AGAIN.1.0 })
}

/// What a program asked for, within bounds; else the wait that has grown so far.
fn wait(asked: Option<Millis>, grown: Millis) -> Millis {
    asked.map_or(grown, |asked| asked.clamp(Millis::from_secs(1), LATER_MOST))
}
