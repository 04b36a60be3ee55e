//! [`Lines`]: the way of the log to stderr.
//!
//! Writing to stderr can fail (the reader of a pipe has gone, a disk is full) and can block for as long as
//! it likes (a pipe that is not read). Neither may reach the code that logs: a line that cannot be written is
//! lost and counted, and nothing else happens.
//!
//! So one thread writes, and the code that logs waits for it, but not longer than [`PATIENCE`], and not at all
//! once that was in vain. Waiting is what makes a line that was logged a line that is written: also right
//! before `exit`, `abort` or `kill -9`, which a queue that is only drained in the background loses.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

/// How long code that logs waits until the line is written, where lines are being written at all.
const PATIENCE: Duration = Duration::from_millis(50);
/// How much is kept for a stderr that is blocked. What exceeds it is lost.
const CAPACITY_BYTES: usize = 1 << 20;
/// The time between two tries where stderr is non-blocking, which programs that share a terminal or a pipe
/// may do to each other.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How many lines were lost in this process.
static LOST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this is the thread that writes, which must not wait for itself.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// How many lines of the log this process has lost.
pub(super) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// A writer that never fails and blocks for a moment at most. Each call of `write` is one line.
#[derive(Clone, Copy)]
pub(super) struct Lines;

impl Lines {
    fn queue() -> Option<&'static Arc<Queue>> {
        static QUEUE: OnceLock<Option<Arc<Queue>>> = OnceLock::new();
        QUEUE.get_or_init(|| Queue::start(io::stderr()).ok()).as_ref()
    }

    /// Waits until everything is written, at most this long.
    pub(super) fn flush(timeout: Duration) {
        if let Some(queue) = Self::queue() {
            queue.flush(timeout);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match Self::queue() {
            Some(queue) => queue.push(line),
            // A process that cannot have one more thread.
            None => drop(io::stderr().write_all(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// A line was written or lost, or waiting has become pointless.
    moved: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// The size of `lines` and of the line that is being written.
    bytes: usize,
    /// How many lines were put in.
    accepted: u64,
    /// How many of them were written or lost.
    done: u64,
    /// A caller has waited in vain, and no line has been done since.
    stuck: bool,
}

impl Queue {
    fn start(target: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self { state: Mutex::default(), filled: Condvar::new(), moved: Condvar::new() });
        let writer = Arc::clone(&queue);
        thread::Builder::new().name("log".into()).spawn(move || writer.write(target))?;
        Ok(queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if !state.lines.is_empty() && state.bytes + line.len() > CAPACITY_BYTES {
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        state.accepted += 1;
        let ticket = state.accepted;
        self.filled.notify_one();
        if state.stuck || IS_WRITER.get() {
            return;
        }
        let waits = |state: &mut State| state.done < ticket && !state.stuck;
        let (mut state, _) =
            self.moved.wait_timeout_while(state, PATIENCE, waits).unwrap_or_else(PoisonError::into_inner);
        if state.done < ticket {
            state.stuck = true;
            self.moved.notify_all();
        }
    }

    fn flush(&self, timeout: Duration) {
        let state = self.lock();
        let last = state.accepted;
        let waits = |state: &mut State| state.done < last;
        drop(self.moved.wait_timeout_while(state, timeout, waits));
    }

    /// What the thread does.
    fn write(&self, mut target: impl Write) {
        IS_WRITER.set(true);
        let (mut torn, mut reported) = (false, 0);
        loop {
            let mut state = self.lock();
            let line = loop {
                match state.lines.pop_front() {
                    Some(line) => break line,
                    None => state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            let written = write_line(&mut target, &line, &mut torn);
            if !written {
                LOST.fetch_add(1, Ordering::Relaxed);
            }
            let mut state = self.lock();
            state.bytes -= line.len();
            state.done += 1;
            state.stuck = false;
            let idle = state.lines.is_empty();
            drop(state);
            self.moved.notify_all();
            let lost = lost();
            if written && idle && lost > reported {
                let gap = lost - std::mem::replace(&mut reported, lost);
                // Another layer of the program's subscriber may panic, and this thread must not end.
                let _ =
                    catch_unwind(|| warn!("{gap} lines of the log were lost: stderr could not be written"));
            }
        }
    }
}

/// Writes a line, or the beginning of it, which is then `torn`; returns whether all of it was written.
fn write_line(target: &mut impl Write, line: &[u8], torn: &mut bool) -> bool {
    // What follows a torn line begins on a line of its own.
    let repaired = torn.then(|| [b"\n", line].concat());
    let mut rest = repaired.as_deref().unwrap_or(line);
    let length = rest.len();
    while !rest.is_empty() {
        let failed = match target.write(rest) {
            Ok(0) => true,
            Ok(count) => {
                rest = &rest[count..];
                *torn = !rest.is_empty();
                false
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => false,
                ErrorKind::WouldBlock => {
                    #[expect(clippy::disallowed_methods, reason = "this thread is no runtime's")]
                    thread::sleep(RETRY_PAUSE);
                    false
                }
                _ => true,
            },
        };
        if failed {
            *torn |= rest.len() < length;
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;

    /// A stderr that does with each write what the test says.
    struct Scripted {
        script: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without more of a script, it blocks.
            let count = match self.script.recv() {
                Ok(result) => result?.min(bytes.len()),
                Err(_) => loop {
                    thread::park();
                },
            };
            let _ = self.written.send(bytes[..count].to_vec());
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (Arc<Queue>, Sender<io::Result<usize>>, Receiver<Vec<u8>>) {
        let ((play, script), (written, read)) = (channel(), channel());
        (Queue::start(Scripted { script, written }).unwrap(), play, read)
    }

    fn text(read: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(read.try_iter().flatten().collect()).unwrap()
    }

    #[test]
    fn a_line_is_written_when_the_call_returns() {
        let (queue, play, read) = queue();
        for _ in 0..3 {
            play.send(Ok(usize::MAX)).unwrap();
            queue.push(b"line\n");
            assert_eq!(text(&read), "line\n");
        }
    }

    #[test]
    fn a_line_that_fails_is_lost_and_the_next_one_begins_a_line() {
        let (queue, play, read) = queue();
        let full = || Err(io::Error::from(ErrorKind::StorageFull));
        for step in [Ok(3), full(), full(), Err(ErrorKind::Interrupted.into()), Ok(usize::MAX)] {
            play.send(step).unwrap();
        }
        let before = lost();
        queue.push(b"torn\n");
        queue.push(b"lost\n");
        queue.push(b"whole\n");
        assert_eq!(text(&read), "tor\nwhole\n");
        assert!(lost() >= before + 2);
    }

    #[test]
    fn a_stderr_that_blocks_costs_one_wait_and_keeps_what_fits() {
        let (queue, play, read) = queue();
        let before = Instant::now();
        let line = [b'x'; 1024];
        for _ in 0..5000 {
            queue.push(&line);
        }
        assert!(before.elapsed() < PATIENCE * 20, "{:?}", before.elapsed());
        // It is read again: what was kept comes, and lines are waited for as before.
        for _ in 0..5000 {
            play.send(Ok(usize::MAX)).unwrap();
        }
        queue.flush(Duration::from_secs(30));
        let kept = text(&read).len();
        assert!(kept <= CAPACITY_BYTES && kept > CAPACITY_BYTES - 2 * line.len(), "{kept}");
        queue.push(b"after\n");
        assert_eq!(text(&read), "after\n");
    }

    #[test]
    fn a_line_that_is_larger_than_the_queue_is_written() {
        let (queue, play, read) = queue();
        play.send(Ok(usize::MAX)).unwrap();
        queue.push(&vec![b'x'; 2 * CAPACITY_BYTES]);
        queue.flush(Duration::from_secs(30));
        assert_eq!(text(&read).len(), 2 * CAPACITY_BYTES);
    }
}
