//! The examples of the steps are steps.

use std::sync::Arc;

use crate::error::ConfigErrors;
use crate::source::SourceFile;
use crate::steps::ALL;
use crate::toml::RouteFile;

/// What is wrong with steps that are written like this.
fn read(steps: &str) -> (RouteFile, ConfigErrors) {
    let text = format!("[[route]]\nfrom = 'a:b'\nsteps = [{steps}]\n");
    RouteFile::read(Arc::new(SourceFile::new("routes.toml", text)), &|_| Err(std::env::VarError::NotPresent))
}

#[test]
fn the_example_of_each_step_is_that_step() {
    for step in ALL {
        let (read, errors) = read(step.example);
        assert!(!errors.has_errors(), "{errors}");
        assert_eq!(read.routes[0].steps[0].description(), *step);
    }
}

/// The TOML in the documentation of each step.
#[test]
fn what_the_documentation_of_each_step_shows_is_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/steps");
    let list = include_str!("../../steps.rs");
    for step in ALL {
        let marker = "::DESCRIPTION,";
        let file = list.lines().filter_map(|line| line.trim().strip_prefix('&')?.strip_suffix(marker));
        let file = file.into_iter().find(|file| file.trim_end_matches('_') == step.name).unwrap();
        let text = std::fs::read_to_string(folder.join(format!("{file}.rs"))).unwrap();
        let docs = text
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .map(|line| format!("{}\n", line.trim_start()));
        let docs = docs.collect::<String>();
        assert!(docs.contains("```\nuse "), "{} shows no Rust", step.name);
        let (_, toml) = docs.split_once("```toml\n").unwrap();
        let (toml, _) = toml.split_once("```").unwrap();
        let steps = toml
            .lines()
            .map(|line| if line.ends_with([',', '[']) { line.to_owned() } else { with_comma(line) });
        let (read, errors) = read(&format!("\n{}", steps.collect::<String>()));
        assert!(!errors.has_errors() && !read.routes_missing, "{errors}");
        assert!(read.routes[0].steps.iter().all(|read| read.description() == *step), "{toml}");
    }
}

/// A line that is a step, or the end of one, with a comma before its remark.
fn with_comma(line: &str) -> String {
    match line.split_once("   #") {
        Some((step, remark)) => format!("{step}, #{remark}\n"),
        None => format!("{line},\n"),
    }
}
