//! The promise: what `bactrian check` calls good starts, and what it refuses does not, with the same words.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::path::Path;

use rustix::process::Signal;

use program::{PATIENCE, Process, bactrian, folder};

/// A file of routes in a folder with odd entries.
fn odd(text: &str) -> tempfile::TempDir {
    let folder = folder(&[("routes.toml", text), ("note.txt", "text")]);
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(folder.path().join("fifo")).status().unwrap().success());
    folder
}

fn source(uri: &str) -> String {
    format!("[[route]]\nid = 'r'\nfrom = '{uri}'\n")
}

fn leading(uri: &str) -> String {
    format!("[cluster]\nservice = 'memory'\n{}", source(uri))
}

fn step(step: &str) -> String {
    format!("[[route]]\nfrom = 'timer:t?delay=1h'\nsteps = [{step}]\n")
}

fn setting(table: &str) -> String {
    format!("{table}\n{}", source("timer:t?delay=1h"))
}

/// Files that are wrong, and a part of what is said of each.
fn wrong() -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    for (table, error) in [
        ("[cluster]\nservice = 'file'\n[cluster.file]\nroot = '/proc/1/locks/x'", "belongs to the kernel"),
        ("[cluster]\nservice = 'file'\n[cluster.file]\nroot = '/nonexist/../dev/null'", "is not a directory"),
        ("[cluster]\nservice = 'file'\n[cluster.file]\nroot = '/dev/null/x'", "is not a directory"),
        (
            "[cluster]\nservice = 'file'\n[cluster.file]\nroot = 'dangling/locks'",
            "`dangling` is not a directory",
        ),
        ("[cluster]\nservice = 'file'\n[cluster.file]\nroot = 'fifo'", "`fifo` is not a directory"),
        ("[cluster]\nservice = 'file'\n[cluster.file]\nroot = ''", "text that is not empty"),
        ("[cluster]\nservice = 'memory'\n[cluster.file]\nroot = 'x'", "has no effect"),
        ("[admin]\nlisten = '127.0.0.1:99999'", "an IP address and a port"),
        ("[router]\nshutdown_timeout = '-1s'", "takes a duration"),
        ("[log]\nlevel = 'debug'", "`RUST_LOG=debug`"),
    ] {
        all.push((setting(table), error));
    }
    for (uri, error) in [
        ("cron:c?schedule=*/70+*+*+*+*", "has the step `*/70`"),
        ("cron:c?schedule=0+0+30+2+*", "never fires"),
        ("timer:t?period=-1", "takes a duration"),
        ("timer:", "a timer needs a name"),
        ("file:in?move=../x", "is not a name inside of the directory"),
        ("file:in?include=[(", "a regular expression"),
        ("file:fifo", "`fifo` is not a directory"),
        ("file:note.txt", "`note.txt` is not a directory"),
        ("http-poll:localhost:1/", "starts with `http://`"),
        ("kafka:topic", "there is no component for message brokers"),
        ("jms:queue:x", "there is no component for message brokers"),
        ("activemq:x", "there is no component for message brokers"),
        ("quartz:x", "write `cron:name?schedule=...`"),
        ("master:l:timer:t", "needs a cluster service"),
        ("tmer:t", "did you mean `timer`?"),
        (
            "sql:select * from t where a > :x?data_source=sqlite:a.db",
            "knows `:term` and `:lock`, but not `:x`",
        ),
        ("sql:delete from t?data_source=sqlite:a.db", "the statement of `from` yields no rows"),
        (
            "sql:select 1?data_source=postgres://me@host/db?sslMode=require",
            "no parameter `sslMode`: write `sslmode`",
        ),
        ("file:in?file_exist=append", "option `file_exist` is one of `to`, and has no effect in `from`"),
        ("seda:a?block_when_full=true", "`block_when_full` is one of `to`"),
        ("direct:a?timeout=1s", "`timeout` is one of `to`"),
        ("telegram:bots?authorization_token=file:note.txt&chat_id=5", "`chat_id` is one of `to`"),
    ] {
        all.push((source(uri), error));
    }
    for (steps, error) in [
        (
            "{ set_header = { name = ' x', value = 1 } }",
            "the name of a header has no white space at its ends",
        ),
        ("{ set_property = { name = ' ', value = 1 } }", "the name of a property cannot be empty"),
        ("{ remove_header = \"x\\n\" }", "the name of a header has no control characters"),
        ("{ to = 'direct:none' }", "no route consumes `direct:none`"),
        ("{ to = 'file:out?file_exist=nonsense' }", "takes one of"),
        ("{ to = 'file:out?file_exist=move' }", "needs the option `move_existing`"),
        ("{ to = 'file:out?move=.done' }", "option `move` is one of `from`, and has no effect in `to`"),
        ("{ to_dynamic = 'file:out?file_name=${header.x}&noop=true' }", "`noop` is one of `from`"),
        ("{ to = { uri = 'file:out', delay = '1s' } }", "`delay` is one of `from`"),
        ("{ to = 'file:out?file_name=a/../../x' }", "is not a name inside of the directory"),
        ("{ to = 'file:out?file_name=${body}' }", "a placeholder is not replaced here"),
        ("{ to = 'http:localhost:99999/' }", "needs a host and a path"),
        ("{ to_dynamic = { uri = '${header.x}', allow = ['http:*'] } }", "`http:host.example/*`"),
        ("{ to_dynamic = { uri = 'direct:${header.x}', allow = ['direct:*'] } }", "would choose any route"),
        (
            "{ to_dynamic = { uri = 'file:${header.x}?file_exist=append', allow = ['file:o?file_exist=append'] } }",
            "the step gives the options itself",
        ),
        ("{ set_body = '${nope}' }", "unknown placeholder"),
        ("{ filter = '${body} =' }", "expected an operator"),
        ("{ delay = 'abc' }", "takes a duration"),
        ("{ choice = { when = [] } }", "needs at least one"),
        ("'stopp'", "unknown step `stopp`"),
    ] {
        all.push((step(steps), error));
    }
    for (text, error) in [
        ("<routes><route id='a'/></routes>", "this looks like XML"),
        ("<?xml version='1.0'?>\n<camel/>", "this looks like XML"),
        ("- route:\n    from: x\n", "this looks like YAML"),
        ("", "there is no route"),
        ("[[route]]\n", "needs the key `from`"),
        (
            "[[route]]\nfrom = 'timer:t'\ndescription = 'of ${body}'\n",
            "a description is the same for every exchange",
        ),
        (
            "[[route]]\nid = 'r'\nfrom = 'timer:t'\n[[route]]\nid = 'r'\nfrom = 'timer:u'\n",
            "already a route `r`",
        ),
    ] {
        all.push((text.to_owned(), error));
    }
    let itself = |to: &str| format!("steps = [{{ to = '{to}' }}]\n");
    let waits = "seda:a?wait_for_task_to_complete=always";
    all.push((source("direct:a") + &itself("direct:a"), "come back to this route for ever"));
    all.push((source("seda:a") + &itself(waits), "come back to this route for ever"));
    all.push((leading("master:l:file:in?force_writes=false"), "`force_writes` is one of `to`"));
    let only = "{ to_dynamic = { uri = 'direct:${header.x}', allow = ['direct:a'] } }";
    all.push((source("direct:a") + &format!("steps = [{only}]\n"), "come back to this route for ever"));
    let schedule = "timer:t?fixed_rate=true&missed=once&state=position";
    all.push((
        source(schedule) + "[[route]]\nid = 's'\nfrom = 'cron:c?schedule=0+0+*+*+*&state=./position'\n",
        "another route keeps its position in this file",
    ));
    for (first, second) in [("file:in", "file:./in/"), ("file:in?include=a.*", "master:l:file:in")] {
        let text = leading(first) + &format!("[[route]]\nid = 's'\nfrom = '{second}'\n");
        all.push((text, "/in` too"));
    }
    all.push((source("direct:a") + &itself("direct:b?block=false&timeout=2s"), "goes with `block=true`"));
    for uri in ["cron:c?schedule=0+0+*+*+*&missed_max=5", "timer:t?missed_max=5"] {
        all.push((source(uri), "goes with `missed=all`"));
    }
    // Under a term, a sender waits unless it says otherwise.
    all.push((leading("master:l:seda:a") + &itself("seda:a"), "come back to this route for ever"));
    all
}

/// Files with names that are none, placeholders where none is replaced, and statements of no database.
fn wrong_words() -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    for (name, error) in [
        (" r", "a route id has no white space at its ends"),
        ("r\u{3000}", "a route id has no white space at its ends"),
        ("r\\u0007", "a route id has no control characters"),
        (" ", "a route id cannot be empty"),
    ] {
        all.push((format!("[[route]]\nid = \"{name}\"\nfrom = 'timer:t'\n"), error));
    }
    for from in ["http-poll:http://localhost/%ff", "file:%ff", "timer:%ff"] {
        all.push((source(from), "`%ff` is read as an escape, which gives no UTF-8 text here"));
    }
    for to in ["{ to = 'http:localhost/a%ff' }", "{ to_dynamic = 'http:localhost/%ff/${body}' }"] {
        all.push((step(to), "`%ff` is read as an escape, which gives no UTF-8 text here"));
    }
    let beside = step("{ to_dynamic = { uri = 'direct:', name = '${header.x}' } }");
    all.push((beside, "`{ uri = \"direct:\", name = \"${header.x}\", allow = [\"direct:a\"] }`"));
    for uri in ["direct: a", "direct:a%0A", "seda:a%20", "timer: t?period=1s"] {
        all.push((source(uri), "` has no "));
    }
    for from in ["direct:${header.x}", "timer:t?period=${body}", "file:in/${header.x}"] {
        all.push((source(from), "everywhere else `${env:NAME}` alone is replaced"));
    }
    let kubernetes = "[cluster]\nservice = 'kubernetes'\n[cluster.kubernetes]\nnamespace = 'Bad_Name'\ngroup = 'x y'\n\
                      resource = 'configmap'\nresource_name = 'a..b'\ncluster_labels = 'a in (b)'\ndeadline = '20s'\n\
                      heartbeat = '15s'\ntakeover_wait = '9s'\n";
    for error in [
        "a group has",
        "a namespace has",
        "the name of a ConfigMap has",
        "write labels as",
        "the heartbeat period 15s",
        "the takeover wait is too short: 9s",
        "the takeover wait 9s is worth",
        "a member of Camel that takes over waits 15s",
    ] {
        all.push((setting(kubernetes), error));
    }
    // Whichever database it would be, each of these is wrong.
    let statements = "sql:select :#a from t?data_source=mysql://h/db&on_consume=begin";
    for error in ["`data_source` takes", "a parameter looks like", "cannot begin or end one"] {
        all.push((source(statements), error));
    }
    all
}

/// Files that look odd, and are right.
fn right() -> Vec<String> {
    let itself = |to: &str| format!("steps = [{to}]\n");
    vec![
        source("timer:t?period=0&repeat_count=1"),
        source("cron:c?schedule=*/60+*+*+*+*"),
        source("file:no/such/folder"),
        source("file:/proc/self?delay=1h&initial_delay=1h&noop=true"),
        step("{ to = 'file:out?file_exist=move&move_existing=.old' }"),
        source("seda:a") + &itself("{ to = 'seda:a' }"),
        leading("master:l:seda:a") + &itself("{ to = 'seda:a?wait_for_task_to_complete=never' }"),
        source("direct:a")
            + &itself("{ to_dynamic = { uri = 'direct:${header.x}', allow = ['direct:a*'] } }"),
        source("timer:t?fixed_rate=true&missed=once&state=./position"),
        step("{ to_dynamic = { uri = 'file:${header.x}?file_exist=append', allow = ['file:out*'] } }"),
        "[[route]]\nfrom = 'timer:t'\ndescription = 'costs $5 {each}'\n".to_owned(),
        leading("master:a b:timer:t"),
    ]
}

fn check(folder: &Path) -> (Option<i32>, String) {
    let output = bactrian(folder, &["check"]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_check_refuses_does_not_start() {
    for (text, error) in wrong().into_iter().chain(wrong_words()) {
        let folder = odd(&text);
        let (code, said) = check(folder.path());
        assert_eq!(code, Some(78), "{text}\n{said}");
        assert!(said.contains(error), "{text}\n{said}");
        let run = bactrian(folder.path(), &["run"]).output().unwrap();
        assert_eq!((run.status.code(), String::from_utf8(run.stderr).unwrap()), (Some(78), said), "{text}");
    }
}

#[test]
fn what_check_calls_good_starts() {
    for text in right() {
        let folder = odd(&text);
        let (code, said) = check(folder.path());
        assert_eq!(code, Some(0), "{text}\n{said}");
        let mut process = Process::run(folder.path(), &["--set", "admin.listen=off"]);
        process.wait_for("starting 1 of 1 routes");
        process.signal(Signal::TERM);
        assert_eq!(process.ends(PATIENCE).code(), Some(0), "{text}");
    }
}
