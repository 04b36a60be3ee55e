//! Tests of a parser with texts that are near to valid ones: those of a stored corpus, with random changes.
//!
//! A plain `cargo test` tries the same few hundred texts each time. `FUZZ_SECONDS=10` tries new ones for that long, from
//! a random seed. What fails prints its seed, and `FUZZ_SEED=that` begins with the same text; add it to the corpus.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// How many texts a plain test tries.
const QUICK: u64 = 400;

/// A text that takes longer is an error: its time grows faster than its length.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a text becomes at most, in bytes, before its last change.
const LONGEST: usize = 4_000;

/// Stands between the texts of a corpus, in a line of its own.
const SEPARATOR: &str = "\n%%\n";

/// What parsers have been wrong about.
const ODD: &[&str] = &[
    "\0",
    "\u{7f}",
    "\u{feff}",
    "\u{202e}",
    "\u{e9}",
    "\u{1f42b}",
    "\n",
    "\r\n",
    "\t",
    " ",
    "%",
    "%2",
    "%00",
    "%C3",
    "%26",
    "${",
    "${}",
    "}",
    "\\",
    "\\${",
    "'",
    "\"",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "{",
    "(",
    ")",
    "?",
    "&",
    "=",
    "==",
    "#",
    "+",
    "//",
    "..",
    "--",
    "/*",
    "*/",
    "$$",
    "$1",
    ":",
    "::",
    ",",
    ";",
    "<",
    "!",
    "null",
    "true",
    "-0",
    "1e999",
    "0.1e-400",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "99999999999999999999999999",
];

/// Calls `check` with the texts of `corpus`, and with changed ones. A panic of `check` is an error in the text's parser.
///
/// # Panics
/// As `check` does, or when it takes long; says with which text.
pub fn fuzz(corpus: &str, check: impl Fn(&str)) {
    let corpus = corpus.trim_end_matches('\n').split(SEPARATOR).collect::<Vec<_>>();
    for text in &corpus {
        check_one(text, "a text of the corpus", &check);
    }
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let seconds = number("FUZZ_SECONDS");
    let first = number("FUZZ_SEED").unwrap_or_else(|| if seconds.is_some() { fastrand::u64(..) } else { 0 });
    if seconds.is_some() {
        // Not captured, so that it is there also after an overflow of the stack, which ends the process.
        let _ = writeln!(std::io::stderr(), "FUZZ_SEED={first}");
    }
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut count = 0;
    while end.map_or(count < QUICK, |end| Instant::now() < end) {
        let seed = first.wrapping_add(count);
        let text = changed(&mut Rng::with_seed(seed), &corpus);
        check_one(&text, &format!("FUZZ_SEED={seed}"), &check);
        count += 1;
    }
    if seconds.is_some() {
        let _ = writeln!(std::io::stderr(), "{count} texts from FUZZ_SEED={first} on");
    }
}

fn check_one(text: &str, origin: &str, check: &impl Fn(&str)) {
    let begin = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| check(text)));
    let taken = begin.elapsed();
    if let Err(panic) = result {
        eprintln!("{origin}: {text:?}");
        resume_unwind(panic);
    }
    assert!(taken < PATIENCE, "{origin}: it took {taken:?}: {text:?}");
}

/// A text of the corpus with a few changes.
fn changed(random: &mut Rng, corpus: &[&str]) -> String {
    let mut text = random.choice(corpus).copied().unwrap_or_default().to_owned();
    for _ in 0..random.usize(1..=5) {
        let (start, end) = range(random, &text);
        let part = text[start..end].to_owned();
        match random.u8(0..7) {
            0 => text.replace_range(start..end, ""),
            1 => text.insert_str(end, &part),
            // So deep, or so many, that recursion or a square would show.
            2 => text.insert_str(
                end,
                &part.repeat(random.usize(2..500)).chars().take(LONGEST).collect::<String>(),
            ),
            3 => {
                let other = random.choice(corpus).copied().unwrap_or_default();
                let (from, to) = range(random, other);
                text.replace_range(start..end, &other[from..to]);
            }
            4 => text.insert_str(start, random.choice(ODD).copied().unwrap_or_default()),
            5 => text.replace_range(start..end, random.choice(ODD).copied().unwrap_or_default()),
            _ => text.truncate(start),
        }
        if text.len() > LONGEST {
            break;
        }
    }
    text
}

/// A short range of a text, at boundaries of characters.
fn range(random: &mut Rng, text: &str) -> (usize, usize) {
    let boundary = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = boundary(random.usize(0..=text.len()));
    let longest = if random.bool() { 4 } else { 40 };
    (start, boundary((start + random.usize(0..=longest)).min(text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_says_with_which_text() {
        let fails = catch_unwind(|| fuzz("a\n%%\nb", |text| assert!(!text.contains("${"), "found")));
        assert!(fails.is_err());
        fuzz("a\n%%\nb", |_| {});
    }
}
