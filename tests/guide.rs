//! The promise: the guide is true where a program can tell. Its routes and settings are sound, its commands are those
//! of the program and of this repository, and its links lead somewhere. Its Rust is run by `src/lib.rs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const REPOSITORY: &str = "https://github.com/bactrian-rs/bactrian/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the guide.
fn guide() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join("docs/src")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages = pages.collect::<Vec<_>>();
    pages.sort();
    pages
}

/// The pages beside the code.
fn others() -> impl Iterator<Item = PathBuf> {
    let names = [
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "README.md",
        "SECURITY.md",
        "cluster-lease/PROOF.md",
        "examples/kubernetes/README.md",
    ];
    names.into_iter().map(|name| root().join(name))
}

/// A fenced block of a page.
struct Block {
    /// The page and line where it begins.
    place: String,
    language: String,
    text: String,
}

fn blocks(page: &Path) -> Vec<Block> {
    let source = fs::read_to_string(page).unwrap();
    let (mut found, mut open) = (Vec::new(), None::<Block>);
    for (index, line) in source.lines().enumerate() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => {
                let place = format!("{}:{}", page.strip_prefix(root()).unwrap().display(), index + 1);
                open = Some(Block { place, language: language.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block does not end", page.display());
    found
}

fn blocks_in(languages: &[&str]) -> Vec<Block> {
    let blocks = guide().into_iter().chain(others()).flat_map(|page| blocks(&page));
    let blocks = blocks.filter(|block| languages.contains(&block.language.as_str())).collect::<Vec<_>>();
    assert!(!blocks.is_empty());
    blocks
}

fn bactrian(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.current_dir(folder).env_clear().args(arguments).output().unwrap()
}

/// A file of routes in which this part of one could stand.
fn whole(part: &str) -> String {
    let lines = part.lines();
    if part.starts_with('[') {
        let route =
            if part.contains("[[route]]") { "" } else { "\n[[route]]\nfrom = 'timer:guide'\nsteps = []\n" };
        format!("{part}{route}")
    } else if part.starts_with('{') {
        let (steps, keys) = lines.partition::<Vec<_>, _>(|line| line.starts_with('{'));
        let from = if keys.is_empty() { "from = 'timer:guide'" } else { "id = 'guide'" };
        format!("[[route]]\n{from}\n{}\nsteps = [\n{}\n]\n", keys.join("\n"), steps.join("\n"))
    } else {
        format!("[[route]]\nfrom = 'timer:guide'\nsteps = []\n{part}")
    }
}

/// The routes that are called and not shown.
fn called(text: &str) -> String {
    let names = ["audit", "failed", "order", "invoice"];
    let names = names.iter().filter(|name| {
        text.contains(&format!("direct:{name}")) && !text.contains(&format!("from = \"direct:{name}\""))
    });
    let routes = names.map(|name| format!("\n[[route]]\nfrom = 'direct:{name}'\nsteps = []\n"));
    let locked = text.contains("master:") && !text.contains("[cluster]");
    routes.chain(locked.then(|| "\n[cluster]\nservice = 'memory'\n".to_owned())).collect()
}

#[test]
fn the_routes_and_settings_of_the_guide_are_sound() {
    for block in blocks_in(&["toml"]) {
        let folder = tempfile::tempdir().unwrap();
        let text = whole(&block.text);
        fs::write(folder.path().join("routes.toml"), format!("{text}{}", called(&text))).unwrap();
        let output = bactrian(folder.path(), &["check"]);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{printed}", block.place);
    }
}

/// The commands of a block, each in one line, without what is behind a `#` or a `|`.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(|line| line.trim_start_matches("$ "));
    let commands = lines
        .flat_map(|line| line.split("&&"))
        .map(|command| command.split(" #").next().unwrap().split(" |").next().unwrap().trim().to_owned());
    commands.filter(|command| !command.is_empty()).collect()
}

/// With `--help` at its end, a command line is parsed and nothing is done.
#[test]
fn the_commands_of_the_guide_are_those_of_the_program() {
    let mut count = 0;
    for block in blocks_in(&["sh", "console"]) {
        for command in commands(&block.text) {
            let words = command.split_whitespace().collect::<Vec<_>>();
            let mut words = &words[..];
            while words.first().is_some_and(|word| word.contains('=')) {
                words = &words[1..];
            }
            let arguments = match words {
                ["kubectl", "bactrian", arguments @ ..] | ["bactrian", arguments @ ..] => arguments,
                ["cargo", "run", "--", arguments @ ..] => arguments,
                _ => continue,
            };
            count += 1;
            let output = bactrian(root(), &[arguments, &["--help"]].concat());
            let printed = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {command}\n{printed}", block.place);
        }
    }
    assert!(count >= 10, "{count} commands: the search no longer finds them");
}

#[test]
fn the_tests_measurements_and_scripts_that_the_guide_names_exist() {
    for block in blocks_in(&["sh"]) {
        for command in commands(&block.text) {
            let words = command.split_whitespace().collect::<Vec<_>>();
            for pair in words.windows(2) {
                let wanted = match pair[0] {
                    "--bench" => vec![
                        format!("benches/{}.rs", pair[1]),
                        format!("cluster-lease/benches/{}.rs", pair[1]),
                    ],
                    "--test" => vec![format!("tests/{}.rs", pair[1]), format!("tests/{}/main.rs", pair[1])],
                    _ => continue,
                };
                let exists = wanted.iter().any(|path| root().join(path).exists());
                assert!(exists, "{}: {command}: there is no {}", block.place, wanted.join(" or "));
            }
            let script = words.iter().find(|word| !word.contains('=')).unwrap();
            if script.starts_with("tests/") || script.starts_with("image/") {
                assert!(root().join(script).exists(), "{}: {command}", block.place);
            }
        }
    }
}

#[test]
fn the_yaml_of_the_guide_is_yaml() {
    for block in blocks_in(&["yaml"]) {
        let parsed = serde_saphyr::from_multiple::<serde_json::Value>(&block.text);
        assert!(parsed.is_ok(), "{}: {}", block.place, parsed.unwrap_err());
    }
}

/// The text of a page without its fenced blocks.
/// A command prints one number, so what is a range comes from several runs.
#[test]
fn a_figure_is_one_number_of_one_run_of_the_command_above_it() {
    let page = std::fs::read_to_string(root().join("docs/src/figures.md")).unwrap();
    let (mut commands, mut in_command) = (0, false);
    for line in page.lines() {
        match line {
            line if line.starts_with("```") => in_command = line == "```sh",
            "" => {}
            line if line.starts_with("## ") => commands = 0,
            _ if in_command => commands += 1,
            row if row.starts_with("| ") => {
                assert!(commands > 0, "no command prints {row}");
                let is_range =
                    |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit()) && cell.contains(" to ");
                assert!(!row.split('|').any(|cell| is_range(cell.trim())), "{row}");
            }
            _ => {}
        }
    }
}

fn prose(page: &Path) -> String {
    let source = fs::read_to_string(page).unwrap();
    source.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// What the headings of a page are called in links, as mdBook and GitHub do it.
fn anchors(page: &Path) -> BTreeSet<String> {
    let kept = |letter: char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    let headings = prose(page);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    headings
        .map(|heading| heading.chars().filter(|letter| kept(*letter)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// Where the links of a page lead.
fn links(page: &Path) -> Vec<String> {
    let prose = prose(page);
    let links = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    links.map(|(link, _)| link.to_owned()).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for page in guide().into_iter().chain(others()) {
        for link in links(&page) {
            let place = format!("{} links to {link}", page.display());
            let target = match link.strip_prefix(REPOSITORY) {
                Some(rest) => {
                    root().join(rest.trim_start_matches("blob/main/").trim_start_matches("tree/main/"))
                }
                None if link.contains("://") => continue,
                None if link.starts_with('#') => PathBuf::from(format!("{}{link}", page.display())),
                None => page.parent().unwrap().join(&link),
            };
            let target = target.display().to_string();
            let (path, anchor) =
                target.split_once('#').map_or((&*target, None), |(path, anchor)| (path, Some(anchor)));
            let inside = !page.starts_with(root().join("docs"))
                || Path::new(&link).components().all(|part| part.as_os_str() != "..");
            assert!(inside, "{place}, which is no page of the guide: name it by {REPOSITORY}blob/main/...");
            assert!(Path::new(path).exists(), "{place}, which does not exist");
            let found = anchor.is_none_or(|anchor| anchors(Path::new(path)).contains(anchor));
            assert!(found, "{place}: no heading is called so");
            count += 1;
        }
    }
    assert!(count > 50, "{count} links: the search no longer finds them");
}

#[test]
fn the_summary_lists_every_page_once() {
    let mut listed = links(&root().join("docs/src/SUMMARY.md"));
    listed.push("SUMMARY.md".into());
    listed.sort();
    let pages = guide();
    let pages = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(listed, pages);
}

/// The Rust of a page is run where `src/lib.rs` includes it; the program in the README is an example.
#[test]
fn the_rust_of_every_page_is_run() {
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for page in guide().iter().filter(|page| blocks(page).iter().any(|block| block.language == "rust")) {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            library.contains(&format!("include_str!(\"../docs/src/{name}\")")),
            "src/lib.rs lacks {name}"
        );
    }
}
