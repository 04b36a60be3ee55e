//! [`Entry`]: a route of a router, and whatever runs it now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::supervisor::Supervisor;
use super::{Phase, RouteInfo, RouteStatus, RouterError, Shared};
use crate::definition::RouteDefinition;
use crate::readiness::Readiness;
use crate::route::Route;

pub(super) struct Entry {
    /// What it was compiled from.
    pub(super) definition: RouteDefinition,
    pub(super) route: Arc<Route>,
    /// Why it runs again although another version was to take its place.
    reverted: Mutex<Option<String>>,
    /// `Some` from when the route is started until it has stopped. An asynchronous mutex: it is held
    /// while the route drains, so that starting and stopping one route come one after the other.
    running: tokio::sync::Mutex<Option<Supervisor>>,
}

impl Entry {
    pub(super) fn new(definition: RouteDefinition, route: Route) -> Self {
        let running = tokio::sync::Mutex::new(None);
        Self { definition, route: Arc::new(route), reverted: Mutex::default(), running }
    }

    pub(super) async fn start(&self, shared: &Shared) -> Result<(), RouterError> {
        let mut running = self.running.lock().await;
        if let Some(supervisor) = &mut *running {
            if !supervisor.is_stopping() && !supervisor.is_finished() {
                return Ok(());
            }
            // Whoever asked it to stop has not waited for it.
            supervisor.stop().await;
        }
        // Asked while `running` is held: shutdown first closes, and then stops each route.
        if !matches!(shared.phase(), Phase::Starting | Phase::Running) {
            return Err(RouterError::NotRunning);
        }
        *running = Some(Supervisor::start(Arc::clone(&self.route)));
        Ok(())
    }

    /// Drains the route; tells whether it was started.
    pub(super) async fn stop(&self) -> bool {
        let mut running = self.running.lock().await;
        let ran = running.as_ref().is_some_and(|supervisor| !supervisor.is_stopping());
        if let Some(supervisor) = &mut *running {
            supervisor.stop().await;
        }
        *running = None;
        ran
    }

    pub(super) async fn abort(&self) {
        let mut running = self.running.lock().await;
        if let Some(supervisor) = running.take() {
            supervisor.abort().await;
        }
    }

    /// Aborts without waiting. A route that is being stopped by somebody is left to them.
    pub(super) fn abort_now(&self) {
        if let Ok(mut running) = self.running.try_lock() {
            // A supervisor that is dropped aborts its task.
            *running = None;
        }
    }

    /// Says that another version could not take its place.
    pub(super) fn set_reverted(&self, why: &str) {
        *self.reverted() = Some(format!("its old version runs again: {why}"));
    }

    /// Says that this version is wanted.
    pub(super) fn clear_reverted(&self) {
        *self.reverted() = None;
    }

    fn reverted(&self) -> MutexGuard<'_, Option<String>> {
        self.reverted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes with `true` when it is ready, below a lock that is held also its delegate, and with `false` when its
    /// consumer has ended before. Where none runs, another one has stopped it, and there is nothing to wait for.
    pub(super) async fn ready(&self) -> bool {
        let Some(readiness) = self.readiness() else { return true };
        let state = readiness.wait_for(|state| state.is_ready_throughout() || state.has_ended()).await;
        state.is_none_or(|state| state.is_ready())
    }

    /// Whether the present consumer is ready; `None` where none runs.
    pub(super) fn readiness(&self) -> Option<Readiness> {
        let running = self.running.try_lock().ok()?;
        running.as_ref().filter(|supervisor| !supervisor.is_stopping()).map(|it| it.readiness().clone())
    }

    /// Drops what still waits for this route in a queue, when none comes to consume it.
    pub(super) fn abandon_waiting(&self) {
        let Route { endpoint, pipeline, .. } = &*self.route;
        pipeline.abandon(endpoint.local_address().unwrap_or_default(), &endpoint.abandon());
    }

    pub(super) fn info(&self) -> RouteInfo {
        let status = match self.running.try_lock() {
            Err(_) => RouteStatus::Changing,
            Ok(running) => match &*running {
                None => RouteStatus::Stopped,
                Some(supervisor) => match (supervisor.is_stopping(), supervisor.is_finished()) {
                    (true, true) => RouteStatus::Stopped,
                    (true, false) => RouteStatus::Changing,
                    (false, true) => RouteStatus::Finished,
                    (false, false) => RouteStatus::Started,
                },
            },
        };
        let unready_for = self.readiness().and_then(|readiness| readiness.unready_for());
        let notes = self.reverted().clone().into_iter().chain(self.route.pipeline.note()).collect::<Vec<_>>();
        RouteInfo {
            id: self.route.id().clone(),
            description: self.definition.description.clone(),
            from: self.route.links.source.to_string(),
            status,
            unready_for,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        }
    }
}
