//! Random faults, many times: members of ours and one of Camel's never lead together.

use super::camel::Camel;
use super::election::{Contender, PERIODS, contender_with, start};
use super::*;

const PODS: [&str; 4] = ["clock-0", "clock-1", "clock-2", "java-0"];
/// By how much the clocks of ours err, in parts per million: less than 1 %.
const ERRORS: [i32; 3] = [9_900, -9_900, 0];

/// One thing that happens to somebody.
fn trouble(server: &FakeServer, ours: &[Contender], random: &mut fastrand::Rng) {
    let name = PODS[random.usize(0..PODS.len())];
    let one = &ours[random.usize(0..ours.len())];
    match random.u32(0..8) {
        0 | 1 => one.cut_off.store(random.bool(), Ordering::Relaxed),
        2 => server.put("pods", &pod(name, "Running", false)),
        3 => server.delete_object("pods", name),
        4 => one.view.resign(Duration::from_millis(random.u64(0..20_000))),
        5 => {
            let mut left = random.u32(0..4);
            server.script(move |seen| {
                let hit = seen.path.contains("/configmaps") && left > 0;
                left -= u32::from(hit);
                if hit { Fault::LoseAnswer } else { Fault::None }
            });
        }
        _ => {
            for one in ours {
                one.cut_off.store(false, Ordering::Relaxed);
            }
            for name in PODS {
                server.put("pods", &pod(name, "Running", true));
            }
        }
    }
}

/// Returns how many terms there were.
async fn run(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let server = FakeServer::new();
    for name in PODS {
        server.put("pods", &pod(name, "Running", true));
    }
    let mut ours = Vec::new();
    for (name, error) in PODS.iter().zip(ERRORS) {
        let clock = Arc::new(TokioClock::default());
        clock.skew(error);
        ours.push(contender_with(&server, name, clock).await);
    }
    let camel = Camel::new(server.client(), "shop", "java-0", PERIODS);
    let task = start(&camel);
    let (mut terms, mut last, mut led) = (0, 0, Instant::now());
    let mut next = Instant::now();
    for _ in 0..24_000 {
        if Instant::now() >= next {
            trouble(&server, &ours, &mut random);
            next = Instant::now() + Duration::from_millis(random.u64(0..12_000));
        }
        sleep(Duration::from_millis(25)).await;
        let leading = ours.iter().filter_map(Contender::term).map(|term| term.number());
        let leading = leading.chain(camel.leads()).collect::<Vec<_>>();
        assert!(leading.len() <= 1, "seed {seed}: {leading:?} lead together");
        if let Some(term) = leading.first() {
            assert!(*term >= last, "seed {seed}: term {term} after term {last}");
            terms += usize::from(*term > last);
            (last, led) = (*term, Instant::now());
        }
    }
    task.abort();
    assert!(led.elapsed() < Duration::from_secs(300), "seed {seed}: nobody leads any more");
    terms
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_two_never_lead_together() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8);
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let mut terms = 0;
    for seed in first..first + rounds {
        terms += run(seed).await;
    }
    println!("seeds {first} to {}: {terms} terms", first + rounds - 1);
    assert!(terms as u64 > 3 * rounds, "too little happened: {terms} terms");
}
