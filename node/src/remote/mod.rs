//! A node worked from elsewhere: which one the command line speaks to, and how it gets there.
//!
//! Owns [`NodeAddress`] (`souk --at`, `SOUK_HOST`), the link over the user's own `ssh` ([`SshLink`]), and that link's far end
//! ([`serve`], which `souk dial-stdio` is). What is asked over it is the local API's business: to that, whoever comes this way is a
//! client at its Unix socket, with the rights of the user that ssh logged in.
//!
//! One `ssh` carries any number of requests: its input and output are a yamux connection, and each of its streams is one connection
//! to the API's socket. So a page with thirty connections (`souk open`) is one login, and meets neither sshd's `MaxStartups` nor its
//! `MaxSessions`.

mod address;
mod greeting;
mod link;
mod stdio;

pub use address::{AddressError, NodeAddress, SshAddress};
pub use greeting::Greeting;
pub use link::{LinkError, LinkStream, SshLink};
pub use stdio::serve;

/// Streams at once. When full, further requests wait for one to end.
const STREAMS: usize = 256;
/// Bytes that all streams' receive windows may have together.
const WINDOWS: usize = 256 * 1024 * 1024;

fn settings() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS);
    config.set_max_connection_receive_window(Some(WINDOWS));
    config
}
