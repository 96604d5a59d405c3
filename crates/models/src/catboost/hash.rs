//! The hashes of categories and of combinations of them.
//!
//! CatBoost hashes a category's text with the first published CityHash (1.0), which later versions of CityHash
//! do not reproduce, and keeps the low 32 bits.
//!
//! Not here: tables by hash (`ctr`).

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;
const PAIR: u64 = 0x9ddf_ea08_eb38_2d69;
const CHAIN: u64 = 0x4906_ba49_4954_cb65;

/// The hash of a category.
pub(super) fn category(text: &str) -> i32 {
    city(text.as_bytes()) as u32 as i32
}

/// Adds an element to the hash of a combination.
pub(super) fn chain(hash: u64, element: u64) -> u64 {
    CHAIN.wrapping_mul(hash.wrapping_add(CHAIN.wrapping_mul(element)))
}

/// Adds a category to the hash of a combination.
pub(super) fn chain_category(hash: u64, category: i32) -> u64 {
    chain(hash, i64::from(category) as u64)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(word))
}

fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn pair(low: u64, high: u64) -> u64 {
    let a = mix((low ^ high).wrapping_mul(PAIR));
    mix((high ^ a).wrapping_mul(PAIR)).wrapping_mul(PAIR)
}

fn city(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0 => K2,
        1..=16 => short(bytes),
        17..=32 => middle(bytes),
        33..=64 => long(bytes),
        _ => longest(bytes),
    }
}

fn short(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if len > 8 {
        let (a, b) = (word(bytes, 0), word(bytes, len - 8));
        return pair(a, b.wrapping_add(len as u64).rotate_right(len as u32)) ^ b;
    }
    if len >= 4 {
        return pair((len as u64).wrapping_add(half(bytes, 0) << 3), half(bytes, len - 4));
    }
    let y = u64::from(bytes[0]) + (u64::from(bytes[len >> 1]) << 8);
    let z = len as u64 + (u64::from(bytes[len - 1]) << 2);
    mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K3)).wrapping_mul(K2)
}

fn middle(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let (a, b) = (word(bytes, 0).wrapping_mul(K1), word(bytes, 8));
    let (c, d) = (word(bytes, len - 8).wrapping_mul(K2), word(bytes, len - 16).wrapping_mul(K0));
    let low = a.wrapping_sub(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let high = a.wrapping_add((b ^ K3).rotate_right(20)).wrapping_sub(c).wrapping_add(len as u64);
    pair(low, high)
}

/// Two sums over four words that follow each other, from two starts.
fn sums(words: [u64; 4], mut a: u64, mut z: u64) -> (u64, u64) {
    a = a.wrapping_add(words[0]);
    z = a.wrapping_add(z).wrapping_add(words[3]).rotate_right(21);
    let c = a;
    a = a.wrapping_add(words[1]).wrapping_add(words[2]);
    z = z.wrapping_add(a.rotate_right(44));
    (a.wrapping_add(words[3]), z.wrapping_add(c))
}

fn sums_at(bytes: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    sums([word(bytes, at), word(bytes, at + 8), word(bytes, at + 16), word(bytes, at + 24)], a, b)
}

/// One half of a text of 33 to 64 bytes.
fn side(start: u64, second: u64, third: u64, last: u64) -> (u64, u64) {
    let mut a = start;
    let b = a.wrapping_add(last).rotate_right(52);
    let mut c = a.rotate_right(37);
    a = a.wrapping_add(second);
    c = c.wrapping_add(a.rotate_right(7));
    a = a.wrapping_add(third);
    (a.wrapping_add(last), b.wrapping_add(a.rotate_right(31)).wrapping_add(c))
}

fn long(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let first = (len as u64).wrapping_add(word(bytes, len - 16)).wrapping_mul(K0);
    let v = side(word(bytes, 0).wrapping_add(first), word(bytes, 8), word(bytes, 16), word(bytes, 24));
    let start = word(bytes, 16).wrapping_add(word(bytes, len - 32));
    let w = side(start, word(bytes, len - 24), word(bytes, len - 16), word(bytes, len - 8));
    let low = v.0.wrapping_add(w.1).wrapping_mul(K2);
    let r = mix(low.wrapping_add(w.0.wrapping_add(v.1).wrapping_mul(K0)));
    mix(r.wrapping_mul(K0).wrapping_add(v.1)).wrapping_mul(K2)
}

fn longest(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let mut x = word(bytes, 0);
    let mut y = word(bytes, len - 16) ^ K1;
    let mut z = word(bytes, len - 56) ^ K0;
    let mut v = sums_at(bytes, len - 64, len as u64, y);
    let mut w = sums_at(bytes, len - 32, (len as u64).wrapping_mul(K1), K0);
    z = z.wrapping_add(mix(v.1).wrapping_mul(K1));
    x = z.wrapping_add(x).rotate_right(39).wrapping_mul(K1);
    y = y.rotate_right(33).wrapping_mul(K1);
    for at in (0..(len - 1) & !63).step_by(64) {
        let (next_x, next_y) = (x.wrapping_add(y).wrapping_add(v.0), y.wrapping_add(v.1));
        x = next_x.wrapping_add(word(bytes, at + 16)).rotate_right(37).wrapping_mul(K1);
        y = next_y.wrapping_add(word(bytes, at + 48)).rotate_right(42).wrapping_mul(K1);
        x ^= w.1;
        y ^= v.0;
        z = (z ^ w.0).rotate_right(33);
        v = sums_at(bytes, at, v.1.wrapping_mul(K1), x.wrapping_add(w.0));
        w = sums_at(bytes, at + 32, z.wrapping_add(w.1), y);
        std::mem::swap(&mut z, &mut x);
    }
    let low = pair(v.0, w.0).wrapping_add(mix(y).wrapping_mul(K1)).wrapping_add(z);
    pair(low, pair(v.1, w.1).wrapping_add(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library wrote into models whose only feature had these categories.
    #[test]
    fn categories_hash_as_the_library_hashes_them() {
        let cases = include!("../../tests/fixtures/boosted/catboost_hashes.in");
        assert!(cases.len() > 40);
        for (text, want) in cases {
            assert_eq!(category(text), want, "{text:?}");
        }
    }
}
