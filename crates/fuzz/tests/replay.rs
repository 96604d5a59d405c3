//! Inputs that once reached something new run through their readers again, and so do some that were never seen: none
//! may break one.

use fuzz::kept;
use fuzz::mutate::{Dice, mutate};
use fuzz::targets::{TARGETS, Target};

fn breaks(target: &Target, input: &[u8]) -> bool {
    std::panic::catch_unwind(|| (target.run)(input)).is_err()
}

#[test]
fn kept_inputs_break_nothing() {
    for target in TARGETS {
        let all = kept(target.name).expect("a folder of kept inputs");
        assert!(all.len() >= 5, "{} has {} kept inputs", target.name, all.len());
        for (name, input) in all {
            assert!(!breaks(&target, &input), "corpus/{}/{name}", target.name);
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

/// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose, as for the other tests of this kind.
#[test]
fn inputs_with_changes_break_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let (cases, seed) = (number("PROPTEST_CASES").unwrap_or(200), number("PROPTEST_RNG_SEED").unwrap_or(4));
    for target in TARGETS {
        let mut inputs = (target.seeds)();
        inputs.extend(kept(target.name).expect("kept inputs").into_iter().map(|(_, input)| input));
        let mut dice = Dice::new(seed);
        for case in 0..cases {
            let (from, other) = (dice.below(inputs.len()), dice.below(inputs.len()));
            let mut input = inputs[from].clone();
            mutate(&mut dice, &mut input, &inputs[other], target.words, target.len_max);
            assert!(
                !breaks(&target, &input),
                "{} seed {seed} case {case}: {}",
                target.name,
                input.escape_ascii()
            );
        }
    }
}
