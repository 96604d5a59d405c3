//! What an input's bytes were compared with.
//!
//! A reader that asks for `1000` or for a field's name compares something of the input with something of its own. LLVM's
//! coverage pass calls a function before each comparison of numbers, and comparisons of bytes are calls of `memcmp` and
//! `bcmp`, which are ours in a program with coverage. Both sides are written down while somebody asks for it; the side
//! that is found in the input is then replaced by the other (`candidates`).
//!
//! Not here: changes by chance (`mutate`).
#![allow(unsafe_code, reason = "the compiler calls these functions by name, with pointers")]

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::message::{put, varint_of};
use crate::mutate::Dice;

/// Pairs of numbers of one run, at most.
const NUMBERS_MAX: usize = 4096;
/// Pairs of texts of one run, at most, and bytes of one text.
const TEXTS_MAX: usize = 512;
/// Bytes of a text, at most; of longer ones the beginning counts.
pub const TEXT_BYTES_MAX: usize = 32;
/// Places in an input where one pair is tried.
const PLACES_MAX: usize = 8;

static IS_ON: AtomicBool = AtomicBool::new(false);
static NUMBERS: [[AtomicU64; 2]; NUMBERS_MAX] = [const { [const { AtomicU64::new(0) }; 2] }; NUMBERS_MAX];
static NUMBERS_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Of each side its length and its bytes.
static TEXTS: [[[AtomicU8; TEXT_BYTES_MAX + 1]; 2]; TEXTS_MAX] =
    [const { [const { [const { AtomicU8::new(0) }; TEXT_BYTES_MAX + 1] }; 2] }; TEXTS_MAX];
static TEXTS_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Hashes of pairs of numbers that are written down already: a loop compares the same ones again and again.
static KNOWN: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// Begins to write down.
pub fn begin() {
    NUMBERS_COUNT.store(0, Relaxed);
    TEXTS_COUNT.store(0, Relaxed);
    KNOWN.iter().for_each(|hash| hash.store(0, Relaxed));
    IS_ON.store(true, Relaxed);
}

/// What was compared since [`begin`] and was not equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Numbers of two, four or eight bytes.
    pub numbers: Vec<(u64, u64)>,
    /// Texts; both sides have the same length.
    pub texts: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Stops to write down.
pub fn end() -> Compared {
    IS_ON.store(false, Relaxed);
    let count = NUMBERS_COUNT.load(Relaxed).min(NUMBERS_MAX);
    let numbers = NUMBERS[..count].iter().map(|[left, right]| (left.load(Relaxed), right.load(Relaxed)));
    let side = |side: &[AtomicU8; TEXT_BYTES_MAX + 1]| -> Vec<u8> {
        let len = usize::from(side[0].load(Relaxed));
        side[1..=len].iter().map(|byte| byte.load(Relaxed)).collect()
    };
    let count = TEXTS_COUNT.load(Relaxed).min(TEXTS_MAX);
    let texts = TEXTS[..count].iter().map(|[left, right]| (side(left), side(right)));
    Compared { numbers: numbers.collect(), texts: texts.collect() }
}

impl Compared {
    /// Inputs with one side in the place of the other, at most `count_max`, chosen by the dice where there are more.
    pub fn candidates(&self, dice: &mut Dice, input: &[u8], count_max: usize) -> Vec<Vec<u8>> {
        let mut changes: Vec<(usize, usize, Vec<u8>)> = Vec::new();
        for (left, right) in &self.numbers {
            for (from, to) in [(*left, *right), (*right, *left)] {
                for (old, new) in spellings(from, to) {
                    places(dice, input, &old).for_each(|at| changes.push((at, old.len(), new.clone())));
                }
            }
        }
        for (left, right) in &self.texts {
            for (from, to) in [(left, right), (right, left)] {
                places(dice, input, from).for_each(|at| changes.push((at, from.len(), to.clone())));
            }
        }
        while changes.len() > count_max {
            changes.swap_remove(dice.below(changes.len()));
        }
        changes.into_iter().map(|(at, len, new)| put(input, at..at + len, &new)).collect()
    }
}

/// How a number may stand in an input, and how the other and its neighbours would: as digits, as protobuf writes it, and as
/// bytes of each width that holds both, either way round.
fn spellings(from: u64, to: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for to in [to, to.wrapping_add(1), to.wrapping_sub(1)] {
        all.push((from.to_string().into_bytes(), to.to_string().into_bytes()));
        if from > 0 {
            all.push((varint_of(from), varint_of(to)));
        }
        for width in [2, 4, 8] {
            let fits = |number: u64| width == 8 || number >> (8 * width) == 0;
            // Zeros are everywhere.
            if !fits(from) || !fits(to) || from == 0 && width > 4 {
                continue;
            }
            let (old, new) = (from.to_le_bytes()[..width].to_vec(), to.to_le_bytes()[..width].to_vec());
            let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
            all.push((reversed(&old), reversed(&new)));
            all.push((old, new));
        }
    }
    all
}

/// Some places where a part is in an input.
fn places(dice: &mut Dice, input: &[u8], part: &[u8]) -> impl Iterator<Item = usize> {
    let mut found: Vec<usize> = match part.len() {
        0 => Vec::new(),
        len => input.windows(len).enumerate().filter(|(_, there)| *there == part).map(|(at, _)| at).collect(),
    };
    while found.len() > PLACES_MAX {
        found.swap_remove(dice.below(found.len()));
    }
    found.into_iter()
}

#[cfg_attr(not(slipway_coverage), allow(dead_code, reason = "nothing is instrumented"))]
fn note(left: u64, right: u64) {
    // An address says nothing of the input, and is another in the next process.
    let is_address = |number: u64| (1 << 40..1 << 47).contains(&number);
    if !IS_ON.load(Relaxed) || left == right || is_address(left) || is_address(right) {
        return;
    }
    let hash = (left.rotate_left(32) ^ right).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let place = (hash >> 54) as usize;
    if KNOWN[place].swap(hash, Relaxed) == hash {
        return;
    }
    if let Some(pair) = NUMBERS.get(NUMBERS_COUNT.fetch_add(1, Relaxed)) {
        pair[0].store(left, Relaxed);
        pair[1].store(right, Relaxed);
    }
}

#[cfg(slipway_coverage)]
mod hooks {
    use super::*;

    macro_rules! numbers {
        ($($name:ident: $type:ty),*) => { $(
            #[unsafe(no_mangle)]
            extern "C" fn $name(left: $type, right: $type) {
                note(left.into(), right.into());
            }
        )* };
    }

    numbers! {
        __sanitizer_cov_trace_cmp2: u16,
        __sanitizer_cov_trace_cmp4: u32,
        __sanitizer_cov_trace_cmp8: u64,
        __sanitizer_cov_trace_const_cmp2: u16,
        __sanitizer_cov_trace_const_cmp4: u32,
        __sanitizer_cov_trace_const_cmp8: u64
    }

    /// Single bytes are found by chance.
    #[unsafe(no_mangle)]
    extern "C" fn __sanitizer_cov_trace_cmp1(_left: u8, _right: u8) {}

    #[unsafe(no_mangle)]
    extern "C" fn __sanitizer_cov_trace_const_cmp1(_left: u8, _right: u8) {}

    /// `table` is a count, the number's width in bits, and as many cases.
    #[unsafe(no_mangle)]
    extern "C" fn __sanitizer_cov_trace_switch(value: u64, table: *const u64) {
        if !IS_ON.load(Relaxed) {
            return;
        }
        // SAFETY: the compiler passes a table of this form.
        let (cases, width) =
            unsafe { (std::slice::from_raw_parts(table.add(2), *table as usize), *table.add(1)) };
        if width > 8 {
            cases.iter().take(16).for_each(|case| note(value, *case));
        }
    }

    fn compare(left: *const u8, right: *const u8, len: usize) -> i32 {
        let mut at = 0;
        let mut order = 0;
        // SAFETY: the caller promises that both sides have `len` bytes; `at` stays below it. By hand, because any
        // comparison of the library's would come here.
        unsafe {
            while at + 8 <= len
                && left.add(at).cast::<u64>().read_unaligned() == right.add(at).cast::<u64>().read_unaligned()
            {
                at += 8;
            }
            while at < len {
                let (one, other) = (*left.add(at), *right.add(at));
                if one != other {
                    order = i32::from(one) - i32::from(other);
                    break;
                }
                at += 1;
            }
        }
        if order != 0 && len > 1 && IS_ON.load(Relaxed) {
            keep(left, right, len);
        }
        order
    }

    fn keep(left: *const u8, right: *const u8, len: usize) {
        let len = len.min(TEXT_BYTES_MAX);
        let Some(pair) = TEXTS.get(TEXTS_COUNT.fetch_add(1, Relaxed)) else { return };
        for (side, from) in pair.iter().zip([left, right]) {
            side[0].store(len as u8, Relaxed);
            for (at, byte) in side[1..=len].iter().enumerate() {
                // SAFETY: as in `compare`; `len` is no longer here.
                byte.store(unsafe { *from.add(at) }, Relaxed);
            }
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
        compare(left, right, len)
    }

    #[unsafe(no_mangle)]
    extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
        compare(left, right, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_takes_the_place_of_the_other_however_it_is_spelled() {
        let compared =
            Compared { numbers: vec![(1000, 12)], texts: vec![(b"name".to_vec(), b"kind".to_vec())] };
        let of = |input: &[u8]| compared.candidates(&mut Dice::new(1), input, 100);
        assert!(of(b"size: 12").contains(&b"size: 1001".to_vec()));
        assert!(of(b"size: 1000").contains(&b"size: 11".to_vec()));
        assert!(of(&[12, 0]).contains(&vec![0xe8, 3]));
        assert!(of(&[3, 0xe8]).contains(&vec![0, 12]));
        assert!(of(b"a name").contains(&b"a kind".to_vec()));
        assert!(of(b"nothing").is_empty());
        assert_eq!(compared.candidates(&mut Dice::new(1), b"12 12 12 12 12 12", 5).len(), 5);
    }
}
