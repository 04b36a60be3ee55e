//! A member: this very test program, asked to run only [`member_process`], in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bactrian::cluster_kubernetes::{CamelTiming, Resource, Timing};
use bactrian::prelude::*;
use rustix::process::{Pid, Signal, kill_process};

use super::judge::{Note, now};
use super::peers;
use super::proxy::Proxy;

/// What a member is told.
#[derive(Clone)]
pub(crate) struct MemberSettings {
    pub(crate) pod: String,
    pub(crate) pod_uid: Option<String>,
    pub(crate) namespace: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) records: PathBuf,
    /// The locks are `lock1` and so on.
    pub(crate) locks: usize,
    pub(crate) work: Duration,
    pub(crate) period: Duration,
    pub(crate) cluster_labels: Option<String>,
    pub(crate) termination_log: Option<PathBuf>,
    pub(crate) profile: &'static str,
    /// The address of a bot's server: what it receives is what the member works on under `lock1`.
    pub(crate) bot: Option<String>,
    /// Whether the locks are entries of a ConfigMap.
    pub(crate) config_map: bool,
    pub(crate) log: PathBuf,
    /// The crate that elects instead of ours.
    pub(crate) peer: Option<&'static str>,
    /// The program of another version of ours, which runs instead of this one.
    pub(crate) program: Option<PathBuf>,
    /// More of the environment.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// The timing of members of Camel that fits to the profile `fast`.
pub(crate) const FAST_CAMEL: CamelTiming =
    CamelTiming { lease_duration: Duration::from_secs(5), renew_deadline: Duration::from_secs(3) };

/// A member process; dropping it kills it.
pub(crate) struct Member {
    child: Child,
    pub(crate) settings: MemberSettings,
    pub(crate) proxy: Proxy,
}

impl Member {
    pub(crate) fn start(settings: MemberSettings, proxy: Proxy) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&settings.log).unwrap();
        let mut command = match (settings.peer, &settings.program) {
            (Some(peer), _) => peers::program(peer),
            (None, Some(program)) => member_program(program),
            (None, None) => member_program(&std::env::current_exe().unwrap()),
        };
        command
            .envs(settings.variables.iter().map(|(name, value)| (name, value)))
            .env("POD_NAME", &settings.pod)
            .env("POD_NAMESPACE", &settings.namespace)
            .env("KUBECONFIG", &settings.kubeconfig)
            .env("MEMBER_RECORDS", &settings.records)
            .env("MEMBER_LOCKS", settings.locks.to_string())
            .env("MEMBER_WORK_MS", settings.work.as_millis().to_string())
            .env("MEMBER_PERIOD_MS", settings.period.as_millis().to_string())
            .env("MEMBER_PROFILE", settings.profile)
            .env("RUST_LOG", "info,cluster_lease=debug,cluster_kubernetes=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if settings.config_map {
            command.env("MEMBER_CONFIG_MAP", "");
        }
        if let Some(uid) = &settings.pod_uid {
            command.env("POD_UID", uid);
        }
        if let Some(labels) = &settings.cluster_labels {
            command.env("MEMBER_CLUSTER_LABELS", labels);
        }
        if let Some(bot) = &settings.bot {
            command.env("MEMBER_BOT", bot).env("MEMBER_TOKEN", super::positions::TOKEN);
        }
        if let Some(log) = &settings.termination_log {
            command.env("MEMBER_TERMINATION_LOG", log);
        }
        Self { child: command.spawn().unwrap(), settings, proxy }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, at the returned time.
    pub(crate) fn signal(&self, signal: Signal) -> u64 {
        let at = now();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        at
    }

    /// `kill -9`, at the returned time.
    pub(crate) fn kill(mut self) -> u64 {
        let at = now();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        at
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.settings.log).unwrap_or_default()
    }
}

/// This test program, of this version or another.
fn member_program(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["member::member_process", "--exact", "--ignored", "--nocapture"]);
    command
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another process; dropping it kills it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Asks it to stop, and waits until it has, in good order.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takeover wait, deadline, stop time and period of the heartbeat, in milliseconds.
fn timing(text: &str) -> Timing {
    let mut numbers = text.split(',').map(|number| Some(Duration::from_millis(number.parse().unwrap())));
    let mut next = || numbers.next().unwrap();
    Timing { takeover_wait: next(), deadline: next(), stop: next(), heartbeat: next(), ..Timing::default() }
}

/// What a member does. Not a test.
#[test]
#[ignore = "this is the program of a member process, which other tests start"]
fn member_process() {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str| variable(name).unwrap().parse::<u64>().unwrap();
    let Some(records) = variable("MEMBER_RECORDS").map(PathBuf::from) else { return };
    bactrian::init_logging();
    let resource = match variable("MEMBER_CONFIG_MAP") {
        Some(_) => Resource::ConfigMap,
        None => Resource::Lease,
    };
    let settings = KubernetesClusterSettings {
        resource,
        camel: FAST_CAMEL,
        timing: match variable("MEMBER_TIMING") {
            Some(text) => timing(&text),
            None => Timing { profile: variable("MEMBER_PROFILE"), ..Timing::default() },
        },
        namespace: variable("MEMBER_CLUSTER_NAMESPACE"),
        cluster_labels: variable("MEMBER_CLUSTER_LABELS"),
        termination_log: variable("MEMBER_TERMINATION_LOG").map(PathBuf::from),
        ..KubernetesClusterSettings::default()
    };
    let (work, period) = (Duration::from_millis(number("MEMBER_WORK_MS")), number("MEMBER_PERIOD_MS"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let cluster = KubernetesCluster::open(settings).await.unwrap();
        let mut builder = bactrian::router().cluster(cluster);
        if let Some(bot) = variable("MEMBER_BOT") {
            let router = builder.route(super::positions::poller(&bot, &records, work)).build().unwrap();
            return bactrian::run(&router).await;
        }
        for lock in 1..=number("MEMBER_LOCKS") {
            let (records, name) = (records.clone(), format!("lock{lock}"));
            let uri = format!("master:{name}:timer:{name}?delay=0&period={period}ms");
            builder = builder.route(from(uri.as_str()).process_async(move |exchange| {
                let note = Note::begin(&records, &name, exchange.term.as_ref().unwrap().number());
                Box::pin(async move {
                    tokio::time::sleep(work).await;
                    drop(note);
                    Ok(())
                })
            }));
        }
        let router = builder.build().unwrap();
        bactrian::run(&router).await
    });
    assert_eq!(outcome, ShutdownOutcome::Drained);
}
