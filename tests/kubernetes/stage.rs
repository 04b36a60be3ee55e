//! A namespace with members, and one file in which they write down what they do.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bactrian::cluster_kubernetes::{Group, bare_lock};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use super::api_server::{ApiServer, user_name};
use super::judge::{self, Reader, Record, now, show};
use super::member::{Member, MemberSettings};
use super::pause;
use super::proxy::Proxy;
use super::seed;

/// The verbs that a member needs on Leases.
pub(crate) const VERBS: &[&str] = &["get", "list", "watch", "create", "update"];

/// How long to wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Stage {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) namespace: String,
    pub(crate) admin: Client,
    pub(crate) runtime: Runtime,
    folder: tempfile::TempDir,
    pub(crate) settings: MemberSettings,
    reader: RefCell<Reader>,
    /// Which members, by their process ids, were paused, and when.
    pauses: RefCell<Vec<(u32, u64)>>,
}

impl Stage {
    /// A namespace whose members may do what they need, with its lock made in advance.
    pub(crate) fn new(name: &str) -> Self {
        Self::on(ApiServer::shared(), name)
    }

    /// The same on this server. What is random on this stage, if it is chosen in this thread, is determined
    /// by the seed of the run and the name.
    pub(crate) fn on(server: Arc<ApiServer>, name: &str) -> Self {
        static STAGES: AtomicUsize = AtomicUsize::new(0);
        fastrand::seed(seed::of(name));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let admin = runtime.block_on(async { Client::try_from(server.admin()).unwrap() });
        let namespace = format!("{name}-{}", STAGES.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let settings = MemberSettings {
            pod: String::new(),
            pod_uid: None,
            namespace: namespace.clone(),
            kubeconfig: PathBuf::new(),
            records: folder.path().join("records"),
            locks: 1,
            work: Duration::from_millis(2),
            period: Duration::from_millis(5),
            cluster_labels: None,
            termination_log: None,
            profile: "fast",
            bot: None,
            config_map: false,
            log: PathBuf::new(),
            peer: None,
            program: None,
            variables: Vec::new(),
        };
        let (reader, pauses) = (RefCell::default(), RefCell::default());
        let stage = Self { server, namespace, admin, runtime, folder, settings, reader, pauses };
        let object = serde_json::json!({"metadata": {"name": stage.namespace}});
        let namespaces = Api::<Namespace>::all(stage.admin.clone());
        let object = serde_json::from_value(object).unwrap();
        stage.block(async { namespaces.create(&PostParams::default(), &object).await }).unwrap();
        stage.allow(VERBS);
        stage.make_locks(1);
        stage
    }

    pub(crate) fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// The Leases of sessions.
    pub(crate) fn sessions(&self) -> Vec<Lease> {
        let params = ListParams::default().labels("bactrian/kind=session");
        self.block(async { self.leases().list(&params).await }).unwrap().items
    }

    pub(crate) fn session_of(&self, member: &Member) -> Lease {
        let holder = format!("{}_", member.settings.pod);
        let of_member = |lease: &Lease| {
            let id = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
            id.is_some_and(|id| id.starts_with(&holder))
        };
        self.sessions().into_iter().filter(of_member).max_by_key(|lease| lease.creation_timestamp()).unwrap()
    }

    /// Makes the Leases of locks as their last holders would have left them, so that no test begins with a wait.
    pub(crate) fn make_locks(&self, count: usize) {
        for lock in 1..=count {
            let lease = bare_lock(&Group::default(), &format!("lock{lock}").parse().unwrap());
            // Those that exist already are as good.
            let made = self.block(async { self.leases().create(&PostParams::default(), &lease).await });
            let Ok(mut lease) = made else { continue };
            let name = lease.name_any();
            let record = format!("v=2 epoch=0 claim=0 settled=true uid={}", lease.uid().unwrap());
            let seal = Sha256::digest(format!("{name}\n{record}\n"));
            let seal = seal.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
            let notes = [("bactrian/record", record), ("bactrian/seal", seal)];
            let annotations = lease.metadata.annotations.get_or_insert_default();
            annotations.extend(notes.map(|(key, note)| (key.to_owned(), note)));
            self.block(async { self.leases().replace(&name, &PostParams::default(), &lease).await }).unwrap();
        }
    }

    /// What members may do with Leases, from now on; they may see pods too.
    pub(crate) fn allow(&self, verbs: &[&str]) {
        self.grant(&[("coordination.k8s.io", "leases", verbs), ("", "pods", &["list", "watch"])]);
    }

    /// What members may do, from now on.
    pub(crate) fn grant(&self, rules: &[(&str, &str, &[&str])]) {
        let rule = |group: &str, resource: &str, name: Option<&str>, verbs: &[&str]| PolicyRule {
            api_groups: Some(vec![group.into()]),
            resources: Some(vec![resource.into()]),
            resource_names: name.map(|name| vec![name.into()]),
            verbs: verbs.iter().map(ToString::to_string).collect(),
            ..PolicyRule::default()
        };
        // Of ConfigMaps members have the rights to one, but what is created cannot be named.
        let rules = rules.iter().flat_map(|(group, resource, verbs)| {
            let of_one = *resource == "configmaps";
            let (unnamed, named) =
                verbs.iter().copied().partition::<Vec<_>, _>(|verb| !of_one || *verb == "create");
            [rule(group, resource, None, &unnamed), rule(group, resource, Some("leaders"), &named)]
        });
        let rules = rules.filter(|rule| !rule.verbs.is_empty()).collect();
        let mut role = Role { rules: Some(rules), ..Role::default() };
        role.metadata.name = Some("members".into());
        let mut binding = RoleBinding {
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".into(),
                kind: "Role".into(),
                name: "members".into(),
            },
            subjects: Some(
                (0..3)
                    .map(|user| Subject {
                        api_group: Some("rbac.authorization.k8s.io".into()),
                        kind: "User".into(),
                        name: user_name(user),
                        namespace: None,
                    })
                    .collect(),
            ),
            ..RoleBinding::default()
        };
        binding.metadata.name = Some("members".into());
        let params = PatchParams::apply("test").force();
        self.block(async {
            let roles = Api::<Role>::namespaced(self.admin.clone(), &self.namespace);
            roles.patch("members", &params, &Patch::Apply(&role)).await.unwrap();
            let bindings = Api::<RoleBinding>::namespaced(self.admin.clone(), &self.namespace);
            bindings.patch("members", &params, &Patch::Apply(&binding)).await.unwrap();
        });
    }

    /// Starts the member with this number, of 0, 1 and 2, behind a proxy of its own.
    pub(crate) fn member(&self, user: usize) -> Member {
        self.member_with(user, self.settings.clone())
    }

    pub(crate) fn member_with(&self, user: usize, settings: MemberSettings) -> Member {
        let proxy = Proxy::start(&self.runtime, self.server.port());
        let kubeconfig = self.folder.path().join(format!("kubeconfig-{}", proxy.port));
        std::fs::write(&kubeconfig, self.server.kubeconfig(proxy.port, user, &self.namespace)).unwrap();
        let pod = if settings.pod.is_empty() { format!("pod-{user}") } else { settings.pod.clone() };
        let log = self.folder.path().join(format!("log-{pod}"));
        Member::start(MemberSettings { pod, kubeconfig, log, ..settings }, proxy)
    }

    /// Three of them, each of which has reached the server.
    pub(crate) fn members(&self) -> Vec<Member> {
        let members = (0..3).map(|user| self.member(user)).collect::<Vec<_>>();
        let patience = Instant::now() + PATIENCE;
        while members.iter().any(|member| member.proxy.connections() == 0) {
            assert!(Instant::now() < patience, "a member does not reach the server");
            pause();
        }
        members
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.reader.borrow_mut().read(&self.settings.records).to_vec()
    }

    /// Waits until the records are as `wanted`.
    pub(crate) fn wait(&self, what: &str, wanted: impl FnMut(&[Record]) -> bool) -> Vec<Record> {
        self.wait_for(PATIENCE, what, wanted)
    }

    /// The same for what takes a slow server long.
    pub(crate) fn wait_for(
        &self,
        time: Duration,
        what: &str,
        mut wanted: impl FnMut(&[Record]) -> bool,
    ) -> Vec<Record> {
        let patience = Instant::now() + time;
        loop {
            let mut reader = self.reader.borrow_mut();
            let records = reader.read(&self.settings.records);
            if wanted(records) {
                return records.to_vec();
            }
            if Instant::now() >= patience {
                self.show_logs();
                panic!("waited {time:?} for {what}; {}", show(records));
            }
            drop(reader);
            pause();
        }
    }

    pub(crate) fn show_logs(&self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("log-") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let lines = text.lines().collect::<Vec<_>>();
                println!("{}:\n{}", path.display(), lines[lines.len().saturating_sub(25)..].join("\n"));
            }
        }
    }

    /// The first exchange of a term of `lock1` after `term`.
    pub(crate) fn wait_for_term_after(&self, term: u64) -> Record {
        let next = |record: &&Record| record.lock == "lock1" && record.term > term;
        let records = self.wait("a new term", |records| records.iter().any(|record| next(&record)));
        records.iter().find(next).cloned().unwrap()
    }

    /// Lets `time` pass while members do what they do.
    pub(crate) fn let_pass(&self, time: Duration) {
        self.block(async { tokio::time::sleep(time).await });
    }

    /// Waits for an exchange that starts from now on: its member leads.
    pub(crate) fn wait_for_work(&self) -> Record {
        let from = now();
        let next = |record: &&Record| record.lock == "lock1" && record.start > from;
        let records = self.wait("work", |records| records.iter().rev().any(|record| next(&record)));
        records.iter().find(next).cloned().unwrap()
    }

    /// Waits until one member alone has worked for a moment, and returns its last exchange. Where ours elects the
    /// first moment is such a one; other crates may need some.
    pub(crate) fn wait_for_leader(&self) -> Record {
        const MOMENT: u64 = 50_000_000;
        loop {
            let from = now();
            let records = self
                .wait("work", |records| records.last().is_some_and(|record| record.start > from + MOMENT));
            let mut recent = records.into_iter().rev().take_while(|record| record.start > from);
            let last = recent.next().unwrap();
            if recent.all(|record| record.member == last.member) {
                return last;
            }
        }
    }

    /// SIGSTOP, at the returned time. While a process is paused it does not work, and the one step that was
    /// past its check may end when it goes on; no step may start then.
    pub(crate) fn pause(&self, member: &Member) -> u64 {
        let at = member.signal(Signal::STOP);
        // The signal is sent before it has an effect, and a step may still start between.
        let status = format!("/proc/{}/status", member.id());
        while !std::fs::read_to_string(&status).unwrap().contains("State:\tT") {
            pause();
        }
        self.pauses.borrow_mut().push((member.id(), now()));
        at
    }

    /// All exchanges so far, where a step under way in a pause ends with its beginning.
    pub(crate) fn records_with_pauses(&self) -> Vec<Record> {
        let mut records = self.records();
        for (member, paused) in self.pauses.borrow().iter() {
            for record in
                records.iter_mut().filter(|record| record.member == *member && record.start < *paused)
            {
                record.end = record.end.map(|end| end.min(*paused));
            }
        }
        records
    }

    /// Judges, with the logs in the case of an error. Returns the number of terms.
    pub(crate) fn judge(&self) -> usize {
        let records = self.records_with_pauses();
        assert!(!records.is_empty(), "there is nothing to judge");
        let (errors, terms) = judge::judge(&records);
        if !errors.is_empty() {
            self.show_logs();
            panic!("{errors:#?}; {}", show(&records));
        }
        println!("{}: {} exchanges in {terms} terms, no overlap", self.namespace, records.len());
        terms
    }
}

/// Takes the leader out of the members.
pub(crate) fn take_leader(members: &mut Vec<Member>, leads: &Record) -> Member {
    let index =
        members.iter().position(|member| member.id() == leads.member).expect("the leader is a member");
    members.swap_remove(index)
}

/// The number of a member, by its pod.
pub(crate) fn number(member: &Member) -> usize {
    member.settings.pod.rsplit('-').next().unwrap().parse().unwrap()
}

/// Prints a distribution.
pub(crate) fn report(what: &str, times: Vec<Duration>) {
    let count = times.len();
    let [p50, p99, max] = distribution(times);
    println!("{what}: n={count} p50={p50:?} p99={p99:?} max={max:?}");
}

/// The median, the 99th percentile and the maximum; zero where there is nothing.
pub(crate) fn distribution(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    [50, 99, 100]
        .map(|percent| times.get((times.len() * percent / 100).min(last)).copied().unwrap_or_default())
}

pub(crate) fn between(from: u64, to: u64) -> Duration {
    Duration::from_nanos(to.saturating_sub(from))
}
