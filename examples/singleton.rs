//! A service of your own that runs in exactly one process, bound to `lock2`. In two terminals:
//! `cargo run --example singleton`, or the shorter way, `cargo run --example singleton closure`.

use std::time::Duration;

use bactrian::prelude::*;
use tokio::task::JoinHandle;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    bactrian::init_logging();
    let cluster = FileCluster::open(FileClusterSettings::new(".bactrian/locks")).await?;
    let view = cluster.view(&"lock2".parse()?).await?;
    match std::env::args().nth(1).as_deref() {
        Some("closure") => closure(&view).await?,
        _ => service(&view).await?,
    }
    drop(view);
    cluster.close().await;
    Ok(())
}

/// Listens to the view: starts the service when we lead, and stops it when we do not.
async fn service(view: &ClusterView) -> Result<(), BoxError> {
    let mut shutdown = std::pin::pin!(bactrian::shutdown_signal());
    loop {
        let scope = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            scope = view.lead() => scope?,
        };
        let service = Service::start(scope.term().number());
        let asked_to_stop = tokio::select! {
            biased;
            () = &mut shutdown => true,
            () = scope.term().lost() => false,
        };
        service.stop().await;
        // Only now, when nothing runs any more, may the next member lead.
        drop(scope);
        if asked_to_stop {
            return Ok(());
        }
    }
}

/// The shorter way: a closure that runs for as long as we lead, and is dropped when we do not.
async fn closure(view: &ClusterView) -> Result<(), BoxError> {
    let work = view.while_leading(async |term| {
        loop {
            println!("the closure works in term {}", term.number());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    tokio::select! {
        biased;
        () = bactrian::shutdown_signal() => Ok(()),
        result = work => result?,
    }
}

/// Something that is started and stopped.
struct Service {
    task: JoinHandle<()>,
}

impl Service {
    fn start(term: u64) -> Self {
        println!("the service starts in term {term}");
        let work = async {
            loop {
                println!("the service works");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the service owns and joins its task")]
        let task = tokio::spawn(work);
        Self { task }
    }

    async fn stop(self) {
        self.task.abort();
        // When this returns, the task does nothing any more.
        let _ = self.task.await;
        println!("the service has stopped");
    }
}
