//! Every interleaving of the atomics behind `Term::check`, by loom, of the very file that ships.

#![allow(missing_docs, dead_code, reason = "the file is included as it is")]

mod sync {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/driver/deadline.rs"]
mod deadline;

use std::time::Duration;

use deadline::{HoldDeadline, SessionDeadline};
use sync::Arc;

const OLD: Duration = Duration::from_secs(10);
const NEW: Duration = Duration::from_secs(20);

#[test]
fn a_fenced_hold_never_sees_the_deadline_of_a_later_heartbeat() {
    loom::model(|| {
        let session = SessionDeadline::new();
        session.set(OLD);
        let hold = Arc::new(HoldDeadline::new(session.clone()));
        let reader = {
            let hold = Arc::clone(&hold);
            loom::thread::spawn(move || {
                let first = hold.get();
                assert!(first <= OLD, "a fenced hold came to life again");
                assert!(hold.get() <= first, "a deadline went back and came again");
            })
        };
        hold.freeze(OLD);
        session.set(NEW);
        reader.join().unwrap();
    });
}

#[test]
fn a_renewed_hold_sees_the_old_deadline_or_the_new_one() {
    loom::model(|| {
        let session = SessionDeadline::new();
        session.set(OLD);
        let hold = Arc::new(HoldDeadline::new(session.clone()));
        let reader = {
            let hold = Arc::clone(&hold);
            loom::thread::spawn(move || {
                let (first, second) = (hold.get(), hold.get());
                assert!(first == OLD || first == NEW);
                assert!(second >= first, "a deadline went back");
            })
        };
        session.set(NEW);
        reader.join().unwrap();
        assert_eq!(hold.get(), NEW);
    });
}
