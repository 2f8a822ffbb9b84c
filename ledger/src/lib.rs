//! What happened, who owes whom, and who is trusted: the records of one node.
pub mod journal;
pub mod lock;
