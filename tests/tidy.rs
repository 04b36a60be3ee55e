//! The rules of the architecture, checked.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files are rooms: about 500 lines, then a wall. Tests count.
const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files with this extension that belong to the project.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The names of the dependencies in a manifest, without those for tests.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let manifest = manifest.parse::<toml::Table>().unwrap();
    let table = manifest.get("dependencies").and_then(|table| table.as_table());
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn dependencies_point_one_way() {
    let ours = ["router-core", "components", "cluster-file", "cluster-lease", "cluster-kubernetes"];
    let allowed: [(&str, &[&str]); 6] = [
        ("router-core", &[]),
        ("components", &["router-core"]),
        ("cluster-file", &["router-core"]),
        ("cluster-lease", &["router-core"]),
        ("cluster-kubernetes", &["router-core", "cluster-lease"]),
        ("testkit", &[]),
    ];
    for (folder, allowed) in allowed {
        if !root().join(folder).join("Cargo.toml").exists() {
            continue;
        }
        let named = dependencies(folder);
        for other in ours.iter().filter(|other| named.contains(**other)) {
            assert!(allowed.contains(other), "{folder} must not depend on {other}");
        }
        // Each product has one crate that knows it.
        for (product, home) in
            [("reqwest", "components"), ("sqlx", "components"), ("kube", "cluster-kubernetes")]
        {
            assert!(folder == home || !named.contains(product), "{folder} must not name {product}");
        }
    }
}

/// The modules of router-core on their levels, as ARCHITECTURE.md lists them: a line for each level, lowest first.
/// Two spaces end the names.
fn levels() -> BTreeMap<String, usize> {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, list) = page.split_once("```text router-core levels\n").unwrap();
    let (list, _) = list.split_once("```").unwrap();
    let lines = list.lines().map(|line| line.split("  ").next().unwrap());
    lines
        .enumerate()
        .flat_map(|(level, names)| names.split(' ').map(move |name| (name.into(), level)))
        .collect()
}

/// The modules of its crate that a source file names, with the lines; those for tests do not count.
fn modules_named(source: &str) -> Vec<(usize, String)> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = source.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let named = lines.flat_map(|(index, line)| line.split("crate::").skip(1).map(move |rest| (index, rest)));
    let name =
        |rest: &str| rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    named.map(|(index, rest)| (index + 1, name(rest))).collect()
}

#[test]
fn the_modules_of_router_core_use_only_those_below_them() {
    let (levels, folder) = (levels(), root().join("router-core/src"));
    let library = fs::read_to_string(folder.join("lib.rs")).unwrap();
    let declared = library.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let declared = declared.map(|name| name.trim_end_matches(';').to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        levels.keys().cloned().collect::<BTreeSet<_>>(),
        declared,
        "ARCHITECTURE.md lists all modules"
    );
    let (mut count, mut wrong) = (0, Vec::new());
    for path in files("rs").into_iter().filter(|path| path.starts_with(&folder)) {
        let inner = path.strip_prefix(&folder).unwrap().to_string_lossy().replace('\\', "/");
        let module = inner.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" || inner.contains("tests") {
            continue;
        }
        for (line, named) in modules_named(&fs::read_to_string(&path).unwrap()) {
            assert!(levels.contains_key(&named), "{inner}:{line} names `crate::{named}`, which is no module");
            count += 1;
            if named != module && levels[&named] >= levels[&module] {
                wrong.push(format!("{inner}:{line}: `{module}` uses `{named}`, which is not below it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "{count} uses: the search no longer finds them");
}

/// The modules of the election's state machine are one: its parts know each other.
const STATE_MACHINE: [&str; 7] = ["context", "core", "hold", "lock", "session", "takeover", "view"];

#[test]
fn the_modules_of_the_cluster_crates_do_not_use_each_other_in_circles() {
    for folder in ["cluster-file/src", "cluster-kubernetes/src", "cluster-lease/src"] {
        let folder = root().join(folder);
        let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
        for path in files("rs").into_iter().filter(|path| path.starts_with(&folder)) {
            let inner = path.strip_prefix(&folder).unwrap().to_string_lossy().replace('\\', "/");
            let room = |module: &str| {
                if STATE_MACHINE.contains(&module) && folder.ends_with("cluster-lease/src") {
                    "core"
                } else {
                    module
                }
                .to_owned()
            };
            let module = room(inner.split('/').next().unwrap().trim_end_matches(".rs"));
            // What is there for tests alone may know everything.
            if inner == "lib.rs" || inner.contains("tests") || ["contest", "fake"].contains(&module.as_str())
            {
                continue;
            }
            let named = modules_named(&fs::read_to_string(&path).unwrap()).into_iter();
            let named = named.map(|(_, named)| room(&named)).filter(|named| *named != module);
            uses.entry(module.clone()).or_default().extend(named);
        }
        assert!(uses.len() > 15, "{uses:?}");
        // Those that use none of the rest are in no circle; without them, others use none of the rest.
        while let Some(module) = {
            let is_free = |used: &BTreeSet<String>| used.iter().all(|used| !uses.contains_key(used));
            uses.iter().find(|(_, used)| is_free(used)).map(|(module, _)| module.clone())
        } {
            uses.remove(&module);
        }
        let rest = uses.keys().cloned().collect::<BTreeSet<_>>();
        uses.values_mut().for_each(|used| used.retain(|used| rest.contains(used)));
        assert!(uses.is_empty(), "{}: each of these uses another one of them: {uses:#?}", folder.display());
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for path in files("rs") {
        let count = lines(&path).len();
        assert!(count <= MAX_LINES, "{} has {count} lines, more than {MAX_LINES}", path.display());
    }
}

/// Without it, one in four races between a stop and new work starts the work: `select!` polls in random
/// order, and both may be ready.
#[test]
fn every_select_is_biased() {
    for path in files("rs") {
        let lines = lines(&path);
        for (index, line) in lines.iter().enumerate() {
            let opens = line.contains(concat!("select", "! {")) && !line.trim_start().starts_with("//");
            if opens {
                let first = lines[index + 1].trim();
                assert_eq!(first, "biased;", "{}:{}", path.display(), index + 1);
            }
        }
    }
}

#[test]
fn every_component_has_its_option_table_in_its_module_docs() {
    for description in bactrian::registry().descriptions() {
        // One component for two schemes.
        let name = description.scheme.replace("https", "http").replace('-', "_");
        let path = root().join(format!("components/src/{name}.rs"));
        let docs = lines(&path)
            .iter()
            .filter_map(|line| line.strip_prefix("//!"))
            .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
            .collect::<String>();
        let table = description.option_table();
        let table = table.trim_end_matches('\n').trim_end_matches('.');
        assert!(docs.contains(table), "{} lacks this table:\n{table}", path.display());
    }
}

#[test]
fn components_do_not_use_each_other() {
    let registry = bactrian::registry();
    let components =
        registry.descriptions().map(|description| description.scheme.replace('-', "_")).collect::<Vec<_>>();
    for path in files("rs") {
        let Ok(place) = path.strip_prefix(root().join("components/src")) else { continue };
        let own = place.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        for (index, line) in lines(&path).iter().enumerate().filter(|_| components.contains(&own)) {
            let code = line.split("//").next().unwrap();
            for other in components.iter().filter(|other| **other != own) {
                let named = code.contains(&format!("crate::{other}::"));
                assert!(!named, "{}:{} uses the component {other}", path.display(), index + 1);
            }
        }
    }
}

#[test]
fn each_step_has_tests_in_its_file() {
    let steps = root().join("router-core/src/steps");
    for path in files("rs").into_iter().filter(|path| path.parent() == Some(&steps)) {
        let has_tests = lines(&path).iter().any(|line| line == "#[cfg(test)]");
        assert!(has_tests || path.ends_with("tests.rs"), "{} has no tests", path.display());
    }
}

#[test]
fn the_guide_lists_all_steps() {
    let page = fs::read_to_string(root().join("docs/src/routes.md")).unwrap();
    let table = bactrian::core::steps::steps_table();
    assert!(page.contains(&table), "docs/src/routes.md lacks this table:\n{table}");
}

/// A row of the guide's table of who handles what: the place, and the tests of its cells.
type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

const OUTCOMES: &str = "the_outcome_names_how_an_exchange_was_done";
const ROUNDS: &str = "a_stop_ends_the_exchange_and_a_filter_the_round";
const FORKS: &str = "a_block_on_a_fork_ends_the_fork_alone";
const SPLIT: &str = "a_stop_and_a_filter_in_the_block_end_the_fork_alone";
const TRY: &str = "a_stop_in_the_block_ends_the_exchange_and_a_filter_the_block";
const CATCH: &str = "a_stop_in_a_catch_or_finally_ends_the_exchange_and_a_filter_that_block";
const GUARDED: &str = "a_stop_in_a_guarded_block_ends_the_exchange_and_a_filter_the_block";
const CALLER: &str = "the_caller_of_a_route_goes_on_with_each_outcome_and_handles_its_failure";
const QUEUE: &str = "what_is_filtered_or_stopped_behind_a_queue_is_done_and_ends_nothing_of_its_sender";
const DEAD: &str = "what_a_dead_letter_route_filters_or_stops_is_a_dead_letter";

/// The cells of that table, and where each is tested.
fn handlers() -> [Row; 9] {
    // Of a step that fails, the last ones.
    [
        ("in the route", OUTCOMES, OUTCOMES, &[OUTCOMES, "what_is_tried_again_follows_from_the_kind"]),
        (
            "in a branch of `choice`, or the block of a `filter`",
            OUTCOMES,
            OUTCOMES,
            &[OUTCOMES, "in_a_block_the_step_alone_is_tried_again"],
        ),
        ("in a block of `loop`", ROUNDS, ROUNDS, &["a_failure_in_a_round_is_handled_at_its_step"]),
        (
            "in a block on a fork: of `split`, `multicast` and `recipient_list`",
            FORKS,
            SPLIT,
            &[
                "a_dead_letter_of_a_fork_ends_the_fork_alone",
                "a_failure_of_a_fork_is_one_of_the_parent_and_was_handled_at_its_step",
                "a_uri_that_is_not_allowed_is_an_error_that_no_redelivery_repeats",
                "a_stop_and_a_filter_in_a_branch_end_that_fork_alone",
                "all_forks_are_run_before_the_step_fails_unless_the_first_failure_stops_them",
            ],
        ),
        (
            "in a guarded block: of `do_try`, and of a `failover` but for its last branch",
            GUARDED,
            TRY,
            &[
                "in_a_guarded_block_nothing_is_tried_again_or_sent_to_the_dead_letter_endpoint_before_the_catch",
                "what_is_not_caught_goes_to_the_dead_letter_endpoint_once_and_is_not_tried_again",
                "what_no_catch_fits_fails_the_exchange_after_finally_and_is_not_tried_again",
                "the_next_branch_is_taken_where_one_fails_and_the_last_one_is_retried_as_any_step",
            ],
        ),
        (
            "in `do_catch` and `do_finally`",
            CATCH,
            CATCH,
            &["what_fails_in_a_catch_is_retried_there_and_no_other_catch_handles_it"],
        ),
        (
            "in a route that is called by `direct:`",
            CALLER,
            CALLER,
            &[CALLER, "where_the_handler_of_a_called_route_fails_that_of_the_caller_is_next"],
        ),
        (
            "in a route behind `seda:`",
            QUEUE,
            QUEUE,
            &["a_sender_that_waits_gets_the_exchange_or_the_failure_back"],
        ),
        (
            "in what the dead letter endpoint does",
            DEAD,
            DEAD,
            &["a_handler_that_fails_is_not_handled_by_itself"],
        ),
    ]
}

#[test]
fn each_cell_of_the_table_of_handlers_has_its_test() {
    let cells = handlers();
    let page = fs::read_to_string(root().join("docs/src/errors.md")).unwrap();
    let table = page.split("| where | ").nth(1).unwrap().lines().skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|row| row.split(" | ").collect::<Vec<_>>());
    let rows = rows.map(|cells| (cells[0].trim_start_matches("| ").to_owned(), cells.len()));
    let listed = cells.iter().map(|(place, ..)| ((*place).to_owned(), 4));
    assert_eq!(rows.collect::<Vec<_>>(), listed.collect::<Vec<_>>());
    let sources = files("rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
    for (place, filter, stop, fails) in cells {
        for test in [filter, stop].iter().chain(fails) {
            assert!(sources.contains(&format!("fn {test}() {{")), "{place}: there is no test `{test}`");
        }
    }
}

#[test]
fn the_guide_lists_all_settings() {
    let page = fs::read_to_string(root().join("docs/src/settings.md")).unwrap();
    let table = bactrian::settings::settings_table(&bactrian::registry());
    for row in table.lines() {
        assert!(page.lines().any(|line| line == row), "docs/src/settings.md lacks this row:\n{row}");
    }
    // With everything that is built in there are no others.
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert!(cfg!(not(feature = "cluster-kubernetes")) || rows == table.lines().count() - 2, "{table}");
}

/// A backend is its crate, one entry in a list, and a feature.
#[test]
fn src_names_no_cluster_backend_outside_of_their_list() {
    // `bactrian kubernetes` is a verb about pods, and not about elections.
    let exempt = ["backends.rs", "cli/mod.rs", "cli/kubernetes"].map(|path| root().join("src").join(path));
    for path in files("rs").into_iter().filter(|path| path.starts_with(root().join("src"))) {
        if exempt.iter().any(|exempt| path.starts_with(exempt)) {
            continue;
        }
        for (index, line) in lines(&path).iter().enumerate() {
            for named in ["cluster_file", "cluster_kubernetes", "cluster-file", "cluster-kubernetes"] {
                // The guide has examples of all.
                let wrong = line.contains(named) && !line.contains("doctest");
                assert!(!wrong, "{}:{} names {named}", path.display(), index + 1);
            }
        }
    }
}

/// The literal text of the warnings and errors in a source file: of each the longest part between its values.
fn warnings(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let calls = source.split("warn!(").skip(1).chain(source.split("error!(").skip(1));
    // The message is the first text in the call.
    calls.filter_map(|call| first_text(call.split_once('"')?.1)).map(|(text, _)| longest_part(text)).collect()
}

/// The same of all texts in a source file that are longer than a few words.
fn phrases(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap().lines();
    let code = code.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let (mut rest, mut found) = (code.as_str(), Vec::new());
    while let Some((text, behind)) = rest.split_once('"').and_then(|(_, text)| first_text(text)) {
        found.push(longest_part(text));
        rest = behind;
    }
    found.retain(|phrase| phrase.len() >= SHORTEST_SENTENCE && phrase.contains(' '));
    found
}

/// A text up to the quotation mark at its end, and what follows that.
fn first_text(source: &str) -> Option<(&str, &str)> {
    let is_end = |(at, letter): &(usize, char)| *letter == '"' && !source[..*at].ends_with('\\');
    let (end, _) = source.char_indices().find(is_end)?;
    Some((&source[..end], &source[end + 1..]))
}

fn longest_part(text: &str) -> String {
    let text = text.replace("\\\n", " ").replace("\\\"", "\"");
    let parts =
        text.split(['{', '}']).step_by(2).map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let longest = parts.max_by_key(String::len).unwrap_or_default();
    longest.trim_matches(|letter: char| !letter.is_alphanumeric()).to_owned()
}

/// Where the reasons are that `leaders`, `handover` and `drain` print.
const REASONS: [&str; 6] = [
    "router-core/src/cluster/survey.rs",
    "cluster-file/src/survey.rs",
    "cluster-file/src/surveyor.rs",
    "cluster-file/src/operator.rs",
    "cluster-kubernetes/src/surveyor.rs",
    "cluster-lease/src/operator.rs",
];

/// Shorter ones are parts of sentences.
const SHORTEST_SENTENCE: usize = 24;

/// Shorter ones are nothing but values.
const SHORTEST_PHRASE: usize = 12;

#[test]
fn the_guide_explains_each_warning() {
    let page = fs::read_to_string(root().join("docs/src/troubleshooting.md")).unwrap();
    let page = page.replace(['>', '*'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let ours = ["router-core", "components", "cluster-file", "cluster-lease", "cluster-kubernetes", "."];
    let ours = ours.map(|folder| root().join(folder).components().collect::<PathBuf>().join("src"));
    let (mut count, mut missing) = (0, Vec::new());
    for path in files("rs") {
        if !ours.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        for phrase in warnings(&fs::read_to_string(&path).unwrap()) {
            let is_phrase = phrase.len() >= SHORTEST_PHRASE;
            count += usize::from(is_phrase);
            if is_phrase && !page.contains(&phrase) {
                missing.push(format!("{}: {phrase}", path.display()));
            }
        }
    }
    for path in REASONS.map(|path| root().join(path)) {
        for phrase in phrases(&fs::read_to_string(&path).unwrap()) {
            if !page.contains(&phrase) {
                missing.push(format!("{}: {phrase}", path.display()));
            }
        }
    }
    let missing = missing.join("\n");
    assert!(
        missing.is_empty(),
        "docs/src/troubleshooting.md does not say what to do about these lines:\n{missing}"
    );
    assert!(count >= 20, "{count} phrases: the search no longer finds them");
}

/// What is not compiled in is in the table nevertheless.
#[cfg(feature = "admin")]
#[test]
fn the_guide_lists_all_metrics() {
    let page = fs::read_to_string(root().join("docs/src/operations.md")).unwrap();
    let table = bactrian::core::metrics::metrics_table(bactrian::admin::metrics());
    for row in table.lines() {
        assert!(page.lines().any(|line| line == row), "docs/src/operations.md lacks this row:\n{row}");
    }
}

/// A page that promises something names its test; one that was renamed or removed proves nothing.
#[test]
fn the_tests_that_the_page_on_security_names_exist() {
    let page = fs::read_to_string(root().join("docs/src/security.md")).unwrap();
    let sources = files("rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
    let rows = page.lines().filter(|line| line.starts_with('|') && line.matches('|').count() == 4);
    let cells = rows.filter_map(|row| row.trim_end_matches(['|', ' ']).rsplit_once('|'));
    let named = cells.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2)).collect::<BTreeSet<_>>();
    let tests = named.iter().filter(|name| name.contains('_') && !name.contains(' ')).collect::<Vec<_>>();
    assert!(tests.len() > 20, "{tests:?}");
    for name in tests {
        assert!(sources.contains(&format!("fn {name}(")), "docs/src/security.md names {name}");
    }
}

#[test]
fn every_crate_says_what_it_is_for() {
    for path in files("rs").iter().filter(|path| !path.ends_with("build.rs")) {
        let lines = lines(path);
        let first = lines.iter().find(|line| !line.is_empty()).unwrap();
        assert!(first.starts_with("//!"), "{} does not begin with what it is for", path.display());
    }
}
