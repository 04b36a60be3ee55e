//! What an operator does: prints a manifest, applies it, runs its pods, and looks who leads.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::member::Running;
use super::pause;
use super::stage::Stage;

/// Where objects of a kind are, in their namespace.
const PATHS: &[(&str, &str)] = &[
    ("ServiceAccount", "api/v1/namespaces/{}/serviceaccounts"),
    ("ConfigMap", "api/v1/namespaces/{}/configmaps"),
    ("Role", "apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles"),
    ("RoleBinding", "apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings"),
    ("Lease", "apis/coordination.k8s.io/v1/namespaces/{}/leases"),
    ("Deployment", "apis/apps/v1/namespaces/{}/deployments"),
    ("PodDisruptionBudget", "apis/policy/v1/namespaces/{}/poddisruptionbudgets"),
];

pub(crate) struct Operator {
    pub(crate) stage: Stage,
    routes: PathBuf,
    arguments: Vec<String>,
    /// What the image contains.
    program: PathBuf,
}

/// What a kubelet needs to run the container of a pod.
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) token: String,
    /// Those of the ConfigMap.
    pub(crate) files: serde_json::Map<String, Value>,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
}

/// A pod of the Deployment, and its process.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) process: Option<Running>,
    log: PathBuf,
}

impl Operator {
    pub(crate) fn new(name: &str, routes: &str, arguments: &[&str]) -> Self {
        let stage = Stage::new(name);
        let path = stage.path("routes.toml");
        std::fs::write(&path, routes).unwrap();
        std::fs::write(
            stage.path("kubeconfig-admin"),
            stage.server.admin_kubeconfig(stage.server.port(), &stage.namespace),
        )
        .unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { stage, routes: path, arguments, program: env!("CARGO_BIN_EXE_bactrian").into() }
    }

    /// With another image.
    pub(crate) fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// The tool, with the rights of the administrator.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let file = self.stage.path("kubeconfig-admin");
        command.args(arguments).env("KUBECONFIG", file).current_dir(self.stage.path("")).stdin(Stdio::null());
        command
    }

    pub(crate) fn manifest(&self) -> String {
        let mut command = self.command(env!("CARGO_BIN_EXE_bactrian"), &["kubernetes", "manifest"]);
        command.arg(&self.routes).args(["--image", "clock:1", "--namespace", &self.stage.namespace]);
        succeeded(command.args(&self.arguments).output().unwrap())
    }

    /// Applies each document as it was printed, by the server, without force: a conflict is a failure.
    pub(crate) fn apply(&self, manifest: &str) {
        self.apply_with(manifest, "");
    }

    /// The same, but nothing is stored, and a key that the server does not know is an error.
    pub(crate) fn dry_run(&self, manifest: &str) {
        self.apply_with(manifest, "&dryRun=All&fieldValidation=Strict");
    }

    fn apply_with(&self, manifest: &str, options: &str) {
        for text in manifest.split("---\n") {
            let object = serde_saphyr::from_str::<Value>(text).unwrap();
            let (kind, name) =
                (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
            let path = PATHS.iter().find(|(known, _)| *known == kind).expect("a kind that is known").1;
            let (mut path, text) = (path.replace("{}", &self.stage.namespace), self.for_server(text));
            if text.contains("policy/v1beta1") {
                path = path.replace("policy/v1/", "policy/v1beta1/");
            }
            let request = http::Request::patch(format!("/{path}/{name}?fieldManager=operator{options}"))
                .header("content-type", "application/apply-patch+yaml")
                .body(text.into_bytes())
                .unwrap();
            let applied = self.stage.block(self.stage.admin.request::<Value>(request));
            applied.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        }
    }

    /// The manifest in the words of this server: the oldest of the tests knows a budget for disruptions, in the same
    /// form, by its former version alone.
    pub(crate) fn for_server(&self, manifest: &str) -> String {
        if self.knows("policy/v1") {
            return manifest.to_owned();
        }
        manifest.replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n")
    }

    fn knows(&self, version: &str) -> bool {
        self.stage.block(self.stage.admin.list_api_group_resources(version)).is_ok()
    }

    /// A token with the rights of a service account, as a pod gets it.
    fn token(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", self.stage.namespace);
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(body.to_string().into_bytes()).unwrap();
        let answer = self.stage.block(self.stage.admin.request::<TokenRequest>(request)).unwrap();
        answer.status.unwrap().token
    }

    /// Does what the controller of Deployments does: makes a pod of the template. Then what a kubelet needs
    /// to run its container.
    pub(crate) fn pod(&self, manifest: &str, number: usize) -> Container {
        let documents = serde_saphyr::from_multiple::<Value>(manifest).unwrap();
        let of_kind = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
        let template = &of_kind("Deployment")["spec"]["template"];
        let container = &template["spec"]["containers"][0];
        let metadata = json!({"name": format!("clock-{number}"), "labels": template["metadata"]["labels"]});
        let pod = json!({"metadata": metadata, "spec": template["spec"]});
        let pod = serde_json::from_value::<Pod>(pod).unwrap();
        let params = PostParams::default();
        let pod = self.stage.block(async { self.stage.pods().create(&params, &pod).await }).unwrap();
        let value = |variable: &Value| match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => pod.name_any(),
            Some("metadata.namespace") => self.stage.namespace.clone(),
            Some("metadata.uid") => pod.uid().unwrap(),
            Some(other) => panic!("{other}"),
            None => variable["value"].as_str().unwrap().to_owned(),
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let variables = container["env"].as_array().unwrap().iter();
        Container {
            name: pod.name_any(),
            token: self.token(template["spec"]["serviceAccountName"].as_str().unwrap()),
            files: of_kind("ConfigMap")["data"].as_object().unwrap().clone(),
            arguments: container["args"].as_array().unwrap().iter().map(text).collect(),
            variables: variables.map(|variable| (text(&variable["name"]), value(variable))).collect(),
        }
    }

    /// Runs the container of another pod, with the rights of its service account and nothing else.
    pub(crate) fn start(&self, manifest: &str, number: usize) -> Replica {
        let Container { name, token, files, arguments, variables } = self.pod(manifest, number);
        let folder = self.stage.path(&name);
        std::fs::create_dir(&folder).unwrap();
        for (file, text) in files {
            std::fs::write(folder.join(file), text.as_str().unwrap()).unwrap();
        }
        let kubeconfig = folder.join("kubeconfig");
        let server = &self.stage.server;
        let text = server.kubeconfig_with(server.port(), &token, &self.stage.namespace);
        std::fs::write(&kubeconfig, text).unwrap();
        let mut command = Command::new(&self.program);
        let folder = folder.display().to_string();
        command.args(arguments.iter().map(|argument| argument.replace("/etc/bactrian", &folder)));
        command.env_clear().env("KUBECONFIG", kubeconfig).envs(variables).current_dir(folder);
        self.run(command, name)
    }

    /// Runs the process of a pod.
    pub(crate) fn run(&self, mut command: Command, name: String) -> Replica {
        let log = self.stage.path(&format!("log-{name}"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let stdout = output.try_clone().unwrap();
        command.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(stdout).stderr(output);
        let process = Some(Running(command.spawn().unwrap()));
        self.set_status(&name, &json!({"running": {}}));
        Replica { name, process, log }
    }

    /// What the kubelet says of the container.
    pub(crate) fn set_status(&self, pod: &str, state: &Value) {
        let patch = Patch::Merge(json!({"status": {"phase": "Running", "containerStatuses": [{
            "name": "clock", "image": "clock", "imageID": "", "ready": true, "restartCount": 0, "state": state,
        }]}}));
        let params = PatchParams::default();
        self.stage.block(async { self.stage.pods().patch_status(pod, &params, &patch).await }).unwrap();
    }

    /// What `bactrian leaders -o json` prints of a lock.
    pub(crate) fn lock(&self, name: &str) -> Value {
        let printed = self.leaders();
        let mut locks = printed["locks"].as_array().unwrap().iter();
        locks.find(|lock| lock["lock"] == name).cloned().unwrap_or(Value::Null)
    }

    /// All that `bactrian leaders` prints as JSON.
    pub(crate) fn leaders(&self) -> Value {
        let mut command = self.command(env!("CARGO_BIN_EXE_bactrian"), &["leaders", "-o", "json"]);
        let printed =
            succeeded(command.args(["--set", "cluster.service=kubernetes", "routes.toml"]).output().unwrap());
        serde_json::from_str(&printed).unwrap()
    }

    /// Waits until a lock is `wanted`.
    pub(crate) fn wait_for(&self, lock: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let seen = self.lock(lock);
            if wanted(&seen) {
                return seen;
            }
            if Instant::now() > patience {
                self.stage.show_logs();
                panic!("waited 30 s for {what}: {seen}");
            }
            pause();
        }
    }
}

impl Replica {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a text in its log.
    pub(crate) fn wait_for(&self, text: &str) {
        let patience = Instant::now() + Duration::from_secs(30);
        while !self.log().replace('\\', "").contains(text) {
            assert!(Instant::now() < patience, "waited 30 s for `{text}`:\n{}", self.log());
            pause();
        }
    }
}

pub(crate) fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
