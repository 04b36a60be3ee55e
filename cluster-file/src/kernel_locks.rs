//! Which processes have which files locked, as the kernel tells in `/proc/locks`: for messages and
//! views, never for a decision.
//!
//! It shows the locks of the processes that this one can see: not those in other containers.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// All locks of the kind `flock` at one time, by inode.
#[derive(Default)]
pub(crate) struct Snapshot(HashMap<u64, Vec<Lock>>);

/// One of them.
#[derive(Debug, PartialEq, Eq)]
struct Lock {
    /// Where the file is: major and minor number.
    device: (u32, u32),
    process: u32,
}

/// Reads them; where there is no such file there are none.
pub(crate) fn snapshot() -> Snapshot {
    let mut locks = Snapshot::default();
    // A part is of one time. Of several, each begins at a place
    // in the list as it is then: a lock that was given back in front of it lets one that is held be passed over.
    for _ in 0..MORE_THAN_ONE_PART {
        let (text, parts) = read();
        parse(&text, &mut locks);
        if parts < 2 {
            break;
        }
    }
    locks
}

/// How often a list of several parts is read: what is passed over each time is unlikely to have been held.
const MORE_THAN_ONE_PART: usize = 3;

/// The kernel's list, and in how many parts it came.
fn read() -> (String, usize) {
    let (mut text, mut parts) = (Vec::new(), 0);
    if let Ok(mut file) = File::open("/proc/locks") {
        // The kernel gives as many lines as fit into a page. Smaller reads, as of `read_to_string`, would cut it.
        let mut part = [0; 1 << 16];
        while let Ok(length @ 1..) = file.read(&mut part) {
            text.extend_from_slice(part.get(..length).unwrap_or_default());
            parts += 1;
        }
    }
    (String::from_utf8_lossy(&text).into_owned(), parts)
}

/// A line is `1: FLOCK  ADVISORY  WRITE 4242 fe:00:131076 0 EOF`; who only waits has `->` in the second place.
fn parse(text: &str, locks: &mut Snapshot) {
    for line in text.lines() {
        let fields = line.split_whitespace().collect::<Vec<_>>();
        let [_, "FLOCK", _, _, process, file, ..] = fields[..] else { continue };
        let mut file = file.split(':');
        let mut hexadecimal = || u32::from_str_radix(file.next()?, 16).ok();
        let (Some(major), Some(minor)) = (hexadecimal(), hexadecimal()) else { continue };
        let inode = file.next().and_then(|inode| inode.parse().ok());
        if let (Some(inode), Ok(process)) = (inode, process.parse()) {
            locks.0.entry(inode).or_default().push(Lock { device: (major, minor), process });
        }
    }
}

impl Snapshot {
    /// The processes that have the file locked that `metadata` is about, which some process has.
    pub(crate) fn of(&self, metadata: &Metadata) -> Vec<u32> {
        let exact = self.exactly_of(metadata);
        // Some file systems (btrfs, overlayfs) show `stat` another device than the kernel has.
        if exact.is_empty() { self.on(metadata, |_| true) } else { exact }
    }

    /// The same, of a file that perhaps no process has locked: files of other file systems have the same inode.
    pub(crate) fn exactly_of(&self, metadata: &Metadata) -> Vec<u32> {
        self.on(metadata, |lock| lock.device == device(metadata))
    }

    fn on(&self, metadata: &Metadata, is_meant: impl Fn(&Lock) -> bool) -> Vec<u32> {
        let locks = self.0.get(&metadata.ino()).map_or(&[][..], Vec::as_slice);
        let meant = locks.iter().filter(|lock| is_meant(lock));
        let mut processes = meant.map(|lock| lock.process).collect::<Vec<_>>();
        processes.sort_unstable();
        processes.dedup();
        processes
    }
}

#[cfg(target_os = "linux")]
fn device(metadata: &Metadata) -> (u32, u32) {
    (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()))
}

/// Elsewhere there are no locks to compare it with.
#[cfg(not(target_os = "linux"))]
fn device(_metadata: &Metadata) -> (u32, u32) {
    (0, 0)
}

/// Whether a process is stopped: by a signal or by a debugger.
pub(crate) fn is_stopped(process: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name before the state is in parentheses, and may have parentheses in it.
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some('T' | 't'))
}

/// Whether a process calls itself `id`: in a container a process has a number of its own.
pub(crate) fn calls_itself(process: u32, id: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let ids = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let innermost = ids.and_then(|ids| ids.split_whitespace().last()?.parse::<u32>().ok());
    innermost.unwrap_or(process) == id
}

/// Those processes, in words.
pub(crate) fn named(processes: &[u32]) -> String {
    let numbers = || processes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match processes {
        [] => "a process that this one cannot see (in another container?)".to_owned(),
        [process] if is_stopped(*process) => format!("process {process}, which is stopped"),
        [process] => format!("process {process}"),
        _ => format!("processes {}", numbers()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_names_the_process_that_has_a_file_locked() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        assert!(snapshot().of(&metadata).is_empty());
        file.lock().unwrap();
        assert_eq!(snapshot().of(&metadata), [std::process::id()]);
        assert!(!is_stopped(std::process::id()));
        assert!(calls_itself(std::process::id(), std::process::id()));
        assert!(!calls_itself(std::process::id(), 0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lock_on_the_same_inode_of_another_file_system_counts_only_where_the_file_is_locked() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let elsewhere = |device| Lock { device, process: 42 };
        let of = |locks| Snapshot(HashMap::from([(metadata.ino(), locks)]));
        let other = of(vec![elsewhere((0xfe, 0xfff))]);
        assert_eq!((other.of(&metadata), other.exactly_of(&metadata)), (vec![42], vec![]));
        let both = of(vec![elsewhere((0xfe, 0xfff)), Lock { device: device(&metadata), process: 43 }]);
        assert_eq!((both.of(&metadata), both.exactly_of(&metadata)), (vec![43], vec![43]));
    }

    /// Of 20,000 readings in two parts this found the lock missing in 144.
    #[cfg(target_os = "linux")]
    #[test]
    fn no_lock_is_passed_over_while_others_come_and_go() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let held = tempfile::tempfile().unwrap();
        held.lock().unwrap();
        let metadata = held.metadata().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let others = [(); 4].map(|()| tempfile::tempfile().unwrap());
                while !done.load(Ordering::Relaxed) {
                    others.iter().for_each(|other| other.lock().unwrap());
                    others.iter().for_each(|other| other.unlock().unwrap());
                }
            });
            let missing = (0..2000).filter(|_| snapshot().of(&metadata).is_empty()).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(missing, 0);
        });
    }

    #[test]
    fn lines_of_other_kinds_and_of_waiting_processes_are_passed_over() {
        let text = "1: FLOCK  ADVISORY  WRITE 42 fe:00:7 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 43 fe:00:7 0 EOF\n\
                    2: POSIX  ADVISORY  WRITE 44 fe:00:7 0 EOF\n3: OFDLCK ADVISORY  READ -1 00:1a:9 0 EOF\nx\n";
        let mut locks = Snapshot::default();
        parse(text, &mut locks);
        assert_eq!(locks.0, HashMap::from([(7, vec![Lock { device: (0xfe, 0), process: 42 }])]));
    }
}
