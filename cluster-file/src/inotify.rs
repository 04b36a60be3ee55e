//! [`Inotify`]: what happens in the root directory, as the kernel tells it.

/// A change in the root directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// A file was written to.
    Written(&'a str),
    /// A handle that could write to the file was closed: its leader may have ended.
    Closed(&'a str),
    /// A file is there now under this name.
    Appeared(&'a str),
    /// The file that was there under this name is there no more.
    Gone(&'a str),
    /// The directory itself was moved or deleted, and all files with it. It may be back.
    Away,
    /// A member may have come or gone.
    Members,
    /// Changes were lost.
    Anything,
}

#[cfg(target_os = "linux")]
pub(crate) use linux::Inotify;
#[cfg(not(target_os = "linux"))]
pub(crate) use none::Inotify;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};

    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    use tokio::io::unix::AsyncFd;

    use super::Change;
    use crate::root::MEMBERS;

    /// One watch on the root, and one on the folder of the members in it.
    pub(crate) struct Inotify {
        queue: AsyncFd<OwnedFd>,
        members: PathBuf,
        /// The number of the watch on the folder of the members. Held while the queue is read, so that the order of
        /// changes is kept.
        watch_on_members: Mutex<Option<i32>>,
    }

    impl Inotify {
        /// Starts to watch `directory`. Needs a runtime with I/O enabled.
        pub(crate) fn start(directory: &Path) -> io::Result<Self> {
            let queue = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            add_watch(&queue, directory, flags)?;
            // It is deprecated for types that may close their descriptor, or name another one, while they
            // are registered. An `OwnedFd` does neither, and what replaces it cannot be called safely.
            #[allow(deprecated, reason = "an OwnedFd keeps the promise that the replacement asks for")]
            let queue = AsyncFd::new(queue)?;
            let (members, watch_on_members) = (directory.join(MEMBERS), Mutex::default());
            let started = Self { queue, members, watch_on_members };
            *started.watch_on_members.lock().unwrap_or_else(PoisonError::into_inner) =
                started.watch_members();
            Ok(started)
        }

        /// Watches the folder of the members that is there now. Where there is none, or no watch to be had, members
        /// are looked for each second.
        fn watch_members(&self) -> Option<i32> {
            let flags = WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
            add_watch(self.queue.get_ref(), &self.members, flags).ok()
        }

        /// Waits for changes and passes them on.
        ///
        /// # Cancellation
        /// Safe: changes are passed on together with being read.
        pub(crate) async fn changes(&self, note: impl FnMut(Change<'_>)) -> io::Result<()> {
            let mut ready = self.queue.readable().await?;
            self.drain(note)?;
            ready.clear_ready();
            Ok(())
        }

        /// Passes on all changes up to now, without waiting.
        pub(crate) fn drain(&self, mut note: impl FnMut(Change<'_>)) -> io::Result<()> {
            let mut watch_on_members = self.watch_on_members.lock().unwrap_or_else(PoisonError::into_inner);
            let mut buffer = [MaybeUninit::uninit(); 8192];
            let mut reader = Reader::new(self.queue.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        if Some(event.wd()) == *watch_on_members {
                            note(Change::Members);
                            continue;
                        }
                        let name = event.file_name().and_then(|name| name.to_str().ok());
                        if name == Some(MEMBERS) {
                            // It is another one now, or gone.
                            *watch_on_members = self.watch_members();
                            note(Change::Members);
                        }
                        translate(event.events(), name, &mut note);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn translate(events: ReadFlags, name: Option<&str>, note: &mut impl FnMut(Change<'_>)) {
        // Without a name it is about the directory itself, or about the queue, which overflows.
        let Some(name) = name else {
            let away = events.intersects(ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF);
            return note(if away { Change::Away } else { Change::Anything });
        };
        if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            note(Change::Gone(name));
        }
        if events.contains(ReadFlags::MOVED_TO) {
            // A file that was there before is gone without a word of its own.
            note(Change::Gone(name));
        }
        if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            note(Change::Appeared(name));
        }
        if events.contains(ReadFlags::MODIFY) {
            note(Change::Written(name));
        }
        if events.contains(ReadFlags::CLOSE_WRITE) {
            note(Change::Closed(name));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use std::io;
    use std::path::Path;

    use super::Change;

    /// There is none here: it never starts.
    pub(crate) enum Inotify {}

    impl Inotify {
        pub(crate) fn start(_directory: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) async fn changes(&self, _note: impl FnMut(Change<'_>)) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn drain(&self, _note: impl FnMut(Change<'_>)) -> io::Result<()> {
            match *self {}
        }
    }
}
