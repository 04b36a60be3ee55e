//! Random choices that can be repeated.

use std::sync::LazyLock;

/// The seed of this run: `KUBERNETES_SEED`, or a new one. It is printed when it is first needed.
pub(crate) static SEED: LazyLock<u64> = LazyLock::new(|| {
    let given = std::env::var("KUBERNETES_SEED").ok();
    let seed = given.map_or_else(
        || fastrand::u64(..0x1_0000_0000),
        |seed| seed.parse().expect("KUBERNETES_SEED is a number, as a run prints it"),
    );
    println!("KUBERNETES_SEED={seed}");
    seed
});

/// The seed of a part of the run that has this name.
pub(crate) fn of(name: &str) -> u64 {
    name.bytes().fold(*SEED, |seed, byte| fastrand::Rng::with_seed(seed ^ u64::from(byte)).u64(..))
}
