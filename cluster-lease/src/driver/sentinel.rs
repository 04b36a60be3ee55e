//! The sentinel: ends terms at their deadline whatever the election's loop and the runtime do.
//!
//! It is a thread of its own with a timer of the kernel, because what it guards against is that the
//! runtime is starved or blocked, or that the host was suspended. It touches no store and no file.

use std::sync::Arc;
use std::thread;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::alarm::approach;
use super::holds::Holds;

/// Starts it. It ends when `quit` is cancelled and nothing is left to watch over.
pub(crate) fn start(
    holds: &Arc<Holds>,
    quit: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<()> {
    let (holds, quit) = (Arc::clone(holds), quit.clone());
    if holds.clock.follows_tokio() {
        tasks.spawn(watch_in_task(holds, quit));
        return Ok(());
    }
    thread::Builder::new().name("lease-sentinel".into()).spawn(move || watch_in_thread(&holds, &quit))?;
    Ok(())
}

fn watch_in_thread(holds: &Holds, quit: &CancellationToken) {
    loop {
        holds.alarm.wait();
        if quit.is_cancelled() && holds.is_quiet() {
            return;
        }
        holds.alarm.forget();
        match holds.inspect() {
            Some(left) => holds.alarm.ring_by(holds.clock.leader() + left, &*holds.clock),
            None if quit.is_cancelled() => return,
            None => {}
        }
    }
}

async fn watch_in_task(holds: Arc<Holds>, quit: CancellationToken) {
    loop {
        holds.alarm.forget();
        let left = holds.inspect();
        let timer = async {
            match left {
                Some(left) => sleep(approach(left)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = quit.cancelled() => return,
            () = holds.alarm.rung() => {}
            () = timer => {}
        }
    }
}
