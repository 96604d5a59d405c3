//! The requests that a SavedModel brings along, run before it answers.
//!
//! TensorFlow Serving reads them from `assets.extra/tf_serving_warmup_requests`: records of `PredictionLog`, at most 1,000.
//! A request that fails makes the load fail, there as here: a model that cannot answer its own requests is not ready.

use std::path::Path;

use codecs::call::{Call, View};
use codecs::grpc::tfs::{
    decode_multi, decode_predict, decode_serialised_examples, decode_spec, decode_target,
};
use codecs::wire::{Fields, WireError};
use models::{Backend, Batch, Outputs, Tensor, default_entry};

use super::Model;

/// Where the requests are, in a SavedModel's folder.
const FILE: &str = "assets.extra/tf_serving_warmup_requests";
/// Records, at most.
const RECORDS_MAX: usize = 1_000;
/// Bytes of the file, at most.
const BYTES_MAX: u64 = 256 << 20;

/// Runs a model's requests; how many there were.
pub(super) fn run(folder: &Path, model: &Model) -> Result<usize, String> {
    let path = folder.join(FILE);
    let Ok(metadata) = std::fs::metadata(&path) else { return Ok(0) };
    if metadata.len() > BYTES_MAX {
        return Err(format!("{FILE} is larger than {BYTES_MAX} bytes"));
    }
    let bytes = std::fs::read(&path).map_err(|error| format!("cannot read {FILE}: {error}"))?;
    let mut count = 0;
    for record in Records::of(&bytes) {
        let done = record.and_then(|record| request(record, model));
        done.map_err(|why| format!("record {count} of {FILE}: {why}"))?;
        count += 1;
    }
    Ok(count)
}

/// Carries out one `PredictionLog`.
fn request(log: &[u8], model: &Model) -> Result<(), String> {
    let wrong = |error: WireError| format!("malformed: {error}");
    let mut call = Call::new();
    for field in Fields::of(log) {
        let field = field.map_err(wrong)?;
        if !matches!(field.number, 2..=7) {
            continue;
        }
        let body = first(field.bytes().map_err(wrong)?).map_err(wrong)?;
        match field.number {
            6 => {
                decode_predict(body, &mut call).map_err(|wrong| wrong.to_string())?;
                answer(model, call.view(body))?;
            }
            2 | 3 => {
                let request = decode_target(body, &mut call).map_err(|wrong| wrong.to_string())?;
                examples(model, request.input, body, &mut call)?;
            }
            4 => {
                let request = decode_multi(body).map_err(|wrong| wrong.to_string())?;
                for (spec, _) in &request.tasks {
                    decode_spec(spec, body, &mut call).map_err(|wrong| wrong.to_string())?;
                    examples(model, request.input, body, &mut call)?;
                }
            }
            number => {
                return Err(format!("a request of the kind {number}; predict, classify and regress are run"));
            }
        }
    }
    Ok(())
}

/// The request of a log: its field 1.
fn first(log: &[u8]) -> Result<&[u8], WireError> {
    for field in Fields::of(log) {
        let field = field?;
        if field.number == 1 {
            return field.bytes();
        }
    }
    Ok(&[])
}

/// The signature that a request means.
fn entry_of(model: &Model, name: &str) -> Result<usize, String> {
    if name.is_empty() {
        return Ok(default_entry(model.entries()));
    }
    let found = model.entries().iter().position(|entry| entry.name == name);
    found.ok_or_else(|| format!("it asks for the signature {name:?}, which the model has not"))
}

fn examples(model: &Model, input: &[u8], body: &[u8], call: &mut Call) -> Result<(), String> {
    let entry = entry_of(model, call.view(body).signature())?;
    let signature = &model.entries()[entry].signature;
    decode_serialised_examples(input, body, signature, call).map_err(|wrong| wrong.to_string())?;
    answer(model, call.view(body))
}

fn answer(model: &Model, view: View<'_>) -> Result<(), String> {
    let entry = entry_of(model, view.signature())?;
    let signature = &model.entries()[entry].signature;
    let tensor = |name: &str| view.tensors().find(|(own, _)| *own == name).map(|(_, tensor)| tensor);
    let found = signature
        .inputs
        .iter()
        .map(|spec| tensor(&spec.name).ok_or_else(|| format!("it lacks {:?}", spec.name)));
    let inputs: Vec<Tensor<'_>> = found.collect::<Result<_, String>>()?;
    let rows = match inputs.first() {
        Some(first) if signature.is_batched() => first.dims().first().copied().unwrap_or(0),
        _ => 1,
    };
    let batch = Batch { rows, inputs: &inputs };
    model.run_entry(entry, &batch, &mut Outputs::new()).map_err(|error| error.to_string())
}

/// The records of a `TFRecord` file: length, its sum, bytes, their sum.
struct Records<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Records<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, left: RECORDS_MAX }
    }

    fn read(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<8>()?;
        let (sum_of_length, rest) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (bytes, rest) = rest.split_at_checked(size)?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        self.rest = rest;
        let is_sound = masked_sum(length) == u32::from_le_bytes(*sum_of_length)
            && masked_sum(bytes) == u32::from_le_bytes(*sum);
        is_sound.then_some(bytes)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if self.left == 0 {
            self.rest = &[];
            return Some(Err(format!("more than {RECORDS_MAX} requests")));
        }
        self.left -= 1;
        let record = self.read();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record.ok_or_else(|| "it is cut off, or its sums do not match".to_owned()))
    }
}

/// The sum of these files: CRC-32C, rotated and shifted, so that the sum of a file with sums in it is a good one.
fn masked_sum(bytes: &[u8]) -> u32 {
    const CASTAGNOLI: u32 = 0x82f6_3b78;
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ (CASTAGNOLI & (sum & 1).wrapping_neg());
        }
    }
    (!sum).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8]) -> Vec<u8> {
        let length = (bytes.len() as u64).to_le_bytes();
        let sums = [masked_sum(&length), masked_sum(bytes)].map(u32::to_le_bytes);
        [&length[..], &sums[0], bytes, &sums[1]].concat()
    }

    #[test]
    fn the_sum_is_castagnolis_masked() {
        // The check value of CRC-32C for "123456789" is 0xe3069283.
        assert_eq!(masked_sum(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn records_are_read_one_by_one() {
        let file = [record(b"one"), record(b""), record(b"three")].concat();
        let all: Vec<_> = Records::of(&file).collect::<Result<_, _>>().expect("legal");
        assert_eq!(all, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn damaged_files_end_with_an_error() {
        let good = record(b"one");
        let mut flipped = good.clone();
        flipped[13] ^= 1;
        let mut huge = good.clone();
        huge[..8].fill(0xff);
        for file in [&good[..good.len() - 1], &good[..5], &flipped, &huge] {
            let all: Vec<_> = Records::of(file).collect();
            assert!(matches!(all.as_slice(), [Err(why)] if why.contains("cut off")), "{all:?}");
        }
        let many = record(b"").repeat(RECORDS_MAX + 1);
        assert_eq!(Records::of(&many).filter(Result::is_err).count(), 1);
    }
}
