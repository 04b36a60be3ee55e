//! `sample`: lets one of several exchanges through.
//!
//! ```
//! use router_core::builder::{Sample, Steps, from};
//!
//! from("direct:reading").sample(Sample::every(10)).log("one of ten");
//! from("direct:reading").sample(Sample::period("1s")).log("at most one each second");
//! ```
//!
//! ```toml
//! { sample = { every = 10 } }
//! { sample = { period = "1s" } }
//! ```
//!
//! The first one is let through; those that are not leave the block as with a `filter`. Each process counts for itself.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smol_str::ToSmolStr;
use tokio::time::Instant;

use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::options::parse_duration;
use crate::outcome::Cause;
use crate::step::{
    Action, Argument, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, one_of,
};
use crate::written::{ExpressionDefinition, IntoExpression};

const HOW: &[&str] = &["every", "period"];

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "sample",
    summary: "lets one of several exchanges through; the others leave the block that it is in",
    keys: &[
        one_of(HOW, "every", KeyKind::Count, "of how many exchanges one is let through"),
        one_of(HOW, "period", KeyKind::Duration, "in which time at most one is"),
    ],
    is_short: false,
    example: r#"{ sample = { every = 10 } }"#,
    compile,
};

/// Which exchanges a `sample` lets through, in Rust.
#[must_use = "it says which exchanges a `sample` lets through"]
#[derive(Debug)]
pub struct Sample {
    key: &'static str,
    value: ExpressionDefinition,
}

impl Sample {
    /// One of so many.
    #[track_caller]
    pub fn every(count: impl IntoExpression) -> Self {
        Self { key: "every", value: count.into_expression() }
    }

    /// At most one in this time.
    #[track_caller]
    pub fn period(period: impl IntoExpression) -> Self {
        Self { key: "period", value: period.into_expression() }
    }

    /// The step.
    #[track_caller]
    pub(crate) fn step(self) -> StepDefinition {
        StepDefinition::in_code(&DESCRIPTION).with(self.key, Argument::Expression(self.value))
    }
}

enum Sampling {
    Every(u64, AtomicU64),
    Period(Duration, Mutex<Option<Instant>>),
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let (every, period) = (arguments.expression("every"), arguments.expression("period"));
    let written = every.or(period)?;
    let Expression::Constant(value) = compiler.expression(written)? else {
        compiler.error_in(written, "`sample` takes the same for every exchange".into());
        return None;
    };
    let value = value.to_smolstr();
    let sampling = if every.is_some() {
        let count = value.trim().parse().ok().filter(|count| *count > 0);
        count
            .map(|count| Sampling::Every(count, AtomicU64::new(0)))
            .ok_or("a whole number from 1 on".to_owned())
    } else {
        parse_duration(&value).map(|period| Sampling::Period(period, Mutex::default()))
    };
    compiler.may_leave_block();
    match sampling {
        Ok(sampling) => Some(Action::inline(sampling)),
        Err(expected) => {
            compiler.error_in(written, format!("`sample` takes {expected}"));
            None
        }
    }
}

impl InlineStep for Sampling {
    fn run(&self, _: &mut Exchange, _: Scope<'_>) -> Result<Flow, Cause> {
        let is_taken = match self {
            Self::Every(count, seen) => seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(*count),
            Self::Period(period, last) => {
                let (mut last, now) = (last.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
                let is_taken = last.is_none_or(|last| now.duration_since(last) >= *period);
                if is_taken {
                    *last = Some(now);
                }
                is_taken
            }
        };
        Ok(if is_taken { Flow::Next } else { Flow::LeaveBlock })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Sample;
    use crate::builder::Steps;
    use crate::exchange::Exchange;
    use crate::outcome::Outcome;
    use crate::steps::tests::compile;

    /// Which of ten exchanges, 300 ms after each other, are let through.
    async fn through(sample: Sample) -> String {
        let pipeline = compile(|steps| steps.sample(sample)).unwrap();
        let mut through = String::new();
        for _ in 0..10 {
            let end = pipeline.run(&mut Exchange::new(())).await.unwrap();
            through.push(if end == Outcome::Completed { 'x' } else { '.' });
            tokio::time::advance(Duration::from_millis(300)).await;
        }
        through
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_several_is_let_through_or_one_in_a_time() {
        assert_eq!(through(Sample::every(3)).await, "x..x..x..x");
        assert_eq!(through(Sample::every(1)).await, "xxxxxxxxxx");
        assert_eq!(through(Sample::period("1s")).await, "x...x...x.");
    }

    #[test]
    fn what_samples_nothing_is_an_error() {
        for sample in [Sample::every(0), Sample::every("${header.n}"), Sample::period("soon")] {
            assert!(compile(|steps| steps.sample(sample)).is_err());
        }
    }
}
