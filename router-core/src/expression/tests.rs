//! Tests of expressions, predicates and texts with placeholders.

use super::*;
use crate::exchange::Body;
use crate::source::SourceText;
use crate::value::{Json, Number};

const ROUTE: SmolStr = SmolStr::new_static("clock");
const NODE: SmolStr = SmolStr::new_static("a");

const AMOUNT: &str = "123456789012345678901234567890.10";

fn exchange() -> Exchange {
    let mut exchange = Exchange::new(serde_json::json!({"user": {"name": "Ann"}, "items": [7, 8]}));
    let mut body = exchange.message.body.to_json().unwrap().as_object().unwrap().clone();
    body.insert("amount", AMOUNT.parse::<Number>().unwrap());
    exchange.message.body = Json::from(body).into();
    exchange.message.headers.set("Content-Type", "text/plain");
    exchange.message.headers.set("count", 10);
    exchange.properties.set("flag", true);
    exchange
}

fn evaluate(text: &str) -> Value {
    let definition = ExpressionDefinition::Text(SourceText::from_code(text));
    let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
    Expression::compile(&definition).unwrap().evaluate(&exchange(), scope).unwrap()
}

fn holds(text: &str) -> bool {
    let definition = PredicateDefinition::Text(SourceText::from_code(text));
    let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
    let predicate = Predicate::compile(&definition).unwrap_or_else(|error| panic!("{error}"));
    predicate.holds(&exchange(), scope).unwrap()
}

/// Whatever is written: it is an error that can be printed, or has a value for each exchange.
#[test]
fn fuzz_expressions_and_predicates() {
    testkit::fuzz::fuzz(include_str!("../../corpus/expression.txt"), |text| {
        let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
        let source = || SourceText::from_code(text);
        match Expression::compile(&ExpressionDefinition::Text(source())) {
            Ok(expression) => {
                let value = expression.evaluate(&exchange(), scope);
                assert!(text.contains("${") || value.unwrap().to_string() == text);
            }
            Err(errors) => assert!(!errors.to_string().is_empty()),
        }
        match Predicate::compile(&PredicateDefinition::Text(source())) {
            Ok(predicate) => {
                let held = predicate.holds(&exchange(), scope).ok();
                let not = Predicate::Not(Box::new(predicate)).holds(&exchange(), scope).ok();
                assert_eq!(not, held.map(|held| !held));
            }
            Err(errors) => assert!(!errors.to_string().is_empty()),
        }
    });
}

#[test]
fn a_template_inserts_values_and_a_single_placeholder_keeps_its_type() {
    assert_eq!(evaluate("n=${header.count} on ${node}/${route_id}"), "n=10 on a/clock".into());
    assert_eq!(evaluate("${header.count}"), 10.into());
    assert_eq!(evaluate("${header.content-type}"), "text/plain".into());
    assert_eq!(evaluate("${term}${lock}${header.none}|"), "|".into());
    assert_eq!(evaluate(r"\${body} costs $5"), "${body} costs $5".into());
    assert_eq!(evaluate(""), "".into());
}

#[test]
fn bytes_that_are_no_text_are_put_into_none() {
    let mut exchange = exchange();
    exchange.message.body = Body::bytes(&b"\xe4"[..]);
    exchange.message.headers.set("raw", Value::Bytes(bytes::Bytes::from_static(b"\xff")));
    exchange.properties.set("raw", Value::Bytes(bytes::Bytes::from_static(b"\xff")));
    exchange.properties.set("utf8", Value::Bytes(bytes::Bytes::from_static("ä".as_bytes())));
    let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
    let compile =
        |text: &str| Expression::compile(&ExpressionDefinition::Text(SourceText::from_code(text))).unwrap();
    for placeholder in ["${body}", "${header.raw}", "${property.raw}"] {
        let template = compile(&format!("<a>{placeholder}</a>"));
        let error = template.evaluate(&exchange, scope).unwrap_err();
        assert_eq!(error.to_string(), format!("`{placeholder}` is no text: its bytes are not UTF-8"));
        assert_eq!(crate::failure::ErrorKind::of(&*error).name(), "data");
        // A reader of the log sees that there is something.
        assert_eq!(template.show(&exchange, scope).unwrap(), "<a>\u{fffd}</a>".into());
        // Alone it is what it is.
        assert!(matches!(compile(placeholder).evaluate(&exchange, scope).unwrap(), Value::Bytes(_)));
    }
    assert_eq!(compile("<${property.utf8}>").evaluate(&exchange, scope).unwrap(), "<ä>".into());
}

#[test]
fn a_backslash_can_stand_before_a_placeholder() {
    for (text, value) in [
        (r"C:\\${header.count}", r"C:\10"),
        (r"\\\\${header.count}", r"\\10"),
        (r"\\\${header.count}", r"\${header.count}"),
        (r"\\server\d+ $ \$", r"\\server\d+ $ \$"),
        (r"${header.count}\\${header.count}\", r"10\10\"),
    ] {
        assert_eq!(evaluate(text), value.into(), "{text}");
    }
}

#[test]
fn what_cannot_be_decided_is_an_error_that_names_the_comparison() {
    let text = "${header.count} == 10 && ( ${header.content-type}  <  ${header.count} )";
    let definition = PredicateDefinition::Text(SourceText::from_code(text));
    let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
    let error = Predicate::compile(&definition).unwrap().holds(&exchange(), scope).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`${header.content-type}  <  ${header.count}` cannot be decided: \
         the text `text/plain` and the number 10 have no order"
    );
}

#[test]
fn fields_of_a_json_body_are_reached_by_path() {
    assert_eq!(evaluate("${body.user.name}"), "Ann".into());
    assert_eq!(evaluate("${body.items.1}"), 8.into());
    assert_eq!(evaluate("${body.amount}").to_string(), AMOUNT);
    assert_eq!(evaluate("${body.items.9}${body.nobody.name}"), "".into());
}

#[test]
fn a_field_of_a_body_that_is_no_json_is_an_error_where_it_is_asked_for() {
    let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
    let mut exchange = Exchange::new("a < b");
    exchange.message.headers.set("kind", "text");
    let expression = |text: &str| {
        let definition = ExpressionDefinition::Text(SourceText::from_code(text));
        Expression::compile(&definition).unwrap()
    };
    let predicate = |text: &str| {
        let definition = PredicateDefinition::Text(SourceText::from_code(text));
        Predicate::compile(&definition).unwrap()
    };
    for text in ["${body.user.name}", "hello ${body.user.name}"] {
        let error = expression(text).evaluate(&exchange, scope).unwrap_err().to_string();
        assert_eq!(error, "`${body.user.name}`: the body is no JSON: expected a value at line 1 column 1");
    }
    let guarded = predicate("${header.kind} == 'json' && ${body.user.name} == 'Ann'");
    assert!(!guarded.holds(&exchange, scope).unwrap());
    assert!(predicate("${body.user} == null").holds(&exchange, scope).is_err());
    // An empty text is no JSON, and no body is null.
    assert!(predicate("!${body.user}").holds(&Exchange::new(""), scope).is_err());
    assert!(predicate("${body.user} == null").holds(&Exchange::new(()), scope).unwrap());
}

#[test]
fn what_is_needed_of_the_body_is_known() {
    for (text, needs) in [
        ("${header.a} ${node}", Needs::Nothing),
        ("${header.a} ${body}", Needs::Whole),
        ("${body} ${body.a}", Needs::Json),
        ("no placeholder", Needs::Nothing),
    ] {
        let definition = ExpressionDefinition::Text(SourceText::from_code(text));
        assert_eq!(Expression::compile(&definition).unwrap().needs(), needs, "{text}");
    }
    for (text, needs) in [
        ("${header.a} == 1 && (true || !('${body}' contains 'x'))", Needs::Whole),
        ("${header.a} == 1 || !(7 == ${body.a})", Needs::Json),
        ("true", Needs::Nothing),
    ] {
        let definition = PredicateDefinition::Text(SourceText::from_code(text));
        assert_eq!(Predicate::compile(&definition).unwrap().needs(), needs, "{text}");
    }
}

#[test]
fn predicates_compare_combine_and_negate() {
    for text in [
        "${header.count} == 10",
        "${header.count} > 9.5 && ${header.count} <= 10",
        "${body.user.name} == 'Ann'",
        "${header.content-type} contains 'plain'",
        "!(${header.count} < 10) && (${header.none} || ${property.flag})",
        "${header.none} == null",
        "!${header.none}",
        "${body.user.name} != \"Bob\"",
        "${body.items} contains 7 && !(${body.items} contains '1')",
        "${body.user.name} in 'Ann, Bob' && !(${header.count} in ${body.items}) && '8' in ${body.items}",
        "'1.10' != '1.1' && '9007199254740993' != '9007199254740992' && 'Nan' == 'Nan'",
        "'10' > '9' && '10' < '9a' && '1.10' == 1.1",
        "'${body.user.name}-x' == 'Ann-x'",
        "${body.amount} == 123456789012345678901234567890.1 && ${body.amount} != 123456789012345678901234567890",
        "18446744073709551617 > 18446744073709551616 && 1e400 > 1e399 && -1e400 < 1e-400 && +1.50 == 1.5",
        "${body.amount} < 1e400 && '18446744073709551617' == 18446744073709551617",
        "false || true",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in ["${header.count} == 11", "${header.none} > 1", "${property.flag} && false"] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn errors_point_at_the_exact_characters() {
    let error = |text: &str| {
        let definition = PredicateDefinition::Text(SourceText::from_code(text));
        match Predicate::compile(&definition) {
            Ok(_) => panic!("`{text}` was accepted"),
            Err(error) => error.to_string(),
        }
    };
    let printed = error("${heder.x} == 1");
    assert!(printed.contains("unknown placeholder `heder.x`"), "{printed}");
    assert!(printed.contains("did you mean `header`?"), "{printed}");
    assert!(error("${header.x} = 1").contains("expected an operator"));
    assert!(error("${header.x").contains("has no closing `}`"));
    for (predicate, place, expected) in [
        ("${header.${header.x}} == 1", 9..20, "a placeholder cannot stand inside another one"),
        ("${body.} == 1", 6..7, "a name stands here"),
        ("${body.a..b} == 1", 8..9, "a name stands here"),
        ("${header. x} == 1", 8..11, "a name stands here"),
        ("${body.items[0].id} == 1", 7..15, "write `items.0`"),
    ] {
        let printed = error(predicate);
        assert!(printed.contains(expected), "{printed}");
        let carets = format!("| {}{}\n", " ".repeat(place.start), "^".repeat(place.len()));
        assert!(format!("{printed}\n").contains(&carets), "{printed}");
    }
    assert!(error("(${header.x} == 1").contains("expected `)`"));
    assert!(error("${header.x} ==").contains("expected an operand"));
    assert!(error("${exchangeId} == 1").contains("did you mean `exchange_id`?"));
    assert!(error("'open").contains("has no closing quote"));
    assert!(error("").contains("expected an operand"));
    assert!(error("${body} == nan").contains("expected an operand"));
    assert!(error("${body} == 1e9999999999999").contains("the exponent of this number is too large"));
    for number in ["007", "1.", ".5", "1_000"] {
        assert!(error(&format!("${{body}} == {number}")).contains("expected an operand"), "{number}");
    }
    assert!(error(&"(".repeat(100_000)).contains("nested too deep"));
}

#[test]
fn errors_behind_one_are_reported_too() {
    for (text, expected) in [
        ("${body} = 1 && ${hedr.x} == 2 || ${body.} > 3", &["an operator", "`hedr.x`", "a name stands"][..]),
        ("${a} = 1 && ${body} == 1 && ${body} = 2", &["`a`", "an operator", "an operator"]),
        ("(${body} = 1) && ${a} == 'x' && '${b}' ==", &["expected `)`", "`a`", "`b`"]),
        ("${body} == x && ${body} ==", &["an operand", "an operand"]),
        ("${body} == 'x && ${a}", &["no closing quote", "`a`"]),
        ("${body} = 1 && ${body", &["an operator", "no closing `}`"]),
        ("${body} = 1 &&", &["an operator", "an operand"]),
    ] {
        let definition = PredicateDefinition::Text(SourceText::from_code(text));
        let errors = Predicate::compile(&definition).err().unwrap();
        let found = errors.iter().map(crate::error::ConfigError::message).collect::<Vec<_>>();
        assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
    let definition = PredicateDefinition::Text(SourceText::from_code("x &&".repeat(10_000)));
    assert!(Predicate::compile(&definition).is_err());
}
