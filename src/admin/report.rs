//! [`Report`]: what the probes look at, and how they put it.

use std::fmt;
use std::time::Duration;

use router_core::cluster::Leadership;
use router_core::router::{Phase, RouteInfo, RouteStatus, Router};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How long a loop may take to show that it runs.
const PATIENCE: Duration = Duration::from_secs(2);

/// The response to a probe, printed in the form of Kubernetes' own.
pub(super) struct Report {
    probe: &'static str,
    checks: Vec<Check>,
}

/// One line. Both sides say more about it, or nothing.
struct Check {
    what: String,
    result: Result<String, String>,
}

impl Report {
    pub(super) fn is_passed(&self) -> bool {
        self.checks.iter().all(|check| check.result.is_ok())
    }

    fn check(&mut self, what: impl Into<String>, result: Result<String, String>) {
        self.checks.push(Check { what: what.into(), result });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { what, result } in &self.checks {
            let (sign, word, more) = match result {
                Ok(more) => ('+', "ok", more),
                Err(more) => ('-', "failed", more),
            };
            let colon = if more.is_empty() { "" } else { ": " };
            // One line each, whatever is in names and notes.
            let line = format!("[{sign}]{what} {word}{colon}{more}").replace(char::is_control, " ");
            writeln!(formatter, "{line}")?;
        }
        writeln!(formatter, "{} check {}", self.probe, if self.is_passed() { "passed" } else { "failed" })
    }
}

/// Whether the loops of this process run. The servers that it talks to are none of them: restarting this
/// process would not help those.
pub(super) async fn live(router: &Router, routes_run_in: &Handle) -> Report {
    let mut report = Report { probe: "livez", checks: Vec::new() };
    report.check("runtime", in_time(run_a_task(routes_run_in), "it ran no task").await);
    if let Some(cluster) = router.cluster() {
        report.check("election", in_time(cluster.check_alive(), "its loop did not answer").await);
    }
    report
}

async fn in_time(answer: impl Future<Output = Result<(), String>>, late: &str) -> Result<String, String> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map(|()| String::new()),
        Err(_) => Err(format!("{late} within {PATIENCE:?}, something blocks it")),
    }
}

/// Has the runtime do what routes need it for: run a task, and wake it by a timer.
async fn run_a_task(runtime: &Handle) -> Result<(), String> {
    let (done, ran) = oneshot::channel();
    runtime.spawn(async move {
        sleep(Duration::from_millis(1)).await;
        // Whoever asked may have given up.
        let _ = done.send(());
    });
    ran.await.map_err(|_| "it has ended".into())
}

/// Whether all routes that were started are ready. A standby is, and so is a route that an operator has stopped.
pub(super) fn ready(router: &Router) -> Report {
    let mut report = Report { probe: "readyz", checks: Vec::new() };
    report.check(
        "router",
        match router.phase() {
            Phase::Built => Err("it does not run yet".into()),
            // If that lasts, one of the routes below says why.
            Phase::Starting => Err("its routes are being started".into()),
            Phase::Running => Ok(String::new()),
            Phase::Closed { .. } => Err("it is being stopped, or has ended".into()),
        },
    );
    for route in router.routes() {
        report.check(format!("route {}", route.id), readiness(&route));
    }
    if router.cluster().is_some_and(|cluster| *cluster.drained().borrow()) {
        report.check("member", Ok("drained, so it takes no lock".into()));
    }
    if let Some(why) = router.cluster().and_then(|cluster| cluster.unable()) {
        report.check("member", Ok(format!("stands by and could not lead: {why}")));
    }
    let mut leaderships = router.cluster().map(|cluster| cluster.leaderships()).unwrap_or_default();
    leaderships.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (lock, leadership) in leaderships {
        report.check(format!("lock {lock}"), Ok(describe(&leadership)));
    }
    report
}

/// Whether a route is ready; both sides say more about it.
fn readiness(route: &RouteInfo) -> Result<String, String> {
    let but = |text: &str| match &route.note {
        Some(note) => format!("{text}, but {note}"),
        None => text.into(),
    };
    match (route.status, route.unready_for) {
        (RouteStatus::Started, Some(time)) => {
            let seconds = time.as_secs();
            Err(match &route.note {
                Some(note) => format!("not ready for {seconds} s: {note}"),
                None => format!("its consumer has not said that it is ready for {seconds} s"),
            })
        }
        (RouteStatus::Finished, Some(_)) => Err("its consumer ended before it was ready".into()),
        (RouteStatus::Started, None) => Ok(but("started")),
        (RouteStatus::Finished, None) => Ok(but("finished")),
        (RouteStatus::Stopped, _) => Ok(but("stopped")),
        (RouteStatus::Changing, _) => Ok(but("starting or stopping")),
    }
}

/// Whether all routes have been ready, also when they have been stopped since.
pub(super) fn startup(router: &Router) -> Report {
    let mut report = Report { probe: "startupz", checks: Vec::new() };
    if let Phase::Running | Phase::Closed { had_started: true } = router.phase() {
        report.check("router", Ok(String::new()));
        return report;
    }
    report.check("router", Err("its routes have not all been ready yet".into()));
    for route in router.routes() {
        report.check(format!("route {}", route.id), readiness(&route));
    }
    report
}

/// Who leads, in which term, and why.
pub(super) fn describe(leadership: &Leadership) -> String {
    let because = |why: &str| if why.is_empty() { String::new() } else { format!(": {why}") };
    match leadership {
        Leadership::Leader(term) if term.is_valid() => {
            format!("leader in term {}{}", term.number(), because(term.why()))
        }
        Leadership::Leader(term) => {
            format!("standby, no leader is known: the deadline of term {} has passed", term.number())
        }
        Leadership::Follower { leader } => {
            let why = because(&leader.why);
            format!("standby, {} leads in term {}{why}", leader.member, leader.term)
        }
        Leadership::Vacant(vacancy) => format!("standby, {vacancy}"),
    }
}
