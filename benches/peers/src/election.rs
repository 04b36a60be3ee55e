//! The two crates.

use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};
use kube_lease_manager::{LeaseManagerBuilder, LeaseParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{LEASE, Settings};

/// The Lease that members compete for.
const NAME: &str = "peers";

/// As its example `shared-lease.rs` does it: a background task tries to acquire or renew three times per
/// lease and shares the outcome; an error is logged and changes nothing. `step_down` gives it back.
pub(crate) async fn kube_leader_election(
    settings: Settings,
    leads: watch::Sender<bool>,
    work: JoinHandle<()>,
    stop: impl Future<Output = ()>,
) {
    let client = kube_4::Client::try_default().await.expect("a kubeconfig");
    let holder_id = format!("{}-{}", settings.pod, std::process::id());
    let params = LeaseLockParams { lease_name: NAME.into(), holder_id, lease_ttl: LEASE };
    let lock = LeaseLock::new(client, &settings.namespace, params);
    let elect = async {
        loop {
            match lock.try_acquire_or_renew().await {
                Ok(result) => _ = leads.send_replace(matches!(result, LeaseLockResult::Acquired(_))),
                Err(error) => eprintln!("kube-leader-election: {error}"),
            }
            tokio::time::sleep(LEASE / 3).await;
        }
    };
    tokio::select! {
        biased;
        () = stop => {}
        () = elect => {}
    }
    let led = *leads.borrow();
    drop(leads);
    work.await.expect("the work ends");
    if led && let Err(error) = lock.step_down().await {
        eprintln!("kube-leader-election: {error}");
    }
}

/// As the documentation of the crate does it: `watch` elects in the background and tells on a channel, whose
/// end gives the lease back. A sixth of the lease is its grace, as among the defaults.
pub(crate) async fn kube_lease_manager(
    settings: Settings,
    leads: watch::Sender<bool>,
    work: JoinHandle<()>,
    stop: impl Future<Output = ()>,
) {
    let client = kube::Client::try_default().await.expect("a kubeconfig");
    let identity = format!("{}-{}", settings.pod, std::process::id());
    let params = LeaseParams::new(identity, LEASE.as_secs(), 1);
    let builder = LeaseManagerBuilder::new(client, NAME).with_namespace(settings.namespace);
    let manager = builder.with_parameters(params).build().await.expect("a lease");
    let (mut channel, task) = manager.watch().await;
    let follow = async {
        leads.send_replace(*channel.borrow_and_update());
        while channel.changed().await.is_ok() {
            leads.send_replace(*channel.borrow_and_update());
        }
    };
    tokio::select! {
        biased;
        () = stop => {}
        () = follow => {}
    }
    drop(leads);
    work.await.expect("the work ends");
    drop(channel);
    if let Err(error) = task.await.expect("the manager ends") {
        eprintln!("kube-lease-manager: {error}");
    }
}
