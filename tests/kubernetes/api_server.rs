//! A real API server with its etcd, on free ports of this host, in a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use kube::config::{AuthInfo, Config};
use rustix::process::{Pid, Signal, kill_process};

use super::{gateway, pause};

/// The users whose tokens the server knows, beside the administrator. None has any rights by itself.
const USERS: usize = 6;

const ADMIN_TOKEN: &str = "admin-token";

/// A running server; dropping it stops it.
pub(crate) struct ApiServer {
    folder: tempfile::TempDir,
    port: u16,
    etcd_port: u16,
    programs: Programs,
    etcd: Mutex<Option<Process>>,
    server: Mutex<Option<Process>>,
}

struct Programs {
    server: PathBuf,
    etcd: PathBuf,
    /// What the server was built from, where that is known.
    source: Option<String>,
}

impl ApiServer {
    /// One that other tests use at the same time: each has a namespace of its own.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<ApiServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// One of its own, for tests that hurt it or count its requests.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, etcd_port) = (free_port(), free_port());
        let programs = find_programs();
        let mut tokens = format!("{ADMIN_TOKEN},admin,1,\"system:masters\"\n");
        for user in 0..USERS {
            tokens.push_str(&format!("{},{},{}\n", token(user), user_name(user), user + 2));
        }
        std::fs::write(folder.path().join("tokens.csv"), tokens).unwrap();
        // The server signs the tokens of service accounts with it. It reads PKCS#8 where it signs, but not
        // where it verifies, so that it gets the public half for that.
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("sa.pub"), key.public_key_pem()).unwrap();
        let server =
            Self { folder, port, etcd_port, programs, etcd: Mutex::default(), server: Mutex::default() };
        server.start_etcd();
        server.start_server();
        server.say_version();
        server
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn start_etcd(&self) {
        let (client, peer) =
            (format!("http://127.0.0.1:{}", self.etcd_port), format!("http://127.0.0.1:{}", free_port()));
        let data = self.path("etcd");
        let arguments = [
            "--data-dir",
            &data,
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
        ];
        *self.etcd.lock().unwrap() =
            Some(Process::start(&self.programs.etcd, &arguments, &self.path("etcd.log")));
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn start_server(&self) {
        let arguments = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--cert-dir={}", self.path("certs")),
            format!("--token-auth-file={}", self.path("tokens.csv")),
            "--authorization-mode=RBAC".into(),
            format!("--service-account-key-file={}", self.path("sa.pub")),
            format!("--service-account-signing-key-file={}", self.path("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
        ];
        let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
        let process = Process::start(&self.programs.server, &arguments, &self.path("api-server.log"));
        *self.server.lock().unwrap() = Some(process);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let patience = Instant::now() + Duration::from_secs(120);
        while !runtime.block_on(self.is_ready()) {
            let log = std::fs::read_to_string(self.path("api-server.log")).unwrap_or_default();
            let end = log.lines().rev().take(5).collect::<Vec<_>>();
            assert!(Instant::now() < patience, "the API server did not become ready: {end:#?}");
            pause();
        }
    }

    /// Which server it is, for whoever reads the output of the tests.
    fn say_version(&self) {
        static SAID: Once = Once::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        SAID.call_once(|| {
            let version = runtime.block_on(async {
                let client = kube::Client::try_from(self.admin()).unwrap();
                client.apiserver_version().await.unwrap()
            });
            let source = self.programs.source.as_deref().unwrap_or("of KUBEBUILDER_ASSETS or PATH");
            println!("API server {} ({source})", version.git_version);
        });
    }

    async fn is_ready(&self) -> bool {
        // The server makes its certificate when it starts.
        let Ok(own) = std::fs::read_to_string(self.path("certs/apiserver.crt")) else { return false };
        std::fs::write(self.authority(), own + gateway::certificate()).unwrap();
        let Some(config) = self.try_config(self.port, ADMIN_TOKEN) else { return false };
        let Ok(client) = kube::Client::try_from(config) else { return false };
        get(&client, "/readyz").await.is_ok_and(|text| text == "ok") && Self::accepts(&client).await
    }

    /// Whether it does what tests begin with: a server that says that it is ready may still refuse that.
    async fn accepts(client: &kube::Client) -> bool {
        let object = serde_json::json!({"metadata": {"name": "ready"}});
        let object = serde_json::from_value::<Namespace>(object).unwrap();
        match Api::all(client.clone()).create(&PostParams::default(), &object).await {
            Ok(_) => true,
            // It was made before the server restarted.
            Err(kube::Error::Api(status)) => status.code == 409,
            Err(_) => false,
        }
    }

    /// `kill -9`, for the server but not for its etcd.
    pub(crate) fn kill_server(&self) {
        *self.server.lock().unwrap() = None;
    }

    pub(crate) fn signal_etcd(&self, signal: Signal) {
        self.etcd.lock().unwrap().as_ref().unwrap().signal(signal);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// For the administrator.
    pub(crate) fn admin(&self) -> Config {
        self.try_config(self.port, ADMIN_TOKEN).unwrap()
    }

    fn try_config(&self, port: u16, token: &str) -> Option<Config> {
        let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().ok()?);
        config.root_cert_file = Some(self.authority());
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Some(config)
    }

    /// The kubeconfig of a user whose way to the server leads over this port, where the server answers or
    /// the gateway of a proxy does.
    pub(crate) fn kubeconfig(&self, port: u16, user: usize, namespace: &str) -> String {
        self.kubeconfig_with(port, &token(user), namespace)
    }

    /// The certificates by which clients know the server.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("trusted.crt")
    }

    /// The kubeconfig of the administrator.
    pub(crate) fn admin_kubeconfig(&self, port: u16, namespace: &str) -> String {
        self.kubeconfig_with(port, ADMIN_TOKEN, namespace)
    }

    /// The kubeconfig of whoever has this token.
    pub(crate) fn kubeconfig_with(&self, port: u16, token: &str, namespace: &str) -> String {
        let authority = self.authority().display().to_string();
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: \"{authority}\"}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {namespace}}}}}]\n"
        )
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // The server first: without its etcd it would fill its log.
        self.kill_server();
        *self.etcd.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The text at a path of the server.
pub(crate) async fn get(client: &kube::Client, path: &str) -> kube::Result<String> {
    client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await
}

pub(crate) fn user_name(user: usize) -> String {
    format!("member-{user}")
}

fn token(user: usize) -> String {
    format!("member-{user}-token")
}

/// A program that ends when this process does, however it ends: a shell waits beside it for the end of a
/// pipe whose other end we hold.
struct Process {
    shell: Child,
    program: Pid,
}

impl Process {
    fn start(program: &Path, arguments: &[&str], log: &str) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let script = r#""$@" <&- >&2 & echo $!; read -r _; kill -9 $!"#;
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let program = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        Self { shell, program }
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.program, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // The shell has killed the program when it ends.
        let _ = self.shell.wait();
    }
}

fn find_programs() -> Programs {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/api-server");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "there is no API server to test with");
    let text = String::from_utf8(output.stdout).unwrap();
    let find = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    let program = |key| PathBuf::from(find(key).unwrap());
    Programs { server: program("kube-apiserver="), etcd: program("etcd="), source: find("source=") }
}

/// A port that is free. It is below those that the kernel gives to outgoing connections, so it stays free
/// until a server takes it, and no two calls get the same.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
