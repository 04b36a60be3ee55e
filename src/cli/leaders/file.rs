//! The locks of the processes of a host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bactrian::settings::Settings;
use router_core::error::BoxError;

#[cfg(feature = "cluster-file")]
use super::{FINISHES, NEVER_LED, State};
use super::{Lock, Members};

/// How often to look for changes. A look reads a line per lock.
const PERIOD: Duration = Duration::from_millis(200);

pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn open(settings: &Settings) -> Result<Self, BoxError> {
        let root = std::path::absolute(&settings.cluster.root)?;
        if cfg!(not(feature = "cluster-file")) {
            let build = bactrian::build_with("cluster-file");
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

    #[cfg(not(feature = "cluster-file"))]
    pub(super) fn look(&self) -> Result<(BTreeMap<String, Lock>, Members), BoxError> {
        Ok((BTreeMap::new(), Members::default()))
    }

    /// The locks, and the members that live. The kernel tells who leads, and whether that process runs.
    #[cfg(feature = "cluster-file")]
    pub(super) fn look(&self) -> Result<(BTreeMap<String, Lock>, Members), BoxError> {
        let asked = bactrian::cluster_file::drained(&self.root)?;
        let alive = bactrian::cluster_file::members(&self.root)?;
        let alive = alive.into_iter().map(|member| member.id.to_string());
        let (drained, standbys) = alive.partition(|id| asked.contains(id));
        let members = Members { standbys, drained, unseen: None };
        let now = jiff::Timestamp::now();
        let mut locks = BTreeMap::new();
        let survey = bactrian::cluster_file::survey(&self.root)?;
        for unreadable in survey.unreadable {
            let lock = Lock::free(&unreadable.lock, &members, "").unknown(&unreadable.why);
            locks.insert(unreadable.lock, lock);
        }
        for name in survey.unled {
            let why = survey.obstacle.clone().unwrap_or_else(|| members.why_free());
            let lock = Lock::free(&name, &members, &format!("{NEVER_LED}; {why}"));
            locks.insert(name, lock);
        }
        for record in survey.locks {
            let why = record.obstacle.clone().unwrap_or_else(|| members.why_free());
            let why = format!("{} led it in term {}; {why}", record.member, record.term);
            let mut lock = Lock::free(&record.lock, &members, &why);
            if record.leading {
                lock.standbys.retain(|member| *member != record.member);
                let since = record.since.parse::<jiff::Timestamp>().ok();
                let held = since.map(|since| now.duration_since(since).as_secs());
                let pid = record.pid.map_or(String::new(), |pid| format!(" {pid}"));
                lock = Lock {
                    state: if record.stopped { State::Silent } else { State::Led },
                    reason: if record.stopped {
                        Some(format!("its process{pid} is stopped (SIGSTOP), and keeps the lock"))
                    } else if lock.drained.contains(&record.member) {
                        Some(FINISHES.to_owned())
                    } else {
                        let obstacle = survey.obstacle.as_ref().filter(|_| !lock.standbys.is_empty());
                        obstacle.map(|why| format!("no standby could take it over: {why}"))
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
