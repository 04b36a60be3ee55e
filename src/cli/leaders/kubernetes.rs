//! The locks of a group of pods.

use std::collections::{BTreeMap, BTreeSet};

use bactrian::cluster_kubernetes::{
    Group as GroupName, KubernetesClusterSettings, Limits, LockHolder, LockStatus, Seen, Survey,
};
use router_core::cluster::LockName;
use router_core::error::BoxError;

use super::{FINISHES, Lock, Members, State};
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

    pub(super) async fn why_missing(&self, lock: &LockName) -> String {
        self.survey.why_missing(lock).await
    }

    pub(super) async fn changed(&self) -> Result<(), BoxError> {
        match &self.seen {
            Some(seen) => Ok(self.survey.changed(seen).await?),
            None => Ok(()),
        }
    }

    /// The locks, and all members of which there is a trace.
    pub(super) async fn look(&mut self) -> Result<(BTreeMap<String, Lock>, Members), BoxError> {
        let seen = self.survey.look().await?;
        if let Some(why) = seen.without_pods.as_ref().filter(|_| self.seen.is_none()) {
            output::diagnostic(&format!("note: standbys that have never led are not shown: {why}"));
        }
        if self.seen.is_none()
            && seen.timings.values().any(|one| seen.timings.values().any(|other| one != other))
        {
            output::diagnostic(&format!("note: members have different timings: {}", timings(&seen.timings)));
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
        let standbys = hosts.filter(|host| !seen.drained.contains(*host)).cloned().collect::<BTreeSet<_>>();
        let drained = seen.drained.iter().cloned().collect::<Vec<_>>();
        let unseen = seen.without_trace.clone();
        let members = Members { standbys: standbys.into_iter().collect(), drained, unseen };
        let locks = seen.locks.iter().map(|(name, status)| {
            let standbys = status.standbys.iter().cloned().collect();
            (name.to_string(), lock(name.as_str(), status, &Members { standbys, ..members.clone() }))
        });
        let locks = locks.collect();
        self.seen = Some(seen);
        Ok((locks, members))
    }
}

/// What each member lives by.
fn timings(timings: &BTreeMap<String, Limits>) -> String {
    let one = |(member, limits): (&String, &Limits)| {
        let Limits { deadline, stop, rate_error_ppm } = limits;
        let error = f64::from(*rate_error_ppm) / 10_000.0;
        format!("{member}: deadline {deadline:?}, stop {stop:?}, clock error {error} %")
    };
    timings.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn lock(name: &str, status: &LockStatus, members: &Members) -> Lock {
    let free = Lock::free(name, members, &members.why_free());
    let free = Lock { routes: status.routes.clone(), ..free };
    let Some(holder) = &status.holder else { return free };
    let (state, reason) = match (holder.alive, holder.settled) {
        (false, _) => (State::Silent, Some(why_silent(holder, members))),
        (true, false) => (State::Taking, Some("it waits, because an earlier leader may still work".into())),
        (true, true) => (State::Led, members.drained.contains(&holder.host).then(|| FINISHES.to_owned())),
    };
    Lock {
        state,
        reason,
        holder: Some(holder.host.clone()),
        member: Some(holder.member.clone()),
        term: Some(holder.term),
        held_since: holder.since.map(|since| since.to_string()),
        held_seconds: holder.held.map(|held| held.as_secs()),
        heartbeat_age_seconds: holder.heartbeat_age.map(|age| age.as_secs()),
        ..free
    }
}

fn why_silent(holder: &LockHolder, members: &Members) -> String {
    let heard = match holder.heartbeat_age {
        Some(age) => {
            format!("its holder has ended or is cut off, {} s after its last heartbeat", age.as_secs())
        }
        None => "the session of its holder is gone".into(),
    };
    format!("{heard}; {}", members.why_free())
}
