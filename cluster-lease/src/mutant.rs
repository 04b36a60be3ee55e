//! Switches that break one rule each, and counters of the branches that ran.
//!
//! Both exist only under the feature `mutants`, for the simulator. Without it `mutated!` is the constant
//! false and `covered!` is nothing, so the shipped state machine carries neither.

#[cfg(feature = "mutants")]
pub(crate) use enabled::Proof;
#[cfg(feature = "mutants")]
pub use enabled::{Branch, Mutant};

/// Whether the rule that this switch breaks is to be broken.
macro_rules! mutated {
    ($context:expr, $mutant:ident) => {{
        #[cfg(feature = "mutants")]
        let mutated = $context.proof.mutant == Some($crate::mutant::Mutant::$mutant);
        #[cfg(not(feature = "mutants"))]
        let mutated = {
            let _ = &$context;
            false
        };
        mutated
    }};
}

/// Counts that this branch of a rule ran.
macro_rules! covered {
    ($context:expr, if $condition:expr => $branch:ident else $other:ident) => {
        #[cfg(feature = "mutants")]
        $context.proof.count(if $condition {
            $crate::mutant::Branch::$branch
        } else {
            $crate::mutant::Branch::$other
        });
        #[cfg(not(feature = "mutants"))]
        let _ = (&$context, &$condition);
    };
    ($context:expr, $branch:ident) => {
        #[cfg(feature = "mutants")]
        $context.proof.count($crate::mutant::Branch::$branch);
        #[cfg(not(feature = "mutants"))]
        let _ = &$context;
    };
}

/// Asserts one of the invariants I1-I8 in debug builds, unless a rule is being broken on purpose.
///
/// I4 needs no assertion, because the type says it: without the mutants, a
/// [`Precondition`](crate::Precondition) names a version or the absence of the record.
macro_rules! invariant {
    ($context:expr, $condition:expr, $text:literal) => {
        #[cfg(feature = "mutants")]
        let broken_on_purpose = $context.proof.mutant.is_some();
        #[cfg(not(feature = "mutants"))]
        let broken_on_purpose = false;
        debug_assert!(broken_on_purpose || $condition, $text);
    };
}

#[cfg(feature = "mutants")]
mod enabled {
    use std::hash::{Hash, Hasher};

    /// Declares an enum with a list of its values and their names.
    macro_rules! listed {
        ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident,)* }) => {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $name { $($(#[$value_doc])* $value,)* }

            impl $name {
                /// All values, in order of declaration.
                pub const ALL: &[Self] = &[$(Self::$value,)*];

                /// The name as it is written in the source.
                pub fn name(self) -> &'static str {
                    match self { $(Self::$value => stringify!($value),)* }
                }
            }
        };
    }

    listed! {
        /// One broken rule.
        Mutant {
            /// R3: the deadline counts from the arrival of the heartbeat's answer.
            DeadlineFromAnswerTime,
            /// R3: the deadline counts from the arrival of the echo.
            DeadlineFromEchoArrival,
            /// R3: the heartbeat's answer is taken for its echo.
            AnswerAsEcho,
            /// R4, R5: the deadline is not looked at.
            DeadlineIgnored,
            /// R5: after a late wake-up the work gets the whole stop time again.
            RelativeStop,
            /// R5: a session that was declared dead or deleted goes on.
            SessionLossIgnored,
            /// R6: a session is declared dead without naming the version that was watched.
            KillWithoutVersion,
            /// R6: a silent session's locks are taken without ending the session first.
            TakeWithoutKill,
            /// R7: a session that died on weak evidence leaves its locks free at once.
            WeakWithoutWait,
            /// R7: the wait after a weak death counts from any last live version, though a newer one may
            /// have been missed in a gap of the watch.
            WeakWaitFromStaleVersion,
            /// R7: a lock whose record is absent is led as soon as it is created.
            AbsentLockAtOnce,
            /// R7: a lock whose holder's session is absent is led at once.
            AbsentSessionAtOnce,
            /// R7: a lock is claimed without naming the version that was seen.
            ClaimWithoutVersion,
            /// R7: a lock whose record no member has written is taken for one that was released.
            UnsealedIsFree,
            /// R7: a record that was set back to an earlier one of the same object is taken for what it says.
            SetBackIsSettled,
            /// R6, R7: what the holder says that it lives by is not looked at.
            HoldersTimingIgnored,
            /// R7: a lock whose record is absent is led after the own takeover wait, whatever the records that
            /// are, or were, there say.
            AbsentLockOwnWait,
            /// R8: a wait that an earlier claimant owed is forgotten.
            NoInheritedWait,
            /// R8: an unsettled claim says only what the claimant's own takeover wait is worth.
            ClaimOwesOwnWait,
            /// R9: a claim nonce grants again.
            ReusableNonce,
            /// R10: a lock is released before its work has ended.
            ReleaseBeforeJoin,
            /// R10: the end of the work of an earlier term is taken for that of the present one.
            JoinedOfAnyTerm,
            /// R10: a lock is released without naming the version that was seen.
            ReleaseWithoutVersion,
            /// R2: a session that was deleted and made again by a late copy of its first write goes on.
            RecreatedSession,
            /// R9: a lock that was deleted and made again by a late copy of its first write stays held.
            RecreatedLock,
            /// A1: a list that is older than the view replaces it.
            StaleSnapshot,
            /// A5: while it is doubted that the view is of the present history, changes are applied to it.
            ChangesInDoubt,
            /// A5: lists may be older than the view for ever.
            HistoryNeverBack,
            /// A5: in a history that has gone back, locks are led without a wait.
            NewHistoryAtOnce,
            /// A5: those who remember the terms of before a restore do not write them down.
            TermNotRaised,
            /// I3: the number of a term is counted in the record, and not taken from the store's versions.
            TermFromRecord,
        }
    }

    listed! {
        /// One branch of one rule.
        Branch {
            /// R1: a session was created.
            SessionCreated,
            /// R1: a heartbeat was sent.
            Heartbeat,
            /// R1: a heartbeat was sent again because the last one was not answered in time.
            HeartbeatRetried,
            /// R2: a heartbeat met a conflict.
            HeartbeatConflict,
            /// R2: the view showed that an unanswered heartbeat had been applied.
            HeartbeatFoundApplied,
            /// R2: the session was declared dead by somebody.
            SessionKilled,
            /// R2: the session's record was deleted.
            SessionDeleted,
            /// R2: the session's record was deleted and made again.
            SessionRecreated,
            /// R3: an echo on the watch moved the deadline.
            EchoByWatch,
            /// R3: a consistent list was the echo.
            EchoByList,
            /// R3: a list was asked for.
            ListAsked,
            /// R4: a hold started at once.
            StartedAtOnce,
            /// R4: a hold started after a wait.
            StartedAfterWait,
            /// R4: a start had to wait because the deadline had passed.
            StartWithoutDeadline,
            /// R5: fenced because the deadline passed.
            FencedByDeadline,
            /// R5: fenced because the lock's record changed.
            FencedByDeposition,
            /// R5: fenced because the session was lost.
            FencedBySessionLoss,
            /// R5: work outlived the deadline and the stop time.
            Aborted,
            /// R6: killed after the takeover wait.
            KilledExpired,
            /// R6: killed by proof.
            KilledByProof,
            /// R6: killed on weak evidence.
            KilledByWeakEvidence,
            /// R7: claimed a released lock.
            ClaimedReleased,
            /// R7: claimed from a session that expired or is proven dead.
            ClaimedFromDead,
            /// R7: claimed from a session that is weakly dead, the wait already over.
            ClaimedFromWeakAtOnce,
            /// R7: claimed from a session that is weakly dead, with a wait.
            ClaimedFromWeakWithWait,
            /// R7: claimed from an absent session.
            ClaimedFromAbsentSession,
            /// R7: created an absent lock.
            ClaimedAbsentLock,
            /// R7: a claim was sent again because its fate was unknown.
            ClaimRetried,
            /// R7: the record was not written by a member.
            UnsealedWait,
            /// R7: the record was set back to an earlier one.
            RecordSetBack,
            /// R7: the wait of a claim was at most the own takeover wait.
            OwnWait,
            /// R7: the wait of a claim was longer, because of what another member lives by.
            LongerWait,
            /// A5: a list was older than the view though it was asked for later.
            OldListSeen,
            /// A5: a history that had gone back was accepted.
            NewHistory,
            /// A5: a term of before was written down.
            TermRaised,
            /// A lock was left to a newer version of this program.
            LeftToNewer,
            /// R8: a wait was inherited.
            InheritedWait,
            /// R8: a hold that waited was settled.
            Settled,
            /// R9: released a lock that names this session without a hold.
            ReleasedWithoutHold,
            /// R10: a hold began to drain.
            Drained,
            /// R10: released after the drain.
            ReleasedAfterDrain,
            /// R10: a claim was given up while it waited.
            WaitGivenUp,
            /// R11: a claim had to wait for a live echo.
            ClaimWithoutEcho,
        }
    }

    /// What the simulator sets and reads in a core. It takes no part in comparisons: two cores that
    /// behave alike are alike, whatever they have counted.
    #[derive(Clone, Debug)]
    pub(crate) struct Proof {
        pub(crate) mutant: Option<Mutant>,
        pub(crate) coverage: [u32; Branch::ALL.len()],
    }

    impl Proof {
        pub(crate) fn count(&mut self, branch: Branch) {
            self.coverage[branch as usize] += 1;
        }
    }

    impl Default for Proof {
        fn default() -> Self {
            Self { mutant: None, coverage: [0; Branch::ALL.len()] }
        }
    }

    impl PartialEq for Proof {
        fn eq(&self, other: &Self) -> bool {
            self.mutant == other.mutant
        }
    }

    impl Eq for Proof {}

    impl Hash for Proof {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.mutant.hash(state);
        }
    }
}
