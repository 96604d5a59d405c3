//! The rule by tables and, as laws, on random histories.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(micros: u64) -> Instant {
    // One origin for a whole process: instants of tests can be compared.
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *ORIGIN.get_or_init(Instant::now) + Duration::from_micros(micros)
}

fn limits() -> Batching {
    Batching {
        rows_max: 8,
        wait_max: Duration::from_micros(100),
        queued_batches_max: 2,
        threads: 2,
        splits: false,
        ..Batching::default()
    }
}

fn call(id: u32, rows: usize, kind: u8, level: u32, micros: u64) -> Waiting<u8, u32> {
    Waiting { rows, kind, level, arrived: at(micros), deadline: None, payload: id }
}

fn former(limits: Batching, calls: Vec<Waiting<u8, u32>>) -> Former<u8, u32> {
    limits.check().expect("limits");
    let mut former = Former::new(limits);
    for call in calls {
        push(&mut former, call).expect("room");
    }
    former
}

fn push(former: &mut Former<u8, u32>, call: Waiting<u8, u32>) -> Result<(), Turned> {
    former.admits(call.level, call.rows)?;
    former.push(call);
    Ok(())
}

/// The calls that run, or when to ask again.
fn next(former: &mut Former<u8, u32>, micros: u64, busy: usize) -> Result<Vec<u32>, Option<Instant>> {
    match former.next(at(micros), busy, usize::MAX) {
        Next::Run(formed) => Ok(formed.calls.iter().map(|call| call.payload).collect()),
        Next::Wait(until) => Err(until),
    }
}

#[test]
fn each_case_runs_or_waits() {
    let one = || vec![call(1, 1, 0, 0, 0)];
    let preferred = || Batching { preferred: vec![2, 4], ..limits() };
    let levels = || Batching { priorities: 3, default_priority: 2, ..limits() };
    let sized = |sizes: &[usize]| -> Vec<_> {
        sizes.iter().enumerate().map(|(id, rows)| call(id as u32, *rows, 0, 0, 0)).collect()
    };
    let cases = [
        ("nothing", limits(), vec![], 0, 0, Err(None)),
        ("an idle model waits for nothing", limits(), one(), 0, 0, Ok(vec![1])),
        ("a working one waits", limits(), one(), 10, 1, Err(Some(at(100)))),
        ("but not for ever", limits(), one(), 100, 1, Ok(vec![1])),
        ("no thread is free", limits(), one(), 500, 2, Err(None)),
        ("full", limits(), sized(&[4, 4, 1]), 0, 1, Ok(vec![0, 1])),
        (
            "full, as the next does not fit and is not overtaken",
            limits(),
            sized(&[5, 4, 1]),
            0,
            1,
            Ok(vec![0]),
        ),
        ("a preferred size", preferred(), sized(&[1, 1, 1]), 0, 1, Ok(vec![0, 1])),
        ("the largest preferred size", preferred(), sized(&[1, 1, 1, 1, 1]), 0, 1, Ok(vec![0, 1, 2, 3])),
        ("no preferred size yet", preferred(), sized(&[1]), 0, 1, Err(Some(at(100)))),
        ("no preferred size, and the time is up", preferred(), sized(&[3]), 100, 1, Ok(vec![0])),
        (
            "one kind only",
            limits(),
            vec![call(1, 1, 0, 0, 0), call(2, 1, 1, 0, 0), call(3, 1, 0, 0, 0)],
            0,
            0,
            Ok(vec![1, 3]),
        ),
        (
            "the urgent first, then others as room is",
            levels(),
            vec![call(1, 1, 0, 3, 0), call(2, 1, 0, 0, 0), call(3, 1, 0, 1, 0), call(4, 1, 0, 9, 0)],
            0,
            0,
            Ok(vec![3, 2, 4, 1]),
        ),
    ];
    for (name, limits, calls, micros, busy, want) in cases {
        assert_eq!(next(&mut former(limits, calls), micros, busy), want, "{name}");
    }
}

#[test]
fn bounds_turn_calls_away() {
    let mut full = former(limits(), vec![call(1, 8, 0, 0, 0), call(2, 8, 0, 0, 0)]);
    assert_eq!(push(&mut full, call(3, 1, 0, 0, 0)), Err(Turned::Full));
    assert_eq!(push(&mut full, call(3, 9, 0, 0, 0)), Err(Turned::TooLarge));
    let policy = QueuePolicy { calls_max: Some(1), ..QueuePolicy::default() };
    let mut short = former(Batching { policy, ..limits() }, vec![call(1, 1, 0, 0, 0)]);
    assert_eq!(push(&mut short, call(2, 1, 0, 0, 0)), Err(Turned::LevelFull));
}

#[test]
fn a_batch_is_filled_to_an_allowed_size() {
    let allowed = Batching { allowed: vec![2, 4, 8], ..limits() };
    for (rows, want) in [(1, 2), (2, 2), (3, 4), (5, 8), (8, 8)] {
        match former(allowed.clone(), vec![call(1, rows, 0, 0, 0)]).next(at(0), 0, usize::MAX) {
            Next::Run(formed) => assert_eq!((formed.rows, formed.filled), (rows, want)),
            Next::Wait(_) => panic!("{rows} rows wait"),
        }
    }
}

#[test]
fn what_is_overdue_is_refused_or_comes_last() {
    let policy =
        |overdue| QueuePolicy { overdue, timeout: Some(Duration::from_micros(50)), ..QueuePolicy::default() };
    let calls = || vec![call(1, 1, 0, 0, 0), call(2, 1, 0, 0, 40)];
    let mut rejects = former(Batching { policy: policy(Overdue::Reject), ..limits() }, calls());
    assert_eq!(next(&mut rejects, 40, 2), Err(Some(at(50))));
    let turned: Vec<_> = rejects.expire(at(50)).into_iter().map(|(call, why)| (call.payload, why)).collect();
    assert_eq!(turned, [(1, Turned::Overdue)]);
    let mut delays = former(Batching { policy: policy(Overdue::Delay), ..limits() }, calls());
    assert!(delays.expire(at(50)).is_empty());
    assert_eq!(next(&mut delays, 50, 0), Ok(vec![2, 1]));
}

#[derive(Debug, Clone)]
enum Step {
    Push { rows: usize, kind: u8, level: u32, patience: Option<u64> },
    Pass(u64),
    Next,
    End,
    Leave(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let patience = proptest::option::weighted(0.3, 1_u64..300);
    prop_oneof![
        4 => (1_usize..12, 0_u8..3, 0_u32..5, patience)
            .prop_map(|(rows, kind, level, patience)| Step::Push { rows, kind, level, patience }),
        2 => (1_u64..120).prop_map(Step::Pass),
        3 => Just(Step::Next),
        2 => Just(Step::End),
        1 => (0_u32..60).prop_map(Step::Leave),
    ]
}

fn any_limits() -> impl Strategy<Value = Batching> {
    let policy =
        (any::<bool>(), proptest::option::of(1_u64..200), proptest::option::of(1_usize..6), any::<bool>());
    let sizes = proptest::collection::btree_set(1_usize..10, 0..3);
    (1_usize..10, 0_u64..150, 1_usize..5, 1_usize..4, sizes, 0_u32..4, policy).prop_map(
        |(
            rows_max,
            wait,
            queued_batches_max,
            threads,
            sizes,
            priorities,
            (delays, timeout, calls_max, over),
        )| {
            let overdue = if delays { Overdue::Delay } else { Overdue::Reject };
            let timeout = timeout.map(Duration::from_micros);
            Batching {
                rows_max,
                wait_max: Duration::from_micros(wait),
                queued_batches_max,
                threads,
                preferred: sizes.into_iter().filter(|size| *size <= rows_max).collect(),
                splits: false,
                priorities,
                default_priority: priorities.min(2),
                policy: QueuePolicy { overdue, timeout, allows_override: over, calls_max },
                ..Batching::default()
            }
        },
    )
}

proptest! {
    /// Whatever happens in whatever order: no batch mixes kinds or is over its limit, no more run than may, the queue
    /// stays within its bounds, calls of one line and kind keep their order, and each call is answered exactly once.
    #[test]
    fn the_laws_of_batches_hold(limits in any_limits(), steps in proptest::collection::vec(step(), 1..120)) {
        limits.check().expect("limits");
        let mut former = Former::new(limits.clone());
        let (mut now, mut busy, mut id) = (0_u64, 0_usize, 0_u32);
        let mut answered: Vec<u32> = Vec::new();
        let mut started: Vec<(u32, u8, u32)> = Vec::new();
        let mut left = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Push { rows, kind, level, patience } => {
                    id += 1;
                    let deadline = patience.map(|patience| at(now + patience));
                    let was_empty = former.is_empty();
                    match push(&mut former, Waiting { deadline, ..call(id, rows, kind, level, now) }) {
                        Ok(()) => prop_assert!(rows <= limits.rows_max),
                        Err(why) => {
                            prop_assert!(why == Turned::TooLarge || !was_empty);
                            answered.push(id);
                        }
                    }
                    let rows_max = limits.rows_max * limits.queued_batches_max;
                    prop_assert!(former.rows() <= rows_max);
                }
                Step::Pass(micros) => now += micros,
                Step::End => busy = busy.saturating_sub(1),
                Step::Leave(id) => {
                    left.insert(id);
                    answered.extend(former.sweep(|id| left.contains(id)).iter().map(|call| call.payload));
                }
                Step::Next => {
                    for (call, why) in former.expire(at(now)) {
                        let is_late = call.deadline.is_some_and(|deadline| deadline <= at(now));
                        prop_assert!(is_late || why == Turned::Overdue);
                        answered.push(call.payload);
                    }
                    let waited = former.oldest();
                    let is_ready = former.ready(at(now), busy, usize::MAX);
                    match former.next(at(now), busy, usize::MAX) {
                        Next::Run(formed) => {
                            prop_assert_eq!(is_ready, Ok(()));
                            busy += 1;
                            prop_assert!(busy <= limits.threads);
                            let rows: usize = formed.calls.iter().map(|call| call.rows).sum();
                            prop_assert!(rows == formed.rows && rows <= limits.rows_max && rows > 0);
                            let kind = formed.calls[0].kind;
                            for call in formed.calls {
                                prop_assert!(call.deadline.is_none_or(|deadline| deadline > at(now)));
                                prop_assert_eq!(call.kind, kind);
                                started.push((call.payload, call.kind, call.level));
                                answered.push(call.payload);
                            }
                        }
                        Next::Wait(until) if busy < limits.threads && !former.is_empty() => {
                            prop_assert_eq!(is_ready, Err(until));
                            prop_assert!(busy > 0, "an idle model lets calls wait");
                            prop_assert!(until.is_some_and(|until| until > at(now)), "nobody would ask again in time");
                            prop_assert!(waited.is_some_and(|waited| waited + limits.wait_max > at(now)));
                        }
                        Next::Wait(_) => {}
                    }
                }
            }
        }
        // The rest runs once nothing else does.
        loop {
            answered.extend(former.expire(at(now)).into_iter().map(|(call, _)| call.payload));
            let Next::Run(formed) = former.next(at(now), 0, usize::MAX) else { break };
            let kind = formed.calls[0].kind;
            prop_assert!(formed.calls.iter().all(|call| call.kind == kind));
            answered.extend(formed.calls.iter().map(|call| call.payload));
        }
        prop_assert!(former.is_empty() && former.rows() == 0);
        answered.sort_unstable();
        prop_assert_eq!(answered, (1..=id).collect::<Vec<_>>());
        let never_delayed = limits.policy.overdue == Overdue::Reject || limits.policy.timeout.is_none() && !limits.policy.allows_override;
        if never_delayed {
            for level in 0..5 {
                for kind in 0..3 {
                    let line: Vec<u32> = started.iter().filter(|call| call.1 == kind && call.2 == level).map(|call| call.0).collect();
                    prop_assert!(line.is_sorted(), "calls overtook each other: {line:?}");
                }
            }
        }
    }
}
