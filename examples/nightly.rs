//! A nightly job on a database, in exactly one of the processes that run this: `cargo run --example
//! nightly`. It is `examples/nightly.toml` in Rust.

use bactrian::prelude::*;

#[tokio::main]
async fn main() -> Result<ShutdownOutcome, BoxError> {
    bactrian::init_logging();
    let cluster = FileCluster::open(FileClusterSettings::new(".bactrian/locks")).await?;
    let schedule = std::env::var("SCHEDULE").unwrap_or_else(|_| "30+2+*+*+*".into());
    let database = std::env::var("DATABASE").unwrap_or_else(|_| "sqlite:nightly.db".into());
    let sql =
        |statement: &str| endpoint("sql:").option("statement", statement).option("data_source", &*database);
    let route = from(format!("master:nightly:cron:nightly?schedule={schedule}&missed=once"))
        .id("nightly")
        .to(sql("create table if not exists session (id integer primary key, expires text)"))
        .to(sql("create table if not exists job (name text primary key, term bigint)"))
        // The job belongs to the leader with the newest term. An older one changes nothing here ...
        .to(sql("insert into job values (:lock, :term) \
                 on conflict (name) do update set term = :term where job.term <= :term"))
        // ... and nothing there, however late its statement arrives.
        .to(sql("delete from session where expires < datetime('now') \
                 and :term = (select term from job where name = :lock) returning id"))
        .log("deleted ${header.sql.row_count} expired sessions, in term ${term}");
    let router = bactrian::router().cluster(cluster).route(route).build()?;
    Ok(bactrian::run(&router).await)
}
