//! `bactrian drain`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::operator::Cluster;

/// Ask a member to give up all its locks and to take none, for example before its node is maintained.
///
/// It finishes what it has in hand first, and goes on standing aside until `--undo`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  bactrian drain pod-1 routes.toml\n  bactrian drain --undo pod-1 routes.toml"
)]
pub(super) struct Arguments {
    /// The member: its id, pod, or process id [default: the one that there is]
    #[arg(value_name = "MEMBER")]
    member: Option<String>,
    /// Let it take locks again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl Arguments {
    /// Both arguments can be left out, so what stands first may be the file.
    fn member_and_file(&self) -> (Option<&str>, Option<PathBuf>) {
        match self.member.as_deref() {
            Some(file) if file.ends_with(".toml") => (None, Some(file.into())),
            member => (member, None),
        }
    }
}

/// Exit codes: 0 when the member holds nothing, 1 when it still does or could not be asked.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { undo, cluster, .. } = arguments;
    let (member, file) = arguments.member_and_file();
    cluster.ask(file, async |operator| {
        Ok(if *undo {
            let member = operator.undrain(member).await?;
            format!("{member} takes locks again")
        } else {
            let member = operator.drain(member, cluster.timeout).await?;
            format!("{member} is drained: it holds no lock and takes none, until `bactrian drain --undo`")
        })
    })
}
