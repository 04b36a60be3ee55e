//! Passwords and certificates.

use serde_json::json;

use crate::support::Database;

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn a_wrong_password_is_not_shown_and_a_new_one_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2").unwrap();
    let url = std::env::var("BACTRIAN_POSTGRES").unwrap();
    let database = Database::at(format!("data_source={url}&password=file:{}", file.display()), None);
    let error = format!("{:?}", database.run("select 1 as a", ()).await.unwrap_err());
    assert!(error.contains("no connection to the database") && !error.contains("hunter2"), "{error}");
    std::fs::write(&file, std::env::var("BACTRIAN_POSTGRES_PASSWORD").unwrap()).unwrap();
    assert_eq!(database.rows("select 1 as a").await, json!([{ "a": 1 }]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn connections_are_encrypted_and_certificates_checked_as_asked_for() {
    let url = std::env::var("BACTRIAN_POSTGRES").expect("run by tests/postgres/server");
    let certificate = std::env::var("BACTRIAN_POSTGRES_CERTIFICATE").expect("run by tests/postgres/server");
    let encrypted = async |url: &str, options: &str| {
        let source = format!("data_source={url}?{options}&password=env:BACTRIAN_POSTGRES_PASSWORD");
        let database = Database::at(source, None);
        let statement = "select ssl as encrypted from pg_stat_ssl where pid = pg_backend_pid()";
        let exchange = database.run(statement, ()).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(
            exchange.message.body.json::<serde_json::Value>().unwrap()[0]["encrypted"].as_bool().unwrap(),
        )
    };
    assert_eq!(encrypted(&url, "sslmode=disable").await, Ok(false));
    // Whoever is there.
    assert_eq!(encrypted(&url, "sslmode=require").await, Ok(true));
    // Nobody vouches for a certificate that its server has signed itself ...
    let error = encrypted(&url, "sslmode=verify-full").await.unwrap_err();
    assert!(error.contains("no connection to the database") && error.contains("certificate"), "{error}");
    // ... unless we do, and for that name alone.
    let trusted = format!("sslmode=verify-full%26sslrootcert={certificate}");
    assert_eq!(encrypted(&url, &trusted).await, Ok(true));
    let error = encrypted(&url.replace("127.0.0.1", "localhost"), &trusted).await.unwrap_err();
    assert!(error.contains("certificate not valid for name"), "{error}");
}
