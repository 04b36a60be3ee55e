//! What tests of the election see of a view.

use std::time::Duration;

use router_core::cluster::{ClusterView, Leadership, Term};
use tokio::time::{sleep, timeout};

/// The term in which the view's member leads, if it does.
pub(crate) fn term(view: &ClusterView) -> Option<Term> {
    match view.leadership() {
        Leadership::Leader(term) if term.is_valid() => Some(term),
        _ => None,
    }
}

/// The term in which it leads, soon.
pub(crate) async fn leads(view: &ClusterView) -> Term {
    let patience = timeout(Duration::from_secs(60), async {
        loop {
            if let Some(term) = term(view) {
                return term;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    patience.await.expect("it leads within a minute")
}
