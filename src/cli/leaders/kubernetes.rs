//! The locks of a group of pods.

use std::collections::{BTreeMap, BTreeSet};

use bactrian::cluster_kubernetes::{Group as GroupName, KubernetesClusterSettings, LockStatus, Seen, Survey};
use router_core::error::BoxError;

use super::{Lock, State};
use crate::cli::output;

pub(super) struct Group {
    survey: Survey,
    group: GroupName,
    seen: Option<Seen>,
}

impl Group {
    pub(super) async fn open(settings: KubernetesClusterSettings) -> Result<Self, BoxError> {
        Ok(Self { survey: Survey::open(&settings).await?, group: settings.group, seen: None })
    }

    pub(super) fn place(&self) -> String {
        format!(
            "of the group {} in the namespace {}; `-n` names another namespace",
            self.group,
            self.survey.namespace()
        )
    }

    pub(super) async fn changed(&self) -> Result<(), BoxError> {
        match &self.seen {
            Some(seen) => Ok(self.survey.changed(seen).await?),
            None => Ok(()),
        }
    }

    /// The locks, and all members of which there is a trace.
    pub(super) async fn look(&mut self) -> Result<(BTreeMap<String, Lock>, Vec<String>), BoxError> {
        let seen = self.survey.look().await?;
        if let Some(why) = seen.without_pods.as_ref().filter(|_| self.seen.is_none()) {
            output::diagnostic(&format!("note: standbys that have never led are not shown: {why}"));
        }
        if seen.left_over > 0 && self.seen.is_none() {
            output::diagnostic(&format!(
                "note: {} Leases of sessions that have ended are left, because no pod owns them; members with the \
                 right to delete Leases remove them",
                seen.left_over
            ));
        }
        let hosts = seen.locks.values().flat_map(|lock| {
            lock.holder.iter().filter(|holder| holder.alive).map(|holder| &holder.host).chain(&lock.standbys)
        });
        let members = hosts.cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let locks = seen.locks.iter().map(|(name, status)| (name.to_string(), lock(name.as_str(), status)));
        let locks = locks.collect();
        self.seen = Some(seen);
        Ok((locks, members))
    }
}

fn lock(name: &str, status: &LockStatus) -> Lock {
    let free = Lock::free(name, status.standbys.iter().cloned().collect());
    let free = Lock { routes: status.routes.clone(), ..free };
    let Some(holder) = &status.holder else { return free };
    let state = match (holder.alive, holder.settled) {
        (false, _) => State::Silent,
        (true, false) => State::Taking,
        (true, true) => State::Led,
    };
    Lock {
        state,
        holder: Some(holder.host.clone()),
        member: Some(holder.member.clone()),
        term: Some(holder.term),
        held_since: holder.since.map(|since| since.to_string()),
        held_seconds: holder.held.map(|held| held.as_secs()),
        heartbeat_age_seconds: holder.heartbeat_age.map(|age| age.as_secs()),
        ..free
    }
}
