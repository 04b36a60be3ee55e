//! What the election is told of the pods of its members.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_lease::{Death, LeaseCluster, SessionId};
use router_core::cluster::Member;
use tokio::sync::watch;
use tracing::info;

use crate::pods::Pods;

/// Tells of every change, until it is dropped. With `proofs`, sessions whose process has ended are reported.
pub(crate) async fn follow(mut pods: watch::Receiver<Pods>, cluster: Arc<LeaseCluster>, proofs: bool) {
    let mut sessions = cluster.sessions();
    let (mut told, mut ended) = ((Vec::new(), Vec::new()), BTreeSet::new());
    loop {
        let present = sessions.borrow_and_update().clone();
        {
            let pods = pods.borrow_and_update();
            if proofs {
                // Evidence of a session that the election does not know yet is lost, so it is repeated.
                report(&pods, &present, &cluster, &mut ended);
            }
            tell(&pods, &cluster, &mut told);
        }
        tokio::select! {
            biased;
            changed = pods.changed() => if changed.is_err() { return },
            changed = sessions.changed() => if changed.is_err() { return },
        }
    }
}

/// The members that stand by, and whose turn it is: the order of candidates only keeps members from claiming
/// a lock all at once, and spreads locks over them.
fn tell(pods: &Pods, cluster: &LeaseCluster, told: &mut (Vec<Member>, Vec<String>)) {
    if !pods.known {
        return;
    }
    let (members, candidates) = (pods.members(), pods.candidates());
    if members != told.0 {
        cluster.set_others(members.clone());
        told.0 = members;
    }
    if candidates != told.1 {
        let weighted = candidates.iter().map(|name| (name.as_str().into(), 1)).collect::<Vec<_>>();
        cluster.set_candidates(&weighted);
        told.1 = candidates;
    }
}

fn report(
    pods: &Pods,
    sessions: &[(SessionId, Member)],
    cluster: &LeaseCluster,
    logged: &mut BTreeSet<SessionId>,
) {
    let ended = sessions.iter().map(|(session, _)| *session);
    let ended = ended.filter(|session| pods.has_ended(session.incarnation)).collect::<BTreeSet<_>>();
    for session in &ended {
        if !logged.contains(session) {
            info!(%session, "its container has terminated, says the kubelet");
        }
        cluster.report(*session, Death::Proof);
    }
    *logged = ended;
}
