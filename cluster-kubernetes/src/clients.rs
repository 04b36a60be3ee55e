//! Connections to the API server: heartbeats have their own, where nothing can be in front of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};

/// How long a connection may take to be made, with TLS.
const CONNECT: Duration = Duration::from_millis(2_500);

/// Makes a client with connections of its own.
type Make = Box<dyn Fn() -> Result<Client, kube::Error> + Send + Sync>;

/// The clients of one member. They are made when they are first needed, so that a missing file with
/// certificates is an error of a request, which is tried again, and not the end of the process.
#[derive(Clone)]
pub(crate) struct Clients(Arc<Inner>);

struct Inner {
    make: Make,
    heartbeat: Mutex<Option<Client>>,
    /// For everything else but the watch.
    ordinary: Mutex<Option<Client>>,
}

impl Clients {
    pub(crate) fn new(make: impl Fn() -> Result<Client, kube::Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            make: Box::new(make),
            heartbeat: Mutex::default(),
            ordinary: Mutex::default(),
        }))
    }

    pub(crate) fn of_config(mut config: Config) -> Self {
        install_tls();
        config.connect_timeout = Some(CONNECT);
        // A read timeout would end quiet watches. Every request has a time limit of its own instead.
        config.read_timeout = None;
        config.write_timeout = Some(CONNECT);
        // The election decides itself when to try again, and must know when a request was sent.
        config.default_retry = false;
        Self::new(move || Ok(ClientBuilder::try_from(config.clone())?.build()))
    }

    /// For heartbeats; `fresh`: with new connections, because the old ones may be dead.
    pub(crate) fn heartbeat(&self, fresh: bool) -> Result<Client, kube::Error> {
        if fresh {
            *self.0.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.get(&self.0.heartbeat)
    }

    pub(crate) fn ordinary(&self) -> Result<Client, kube::Error> {
        self.get(&self.0.ordinary)
    }

    /// Another client, always with a new connection: for a watch that begins now, because that of the last
    /// one may have died without a word.
    pub(crate) fn another(&self) -> Result<Client, kube::Error> {
        (self.0.make)()
    }

    fn get(&self, slot: &Mutex<Option<Client>>) -> Result<Client, kube::Error> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = (self.0.make)()?;
        *slot = Some(client.clone());
        Ok(client)
    }
}

/// With two TLS providers in one program, for example because another crate brings its own, rustls knows
/// none until somebody decides. If somebody has, their choice stands.
fn install_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that somebody else was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
