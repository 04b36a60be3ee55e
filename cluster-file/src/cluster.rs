//! [`FileCluster`]: the cluster service, and its settings.

use std::sync::Arc;

use async_trait::async_trait;
use router_core::cluster::backend::ArbitratedCluster;
use router_core::cluster::{ClusterError, ClusterService, ClusterView, Leadership, LockName, Member};
use smol_str::SmolStr;
use tokio::sync::watch;

use crate::arbiter::FileArbiter;
use crate::file_system;
use crate::settings::FileClusterSettings;

/// The longest member id, in bytes.
const MAX_ID_BYTES: usize = 255;

/// A cluster of processes on one host that share a directory. Who has the kernel's lock (`flock`) on the
/// file `<root>/<lock>.lock` leads the lock.
///
/// # Guarantees
/// - At most one member leads a lock, whatever the clocks, the load and the pauses: a lock is given away
///   only by the process that holds it, or by the kernel when that process has ended. A process that is
///   stopped (`SIGSTOP`, a debugger, a frozen container, a suspended host) keeps its locks, and nobody
///   else leads until it goes on or ends.
/// - A process that ends in any way, `kill -9` included, frees its locks at once, and the next member
///   leads within milliseconds: the kernel wakes it. If the wake-up is lost it leads within a second.
/// - A lock that is given up (the last view is dropped, [`resign`](ClusterView::resign), `close`) is
///   free when the work under it has ended, not before.
/// - A leader whose lock file is deleted, moved or replaced, or whose root directory is, ends its term:
///   at the event, and within a second if that is lost. Its work may go on for two more seconds. A
///   candidate for another file waits for five seconds, unless no earlier leader can be alive; it makes no
///   difference whether the file is new, or one that was there before and is back.
/// - A leader that was stopped meanwhile starts no new work when it goes on. What had passed its last check may
///   still end.
/// - When the root directory is gone, members join the one that is at its path then, or make it. None leads
///   there before all have left the former one.
/// - Term numbers grow strictly per lock: over restarts, a loss of power, and whatever is done to the files
///   while one member lives that remembers. If none does, they go on above all records and all states of routes
///   that are there, and above the present time in microseconds: they fall only if the clock is set back too.
/// - What a route stores under a lock ([`Term::states`](router_core::cluster::Term::states)) is on the disk
///   when the store returns, the next leader finds it, and a leader that was deposed cannot replace it any
///   more, even if it was held up in the middle of a store.
/// - Every member sees who leads and who lives. These are hints for humans: nobody leads because of them.
///
/// # Assumptions
/// - All members run on one kernel and see the same directory on a local file system. Others are refused
///   unless `allow_network_file_system` is set; then it is the file system that has to keep the first
///   promise, and NFS, for one, may give a lock away without telling.
/// - A child made by `fork` without `exec` shares the locks of its parent, which are free when both have
///   ended. Children made the usual way (`std::process`) share nothing.
/// - Work under a term ends when the term says so. A single step that runs on for more than two seconds after the
///   lock file was deleted, or sleeps through them, may overlap with the next leader: do not delete the files
///   of a living cluster. (There is no need to: there is one small file per lock, and it is never in the way.)
/// - The whole *directory* is not deleted, moved or replaced under a living leader while another member starts
///   within three seconds, or before a leader that is stopped goes on or ends: what it finds is a first start, or a
///   directory that was in use earlier, and it cannot know of the other one. Its term is above that leader's all the
///   same. Deleting everything *in* it is noticed.
/// - The file system tells when a file was moved or linked (`ctime`), as all local ones of Linux do but FAT.
///
/// It needs a Tokio runtime with I/O and time enabled, two open files for each lock it leads, and none
/// for a lock it waits for.
#[derive(Debug)]
pub struct FileCluster {
    cluster: ArbitratedCluster<FileArbiter>,
}

impl FileCluster {
    /// Joins the cluster in `settings.root`.
    ///
    /// # Errors
    /// [`ClusterError::Unusable`] if the directory cannot be made or written, is on a file system that is
    /// not known to be local, or if the member id is invalid or in use; the text says what to do.
    pub async fn open(settings: FileClusterSettings) -> Result<Arc<Self>, ClusterError> {
        let local = local_member(settings.member.clone())?;
        if !settings.allow_network_file_system {
            file_system::check(&settings.root)?;
        }
        let arbiter = FileArbiter::join(settings, local.clone()).await?;
        Ok(Arc::new(Self { cluster: ArbitratedCluster::new(local, arbiter) }))
    }
}

#[async_trait]
impl ClusterService for FileCluster {
    fn local(&self) -> &Member {
        self.cluster.local()
    }

    async fn view(&self, lock: &LockName) -> Result<ClusterView, ClusterError> {
        self.cluster.view(lock).await
    }

    fn drained(&self) -> watch::Receiver<bool> {
        self.cluster.arbiter().drained()
    }

    fn unable(&self) -> Option<String> {
        self.cluster.arbiter().unable()
    }

    fn leaderships(&self) -> Vec<(LockName, Leadership)> {
        self.cluster.leaderships()
    }

    async fn check_alive(&self) -> Result<(), String> {
        self.cluster.check_alive().await
    }

    async fn close(&self) {
        self.cluster.close().await;
        self.cluster.arbiter().leave();
    }
}

fn local_member(id: Option<SmolStr>) -> Result<Member, ClusterError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = std::process::id();
    let id = match id {
        Some(id) => id,
        None => format!("{host}-{pid}-{}", suffix()?).into(),
    };
    if !(1..=MAX_ID_BYTES).contains(&id.len()) || id.trim() != id || id.chars().any(char::is_control) {
        let text = format!(
            "the member id {id:?} is not valid: it must have 1 to {MAX_ID_BYTES} bytes, no control characters \
             and no white space at its ends"
        );
        return Err(ClusterError::Unusable(text, None));
    }
    Ok(Member { id, host: Some(host.into()), pid: Some(pid) })
}

/// Four letters that make an id that no one chose unique: containers of one host name count their processes
/// each from 1, and process ids are used again.
fn suffix() -> Result<String, ClusterError> {
    let random = getrandom::u32();
    let random =
        random.map_err(|error| ClusterError::Unusable("no random number".into(), Some(error.into())))?;
    Ok(format!("{:04x}{:04x}", random >> 16, random & 0xffff))
}
