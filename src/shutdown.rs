//! [`run`]: a router until the process is asked to stop, and the signals that ask for it.
//!
//! The signals have a thread of their own, so that they are heard when every thread of the program is
//! stuck. What it does with one depends on who waits for it; see [`listen_for_signals`].

use std::io;
use std::process::exit;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use router_core::router::{Router, ShutdownOutcome};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// How long after the second signal the process may still take. Aborting drops what is in flight at once, and
/// gives the cluster service one second to release its locks.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long two signals of one kind count as one. Programs such as `timeout` send one to the process, and another
/// to the group that it is in.
const SAME_REQUEST: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the line that explains it.
const REPORT_TIMEOUT: Duration = Duration::from_millis(100);

/// Runs a router until SIGINT (Ctrl-C) or SIGTERM, then drains it. A second signal aborts what is still in
/// flight, and ends the process with exit code 1 if that takes longer than two seconds, whatever blocks it;
/// a third one does so at once. Signals of one kind within 100 ms of each other count as one. A signal that came since [`listen_for_signals`] counts.
///
/// # Panics
/// When the operating system refuses to deliver signals: a process that cannot be stopped in order
/// should not start.
///
/// # Cancellation
/// Dropping the future aborts all routes.
pub async fn run(router: &Router) -> ShutdownOutcome {
    let waiter = Waiter::new(listen_for_signals());
    router.run_until_or_abort(waiter.requested(1), waiter.requested(2)).await
}

/// Completes at the next SIGINT or SIGTERM after it is first polled. Where there are no such signals,
/// at Ctrl-C.
///
/// # Panics
/// When the operating system refuses to deliver signals.
///
/// # Cancellation
/// Safe.
pub async fn shutdown_signal() {
    let waiter = Waiter::new(start().map(drop));
    let before = *waiter.requests.borrow();
    waiter.requested(before + 1).await;
}

/// Takes the signals from the operating system, for the rest of the life of the process. [`run`] does it too
/// (and [`shutdown_signal`], but for SIGHUP), but a program should do it first of all: a process with the id 1, as in a
/// container, never gets a signal that nothing has asked for.
///
/// SIGINT and SIGTERM end the process at once while neither [`run`] nor [`shutdown_signal`] waits for them: with
/// exit code 0 when it is the first one, because nothing was dropped, else with 1. SIGHUP is ignored while no
/// [`Hangups`] wait for it, so a process survives its terminal.
///
/// # Errors
/// When the operating system refuses.
pub fn listen_for_signals() -> io::Result<()> {
    ignore_hangups(&start()?)
}

/// Starts the thread of the signals, once.
fn start() -> io::Result<Handle> {
    static STARTED: Mutex<Option<Handle>> = Mutex::new(None);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*started {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let context = handle.enter();
    let opened = Source::open();
    drop(context);
    match opened {
        Ok(source) => {
            let thread = thread::Builder::new().name("signals".into());
            thread.spawn(move || runtime.block_on(obey(source)))?;
        }
        Err(error) => {
            // It cannot be dropped within another runtime.
            runtime.shutdown_background();
            return Err(error);
        }
    }
    Ok(started.insert(handle).clone())
}

/// What the thread of the signals shares with those who wait for them.
struct Signals {
    /// How often the process was asked to stop.
    requests: watch::Sender<u32>,
    /// How many SIGHUPs there were.
    hangups: watch::Sender<u32>,
    /// How many wait. Held while a request is counted, so that each is either waited for or ends the process.
    waiters: Mutex<usize>,
}

static SIGNALS: LazyLock<Signals> = LazyLock::new(|| Signals {
    requests: watch::Sender::new(0),
    hangups: watch::Sender::new(0),
    waiters: Mutex::new(0),
});

impl Signals {
    fn waiters(&self) -> MutexGuard<'_, usize> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits for signals: while it exists, they do not end the process by themselves.
struct Waiter {
    requests: watch::Receiver<u32>,
}

impl Waiter {
    fn new(listens: io::Result<()>) -> Self {
        listens.unwrap_or_else(|error| panic!("cannot listen for signals: {error}"));
        let mut waiters = SIGNALS.waiters();
        *waiters += 1;
        Self { requests: SIGNALS.requests.subscribe() }
    }

    /// Completes when the process was asked to stop `times` times.
    async fn requested(&self, times: u32) {
        // The sender lives as long as the process.
        let _ = self.requests.clone().wait_for(|requests| *requests >= times).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        *SIGNALS.waiters() -= 1;
    }
}

/// What the thread of the signals does.
async fn obey(mut source: Source) {
    let mut forced: Option<Instant> = None;
    let mut last: Option<(Kind, Instant)> = None;
    loop {
        let kind = tokio::select! {
            biased;
            kind = source.next() => kind,
            () = sleep_until(forced.unwrap_or_else(Instant::now)), if forced.is_some() => {
                end(1, || warn!("ending at once: aborting took longer than {ABORT_TIMEOUT:?}"))
            }
        };
        if last.is_some_and(|(before, counted)| before == kind && counted.elapsed() < SAME_REQUEST) {
            continue;
        }
        last = Some((kind, Instant::now()));
        let waiters = SIGNALS.waiters();
        let requests = *SIGNALS.requests.borrow() + 1;
        match requests {
            1 if *waiters == 0 => end(0, || info!("asked to stop before anything ran")),
            1 => {}
            2 if *waiters > 0 => forced = Some(Instant::now() + ABORT_TIMEOUT),
            _ => end(1, || warn!("ending at once: asked to stop again")),
        }
        SIGNALS.requests.send_replace(requests);
    }
}

/// Ends the process whatever its other threads do.
fn end(code: i32, why: impl FnOnce() + Send + 'static) -> ! {
    // Said or not: a log may block.
    let _ = report(why).recv_timeout(REPORT_TIMEOUT);
    exit(code)
}

/// Logs on a thread of its own: a log may block or panic, and neither may keep this one from its work. The receiver
/// hears when it is done.
fn report(line: impl FnOnce() + Send + 'static) -> Receiver<()> {
    let (said, heard) = sync_channel(1);
    // Without a thread, nothing is said.
    let _ = thread::Builder::new().name("signals-log".into()).spawn(move || {
        line();
        let _ = said.send(());
    });
    heard
}

/// Which signal it is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Interrupt,
    #[cfg(unix)]
    Terminate,
}

/// Where signals come from.
#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn open() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next request to stop.
    async fn next(&mut self) -> Kind {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Kind::Interrupt,
            _ = self.terminate.recv() => Kind::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn open() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Kind {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Kind::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}

/// The SIGHUPs from now on, by which an operator asks a process to read its files again. Several that come while one is
/// worked on are one.
#[derive(Debug)]
pub struct Hangups {
    count: watch::Receiver<u32>,
}

impl Hangups {
    /// Those that come from now on; see [`listen_for_signals`].
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn listen() -> io::Result<Self> {
        listen_for_signals()?;
        Ok(Self { count: SIGNALS.hangups.subscribe() })
    }

    /// Completes at the next one.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn next(&mut self) {
        // The sender lives as long as the process.
        let _ = self.count.changed().await;
    }
}

/// Its number on Linux, but for MIPS, on macOS and on the BSDs.
#[cfg(unix)]
const SIGXFSZ: i32 = 25;

/// Has SIGHUP do nothing but be told to those that wait for it, or be logged. Asked for once, it is so for the rest of the life of the process.
#[cfg(unix)]
fn ignore_hangups(handle: &Handle) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    static IGNORED: Mutex<bool> = Mutex::new(false);
    let mut ignored = IGNORED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ignored {
        let context = handle.enter();
        let mut hangups = signal(SignalKind::hangup())?;
        // A file beyond the limit of the process is an error of the write then, and does not end the process.
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        drop(context);
        handle.spawn(async move {
            while hangups.recv().await.is_some() {
                if SIGNALS.hangups.receiver_count() == 0 {
                    report(|| info!("SIGHUP is ignored: there is nothing to load again"));
                }
                SIGNALS.hangups.send_modify(|count| *count = count.wrapping_add(1));
            }
        });
        *ignored = true;
    }
    Ok(())
}

#[cfg(not(unix))]
fn ignore_hangups(_: &Handle) -> io::Result<()> {
    Ok(())
}
