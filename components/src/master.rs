//! `master:lock:uri`: consumes the endpoint `uri` on one member of the cluster at a time: the one that
//! leads `lock`.
//!
//! No options. Every option in the URI belongs to the delegate: in `master:lock1:timer:clock?period=1s`,
//! `period` is an option of the timer. The lock name may contain any character; write a colon, a
//! question mark or a percent sign as `%XX`.
//!
//! When this member becomes the leader, a new consumer of the delegate is made and run until the term
//! ends. Each exchange carries the term; it is asked before each exchange, and before each step. When the
//! member gives its leadership up (the route stops, or it resigns), exchanges in flight are finished before
//! the lock is released. When the leadership is lost, they are aborted before the next leader may start.
//!
//! A delegate that ends by itself (`repeat_count=1`) has done its work for that term. One that cannot
//! start is tried again [`attempts`](MasterComponent::attempts) times; then this member resigns, so that
//! another one tries, and stays out of the election for a time that grows with each resignation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::{ClusterService, ClusterView, LeaderScope, LockName};
use router_core::component::{
    BuildContext, Component, Consumer, Endpoint, Hold, RouteHandle, Taken, Waiting, run_contained,
};
use router_core::definition::EndpointDefinition;
use router_core::error::{BoxError, Chain, ConfigError, ConfigErrors};
use router_core::options::{ComponentDescription, PathKind, path};
use router_core::stop::Stop;
use router_core::uri::EndpointUri;
use smol_str::SmolStr;
use tracing::{info, warn};

/// The component.
#[derive(Clone, Debug)]
pub struct MasterComponent {
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    attempts: u32,
    backoff: Duration,
}

/// Camel's defaults.
impl Default for MasterComponent {
    fn default() -> Self {
        Self { settings: Settings { attempts: 10, backoff: Duration::from_secs(5) } }
    }
}

impl MasterComponent {
    /// How often a delegate that cannot start is tried before this member resigns; at least once.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts.max(1);
        self
    }

    /// The pause between two tries.
    #[must_use]
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.settings.backoff = backoff;
        self
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "master",
    summary: "consumes an endpoint on one member of the cluster at a time",
    syntax: "master:lock:uri",
    path: path("", PathKind::Name),
    consumes: true,
    produces: false,
    options: &[],
};

impl Component for MasterComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(
        &self,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let cluster = context.cluster.ok_or_else(|| {
            uri.error_in_scheme("`master:` needs a cluster service, and none is configured").help(
                "in TOML add a table `[cluster]` with `service = \"file\"`; \
                 in Rust call `RouterBuilder::cluster`",
            )
        });
        let cluster = errors.collect(cluster);
        let Some((colon, delegate)) = split(uri) else {
            let message = "`master:` takes a lock and the URI of an endpoint";
            errors.push(uri.error_in_whole(message).help("for example `master:lock1:timer:clock?period=1s`"));
            errors.into_result()?;
            unreachable!("there is an error");
        };
        let lock = errors.collect(lock(uri, colon));
        let delegate = errors.collect(context.below_lock().source(&delegate));
        errors.into_result()?;
        let (Some(cluster), Some(lock), Some(delegate)) = (cluster, lock, delegate) else {
            unreachable!("what is missing is an error");
        };
        Ok(Box::new(Master {
            lock,
            delegate: delegate.into(),
            cluster: Arc::clone(cluster),
            settings: self.settings,
        }))
    }
}

/// The lock whose name ends at byte `colon` of the path.
fn lock(uri: &EndpointUri, colon: usize) -> Result<LockName, ConfigError> {
    if let Some(start) = uri.path()[..colon].find("${") {
        let error = uri.error_in_path(start..colon, "a placeholder is not replaced here");
        return Err(error.help("a lock has one name: no message chooses it"));
    }
    let name = uri.decoded_path_part(0..colon)?;
    name.parse::<LockName>().map_err(|error| uri.error_in_path(0..colon, error.to_string()))
}

/// Where the name of the lock ends, and the URI of the delegate.
fn split(uri: &EndpointUri) -> Option<(usize, EndpointUri)> {
    let colon = uri.path().find(':')?;
    Some((colon, uri.nested(colon + 1).ok()?))
}

/// The locks under which a route with this source works, outermost first: those of `master:`, and of each
/// `master:` in it. Only of sources without errors; of others it may be some of them.
#[must_use]
pub fn locks(from: &EndpointDefinition) -> Vec<LockName> {
    let mut locks = Vec::new();
    let mut source = EndpointUri::new(from).ok();
    while let Some(uri) = source.filter(|uri| uri.scheme() == DESCRIPTION.scheme) {
        let Some((colon, delegate)) = split(&uri) else { break };
        locks.extend(lock(&uri, colon));
        source = Some(delegate);
    }
    locks
}

#[derive(Clone)]
struct Master {
    lock: LockName,
    delegate: Arc<dyn Endpoint>,
    cluster: Arc<dyn ClusterService>,
    settings: Settings,
}

#[async_trait]
impl Endpoint for Master {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }

    fn local_address(&self) -> Option<&str> {
        self.delegate.local_address()
    }

    fn shared_option(&self) -> Option<(&'static str, SmolStr)> {
        self.delegate.shared_option()
    }

    fn takes(&self) -> Option<Taken> {
        self.delegate.takes()
    }

    fn keeps_state(&self, _: bool) -> bool {
        self.delegate.keeps_state(true)
    }

    /// Takes part in the election, so that it stays in it when its consumer has ended: the next one works in the term
    /// that it finds.
    async fn hold(&self) -> Option<Hold> {
        let view = self.cluster.view(&self.lock).await.ok();
        Some(Box::new((view, self.delegate.hold().await)))
    }

    fn has_term(&self) -> bool {
        true
    }

    fn abandon(&self) -> Vec<Waiting> {
        self.delegate.abandon()
    }
}

#[async_trait]
impl Consumer for Master {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let view = self.cluster.view(&self.lock).await?;
        // One that follows an earlier version in its term is ready for those who replaced it when its delegate is.
        let mut found = tokio::select! {
            biased;
            scope = view.lead() => Some(scope?),
            () = std::future::ready(()) => None,
        };
        if found.is_none() {
            // Also where another member leads, or none: a standby is ready to lead.
            route.ready();
        }
        let mut resignations = 0;
        loop {
            let scope = tokio::select! {
                biased;
                () = route.stop.requested() => return Ok(()),
                scope = async {
                    match found.take() {
                        Some(scope) => Ok(scope),
                        None => view.lead().await,
                    }
                } => scope?,
            };
            match self.lead(&view, scope, &route, resignations).await {
                Outcome::Worked => {
                    route.end_delegate();
                    resignations = 0;
                }
                Outcome::Resigned => resignations += 1,
            }
        }
    }
}

/// How a term went.
enum Outcome {
    Worked,
    Resigned,
}

/// How a run of the delegate ended.
enum Run {
    /// The route stops, or the term has ended.
    Over,
    /// The delegate has ended by itself.
    Finished,
    Failed(BoxError),
}

impl Master {
    /// Runs the delegate for one term. The scope is dropped last, when nothing runs any more: only then
    /// can the lock be released.
    async fn lead(
        &self,
        view: &ClusterView,
        scope: LeaderScope,
        outer: &RouteHandle,
        resignations: u32,
    ) -> Outcome {
        let (route, stop) = (outer.pipeline.route_id(), &outer.stop);
        let mut failures = 0;
        loop {
            let pipeline = outer.pipeline.guarded_by(&scope);
            let delegate = outer.delegate(pipeline.clone());
            outer.ready();
            let readiness = delegate.readiness();
            let failed = match self.run_delegate(&scope, delegate, stop).await {
                Run::Over => return Outcome::Worked,
                Run::Finished => {
                    outer.end_delegate();
                    info!(route, lock = %self.lock, "route `{route}` has finished for this term");
                    self.over(&scope, stop).await;
                    return Outcome::Worked;
                }
                Run::Failed(error) => error,
            };
            failures = if readiness.is_ready() { 1 } else { failures + 1 };
            let Settings { attempts, backoff } = self.settings;
            let why = Chain(&*failed).to_string();
            if failures >= attempts {
                let stay_out = backoff.saturating_mul(2_u32.saturating_pow(resignations.min(6)));
                warn!(
                    route, lock = %self.lock,
                    "route `{route}` could not start in {attempts} attempts; resigning from `{}` for {stay_out:?}: {why}",
                    self.lock,
                );
                pipeline.set_status_message(format!(
                    "it could not start in {attempts} attempts, and leaves the lock to other members for {stay_out:?}: {why}"
                ));
                view.resign(stay_out);
                self.over(&scope, stop).await;
                return Outcome::Resigned;
            }
            pipeline.set_status_message(format!(
                "it failed in attempt {failures} of {attempts}, and tries again in {backoff:?}: {why}"
            ));
            warn!(
                route, lock = %self.lock,
                "route `{route}` failed, attempt {failures} of {attempts}, trying again in {backoff:?}: {why}",
            );
            tokio::select! {
                biased;
                () = self.over(&scope, stop) => {
                    pipeline.clear_status_message();
                    return Outcome::Worked;
                }
                () = tokio::time::sleep(backoff) => {}
            }
        }
    }

    /// Runs one consumer of the delegate until it ends or must end. When this returns, nothing of it
    /// runs any more.
    async fn run_delegate(&self, scope: &LeaderScope, route: RouteHandle, stop: &Stop) -> Run {
        let Some(consumer) = self.delegate.consumer() else {
            return Run::Failed("the delegate cannot be consumed any more".into());
        };
        let (pipeline, drain) = (route.pipeline.clone(), route.stop.clone());
        // Also when the route is aborted, and this future with it: callers and tasks of the consumer would
        // go on with their exchanges.
        let _abort = pipeline.abort_on_drop();
        let mut work = Box::pin(run_contained(consumer, route));
        let run = tokio::select! {
            biased;
            () = self.over(scope, stop) => {
                drain.request();
                // Without an expiry, as after a request to stop, this waits for the work alone.
                tokio::select! {
                    biased;
                    () = scope.term().expired() => {}
                    _ = &mut work => {}
                }
                Run::Over
            }
            result = &mut work => result.map_or_else(Run::Failed, |()| Run::Finished),
        };
        drop(work);
        // Tasks of the consumer end a moment after it.
        pipeline.idle().await;
        // What kept the delegate from its work is over with it. Why it failed takes its place.
        if !matches!(run, Run::Failed(_)) {
            pipeline.clear_status_message();
        }
        run
    }

    /// Completes when the route shall stop or the term has ended.
    async fn over(&self, scope: &LeaderScope, stop: &Stop) {
        tokio::select! {
            biased;
            () = stop.requested() => {}
            () = scope.term().lost() => {}
        }
    }
}
