//! An API server in this process, for tests: objects, their watches, and whatever can go wrong with them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cluster_lease::Settings;
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
    /// A watch is opened, and nothing ever comes.
    Deaf,
    /// It is carried out, and the answer comes in twenty pieces, each of which takes this long; `false`: the
    /// last one never comes.
    Trickle(Duration, bool),
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
    /// The resource, and the name where there is one.
    fn target(&self) -> (String, String) {
        let rest = self.path.split_once("/namespaces/shop/").unwrap().1;
        let (resource, name) = rest.split_once('/').unwrap_or((rest, ""));
        (resource.to_owned(), name.to_owned())
    }

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

/// A change.
#[derive(Clone)]
struct Logged {
    version: u64,
    resource: String,
    event: Value,
    /// The object before.
    before: Value,
}

#[derive(Default)]
struct State {
    version: u64,
    uids: u64,
    /// By resource and name.
    objects: BTreeMap<(String, String), Value>,
    log: Vec<Logged>,
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
        Clients::new(&Settings::default(), move || Ok(server.client()))
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        self.client_until(&Arc::default())
    }

    /// The connections of a member that are dead from when this is true.
    pub(crate) fn clients_until(self: &Arc<Self>, crashed: &Arc<AtomicBool>) -> Clients {
        let (server, crashed) = (Arc::clone(self), Arc::clone(crashed));
        Clients::new(&Settings::default(), move || Ok(server.client_until(&crashed)))
    }

    fn client_until(self: &Arc<Self>, crashed: &Arc<AtomicBool>) -> Client {
        let (server, number) = (Arc::clone(self), self.clients.fetch_add(1, Ordering::Relaxed));
        let crashed = Arc::clone(crashed);
        let service = tower::service_fn(move |request| {
            let (server, crashed) = (Arc::clone(&server), Arc::clone(&crashed));
            async move {
                if crashed.load(Ordering::Relaxed) {
                    return std::future::pending().await;
                }
                Ok::<_, Infallible>(server.serve(request, number).await)
            }
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
        self.object("leases", name)
    }

    pub(crate) fn object(&self, resource: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&key(resource, name)).cloned()
    }

    /// All objects of a resource.
    pub(crate) fn objects(&self, resource: &str) -> Vec<Value> {
        self.state().of(resource)
    }

    /// Makes an object, or changes it, whatever it was.
    pub(crate) fn put(&self, resource: &str, object: &impl serde::Serialize) {
        let object = serde_json::to_value(object).unwrap();
        let mut state = self.state();
        let kind = match state.objects.contains_key(&key(resource, &name_of(&object))) {
            true => "MODIFIED",
            false => "ADDED",
        };
        let _ = state.put(kind, resource, object);
        self.version.send_replace(state.version);
    }

    pub(crate) fn delete(&self, name: &str) {
        self.delete_object("leases", name);
    }

    pub(crate) fn delete_object(&self, resource: &str, name: &str) {
        let mut state = self.state();
        state.delete(resource, name);
        self.version.send_replace(state.version);
    }

    /// Moves all watches on without a change.
    pub(crate) fn bookmark(&self) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let object = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"resourceVersion": version.to_string()}});
        let (event, before) = (json!({"type": "BOOKMARK", "object": object}), Value::Null);
        state.log.push(Logged { version, resource: "leases".into(), event, before });
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
            Fault::Deaf if seen.watch => {
                return Response::new(UnsyncBoxBody::new(StreamBody::new(stream::pending())));
            }
            Fault::None | Fault::Deaf | Fault::LoseAnswer | Fault::Trickle(..) | Fault::Garble(_) => {}
        }
        let answer = if seen.watch { self.watch(&seen, &query) } else { self.answer(&seen, &query, &body) };
        match fault {
            Fault::LoseAnswer => std::future::pending().await,
            Fault::Trickle(pause, whole) if !seen.watch => trickle(answer, pause, whole).await,
            Fault::Garble(text) => full(200, Bytes::from_static(text.as_bytes())),
            _ => answer,
        }
    }

    fn answer(&self, seen: &Seen, query: &str, body: &[u8]) -> Answer {
        if seen.path.ends_with("selfsubjectaccessreviews") {
            return object(&json!({"spec": {}, "status": {"allowed": true}}));
        }
        let (resource, name) = seen.target();
        let mut state = self.state();
        let answer = match seen.method {
            Method::GET if name.is_empty() => object(&json!({"apiVersion": "v1", "kind": "List",
                "metadata": {"resourceVersion": state.version.to_string()},
                "items": state.of(&resource).into_iter().filter(|object| selected(query, object)).collect::<Vec<_>>()})),
            Method::GET => {
                state.objects.get(&key(&resource, &name)).map_or_else(|| refuse(404, "NotFound"), object)
            }
            Method::DELETE => {
                let wanted = serde_json::from_slice::<Value>(body).unwrap_or_default();
                state.delete_if(&resource, &name, &wanted["preconditions"])
            }
            Method::POST => state.create(&resource, serde_json::from_slice(body).unwrap()),
            Method::PUT => state.replace(&resource, &name, serde_json::from_slice(body).unwrap()),
            _ => refuse(405, "MethodNotAllowed"),
        };
        self.version.send_replace(state.version);
        answer
    }

    /// All changes after a version, and all that will be.
    fn watch(self: &Arc<Self>, seen: &Seen, query: &str) -> Answer {
        let resource = seen.target().0;
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
        let from = from.parse::<u64>().unwrap();
        if from < self.state().compacted {
            return refuse(410, "Expired");
        }
        let events = stream::unfold(
            (Arc::clone(self), self.version.subscribe(), from, resource, query.to_owned()),
            |(server, mut news, mut from, resource, query)| async move {
                loop {
                    let newer = |change: &&Logged| change.version > from && change.resource == resource;
                    let next = server.state().log.iter().find(newer).cloned();
                    if let Some(next) = next {
                        from = next.version;
                        match next.for_watch(&query) {
                            Some(event) => return Some((event, (server, news, from, resource, query))),
                            None => continue,
                        }
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
    fn of(&self, resource: &str) -> Vec<Value> {
        let of = self.objects.iter().filter(|((kind, _), _)| kind == resource);
        of.map(|(_, object)| object.clone()).collect()
    }

    fn put(&mut self, kind: &str, resource: &str, mut new: Value) -> Answer {
        self.version += 1;
        new["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.objects.insert(key(resource, &name_of(&new)), new.clone()).unwrap_or_default();
        let event = json!({"type": kind, "object": new});
        self.log.push(Logged { version: self.version, resource: resource.into(), event, before });
        object(&new)
    }

    fn create(&mut self, resource: &str, mut new: Value) -> Answer {
        if self.objects.contains_key(&key(resource, &name_of(&new))) {
            return refuse(409, "AlreadyExists");
        }
        self.uids += 1;
        new["metadata"]["uid"] = json!(self.uids.to_string());
        self.put("ADDED", resource, new)
    }

    /// As the worst of servers does it: what does not exist is made, unless a uid says that it did.
    fn replace(&mut self, resource: &str, name: &str, new: Value) -> Answer {
        let uid = new["metadata"]["uid"].as_str();
        let Some(present) = self.objects.get(&key(resource, name)) else {
            return if uid.is_some() { refuse(409, "Conflict") } else { self.create(resource, new) };
        };
        if uid.is_some_and(|uid| present["metadata"]["uid"] != uid)
            || present["metadata"]["resourceVersion"] != new["metadata"]["resourceVersion"]
        {
            return refuse(409, "Conflict");
        }
        self.put("MODIFIED", resource, new)
    }

    fn delete(&mut self, resource: &str, name: &str) -> Option<Value> {
        let mut gone = self.objects.remove(&key(resource, name))?;
        let before = gone.clone();
        self.version += 1;
        gone["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = json!({"type": "DELETED", "object": gone});
        self.log.push(Logged { version: self.version, resource: resource.into(), event, before });
        Some(gone)
    }

    fn delete_if(&mut self, resource: &str, name: &str, wanted: &Value) -> Answer {
        let Some(present) = self.objects.get(&key(resource, name)) else { return refuse(404, "NotFound") };
        let differs = |field: &str| wanted[field].is_string() && wanted[field] != present["metadata"][field];
        if differs("uid") || differs("resourceVersion") {
            return refuse(409, "Conflict");
        }
        self.delete(resource, name).map_or_else(|| refuse(404, "NotFound"), |gone| object(&gone))
    }
}

impl Logged {
    /// What a watch with this query tells of it: an object that loses its labels is deleted to it, at the
    /// version of that change and as it was before.
    fn for_watch(&self, query: &str) -> Option<Value> {
        let object = &self.event["object"];
        if self.event["type"] == "BOOKMARK" {
            return Some(self.event.clone());
        }
        let is = self.event["type"] != "DELETED" && selected(query, object);
        let was = !self.before.is_null() && selected(query, &self.before);
        let mut last = self.before.clone();
        last["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
        match (was, is) {
            (false, false) => None,
            (false, true) => Some(json!({"type": "ADDED", "object": object})),
            (true, true) => Some(json!({"type": "MODIFIED", "object": object})),
            (true, false) => Some(json!({"type": "DELETED", "object": last})),
        }
    }
}

/// Whether an object has the labels that a query asks for.
fn selected(query: &str, object: &Value) -> bool {
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector="));
    let selector = selector.unwrap_or_default().replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    selector.split(',').filter(|pair| !pair.is_empty()).all(|pair| {
        let (key, value) = pair.split_once('=').unwrap();
        object["metadata"]["labels"][key] == value
    })
}

fn key(resource: &str, name: &str) -> (String, String) {
    (resource.to_owned(), name.to_owned())
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn full(code: u16, body: Bytes) -> Answer {
    Response::builder().status(code).body(UnsyncBoxBody::new(Full::new(body))).unwrap()
}

async fn trickle(answer: Answer, pause: Duration, whole: bool) -> Answer {
    let (head, body) = answer.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    let pieces = text.chunks(text.len().div_ceil(20).max(1)).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let last = pieces.len() - 1;
    let frames = stream::iter(pieces.into_iter().enumerate()).then(move |(index, piece)| async move {
        if index == last && !whole {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(pause).await;
        Ok(http_body::Frame::data(piece))
    });
    Response::from_parts(head, UnsyncBoxBody::new(StreamBody::new(frames)))
}

fn object(object: &Value) -> Answer {
    full(200, Bytes::from(object.to_string()))
}

fn refuse(code: u16, reason: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": "the test wants it so", "metadata": {}});
    full(code, Bytes::from(status.to_string()))
}
