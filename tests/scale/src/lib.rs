//! souk's market with up to 10,000 nodes, in one process and in virtual time.
//!
//! Real: the engine of each host (when an offer goes out), offers and their signatures, the whole engines of some nodes that
//! observe (intake, book, reconciliation). Modelled: links, the gossip mesh, and the books of all other nodes, which follow the
//! same rule. What is modelled how, and what that leaves out, is in `docs/scaling.md`.

mod books;
mod charts;
mod costs;
mod figures;
mod flood;
mod geography;
mod hosts;
#[allow(dead_code, missing_docs, reason = "shared with the search's rates")]
#[path = "../../../protocol/examples/search_rates/market.rs"]
mod market;
mod mesh;
mod run;
mod topics;
mod world;

pub use charts::{plots, tables};
pub use costs::{Measured, measure};
pub use figures::{CatchUp, Figures, Percentiles};
pub use run::{Plan, run};
pub use topics::topic_of;
