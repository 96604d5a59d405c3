//! Readers with mistakes that were put there, to see that the search finds such.
//!
//! Each needs several things to be so at once, none of which a seed has and no single change brings about: the search
//! has to get there by steps, each of which reaches a little more. They are part of the program and not of the library,
//! because the library is compiled without the counters that lead the search.
//!
//! Not here: real readers (`fuzz::targets`).

use codecs::wire::Fields;
use fuzz::targets::{TEXT_WORDS, Target, texts};

/// All of them.
pub const PLANTED: [Target; 3] = [
    Target {
        name: "planted-text",
        reads: "a configuration",
        run: text,
        seeds: texts,
        words: TEXT_WORDS,
        len_max: 4 << 10,
    },
    Target {
        name: "planted-wire",
        reads: "a protobuf message",
        run: wire,
        seeds: || vec![vec![10, 3, b'a', b'b', b'c'], vec![8, 1, 18, 2, 8, 1]],
        words: &[],
        len_max: 1 << 10,
    },
    Target {
        name: "planted-bytes",
        reads: "a file with a header",
        run: bytes,
        seeds: || vec![vec![0; 16], b"a file of another kind".to_vec()],
        words: &[],
        len_max: 256,
    },
];

/// A list of sizes whose largest is odd, where the order is to be kept.
fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(all) = codecs::textproto::parse(text) else { return };
    let Some(Ok(batching)) = all.get("dynamic_batching").map(|field| field.message()) else { return };
    let sizes: Vec<u64> = batching.all("preferred_batch_size").flat_map(|field| field.count()).collect();
    if sizes.len() < 3 {
        return;
    }
    let Some(largest) = sizes.iter().max().filter(|largest| **largest > 1000) else { return };
    if batching.get("preserve_ordering").is_some_and(|field| field.truth() == Ok(true)) {
        assert!(largest % 2 == 0, "planted");
    }
}

/// A message within a message, with a number that chance does not meet.
fn wire(bytes: &[u8]) {
    let inner = Fields::of(bytes).flatten().find(|field| field.number == 2);
    let Some(Ok(inner)) = inner.map(|field| field.bytes()) else { return };
    if Fields::of(inner).flatten().any(|field| field.number == 1 && field.int() == Ok(0x00c0_ffee)) {
        marked(inner);
    }
}

/// It has as many sizes as its name has letters.
#[inline(never)]
fn marked(message: &[u8]) {
    let of = |number| Fields::of(message).flatten().filter(move |field| field.number == number);
    let Some(Ok(name)) = of(3).next().map(|field| field.text()) else { return };
    if name.len() < 5 {
        return;
    }
    let mut sizes = 0;
    for field in of(4) {
        let _ = field.ints(|_| sizes += 1);
    }
    assert!(sizes != name.len(), "planted");
}

/// A name at the front, a length that is that of the rest, and a sum that is right.
fn bytes(bytes: &[u8]) {
    let Some(rest) = bytes.strip_prefix(b"SLIPWAY\x01") else { return };
    let Some((len, rest)) = rest.split_first_chunk::<4>() else { return };
    if u32::from_be_bytes(*len) as usize != rest.len() || rest.len() < 8 {
        return;
    }
    let Some((sum, rest)) = rest.split_last_chunk::<2>().map(|(rest, sum)| (*sum, rest)) else { return };
    let right = rest.iter().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    assert!(u16::from_le_bytes(sum) != right, "planted");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaks(target: &Target, input: &[u8]) -> bool {
        std::panic::catch_unwind(|| (target.run)(input)).is_err()
    }

    #[test]
    fn the_mistakes_are_there_and_no_seed_shows_them() {
        let text = b"dynamic_batching { preferred_batch_size: [ 1, 2, 2001 ] preserve_ordering: true }";
        let wire =
            [18, 18, 8, 0xee, 0xff, 0x83, 6, 26, 5, b'n', b'a', b'm', b'e', b's', 34, 5, 1, 1, 1, 1, 1];
        let wire = [&wire[..1], &[wire.len() as u8 - 2], &wire[2..]].concat();
        let file = [b"SLIPWAY\x01", &[0, 0, 0, 8][..], &[0, 0, 0, 0, 0, 9, 9, 0]].concat();
        for (target, input) in PLANTED.iter().zip([&text[..], &wire, &file]) {
            assert!(breaks(target, input), "{}", target.name);
            assert!(!(target.seeds)().iter().any(|seed| breaks(target, seed)), "{}", target.name);
        }
    }
}
