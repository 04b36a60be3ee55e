//! [`Failure`]: an error that says of which kind it is, so that handlers need not read its text.
//!
//! A component or a processor returns any error. One that knows more than its text wraps it:
//!
//! ```
//! # use std::time::Duration;
//! # use router_core::error::BoxError;
//! use router_core::failure::Failure;
//!
//! # fn send() -> Result<(), std::io::Error> { Ok(()) }
//! fn process() -> Result<(), BoxError> {
//!     send().map_err(|error| Failure::unavailable(error).code("503").retry_after(Duration::from_secs(30)))?;
//!     Ok(())
//! }
//! # process().unwrap();
//! ```
//!
//! It is found wherever it stands in a chain of sources. Without one, the kind of an error is known where it is the
//! loss of leadership, a timeout of tokio, an error of input and output, or one of `serde_json` or the standard
//! library about text that does not parse. Any other is [`ErrorKind::Other`].

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use smol_str::SmolStr;

use crate::error::BoxError;
use crate::lock::LeadershipLost;
use crate::panic::Panicked;
use crate::value::JsonError;

/// Of which kind an error is: by this it is decided whether a step is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There was no response in time. What was asked for may have been done.
    Timeout,
    /// The other side cannot do it now: it is overloaded, locked, or unreachable.
    Unavailable,
    /// The other side refuses it, and will do so the next time.
    Rejected,
    /// The message is not as it has to be: it does not parse, or something is missing in it.
    Data,
    /// User code panicked.
    Panicked,
    /// The member does not lead any more. This is for those who look, not for handlers: another member may do the
    /// work already.
    LeadershipLost,
    /// Nothing is known about it.
    Other,
}

impl ErrorKind {
    /// The kinds that can be handled.
    pub const HANDLEABLE: &[Self] =
        &[Self::Timeout, Self::Unavailable, Self::Rejected, Self::Data, Self::Panicked, Self::Other];

    /// The name, as in TOML and in `${exception.kind}`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Data => "data",
            Self::Panicked => "panicked",
            Self::LeadershipLost => "leadership_lost",
            Self::Other => "other",
        }
    }

    /// The kind of that name, if it can be handled.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::HANDLEABLE.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether a step that failed so is tried again where the error handler names no kinds: the next try may go
    /// otherwise.
    #[must_use]
    pub fn is_retried(self) -> bool {
        match self {
            Self::Timeout | Self::Unavailable | Self::Panicked | Self::Other => true,
            Self::Rejected | Self::Data | Self::LeadershipLost => false,
        }
    }

    /// The kind of any error, as [`Failure::of`] finds it.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        find(error).kind
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        use io::ErrorKind as Io;
        Some(match error.kind() {
            Io::TimedOut => Self::Timeout,
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::NotConnected
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::AddrNotAvailable
            | Io::BrokenPipe
            | Io::ResourceBusy
            | Io::StorageFull
            | Io::QuotaExceeded
            | Io::ReadOnlyFilesystem
            | Io::StaleNetworkFileHandle
            | Io::OutOfMemory => Self::Unavailable,
            Io::InvalidData | Io::UnexpectedEof | Io::InvalidFilename => Self::Data,
            Io::PermissionDenied | Io::AlreadyExists => Self::Rejected,
            _ => return None,
        })
    }

    /// The kind of an error of others, where it follows from its type.
    fn of_known(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Self::of_io(error);
        }
        let data = error.is::<JsonError>()
            || error.is::<serde_json::Error>()
            || error.is::<std::str::Utf8Error>()
            || error.is::<std::string::FromUtf8Error>()
            || error.is::<std::num::ParseIntError>()
            || error.is::<std::num::ParseFloatError>()
            || error.is::<std::str::ParseBoolError>();
        match data {
            true => Some(Self::Data),
            false if error.is::<tokio::time::error::Elapsed>() => Some(Self::Timeout),
            false if error.is::<Panicked>() => Some(Self::Panicked),
            false => None,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// An error with its kind, and what else is known of it. It prints as the error does that it was made from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Its kind.
    pub kind: ErrorKind,
    /// What the other side calls it: the status of HTTP, the SQLSTATE of a database.
    pub code: Option<SmolStr>,
    /// For how long the other side asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The error that it was made from.
    pub error: BoxError,
}

impl Failure {
    /// An error of this kind.
    #[must_use]
    pub fn new(kind: ErrorKind, error: impl Into<BoxError>) -> Self {
        Self { kind, code: None, retry_after: None, error: error.into() }
    }

    /// There was no response in time.
    #[must_use]
    pub fn timeout(error: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Timeout, error)
    }

    /// The other side cannot do it now.
    #[must_use]
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Unavailable, error)
    }

    /// The other side refuses it, and will do so the next time.
    #[must_use]
    pub fn rejected(error: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Rejected, error)
    }

    /// The message is not as it has to be.
    #[must_use]
    pub fn data(error: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Data, error)
    }

    /// Adds what the other side calls it.
    #[must_use]
    pub fn code(mut self, code: impl Into<SmolStr>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Adds for how long the other side asks to be left alone. A redelivery waits at least so long, up to the
    /// longest pause of the error handler.
    #[must_use]
    pub fn retry_after(mut self, pause: impl Into<Option<Duration>>) -> Self {
        self.retry_after = pause.into();
        self
    }

    /// What is known of any error. The loss of leadership counts more than all that was put around it: it must not
    /// be handled.
    #[must_use]
    pub fn of(error: BoxError) -> Box<Self> {
        let Known { kind, code, retry_after } = find(&*error);
        match error.downcast::<Self>() {
            Ok(failure) => Box::new(Self { kind, ..*failure }),
            Err(error) => Box::new(Self { kind, code, retry_after, error }),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// What is known of an error.
struct Known {
    kind: ErrorKind,
    code: Option<SmolStr>,
    retry_after: Option<Duration>,
}

fn find(error: &(dyn Error + 'static)) -> Known {
    let (mut said, mut follows) = (None, None);
    for cause in causes(error) {
        if is_leadership_lost(cause) {
            return Known { kind: ErrorKind::LeadershipLost, code: None, retry_after: None };
        }
        if let Some(Failure { kind, code, retry_after, .. }) = cause.downcast_ref() {
            said.get_or_insert_with(|| Known { kind: *kind, code: code.clone(), retry_after: *retry_after });
        }
        follows = follows.or_else(|| ErrorKind::of_known(cause));
    }
    let kind = follows.unwrap_or(ErrorKind::Other);
    said.unwrap_or(Known { kind, code: None, retry_after: None })
}

fn is_leadership_lost(error: &(dyn Error + 'static)) -> bool {
    let failure = error.downcast_ref::<Failure>();
    error.is::<LeadershipLost>() || failure.is_some_and(|failure| failure.kind == ErrorKind::LeadershipLost)
}

/// An error and all that it came from, also those that print as one.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner: Option<&(dyn Error + 'static)> = match error.downcast_ref::<Failure>() {
            Some(failure) => Some(&*failure.error),
            None => error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as _),
        };
        inner.or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Chain;

    /// Puts a text around an error.
    #[derive(Debug, thiserror::Error)]
    #[error("while sending")]
    struct Around(#[source] BoxError);

    fn lost() -> LeadershipLost {
        LeadershipLost { lock: "lock1".parse().unwrap(), term: 7 }
    }

    #[test]
    fn a_failure_prints_as_its_error_and_is_found_in_a_chain() {
        let refused = || {
            let error = Around(io::Error::other("disk on fire").into());
            Failure::unavailable(error).code("503").retry_after(Duration::from_secs(30))
        };
        assert_eq!(Chain(&refused()).to_string(), "while sending: disk on fire");
        let error: BoxError = refused().into();
        for error in [error, Box::new(Around(refused().into())), io::Error::other(refused()).into()] {
            let failure = Failure::of(error);
            assert_eq!(failure.kind, ErrorKind::Unavailable, "{failure:?}");
            assert_eq!(failure.code.as_deref(), Some("503"));
            assert_eq!(failure.retry_after, Some(Duration::from_secs(30)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_others_have_a_kind_where_their_type_says_it() {
        let elapsed = tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await;
        let errors: [(BoxError, ErrorKind); 8] = [
            ("text".into(), ErrorKind::Other),
            (elapsed.unwrap_err().into(), ErrorKind::Timeout),
            (io::Error::from(io::ErrorKind::ConnectionReset).into(), ErrorKind::Unavailable),
            (io::Error::from(io::ErrorKind::NotFound).into(), ErrorKind::Other),
            (serde_json::from_str::<u8>("{").unwrap_err().into(), ErrorKind::Data),
            (crate::value::Json::parse(b"{").unwrap_err().into(), ErrorKind::Data),
            (Box::new(Around("x".parse::<u8>().unwrap_err().into())), ErrorKind::Data),
            (Panicked("out of stock".into()).into(), ErrorKind::Panicked),
        ];
        for (error, kind) in errors {
            assert_eq!(Failure::of(error).kind, kind);
        }
    }

    #[test]
    fn the_loss_of_leadership_counts_whatever_was_put_around_it() {
        let errors: [BoxError; 4] = [
            lost().into(),
            Box::new(Around(lost().into())),
            Failure::unavailable(Around(lost().into())).into(),
            Box::new(Around(io::Error::other(Failure::data(lost())).into())),
        ];
        for error in errors {
            assert_eq!(Failure::of(error).kind, ErrorKind::LeadershipLost);
        }
    }

    #[test]
    fn every_kind_that_can_be_handled_has_a_name() {
        for kind in ErrorKind::HANDLEABLE {
            assert_eq!(ErrorKind::from_name(kind.name()), Some(*kind));
        }
        assert_eq!(ErrorKind::from_name(ErrorKind::LeadershipLost.name()), None);
    }
}
