//! A member that is elected by another crate: `bactrian-peers kube-leader-election|kube-lease-manager`.
//!
//! Each crate is used as its documentation says, with a lease of five seconds, which is what ours has in
//! the profile `fast`, and the ratio of lease and renewal that the crate recommends. While it believes that
//! it leads, the member notes exchanges for the judge, as ours do.

mod election;
#[path = "../../../tests/kubernetes/judge.rs"]
#[allow(dead_code, reason = "the judge reads what is written here")]
mod judge;

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What the test tells a member, and the same for each crate.
struct Settings {
    pod: String,
    namespace: String,
}

/// How long a lease lasts that nobody renews.
const LEASE: Duration = Duration::from_secs(5);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `tests/peers` sets it"))
}

#[tokio::main]
async fn main() {
    let settings = Settings { pod: variable("POD_NAME"), namespace: variable("POD_NAMESPACE") };
    let (leads, leading) = watch::channel(false);
    #[expect(clippy::disallowed_methods, reason = "whoever elects waits for its end")]
    let work = tokio::spawn(work(leading));
    let mut stop = signal(SignalKind::terminate()).expect("signals can be listened to");
    let stop = async move { _ = stop.recv().await };
    match std::env::args().nth(1).as_deref() {
        Some("kube-leader-election") => election::kube_leader_election(settings, leads, work, stop).await,
        Some("kube-lease-manager") => election::kube_lease_manager(settings, leads, work, stop).await,
        other => panic!("there is no peer {other:?}"),
    }
}

/// Notes one exchange after the other while this member believes that it leads. Ends with its channel.
async fn work(leading: watch::Receiver<bool>) {
    let records = PathBuf::from(variable("MEMBER_RECORDS"));
    let milliseconds = |name| Duration::from_millis(variable(name).parse().expect("milliseconds"));
    let (work, period) = (milliseconds("MEMBER_WORK_MS"), milliseconds("MEMBER_PERIOD_MS"));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    // These crates number no terms. The time at which one begins grows as a number would.
    let mut term = None;
    while leading.has_changed().is_ok() {
        ticks.tick().await;
        if !*leading.borrow() {
            term = None;
            continue;
        }
        let note = judge::Note::begin(&records, "lock1", *term.get_or_insert_with(judge::now));
        tokio::time::sleep(work).await;
        drop(note);
    }
}
