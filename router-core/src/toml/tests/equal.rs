//! Both front ends make the same definition.

use super::read;
use crate::builder::{
    Catch, DynamicRouter, Enrich, Join, LoadBalance, Loop, Multicast, RecipientList, RouteBuilder,
    RoutingSlip, Sample, Split, Steps, Try, dynamic, from,
};
use crate::definition::RouteDefinition;
use crate::failure::ErrorKind;
use crate::log::LogLevel;
use crate::step::StepDefinition;
use crate::steps::ALL;

type Written = (fn(RouteBuilder) -> RouteBuilder, &'static str);

/// Each step in Rust and in TOML.
const WRITTEN: &[Written] = &[
    (|route| route.to("log:a?level=WARN"), r#"{ to = "log:a?level=WARN" }"#),
    (|route| route.to_dynamic("log:${header.a}"), r#"{ to_dynamic = "log:${header.a}" }"#),
    (
        |route| route.to_dynamic(dynamic("${header.a}").allow(["direct:a"])),
        r#"{ to_dynamic = { allow = ["direct:a"], uri = "${header.a}" } }"#,
    ),
    (|route| route.log("a ${body}"), r#"{ log = "a ${body}" }"#),
    (|route| route.log_at(LogLevel::Warn, "a"), r#"{ log = { message = "a", level = "warn" } }"#),
    (|route| route.set_body(1), "{ set_body = 1 }"),
    (|route| route.set_header("a", "b"), r#"{ set_header = { value = "b", name = "a" } }"#),
    (|route| route.remove_header("a"), r#"{ remove_header = "a" }"#),
    (|route| route.set_property("a", true), r#"{ set_property = { name = "a", value = true } }"#),
    (|route| route.filter("${header.a} > 1"), r#"{ filter = "${header.a} > 1" }"#),
    (
        |route| route.filter_block("true", |steps| steps.stop()),
        r#"{ filter = { predicate = "true", steps = ["stop"] } }"#,
    ),
    (
        |route| route.choice(|choice| choice.when("true", |then| then.stop())),
        r#"{ choice = { when = [{ predicate = "true", steps = ["stop"] }] } }"#,
    ),
    (
        |route| route.choice(|choice| choice.when("true", |then| then).otherwise(|then| then.stop())),
        r#"{ choice = { otherwise = ["stop"], when = [{ predicate = "true", steps = [] }] } }"#,
    ),
    (
        |route| route.loop_(Loop::times(3), |steps| steps.stop()),
        r#"{ loop = { count = 3, steps = ["stop"] } }"#,
    ),
    (
        |route| route.loop_(Loop::while_("${header.a}").copy(), |steps| steps),
        r#"{ loop = { while = "${header.a}", copy = true, steps = [] } }"#,
    ),
    (|route| route.split(Split::lines(), |steps| steps), "{ split = { lines = true, steps = [] } }"),
    (
        |route| {
            let how = Split::tokenize(";").parallel(4).stop_on_exception().timeout("1s");
            route.split(how.join(Join::concatenate("-")), |steps| steps.stop())
        },
        r#"{ split = { tokenize = ";", join = "concatenate", join_delimiter = "-", parallel = 4, timeout = "1s",
           stop_on_exception = true, steps = ["stop"] } }"#,
    ),
    (
        |route| route.split(Split::list("${body.a}").join(Join::object("${body.id}")), |steps| steps),
        r#"{ split = { list = "${body.a}", join = "object", join_key = "${body.id}", steps = [] } }"#,
    ),
    (
        |route| {
            route.multicast(Multicast::new().branch(|steps| steps.stop()).branch(|steps| steps).parallel(2))
        },
        r#"{ multicast = { parallel = 2, branches = [{ steps = ["stop"] }, { steps = [] }] } }"#,
    ),
    (
        |route| {
            let recipients =
                RecipientList::new("${header.a}").allow(["direct:a", "direct:b-*"]).delimiter(";");
            route.recipient_list(recipients.ignore_invalid_endpoints().join(Join::Original))
        },
        r#"{ recipient_list = { uris = "${header.a}", allow = ["direct:a", "direct:b-*"], delimiter = ";",
           ignore_invalid_endpoints = true, join = "original" } }"#,
    ),
    (
        |route| {
            let slip = RoutingSlip::new("${header.a}").allow(["direct:a"]).delimiter(";");
            route.routing_slip(slip.ignore_invalid_endpoints())
        },
        r#"{ routing_slip = { uris = "${header.a}", allow = ["direct:a"], delimiter = ";",
           ignore_invalid_endpoints = true } }"#,
    ),
    (
        |route| route.dynamic_router(DynamicRouter::new("${header.a}").allow(["direct:a"]).most(3)),
        r#"{ dynamic_router = { next = "${header.a}", allow = ["direct:a"], most = 3 } }"#,
    ),
    (|route| route.wire_tap("direct:a"), r#"{ wire_tap = "direct:a" }"#),
    (|route| route.enrich(Enrich::from("direct:a")), r#"{ enrich = "direct:a" }"#),
    (
        |route| route.enrich(Enrich::from(dynamic("${header.a}").allow(["direct:a"])).header("b")),
        r#"{ enrich = { uri = "${header.a}", allow = ["direct:a"], into_header = "b" } }"#,
    ),
    (|route| route.transform("a"), r#"{ transform = "a" }"#),
    (|route| route.convert_body("JSON"), r#"{ convert_body = "json" }"#),
    (|route| route.set_headers([("a", "b")]), r#"{ set_headers = [{ name = "a", value = "b" }] }"#),
    (|route| route.remove_headers("a*", [""; 0]), r#"{ remove_headers = "a*" }"#),
    (
        |route| route.remove_headers("a*", ["ab"]),
        r#"{ remove_headers = { pattern = "a*", except = ["ab"] } }"#,
    ),
    (|route| route.remove_property("a"), r#"{ remove_property = "a" }"#),
    (|route| route.validate("${body}"), r#"{ validate = "${body}" }"#),
    (
        |route| {
            let balance = LoadBalance::weighted().weighted_branch(2, |steps| steps.stop());
            route.load_balance(balance.branch(|steps| steps))
        },
        r#"{ load_balance = { policy = "weighted", branches = [{ weight = 2, steps = ["stop"] }, { steps = [] }] } }"#,
    ),
    (
        |route| {
            let balance = LoadBalance::failover().kinds([ErrorKind::Timeout]);
            route.load_balance(balance.branch(|steps| steps))
        },
        r#"{ load_balance = { policy = "failover", kinds = ["timeout"], branches = [{ steps = [] }] } }"#,
    ),
    (
        |route| {
            let catch = Catch::kinds([ErrorKind::Data]).codes(["1"]).when("${body}");
            route.do_try(Try::new(|steps| steps.stop()).catch(catch, |steps| steps).finally(|steps| steps))
        },
        r#"{ do_try = { steps = ["stop"], do_finally = [], do_catch = [
           { kinds = ["data"], codes = ["1"], when = "${body}", steps = [] }] } }"#,
    ),
    (
        |route| route.throw(ErrorKind::Data, "a ${body}"),
        r#"{ throw = { kind = "data", message = "a ${body}" } }"#,
    ),
    (|route| route.sample(Sample::every(2)), "{ sample = { every = 2 } }"),
    (|route| route.delay("1s"), r#"{ delay = "1s" }"#),
    (|route| route.stop(), r#""stop""#),
];

#[test]
fn the_builder_and_toml_give_equal_definitions_of_each_step() {
    let mut seen = Vec::new();
    for (steps, written) in WRITTEN {
        let built: RouteDefinition = steps(from("timer:a")).into();
        let file = read(&format!("[[route]]\nfrom = 'timer:a'\nsteps = [{written}]"));
        assert_eq!(built, file.routes[0], "{written}");
        seen.extend(built.steps.iter().map(StepDefinition::name));
    }
    // What stands in Rust for `process` is code.
    let all = ALL.iter().map(|step| step.name).filter(|name| *name != "process");
    let missing = all.filter(|name| !seen.contains(name)).collect::<Vec<_>>();
    assert!(missing.is_empty(), "{missing:?}");
}
