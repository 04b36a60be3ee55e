//! Files of routes that are near to sound ones.

use super::{file, lookup};
use crate::component::Registry;
use crate::router::RouterBuilder;
use crate::toml::RouteFile;

/// Whatever is written: it is an error that can be printed, or it is routes; and nothing is left out without an error.
#[test]
fn fuzz_files_of_routes() {
    testkit::fuzz::fuzz(include_str!("../../../corpus/toml.txt"), |text| {
        let (read, errors) = RouteFile::read(file(text), &lookup);
        if errors.iter().len() > 0 {
            assert!(errors.to_string().contains(" --> routes.toml:"), "{errors}");
        }
        let is_error = errors.into_warnings().is_err();
        let parsed = ::toml::from_str::<::toml::Table>(text);
        assert!(parsed.is_ok() || is_error, "it is no TOML, and there is no error");
        if let (Ok(parsed), false) = (parsed, is_error) {
            let tables = parsed.keys().filter(|key| !["route", "routes"].contains(&key.as_str())).count();
            let routes =
                ["route", "routes"].iter().filter_map(|key| parsed.get(*key)?.as_array()).map(Vec::len);
            assert_eq!((read.tables.entries.len(), read.routes.len()), (tables, routes.sum()));
        }
        // No component is known, so this is nothing but errors.
        let router = RouterBuilder::with_registry(Registry::default()).routes(read.routes.clone());
        match router.build() {
            Ok(_) => assert!(read.routes.is_empty()),
            Err(errors) => assert!(errors.to_string().contains("error: ")),
        }
    });
}
