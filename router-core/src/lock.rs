//! [`LockName`]: the name of a lock, checked; and [`LeadershipLost`]: what ends under it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a lock, the same on every member.
///
/// Any text of 1 to 1024 bytes without control characters and without white space at its ends. Names
/// that differ in any byte are different locks: `Lock/1` and `lock-1` never meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName(Arc<str>);

/// What is wrong with a lock name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lock name has 1 to {max} bytes, no control characters and no white space at its ends", max = LockName::MAX_BYTES)]
pub struct InvalidLockName;

impl LockName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LockName {
    type Err = InvalidLockName;

    fn from_str(name: &str) -> Result<Self, InvalidLockName> {
        let sound = (1..=Self::MAX_BYTES).contains(&name.len())
            && !name.chars().any(char::is_control)
            && name.trim() == name;
        if sound { Ok(Self(name.into())) } else { Err(InvalidLockName) }
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A side effect was not started because its member no longer leads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this member no longer leads `{lock}` (term {term})")]
pub struct LeadershipLost {
    /// The lock.
    pub lock: LockName,
    /// The term that ended.
    pub term: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_but_not_changed() {
        for name in ["lock1", "Lock/1", "lock-1", "sperre-ü", &"x".repeat(300)] {
            assert_eq!(name.parse::<LockName>().unwrap().as_str(), name);
        }
        for name in ["", " lock", "lock ", "a\nb", &"x".repeat(1025)] {
            assert_eq!(name.parse::<LockName>(), Err(InvalidLockName), "{name:?}");
        }
    }
}
