//! Nothing that is written is dropped in silence.

use super::{RouteFile, file, lookup};
use crate::step::{KeyDescription, KeyKind, Need};
use crate::steps::ALL;

/// A value that a key takes.
fn sound(kind: KeyKind) -> String {
    match kind {
        KeyKind::Flag => "true".into(),
        KeyKind::Count => "1".into(),
        KeyKind::Duration => "'1s'".into(),
        KeyKind::Word(words) => format!("'{}'", words[0]),
        KeyKind::Uris | KeyKind::Names => "['a:b']".into(),
        KeyKind::Steps => "[]".into(),
        KeyKind::Tables(keys) => format!("[{}]", table(keys, None)),
        _ => "'a:b'".into(),
    }
}

/// A table with the required keys, one of them otherwise: as `name = value`, or left out.
fn table(keys: &[KeyDescription], other: Option<(&str, &str)>) -> String {
    let entries = keys.iter().filter_map(|key| match other {
        Some((name, written)) if name == key.name => Some(written.to_owned()),
        _ if key.need != Need::Required => None,
        _ => Some(format!("{} = {}", key.name, sound(key.kind))),
    });
    let entries = entries.filter(|entry| !entry.is_empty()).collect::<Vec<_>>();
    format!("{{ {} }}", entries.join(", "))
}

/// The ways to write a key that are none.
fn wrong_forms(name: &str) -> Vec<String> {
    let values = ["5", "1.5", "true", "1979-05-27", "[5]", "[[]]", "{}", "{ url = 'a:b' }", "'x'"];
    let mut forms = values.map(|value| format!("{name} = {value}")).to_vec();
    // Left out, doubled and changed letters, and what others call it.
    let last = name.chars().last().unwrap_or_default();
    forms.push(String::new());
    forms.extend(
        [format!("{name}{last}"), format!("{}x", &name[..name.len() - 1])]
            .map(|name| format!("{name} = 'x'")),
    );
    forms.extend(["url", "endpoint", "ur"].map(|name| format!("{name} = 'a:b'")));
    forms
}

/// Asserts that as many steps are read as are written, or that there is an error which says why.
fn assert_whole(text: &str, count: impl Fn(&RouteFile) -> usize, written: usize) {
    let (read, errors) = RouteFile::read(file(text), &lookup);
    let (found, printed) = (count(&read), errors.to_string());
    assert!(
        found == written || errors.has_errors(),
        "{found} of {written} is read, without an error: {text}"
    );
    assert!(!printed.contains("is not understood"), "no reason is given: {text}\n{printed}");
}

#[test]
fn each_wrong_form_of_a_step_is_an_error() {
    for step in ALL {
        let mut forms = ["5", "true", "[]", "{}", "'x'", "[{}]", "1979-05-27"].map(str::to_owned).to_vec();
        for key in step.keys {
            forms.extend(wrong_forms(key.name).iter().map(|form| table(step.keys, Some((key.name, form)))));
            if let KeyKind::Tables(keys) = key.kind {
                let inner = keys.iter().flat_map(|inner| {
                    wrong_forms(inner.name).into_iter().map(|form| table(keys, Some((inner.name, &form))))
                });
                forms.extend(
                    inner.map(|inner| {
                        table(step.keys, Some((key.name, &format!("{} = [{inner}]", key.name))))
                    }),
                );
            }
        }
        for form in forms {
            let text = format!("[[route]]\nfrom = 'a:b'\nsteps = [{{ {} = {form} }}, 'stop']\n", step.name);
            assert_whole(&text, |read| read.routes[0].steps.len(), 2);
        }
    }
}

#[test]
fn each_wrong_form_of_an_endpoint_is_an_error() {
    for form in wrong_forms("uri").iter().map(|form| format!("{{ {form} }}")).chain(["5".into(), "[]".into()])
    {
        let from = format!("[[route]]\nfrom = {form}\n");
        assert_whole(&from, |read| read.routes.iter().filter(|route| route.from.is_some()).count(), 1);
        let handler = format!("[[route]]\nfrom = 'a:b'\nerror_handler = {{ dead_letter = {form} }}\n");
        let dead_letter = |read: &RouteFile| {
            let handler = read.routes[0].error_handler.as_ref();
            handler.is_some_and(|handler| handler.dead_letter.is_some()).into()
        };
        assert_whole(&handler, dead_letter, 1);
    }
}

#[test]
fn a_misspelt_uri_is_named_at_its_place() {
    for (name, text) in [
        ("to", "from = 'a:b'\nsteps = [{ to = { url = 'c:d' } }]"),
        ("to_dynamic", "from = 'a:b'\nsteps = [{ to_dynamic = { url = 'c:d' } }]"),
        ("to", "from = 'a:b'\nsteps = [{ to = { endpoint = 'c:d' } }]"),
        ("from", "from = { url = 'a:b' }"),
        ("dead_letter", "from = 'a:b'\nerror_handler = { dead_letter = { url = 'c:d' } }"),
    ] {
        let text = format!("[[route]]\n{text}\n");
        let printed = RouteFile::read(file(&text), &lookup).1.to_string();
        assert!(printed.contains(&format!("error: `{name}` needs the key `uri`")), "{printed}");
        assert!(printed.contains("^ did you mean `uri`?"), "{printed}");
        assert_eq!(printed.matches("error:").count(), 1, "{printed}");
    }
}
