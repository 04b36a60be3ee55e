//! What a step can do with its blocks.

mod boundaries;
mod handling;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use super::{Action, Block, Flow, Pipeline, Runner, ScopeStep};
use crate::builder::{RouteBuilder, Steps, from};
use crate::cluster::backend::TermControl;
use crate::cluster::{ClusterService, Member, MemoryCluster};
use crate::component::{BuildContext, Component, Consumer, Endpoint, RouteHandle};
use crate::error::{BoxError, ConfigErrors};
use crate::error_handler::ErrorHandlerDefinition;
use crate::exchange::{Body, Exchange};
use crate::options::{ComponentDescription, PathKind, path};
use crate::outcome::{Cause, Outcome, RouteError, failure};
use crate::router::{RouterBuilder, ShutdownOutcome};
use crate::source::SourceText;
use crate::state::{StateError, StateSlot};
use crate::step::{
    Argument, Compiler, KeyDescription, KeyKind, Runs, StepDefinition, StepDescription, optional, required,
};
use crate::steps::tests::{compile, header, run};
use crate::uri::EndpointUri;

const KEYS: &[KeyDescription] = &[optional("id", KeyKind::Name, ""), required("steps", KeyKind::Steps, "")];

const fn description(
    name: &'static str,
    compile: fn(&StepDefinition, &mut Compiler<'_>) -> Option<Action>,
) -> StepDescription {
    StepDescription { name, summary: "", keys: KEYS, is_short: false, example: "", compile }
}

/// Runs its block on a fork.
static FORK: StepDescription = description("fork", |step, compiler| {
    Some(Action::scope(Fork(compiler.block(step.arguments().steps("steps")?, "fork", Runs::Always))))
});
/// Detaches its block.
static DETACH: StepDescription = description("detach", |step, compiler| {
    let block = compiler.block(step.arguments().steps("steps")?, "detach", Runs::Always);
    Some(Action::scope(Detach(block)))
});
/// Runs its block on the exchange, and counts that in its state.
static COUNTED: StepDescription = description("counted", |step, compiler| {
    let block = compiler.block(step.arguments().steps("steps")?, "counted", Runs::Always);
    Some(Action::scope(Counted(block, compiler.state(step)?)))
});

struct Fork(Block);
struct Detach(Block);
struct Counted(Block, Arc<StateSlot>);

#[async_trait]
impl ScopeStep for Fork {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let mut fork = exchange.fork();
        let end = runner.block(self.0, &mut fork).await?;
        exchange.properties.set("fork", format!("{end:?}"));
        exchange.message = fork.message;
        Ok(Flow::Next)
    }
}

#[async_trait]
impl ScopeStep for Detach {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        runner.detach(self.0, exchange.fork(), ())?;
        Ok(Flow::Next)
    }
}

#[async_trait]
impl ScopeStep for Counted {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let state = runner.state(&self.1, None);
        let before = state.load().await.map_err(failure)?;
        let count = before.and_then(|count| count.as_u64()).unwrap_or_default() + 1;
        state.store(count.into()).await.map_err(failure)?;
        exchange.properties.set("count", count);
        runner.block(self.0, exchange).await.map(Flow::after)
    }
}

fn step(
    description: &'static StepDescription,
    id: Option<&str>,
    steps: impl FnOnce(RouteBuilder) -> RouteBuilder,
) -> StepDefinition {
    let block: crate::definition::RouteDefinition = steps(from("x:y")).into();
    let step = StepDefinition::in_code(description).with("steps", Argument::Steps(block.steps));
    match id {
        Some(id) => step.with("id", Argument::Text(SourceText::from_code(id))),
        None => step,
    }
}

#[tokio::test]
async fn a_block_on_a_fork_ends_the_fork_alone() {
    for (last, end) in [("false", "Filtered"), ("true", "Stopped")] {
        let fork = step(&FORK, None, |steps| steps.set_header("inside", "yes").filter(last).stop());
        let (exchange, result) = run(|route| route.step(fork).set_header("behind", "yes")).await;
        assert!(matches!(result, Ok(Outcome::Completed)));
        assert_eq!((header(&exchange, "inside"), header(&exchange, "behind")), ("yes".into(), "yes".into()));
        assert_eq!(exchange.properties.get("fork").unwrap().to_string(), end);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_block_is_tried_again_there_and_its_error_names_it() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let inner = step(&FORK, None, |steps| {
        steps.process(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Err("broken".into())
        })
    });
    let outer = step(&COUNTED, Some("outer"), |steps| steps.step(inner));
    let handler = ErrorHandlerDefinition::default().maximum_redeliveries(2);
    let (exchange, result) = run(|route| route.error_handler(handler).step(outer)).await;
    assert_eq!(tries.load(Ordering::Relaxed), 3, "not once more for each block around it");
    assert_eq!(exchange.properties.get("count").unwrap().to_string(), "1");
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "route `a`, step 1, counted, step 1, fork, step 1 (process) failed");
}

#[tokio::test]
async fn an_exchange_that_is_dropped_in_a_block_is_told_once_and_by_the_inner_step() {
    let inner = step(&COUNTED, Some("inner"), |steps| steps.delay("1h"));
    let outer = step(&COUNTED, Some("outer"), |steps| steps.step(inner));
    let pipeline = compile(|route| route.step(outer)).unwrap();
    let mut exchange = Exchange::new(());
    {
        let mut work = Box::pin(pipeline.run(&mut exchange));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(work.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(pipeline.program.dropped.count(), 1);
}

#[tokio::test]
async fn the_state_of_a_step_is_its_own() {
    let counted = |id| step(&COUNTED, Some(id), |steps| steps);
    let pipeline =
        compile(|route| route.step(counted("one")).filter("${body} == 'twice'").step(counted("two")));
    let pipeline = pipeline.unwrap();
    pipeline.state(None).store(&Value::from("of the consumer")).await.unwrap();
    for (body, expected) in [("once", "1"), ("twice", "1"), ("once", "3")] {
        let mut exchange = Exchange::new(body);
        pipeline.process(&mut exchange).await.unwrap();
        assert_eq!(exchange.properties.get("count").unwrap().to_string(), expected);
    }
    assert_eq!(pipeline.state(None).load().await.unwrap(), Some(Value::from("of the consumer")));
}

#[tokio::test(start_paused = true)]
async fn a_state_in_memory_of_a_step_is_found_by_its_id_in_the_next_version_of_its_route() {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = SharedReceiver::from(receiver);
    let counts = Arc::new(Mutex::new(Vec::new()));
    let route = |before: &str, id| {
        let counts = Arc::clone(&counts);
        from("begin:x").id("a").log(before).step(step(&COUNTED, Some(id), |steps| steps)).process(
            move |exchange| {
                counts.lock().unwrap().push(exchange.properties.get("count").unwrap().to_string());
                Ok(())
            },
        )
    };
    let router = RouterBuilder::new().component(Begin(receiver)).route(route("1", "one")).build().unwrap();
    let _ = router
        .run_until(async {
            for (version, id) in [("1", "one"), ("2", "one"), ("3", "other"), ("4", "one")] {
                router.apply([route(version, id)]).await.unwrap();
                sender.send(Exchange::new(())).await.unwrap();
                // It is taken when the next one has room.
                sender.reserve().await.unwrap();
                tokio::task::yield_now().await;
            }
        })
        .await;
    assert_eq!(*counts.lock().unwrap(), ["1", "2", "1", "3"]);
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_step_travels_with_the_lock_to_the_next_leader() {
    let lock = "lock1".parse().unwrap();
    let first = MemoryCluster::new("a");
    let second = first.join("b");
    let (on_first, on_second) = (first.view(&lock).await.unwrap(), second.view(&lock).await.unwrap());
    // The same route in two processes.
    let counted = |id| step(&COUNTED, Some(id), |steps| steps);
    let route = || compile(|route| route.step(counted("other")).step(counted("one"))).unwrap();
    let (of_first, of_second) = (route(), route());
    let count = async |pipeline: &Pipeline| {
        let mut exchange = Exchange::new(());
        pipeline.process(&mut exchange).await?;
        Ok::<_, RouteError>(exchange.properties.get("count").unwrap().to_string())
    };
    let scope = on_first.lead().await.unwrap();
    let leading = of_first.guarded_by(&scope);
    assert_eq!((count(&leading).await.unwrap(), count(&leading).await.unwrap()), ("1".into(), "2".into()));
    // Of the route without a lock, it is another one.
    assert_eq!(count(&of_second).await.unwrap(), "1");
    let (term, former) = (scope.term().clone(), on_first);
    first.revoke(&lock, Duration::ZERO);
    drop((scope, former));
    let next = on_second.lead().await.unwrap();
    assert_eq!(count(&of_second.guarded_by(&next)).await.unwrap(), "3");
    // Whatever the former leader believes.
    assert!(count(&leading).await.unwrap_err().is_leadership_lost());
    let slot = StateSlot::new("a", "one");
    let late = term.states().store(slot.key(), &Value::from(9)).await;
    assert!(matches!(late, Err(StateError::Deposed(_))), "{late:?}");
    // And back, with what was stored meanwhile.
    second.revoke(&lock, Duration::ZERO);
    drop((next, on_second));
    let scope = first.view(&lock).await.unwrap().lead().await.unwrap();
    assert_eq!(count(&of_first.guarded_by(&scope)).await.unwrap(), "4");
}

#[test]
fn an_id_of_a_route_has_no_control_characters() {
    for id in ["a\u{1f}b", "a\n", "\u{7f}", "\u{1b}[2J"] {
        let route = from("begin:x").id(id).log("x");
        let errors = RouterBuilder::new().component(Begin(mpsc::channel(1).1.into())).route(route).build();
        let errors = errors.err().unwrap();
        assert!(
            errors.iter().any(|error| error.message() == "a route id has no control characters"),
            "{errors}"
        );
        let printed = errors.to_string();
        assert!(!printed.contains(|letter: char| letter.is_control() && letter != '\n'), "{printed:?}");
        assert!(printed.contains("pipeline/tests.rs"), "{printed}");
    }
}

#[cfg(feature = "toml")]
#[test]
fn an_id_of_a_route_in_a_file_has_no_control_characters() {
    let text = "[[route]]\nid = \"a\\u001fb\"\nfrom = \"begin:x\"\nsteps = [{ log = \"x\" }]\n";
    let file = Arc::new(crate::source::SourceFile::new("routes.toml", text));
    let routes = crate::toml::parse(file, &|_| Err(std::env::VarError::NotPresent)).unwrap().routes;
    let errors = RouterBuilder::new().component(Begin(mpsc::channel(1).1.into())).routes(routes).build();
    let printed = errors.err().unwrap().to_string();
    assert!(printed.contains("a route id has no control characters\n --> routes.toml:2:7"), "{printed}");
}

#[test]
fn a_state_needs_an_id_that_no_other_step_of_the_route_has() {
    let counted = |id| step(&COUNTED, id, |steps| steps);
    let inside = step(&FORK, None, |steps| steps.step(counted(Some("a"))));
    let errors =
        compile(|route| route.step(counted(None)).step(counted(Some("a"))).step(inside)).err().unwrap();
    let messages = errors.iter().map(|error| error.message().to_owned()).collect::<Vec<_>>();
    assert_eq!(
        messages,
        ["`counted` keeps a state, and needs an id of its own", "another step of this route has the id `a`"]
    );
    let route = from("begin:x").step(counted(Some("a")));
    let errors = RouterBuilder::new().component(Begin(mpsc::channel(1).1.into())).route(route).build();
    assert!(
        errors.err().unwrap().to_string().contains("a route in which `counted` keeps a state needs an id")
    );
}

/// A source of what a test sends.
struct Begin(SharedReceiver);

/// The receiver, for the one consumer that takes it.
struct SharedReceiver(Arc<Mutex<Option<mpsc::Receiver<Exchange>>>>);

impl From<mpsc::Receiver<Exchange>> for SharedReceiver {
    fn from(receiver: mpsc::Receiver<Exchange>) -> Self {
        Self(Arc::new(Mutex::new(Some(receiver))))
    }
}

static BEGIN: ComponentDescription = ComponentDescription {
    scheme: "begin",
    summary: "",
    syntax: "begin:name",
    path: path("", PathKind::Name),
    consumes: true,
    produces: false,
    options: &[],
};

impl Component for Begin {
    fn description(&self) -> &'static ComponentDescription {
        &BEGIN
    }

    fn endpoint(&self, _: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        Ok(Box::new(Self(SharedReceiver(Arc::clone(&self.0.0)))))
    }
}

impl Endpoint for Begin {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Self(SharedReceiver(Arc::clone(&self.0.0)))))
    }
}

#[async_trait]
impl Consumer for Begin {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        route.ready();
        let (pipeline, stop) = (&route.pipeline, &route.stop);
        let receiver = self.0.0.lock().unwrap().take();
        let Some(mut receiver) = receiver else { return Ok(()) };
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => {
                    // For the consumer of the next version.
                    *self.0.0.lock().unwrap() = Some(receiver);
                    return Ok(());
                }
                exchange = receiver.recv() => match exchange {
                    Some(mut exchange) => pipeline.process(&mut exchange).await?,
                    None => return Ok(()),
                },
            };
        }
    }
}

/// A route that detaches a block which waits for `go`, and then says so in `done`.
fn detaching(go: &Arc<Notify>, done: &Arc<AtomicUsize>) -> StepDefinition {
    let (go, done) = (Arc::clone(go), Arc::clone(done));
    step(&DETACH, None, |steps| {
        let go = move || Arc::clone(&go);
        steps
            .process_async(move |_| {
                let go = go();
                Box::pin(async move {
                    go.notified().await;
                    Ok(())
                })
            })
            .process(move |_| {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
    })
}

#[tokio::test(start_paused = true)]
async fn a_router_drains_until_detached_blocks_have_ended() {
    for is_ending in [true, false] {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (sender, receiver) = mpsc::channel(1);
        let behind = Arc::new(Notify::new());
        let reached = Arc::clone(&behind);
        let route = from("begin:x").step(detaching(&go, &done)).process(move |_| {
            reached.notify_one();
            Ok(())
        });
        let router = RouterBuilder::new().component(Begin(receiver.into())).route(route).build().unwrap();
        let signal = async {
            sender.send(Exchange::new(())).await.unwrap();
            behind.notified().await;
            if is_ending {
                go.notify_one();
            }
        };
        let shutdown = router.run_until(signal).await;
        let expected = if is_ending { (ShutdownOutcome::Drained, 1) } else { (ShutdownOutcome::Aborted, 0) };
        assert_eq!((shutdown, done.load(Ordering::Relaxed)), expected);
    }
}

#[tokio::test]
async fn a_detached_block_is_work_of_each_term_of_its_exchange() {
    let (go, done) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let pipeline = compile(|route| route.step(detaching(&go, &done))).unwrap();
    let control = TermControl::new("lock".parse().unwrap(), 1, Member::new("a"), None);
    let mut exchange = Exchange::new(());
    let caller = control.term().enter().unwrap();
    pipeline.run(exchange.stamp(control.term().clone()).exchange).await.unwrap();
    drop(caller);
    assert!(control.has_work());
    control.release();
    go.notify_one();
    control.joined().await;
    assert_eq!(done.load(Ordering::Relaxed), 1);
    let ended = pipeline.run(exchange.stamp(control.term().clone()).exchange).await.unwrap_err();
    assert!(ended.is_leadership_lost(), "{ended}");
}

/// The allocator is fast for small blocks alone, and `direct:` boxes this future for each call. 10,000 routes each keep
/// the place for one, too.
#[test]
fn the_future_of_an_exchange_is_small() {
    let pipeline = compile(|route| route.stop()).unwrap();
    let mut exchange = Exchange::new(());
    let size = size_of_val(&pipeline.process(&mut exchange));
    assert!(size <= 700, "{size} bytes");
}

#[tokio::test]
async fn a_body_is_parsed_once_and_stays_what_was_written() {
    const TEXT: &str = r#"{"b": 1.10, "a": [{"c": "x"}]}"#;
    let (exchange, end) = run(|steps| {
        steps
            .set_body(|_: &Exchange| crate::value::Value::from(TEXT))
            .set_header("header", "${header.none}")
            .process(|exchange| {
                assert!(exchange.message.body.as_json().is_none(), "nothing has asked for a field");
                Ok(())
            })
            .choice(|choice| choice.when("${body.a.0.c} == 'x'", |then| then.set_header("b", "${body.b}")))
            .process(|exchange| {
                assert!(exchange.message.body.as_json().is_some());
                Ok(())
            })
    })
    .await;
    end.unwrap();
    assert_eq!(header(&exchange, "b"), "1.10");
    assert_eq!(exchange.message.body, Body::text(TEXT));
}

#[tokio::test]
async fn a_step_that_asks_for_a_field_of_what_is_no_json_fails_and_no_other_does() {
    let (exchange, end) = run(|steps| {
        steps
            .set_body("a < b")
            .filter("!(${header.kind} == 'json' && ${body.a} == 1)")
            .set_header("seen", "${body}")
            .set_header("field", "${body.a}")
    })
    .await;
    let error = crate::error::Chain(&end.unwrap_err()).to_string();
    assert!(error.contains("(set_header)") && error.contains("`${body.a}`: the body is no JSON"), "{error}");
    assert_eq!((header(&exchange, "seen").as_str(), header(&exchange, "field").as_str()), ("a < b", ""));
}
