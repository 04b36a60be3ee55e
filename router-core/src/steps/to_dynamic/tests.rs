//! What messages can do to the target of a `to_dynamic` step, and what they cannot.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::builder::{IntoDynamic, Steps, dynamic, from};
use crate::component::{BuildContext, Component, Consumer, Endpoint, Processor, RouteHandle};
use crate::error::{BoxError, Chain, ConfigErrors};
use crate::exchange::Exchange;
use crate::options::{
    ComponentDescription, OptionDescription, OptionKind, PathDescription, PathKind, option, path,
};
use crate::router::{Router, RouterBuilder};
use crate::uri::EndpointUri;

const OPTIONS: &[OptionDescription] = &[
    option("note", OptionKind::Text, None, ""),
    option("query", OptionKind::Query, None, ""),
    option("password", OptionKind::Secret, None, ""),
    option("server", OptionKind::Url, None, ""),
    option("count", OptionKind::Integer, None, ""),
    option("done", OptionKind::Template(&["${file.name}"]), None, ""),
];

const fn description(scheme: &'static str, path: PathDescription) -> ComponentDescription {
    ComponentDescription {
        scheme,
        summary: "",
        syntax: "",
        path,
        consumes: true,
        produces: true,
        options: OPTIONS,
    }
}

static NAME: ComponentDescription = description("name", path("name", PathKind::Name));
static ROUTE: ComponentDescription = description("route", path("name", PathKind::Route));
static FOLDER: ComponentDescription = description("folder", path("directory", PathKind::Directory));
static URL: ComponentDescription = description("url", path("url", PathKind::Url));
static CODE: ComponentDescription = description("code", path("code", PathKind::Code));
static SOURCE: ComponentDescription =
    ComponentDescription { produces: false, ..description("source", path("name", PathKind::Name)) };

/// What an endpoint got: scheme, path as the component reads it, and options.
type Call = (String, String, Vec<(&'static str, String)>);
type Arrived = Arc<Mutex<Vec<Call>>>;

struct Recorder(&'static ComponentDescription, Arrived);

impl Component for Recorder {
    fn description(&self) -> &'static ComponentDescription {
        self.0
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let options = self.0.read(uri)?;
        let path = match self.0.path.kind {
            PathKind::Url => uri.path().to_owned(),
            _ => uri.decoded_path()?.into_owned(),
        };
        let texts = ["note", "query", "done", "server"];
        let texts = texts.into_iter().filter_map(|name| Some((name, options.text(name)?))).collect();
        let address = (self.0.path.kind == PathKind::Route).then(|| format!("{}:{path}", self.0.scheme));
        Ok(Box::new(Recording {
            address,
            call: (self.0.scheme.into(), path, texts),
            arrived: Arc::clone(&self.1),
        }))
    }
}

#[derive(Clone)]
struct Recording {
    address: Option<String>,
    call: Call,
    arrived: Arrived,
}

impl Endpoint for Recording {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }

    fn processor(&self) -> Option<Arc<dyn Processor>> {
        (self.call.0 != "source").then(|| Arc::new(self.clone()) as _)
    }

    fn local_address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

#[async_trait]
impl Consumer for Recording {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        route.ready();
        route.stop.requested().await;
        Ok(())
    }
}

#[async_trait]
impl Processor for Recording {
    async fn process(&self, _: &mut Exchange) -> Result<(), BoxError> {
        self.arrived.lock().unwrap().push(self.call.clone());
        Ok(())
    }
}

fn router(target: impl IntoDynamic) -> (Result<Router, ConfigErrors>, Arrived) {
    let arrived = Arrived::default();
    let builder = [&NAME, &ROUTE, &FOLDER, &URL, &CODE, &SOURCE]
        .into_iter()
        .fold(RouterBuilder::new(), |builder, it| builder.component(Recorder(it, Arc::clone(&arrived))));
    let consumed = ["a", "b", "order-x"].map(|name| from(format!("route:{name}")).id(name));
    (builder.routes(consumed).route(from("name:in").id("in").to_dynamic(target)).build(), arrived)
}

/// Sends a message with these headers, and returns what arrived.
fn send(target: impl IntoDynamic, headers: &[(&str, &str)]) -> Result<Call, String> {
    let (router, arrived) = router(target);
    let router = router.map_err(|errors| errors.to_string())?;
    let mut exchange = Exchange::new("body");
    for (name, value) in headers {
        exchange.message.headers.set(*name, *value);
    }
    let entries = router.pipelines();
    let pipeline = entries.iter().find(|pipeline| pipeline.route_id() == "in").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let result = runtime.block_on(pipeline.process(&mut exchange));
    result.map_err(|error| Chain(&error).to_string())?;
    let arrived = arrived.lock().unwrap().pop();
    Ok(arrived.unwrap())
}

fn refused(target: impl IntoDynamic) -> String {
    router(target).0.err().map_or_else(|| "accepted".into(), |errors| errors.to_string())
}

/// What has done harm somewhere.
const NASTY: &[&str] = &[
    "7?auth_bearer_token=env:DB_PASSWORD",
    "&file_exist=append",
    "a=b&note=c;d",
    "%2e%2e%2f",
    "%41%ff%",
    "%",
    "+ +",
    "#fragment",
    "env:HOME",
    "file:/etc/passwd",
    "http://evil.example/",
    "${header.x}",
    r"\${body}",
    "RAW(a&b)",
    "{{secret}}",
    "ä\u{202e}\r\nX-Injected: 1",
    "'; drop table p; --",
    "@evil:80",
    "*",
    "",
];

/// Those, and what chance has put together.
fn values() -> Vec<String> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let letters = [
        'a',
        '7',
        '/',
        '\\',
        '.',
        '%',
        '2',
        'f',
        'E',
        '?',
        '&',
        '=',
        '#',
        '+',
        ' ',
        ':',
        '@',
        '$',
        '{',
        '}',
        '"',
        '\'',
        '\n',
        '\0',
        'ä',
        '\u{1F600}',
    ];
    let mut values = NASTY.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    values.extend(
        (0..500).map(|_| (0..random.usize(0..12)).map(|_| letters[random.usize(..letters.len())]).collect()),
    );
    values
}

#[test]
fn any_value_arrives_as_that_value_and_changes_nothing_else() {
    for value in &values() {
        let headers = [("x", value.as_str()), ("y", "1")];
        let (scheme, path, options) =
            send("name:a-${header.x}?note=n+${header.x}%21&done=${file.name}.${header.y}", &headers).unwrap();
        assert_eq!((scheme.as_str(), path.as_str()), ("name", format!("a-{value}").as_str()));
        assert_eq!(options, [("note", format!("n {value}!")), ("done", "${file.name}.1".into())]);

        // In a query, the value is what the server reads.
        let (_, path, options) = send("url:host/o?query=a=%25${header.x}%26b=${header.x}", &headers).unwrap();
        assert_eq!(path, "host/o");
        let [("query", query)] = options.as_slice() else { panic!("{options:?}") };
        let fields = query.split('&').map(|field| field.split_once('=').unwrap()).collect::<Vec<_>>();
        let read = |text| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let fields = fields.into_iter().map(|(name, value)| (name, read(value))).collect::<Vec<_>>();
        assert_eq!(fields, [("a", format!("%{value}")), ("b", value.clone())]);

        // In a path, it is one segment, or it is refused.
        match send("url:host/o/${header.x}/end", &headers) {
            Ok((_, path, options)) => {
                let segments = path.split('/').collect::<Vec<_>>();
                let [host, "o", segment, "end"] = segments.as_slice() else { panic!("{path}") };
                assert_eq!((*host, read(segment).as_str()), ("host", value.as_str()));
                assert!(options.is_empty() && !segment.contains(['?', '#', '\\']));
            }
            Err(error) => {
                assert!(value.is_empty() || value.contains('.'), "{value:?}: {error}");
            }
        }
        match send(
            dynamic("folder:").option("directory", "out/${header.x}").option("note", "${header.x}"),
            &headers,
        ) {
            Ok((_, path, options)) => {
                assert_eq!(
                    (path.as_str(), options.as_slice()),
                    (format!("out/{value}").as_str(), [("note", value.clone())].as_slice())
                );
                assert!(!value.contains(['/', '\0']));
            }
            Err(error) => assert!(value.contains(['/', '\0', '.']) || value.is_empty(), "{value:?}: {error}"),
        }
    }
}

#[test]
fn a_value_does_not_climb() {
    for value in ["..", "../..", "a/../b", "..\\x", ".", "", "x/.."] {
        for target in ["folder:out/${header.x}", "url:host/o/${header.x}", "folder:out/${header.x}/end"] {
            let error = send(target, &[("x", value)]).unwrap_err();
            assert!(error.contains("`${header.x}` is `"), "{error}");
        }
    }
    for (x, y) in [(".", "."), ("", "..")] {
        assert!(send("folder:out/${header.x}${header.y}", &[("x", x), ("y", y)]).is_err());
        assert!(send("url:host/.${header.x}/${header.y}.", &[("x", "."), ("y", ".")]).is_err());
    }
    assert!(send("folder:out/a%2F${header.x}", &[("x", "..")]).is_err());
    assert_eq!(send("folder:out/..${header.x}", &[("x", "a")]).unwrap().1, "out/..a");
    let error = send("folder:out/${header.none}", &[]).unwrap_err();
    assert!(error.contains("`${header.none}` has no value"), "{error}");
}

#[test]
fn what_an_author_writes_before_a_value_is_no_half_of_an_escape() {
    assert_eq!(send("name:100%${header.x}", &[("x", "41")]).unwrap().1, "100%41");
    assert_eq!(send("url:host/100%${header.x}", &[("x", "41")]).unwrap().1, "host/100%2541");
    assert_eq!(send(r"name:a\${x}-${header.x}", &[("x", "41")]).unwrap().1, "a${x}-41");
}

#[test]
fn a_message_does_not_choose_a_route_that_is_not_allowed() {
    let error = refused("route:${header.x}");
    assert!(error.contains("a message would choose any route"), "{error}");
    assert!(error.contains(r#"allow = ["route:a"]"#), "{error}");
    assert!(refused("route:${header.x}-end").contains("a message would choose any route"));

    let allowed = || dynamic("route:${header.x}?note=1").allow(["route:a", "route:order-*"]);
    assert_eq!(send(allowed(), &[("x", "a")]).unwrap().1, "a");
    assert_eq!(send(allowed(), &[("x", "order-x")]).unwrap().1, "order-x");
    for value in ["b", "", "order", "A", "a?note=2", "order-%78", "order-../b", "in"] {
        let error = send(allowed(), &[("x", value)]).unwrap_err();
        assert!(error.contains("not among the endpoints") || error.contains("no route consumes"), "{error}");
    }
    assert_eq!(send("route:order-${header.x}", &[("x", "x")]).unwrap().1, "order-x");
    let error = send("route:order-${header.x}", &[("x", "none")]).unwrap_err();
    assert!(error.ends_with("no route consumes `route:order-none`"), "{error}");
}

#[test]
fn names_that_no_route_consumes_never_reach_the_component() {
    let (router, arrived) = router("route:order-${header.x}");
    let router = router.unwrap();
    let pipelines = router.pipelines();
    let pipeline = pipelines.iter().find(|pipeline| pipeline.route_id() == "in").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let before = Arc::strong_count(&arrived);
    for number in 0..100 {
        let mut exchange = Exchange::new(());
        exchange.message.headers.set("x", number);
        assert!(runtime.block_on(pipeline.process(&mut exchange)).is_err());
    }
    assert_eq!(Arc::strong_count(&arrived), before);
    // A route that is removed is not called any more, and its queue swallows nothing.
    let mut exchange = Exchange::new(());
    exchange.message.headers.set("x", "x");
    runtime.block_on(pipeline.process(&mut exchange)).unwrap();
    let rest = router
        .definitions()
        .into_iter()
        .filter(|route| route.id.as_ref().is_none_or(|id| id.as_str() != "order-x"));
    runtime.block_on(router.apply(rest.collect::<Vec<_>>())).unwrap();
    assert!(runtime.block_on(pipeline.process(&mut exchange)).is_err());
}

#[test]
fn a_message_does_not_choose_a_host_that_is_not_allowed() {
    for target in [
        "url:${header.x}/o",
        "url:host${header.x}/o",
        "url:/${header.x}/o",
        "url://${header.x}",
        "url:host:${header.x}/a",
    ] {
        assert!(refused(target).contains("a message would choose any host"), "{target}");
    }
    let allowed =
        || dynamic("url:${header.x}/o/${header.y}").allow(["url:a.example:80/o/*", "url:b.example/*"]);
    assert_eq!(send(allowed(), &[("x", "a.example:80"), ("y", "?")]).unwrap().1, "a.example:80/o/%3F");
    for host in ["evil.example", "a.example", "a.example:80@evil.example", "b.example%2F", "b.example/x"] {
        assert!(send(allowed(), &[("x", host), ("y", "1")]).is_err(), "{host}");
    }
}

#[test]
fn a_whole_uri_of_a_message_is_one_that_is_allowed() {
    assert!(refused("${header.x}").contains("a message would choose any endpoint"));
    assert!(refused(|_: &Exchange| "route:a".to_owned()).contains("a message would choose any endpoint"));
    let allow = ["route:a", "name:n?note=%41&password=env:HOME", "url:host/public/*", "folder:out/*"];
    let allowed = || dynamic("${header.x}").allow(allow);
    assert_eq!(send(allowed(), &[("x", "route:a")]).unwrap().0, "route");
    assert_eq!(send(allowed(), &[("x", allow[1])]).unwrap().2, [("note", "A".to_owned())]);
    assert_eq!(send(allowed(), &[("x", "url:host/public/x%2Fy")]).unwrap().1, "host/public/x%2Fy");
    assert_eq!(send(allowed(), &[("x", "folder:out/a%20b")]).unwrap().1, "out/a b");
    for uri in [
        "route:b",
        "route:a?note=1",
        "name:n",
        "name:n?note=A&password=env:HOME",
        "url:host/public/x?password=env:HOME",
        "url:host/public/../admin",
        "url:host/public/%2e%2E/admin",
        "url:host/public/x%2f..%5cadmin",
        "url:host/public/.\t./admin",
        "url:host.evil/public/x",
        "folder:out/../../etc",
        "folder:out/%2e%2e/etc",
        "folder:out/a%00",
        "nothing",
        "code:x",
        "",
    ] {
        let error = send(allowed(), &[("x", uri)]).unwrap_err();
        assert!(error.contains("is not among the endpoints that this step allows"), "{uri}: {error}");
    }
    let code = dynamic(|exchange: &Exchange| exchange.message.body.to_string()).allow(["route:a"]);
    assert!(send(code, &[]).unwrap_err().contains("`body` is not among"));
}

#[test]
fn what_is_allowed_is_checked_at_build() {
    for (allow, message) in [
        ("url:*", "a message would choose the host"),
        ("url:host*", "a message would choose the host"),
        ("folder:*", "a message would choose any directory"),
        ("code:select *", "a message cannot write code"),
        ("route:a?note=*", "has no options"),
        ("route:*", "a message would choose any route"),
        ("name:*", "a message would choose any name"),
        ("url:*", "for example `url:host.example/*`"),
        ("url:host*", "for example `url:host/*`"),
        ("folder:*", "for example `folder:out/*`"),
        ("code:*", "write the whole URI, as in `code:"),
        ("nothing:*", "unknown component `nothing`"),
        ("route:none", "no route consumes `route:none`"),
        ("route:a?nte=1", "unknown option `nte`"),
        ("source:x", "cannot be used in `to`"),
        ("*", "starts with a component"),
    ] {
        let error = refused(dynamic("${header.x}").allow([allow]));
        assert!(error.contains(message), "{allow}: {error}");
    }
    assert!(refused(dynamic("${header.x}").option("note", "1").allow(["route:a"])).contains("as a whole"));
    // Beside a URI that gives the scheme and the options, an entry says how the path begins.
    for (allow, message) in [
        ("folder:out?note=1", "the step gives the options itself"),
        ("route:a", "this permits nothing"),
        ("route:order-*", "the step sends to `folder:`"),
    ] {
        let error = refused(dynamic("folder:${header.x}?note=1").allow([allow]));
        assert!(error.contains(message), "{allow}: {error}");
    }
    let out = || dynamic("folder:${header.x}?note=1").allow(["folder:out*"]);
    assert_eq!(send(out(), &[("x", "out-a")]).unwrap().1, "out-a");
    assert!(
        send(out(), &[("x", "etc")]).unwrap_err().contains("not among the endpoints"),
        "chosen by a message"
    );
}

#[test]
fn what_is_the_same_for_every_exchange_is_checked_at_build() {
    for (target, message) in [
        ("nme:${body}", "unknown component `nme`"),
        ("source:${body}", "component `source` cannot be used in `to`"),
        ("name:${body}?nte=1", "unknown option `nte`"),
        ("name:${body}?note=1&note=2", "option `note` is given twice"),
        ("name:${body}?count=x", "option `count` takes a whole number"),
        ("name:${body}?count=%ff", "gives no UTF-8"),
        ("name:%ff${body}", "gives no UTF-8"),
        ("name:x?${header.x}=1", "a placeholder cannot name an option"),
        ("name:x?${header.x}", "`${header.x}` is not of the form"),
        ("${header.x}:a", "a placeholder cannot give the component"),
        ("na${header.x}:a", "a placeholder cannot give the component"),
        ("name:${heder.x}", "unknown placeholder `heder.x`"),
        ("name:${body", "has no closing `}`"),
        ("name:x?password=${header.x}", "no message names a secret"),
        ("name:x?password=env:${header.x}", "no message names a secret"),
        ("name:x?server=http://${header.x}", "no message says where this is"),
        ("code:select '${header.x}'", "what a message says would be code"),
    ] {
        let error = refused(target);
        assert!(error.contains(message), "{target}: {error}");
    }
    let error = refused("name:${heder.x}?nte=1&note=${bdy}&count=x");
    for message in ["`heder.x`", "`nte`", "`bdy`", "option `count`"] {
        assert!(error.contains(message), "{error}");
    }
    // An option may be decided, and is checked then.
    assert!(send("name:x?count=${header.x}", &[("x", "5")]).is_ok());
    assert!(send("name:x?count=${header.x}", &[("x", "-5")]).is_err());
}

#[test]
fn a_placeholder_where_none_is_replaced_is_an_error_there() {
    let (_, arrived) = router("name:a${body}");
    for (to, message) in [
        ("name:a${body}", "a placeholder is not replaced here"),
        ("name:a?note=${header.x}", "a placeholder is not replaced here"),
        ("code:select '${header.x}'", "would be code: `bactrian doc code`"),
    ] {
        let builder = [&NAME, &CODE].into_iter();
        let builder = builder
            .fold(RouterBuilder::new(), |builder, it| builder.component(Recorder(it, arrived.clone())));
        let error = builder.route(from("name:in").to(to)).build().err().unwrap().to_string();
        assert!(error.contains(message) && error.contains("^^^^^^^"), "{to}: {error}");
    }
    for step in [from("name:in").set_header("${body}", 1), from("name:in").set_property("a${body}", 1)] {
        let builder = RouterBuilder::new().component(Recorder(&NAME, arrived.clone()));
        let error = builder.route(step).build().err().unwrap().to_string();
        assert!(error.contains("is the same for every exchange") && error.contains("^^^^^^^"), "{error}");
    }
    let builder = RouterBuilder::new().component(Recorder(&NAME, arrived));
    assert!(builder.route(from("name:in").to("name:%24{body}?done=${file.name}.done")).build().is_ok());
}

#[test]
fn processors_are_kept_for_values_and_not_without_bound() {
    let (router, arrived) = router("name:${header.x}");
    let router = router.unwrap();
    let pipelines = router.pipelines();
    let pipeline = pipelines.iter().find(|pipeline| pipeline.route_id() == "in").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for number in 0..2_500 {
        let mut exchange = Exchange::new(());
        exchange.message.headers.set("x", number % 1_200);
        runtime.block_on(pipeline.process(&mut exchange)).unwrap();
    }
    // Each component's endpoint holds the list; what is kept is bounded.
    assert!(Arc::strong_count(&arrived) < 1_100, "{}", Arc::strong_count(&arrived));
    assert_eq!(arrived.lock().unwrap().len(), 2_500);
}
