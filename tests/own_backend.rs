//! A cluster backend of a program's own: the whole of it is [`Shared`], over a store in memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use async_trait::async_trait;
use bactrian::cluster::Service;
use bactrian::core::cluster::backend::{BackendDescription, BackendSettings, ClusterBackend};
use bactrian::core::cluster::{ClusterService, LockName, Member};
use bactrian::core::error::{BoxError, ConfigErrors, Severity};
use bactrian::load::load;
use bactrian::settings::Environment;
use cluster_lease::{LeaseCluster, LeaseClusterSettings, MemoryStore};

struct Shared(MemoryStore);

static SHARED: BackendDescription =
    BackendDescription { name: "shared", summary: "a store in memory", options: &[], metrics: &[] };

#[async_trait]
impl ClusterBackend for Shared {
    fn description(&self) -> &'static BackendDescription {
        &SHARED
    }

    async fn open(&self, settings: &BackendSettings) -> Result<Arc<dyn ClusterService>, BoxError> {
        let settings = LeaseClusterSettings::new(Member::new(settings.member()));
        Ok(LeaseCluster::start(self.0.handle(1), settings)?)
    }
}

const ROUTES: &str = "[[route]]\nid = 'clock'\nfrom = 'master:lock1:timer:clock'\n";

/// What a member of this name gets of a file, over `store`.
fn service(store: &MemoryStore, file: &str, member: &str) -> Result<Service, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, format!("{file}\n{ROUTES}")).unwrap();
    let mut registry = bactrian::registry();
    registry.add_backend(Shared(store.clone()));
    let set = [format!("cluster.member={member}")];
    let loaded = load(&[path], &set, &Environment::default(), registry, Severity::Error)?;
    Ok(loaded.service.unwrap())
}

#[tokio::test]
async fn a_backend_of_ten_lines_is_named_in_a_file_and_elects_one_leader() {
    let (store, lock) = (MemoryStore::new(), "lock1".parse::<LockName>().unwrap());
    store.create_free(&lock);
    let member = async |name| {
        let service = service(&store, "[cluster]\nservice = 'shared'", name).unwrap();
        assert_eq!(service.name(), "shared");
        service.open().await.unwrap()
    };
    let (a, b) = (member("a").await, member("b").await);
    let on_a = a.view(&lock).await.unwrap();
    let first = on_a.lead().await.unwrap().term().number();
    let mut on_b = b.view(&lock).await.unwrap();
    while on_b.members_changed().await.unwrap().len() < 2 {}
    drop(on_a);
    a.close().await;
    let scope = on_b.lead().await.unwrap();
    assert_eq!((scope.term().holder().id.as_str(), scope.term().number() > first), ("b", true));
}

#[tokio::test]
async fn what_it_does_not_have_is_an_error_that_names_it() {
    let store = MemoryStore::new();
    let refused = |file: &str| service(&store, file, "a").unwrap_err().to_string();
    let printed = refused("[cluster]\nservice = 'shred'");
    assert!(printed.contains("did you mean `shared`?"), "{printed}");
    let printed = refused("[cluster]\nservice = 'shared'\n[cluster.shared]\nplace = 'x'");
    assert!(printed.contains("unknown key `place` in `[cluster.shared]`"), "{printed}");
    let shared = service(&store, "[cluster]\nservice = 'shared'", "a").unwrap();
    let asked = shared.operator().await.err().unwrap().to_string();
    assert!(asked.contains("members of the cluster service `shared` cannot be asked"), "{asked}");
    let seen = shared.survey().await.err().unwrap().to_string();
    assert!(seen.contains("the locks of the cluster service `shared` cannot be seen"), "{seen}");
}
