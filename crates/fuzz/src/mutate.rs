//! New inputs from known ones.
//!
//! Not here: which inputs are worth keeping (`coverage`).

/// A sequence of numbers that its seed decides.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Numbers at the edges of types and of what people check.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    7,
    16,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];
/// The same as texts.
const TEXTS: [&str; 12] = [
    "0",
    "-1",
    "1e999",
    "-0",
    "NaN",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "1.5",
    "0x10",
    "null",
    "",
];

/// A number at the edge of a type.
pub(crate) fn edge_number(dice: &mut Dice) -> u64 {
    *dice.pick(&EDGES)
}

/// Changes an input in one to eight ways. `other` is a known input that parts may come from.
pub fn mutate(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], len_max: usize) {
    // Few changes mostly: a text with many is rarely one that any reader reads to its end.
    let times = 1 << dice.below(4).min(dice.below(4));
    for _ in 0..times {
        once(dice, input, other, words);
    }
    input.truncate(len_max);
}

/// A range of at most `max` bytes, or a little more: every other one begins and ends where words do.
fn range(dice: &mut Dice, bytes: &[u8], max: usize) -> std::ops::Range<usize> {
    let len = bytes.len();
    let start = dice.below(len + 1);
    let end = start + dice.below((len - start).min(max) + 1);
    if dice.below(2) == 0 { start..end } else { edge(bytes, start)..edge(bytes, end) }
}

fn is_edge(byte: &u8) -> bool {
    b" \n,:;[]{}()<>=\"'".contains(byte)
}

/// The next place where a word of a text ends or begins.
fn edge(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(is_edge).map_or(bytes.len(), |len| from + len)
}

/// All such places.
pub(crate) fn edges(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let inner = bytes.iter().enumerate().filter(|(_, byte)| is_edge(byte)).map(|(at, _)| at);
    inner.chain([bytes.len()])
}

fn place(dice: &mut Dice, bytes: &[u8]) -> usize {
    let at = dice.below(bytes.len() + 1);
    if dice.below(2) == 0 { at } else { edge(bytes, at) }
}

fn once(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let len = input.len();
    match dice.below(if words.is_empty() { 11 } else { 13 }) {
        0 if len > 0 => {
            let at = dice.below(len);
            input[at] ^= 1 << dice.below(8);
        }
        1 if len > 0 => {
            let at = dice.below(len);
            input[at] = dice.roll() as u8;
        }
        2 if len > 0 => {
            let at = dice.below(len);
            let by = dice.below(16) as u8;
            input[at] =
                if dice.below(2) == 0 { input[at].wrapping_add(by) } else { input[at].wrapping_sub(by) };
        }
        3 if len > 0 => number(dice, input),
        4 => {
            let part = range(dice, input, 64);
            input.drain(part);
        }
        5 => {
            let part = input[range(dice, input, 64)].to_vec();
            insert(dice, input, &part);
        }
        6 => {
            let part: Vec<u8> = (0..=dice.below(8)).map(|_| dice.roll() as u8).collect();
            insert(dice, input, &part);
        }
        7 => digits(dice, input),
        8 => {
            let part = other[range(dice, other, 256)].to_vec();
            insert(dice, input, &part);
        }
        9 => {
            // The beginning of one and the end of the other.
            let (cut, from) = (dice.below(len + 1), dice.below(other.len() + 1));
            input.truncate(cut);
            input.extend_from_slice(&other[from..]);
        }
        10 => {
            if !crate::message::change(dice, input) {
                input.push(dice.roll() as u8);
            }
        }
        11 => {
            let word = *dice.pick(words);
            let spaced = if dice.below(2) == 0 { word.to_vec() } else { [b" ", word, b" "].concat() };
            insert(dice, input, &spaced);
        }
        12 => {
            let word = *dice.pick(words);
            let at = dice.below(len + 1);
            input.splice(at..(at + word.len()).min(len), word.iter().copied());
        }
        _ => input.push(dice.roll() as u8),
    }
}

fn insert(dice: &mut Dice, input: &mut Vec<u8>, part: &[u8]) {
    let at = place(dice, input);
    input.splice(at..at, part.iter().copied());
}

/// Writes an edge over a number of one, two, four or eight bytes, either way round.
fn number(dice: &mut Dice, input: &mut [u8]) {
    let size = 1 << dice.below(4);
    let edge = dice.pick(&EDGES).to_le_bytes();
    let mut bytes = edge[..size].to_vec();
    if dice.below(2) == 0 {
        bytes.reverse();
    }
    let at = dice.below(input.len());
    let end = (at + size).min(input.len());
    input[at..end].copy_from_slice(&bytes[..end - at]);
}

/// Replaces a number that is written out.
fn digits(dice: &mut Dice, input: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..input.len())
        .filter(|at| input[*at].is_ascii_digit() && (*at == 0 || !input[at - 1].is_ascii_digit()))
        .collect();
    if starts.is_empty() {
        return;
    }
    let start = *dice.pick(&starts);
    let end =
        input[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |len| start + len);
    let text = match dice.below(2) {
        0 => dice.pick(&TEXTS).as_bytes().to_vec(),
        _ => dice.below(100_000).to_string().into_bytes(),
    };
    input.splice(start..end, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_inputs_and_lengths_are_bounded() {
        let made = |seed| {
            let mut dice = Dice::new(seed);
            let mut input = b"{\"a\": 12}".to_vec();
            for _ in 0..500 {
                mutate(&mut dice, &mut input, b"other", &[b"word"], 40);
                assert!(input.len() <= 40);
            }
            input
        };
        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
    }
}
