//! `direct:name`: calls another route of this process, in the task of the caller.
//!
//! | option | in | takes | default | meaning |
//! |---|---|---|---|---|
//! | `block` | `to` | boolean | `true` | whether a caller waits for the called route while that is stopped |
//! | `timeout` | `to` | duration | `30s` | how long it waits |
//!
//! While the called route is replaced by a new version, callers wait in any case, and longer. A call that the called
//! route does not end within its time to stop is dropped there, and fails: as `unavailable`, or below `master:` as one
//! whose term has ended.
//!
//! The caller's exchange travels through the called route and comes back changed; so does a failure. A
//! `direct:` name that no route consumes is a configuration error.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use router_core::component::{BuildContext, Component, Consumer, Endpoint, Hold, Processor, RouteHandle};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::failure::Failure;
use router_core::options::{ComponentDescription, OptionKind, PathKind, Side, option, path};
use router_core::pipeline::Pipeline;
use router_core::uri::EndpointUri;
use smol_str::{SmolStr, format_smolstr};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::patience::Places;

/// The component. Clones share their names: a route can be called through any of them.
#[derive(Clone, Default)]
pub struct DirectComponent {
    slots: Arc<Mutex<HashMap<SmolStr, Arc<Slot>>>>,
}

impl fmt::Debug for DirectComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectComponent").finish_non_exhaustive()
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "direct",
    summary: "calls another route of this process",
    syntax: "direct:name",
    path: path("name", PathKind::Route),
    consumes: true,
    produces: true,
    options: &[
        option(
            "block",
            OptionKind::Boolean,
            Some("true"),
            "whether a caller waits for the called route while that is stopped",
        )
        .of(Side::To),
        option("timeout", OptionKind::Duration, Some("30s"), "how long it waits").of(Side::To),
    ],
};

impl Component for DirectComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let name = errors.collect(uri.required_path("a direct endpoint needs a name: `direct:audit`"));
        if !options.boolean("block") && options.are_right(&["block"]) {
            errors.collect(uri.refuse_without("timeout", "block=true"));
        }
        errors.into_result()?;
        let name = name.unwrap_or_default();
        let address = format_smolstr!("direct:{name}");
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::clone(slots.entry(name).or_default());
        let patience = if options.boolean("block") { options.duration("timeout") } else { Duration::ZERO };
        Ok(Box::new(Direct { address, slot, patience }))
    }
}

/// Where the consumer of a name leaves its pipeline for the callers.
#[derive(Default)]
struct Slot {
    /// Read by every call; reading does not write to shared memory, so callers on different cores do not
    /// wait for each other.
    open: ArcSwapOption<Open>,
    /// Notified when the slot opens.
    opened: Notify,
    /// Held while the consumer is replaced.
    places: Places,
}

/// A pipeline that can be called. A call keeps it alive: when the last one drops it, `_drained` tells
/// the consumer.
struct Open {
    pipeline: Pipeline,
    /// Cancelled when the consumer is gone, also before the last call is done.
    over: CancellationToken,
    _drained: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Direct {
    address: SmolStr,
    slot: Arc<Slot>,
    /// How long a caller waits for the slot to open.
    patience: Duration,
}

#[async_trait]
impl Endpoint for Direct {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }

    fn processor(&self) -> Option<Arc<dyn Processor>> {
        Some(Arc::new(self.clone()))
    }

    fn local_address(&self) -> Option<&str> {
        Some(&self.address)
    }

    fn is_synchronous(&self, _: bool) -> bool {
        true
    }

    async fn hold(&self) -> Option<Hold> {
        Some(self.slot.places.hold())
    }
}

#[async_trait]
impl Consumer for Direct {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let (drained_sender, drained) = oneshot::channel();
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let closing = CloseOnDrop(&self.slot);
        let open = Open { pipeline: route.pipeline.clone(), over, _drained: drained_sender };
        self.slot.open.store(Some(Arc::new(open)));
        self.slot.opened.notify_waiters();
        route.ready();
        route.stop.requested().await;
        drop(closing);
        // The sender is never used: the channel closes when the last call is done.
        let _ = drained.await;
        Ok(())
    }
}

/// Closes the slot also when the consumer is aborted.
struct CloseOnDrop<'a>(&'a Slot);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.open.store(None);
    }
}

#[async_trait]
impl Processor for Direct {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let open = self.slot.open.load();
        if let Some(open) = &*open {
            return self.call(open, exchange).await;
        }
        drop(open);
        // Boxed, because it is rare, and each call has the room for it.
        Box::pin(self.process_when_open(exchange)).await
    }

    fn takes_files(&self) -> bool {
        true
    }
}

impl Direct {
    async fn process_when_open(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let open = self.wait().await;
        let open = open.ok_or_else(|| Failure::unavailable(format!("`{}` is not running", self.address)))?;
        self.call(&open, exchange).await
    }

    /// A call ends with the consumer, although it runs in the task of the caller.
    async fn call(&self, open: &Open, exchange: &mut Exchange) -> Result<(), BoxError> {
        tokio::select! {
            biased;
            // First, because a call that waits for nothing need not share the other one with those on other cores.
            result = open.pipeline.process(exchange) => result.map(|_| ()).map_err(Into::into),
            // Under a term, the pipeline ends it by itself, and says why.
            () = open.over.cancelled(), if open.pipeline.term().is_none() => {
                let error = format!("`{}` was stopped before it was done", self.address);
                Err(Failure::unavailable(error).into())
            }
        }
    }

    async fn wait(&self) -> Option<Arc<Open>> {
        let opened = async {
            loop {
                // Listen first, then look: an opening in between is not missed.
                let opened = self.slot.opened.notified();
                if let Some(open) = self.slot.open.load_full() {
                    return open;
                }
                opened.await;
            }
        };
        self.slot.places.within(self.patience, opened).await
    }
}
