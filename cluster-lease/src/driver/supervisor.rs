//! The supervisor of the election's loop: whatever happens in there, the election goes on.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::command::Command;
use super::desired::DesiredState;
use super::election::{Election, End, Environment};
use super::holds::Holds;
use super::settings::LeaseClusterSettings;
use crate::core::Identity;

/// Runs elections until one ends in good order.
pub(crate) async fn supervise(
    around: Environment,
    settings: LeaseClusterSettings,
    mut identity: Identity,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    quit: CancellationToken,
) {
    let _quit = Quit { quit, holds: Arc::clone(&around.holds) };
    let mut desired = DesiredState::default();
    loop {
        let run = async { Election::new(&around, &mut desired, identity).run(&mut inbox).await };
        let why = match contain_panic(run).await {
            Ok(End::Closed) => break,
            Ok(End::Shared) => "another process took part under the same number".to_owned(),
            Err(panic) => format!("the election panicked: {panic}"),
        };
        around.holds.fence_all();
        // Without this task no lock would ever be led here again: telling of a panic may panic itself, where the
        // log does.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            error!("all leadership has ended, and the election begins anew: {why}");
            for participation in desired.participations.values() {
                participation.publisher.follow(None, &why);
            }
        }));
        // The old incarnation's heartbeats are over. The new one must not be taken for it.
        loop {
            sleep(around.timing.heartbeat()).await;
            match settings.identity() {
                Ok(next) => break identity = next,
                Err(error) => {
                    let _ =
                        catch_unwind(AssertUnwindSafe(|| error!("{}", router_core::error::Chain(&error))));
                }
            }
        }
    }
}

/// Ends the sentinel with the supervisor, also when the runtime drops it.
struct Quit {
    quit: CancellationToken,
    holds: Arc<Holds>,
}

impl Drop for Quit {
    fn drop(&mut self) {
        self.quit.cancel();
        self.holds.alarm.ring();
    }
}

/// Turns a panic into its text.
async fn contain_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // Unwind safety: after a panic the future, and with it the core, is dropped. What outlives it are
        // the desired state, which is valid after each statement, and the holds, which are fenced.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(text(&*panic))),
        }
    })
    .await
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
