//! [`Steps`]: a method for each step.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{
    Branch, Choice, DynamicRouter, Enrich, LoadBalance, Loop, Multicast, RecipientList, RoutingSlip, Sample,
    Split, Try, block,
};
use crate::error::BoxError;
use crate::exchange::Exchange;
use crate::failure::ErrorKind;
use crate::log::LogLevel;
use crate::processor::{AsyncFunction, ProcessFuture, Processor};
use crate::source::SourceText;
use crate::step::{Argument, Arguments, StepDefinition};
use crate::steps::recipient_list::texts;
use crate::steps::{
    choice, convert_body, delay, filter, log, process, remove_header, remove_headers, remove_property,
    set_body, set_header, set_headers, set_property, stop, throw, to, to_dynamic, transform, validate,
    wire_tap,
};
use crate::written::{IntoDynamic, IntoEndpoint, IntoExpression, IntoPredicate, ProcessDefinition};

/// The steps that a route, and each block in it, can consist of.
pub trait Steps: Sized {
    /// Adds a step.
    #[must_use]
    fn step(self, step: StepDefinition) -> Self;

    /// Sends the exchange to an endpoint: its URI, or [`endpoint`](super::endpoint).
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").to("log:audit?level=WARN");
    /// ```
    #[must_use]
    #[track_caller]
    fn to(self, endpoint: impl IntoEndpoint) -> Self {
        let endpoint = Argument::Endpoint(endpoint.into_endpoint());
        self.step(StepDefinition::in_code(&to::DESCRIPTION).with("uri", endpoint))
    }

    /// Sends the exchange to an endpoint that depends on it: a URI with placeholders, whose values are
    /// data and bring no options. Where a message chooses the endpoint, say which ones it may choose with
    /// [`dynamic`](super::dynamic).
    ///
    /// ```
    /// # use router_core::builder::{Steps, dynamic, from};
    /// from("timer:clock").to_dynamic("http:localhost/orders/${header.id}");
    /// from("timer:clock").to_dynamic(dynamic("direct:${header.kind}").allow(["direct:order", "direct:invoice"]));
    /// ```
    #[must_use]
    #[track_caller]
    fn to_dynamic(self, target: impl IntoDynamic) -> Self {
        let mut target = target.into_dynamic();
        let allow = std::mem::take(&mut target.allow);
        let step = StepDefinition::in_code(&to_dynamic::DESCRIPTION);
        let step = step.with("uri", Argument::Dynamic(Box::new(target)));
        self.step(if allow.is_empty() { step } else { step.with("allow", Argument::Texts(allow)) })
    }

    /// Writes a line to the log, at level INFO.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").log("tick ${header.timer.counter}");
    /// ```
    #[must_use]
    #[track_caller]
    fn log(self, message: impl IntoExpression) -> Self {
        let message = Argument::Expression(message.into_expression());
        self.step(StepDefinition::in_code(&log::DESCRIPTION).with("message", message))
    }

    /// Writes a line to the log.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// # use router_core::log::LogLevel;
    /// from("timer:clock").log_at(LogLevel::Warn, "late");
    /// ```
    #[must_use]
    #[track_caller]
    fn log_at(self, level: LogLevel, message: impl IntoExpression) -> Self {
        let step = StepDefinition::in_code(&log::DESCRIPTION);
        let message = Argument::Expression(message.into_expression());
        self.step(step.with("message", message).with("level", Argument::Word(level.name())))
    }

    /// Calls a function that does not await.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").process(|exchange| {
    ///     exchange.message.headers.set("seen", true);
    ///     Ok(())
    /// });
    /// ```
    #[must_use]
    #[track_caller]
    fn process(
        self,
        function: impl Fn(&mut Exchange) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.step(process::in_code(ProcessDefinition::Function(Arc::new(function))))
    }

    /// Calls a processor, which may await. A closure that returns a boxed future is one.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").process_async(|exchange| {
    ///     Box::pin(async move {
    ///         exchange.message.body = "done".into();
    ///         Ok(())
    ///     })
    /// });
    /// ```
    #[must_use]
    #[track_caller]
    fn process_async<F>(self, function: F) -> Self
    where
        F: for<'a> Fn(&'a mut Exchange) -> ProcessFuture<'a> + Send + Sync + 'static,
    {
        self.process_with(AsyncFunction(function))
    }

    /// Calls a processor of your own type.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// # use router_core::component::Processor;
    /// # use router_core::error::BoxError;
    /// # use router_core::exchange::Exchange;
    /// struct Stamp(&'static str);
    ///
    /// #[async_trait::async_trait]
    /// impl Processor for Stamp {
    ///     async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
    ///         exchange.message.headers.set("stamp", self.0);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// from("timer:clock").process_with(Stamp("ours"));
    /// ```
    #[must_use]
    #[track_caller]
    fn process_with(self, processor: impl Processor + 'static) -> Self {
        self.step(process::in_code(ProcessDefinition::Processor(Arc::new(processor))))
    }

    /// Replaces the body.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").set_body("tick ${header.timer.counter}");
    /// ```
    #[must_use]
    #[track_caller]
    fn set_body(self, value: impl IntoExpression) -> Self {
        let value = Argument::Expression(value.into_expression());
        self.step(StepDefinition::in_code(&set_body::DESCRIPTION).with("value", value))
    }

    /// Sets a header.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").set_header("kind", "order");
    /// ```
    #[must_use]
    #[track_caller]
    fn set_header(self, name: impl Into<SmolStr>, value: impl IntoExpression) -> Self {
        let value = Argument::Expression(value.into_expression());
        let name = Argument::Text(SourceText::from_code(name));
        self.step(StepDefinition::in_code(&set_header::DESCRIPTION).with("name", name).with("value", value))
    }

    /// Removes a header.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").remove_header("timer.counter");
    /// ```
    #[must_use]
    #[track_caller]
    fn remove_header(self, name: impl Into<SmolStr>) -> Self {
        let name = Argument::Text(SourceText::from_code(name));
        self.step(StepDefinition::in_code(&remove_header::DESCRIPTION).with("name", name))
    }

    /// Sets a property.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").set_property("kind", "${header.kind}");
    /// ```
    #[must_use]
    #[track_caller]
    fn set_property(self, name: impl Into<SmolStr>, value: impl IntoExpression) -> Self {
        let value = Argument::Expression(value.into_expression());
        let name = Argument::Text(SourceText::from_code(name));
        self.step(StepDefinition::in_code(&set_property::DESCRIPTION).with("name", name).with("value", value))
    }

    /// Goes on with the steps after this one, in this route or block, only when `predicate` holds.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").filter("${header.timer.counter} > 5").log("after the fifth tick");
    /// ```
    #[must_use]
    #[track_caller]
    fn filter(self, predicate: impl IntoPredicate) -> Self {
        let predicate = Argument::Predicate(predicate.into_predicate());
        self.step(StepDefinition::in_code(&filter::DESCRIPTION).with("predicate", predicate))
    }

    /// Runs the steps of a block only when `predicate` holds, and goes on behind the block either way.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").filter_block("${header.timer.counter} > 5", |steps| steps.log("late")).log("each tick");
    /// ```
    #[must_use]
    #[track_caller]
    fn filter_block(self, predicate: impl IntoPredicate, steps: impl FnOnce(Branch) -> Branch) -> Self {
        let predicate = Argument::Predicate(predicate.into_predicate());
        let step = StepDefinition::in_code(&filter::DESCRIPTION).with("predicate", predicate);
        self.step(step.with("steps", block(steps)))
    }

    /// Takes the first branch whose predicate holds, then goes on.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").choice(|choice| {
    ///     choice.when("${header.timer.counter} == 1", |then| then.log("first")).otherwise(|then| then.log("later"))
    /// });
    /// ```
    #[must_use]
    #[track_caller]
    fn choice(self, branches: impl FnOnce(Choice) -> Choice) -> Self {
        let step = StepDefinition::in_code(&choice::DESCRIPTION);
        let Choice { when, otherwise } = branches(Choice::default());
        let step = step.with("when", Argument::Tables(when));
        self.step(match otherwise {
            Some(otherwise) => step.with("otherwise", Argument::Steps(otherwise)),
            None => step,
        })
    }

    /// Runs a block several times, or for as long as a predicate holds.
    ///
    /// ```
    /// # use router_core::builder::{Loop, Steps, from};
    /// from("timer:clock").loop_(Loop::times(3), |steps| steps.log("round ${property.loop.index}"));
    /// ```
    #[must_use]
    #[track_caller]
    fn loop_(self, rounds: Loop, steps: impl FnOnce(Branch) -> Branch) -> Self {
        self.step(rounds.step(block(steps)))
    }

    /// Cuts the body into parts, and runs a block on a fork for each of them.
    ///
    /// ```
    /// # use router_core::builder::{Join, Split, Steps, from};
    /// from("file:in").split(Split::lines().parallel(4), |steps| steps.to("direct:line"));
    /// from("direct:order").split(Split::list("${body.items}").join(Join::List), |steps| steps.to("direct:item"));
    /// ```
    #[must_use]
    #[track_caller]
    fn split(self, how: Split, steps: impl FnOnce(Branch) -> Branch) -> Self {
        self.step(how.step(block(steps)))
    }

    /// Runs several blocks, each on a fork of the exchange.
    ///
    /// ```
    /// # use router_core::builder::{Join, Multicast, Steps, from};
    /// let branches = Multicast::new().branch(|steps| steps.to("direct:a")).branch(|steps| steps.to("direct:b"));
    /// from("timer:clock").multicast(branches.parallel(2).join(Join::List));
    /// ```
    #[must_use]
    #[track_caller]
    fn multicast(self, branches: Multicast) -> Self {
        self.step(branches.step())
    }

    /// Sends a fork of the exchange to each endpoint that the message names.
    ///
    /// ```
    /// # use router_core::builder::{RecipientList, Steps, from};
    /// from("direct:order").recipient_list(RecipientList::new("${header.to}").allow(["direct:stock", "direct:order-*"]));
    /// ```
    #[must_use]
    #[track_caller]
    fn recipient_list(self, recipients: RecipientList) -> Self {
        self.step(recipients.step())
    }

    /// Sends the exchange to each endpoint that the message names, one after the other.
    ///
    /// ```
    /// # use router_core::builder::{RoutingSlip, Steps, from};
    /// from("direct:order").routing_slip(RoutingSlip::new("${header.slip}").allow(["direct:check", "direct:order-*"]));
    /// ```
    #[must_use]
    #[track_caller]
    fn routing_slip(self, slip: RoutingSlip) -> Self {
        self.step(slip.step())
    }

    /// Sends the exchange to the endpoint that it names, and asks again until it names none.
    ///
    /// ```
    /// # use router_core::builder::{DynamicRouter, Steps, from};
    /// from("direct:order").dynamic_router(DynamicRouter::new("${header.next}").allow(["direct:order-*"]));
    /// ```
    #[must_use]
    #[track_caller]
    fn dynamic_router(self, router: DynamicRouter) -> Self {
        self.step(router.step())
    }

    /// Sends a fork of the exchange to an endpoint, without waiting for it.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("direct:order").wire_tap("direct:audit").to("direct:stock");
    /// ```
    #[must_use]
    #[track_caller]
    fn wire_tap(self, target: impl IntoDynamic) -> Self {
        self.step(wire_tap::in_code(target.into_dynamic()))
    }

    /// Asks an endpoint for something, and adds that to the message.
    ///
    /// ```
    /// # use router_core::builder::{Enrich, Steps, from};
    /// from("direct:order").enrich(Enrich::from("http:localhost/stock/${header.id}").header("stock"));
    /// ```
    #[must_use]
    #[track_caller]
    fn enrich(self, enrich: Enrich) -> Self {
        self.step(enrich.step())
    }

    /// Makes a new body, as `set_body` does.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("direct:order").transform("order ${body.id}");
    /// ```
    #[must_use]
    #[track_caller]
    fn transform(self, value: impl IntoExpression) -> Self {
        let value = Argument::Expression(value.into_expression());
        self.step(StepDefinition::in_code(&transform::DESCRIPTION).with("value", value))
    }

    /// Makes `text`, `bytes` or `json` of the body.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("file:in").convert_body("json");
    /// ```
    #[must_use]
    #[track_caller]
    fn convert_body(self, kind: &str) -> Self {
        let kind = Argument::Word(convert_body::word(kind));
        self.step(StepDefinition::in_code(&convert_body::DESCRIPTION).with("type", kind))
    }

    /// Sets several headers, in order.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("direct:order").set_headers([("kind", "order"), ("id", "${body.id}")]);
    /// ```
    #[must_use]
    #[track_caller]
    fn set_headers<N, V>(self, headers: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<SmolStr>,
        V: IntoExpression,
    {
        let mut tables = Vec::new();
        for (name, value) in headers {
            let mut header = Arguments::default();
            header.set("name", Argument::Text(SourceText::from_code(name)));
            header.set("value", Argument::Expression(value.into_expression()));
            tables.push(header);
        }
        self.step(
            StepDefinition::in_code(&set_headers::DESCRIPTION).with("headers", Argument::Tables(tables)),
        )
    }

    /// Removes the headers whose names fit a pattern, a name or how names begin with a `*` behind it, but not those that fit
    /// one of the others.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("direct:order").remove_headers("http.*", ["http.response_code"]);
    /// ```
    #[must_use]
    #[track_caller]
    fn remove_headers<T: Into<SmolStr>>(
        self,
        pattern: impl Into<SmolStr>,
        except: impl IntoIterator<Item = T>,
    ) -> Self {
        let pattern = Argument::Text(SourceText::from_code(pattern));
        let step = StepDefinition::in_code(&remove_headers::DESCRIPTION).with("pattern", pattern);
        let mut except = except.into_iter().peekable();
        self.step(if except.peek().is_some() { step.with("except", texts(except)) } else { step })
    }

    /// Removes a property.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").remove_property("kind");
    /// ```
    #[must_use]
    #[track_caller]
    fn remove_property(self, name: impl Into<SmolStr>) -> Self {
        let name = Argument::Text(SourceText::from_code(name));
        self.step(StepDefinition::in_code(&remove_property::DESCRIPTION).with("name", name))
    }

    /// Fails the exchange, with an error of the kind `data`, unless `predicate` holds.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("direct:order").validate("${body.amount} > 0");
    /// ```
    #[must_use]
    #[track_caller]
    fn validate(self, predicate: impl IntoPredicate) -> Self {
        let predicate = Argument::Predicate(predicate.into_predicate());
        self.step(StepDefinition::in_code(&validate::DESCRIPTION).with("predicate", predicate))
    }

    /// Runs one of several blocks.
    ///
    /// ```
    /// # use router_core::builder::{LoadBalance, Steps, from};
    /// let balance = LoadBalance::failover().branch(|steps| steps.to("direct:a")).branch(|steps| steps.to("direct:b"));
    /// from("direct:order").load_balance(balance);
    /// ```
    #[must_use]
    #[track_caller]
    fn load_balance(self, balance: LoadBalance) -> Self {
        self.step(balance.step())
    }

    /// Runs a block, and handles what fails in it.
    ///
    /// ```
    /// # use router_core::builder::{Catch, Steps, Try, from};
    /// let guarded = Try::new(|steps| steps.to("direct:a")).catch(Catch::all(), |steps| steps.to("direct:b"));
    /// from("direct:order").do_try(guarded.finally(|steps| steps.log("done")));
    /// ```
    #[must_use]
    #[track_caller]
    fn do_try(self, guarded: Try) -> Self {
        self.step(guarded.step())
    }

    /// Fails the exchange with an error.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// # use router_core::failure::ErrorKind;
    /// from("direct:order").throw(ErrorKind::Rejected, "no order: ${body}");
    /// ```
    #[must_use]
    #[track_caller]
    fn throw(self, kind: ErrorKind, message: impl IntoExpression) -> Self {
        self.step(throw::in_code(kind, message.into_expression()))
    }

    /// Lets one of several exchanges through; the others leave the block that it is in.
    ///
    /// ```
    /// # use router_core::builder::{Sample, Steps, from};
    /// from("direct:reading").sample(Sample::every(10)).log("one of ten");
    /// ```
    #[must_use]
    #[track_caller]
    fn sample(self, sample: Sample) -> Self {
        self.step(sample.step())
    }

    /// Waits: a `Duration`, or text like `1s`, `500ms` or bare milliseconds.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// # use std::time::Duration;
    /// from("timer:clock").delay(Duration::from_secs(1)).delay("${header.pause}");
    /// ```
    #[must_use]
    #[track_caller]
    fn delay(self, duration: impl IntoExpression) -> Self {
        let duration = Argument::Expression(duration.into_expression());
        self.step(StepDefinition::in_code(&delay::DESCRIPTION).with("duration", duration))
    }

    /// Ends the exchange successfully, whatever steps would follow.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// from("timer:clock").choice(|choice| choice.when("${body} == null", |then| then.stop())).to("log:audit");
    /// ```
    #[must_use]
    #[track_caller]
    fn stop(self) -> Self {
        self.step(StepDefinition::in_code(&stop::DESCRIPTION))
    }
}
