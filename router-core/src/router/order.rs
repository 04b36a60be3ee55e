//! The order in which routes start; they stop in the reverse.

use std::collections::HashMap;
use std::sync::Arc;

use super::Entry;

/// First those with an order of their own, then those that are called, each before its callers, then the
/// others, otherwise in the order of definition. Who is stopped after its callers can finish what they
/// hand over. In a circle of calls somebody has to be first.
pub(super) fn startup_order(entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let (mut ordered, free): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.definition.startup_order.is_some());
    ordered.sort_by_key(|entry| entry.definition.startup_order);
    let mut roots = (0..free.len()).collect::<Vec<_>>();
    roots.sort_by_key(|index| free[*index].route.endpoint.local_address().is_none());
    ordered.extend(called_before_callers(&free, roots));
    ordered
}

/// The order in which routes stop that are replaced: the reverse of that in which they start, but each after its callers, also
/// where `startup_order` says otherwise. A caller of one that has stopped waits for its next version, which starts when
/// all have stopped.
pub(super) fn replacement_order(entries: Vec<Arc<Entry>>) -> impl Iterator<Item = Arc<Entry>> {
    let entries = startup_order(entries);
    called_before_callers(&entries, 0..entries.len()).into_iter().rev()
}

/// Those that are called, each before its callers, and otherwise in the order of `roots`.
fn called_before_callers(entries: &[Arc<Entry>], roots: impl IntoIterator<Item = usize>) -> Vec<Arc<Entry>> {
    let address = |index: usize| entries[index].route.endpoint.local_address();
    let by_address =
        (0..entries.len()).filter_map(|index| Some((address(index)?, index))).collect::<HashMap<_, _>>();
    let mut order = Vec::with_capacity(entries.len());
    let mut seen = vec![false; entries.len()];
    for root in roots {
        // Depth first, with a stack of our own: a chain of calls may be long.
        let mut path = Vec::new();
        if !std::mem::replace(&mut seen[root], true) {
            path.push((root, entries[root].route.links.calls.iter()));
        }
        while let Some((index, calls)) = path.last_mut() {
            match calls.next() {
                Some(call) => {
                    let called = by_address.get(&*call.address).copied();
                    if let Some(called) = called.filter(|called| !std::mem::replace(&mut seen[*called], true))
                    {
                        path.push((called, entries[called].route.links.calls.iter()));
                    }
                }
                None => {
                    order.push(Arc::clone(&entries[*index]));
                    path.pop();
                }
            }
        }
    }
    order
}
