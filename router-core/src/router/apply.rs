//! Carrying out a [`Plan`]: from the routes that run to those that shall.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use smol_str::SmolStr;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::plan::{Plan, Planned, are_linked};
use super::{Entry, Phase, Router, RouterError, order};
use crate::component::Hold;

/// What [`Router::apply`] did: the ids of the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Routes that were not there before.
    pub added: Vec<SmolStr>,
    /// Routes that have a new version.
    pub replaced: Vec<SmolStr>,
    /// Routes that are there no more.
    pub removed: Vec<SmolStr>,
    /// Routes that were equal, and were left alone.
    pub unchanged: Vec<SmolStr>,
    /// Routes whose new version was not ready in time, so that the old one runs again, and why.
    pub reverted: Vec<(SmolStr, String)>,
    /// Routes that were not ready in time and have no old version that could run: they go on trying. And why.
    pub unready: Vec<(SmolStr, String)>,
}

impl Changes {
    /// Whether nothing differed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { added, replaced, removed, unchanged: _, reverted, unready } = self;
        [added, replaced, removed].iter().all(|ids| ids.is_empty())
            && reverted.is_empty()
            && unready.is_empty()
    }
}

/// One line, for a log.
impl fmt::Display for Changes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, replaced, removed, unchanged, reverted, unready } = self;
        for (what, ids) in [("added", added), ("replaced", replaced), ("removed", removed)] {
            if !ids.is_empty() {
                write!(formatter, "{what} {}; ", ids.join(", "))?;
            }
        }
        for (what, routes) in [("went back to the old version of", reverted), ("not ready:", unready)] {
            for (id, why) in routes {
                write!(formatter, "{what} {id} ({why}); ")?;
            }
        }
        write!(formatter, "{} unchanged", unchanged.len())
    }
}

impl Router {
    /// Stops what is gone or replaced, starts what is new, and sees whether it becomes ready. Routes start when all
    /// that stop have stopped: what one of them has given up, as an address or a port, another one may take.
    pub(super) async fn carry_out(&self, mut plan: Plan) -> Result<Changes, RouterError> {
        let holds = hold(&plan, self.shared.ready_timeout).await?;
        // Not before the change is certain.
        std::mem::take(&mut plan.findings).take();
        let replaced = plan.replaced().map(|(old, _)| old);
        let stopping = replaced.chain(&plan.gone).map(id).collect::<HashSet<_>>();
        let in_order = order::replacement_order(self.entries()).collect::<Vec<_>>();
        let in_order = in_order.iter().filter(|entry| stopping.contains(entry.route.id()));
        let ran = self.stop_in_order(in_order).await;
        for (old, new) in plan.replaced() {
            new.route.pipeline.adopt_state(&old.route.pipeline);
        }
        self.change_entries(|entries| *entries = plan.entries().cloned().collect());
        plan.unchanged().for_each(|entry| entry.clear_reverted());
        let changes = self.start_and_watch(&plan, &ran).await;
        // Not before it is certain which versions stay.
        let entries = self.entries();
        let consumed =
            entries.iter().filter_map(|entry| entry.route.links.address.as_ref()).collect::<HashSet<_>>();
        let earlier = plan.replaced().map(|(old, _)| old).chain(&plan.gone);
        for earlier in
            earlier.filter(|it| !it.route.links.address.as_ref().is_some_and(|it| consumed.contains(it)))
        {
            earlier.abandon_waiting();
        }
        drop(holds);
        Ok(changes)
    }

    /// Stops routes, callers before those that they call; returns which of them ran. Those that no other route calls
    /// stop at the same time: one that takes long keeps no other one from its work for longer.
    async fn stop_in_order<'a>(&self, entries: impl Iterator<Item = &'a Arc<Entry>>) -> HashSet<SmolStr> {
        let is_free = |entry: &&Arc<Entry>| {
            entry.definition.startup_order.is_none() && entry.route.links.address.is_none()
        };
        let (free, others): (Vec<_>, Vec<_>) = entries.partition(is_free);
        let mut ran = HashSet::new();
        let stopped = join_all(free.iter().map(|entry| self.stop_or_abort(entry))).await;
        ran.extend(free.into_iter().zip(stopped).filter(|(_, ran)| *ran).map(|(entry, _)| id(entry)));
        for entry in others {
            if self.stop_or_abort(entry).await {
                ran.insert(id(entry));
            }
        }
        ran
    }

    async fn start_and_watch(&self, plan: &Plan, ran: &HashSet<SmolStr>) -> Changes {
        let mut changes = Changes { removed: plan.gone.iter().map(id).collect(), ..Changes::default() };
        let mut starting = HashSet::new();
        for planned in &plan.routes {
            let (ids, starts) = match planned {
                Planned::Equal(_) => (&mut changes.unchanged, false),
                Planned::New(new) => (&mut changes.added, new.definition.auto_startup),
                Planned::Replaced { old, new } => {
                    let starts = match new.definition.auto_startup == old.definition.auto_startup {
                        true => ran.contains(old.route.id()),
                        false => new.definition.auto_startup,
                    };
                    (&mut changes.replaced, starts)
                }
            };
            ids.push(id(planned.entry()));
            if starts && matches!(self.phase(), Phase::Starting | Phase::Running) {
                starting.insert(id(planned.entry()));
            }
        }
        for entry in self.startup_order().iter().filter(|entry| starting.contains(entry.route.id())) {
            // Only a router that was closed meanwhile refuses.
            let _ = entry.start(&self.shared).await;
        }
        let deadline = Instant::now() + self.shared.ready_timeout;
        let started = plan.routes.iter().filter(|planned| starting.contains(planned.entry().route.id()));
        let started = started.collect::<Vec<_>>();
        let ready = started.iter().map(|planned| timeout_at(deadline, planned.entry().ready()));
        let ready = join_all(ready).await;
        for (planned, ready) in started.into_iter().zip(ready) {
            let why = match ready {
                Ok(true) => continue,
                Ok(false) => "its consumer ended before it was ready".to_owned(),
                Err(_) => self.why_unready(planned.entry()),
            };
            if self.shared.is_closed() {
                break;
            }
            self.go_back(planned, why, &mut changes).await;
        }
        self.wait_for_old_versions(plan, &changes).await;
        changes
    }

    /// Waits until old versions that run again have taken their places: what is held for them is let go after this, and a
    /// lock would go to another member.
    async fn wait_for_old_versions(&self, plan: &Plan, changes: &Changes) {
        let deadline = Instant::now() + self.shared.ready_timeout;
        let reverted = changes.reverted.iter().map(|(id, _)| id).collect::<HashSet<_>>();
        let old = plan.replaced().map(|(old, _)| old).filter(|old| reverted.contains(old.route.id()));
        // One that fails now has a line in the log, and is told of as not ready.
        let _ = join_all(old.map(|old| timeout_at(deadline, old.ready()))).await;
    }

    fn why_unready(&self, entry: &Entry) -> String {
        let timeout = self.shared.ready_timeout;
        match entry.route.pipeline.note() {
            Some(note) => format!("it was not ready within {timeout:?}: {note}"),
            None => format!("its consumer did not say within {timeout:?} that it is ready"),
        }
    }

    /// Puts the old version of a route back in its place, if there is one that fits to the others.
    async fn go_back(&self, planned: &Planned, why: String, changes: &mut Changes) {
        let id = id(planned.entry());
        let Planned::Replaced { old, new } = planned else {
            warn!(route = %id, "the route `{id}` was added, and goes on trying to start: {why}");
            changes.unready.push((id, why));
            return;
        };
        let place =
            |entry: &Arc<Entry>| if Arc::ptr_eq(entry, new) { Arc::clone(old) } else { Arc::clone(entry) };
        let with_old = self.entries().iter().map(place).collect::<Vec<_>>();
        if !are_linked(with_old.iter()) {
            warn!(
                route = %id,
                "the route `{id}` was replaced, and goes on trying to start: {why}. Its old version does not fit to \
                 the other routes any more"
            );
            changes.unready.push((id, why));
            return;
        }
        warn!(route = %id, "the route `{id}` goes back to its old version: {why}");
        self.stop_or_abort(new).await;
        old.set_reverted(&why);
        self.change_entries(|entries| *entries = with_old);
        let _ = old.start(&self.shared).await;
        changes.replaced.retain(|replaced| *replaced != id);
        changes.reverted.push((id, why));
    }
}

/// Keeps the places of routes that another version, or another route with the same address, is about to take: their
/// callers wait meanwhile, and their locks are kept. An error if one cannot be kept in time, as by a cluster that does not
/// respond; nothing was changed yet.
async fn hold(plan: &Plan, timeout: Duration) -> Result<Vec<Hold>, RouterError> {
    let deadline = Instant::now() + timeout;
    let addresses = addresses(plan);
    let replaced = plan.replaced().map(|(old, _)| old);
    let moved = plan.gone.iter();
    let moved =
        moved.filter(|gone| gone.route.links.address.as_deref().is_some_and(|it| addresses.contains(it)));
    let mut holds = Vec::new();
    // One that was stopped keeps no place, and takes no lock for this.
    for entry in replaced.chain(moved).filter(|entry| entry.readiness().is_some()) {
        let hold = timeout_at(deadline, entry.route.endpoint.hold()).await;
        holds.extend(hold.map_err(|_| RouterError::NotHeld(entry.route.id().to_string(), timeout))?);
    }
    Ok(holds)
}

/// What the routes of the set consume that others call.
fn addresses(plan: &Plan) -> HashSet<&str> {
    plan.entries().filter_map(|entry| entry.route.links.address.as_deref()).collect()
}

/// The key of a route among those of one set: old ones, or new ones.
fn id(entry: &Arc<Entry>) -> SmolStr {
    entry.route.id().clone()
}
