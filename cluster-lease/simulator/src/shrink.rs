//! Makes a failing schedule smaller while it still fails in the same way.

use crate::judge::Invariant;
use crate::plan::Plan;
use crate::world::World;

/// The smallest schedule that was found: fewer faults, shorter faults, a calmer network, fewer locks.
pub fn shrink(plan: Plan, invariant: Invariant) -> Plan {
    let fails = |plan: &Plan| {
        let verdict = World::run(plan, false, &[invariant]);
        verdict.violations.iter().any(|violation| violation.invariant == invariant)
    };
    let mut best = plan;
    loop {
        let smaller = candidates(&best).into_iter().find(|candidate| fails(candidate));
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// Schedules that are a little smaller than this one.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut smaller = Vec::new();
    let mut propose = |change: &dyn Fn(&mut Plan)| {
        let mut candidate = plan.clone();
        change(&mut candidate);
        smaller.push(candidate);
    };
    for index in 0..plan.faults.len() {
        propose(&|plan| {
            plan.faults.remove(index);
        });
    }
    if plan.members > 2 {
        propose(&|plan| {
            plan.members -= 1;
            plan.clocks.truncate(plan.members);
            let members = plan.members;
            plan.faults.retain(|fault| fault.member < members);
        });
    }
    if plan.locks > 1 {
        propose(&|plan| plan.locks = 1);
    }
    if plan.network.loss > 0.0 {
        propose(&|plan| plan.network.loss = 0.0);
    }
    if plan.network.duplicate > 0.0 {
        propose(&|plan| plan.network.duplicate = 0.0);
    }
    if plan.network.slow > 0.0 {
        propose(&|plan| plan.network.slow = 0.0);
    }
    if plan.clocks.iter().any(|(_, stretches)| stretches.len() > 1) {
        propose(&|plan| plan.clocks.iter_mut().for_each(|(_, stretches)| stretches.truncate(1)));
    }
    for index in 0..plan.faults.len() {
        if plan.faults[index].lasts > 1_000_000_000 {
            propose(&|plan| plan.faults[index].lasts /= 2);
        }
    }
    let last = plan.faults.iter().map(|fault| fault.at + fault.lasts).max().unwrap_or_default();
    if last + 1_000_000_000 < plan.heal {
        propose(&|plan| plan.heal = last + 500_000_000);
    }
    smaller
}
