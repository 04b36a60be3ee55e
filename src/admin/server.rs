//! [`AdminListener`] and [`AdminServer`]: the thread that answers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use router_core::router::Router;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::exporter;
use super::http::{Admin, app};

/// How often the exporter sorts in what was measured, which it only collects otherwise.
const UPKEEP: Duration = Duration::from_secs(1);
/// How many connections there are at most.
const CONNECTIONS: usize = 64;
/// How long a connection may say nothing, or not finish what it asks.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener that serves nothing yet.
#[must_use = "it serves nothing yet"]
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<PrometheusHandle>,
}

impl AdminListener {
    /// Where to listen where nobody says anything else: for this host alone.
    pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9876);

    /// Listens at `address`; port 0 is any free one. From now on everything is measured that is built: call
    /// this first. `/metrics` shows it, unless the program has installed a recorder of its own (of the crate
    /// `metrics`) before.
    ///
    /// Whoever reaches the address can read which routes and locks there are, and is not asked for a name.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { address: listener.local_addr()?, listener, metrics: exporter::install() })
    }

    /// The address, with the port that was found.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the returned value is dropped. To be called within the runtime in which the router runs,
    /// whose health is what `/livez` tells.
    ///
    /// # Errors
    /// When there is no runtime, or no thread.
    pub fn serve(self, router: &Router) -> io::Result<AdminServer> {
        let admin = Admin {
            router: router.clone(),
            routes_run_in: Handle::try_current().map_err(io::Error::other)?,
            metrics: self.metrics,
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (quit, quitting) = oneshot::channel();
        let thread = thread::Builder::new().name("admin".into());
        let thread = thread.spawn(move || runtime.block_on(serve(self.listener, admin, quitting)))?;
        Ok(AdminServer { address: self.address, quit: Some(quit), thread: Some(thread) })
    }
}

async fn serve(listener: TcpListener, admin: Admin, quitting: oneshot::Receiver<()>) {
    let metrics = admin.metrics.clone();
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            if let Some(metrics) = &metrics {
                metrics.run_upkeep();
            }
        }
    };
    tokio::select! {
        biased;
        _ = quitting => {}
        ended = accept(listener, admin) => {
            let Err(error) = ended;
            tracing::error!("the admin listener has ended: {error}");
        }
        () = upkeep => {}
    }
}

/// Answers whoever connects. Whoever opens connections and says nothing takes neither the files of this process
/// nor the place of a probe: the oldest of too many connections is closed.
#[expect(clippy::disallowed_methods, reason = "this is their supervisor: they end here, or with the runtime")]
async fn accept(listener: TcpListener, admin: Admin) -> io::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let service = TowerToHyperService::new(app(admin));
    let mut server = Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut connections = VecDeque::<AbortHandle>::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one connection, or of a process that has no more files: both pass.
                tracing::debug!("a connection to the admin listener was not accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() == CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let (server, service) = (server.clone(), service.clone());
        let connection = async move {
            // What goes wrong with a connection is of interest to its other end alone.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        };
        connections.push_back(tokio::spawn(connection).abort_handle());
    }
}

/// The admin listener, as long as this exists. Keep it until the routes have stopped: probes are asked while
/// they stop, and nobody else sorts in what was measured.
#[must_use = "dropping it ends the listener"]
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    quit: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// The address, with the port that was found.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Waits until the address is free again, which takes no longer than what is being answered.
impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(self.quit.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
