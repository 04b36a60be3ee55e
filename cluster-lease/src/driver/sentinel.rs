//! The sentinel: ends terms at their deadline whatever the election's loop and the runtime do.
//!
//! It is a thread of its own with a timer of the kernel, because what it guards against is that the
//! runtime is starved or blocked, or that the host was suspended. It touches no store and no file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::alarm::approach;
use super::holds::Holds;

/// Starts it. It ends when `quit` is cancelled and nothing is left to watch over. Returns its thread, where
/// it has one.
pub(crate) fn start(
    holds: &Arc<Holds>,
    quit: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<Option<JoinHandle<()>>> {
    let (holds, quit) = (Arc::clone(holds), quit.clone());
    if holds.clock.follows_tokio() {
        tasks.spawn(watch_in_task(holds, quit));
        return Ok(None);
    }
    let thread = thread::Builder::new().name("lease-sentinel".into());
    thread.spawn(move || watch_in_thread(&holds, &quit)).map(Some)
}

fn watch_in_thread(holds: &Holds, quit: &CancellationToken) {
    loop {
        holds.alarm.wait();
        if quit.is_cancelled() && holds.is_quiet() {
            return;
        }
        holds.alarm.forget();
        let look = || {
            let left = holds.inspect()?;
            holds.alarm.ring_by(holds.clock.leader() + left, &*holds.clock);
            Some(())
        };
        match contain_panic(holds, look) {
            Ok(Some(())) => {}
            Ok(None) if quit.is_cancelled() => return,
            Ok(None) => {}
            Err(Panicked) => {
                #[expect(clippy::disallowed_methods, reason = "this thread is no runtime's")]
                thread::sleep(RETRY_PAUSE);
                holds.alarm.ring();
            }
        }
    }
}

/// After a panic it looks again this soon.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

struct Panicked;

/// A panic in here, of a waker for one, must not end the watch: a strict process ends, because nobody can
/// say what still runs, and any other looks again.
fn contain_panic<T>(holds: &Holds, look: impl FnOnce() -> T) -> Result<T, Panicked> {
    // Unwind safety: the holds are atomics and a map that is only read here, and the alarm is set anew.
    let looked = catch_unwind(AssertUnwindSafe(look));
    if looked.is_err() && holds.is_strict() {
        std::process::abort();
    }
    looked.map_err(|_| Panicked)
}

async fn watch_in_task(holds: Arc<Holds>, quit: CancellationToken) {
    loop {
        holds.alarm.forget();
        let left = contain_panic(&holds, || holds.inspect()).unwrap_or(Some(RETRY_PAUSE));
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
