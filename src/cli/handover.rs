//! `bactrian handover`.

use std::process::ExitCode;

use clap::Args;
use router_core::cluster::LockName;

use super::operator::Cluster;

/// Ask the member that leads a lock to give it up, so that another one leads.
///
/// It finishes what it has in hand first. Without another member that wants the lock, it takes it again.
#[derive(Args)]
#[command(after_help = "Example:\n  bactrian handover lock1 routes.toml")]
pub(super) struct Arguments {
    /// The lock, as the routes write it
    #[arg(value_name = "LOCK")]
    lock: String,
    #[command(flatten)]
    cluster: Cluster,
}

/// Exit codes: 0 when another member leads, 1 when none does.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { lock, cluster } = arguments;
    cluster.ask(None, async |operator| {
        let name: LockName = lock.parse()?;
        let handover = operator.hand_over(&name, cluster.timeout).await?;
        Ok(format!(
            "{lock}: {} released it after term {}; {} leads, term {}, after {} ms",
            handover.from,
            handover.from_term,
            handover.to,
            handover.to_term,
            handover.after.as_millis()
        ))
    })
}
