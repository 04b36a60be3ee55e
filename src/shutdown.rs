//! [`run`]: a router until the process is asked to stop.

use router_core::router::{Router, Shutdown};

/// Runs a router until SIGINT (Ctrl-C) or SIGTERM, then drains it; a second signal aborts what is still
/// in flight.
///
/// # Cancellation
/// Dropping the future aborts all routes.
pub async fn run(router: &Router) -> Shutdown {
    router.run_until_or_abort(shutdown_signal(), shutdown_signal()).await
}

/// Completes at the next SIGINT or SIGTERM after it is first polled. Where there are no such signals,
/// at Ctrl-C.
///
/// # Cancellation
/// Safe. From the first poll on, the signals no longer end the process by themselves.
///
/// # Panics
/// When the operating system refuses to deliver signals: a process that cannot be stopped in order
/// should not start.
pub async fn shutdown_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).unwrap_or_else(|error| panic!("cannot listen for signals: {error}"));
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    if let Err(error) = tokio::signal::ctrl_c().await {
        panic!("cannot listen for signals: {error}");
    }
}
