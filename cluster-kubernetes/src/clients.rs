//! Connections to the API server: heartbeats have their own, where nothing can be in front of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_lease::Settings;
use http::{Request, Response, StatusCode};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tracing::debug;

use crate::gate::{Failure, Gate, Kind};

/// How long a connection may take to be made, with TLS.
const CONNECT: Duration = Duration::from_millis(2_500);

/// Makes a client with connections and credentials of its own.
type Make = Arc<dyn Fn() -> Result<Client, kube::Error> + Send + Sync>;

/// The clients of one member. They are made when they are first needed, so that a missing file with
/// certificates is an error of a request, which is tried again, and not the end of the process.
///
/// All of them get new credentials at once when the server refuses the old ones, and wait with growing pauses
/// while it does not respond.
#[derive(Clone)]
pub(crate) struct Clients(Arc<Inner>);

struct Inner {
    make: Make,
    timing: Settings,
    heartbeat: Slot,
    /// For everything else but the watch.
    ordinary: Slot,
}

struct Slot {
    gate: Arc<Gate>,
    client: Mutex<Option<Client>>,
}

impl Slot {
    fn new(gate: Gate) -> Self {
        Self { gate: Arc::new(gate), client: Mutex::default() }
    }
}

impl Clients {
    pub(crate) fn new(
        timing: &Settings,
        make: impl Fn() -> Result<Client, kube::Error> + Send + Sync + 'static,
    ) -> Self {
        Self::of(Arc::new(make), timing, Kind::Ordinary)
    }

    fn of(make: Make, timing: &Settings, ordinary: Kind) -> Self {
        let heartbeat = Slot::new(Gate::new(Kind::Heartbeat, timing));
        let gate = Gate::new(ordinary, timing);
        // What is beside the election says nothing of what this member holds.
        let gate = if ordinary == Kind::Ordinary { gate.beside(&heartbeat.gate) } else { gate };
        Self(Arc::new(Inner { make, timing: *timing, heartbeat, ordinary: Slot::new(gate) }))
    }

    /// Clients for what is done beside the election: where that fails or is told to wait, the election is not.
    pub(crate) fn beside(&self) -> Self {
        Self::of(Arc::clone(&self.0.make), &self.0.timing, Kind::Beside)
    }

    pub(crate) fn of_config(mut config: Config, timing: &Settings) -> Self {
        install_tls();
        config.connect_timeout = Some(CONNECT);
        // A read timeout would end quiet watches. Every request has a time limit of its own instead.
        config.read_timeout = None;
        config.write_timeout = Some(CONNECT);
        // The election decides itself when to try again, and must know when a request was sent.
        config.default_retry = false;
        Self::new(timing, move || Ok(ClientBuilder::try_from(config.clone())?.build()))
    }

    /// How long a request may take, and any piece of a long response.
    pub(crate) fn patience(&self) -> Duration {
        self.0.timing.attempt_timeout()
    }

    /// For heartbeats; `fresh`: with new connections, because the old ones may be dead.
    pub(crate) fn heartbeat(&self, fresh: bool) -> Result<Client, kube::Error> {
        if fresh {
            *self.0.heartbeat.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.get(&self.0.heartbeat)
    }

    /// Why no request is sent now, where the server has asked for that.
    pub(crate) fn why_unsent(&self) -> Option<String> {
        self.0.ordinary.gate.why_unsent()
    }

    pub(crate) fn ordinary(&self) -> Result<Client, kube::Error> {
        self.get(&self.0.ordinary)
    }

    /// Another client, always with a new connection: for a watch that begins now, because that of the last
    /// one may have died without a word.
    pub(crate) fn another(&self) -> Result<Client, kube::Error> {
        Connection::open(&self.0.make, &self.0.ordinary.gate)
    }

    fn get(&self, slot: &Slot) -> Result<Client, kube::Error> {
        let mut client = slot.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let new = Connection::open(&self.0.make, &slot.gate)?;
        *client = Some(new.clone());
        Ok(new)
    }
}

/// What is behind a client.
struct Connection {
    make: Make,
    gate: Arc<Gate>,
    /// It is replaced when its credentials are refused, and then counted.
    present: Mutex<(u64, Client)>,
}

impl Connection {
    fn open(make: &Make, gate: &Arc<Gate>) -> Result<Client, kube::Error> {
        let client = make()?;
        let namespace = client.default_namespace().to_owned();
        let present = Mutex::new((0, client));
        let connection = Arc::new(Self { make: Arc::clone(make), gate: Arc::clone(gate), present });
        let service = tower::service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { connection.send(request).await }
        });
        Ok(Client::new(service, namespace))
    }

    fn present(&self) -> (u64, Client) {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        (present.0, present.1.clone())
    }

    /// A request that is refused for its credentials has not been looked at, so it is sent again with new ones.
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let sent = self.gate.turn().await;
        let again = copy_of(&request);
        let (number, client) = self.present();
        let mut answer = client.send(request).await;
        let refused = |answer: &Result<Response<Body>, _>| {
            answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::UNAUTHORIZED)
        };
        if let Some(again) = again.filter(|_| refused(&answer) && self.renew(number)) {
            answer = self.present().1.send(again).await;
        }
        match &answer {
            Ok(answer) if is_overloaded(answer.status()) || answer.status() == StatusCode::UNAUTHORIZED => {
                sent.failed(Failure::Refused { retry_after: retry_after(answer) }, &answer.status());
            }
            Ok(_) => sent.responded(),
            Err(error) => sent.failed(Failure::Silent, &router_core::error::Chain(error)),
        }
        answer
    }

    /// Replaces the client with this number, whose credentials are refused. The library below keeps a token by
    /// the wall clock, which may be set back; a new client reads it anew. Says whether there is another.
    fn renew(&self, number: u64) -> bool {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.0 != number {
            return true;
        }
        match (self.make)() {
            Ok(client) => *present = (number + 1, client),
            Err(error) => {
                debug!("the credentials cannot be read again: {}", router_core::error::Chain(&error));
                return false;
            }
        }
        true
    }
}

/// It would be refused or fail as well if it were sent again at once.
fn is_overloaded(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The API server gives seconds.
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn copy_of(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// With two TLS providers in one program, for example because another crate brings its own, rustls knows
/// none until somebody decides. If somebody has, their choice stands.
fn install_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that somebody else was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
