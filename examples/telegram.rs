//! A bot that repeats what it is told, in exactly one of the processes that run this:
//! `BOT_TOKEN=123456:ABC... cargo run --example telegram`. It is `examples/telegram.toml` in Rust.

use bactrian::prelude::*;

#[tokio::main]
async fn main() -> Result<ShutdownOutcome, BoxError> {
    bactrian::init_logging();
    let cluster = FileCluster::open(FileClusterSettings::new(".bactrian/locks")).await?;
    let server = std::env::var("BOT_API").unwrap_or_else(|_| "https://api.telegram.org".into());
    let bot = format!("telegram:bots?authorization_token=env:BOT_TOKEN&base_uri={server}");
    let route = from(format!("master:bot:{bot}"))
        .id("echo")
        .filter("${header.telegram.text} != null")
        .set_body("You said: ${header.telegram.text}")
        .to(bot)
        .log("answered in chat ${header.telegram.chat_id}");
    let router = bactrian::router().cluster(cluster).route(route).build()?;
    Ok(bactrian::run(&router).await)
}
