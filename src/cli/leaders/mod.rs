//! `bactrian leaders`.

mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bactrian::cluster::Service;
use bactrian::load::{Locks, load_cluster, locks_of};
use bactrian::settings::Environment;
use clap::{Args, ValueEnum};
use router_core::cluster::{Candidates, LockState, LockStatus, MemberTiming, Sight, Survey, Timing};
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
    /// The namespace of the locks [default: `cluster.kubernetes.namespace`, or that of the context]
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

/// One lock. Its serialisation is the JSON that the guide describes: fields are added, never changed.
#[derive(Serialize)]
struct Row<'a> {
    lock: &'a str,
    state: &'static str,
    holder: Option<&'a str>,
    member: Option<&'a str>,
    term: Option<u64>,
    held_since: Option<&'a str>,
    held_seconds: Option<u64>,
    heartbeat_age_seconds: Option<u64>,
    /// Of the holder.
    #[serde(flatten)]
    timing: TimingKeys,
    standbys: &'a [String],
    drained: &'a [String],
    routes: &'a [String],
    /// Why it is in another state than `led`.
    reason: Option<&'a str>,
}

impl<'a> From<&'a LockStatus> for Row<'a> {
    fn from(lock: &'a LockStatus) -> Self {
        Self {
            lock: &lock.lock,
            state: table::word(lock.state),
            holder: lock.holder.as_deref(),
            member: lock.member.as_deref(),
            term: lock.term,
            held_since: lock.held_since.as_deref(),
            held_seconds: lock.held.map(|held| held.as_secs()),
            heartbeat_age_seconds: lock.heartbeat_age.map(|age| age.as_secs()),
            timing: lock.timing.into(),
            standbys: &lock.candidates.standbys,
            drained: &lock.candidates.drained,
            routes: &lock.routes,
            reason: lock.reason.as_deref(),
        }
    }
}

/// What a member lives by; `null`: it has not written it down.
#[derive(Serialize)]
struct TimingKeys {
    deadline_seconds: Option<f64>,
    stop_seconds: Option<f64>,
    clock_error_percent: Option<f64>,
}

impl From<Option<Timing>> for TimingKeys {
    fn from(timing: Option<Timing>) -> Self {
        Self {
            deadline_seconds: timing.map(|timing| timing.deadline.as_secs_f64()),
            stop_seconds: timing.map(|timing| timing.stop.as_secs_f64()),
            clock_error_percent: timing.map(|timing| f64::from(timing.clock_error_ppm) / 10_000.0),
        }
    }
}

/// A live member; its serialisation is the JSON that the guide describes.
#[derive(Serialize)]
struct MemberRow<'a> {
    host: &'a str,
    member: Option<&'a str>,
    drained: bool,
    #[serde(flatten)]
    timing: TimingKeys,
}

/// Those that have written down what they live by, then the others.
fn member_rows<'a>(members: &'a Candidates, timings: &'a [MemberTiming]) -> Vec<MemberRow<'a>> {
    let drained = |host: &String| members.drained.contains(host);
    let told = timings.iter().map(|MemberTiming { host, member, timing }| MemberRow {
        host,
        member: Some(member),
        drained: drained(host),
        timing: Some(*timing).into(),
    });
    let others = members.standbys.iter().chain(&members.drained);
    let others = others.filter(|host| timings.iter().all(|told| told.host != **host));
    let others =
        others.map(|host| MemberRow { host, member: None, drained: drained(host), timing: None.into() });
    told.chain(others).collect()
}

/// What is a change to those who watch.
fn leadership(lock: &LockStatus) -> (LockState, Option<&str>, Option<u64>) {
    (lock.state, lock.member.as_deref(), lock.term)
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (service, routes) = match configuration(arguments) {
        Ok(configuration) => configuration,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = runtime.map_err(BoxError::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = bactrian::shutdown_signal(), if arguments.watch => Ok(ExitCode::SUCCESS),
                shown = show(arguments, &service, &routes) => shown,
            }
        })
    });
    shown.unwrap_or_else(|error| output::failure(&Chain(&*error).to_string()))
}

/// The service, and the locks of the routes. What routes need to run is not needed here.
fn configuration(arguments: &Arguments) -> Result<(Service, Locks), ExitCode> {
    let pairs = plugin::pairs(&arguments.set, arguments.namespace.as_deref());
    let environment = Environment::of_process();
    let service = load_cluster(&arguments.paths, &pairs, &environment, &bactrian::registry());
    let service = service.map_err(|errors| output::config_errors(&errors))?;
    Ok((service, locks_of(&arguments.paths, &environment)))
}

async fn show(arguments: &Arguments, service: &Service, routes: &Locks) -> Result<ExitCode, BoxError> {
    let mut survey = service.survey().await?;
    let sight = look(&mut *survey, routes).await?;
    let locks = sight.locks;
    for note in sight.notes {
        output::diagnostic(&format!("note: {note}"));
    }
    if locks.is_empty() {
        output::diagnostic(&format!("note: there are no locks {}", survey.place()));
    }
    if !arguments.watch {
        return Ok(output::data(&match arguments.output {
            Form::Table => table::table(&locks),
            Form::Json => {
                let rows = locks.iter().map(Row::from).collect::<Vec<_>>();
                let members = member_rows(&sight.members, &sight.timings);
                format!("{:#}\n", serde_json::json!({ "locks": rows, "members": members }))
            }
            Form::Holder => table::holders(&locks),
        }));
    }
    watch(&mut *survey, arguments.output, routes, locks).await
}

/// How long to wait after an error before looking again.
const PAUSE: Duration = Duration::from_secs(1);

/// A line for each lock, then one for each change of its leadership.
async fn watch(
    survey: &mut dyn Survey,
    form: Form,
    routes: &Locks,
    locks: Vec<LockStatus>,
) -> Result<ExitCode, BoxError> {
    let mut known = BTreeMap::<String, LockStatus>::new();
    let mut seen = Ok::<_, BoxError>(locks);
    let mut complaint = String::new();
    loop {
        let failed = seen.is_err();
        let now = match seen {
            Ok(mut locks) => {
                complaint.clear();
                let gone = known.keys().filter(|name| locks.iter().all(|lock| lock.lock != **name));
                let gone =
                    gone.map(|name| LockStatus::free(name, &Candidates::default(), "its record is gone"));
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
                let unknown = known.values().map(|lock| lock.clone().unknown(&text)).collect();
                complaint = text;
                unknown
            }
        };
        for lock in now {
            let before = known.insert(lock.lock.clone(), lock.clone());
            if before.is_some_and(|before| leadership(&before) == leadership(&lock)) {
                continue;
            }
            let line = match form {
                Form::Table => table::line(&lock),
                Form::Json => format!("{}\n", serde_json::to_string(&Row::from(&lock))?),
                Form::Holder => table::holders(&[lock]),
            };
            if let Err(code) = output::try_data(&line) {
                return Ok(code);
            }
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
        seen = match survey.changed().await {
            Ok(()) => look(survey, routes).await.map(|sight| sight.locks),
            Err(error) => Err(error),
        };
    }
}

/// What there is to see, with what the route files know of the locks; by name.
async fn look(survey: &mut dyn Survey, routes: &Locks) -> Result<Sight, BoxError> {
    let mut sight = survey.look().await?;
    let named = sight.locks.into_iter().map(|lock| (lock.lock.clone(), with_time(lock)));
    let mut locks = named.collect::<BTreeMap<_, _>>();
    for (name, routes) in routes {
        if !locks.contains_key(name.as_str()) {
            let why = survey.why_missing(name).await;
            locks.insert(name.to_string(), LockStatus::free(name.as_str(), &sight.members, why));
        }
        if let Some(lock) = locks.get_mut(name.as_str()) {
            lock.routes.clone_from(routes);
        }
    }
    sight.locks = locks.into_values().collect();
    Ok(sight)
}

/// For how long it has been held, by the clock of this process where nothing better is known.
fn with_time(lock: LockStatus) -> LockStatus {
    let since = lock.held_since.as_ref().and_then(|since| since.parse::<jiff::Timestamp>().ok());
    let held = since.and_then(|since| jiff::Timestamp::now().duration_since(since).try_into().ok());
    LockStatus {
        held: lock.held.or(held.or(since.map(|_| Duration::ZERO))),
        held_since: since.map(|since| since.to_string()),
        ..lock
    }
}
