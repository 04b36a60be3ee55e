//! What a member says that cannot release its lock. The log is captured, so this test is alone in its process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/process.rs"]
mod process;

use std::sync::{Arc, Mutex};

use process::{Process, seconds, store};
use router_core::cluster::ClusterService as _;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_release_says_so_and_when_others_take_over() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let term = scope.term().number();
    sleep(seconds(10)).await;
    a.handle.link().cut();
    drop(scope);
    a.cluster.close().await;
    let text = log.text();
    assert!(text.contains(&format!("no longer leading `lock1`, term {term}: this member leaves")), "{text}");
    let [line] = text.lines().filter(|line| line.contains("could not be released")).collect::<Vec<_>>()[..]
    else {
        panic!("{text}");
    };
    assert!(
        line.contains(" WARN ") && line.contains(": the store did not answer in time; another member"),
        "{line}"
    );
    assert!(line.contains(" takes it at 2") && line.contains("Z at the latest"), "{line}");
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
