//! [`Timing`]: how long a leader needs to notice and to end, and how long others wait because of it.

use std::time::Duration;

/// The longest that a leader of any version may need to end. A file that says more was not written by a member, and
/// must not keep all others waiting for ever.
pub(crate) const LONGEST_END: Duration = Duration::from_secs(600);

/// The constants of a member.
///
/// They are no settings: the defaults are for everybody. But another version of this program may have others,
/// and what counts is what the *leader* lives by. So each member writes how long
/// that is into its records, and a candidate waits for the longest that it knows of.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often everybody looks anyway, so that an event that never comes costs this and no more.
    pub recheck: Duration,
    /// How long the work of a leader whose file is gone may go on.
    pub drain: Duration,
    /// What a candidate waits beyond the time that a leader needs.
    pub margin: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { recheck: seconds(1), drain: seconds(2), margin: seconds(2) }
    }
}

impl Timing {
    /// The time from the end of a file until the leader that had it has noticed and its work has ended.
    pub(crate) fn ends_within(&self) -> Duration {
        self.recheck + self.drain
    }

    /// How long a candidate waits for a leader whose file is gone, if the slowest one ends within `longest`.
    pub(crate) fn settle(&self, longest: Duration) -> Duration {
        self.ends_within().max(longest) + self.margin
    }

    /// How far the time of a file may be from the one that its record names: file systems round times, and a write
    /// may be held up. Less than [`settle`](Self::settle), before which no other file is led.
    pub(crate) fn write_bound(&self) -> Duration {
        self.look_bound()
    }

    /// How old a leader's last look at its files may be when new work starts. Another member leads only
    /// [`settle`](Self::settle) after the end of the file, so it is less than that.
    pub(crate) fn look_bound(&self) -> Duration {
        self.recheck + self.margin / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words before each "second" and "seconds".
    fn spans(page: &str) -> Vec<&str> {
        let words = page.split_whitespace().collect::<Vec<_>>();
        let is_span =
            |pair: &&[&str]| pair[1].trim_matches([',', ';', '.', ':']).trim_end_matches('s') == "second";
        words.windows(2).filter(is_span).map(|pair| pair[0]).collect()
    }

    #[test]
    fn every_figure_of_the_guide_is_that_of_the_constants() {
        let timing = Timing::default();
        let words = ["no", "one", "two", "three", "four", "five"];
        let word = |span: Duration| words[usize::try_from(span.as_secs()).unwrap()];
        let [recheck, drain] = [timing.recheck, timing.drain].map(word);
        let [ends, settle] = [timing.ends_within(), timing.settle(Duration::ZERO)].map(word);
        let look = word(timing.look_bound());
        let said =
            ["some", recheck, drain, settle, settle, settle, recheck, recheck, ends, look, "a", settle];
        assert_eq!(spans(include_str!("../../docs/src/file-cluster.md")), said);
    }
}
