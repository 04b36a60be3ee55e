//! [`Places`]: how long callers wait, while one version of a route takes over from another.

use std::sync::Arc;
use std::time::Duration;

use router_core::component::Hold;
use tokio::sync::watch;
use tokio::time::sleep;

/// Counts those who hold a place; see `Endpoint::hold`. The patience of callers begins when there are none.
#[derive(Clone, Default)]
pub(crate) struct Places {
    holds: Arc<watch::Sender<usize>>,
}

struct Held(Places);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.holds.send_modify(|holds| *holds -= 1);
    }
}

impl Places {
    pub(crate) fn hold(&self) -> Hold {
        self.holds.send_modify(|holds| *holds += 1);
        Box::new(Held(self.clone()))
    }

    pub(crate) fn is_held(&self) -> bool {
        *self.holds.borrow() > 0
    }

    /// What `work` brings, or `None` when it has taken longer than that, not counting while the place is held.
    ///
    /// # Cancellation
    /// As that of the work.
    pub(crate) async fn within<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.run_out(patience) => None,
        }
    }

    async fn run_out(&self, patience: Duration) {
        let mut holds = self.holds.subscribe();
        loop {
            // The sender lives as long as this: the waits cannot fail.
            let _ = holds.wait_for(|holds| *holds == 0).await;
            if patience.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                _ = holds.wait_for(|holds| *holds > 0) => {}
                () = sleep(patience) => return,
            }
        }
    }
}
