//! A clock that ticks in exactly one of the processes that run this: `cargo run --example clock`, in
//! two terminals.

use bactrian::prelude::*;

#[tokio::main]
async fn main() -> Result<ShutdownOutcome, BoxError> {
    bactrian::init_logging();
    let cluster = FileCluster::open(FileClusterSettings::new(".bactrian/locks")).await?;
    let route = from("master:lock1:timer:clock?period=1s").log("Hello World!");
    let router = bactrian::router().cluster(cluster).route(route).build()?;
    Ok(bactrian::run(&router).await)
}
