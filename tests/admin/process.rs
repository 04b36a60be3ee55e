//! A process of the command line, its log, and a client.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};

/// A process; dropping it kills it.
pub(crate) struct Process {
    child: Child,
    output: BufReader<PipeReader>,
}

impl Process {
    /// Runs routes (their id, source and steps) in a folder, with settings.
    pub(crate) fn start(
        folder: &tempfile::TempDir,
        routes: &[(&str, &str, &str)],
        settings: &[&str],
    ) -> Self {
        let mut text = "[cluster]\nservice = 'file'\n".to_owned();
        for (id, from, steps) in routes {
            text += &format!("[[route]]\nid = '{id}'\nfrom = '{from}'\nsteps = [{steps}]\n");
        }
        std::fs::write(folder.path().join("routes.toml"), text).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command.current_dir(folder.path()).env_clear().args(["run", "--set", "log.format=human"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        let child = command.spawn().unwrap();
        // The command holds the writing end: without it, the pipe ends with the child.
        drop(command);
        Self { child, output: BufReader::new(reader) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads the log up to a line that contains `wanted`.
    pub(crate) fn wait_for(&mut self, wanted: &str) -> String {
        let mut lines = String::new();
        while !lines.contains(wanted) {
            let count = self.output.read_line(&mut lines).unwrap();
            assert!(count > 0, "it ended without `{wanted}`:\n{lines}");
        }
        lines
    }

    /// Where it listens, from its log.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let line = self.wait_for("probes and metrics are at http://");
        line.trim_end().rsplit("http://").next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// What it writes until it ends by itself. One that does not is killed.
    pub(crate) fn output(mut self) -> (ExitStatus, String) {
        let (ended, is_running) = mpsc::channel::<()>();
        let id = Pid::from_child(&self.child);
        let watchdog = thread::spawn(move || {
            if is_running.recv_timeout(Duration::from_secs(30)) == Err(RecvTimeoutError::Timeout) {
                kill_process(id, Signal::KILL).unwrap();
            }
        });
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        drop(ended);
        watchdog.join().unwrap();
        (self.child.wait().unwrap(), output)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks over a connection of its own; `None`: nobody listens.
pub(crate) async fn ask(uri: &str) -> Option<(StatusCode, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let (head, body) = client.get(uri.parse().unwrap()).await.ok()?.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Some((head.status, String::from_utf8(body.to_vec()).unwrap()))
}

/// The status of the response to a request without a body.
pub(crate) async fn send(method: &str, at: SocketAddr, path: &str) -> StatusCode {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let request = http::Request::builder().method(method).uri(format!("http://{at}/{path}"));
    client.request(request.body(Empty::new()).unwrap()).await.unwrap().status()
}

pub(crate) async fn get(at: SocketAddr, path: &str) -> (StatusCode, String) {
    ask(&format!("http://{at}/{path}")).await.unwrap()
}

/// Asks until the answer contains `wanted`: the log is written a moment before what it tells is to be seen.
pub(crate) async fn get_with(at: SocketAddr, path: &str, wanted: &str) -> (StatusCode, String) {
    let asking = async {
        loop {
            let (code, text) = get(at, path).await;
            if text.contains(wanted) {
                return (code, text);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), asking).await;
    answer.unwrap_or_else(|_| panic!("/{path} never says `{wanted}`"))
}

pub(crate) async fn status(at: SocketAddr, path: &str) -> StatusCode {
    get(at, path).await.0
}
