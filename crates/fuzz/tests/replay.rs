//! Inputs that once reached something new run through their readers again: none may break one.

use fuzz::kept;
use fuzz::targets::{PLANTED, TARGETS};

#[test]
fn kept_inputs_break_nothing() {
    for target in TARGETS {
        let all = kept(target.name).expect("a folder of kept inputs");
        assert!(all.len() >= 10, "{} has {} kept inputs", target.name, all.len());
        for (name, input) in all {
            let done = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(done.is_ok(), "corpus/{}/{name}", target.name);
        }
    }
}

#[test]
fn seeds_are_there_and_break_nothing() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        seeds.iter().for_each(|input| (target.run)(input));
    }
}

#[test]
fn the_planted_bug_is_there() {
    let text = b"dynamic_batching { preferred_batch_size: [ 1, 2, 2001 ] preserve_ordering: true }";
    assert!(std::panic::catch_unwind(|| (PLANTED.run)(text)).is_err());
    assert!((PLANTED.seeds)().iter().all(|input| std::panic::catch_unwind(|| (PLANTED.run)(input)).is_ok()));
}
