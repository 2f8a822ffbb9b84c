//! The whole story on loopback: real nodes, a real workload.

/// What a demonstration is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Keep its data directory and nodes for a look around.
    pub keep: bool,
    /// Print JSON.
    pub json: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// The step that failed, and why.
#[allow(clippy::unused_async)]
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Options { keep: _, json: _ } = options;
    Err(anyhow::anyhow!("this build has no demonstration"))
}
