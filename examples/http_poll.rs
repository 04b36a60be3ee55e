//! New orders from a server that is asked every ten seconds, by exactly one of the processes that run this:
//! `ORDERS=http://localhost:8080/orders cargo run --example http_poll`. It is `examples/http_poll.toml` in
//! Rust.

use bactrian::prelude::*;

#[tokio::main]
async fn main() -> Result<ShutdownOutcome, BoxError> {
    bactrian::init_logging();
    let cluster = FileCluster::open(FileClusterSettings::new(".bactrian/locks")).await?;
    let orders = std::env::var("ORDERS").unwrap_or_else(|_| "http://localhost:8080/orders".into());
    let poll = "period=10s&split=/orders&dedupe=/id&cursor=/next&cursor_parameter=after";
    let route = from(format!("master:orders:http-poll:{orders}?{poll}"))
        .id("orders")
        .log("order ${header.http_poll.id}: ${body.text}");
    let router = bactrian::router().cluster(cluster).route(route).build()?;
    Ok(bactrian::run(&router).await)
}
