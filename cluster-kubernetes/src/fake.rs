//! An API server in this process, for tests: Leases, their watch, and whatever can go wrong with them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clients::Clients;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It is not carried out, and this is the answer.
    Refuse(u16, &'static str),
    /// It is not carried out, and nobody ever answers.
    Stall,
    /// It is carried out, and nobody ever answers.
    LoseAnswer,
    /// It is carried out, and the answer is something else.
    Garble(&'static str),
}

/// A request, as scripts see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) watch: bool,
    /// The number of the client, counted from 0 in the order in which they were made.
    pub(crate) client: usize,
}

impl Seen {
    pub(crate) fn is_heartbeat(&self) -> bool {
        self.method == Method::PUT && self.path.contains(".session.")
    }
}

type Script = Box<dyn FnMut(&Seen) -> Fault + Send>;

pub(crate) struct FakeServer {
    state: Mutex<State>,
    script: Mutex<Script>,
    pub(crate) seen: Mutex<Vec<Seen>>,
    clients: AtomicUsize,
    /// The newest version, for watches.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    uids: u64,
    leases: BTreeMap<String, Value>,
    /// Every change: its version and the event.
    log: Vec<(u64, Value)>,
    /// Changes up to this version are no longer kept.
    compacted: u64,
}

impl FakeServer {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { version: 100, ..State::default() }),
            script: Mutex::new(Box::new(|_| Fault::None)),
            seen: Mutex::default(),
            clients: AtomicUsize::new(0),
            version: watch::Sender::new(100),
        })
    }

    /// From now on, this decides what happens to requests.
    pub(crate) fn script(&self, script: impl FnMut(&Seen) -> Fault + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// The connections of one member.
    pub(crate) fn clients(self: &Arc<Self>) -> Clients {
        let server = Arc::clone(self);
        Clients::new(move || Ok(server.client()))
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let (server, number) = (Arc::clone(self), self.clients.fetch_add(1, Ordering::Relaxed));
        let service = tower::service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.serve(request, number).await) }
        });
        Client::new(service, "shop")
    }

    pub(crate) fn clients_made(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Forgets all changes, as a server does with old ones.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.version;
    }

    pub(crate) fn lease(&self, name: &str) -> Option<Value> {
        self.state().leases.get(name).cloned()
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut state = self.state();
        state.delete(name);
        self.version.send_replace(state.version);
    }

    /// Moves all watches on without a change.
    pub(crate) fn bookmark(&self) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let object = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"resourceVersion": version.to_string()}});
        state.log.push((version, json!({"type": "BOOKMARK", "object": object})));
        self.version.send_replace(version);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn serve(self: Arc<Self>, request: Request<Body>, client: usize) -> Answer {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let seen = Seen {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            watch: query.contains("watch=true"),
            client,
        };
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let fault = (self.script.lock().unwrap())(&seen);
        self.seen.lock().unwrap().push(seen.clone());
        match fault {
            Fault::Refuse(code, reason) => return refuse(code, reason),
            Fault::Stall => return std::future::pending().await,
            Fault::None | Fault::LoseAnswer | Fault::Garble(_) => {}
        }
        let answer = if seen.watch { self.watch(&query) } else { self.answer(&seen, &body) };
        match fault {
            Fault::LoseAnswer => std::future::pending().await,
            Fault::Garble(text) => full(200, Bytes::from_static(text.as_bytes())),
            _ => answer,
        }
    }

    fn answer(&self, seen: &Seen, body: &[u8]) -> Answer {
        if seen.path.ends_with("selfsubjectaccessreviews") {
            return object(&json!({"spec": {}, "status": {"allowed": true}}));
        }
        let name = seen.path.rsplit_once("/leases").unwrap().1.trim_start_matches('/').to_owned();
        let mut state = self.state();
        let answer = match seen.method {
            Method::GET if name.is_empty() => {
                let items = state.leases.values().cloned().collect::<Vec<_>>();
                object(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList",
                    "metadata": {"resourceVersion": state.version.to_string()}, "items": items}))
            }
            Method::GET => state.leases.get(&name).map_or_else(|| refuse(404, "NotFound"), object),
            Method::DELETE => {
                state.delete(&name).map_or_else(|| refuse(404, "NotFound"), |lease| object(&lease))
            }
            Method::POST => state.create(serde_json::from_slice(body).unwrap()),
            Method::PUT => state.replace(&name, serde_json::from_slice(body).unwrap()),
            _ => refuse(405, "MethodNotAllowed"),
        };
        self.version.send_replace(state.version);
        answer
    }

    /// All changes after a version, and all that will be.
    fn watch(self: &Arc<Self>, query: &str) -> Answer {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
        let from = from.parse::<u64>().unwrap();
        if from < self.state().compacted {
            return refuse(410, "Expired");
        }
        let events = stream::unfold(
            (Arc::clone(self), self.version.subscribe(), from),
            |(server, mut news, from)| async move {
                loop {
                    let next = server.state().log.iter().find(|(version, _)| *version > from).cloned();
                    if let Some((version, event)) = next {
                        return Some((event, (server, news, version)));
                    }
                    news.changed().await.ok()?;
                }
            },
        );
        let frames = events.map(|event| Ok(http_body::Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames)))
    }
}

impl State {
    fn put(&mut self, kind: &str, mut lease: Value) -> Answer {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = lease["metadata"]["name"].as_str().unwrap().to_owned();
        self.log.push((self.version, json!({"type": kind, "object": lease})));
        self.leases.insert(name, lease.clone());
        object(&lease)
    }

    fn create(&mut self, mut lease: Value) -> Answer {
        if self.leases.contains_key(lease["metadata"]["name"].as_str().unwrap()) {
            return refuse(409, "AlreadyExists");
        }
        self.uids += 1;
        lease["metadata"]["uid"] = json!(self.uids.to_string());
        self.put("ADDED", lease)
    }

    /// As the worst of servers does it: what does not exist is made, unless a uid says that it did.
    fn replace(&mut self, name: &str, lease: Value) -> Answer {
        let uid = lease["metadata"]["uid"].as_str();
        let Some(present) = self.leases.get(name) else {
            return if uid.is_some() { refuse(409, "Conflict") } else { self.create(lease) };
        };
        if uid.is_some_and(|uid| present["metadata"]["uid"] != uid)
            || present["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]
        {
            return refuse(409, "Conflict");
        }
        self.put("MODIFIED", lease)
    }

    fn delete(&mut self, name: &str) -> Option<Value> {
        let mut lease = self.leases.remove(name)?;
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((self.version, json!({"type": "DELETED", "object": lease})));
        Some(lease)
    }
}

fn full(code: u16, body: Bytes) -> Answer {
    Response::builder().status(code).body(UnsyncBoxBody::new(Full::new(body))).unwrap()
}

fn object(object: &Value) -> Answer {
    full(200, Bytes::from(object.to_string()))
}

fn refuse(code: u16, reason: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": "the test wants it so", "metadata": {}});
    full(code, Bytes::from(status.to_string()))
}
