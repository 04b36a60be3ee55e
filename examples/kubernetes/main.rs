//! The clock of `clock.toml` under `lock1`, and a service of your own under `lock2`: each runs in one of the
//! processes that run this, and not always in the same one. On a laptop:
//! `cargo run --example kubernetes -- run examples/kubernetes/clock.toml`.
//!
//! In pods it is called the same way, by the Deployment in `manifest.yaml`, which is what
//! `bactrian kubernetes manifest examples/kubernetes/clock.toml --image registry.example/clock:1 --lock lock2`
//! prints.

use std::path::PathBuf;
use std::time::Duration;

use bactrian::core::error::Severity;
use bactrian::load::load;
use bactrian::logging::init_logging_as;
use bactrian::prelude::*;
use bactrian::settings::Environment;

#[tokio::main]
async fn main() -> Result<ShutdownOutcome, BoxError> {
    let files = std::env::args_os().skip(2).map(PathBuf::from).collect::<Vec<_>>();
    let loaded = load(&files, &[], &Environment::of_process(), bactrian::registry(), Severity::Error)?;
    init_logging_as(loaded.settings.log.format);
    loaded.warnings.log_warnings();
    let admin = bactrian::admin::listen(&loaded.settings.admin, &Environment::of_process())?;
    let service = loaded.service.as_ref().ok_or("the files name no cluster service")?;
    let cluster = service.open().await?;
    let view = cluster.view(&"lock2".parse()?).await?;
    let router = loaded.builder().cluster(cluster.clone()).build_with_warnings()?.0;
    let _admin = admin.map(|listener| listener.serve(&router)).transpose()?;
    // Asked to stop, the router finishes its work and closes the cluster, which ends the singleton as well.
    let (ended, _) = tokio::join!(bactrian::run(&router), view.while_leading(singleton));
    Ok(ended)
}

/// Runs while this process leads `lock2`, and is dropped when it does not.
async fn singleton(term: Term) {
    loop {
        println!("the singleton works in term {}", term.number());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
