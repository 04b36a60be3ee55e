//! The locks of the processes of a host.

use std::collections::BTreeMap;
#[cfg(feature = "file")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bactrian::settings::Settings;
use router_core::error::BoxError;

#[cfg(feature = "file")]
use super::{FINISHES, State};
use super::{Lock, Members};

/// How often to look for changes. A look reads a line per lock.
const PERIOD: Duration = Duration::from_millis(200);

pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn open(settings: &Settings) -> Result<Self, BoxError> {
        let root = std::path::absolute(&settings.cluster.root)?;
        if cfg!(not(feature = "file")) {
            let build = bactrian::build_with("file");
            return Err(format!("the cluster service `file` is not built into this program: {build}").into());
        }
        if !root.is_dir() {
            return Err(format!(
                "there is no directory `{}`, so no member has run here; go where the members are started, or use \
                 `--set cluster.root=DIR` or `--set cluster.service=kubernetes`",
                root.display()
            )
            .into());
        }
        Ok(Self { root })
    }

    pub(super) fn place(&self) -> String {
        format!("in the directory `{}`", self.root.display())
    }

    pub(super) async fn changed(&self) {
        tokio::time::sleep(PERIOD).await;
    }

    #[cfg(not(feature = "file"))]
    pub(super) fn look(&self) -> Result<(BTreeMap<String, Lock>, Members), BoxError> {
        Ok((BTreeMap::new(), Members::default()))
    }

    /// The locks, and the members that live. The kernel tells who leads, and whether that process runs.
    #[cfg(feature = "file")]
    pub(super) fn look(&self) -> Result<(BTreeMap<String, Lock>, Members), BoxError> {
        let asked = bactrian::cluster_file::drained(&self.root)?;
        let alive = bactrian::cluster_file::members(&self.root);
        let alive = alive.into_iter().map(|member| member.id.to_string());
        let (drained, standbys) = alive.partition(|id| asked.contains(id));
        let members = Members { standbys, drained };
        let now = jiff::Timestamp::now();
        let mut locks = BTreeMap::new();
        for record in bactrian::cluster_file::locks(&self.root)? {
            let why = format!("{} led it in term {}; {}", record.member, record.term, members.why_free());
            let mut lock = Lock::free(&record.lock, &members, &why);
            if record.leading {
                lock.standbys.retain(|member| *member != record.member);
                let since = record.since.parse::<jiff::Timestamp>().ok();
                let held = since.map(|since| now.duration_since(since).as_secs());
                let stopped = record.pid.filter(|pid| is_stopped(*pid, &self.root));
                lock = Lock {
                    state: if stopped.is_some() { State::Silent } else { State::Led },
                    reason: match stopped {
                        Some(pid) => {
                            Some(format!("its process {pid} is stopped (SIGSTOP), and keeps the lock"))
                        }
                        None => lock.drained.contains(&record.member).then(|| FINISHES.to_owned()),
                    },
                    holder: Some(record.member.clone()),
                    member: Some(record.member),
                    term: Some(record.term),
                    held_since: since.map(|since| since.to_string()),
                    held_seconds: held.map(|held| u64::try_from(held).unwrap_or(0)),
                    ..lock
                };
            }
            locks.insert(record.lock, lock);
        }
        Ok((locks, members))
    }
}

/// Whether the process is stopped by a signal. A number alone could be another process's, here or in another container,
/// so it must have something below `root` open.
#[cfg(feature = "file")]
fn is_stopped(pid: u32, root: &Path) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name of the program, in brackets, may be anything.
    let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut open = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    matches!(state, Some('T' | 't')) && open.any(|file| file.starts_with(&root))
}
