//! Who tries first: candidates take turns in an order that every member computes alike.

use std::time::Duration;

/// How long each rank waits for the rank before it.
pub(crate) const TURN: Duration = Duration::from_millis(50);

/// A member that may campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// [`name_hash`] of the member's name.
    pub member: u64,
    /// How much it is preferred: twice the weight, twice the locks. Zero comes last.
    pub weight: u32,
}

/// A hash that is the same on every member, machine and version (FNV-1a).
pub fn name_hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The place of `member` among the candidates for a lock: 0 tries at once. A member that is not among
/// them comes after all who are.
pub(crate) fn rank(lock: u64, member: u64, candidates: &[Candidate]) -> u32 {
    let Some(own) = candidates.iter().find(|candidate| candidate.member == member) else {
        return u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    };
    let own = (score(lock, *own), own.member);
    let before = candidates.iter().filter(|other| {
        let other = (score(lock, **other), other.member);
        other.0.total_cmp(&own.0).then(other.1.cmp(&own.1)).is_gt()
    });
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}

/// Weighted rendezvous hashing: the winner of each lock is spread over the members in proportion to
/// their weights, and a member that leaves moves only the locks that it had won.
fn score(lock: u64, candidate: Candidate) -> f64 {
    let bits = mix(lock ^ mix(candidate.member)) >> 12;
    let unit = (bits as f64 + 0.5) / (1_u64 << 52) as f64;
    -f64::from(candidate.weight) / unit.ln()
}

/// The finalizer of SplitMix64: every input bit reaches every output bit.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let named = |(index, &weight)| Candidate { member: name_hash(&format!("member-{index}")), weight };
        weights.iter().enumerate().map(named).collect()
    }

    fn wins(weights: &[u32]) -> Vec<u32> {
        let candidates = candidates(weights);
        let mut wins = vec![0; weights.len()];
        for lock in 0..3_000 {
            let lock = name_hash(&format!("lock-{lock}"));
            for (index, candidate) in candidates.iter().enumerate() {
                wins[index] += u32::from(rank(lock, candidate.member, &candidates) == 0);
            }
        }
        wins
    }

    #[test]
    fn locks_spread_evenly_over_equal_members() {
        let wins = wins(&[1, 1, 1]);
        assert_eq!(wins.iter().sum::<u32>(), 3_000);
        assert!(wins.iter().all(|&wins| (850..1_150).contains(&wins)), "{wins:?}");
    }

    #[test]
    fn locks_follow_the_weights_and_weight_zero_comes_last() {
        let wins = wins(&[3, 1, 0]);
        assert!((2_100..2_400).contains(&wins[0]), "{wins:?}");
        assert_eq!(wins[2], 0);
    }

    #[test]
    fn every_candidate_has_a_rank_of_its_own() {
        let candidates = candidates(&[1, 1, 5, 0, 0]);
        let mut ranks: Vec<_> = candidates.iter().map(|c| rank(7, c.member, &candidates)).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2, 3, 4]);
        assert_eq!(rank(7, 42, &candidates), 5, "a stranger comes last");
    }
}
