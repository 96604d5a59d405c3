//! Which calls run together, and when: the batching rule as a pure state machine.
//!
//! Calls wait in one line for each level of priority. A batch is led by the first call of the most urgent line and takes
//! along what fits it, in order: calls of the same kind (types and shapes) until the next one would not fit, so that a
//! large call is never overtaken for ever by small ones. Calls of another kind keep their places and lead a later batch.
//!
//! Waiting is a bound and not a habit: what waits goes at once where nothing runs, where the batch is full, or where it
//! has a preferred size; else when its oldest call has waited as long as it may. The clock and the number of running
//! batches are arguments.
//!
//! Not here: tensors and threads (`queue`), how large a batch pays (`cost`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::config::{Batching, Overdue, QueuePolicy};

/// A call, or a part of one, that waits. `kind` says with which others it may run.
#[derive(Debug)]
pub(crate) struct Waiting<K, T> {
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// Calls of equal kind may share a batch.
    pub(crate) kind: K,
    /// 1 is the most urgent; 0 is the model's default.
    pub(crate) level: u32,
    /// When it came.
    pub(crate) arrived: Instant,
    /// When its answer is no use any more.
    pub(crate) deadline: Option<Instant>,
    /// Whose it is.
    pub(crate) payload: T,
}

/// Why a call may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The queue holds as many rows as it may.
    Full,
    /// The line of its priority holds as many calls as it may.
    LevelFull,
    /// It has more rows than a batch, and may not be cut.
    TooLarge,
    /// Its deadline passed while it waited.
    Late,
    /// It waited longer than its queue's policy allows.
    Overdue,
}

/// A batch.
#[derive(Debug)]
pub(crate) struct Formed<K, T> {
    /// Its calls in their order; at least one.
    pub(crate) calls: Vec<Waiting<K, T>>,
    /// Their rows.
    pub(crate) rows: usize,
    /// The rows that the model is to see; those beyond `rows` are copies.
    pub(crate) filled: usize,
}

/// What to do now.
#[derive(Debug)]
pub(crate) enum Next<K, T> {
    /// Run this.
    Run(Formed<K, T>),
    /// Ask again when a call comes, when a batch ends, or at this time.
    Wait(Option<Instant>),
}

/// A call in its line.
#[derive(Debug)]
struct Entry<K, T> {
    call: Waiting<K, T>,
    /// When its policy acts.
    overdue: Option<Instant>,
}

/// One priority.
#[derive(Debug)]
struct Level<K, T> {
    /// In time.
    prompt: VecDeque<Entry<K, T>>,
    /// Behind all that are in time.
    late: VecDeque<Entry<K, T>>,
}

impl<K, T> Default for Level<K, T> {
    fn default() -> Self {
        Self { prompt: VecDeque::new(), late: VecDeque::new() }
    }
}

impl<K, T> Level<K, T> {
    fn len(&self) -> usize {
        self.prompt.len() + self.late.len()
    }

    fn all(&self) -> impl Iterator<Item = &Entry<K, T>> {
        self.prompt.iter().chain(&self.late)
    }
}

/// The calls that wait for one model.
#[derive(Debug)]
pub(crate) struct Former<K, T> {
    limits: Batching,
    levels: BTreeMap<u32, Level<K, T>>,
    rows: usize,
    calls: usize,
    /// No deadline and no policy acts before; `None` where none ever does.
    soonest: Option<Instant>,
}

/// What would run together.
struct Picked {
    /// How many calls of each line are looked through, and which of them are taken.
    lines: Vec<(u32, bool, Vec<bool>)>,
    calls: usize,
    rows: usize,
    is_full: bool,
    /// The most calls whose rows are a preferred size.
    preferred: Option<usize>,
}

fn nearer(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl<K: PartialEq + Clone, T> Former<K, T> {
    /// Nothing waits. The limits have been checked.
    pub(crate) fn new(limits: Batching) -> Self {
        Self { limits, levels: BTreeMap::new(), rows: 0, calls: 0, soonest: None }
    }

    /// The limits.
    pub(crate) fn limits(&self) -> &Batching {
        &self.limits
    }

    /// Rows that wait.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Calls that wait.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls == 0
    }

    /// The call that leads the next batch.
    pub(crate) fn first(&self) -> Option<&Waiting<K, T>> {
        self.levels.values().find_map(|level| level.all().next()).map(|entry| &entry.call)
    }

    /// Since when the oldest call waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let fronts = self.levels.values().flat_map(|level| [level.prompt.front(), level.late.front()]);
        fronts.flatten().map(|entry| entry.call.arrived).min()
    }

    /// Rows that run before a call of this priority that comes now.
    pub(crate) fn rows_before(&self, level: u32) -> usize {
        let level = self.level_of(level);
        if self.levels.keys().next_back().is_none_or(|last| *last <= level) {
            return self.rows;
        }
        let before = self.levels.range(..=level).flat_map(|(_, level)| level.all());
        before.map(|entry| entry.call.rows).sum()
    }

    /// Where a call belongs that names this priority, as in Triton: one that there is not is the default.
    fn level_of(&self, asked: u32) -> u32 {
        match asked {
            _ if self.limits.priorities == 0 => 0,
            1.. if asked <= self.limits.priorities => asked,
            _ => self.limits.default_priority,
        }
    }

    fn policy(&self, level: u32) -> QueuePolicy {
        self.limits.policies.get(&level).copied().unwrap_or(self.limits.policy)
    }

    /// Whether a call of so many rows may wait. One that finds nothing waiting always fits.
    pub(crate) fn admits(&self, level: u32, rows: usize) -> Result<(), Turned> {
        let level = self.level_of(level);
        let rows_max = self.limits.rows_max.saturating_mul(self.limits.queued_batches_max);
        let waiting = self.levels.get(&level).map_or(0, Level::len);
        if rows > self.limits.rows_max && !self.limits.splits {
            return Err(Turned::TooLarge);
        }
        if self.calls > 0 && self.rows.saturating_add(rows) > rows_max {
            return Err(Turned::Full);
        }
        match self.policy(level).calls_max {
            Some(max) if waiting >= max => Err(Turned::LevelFull),
            _ => Ok(()),
        }
    }

    /// Lets a call wait that has been admitted, or a part of it that has no more rows than a batch.
    pub(crate) fn push(&mut self, mut call: Waiting<K, T>) {
        debug_assert!(call.rows > 0 && call.rows <= self.limits.rows_max, "a call fits a batch");
        let level = self.level_of(call.level);
        let policy = self.policy(level);
        call.level = level;
        let mut overdue = policy.timeout.and_then(|timeout| call.arrived.checked_add(timeout));
        if policy.allows_override && policy.overdue == Overdue::Delay && call.deadline.is_some() {
            // A call may shorten its time, and with this policy it then waits on instead of ending.
            overdue = nearer(overdue, call.deadline.take());
        }
        self.soonest = nearer(self.soonest, nearer(overdue, call.deadline));
        self.rows += call.rows;
        self.calls += 1;
        self.levels.entry(level).or_default().prompt.push_back(Entry { call, overdue });
    }

    /// Takes out what may not wait any longer.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(Waiting<K, T>, Turned)> {
        if self.soonest.is_none_or(|soonest| now < soonest) {
            return Vec::new();
        }
        let mut turned = Vec::new();
        self.soonest = None;
        for (number, level) in &mut self.levels {
            let policy = self.limits.policies.get(number).copied().unwrap_or(self.limits.policy);
            for is_late in [true, false] {
                let line = if is_late { &mut level.late } else { &mut level.prompt };
                let all = std::mem::take(line);
                for mut entry in all {
                    let is_over = |time: Option<Instant>| time.is_some_and(|time| time <= now);
                    if is_over(entry.call.deadline) {
                        turned.push((entry.call, Turned::Late));
                    } else if !is_over(entry.overdue) {
                        self.soonest = nearer(self.soonest, nearer(entry.overdue, entry.call.deadline));
                        let line = if is_late { &mut level.late } else { &mut level.prompt };
                        line.push_back(entry);
                    } else if policy.overdue == Overdue::Reject {
                        turned.push((entry.call, Turned::Overdue));
                    } else {
                        entry.overdue = None;
                        self.soonest = nearer(self.soonest, entry.call.deadline);
                        level.late.push_back(entry);
                    }
                }
            }
        }
        self.took(turned.iter().map(|(call, _)| call.rows));
        turned
    }

    /// Takes out every call that `is_gone` says nobody waits for.
    pub(crate) fn sweep(&mut self, is_gone: impl Fn(&T) -> bool) -> Vec<Waiting<K, T>> {
        let mut gone = Vec::new();
        for level in self.levels.values_mut() {
            for line in [&mut level.prompt, &mut level.late] {
                let all = std::mem::take(line);
                for entry in all {
                    if is_gone(&entry.call.payload) {
                        gone.push(entry.call);
                    } else {
                        line.push_back(entry);
                    }
                }
            }
        }
        self.took(gone.iter().map(|call| call.rows));
        gone
    }

    /// Whether a batch should run now; else when to ask again, besides when a call comes or a batch ends.
    pub(crate) fn ready(&self, now: Instant, busy: usize, rows_max: usize) -> Result<(), Option<Instant>> {
        if self.calls > 0 && busy < self.limits.threads && (busy == 0 || self.limits.wait_max.is_zero()) {
            return Ok(());
        }
        self.decide(now, busy, rows_max).map(drop)
    }

    /// The next batch, where one should run now. `busy` batches run; more rows than `rows_max` are not put together,
    /// though a single call may have them.
    pub(crate) fn next(&mut self, now: Instant, busy: usize, rows_max: usize) -> Next<K, T> {
        match self.decide(now, busy, rows_max) {
            Ok((picked, count)) => Next::Run(self.take(&picked, count)),
            Err(until) => Next::Wait(until),
        }
    }

    fn decide(&self, now: Instant, busy: usize, rows_max: usize) -> Result<(Picked, usize), Option<Instant>> {
        let Some(oldest) = self.oldest() else { return Err(None) };
        if busy >= self.limits.threads {
            return Err(self.soonest);
        }
        let picked = self.pick(rows_max.min(self.limits.rows_max));
        let due = oldest.checked_add(self.limits.wait_max);
        let is_due = busy == 0 || due.is_some_and(|due| due <= now);
        match picked.preferred {
            Some(count) => Ok((picked, count)),
            None if picked.is_full || is_due => {
                let count = picked.calls;
                Ok((picked, count))
            }
            None => Err(nearer(due, self.soonest)),
        }
    }

    fn pick(&self, rows_max: usize) -> Picked {
        let mut picked = Picked { lines: Vec::new(), calls: 0, rows: 0, is_full: false, preferred: None };
        let mut kind = None;
        'all: for (number, level) in &self.levels {
            for (is_late, line) in [(false, &level.prompt), (true, &level.late)] {
                let mut taken = Vec::new();
                for entry in line {
                    let fits = picked.calls == 0 || picked.rows + entry.call.rows <= rows_max;
                    let is_kin = *kind.get_or_insert_with(|| entry.call.kind.clone()) == entry.call.kind;
                    taken.push(is_kin && fits);
                    if is_kin && fits {
                        picked.calls += 1;
                        picked.rows += entry.call.rows;
                        if self.limits.preferred.binary_search(&picked.rows).is_ok() {
                            picked.preferred = Some(picked.calls);
                        }
                    }
                    if is_kin && (!fits || picked.rows >= rows_max) {
                        picked.is_full = true;
                        picked.lines.push((*number, is_late, taken));
                        break 'all;
                    }
                }
                picked.lines.push((*number, is_late, taken));
            }
        }
        picked
    }

    /// Takes the first `count` of what was picked out of the lines.
    fn take(&mut self, picked: &Picked, count: usize) -> Formed<K, T> {
        let mut calls = Vec::with_capacity(count);
        for (number, is_late, taken) in &picked.lines {
            let Some(level) = self.levels.get_mut(number) else { continue };
            let line = if *is_late { &mut level.late } else { &mut level.prompt };
            let mut left = Vec::new();
            for is_taken in taken {
                if calls.len() == count {
                    break;
                }
                let Some(entry) = line.pop_front() else { break };
                if *is_taken { calls.push(entry.call) } else { left.push(entry) }
            }
            left.into_iter().rev().for_each(|entry| line.push_front(entry));
        }
        let rows = calls.iter().map(|call| call.rows).sum();
        self.took(calls.iter().map(|call| call.rows));
        let filled = self.limits.allowed.iter().copied().find(|size| *size >= rows).unwrap_or(rows);
        Formed { calls, rows, filled }
    }

    fn took(&mut self, rows: impl Iterator<Item = usize>) {
        for rows in rows {
            self.rows -= rows;
            self.calls -= 1;
        }
        self.levels.retain(|_, level| level.len() > 0);
        if self.levels.is_empty() {
            self.soonest = None;
        }
    }
}

#[cfg(test)]
mod tests;
