//! A way to the API server that a test can spoil: one per member, on a port of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::gateway;

/// What happens to the bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Connections are accepted, and nothing passes. What was sent passes when the fault has ended, as
    /// it does when a cable is plugged in again.
    BlackHole,
    /// Answers arrive this much later.
    DelayAnswers(Duration),
    /// Connections are closed, also new ones.
    Cut,
    /// Connections are closed, and requests on new ones are answered with this status, as an overloaded
    /// server (429), a broken one (500), or one that has forgotten the past (410) would.
    Refuse(u16),
    /// Requests arrive, and the connection that should bring the answer is dead without a word. It stays
    /// dead when the fault has ended.
    HalfOpen,
}

/// The proxy; it ends with its runtime.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fault: watch::Sender<Fault>,
    open: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn start(runtime: &Runtime, target: u16) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = watch::Sender::new(Fault::None);
        let faults = fault.subscribe();
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                near.set_nodelay(true).unwrap();
                let (faults, count) = (faults.clone(), Arc::clone(&count));
                #[expect(clippy::disallowed_methods, reason = "the runtime of the test is its supervisor")]
                tokio::spawn(async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    carry(near, target, faults).await;
                    count.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { port, fault, open }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many connections are open now.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

async fn carry(near: TcpStream, target: u16, faults: watch::Receiver<Fault>) {
    let fault = *faults.borrow();
    if let Fault::Refuse(status) = fault {
        return gateway::refuse(near, status).await;
    }
    let mut cut = faults.clone();
    tokio::select! {
        biased;
        _ = cut.wait_for(|fault| matches!(fault, Fault::Cut | Fault::Refuse(_))) => {}
        () = carry_both_ways(near, target, faults) => {}
    }
}

async fn carry_both_ways(near: TcpStream, target: u16, faults: watch::Receiver<Fault>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    far.set_nodelay(true).unwrap();
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        biased;
        () = carry_one_way(near_read, far_write, faults.clone(), false) => {}
        () = carry_one_way(far_read, near_write, faults, true) => {}
    }
}

async fn carry_one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Fault>,
    answers: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut dead = false;
    loop {
        let Ok(length) = from.read(&mut buffer).await else { return };
        if length == 0 {
            return;
        }
        let fault = *faults.borrow();
        match fault {
            Fault::DelayAnswers(delay) if answers => tokio::time::sleep(delay).await,
            Fault::HalfOpen if answers => dead = true,
            _ => {}
        }
        if dead {
            continue;
        }
        // Also what was on its way when the hole opened falls into it.
        if faults.wait_for(|fault| *fault != Fault::BlackHole).await.is_err()
            || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}
