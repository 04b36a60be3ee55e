//! A timer that writes to the log: the smallest application of the library.

use bactrian::prelude::*;

#[tokio::main]
async fn main() -> Result<ShutdownOutcome, BoxError> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let route = from("timer:tick?delay=0&period=1s").log("tick");
    let router = bactrian::router().route(route).build()?;
    Ok(bactrian::run(&router).await)
}
