//! A tokio interval that prints: what an application without the library would weigh.

#[tokio::main]
async fn main() {
    let mut interval = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        interval.tick().await;
        eprintln!("tick");
    }
}
