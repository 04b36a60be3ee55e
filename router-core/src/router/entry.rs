//! [`Entry`]: a route of a router, and whatever runs it now.

use std::sync::Arc;

use super::supervisor::Supervisor;
use super::{Phase, RouteInfo, RouteStatus, RouterError, Shared};
use crate::route::Route;

pub(super) struct Entry {
    pub(super) route: Arc<Route>,
    /// `Some` from when the route is started until it has stopped. An asynchronous mutex: it is held
    /// while the route drains, so that starting and stopping one route come one after the other.
    running: tokio::sync::Mutex<Option<Supervisor>>,
}

impl Entry {
    pub(super) fn new(route: Route) -> Self {
        Self { route: Arc::new(route), running: tokio::sync::Mutex::new(None) }
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
        let Route { id, description, from, pipeline, .. } = &*self.route;
        let (description, note) = (description.clone(), pipeline.note());
        RouteInfo { id: id.clone(), description, from: from.to_string(), status, note }
    }
}
