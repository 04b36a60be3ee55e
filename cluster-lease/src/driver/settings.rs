//! How a member of a lease cluster is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use router_core::cluster::{ClusterError, Member};
use smol_str::SmolStr;

use super::clock::Clock;
use super::transition::{Observer, Transition};
use crate::core::{Identity, IdentityError};
use crate::settings::{Settings, SettingsError};

/// The timing as users write it: a profile by name, and single numbers that differ from it. The names are
/// those of the guide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// `fast`, `default`, `relaxed` or `slewed-clock`; without it, `default`.
    pub profile: Option<String>,
    /// x: how long an unchanged session is watched before it is declared dead.
    pub takeover_wait: Option<Duration>,
    /// y: how long after sending a heartbeat its sender may lead.
    pub deadline: Option<Duration>,
    /// How long after the deadline guarded work may take to end.
    pub stop: Option<Duration>,
    /// T: the period of the heartbeat.
    pub heartbeat: Option<Duration>,
    /// rho: the bound on the error of the clock rate, in parts per million.
    pub rate_error_ppm: Option<u32>,
}

/// Why a timing is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TimingError {
    /// There is no such profile.
    #[error("there is no timing profile `{0}`; there are `fast`, `default`, `relaxed` and `slewed-clock`")]
    Profile(String),
    /// The numbers are not safe together.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl Timing {
    /// The timing, checked.
    ///
    /// # Errors
    /// Refuses unknown profiles and numbers with which two members could lead at once.
    pub fn settings(&self) -> Result<Settings, TimingError> {
        let settings = self.unchecked()?;
        settings.errors().into_iter().next().map_or(Ok(settings), |error| Err(error.into()))
    }

    /// The numbers, to find [all that is wrong with them](Settings::errors).
    ///
    /// # Errors
    /// Refuses unknown profiles.
    pub fn unchecked(&self) -> Result<Settings, TimingError> {
        let profile = match self.profile.as_deref() {
            None | Some("default") => Settings::default_profile(),
            Some("fast") => Settings::fast(),
            Some("relaxed") => Settings::relaxed(),
            Some("slewed-clock") => Settings::slewed_clock(),
            Some(other) => return Err(TimingError::Profile(other.into())),
        };
        Ok(Settings::unchecked(
            self.takeover_wait.unwrap_or(profile.takeover_wait()),
            self.deadline.unwrap_or(profile.deadline()),
            self.stop.unwrap_or(profile.stop()),
            self.heartbeat.unwrap_or(profile.heartbeat()),
            self.rate_error_ppm.unwrap_or(profile.rate_error_ppm()),
        ))
    }
}

/// How one member takes part.
#[derive(Clone)]
pub struct LeaseClusterSettings {
    pub(crate) member: Member,
    pub(crate) timing: Settings,
    pub(crate) strict: bool,
    pub(crate) candidates: Vec<(SmolStr, u32)>,
    pub(crate) ranked_as: Option<SmolStr>,
    pub(crate) place: Option<String>,
    pub(crate) observer: Option<Arc<Observer>>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) incarnations: Option<Arc<dyn Fn() -> u128 + Send + Sync>>,
}

impl LeaseClusterSettings {
    /// The member with the default timing. Its id is what humans see, and what the order of candidates
    /// is computed from; what tells processes apart is a number that each draws at random.
    #[must_use]
    pub fn new(member: Member) -> Self {
        Self {
            member,
            timing: Settings::default(),
            strict: true,
            candidates: Vec::new(),
            ranked_as: None,
            place: None,
            observer: None,
            clock: None,
            incarnations: None,
        }
    }

    /// The timing. Where members differ, a takeover takes as long as the holder's records say.
    #[must_use]
    pub fn timing(mut self, timing: Settings) -> Self {
        self.timing = timing;
        self
    }

    /// Whether the process is aborted when guarded work outlives the deadline plus the time to stop. It
    /// is by default: the next leader may start then, and only the end of the process is sure to end
    /// what blocks a thread. Without it, such work is only reported.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Who may campaign, and with which weight: twice the weight, twice the locks; zero comes last. The
    /// same list on all members spreads the locks over them and keeps them from campaigning all at once.
    /// Members that are not listed come last. Without a list all try at once.
    #[must_use]
    pub fn candidates(mut self, candidates: impl IntoIterator<Item = (SmolStr, u32)>) -> Self {
        self.candidates = candidates.into_iter().collect();
        self
    }

    /// The name of this member in the list of candidates, where that is not its id: what it keeps over a
    /// restart, and what others know of it before they have seen a session of it.
    #[must_use]
    pub fn ranked_as(mut self, name: impl Into<SmolStr>) -> Self {
        self.ranked_as = Some(name.into());
        self
    }

    /// Where the locks are kept, for the lines of the log that say who leads: `in the namespace time`.
    #[must_use]
    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Who is told whenever this member begins to lead, gives a term up, or loses it. It is called in the
    /// election's loop: it must return at once.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(Transition) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Another clock than that of the system. For tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where the numbers come from that tell processes apart, instead of the system's random numbers.
    /// For tests that must be repeatable: two processes must never draw the same.
    #[must_use]
    pub fn incarnations(mut self, draw: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        self.incarnations = Some(Arc::new(draw));
        self
    }

    /// The identity of the next incarnation.
    pub(crate) fn identity(&self) -> Result<Identity, LeaseClusterError> {
        let incarnation = match &self.incarnations {
            Some(draw) => draw(),
            None => random()?,
        };
        if self.member.id.trim().is_empty() {
            return Err(IdentityError::EmptyName.into());
        }
        Ok(Identity::new(self.ranked_as.as_ref().unwrap_or(&self.member.id), incarnation)?)
    }
}

/// The bits of a version 4 UUID.
fn random() -> Result<u128, LeaseClusterError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(LeaseClusterError::Random)?;
    let bits = u128::from_be_bytes(bytes);
    Ok(bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62))
}

/// Why a member cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum LeaseClusterError {
    /// It has no usable name.
    #[error("the member cannot be identified")]
    Identity(#[from] IdentityError),
    /// The system has no random numbers to tell this process from others by.
    #[error("there are no random numbers to tell this process from others by")]
    Random(#[source] getrandom::Error),
    /// The thread that enforces deadlines could not be started.
    #[error("the thread that enforces deadlines cannot be started")]
    Sentinel(#[source] std::io::Error),
}

impl From<LeaseClusterError> for ClusterError {
    fn from(error: LeaseClusterError) -> Self {
        Self::Unusable("the election cannot be started".into(), Some(error.into()))
    }
}

impl fmt::Debug for LeaseClusterSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LeaseClusterSettings")
            .field("member", &self.member)
            .field("timing", &self.timing)
            .field("strict", &self.strict)
            .field("candidates", &self.candidates)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timing_is_a_profile_and_what_differs_from_it() {
        assert_eq!(Timing::default().settings(), Ok(Settings::default()));
        let fast = Timing { profile: Some("fast".into()), ..Timing::default() };
        assert_eq!(fast.settings(), Ok(Settings::fast()));
        let unsafe_stop = Timing { stop: Some(Duration::from_secs(4)), ..fast };
        let text = unsafe_stop.settings().unwrap_err().to_string();
        assert!(text.contains("deadline 3.8s + stop 4s = 7.8s"), "{text}");
        let unknown = Timing { profile: Some("quick".into()), ..Timing::default() };
        assert!(unknown.settings().unwrap_err().to_string().contains("no timing profile `quick`"));
    }

    #[test]
    fn an_incarnation_is_a_random_uuid() {
        let (first, second) = (random().unwrap(), random().unwrap());
        assert_ne!(first, second);
        for bits in [first, second] {
            assert_eq!((bits >> 76) & 0xf, 4);
            assert_eq!((bits >> 62) & 0b11, 0b10);
        }
    }

    #[test]
    fn a_member_without_a_name_is_refused() {
        let error = LeaseClusterSettings::new(Member::new("  ")).identity().unwrap_err();
        assert!(matches!(error, LeaseClusterError::Identity(IdentityError::EmptyName)));
    }
}
