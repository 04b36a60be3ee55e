//! What is measured, and that the guide says so.

use std::net::SocketAddr;

use crate::process::get;

/// The value of a metric, with its labels as they are shown.
pub(crate) async fn value(at: SocketAddr, series: &str) -> Option<f64> {
    let (_, text) = get(at, "metrics").await;
    let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value)
}

#[cfg(all(feature = "component-http", feature = "cluster-kubernetes"))]
mod catalogue {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use bactrian::admin::AdminListener;
    use bactrian::prelude::*;
    use cluster_lease::{LeaseCluster, LeaseClusterSettings, MemoryStore};
    use tokio::time::timeout;

    use super::*;
    use crate::process::{Process, ask};

    /// The kind and the labels of each metric, by name.
    type Metrics = BTreeMap<String, (String, Vec<String>)>;

    fn documented() -> Metrics {
        let page = format!("{}/docs/src/operations.md", env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(page).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| `bactrian_"));
        rows.map(|row| {
            let cells = row.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
            let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned);
            (cells[1].clone(), (cells[2].clone(), labels.collect()))
        })
        .collect()
    }

    async fn served(at: SocketAddr) -> Metrics {
        let (_, text) = get(at, "metrics").await;
        let mut metrics = Metrics::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let [name, kind] = line["# TYPE ".len()..].split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let help = format!("# HELP {name} ");
            assert!(text.lines().any(|line| line.starts_with(&help)), "{name} has no help");
            let first = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
            let series = text.lines().find(|line| line.split(['{', ' ']).next() == Some(&first)).unwrap();
            let labels = series.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let labels = labels.filter(|label| label != "le").collect();
            metrics.insert(name.to_owned(), (kind.to_owned(), labels));
        }
        metrics
    }

    /// A process whose clock cannot keep up, and whose bot is polled by a rival as well.
    async fn served_by_a_process() -> Metrics {
        let folder = tempfile::tempdir().unwrap();
        let server = testkit::TelegramServer::start("123:test").await.unwrap();
        std::fs::write(folder.path().join("token"), "123:test").unwrap();
        let (token, base) = (folder.path().join("token"), server.base_uri());
        let bot =
            format!("telegram:bots?authorization_token=file:{}&base_uri={base}&timeout=1s", token.display());
        let clock = "master:lock1:timer:clock?delay=0&period=10&fixed_rate=true";
        let routes =
            [("bot", &*bot, "{ log = 'update' }"), ("clock", clock, "{ delay = '50ms' }, { log = 'late' }")];
        let mut process = Process::start(&folder, &routes, &["admin.listen=127.0.0.1:0"]);
        let at = process.address();
        process.wait_for("late");
        process.wait_for("late");
        assert!(value(at, "bactrian_missed_ticks_total{route=\"clock\"}").await.unwrap() >= 4.0);
        assert_eq!(value(at, "bactrian_poll_conflicts_total{route=\"bot\"}").await, Some(0.0));

        let rival = format!("{base}/bot123:test/getUpdates?timeout=1");
        let note = "[+]route bot ok: started, but another process polls for bot 123, and takes its updates";
        let is_noted = async || get(at, "readyz?verbose").await.1.contains(note);
        while !is_noted().await {
            // Never long enough for the other to get through with a poll of a second.
            let _ = timeout(Duration::from_millis(100), ask(&rival)).await;
        }
        assert!(value(at, "bactrian_poll_conflicts_total{route=\"bot\"}").await.unwrap() >= 4.0);
        served(at).await
    }

    /// An election by leases, on a store in memory.
    async fn served_of_an_election() -> Metrics {
        let listener = AdminListener::bind("127.0.0.1:0").unwrap();
        let (store, lock) = (MemoryStore::new(), "lock1".parse().unwrap());
        store.create_free(&lock);
        let cluster = LeaseCluster::start(
            store.handle(1),
            LeaseClusterSettings::new(bactrian::core::cluster::Member::new("a")),
        )
        .unwrap();
        let route = from("master:lock1:timer:once?delay=0&period=0").log("once");
        let router = bactrian::router().cluster(Arc::clone(&cluster) as _).route(route).build().unwrap();
        let admin = listener.serve(&router).unwrap();
        let view = cluster.view(&lock).await.unwrap();
        let mut metrics = Metrics::new();
        let look = async {
            let _scope = view.lead().await.unwrap();
            assert_eq!(value(admin.address(), "bactrian_leader{lock=\"lock1\"}").await, Some(1.0));
            // A session is made and then renewed before it may lead.
            assert!(value(admin.address(), "bactrian_lease_renew_seconds_count").await.unwrap() >= 2.0);
            assert!(value(admin.address(), "bactrian_lease_deadline_seconds_count").await.unwrap() >= 1.0);
            metrics = served(admin.address()).await;
        };
        assert_eq!(router.run_until(look).await, ShutdownOutcome::Drained);
        metrics
    }

    #[tokio::test]
    async fn the_guide_lists_what_is_served_and_nothing_else() {
        let (mut all, election) = tokio::join!(served_by_a_process(), served_of_an_election());
        all.extend(election);
        assert_eq!(all, documented());
    }
}
