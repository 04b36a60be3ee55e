//! `bactrian leaders`.

mod file;
#[cfg(feature = "cluster-kubernetes")]
mod kubernetes;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "cluster-kubernetes")]
use bactrian::cluster::kubernetes_settings;
use bactrian::load::{Locks, load_cluster, locks_of};
use bactrian::settings::{Environment, Service, Settings};
use clap::{Args, ValueEnum};
use router_core::error::{BoxError, Chain};
use serde::Serialize;

use super::{output, plugin};

/// Show who leads: each lock, its holder and since when, who stands by, and the routes that use it.
///
/// It takes no part in the election and writes nothing. With route files, also their locks that nobody has
/// led yet are shown.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  bactrian leaders routes.toml --watch\n  kubectl bactrian leaders -o json"
)]
pub(super) struct Arguments {
    /// Files of routes, or folders of `*.toml` files [default: routes.toml, where there is one]
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Set a setting, over the files and the environment; can be repeated
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,
    /// The namespace of the locks [default: `cluster.namespace`, or that of the context]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Go on, with a line for each change, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// In which form
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table
    #[default]
    Table,
    /// JSON; with `--watch`, a line of it for each change
    Json,
    /// The pods or processes that lead, one per line
    Holder,
}

/// How a lock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(feature = "cluster-kubernetes"), allow(dead_code, reason = "the kernel knows fewer states"))]
enum State {
    /// Somebody leads.
    Led,
    /// Somebody has claimed it and may owe a wait before it leads.
    Taking,
    /// Somebody holds it who has ended, or has been silent for longer than a leader may be.
    Silent,
    /// No member holds it.
    Free,
    /// It cannot be seen at present: the server or the file does not tell.
    Unknown,
}

/// One lock. Its serialisation is the JSON that the guide describes: fields are added, never changed.
#[derive(Clone, Debug, Serialize)]
struct Lock {
    lock: String,
    state: State,
    holder: Option<String>,
    member: Option<String>,
    term: Option<u64>,
    held_since: Option<String>,
    held_seconds: Option<u64>,
    heartbeat_age_seconds: Option<u64>,
    standbys: Vec<String>,
    drained: Vec<String>,
    routes: Vec<String>,
    /// Why it is in another state than `led`.
    reason: Option<String>,
}

/// Why a drained member still leads.
#[cfg(any(feature = "cluster-file", feature = "cluster-kubernetes"))]
const FINISHES: &str = "its holder is drained, and finishes its work first";

/// Of a lock that is wanted, at most.
const NEVER_LED: &str = "no member has led it yet";

/// The live members of a cluster, by the names that the table shows.
#[derive(Clone, Default)]
struct Members {
    standbys: Vec<String>,
    drained: Vec<String>,
    /// Why some may be alive that are not shown.
    #[cfg_attr(not(feature = "cluster-kubernetes"), allow(dead_code, reason = "the kernel tells of all"))]
    unseen: Option<String>,
}

#[cfg(any(feature = "cluster-file", feature = "cluster-kubernetes", test))]
impl Members {
    /// Why a lock that no member holds stays like that.
    fn why_free(&self) -> String {
        match (self.standbys.is_empty(), self.drained.is_empty()) {
            (false, _) => "no member has taken it".into(),
            (true, false) => format!("all members are drained: {}", self.drained.join(", ")),
            (true, true) => self.unseen.clone().unwrap_or_else(|| "no member is alive".into()),
        }
    }
}

impl Lock {
    fn free(lock: &str, members: &Members, why: &str) -> Self {
        let Members { standbys, drained, .. } = members.clone();
        Self {
            lock: lock.to_owned(),
            state: State::Free,
            reason: Some(why.to_owned()),
            holder: None,
            member: None,
            term: None,
            held_since: None,
            held_seconds: None,
            heartbeat_age_seconds: None,
            standbys,
            drained,
            routes: Vec::new(),
        }
    }

    /// The same lock, when it is not known how it stands.
    fn unknown(&self, why: &str) -> Self {
        Self { state: State::Unknown, reason: Some(why.to_owned()), ..self.clone() }
    }

    /// What is a change to those who watch.
    fn leadership(&self) -> (State, Option<&str>, Option<u64>) {
        (self.state, self.member.as_deref(), self.term)
    }
}

/// Where the locks are.
enum Cluster {
    File(file::Directory),
    #[cfg(feature = "cluster-kubernetes")]
    Kubernetes(Box<kubernetes::Group>),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (settings, service, routes) = match configuration(arguments) {
        Ok(configuration) => configuration,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = runtime.map_err(BoxError::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = bactrian::shutdown_signal(), if arguments.watch => Ok(ExitCode::SUCCESS),
                shown = show(arguments, &settings, service, &routes) => shown,
            }
        })
    });
    shown.unwrap_or_else(|error| output::failure(&Chain(&*error).to_string()))
}

/// The settings, the service, and the locks of the routes. What routes need to run is not needed here.
fn configuration(arguments: &Arguments) -> Result<(Settings, Service, Locks), ExitCode> {
    let pairs = plugin::pairs(&arguments.set, arguments.namespace.as_deref());
    let environment = Environment::of_process();
    let loaded = load_cluster(&arguments.paths, &pairs, &environment);
    let (settings, service) = loaded.map_err(|errors| output::config_errors(&errors))?;
    Ok((settings, service, locks_of(&arguments.paths, &environment)))
}

async fn show(
    arguments: &Arguments,
    settings: &Settings,
    service: Service,
    routes: &Locks,
) -> Result<ExitCode, BoxError> {
    let mut cluster = match service {
        Service::File | Service::Auto => Cluster::File(file::Directory::open(settings)?),
        #[cfg(feature = "cluster-kubernetes")]
        Service::Kubernetes => {
            let group = kubernetes::Group::open(kubernetes_settings(settings)?).await?;
            Cluster::Kubernetes(Box::new(group))
        }
        #[cfg(not(feature = "cluster-kubernetes"))]
        Service::Kubernetes => return Err("the cluster service `kubernetes` is not built in".into()),
        Service::Memory => return Err("the locks of the cluster service `memory` are in one process".into()),
    };
    let locks = cluster.look(routes).await?;
    if locks.is_empty() {
        output::diagnostic(&format!("note: there are no locks {}", cluster.place()));
    }
    if !arguments.watch {
        return Ok(output::data(&match arguments.output {
            Form::Table => table::table(&locks),
            Form::Json => format!("{:#}\n", serde_json::json!({ "locks": locks })),
            Form::Holder => table::holders(&locks),
        }));
    }
    watch(&mut cluster, arguments.output, routes, locks).await
}

/// How long to wait after an error before looking again.
const PAUSE: Duration = Duration::from_secs(1);

/// A line for each lock, then one for each change of its leadership.
async fn watch(
    cluster: &mut Cluster,
    form: Form,
    routes: &Locks,
    locks: Vec<Lock>,
) -> Result<ExitCode, BoxError> {
    let mut known = BTreeMap::<String, Lock>::new();
    let mut seen = Ok::<_, BoxError>(locks);
    let mut complaint = String::new();
    loop {
        let failed = seen.is_err();
        let now = match seen {
            Ok(mut locks) => {
                complaint.clear();
                let gone = known.keys().filter(|name| locks.iter().all(|lock| lock.lock != **name));
                let gone = gone.map(|name| Lock::free(name, &Members::default(), "its record is gone"));
                let gone = gone.collect::<Vec<_>>();
                locks.extend(gone);
                locks
            }
            Err(error) => {
                // Once, however long it lasts.
                let text = Chain(&*error).to_string();
                if text != complaint {
                    output::diagnostic(&format!("error: {text}"));
                }
                let unknown = known.values().map(|lock| lock.unknown(&text)).collect();
                complaint = text;
                unknown
            }
        };
        for lock in now {
            let before = known.insert(lock.lock.clone(), lock.clone());
            if before.is_some_and(|before| before.leadership() == lock.leadership()) {
                continue;
            }
            let line = match form {
                Form::Table => table::line(&lock),
                Form::Json => format!("{}\n", serde_json::to_string(&lock)?),
                Form::Holder => table::holders(&[lock]),
            };
            if let Err(code) = output::try_data(&line) {
                return Ok(code);
            }
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
        seen = match cluster.changed().await {
            Ok(()) => cluster.look(routes).await,
            Err(error) => Err(error),
        };
    }
}

impl Cluster {
    /// Where it looks.
    fn place(&self) -> String {
        match self {
            Self::File(directory) => directory.place(),
            #[cfg(feature = "cluster-kubernetes")]
            Self::Kubernetes(group) => group.place(),
        }
    }

    /// All locks, by name, with what the route files know.
    async fn look(&mut self, routes: &Locks) -> Result<Vec<Lock>, BoxError> {
        let (mut locks, members) = match self {
            Self::File(directory) => directory.look()?,
            #[cfg(feature = "cluster-kubernetes")]
            Self::Kubernetes(group) => group.look().await?,
        };
        for (name, routes) in routes {
            if !locks.contains_key(name.as_str()) {
                let why = self.why_missing(name).await;
                locks.insert(name.to_string(), Lock::free(name.as_str(), &members, &why));
            }
            if let Some(lock) = locks.get_mut(name.as_str()) {
                lock.routes.clone_from(routes);
            }
        }
        Ok(locks.into_values().collect())
    }

    /// Why a lock that the route files name is not among those of the cluster.
    async fn why_missing(&self, lock: &router_core::cluster::LockName) -> String {
        match self {
            Self::File(_) => {
                let _ = lock;
                NEVER_LED.into()
            }
            #[cfg(feature = "cluster-kubernetes")]
            Self::Kubernetes(group) => group.why_missing(lock).await,
        }
    }

    async fn changed(&mut self) -> Result<(), BoxError> {
        match self {
            Self::File(directory) => directory.changed().await,
            #[cfg(feature = "cluster-kubernetes")]
            Self::Kubernetes(group) => group.changed().await?,
        }
        Ok(())
    }
}
