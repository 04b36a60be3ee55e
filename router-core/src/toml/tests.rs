//! What a file of routes means.

mod equal;
mod errors;
mod examples;
mod fuzz;
mod whole;

use std::env::VarError;
use std::sync::Arc;

use super::{NodeValue, RouteFile, parse};
use crate::definition::{ExpressionDefinition, StepDefinition};
use crate::source::{SourceFile, SourceText};
use crate::value::{Json, Number, Value};

fn file(text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile::new("routes.toml", text))
}

fn lookup(name: &str) -> Result<String, VarError> {
    if name == "WHO" { Ok("world".into()) } else { Err(VarError::NotPresent) }
}

fn read(text: &str) -> RouteFile {
    parse(file(text), &lookup).unwrap()
}

#[test]
fn every_key_of_a_route_is_read() {
    let read = read(
        r#"
        [cluster]
        service = "file"
        [[route]]
        id = "clock"
        description = "Says hello to ${env:WHO}"
        auto_startup = false
        startup_order = 10
        from = "master:lock1:timer:clock?period=1s"
        error_handler = { maximum_redeliveries = 3, redelivery_delay = "2s", back_off_multiplier = 2, maximum_redelivery_delay = 500, dead_letter = "direct:failed" }
        [[route]]
        from = "timer:x"
        "#,
    );
    assert_eq!(read.routes.len(), 2);
    let route = &read.routes[0];
    assert_eq!(route.id.as_ref().unwrap().as_str(), "clock");
    assert_eq!(route.description.as_deref(), Some("Says hello to world"));
    assert_eq!((route.auto_startup, route.startup_order), (false, Some(10)));
    assert_eq!(route.from.as_ref().unwrap().uri.as_str(), "master:lock1:timer:clock?period=1s");
    let handler = route.error_handler.as_ref().unwrap();
    assert_eq!((handler.maximum_redeliveries, handler.redelivery_delay.as_secs()), (3, 2));
    assert_eq!(handler.maximum_redelivery_delay.as_millis(), 500);
    assert!((handler.back_off_multiplier - 2.0).abs() < f64::EPSILON);
    assert_eq!(handler.dead_letter.as_ref().unwrap().uri.as_str(), "direct:failed");
    assert!(read.routes[1].auto_startup);
    let cluster = read.tables.get("cluster").unwrap();
    let NodeValue::Table(cluster) = &cluster.node.value else { panic!() };
    assert_eq!(cluster.entries[0].name, "service");
}

#[test]
fn a_comment_makes_no_other_route() {
    let text =
        "[[route]]\nid = 'a'\nfrom = 'timer:t'\nsteps = [{ log = 'x' }, { filter = \"${body} == 'y'\" }]\n";
    assert_eq!(read(text).routes, read(&format!("# A comment.\n\n{text}")).routes);
    assert_ne!(read(text).routes, read(&text.replace("'y'", "'z'")).routes);
}

#[test]
fn every_step_is_read() {
    let read = read(
        r#"
        [[route]]
        from = "timer:x"
        steps = [
          { to = "log:x" }, { to_dynamic = "direct:${header.target}" },
          { log = { message = "Hello", level = "warn" } }, { process = "name" },
          { set_body = "text" }, { set_header = { name = "x", value = 5 } }, { remove_header = "x" },
          { set_property = { name = "x", value = true } }, { filter = "${header.x} > 5" },
          { choice = { when = [{ predicate = "${body}", steps = ["stop"] }], otherwise = [{ log = "no" }] } },
          { delay = "1s" }, "stop",
        ]"#,
    );
    let steps = &read.routes[0].steps;
    let names = steps.iter().map(StepDefinition::name).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "to",
            "to_dynamic",
            "log",
            "process",
            "set_body",
            "set_header",
            "remove_header",
            "set_property",
            "filter",
            "choice",
            "delay",
            "stop"
        ]
    );
    assert_eq!(steps[2].arguments().word("level"), Some("WARN"));
    assert_eq!(steps[9].blocks().iter().map(|block| block.len()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn an_endpoint_can_be_a_table_wherever_a_uri_stands() {
    let read = read(
        r#"
        [[route]]
        from = { uri = "sql:", statement = 'select %41', max = 5 }
        error_handler = { dead_letter = { uri = "log:x", show_all = true } }
        steps = [
          { to = { uri = "sql:", statement = "a\u0026b" } },
          { to_dynamic = { uri = "direct:${header.x}", timeout = "1s", allow = ["direct:a", "direct:b*"] } },
        ]"#,
    );
    let options = |options: &[(SourceText, SourceText)]| {
        options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    let route = &read.routes[0];
    assert_eq!(options(&route.from.as_ref().unwrap().options), ["statement=select %41", "max=5"]);
    let dead_letter = route.error_handler.as_ref().unwrap().dead_letter.as_ref().unwrap();
    assert_eq!(
        (dead_letter.uri.as_str(), options(&dead_letter.options)),
        ("log:x", vec!["show_all=true".into()])
    );
    let to = route.steps[0].arguments().endpoint("uri").unwrap();
    assert_eq!(options(&to.options), ["statement=a&b"]);
    let dynamic = route.steps[1].arguments().dynamic("uri").unwrap();
    assert_eq!(options(&dynamic.options), ["timeout=1s"]);
    let allow = route.steps[1].arguments().texts("allow").unwrap();
    assert_eq!(allow.iter().map(SourceText::as_str).collect::<Vec<_>>(), ["direct:a", "direct:b*"]);
}

#[test]
fn values_that_are_not_text_are_what_they_are() {
    let number = |digits: &str| Value::from(digits.parse::<Number>().unwrap());
    let cases = [
        ("5", Value::from(5)),
        ("1.5", number("1.5")),
        ("+123_456_789_012_345_678_901_234_567_890.10", number("123456789012345678901234567890.10")),
        ("18446744073709551617", number("18446744073709551617")),
        ("true", Value::from(true)),
        ("2026-11-24", Value::from("2026-11-24")),
        ("[1, 'a']", Value::Json(serde_json::json!([1, "a"]).into())),
        (
            "{ b = 0.1000000000000000055511151231257827, a = [1e2, 1.10] }",
            Value::Json(
                Json::parse(r#"{"b": 0.1000000000000000055511151231257827, "a": [1e2, 1.10]}"#).unwrap(),
            ),
        ),
        (r"{ b = '\${x}', a = 0.5 }", Value::Json(Json::parse(r#"{"b": "${x}", "a": 0.5}"#).unwrap())),
    ];
    for (written, expected) in cases {
        let read = read(&format!("[[route]]\nfrom = 'a:b'\nsteps = [{{ set_body = {written} }}]"));
        let value = read.routes[0].steps[0].arguments().expression("value");
        let Some(ExpressionDefinition::Constant(value)) = value else { panic!("{written}") };
        assert_eq!(*value, expected, "{written}");
        assert_eq!(value.to_string(), expected.to_string(), "{written}");
    }
}

#[test]
fn after_broken_syntax_the_other_tables_are_read() {
    let text = r#"
        [cluster]
        servce = "file"
        [[route]]
        id = "broken"
        from = timer:x
        [route.error_handler]
        dead_letter = "log:x"
        [[route]]
        id = "open"
        steps = [
          { log = "x" },
        [[route]]
        id = "after"
        from = 5
        [[route]]
        id = "good"
        from = "timer:x"
        "#;
    let (read, errors) = RouteFile::read(file(text), &lookup);
    let messages = errors.iter().map(crate::error::ConfigError::message).collect::<Vec<_>>();
    assert_eq!(messages.iter().filter(|message| message.starts_with("not TOML")).count(), 2, "{messages:?}");
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(read.routes_missing);
    let ids = read.routes.iter().map(|route| route.id.as_ref().unwrap().as_str()).collect::<Vec<_>>();
    assert_eq!(ids, ["after", "good"]);
    assert_eq!(read.tables.entries.len(), 1);

    let text =
        "[[route]]\nid = 'a'\nfrom = 5\n[[route]]\nid = = 'b'\nfrom = 'timer:x'\n[[route]]\nfrom = 6\n";
    let (read, errors) = RouteFile::read(file(text), &lookup);
    assert_eq!(errors.iter().len(), 3, "{errors}");
    assert_eq!(read.routes.len(), 2);

    let (_, errors) = RouteFile::read(file("- route:\n    from:\n      uri: timer:x\n"), &lookup);
    assert!(errors.to_string().contains("this looks like YAML"), "{errors}");
    assert_eq!(errors.iter().len(), 1);
    let (_, errors) = RouteFile::read(file("from = 'timer:x\n"), &lookup);
    assert!(!errors.to_string().contains("YAML"), "{errors}");
}

#[test]
fn a_table_that_stands_twice_hides_no_other_errors() {
    for (text, expected) in [
        (
            "[cluster]\nservice = 'file'\n[[route]]\nid = 'a'\nfrom = 5\n[cluster]\nroot = 'x'\n[[route]]\nfrom = 6",
            &["not TOML: duplicate key", "`from` takes", "`from` takes"][..],
        ),
        // Beside broken syntax, too.
        (
            "[log]\n[[route]]\nid = 'a'\nfrom = timer:x\n[log]\n[[route]]\nfrom = 6",
            &["not TOML: string values", "not TOML: duplicate key", "`from` takes"],
        ),
        (
            "[[route]]\nfrom = 'a:b'\n[route.error_handler]\n[route.error_handler]\nretries = 3",
            &["not TOML: duplicate key", "unknown key `retries`"],
        ),
    ] {
        let (read, errors) = RouteFile::read(file(text), &lookup);
        let messages = errors.iter().map(crate::error::ConfigError::message).collect::<Vec<_>>();
        assert_eq!(messages.len(), expected.len(), "{messages:?}");
        for (message, expected) in messages.iter().zip(expected) {
            assert!(message.starts_with(expected), "{messages:?}");
        }
        assert!(read.routes_missing);
    }
    let (read, _) = RouteFile::read(file("[cluster]\nservice = 'a'\n[cluster]\nroot = 'b'"), &lookup);
    let NodeValue::Table(cluster) = &read.tables.entries[0].node.value else { panic!("{read:?}") };
    assert_eq!(cluster.entries.len(), 2, "{cluster:?}");
}

/// Each error was placed by reading its file from the beginning: 8,000 took many seconds, ten times as many
/// would have taken a hundred times as long.
#[test]
fn thousands_of_errors_are_placed_in_linear_time() {
    let route = |number| {
        format!(
            "[[route]]\nid = 'r{number}'\nfrom = 'direct:a{number}'\nsteps = [{{ lgo = 'x' }}, {{ to = 'direct:b{number}' }}]\n"
        )
    };
    let text = (0..8_000).map(route).collect::<String>();
    let begin = std::time::Instant::now();
    let (read, errors) = RouteFile::read(file(&text), &lookup);
    assert_eq!(errors.iter().len(), 8_000);
    let built = crate::router::RouterBuilder::new().routes(read.routes).errors(errors, false).build();
    let printed = built.err().unwrap().to_string();
    assert!(printed.len() > 1_000_000);
    let took = begin.elapsed();
    assert!(took < std::time::Duration::from_secs(30), "{took:?}");
}
