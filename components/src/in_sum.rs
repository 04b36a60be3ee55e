//! [`InSum`]: what happens often is told at once, and then in sum.

use std::time::Duration;

use router_core::backoff::Backoff;
use tokio::time::Instant;

/// Counts what is to be told, and says when: at once, and then, while there is more, after pauses that grow from a minute
/// to an hour.
pub(crate) struct InSum {
    untold: u64,
    pauses: Backoff,
    /// When the next line may come.
    quiet_until: Instant,
}

/// The first pause, and the longest one.
const QUIET: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];

impl Default for InSum {
    fn default() -> Self {
        let [first, longest] = QUIET;
        Self { untold: 0, pauses: Backoff::new(first, longest).steady(), quiet_until: Instant::now() }
    }
}

impl InSum {
    /// So many more; how many there were since the last line, if there is to be one now. To be called with 0 as well,
    /// because a line may have had to wait.
    pub(crate) fn note(&mut self, count: u64) -> Option<u64> {
        self.untold += count;
        let now = Instant::now();
        if self.untold == 0 || now < self.quiet_until {
            return None;
        }
        // None for so long: this is something new.
        if now > self.quiet_until + QUIET[0] {
            self.pauses.reset();
        }
        self.quiet_until = now + self.pauses.next(None);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_line_comes_at_once_and_the_next_ones_after_longer_and_longer_pauses() {
        let (mut sum, mut told) = (InSum::default(), Vec::new());
        for second in 0..=7200_u64 {
            if let Some(count) = sum.note(1) {
                told.push((second, count));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [(0, 1), (60, 60), (180, 120), (420, 240), (900, 480), (1860, 960), (3780, 1920)]);
        // The last ones are told though nothing happens any more, and after a long time without any all is new.
        tokio::time::advance(Duration::from_secs(4000)).await;
        assert_eq!(sum.note(0), Some(3420));
        tokio::time::advance(Duration::from_secs(8000)).await;
        assert_eq!((sum.note(0), sum.note(1), sum.note(1)), (None, Some(1), None));
        tokio::time::advance(QUIET[0]).await;
        assert_eq!(sum.note(0), Some(1), "the pauses begin anew");
    }
}
