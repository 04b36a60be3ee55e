//! What routes cost: `cargo bench --bench routes`. Builds and starts 10,000 routes in one process, and
//! prints the time and the resident memory for each.

use std::time::Instant;

use bactrian::prelude::*;

const ROUTES: usize = 10_000;

/// Resident memory of this process in bytes, from `/proc/self/statm` (man 5 proc).
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this bench needs /proc");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second field is the resident pages") * 4096
}

#[tokio::main]
async fn main() {
    let before = resident_bytes();
    let start = Instant::now();
    let route = |number: usize| {
        from(format!("timer:t{number}?delay=1h"))
            .id(format!("route-{number}"))
            .set_header("n", "${header.timer.counter}")
            .filter("${header.n} > 0")
            .to("mock:sink")
    };
    let router = bactrian::router().routes((0..ROUTES).map(route)).build().expect("the routes are sound");
    let built = start.elapsed();
    let handle = router.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends with the program")]
    let running = tokio::spawn(async move { router.run_until(std::future::pending()).await });
    let started = |router: &Router| router.routes().iter().all(|route| route.status == RouteStatus::Started);
    while !started(&handle) {
        tokio::task::yield_now().await;
    }
    let all = start.elapsed();
    let bytes = (resident_bytes() - before) / ROUTES;
    println!("{ROUTES} routes: built in {built:.1?}, started after {all:.1?}, {bytes} resident bytes each");
    running.abort();
}
