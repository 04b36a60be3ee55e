//! `seda:name`: hands exchanges to another route of this process through a queue.
//!
//! | option | in | takes | default | meaning |
//! |---|---|---|---|---|
//! | `size` | both | integer |  | how many exchanges the queue holds; 1000 where no URI of that name says it |
//! | `concurrent_consumers` | `from` | integer | `1` | how many exchanges the consuming route works on at a time |
//! | `block_when_full` | `to` | boolean | `false` | whether a sender waits for room in a full queue; without it sending fails |
//! | `offer_timeout` | `to` | duration |  | how long it waits for room; unset: no limit |
//! | `wait_for_task_to_complete` | `to` | never, under_term, always | `under_term` | when a sender waits until its exchange is done, and gets it back changed, or its failure |
//! | `timeout` | `to` | duration | `30s` | how long it waits for that; `0` means without end |
//!
//! The queue is in memory and belongs to the component: exchanges stay in it while the consuming route is
//! stopped. When that route stops, it first works off what was accepted. When a new version replaces it, what
//! is queued is for that, and senders wait meanwhile, also for room; what is in hand ends in the old version, or is
//! dropped when the time to stop is over: it does not begin again, and a sender that waits for it fails with
//! `unavailable`. When it consumes
//! `master:lock:seda:name` and the term ends, what is still queued stays for the next term, and an
//! exchange in hand whose work was aborted is put back in front, as it was when it was sent: it may be
//! worked on twice, it is not lost. What is in the queue when the process ends is dropped: each exchange with a
//! line in the log, and the exit code is 1. A `seda:` name that no route consumes is a configuration error.
//!
//! What is queued is another exchange, with an id of its own and the same message and properties. A transaction of
//! the sender, such as that of a `sql:` poll, is not for it: what it writes stays when the sender fails afterwards.
//! A route that sends every exchange to its own queue and waits for it would wait for itself, which is a configuration
//! error. Without waiting, an exchange may come back to its queue any number of times; at a stop, one that always does is dropped when the
//! time to stop is over.
//!
//! An exchange of a `master:` route keeps its term on its way through the queue, and after the end of
//! that term nothing of it runs any more: work that has begun holds the lock as any other work of the term, also when
//! its sender has not waited for it or has given up. By default the sender waits, so that this is so from the beginning.
//! With `never` the sender goes on at once, as Camel's does; what is then still queued when the term ends is not run,
//! and a line in the log says so.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use router_core::cluster::Term;
use router_core::component::{
    BuildContext, Component, Consumer, Endpoint, Hold, Processor, RouteHandle, Waiting,
};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::failure::Failure;
use router_core::options::{ComponentDescription, OptionKind, PathKind, Side, option, path};
use router_core::outcome::RouteError;
use router_core::pipeline::Pipeline;
use router_core::stop::Stop;
use router_core::uri::EndpointUri;
use smol_str::{SmolStr, ToSmolStr, format_smolstr};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::patience::Places;

/// The component. Clones share their queues: an exchange can be sent through any of them.
#[derive(Clone, Default)]
pub struct SedaComponent {
    queues: Arc<Mutex<HashMap<SmolStr, Arc<Queue>>>>,
}

impl fmt::Debug for SedaComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SedaComponent").finish_non_exhaustive()
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "seda",
    summary: "hands exchanges to another route of this process through a queue",
    syntax: "seda:name",
    path: path("name", PathKind::Route),
    consumes: true,
    produces: true,
    options: &[
        option(
            "size",
            OptionKind::Integer,
            None,
            "how many exchanges the queue holds; 1000 where no URI of that name says it",
        ),
        option(
            "concurrent_consumers",
            OptionKind::Integer,
            Some("1"),
            "how many exchanges the consuming route works on at a time",
        )
        .of(Side::From),
        option(
            "block_when_full",
            OptionKind::Boolean,
            Some("false"),
            "whether a sender waits for room in a full queue; without it sending fails",
        )
        .of(Side::To),
        option("offer_timeout", OptionKind::Duration, None, "how long it waits for room; unset: no limit")
            .of(Side::To),
        option(
            "wait_for_task_to_complete",
            OptionKind::Choice(&["never", "under_term", "always"]),
            Some("under_term"),
            "when a sender waits until its exchange is done, and gets it back changed, or its failure",
        )
        .of(Side::To),
        option(
            "timeout",
            OptionKind::Duration,
            Some("30s"),
            "how long it waits for that; `0` means without end",
        )
        .of(Side::To),
    ],
};

/// Where no URI says how many exchanges a queue holds.
const DEFAULT_SIZE: usize = 1000;

/// More tasks than this for one route are an error in the URI, as in Camel.
const MAX_CONSUMERS: u64 = 500;

impl Component for SedaComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let name = errors.collect(uri.required_path("a seda endpoint needs a name: `seda:work`"));
        errors.into_result()?;
        let name = name.unwrap_or_default();
        let address = format_smolstr!("seda:{name}");
        let consumers = options.integer("concurrent_consumers").unwrap_or(1);
        if !(1..=MAX_CONSUMERS).contains(&consumers) {
            let message = format!("option `concurrent_consumers` takes a number from 1 to {MAX_CONSUMERS}");
            return Err(uri.error_at_option("concurrent_consumers", message).into());
        }
        let queue = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(queues.entry(name).or_default())
        };
        let size = options.integer("size").map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        if size == Some(0) {
            return Err(uri.error_at_option("size", "option `size` takes a number greater than 0").into());
        }
        let size = size.map(|size| queue.set_size(size));
        let offer_timeout = options.optional_duration("offer_timeout").unwrap_or(Duration::MAX);
        Ok(Box::new(Seda {
            address,
            queue,
            size,
            consumers,
            room_patience: if options.boolean("block_when_full") { offer_timeout } else { Duration::ZERO },
            wait: match options.text("wait_for_task_to_complete").as_deref() {
                Some("never") => Wait::Never,
                Some("always") => Wait::Always,
                _ => Wait::UnderTerm,
            },
            reply_patience: match options.duration("timeout") {
                Duration::ZERO => Duration::MAX,
                patience => patience,
            },
        }))
    }
}

#[derive(Clone)]
struct Seda {
    address: SmolStr,
    queue: Arc<Queue>,
    /// The size that this URI gives to the queue, as long as it is used.
    size: Option<Arc<usize>>,
    consumers: u64,
    /// How long a sender waits for room.
    room_patience: Duration,
    wait: Wait,
    /// How long a sender waits until its exchange is done.
    reply_patience: Duration,
}

/// When a sender waits until its exchange is done.
#[derive(Clone, Copy)]
enum Wait {
    Never,
    UnderTerm,
    Always,
}

impl Wait {
    fn applies(self, under_term: bool) -> bool {
        match self {
            Self::Never => false,
            Self::UnderTerm => under_term,
            Self::Always => true,
        }
    }
}

#[async_trait]
impl Endpoint for Seda {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }

    fn processor(&self) -> Option<Arc<dyn Processor>> {
        Some(Arc::new(self.clone()))
    }

    fn local_address(&self) -> Option<&str> {
        Some(&self.address)
    }

    fn shared_option(&self) -> Option<(&'static str, SmolStr)> {
        self.size.as_deref().map(|size| ("size", size.to_smolstr()))
    }

    async fn hold(&self) -> Option<Hold> {
        Some(self.queue.places.hold())
    }

    /// A sender that waits for its own route waits for ever.
    fn is_synchronous(&self, under_term: bool) -> bool {
        self.wait.applies(under_term)
    }

    fn abandon(&self) -> Vec<Waiting> {
        let entries = std::mem::take(&mut self.queue.state().entries);
        let waiting = entries.iter().filter(|entry| !entry.told && !entry.is_abandoned());
        waiting.map(|entry| Waiting { exchange: entry.exchange.id, since: entry.since }).collect()
    }
}

#[async_trait]
impl Processor for Seda {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let waits = self.wait.applies(exchange.term.is_some());
        let (reply, done) = if waits {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let entry = Entry { exchange: exchange.fork(), reply, since: Instant::now(), told: false };
        let offered = self.queue.places.within(self.room_patience, self.queue.offer(entry));
        if offered.await.is_none() {
            return Err(Failure::unavailable(format!("the queue `{}` is full", self.address)).into());
        }
        let Some(done) = done else { return Ok(()) };
        let Some(reply) = self.queue.places.within(self.reply_patience, done).await else {
            let patience = self.reply_patience;
            let error = format!("`{}` has not done it within {patience:?}", self.address);
            return Err(Failure::timeout(error).into());
        };
        let done =
            reply.map_err(|_| Failure::unavailable(format!("`{}` has dropped it", self.address)))??;
        exchange.message = done.message;
        exchange.properties = done.properties;
        Ok(())
    }

    fn takes_files(&self) -> bool {
        true
    }
}

#[async_trait]
impl Consumer for Seda {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        // The tasks are aborted when this future is dropped.
        let mut workers = JoinSet::new();
        for _ in 0..self.consumers {
            let work = work(Arc::clone(&self.queue), route.pipeline.clone(), route.stop.clone());
            workers.spawn(route.pipeline.track(work));
        }
        route.ready();
        while let Some(result) = workers.join_next().await {
            result?;
        }
        Ok(())
    }
}

/// Works on one exchange after the other until there will be none for this consumer.
async fn work(queue: Arc<Queue>, pipeline: Pipeline, stop: Stop) {
    while let Some(entry) = queue.next(&pipeline, &stop).await {
        let mut exchange = entry.exchange.clone();
        let in_hand = InHand { queue: &queue, pipeline: &pipeline, entry: Some(entry) };
        let result = pipeline.process_apart(&mut exchange).await;
        // The work was refused or aborted because the term of this consumer has ended: it is still to
        // be done. A failure for any other reason is final.
        if result.is_err() && has_ended(pipeline.term()) {
            in_hand.put_back();
            continue;
        }
        in_hand.finish(result.map(|_| exchange));
    }
}

fn has_ended(term: Option<&Term>) -> bool {
    term.is_some_and(|term| !term.is_valid())
}

/// Exchanges on their way from senders to the consumer.
struct Queue {
    state: Mutex<State>,
    /// Notified when there is an exchange. A permit wakes one consumer, which passes it on while there
    /// are more.
    filled: Notify,
    /// Notified when there is room, in the same manner.
    freed: Notify,
    /// Held while the consumer is replaced.
    places: Places,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// What the URIs say that are used. They agree: those that will replace others count when the others are gone.
    sizes: Vec<Weak<usize>>,
}

impl State {
    fn has_room(&self) -> bool {
        let size = self.sizes.iter().find_map(Weak::upgrade);
        self.entries.len() < size.map_or(DEFAULT_SIZE, |size| *size)
    }
}

/// An exchange that was sent, and who waits for it.
struct Entry {
    exchange: Exchange,
    reply: Option<oneshot::Sender<Result<Exchange, RouteError>>>,
    /// When it was sent.
    since: Instant,
    /// Set when the work on it was dropped, which the pipeline has told.
    told: bool,
}

impl Entry {
    /// Whether its sender has waited for it and does so no longer. It may have sent it again.
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            freed: Notify::new(),
            places: Places::default(),
        }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the queue a size, for as long as the returned value exists.
    fn set_size(&self, size: usize) -> Arc<usize> {
        let size = Arc::new(size);
        let mut state = self.state();
        state.sizes.retain(|size| size.strong_count() > 0);
        state.sizes.push(Arc::downgrade(&size));
        size
    }

    /// Appends an entry as soon as there is room.
    ///
    /// # Cancellation
    /// Safe: a dropped offer was not made. The first poll makes it when there is room.
    async fn offer(&self, entry: Entry) {
        loop {
            {
                let mut state = self.state();
                if state.has_room() {
                    state.entries.push_back(entry);
                    self.filled.notify_one();
                    if state.has_room() {
                        self.freed.notify_one();
                    }
                    return;
                }
            }
            self.freed.notified().await;
        }
    }

    /// The next entry, or `None` when there will be none for the consumer with this pipeline.
    async fn next(&self, pipeline: &Pipeline, stop: &Stop) -> Option<Entry> {
        loop {
            if has_ended(pipeline.term()) {
                // What is queued is left for the next term. Who ended this one asks to stop.
                stop.requested().await;
                return None;
            }
            // What is queued is for the next version of the route.
            if stop.is_requested() && self.places.is_held() {
                return None;
            }
            if let Some(entry) = self.pop() {
                return Some(entry);
            }
            if stop.is_requested() {
                return None;
            }
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = self.filled.notified() => {}
            }
        }
    }

    fn pop(&self) -> Option<Entry> {
        let mut state = self.state();
        let entry = loop {
            let entry = state.entries.pop_front();
            if !entry.as_ref().is_some_and(Entry::is_abandoned) {
                break entry;
            }
        };
        if !state.entries.is_empty() {
            self.filled.notify_one();
        }
        if state.has_room() {
            self.freed.notify_one();
        }
        entry
    }

    /// Takes back what was popped. The queue may then hold more than its size, by one for each consumer.
    fn put_back(&self, entry: Entry) {
        self.state().entries.push_front(entry);
        self.filled.notify_one();
    }
}

/// An entry that is worked on. It goes back to the queue when the work is dropped because the term of its consumer has
/// ended. Otherwise it is dropped with the work: it does not begin again in another version of the route.
struct InHand<'a> {
    queue: &'a Queue,
    pipeline: &'a Pipeline,
    entry: Option<Entry>,
}

impl InHand<'_> {
    fn put_back(mut self) {
        if let Some(entry) = self.entry.take() {
            self.queue.put_back(entry);
        }
    }

    fn finish(mut self, result: Result<Exchange, RouteError>) {
        // A failure is logged already. The sender may have gone meanwhile.
        if let Some(Entry { reply: Some(reply), .. }) = self.entry.take() {
            let _ = reply.send(result);
        }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take()
            && has_ended(self.pipeline.term())
        {
            self.queue.put_back(Entry { told: true, ..entry });
        }
    }
}
