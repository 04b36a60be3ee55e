//! Locks as text for people.

use std::fmt::Write as _;
use std::time::Duration;

use router_core::cluster::{Candidates, LockState, LockStatus, Timing};

const HEAD: [&str; 10] =
    ["LOCK", "STATE", "HOLDER", "TERM", "HELD", "HEARTBEAT", "STANDBYS", "ROUTES", TIMING, "REASON"];
/// A column that is there only if a holder has a deadline.
const TIMING: &str = "TIMING";

pub(super) fn table(locks: &[LockStatus]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(locks.iter().map(row));
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let timed = locks.iter().any(|lock| lock.timing.is_some());
    let mut table = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).zip(HEAD).filter(|(_, head)| timed || *head != TIMING);
        let cells = cells.map(|((cell, width), _)| format!("{cell:width$}"));
        table.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        table.push('\n');
    }
    table
}

fn row(lock: &LockStatus) -> [String; HEAD.len()] {
    let nothing = || "-".to_owned();
    let ago = |time: Option<Duration>| time.map_or_else(nothing, |it| self::time(it.as_secs()));
    [
        lock.lock.clone(),
        word(lock.state).to_owned(),
        lock.holder.clone().unwrap_or_else(nothing),
        lock.term.map_or_else(nothing, |term| term.to_string()),
        ago(lock.held),
        ago(lock.heartbeat_age),
        standbys(&lock.candidates),
        if lock.routes.is_empty() { nothing() } else { lock.routes.join(", ") },
        lock.timing.map_or_else(nothing, |Timing { deadline, stop, .. }| format!("{deadline:?}+{stop:?}")),
        lock.reason.clone().unwrap_or_default(),
    ]
}

/// `2`; `2+` where there may be more; `2 (+1 drained)`.
fn standbys(Candidates { standbys, drained, unseen }: &Candidates) -> String {
    let more = if unseen.is_some() { "+" } else { "" };
    match drained.len() {
        0 => format!("{}{more}", standbys.len()),
        drained => format!("{}{more} (+{drained} drained)", standbys.len()),
    }
}

/// One change, with the time of this process.
pub(super) fn line(lock: &LockStatus) -> String {
    let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
    let mut line = format!("{time}  {}  {}", lock.lock, word(lock.state));
    if let (Some(holder), Some(term)) = (&lock.holder, lock.term) {
        // Writing into a string cannot fail.
        let _ = write!(line, "  {holder}  term {term}");
    }
    if let Some(reason) = &lock.reason {
        let _ = write!(line, "  {reason}");
    }
    line + "\n"
}

/// Who leads anything, each once.
pub(super) fn holders(locks: &[LockStatus]) -> String {
    let led = locks.iter().filter(|lock| lock.state == LockState::Led);
    let mut holders = led.filter_map(|lock| lock.holder.as_deref()).collect::<Vec<_>>();
    holders.sort_unstable();
    holders.dedup();
    holders.iter().map(|holder| format!("{holder}\n")).collect()
}

pub(super) fn word(state: LockState) -> &'static str {
    match state {
        LockState::Led => "led",
        LockState::Taking => "taking",
        LockState::Silent => "silent",
        LockState::Free => "free",
        LockState::Unknown => "unknown",
    }
}

/// Two units are enough: `45s`, `3m20s`, `5h12m`, `3d4h`.
fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        let times = [0, 59, 61, 3_599, 3_600, 86_399, 90_000].map(time);
        assert_eq!(times, ["0s", "59s", "1m1s", "59m59s", "1h0m", "23h59m", "1d1h"]);
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let members = Candidates { standbys: vec!["b".into()], drained: vec!["c".into()], unseen: None };
        let mut led = LockStatus::free("lock1", &members, "");
        (led.state, led.reason) = (LockState::Led, None);
        (led.holder, led.term, led.held) = (Some("pod-a".into()), Some(7), Some(Duration::from_secs(65)));
        (led.heartbeat_age, led.routes) =
            (Some(Duration::from_secs(1)), vec!["clock".into(), "report".into()]);
        let unseen = Candidates { unseen: Some("standbys may be alive".into()), ..Candidates::default() };
        let free = LockStatus::free("long-name", &unseen, unseen.why_free());
        let expected = "\
LOCK       STATE  HOLDER  TERM  HELD  HEARTBEAT  STANDBYS        ROUTES         REASON
lock1      led    pod-a   7     1m5s  1s         1 (+1 drained)  clock, report
long-name  free   -       -     -     -          0+              -              standbys may be alive
";
        assert_eq!(table(&[led.clone(), free.clone()]), expected);
        let (deadline, stop) = (Duration::from_millis(12_500), Duration::from_secs(2));
        let timed =
            LockStatus { timing: Some(Timing { deadline, stop, clock_error_ppm: 10_000 }), ..led.clone() };
        let expected = "\
LOCK       STATE  HOLDER  TERM  HELD  HEARTBEAT  STANDBYS        ROUTES         TIMING    REASON
lock1      led    pod-a   7     1m5s  1s         1 (+1 drained)  clock, report  12.5s+2s
long-name  free   -       -     -     -          0+              -              -         standbys may be alive
";
        assert_eq!(table(&[timed, free.clone()]), expected);
        assert_eq!(holders(&[led.clone(), free, led]), "pod-a\n");
    }
}
