//! [`Surveyor`]: how the locks of a group of pods stand.

use std::collections::BTreeSet;

use async_trait::async_trait;
use router_core::cluster::{self, Candidates, LockName, LockState, MemberTiming, Sight, Timing};
use router_core::error::BoxError;

use crate::names::Group;
use crate::settings::KubernetesClusterSettings;
use crate::survey::{LockHolder, LockStatus, Seen, Survey};

pub(crate) struct Surveyor {
    survey: Survey,
    group: Group,
    seen: Option<Seen>,
}

impl Surveyor {
    pub(crate) async fn open(settings: KubernetesClusterSettings) -> Result<Self, BoxError> {
        Ok(Self { survey: Survey::open(&settings).await?, group: settings.group, seen: None })
    }
}

#[async_trait]
impl cluster::Survey for Surveyor {
    fn place(&self) -> String {
        format!(
            "of the group {} in the namespace {}; `-n` names another namespace",
            self.group,
            self.survey.namespace()
        )
    }

    /// The locks, and all members of which there is a trace.
    async fn look(&mut self) -> Result<Sight, BoxError> {
        let seen = self.survey.look().await?;
        let notes = if self.seen.is_none() { notes(&seen) } else { Vec::new() };
        let hosts = seen.locks.values().flat_map(|lock| {
            lock.holder.iter().filter(|holder| holder.alive).map(|holder| &holder.host).chain(&lock.standbys)
        });
        let standbys = hosts.filter(|host| !seen.drained.contains(*host)).cloned().collect::<BTreeSet<_>>();
        let drained = seen.drained.iter().cloned().collect::<Vec<_>>();
        let members = Candidates {
            standbys: standbys.into_iter().collect(),
            drained,
            unseen: seen.without_trace.clone(),
        };
        let locks = seen.locks.iter().map(|(name, lock)| {
            let standbys = lock.standbys.iter().cloned().collect();
            status(name, lock, &Candidates { standbys, ..members.clone() })
        });
        let locks = locks.collect();
        let timings = seen.timings.clone();
        self.seen = Some(seen);
        Ok(Sight { locks, members, timings, notes })
    }

    async fn changed(&mut self) -> Result<(), BoxError> {
        match &self.seen {
            Some(seen) => Ok(self.survey.changed(seen).await?),
            None => Ok(()),
        }
    }

    async fn why_missing(&self, lock: &LockName) -> String {
        self.survey.why_missing(lock).await
    }
}

/// What is worth knowing beside the locks.
fn notes(seen: &Seen) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(why) = &seen.without_pods {
        notes.push(format!("standbys that have never led are not shown: {why}"));
    }
    notes.extend(differences(&seen.timings));
    if seen.left_over > 0 {
        notes.push(format!(
            "{} Leases of sessions that have ended are left, because no pod owns them; members with the right to \
             delete Leases remove them",
            seen.left_over
        ));
    }
    notes
}

/// What each member lives by, where that differs.
fn differences(timings: &[MemberTiming]) -> Option<String> {
    let one = |MemberTiming { member, timing, .. }: &MemberTiming| {
        let Timing { deadline, stop, clock_error_ppm } = timing;
        let error = f64::from(*clock_error_ppm) / 10_000.0;
        format!("{member}: deadline {deadline:?}, stop {stop:?}, clock error {error} %")
    };
    timings.windows(2).any(|pair| pair[0].timing != pair[1].timing).then(|| {
        let timings = timings.iter().map(one).collect::<Vec<_>>().join("; ");
        format!(
            "members have different timings: {timings}; members that have held nothing yet write nothing, so theirs are \
             not known"
        )
    })
}

fn status(name: &LockName, status: &LockStatus, members: &Candidates) -> cluster::LockStatus {
    let free = cluster::LockStatus::free(name.as_str(), members, members.why_free());
    let free = cluster::LockStatus { routes: status.routes.clone(), ..free };
    if let Some(why) = &status.unreadable {
        return free.unknown(why);
    }
    let Some(holder) = &status.holder else { return free };
    let (state, reason) = match (holder.alive, holder.settled) {
        (false, _) => (LockState::Silent, Some(why_silent(holder, members))),
        (true, false) => {
            (LockState::Taking, Some("it waits, because an earlier leader may still work".into()))
        }
        (true, true) => (LockState::Led, members.why_still_led(&holder.host)),
    };
    cluster::LockStatus {
        state,
        reason,
        holder: Some(holder.host.clone()),
        member: Some(holder.member.clone()),
        term: Some(holder.term),
        held_since: holder.since.map(|since| since.to_string()),
        held: holder.held,
        heartbeat_age: holder.heartbeat_age,
        timing: holder.timing,
        ..free
    }
}

fn why_silent(holder: &LockHolder, members: &Candidates) -> String {
    let heard = match holder.heartbeat_age {
        Some(age) => {
            format!("its holder has ended or is cut off, {} s after its last heartbeat", age.as_secs())
        }
        None => "the session of its holder is gone".into(),
    };
    format!("{heard}; {}", members.why_free())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn members_with_different_timings_are_told_and_equal_ones_are_not() {
        let member = |member: &str, deadline| MemberTiming {
            host: "pod".into(),
            member: member.into(),
            timing: Timing {
                deadline: Duration::from_millis(deadline),
                stop: Duration::from_secs(2),
                clock_error_ppm: 15_000,
            },
        };
        assert_eq!(differences(&[]), None);
        assert_eq!(differences(&[member("a_1", 12_500), member("b_1", 12_500)]), None);
        let told =
            differences(&[member("a_1", 12_500), member("b_1", 12_500), member("c_1", 3_800)]).unwrap();
        for timing in ["a_1: deadline 12.5s, stop 2s", "c_1: deadline 3.8s, stop 2s, clock error 1.5 %;"] {
            assert!(told.contains(timing), "{told}");
        }
    }
}
