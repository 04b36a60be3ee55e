//! `bactrian handover`.

use std::process::ExitCode;

use clap::Args;
use router_core::cluster::{Handover, LockName};

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
        let Handover { from, from_term, to, to_term, after } = handover;
        Ok(match after {
            Some(after) => format!(
                "{lock}: {from} released it after term {from_term}; {to} leads, term {to_term}, after {} ms",
                after.as_millis()
            ),
            None => format!(
                "{lock}: {from} did not release it after term {from_term}: it ended, or was silent for the takeover \
                 wait; {to} has replaced it and leads, term {to_term}"
            ),
        })
    })
}
