//! Examples that are handed on as they are, to models that parse them themselves.
//!
//! Not here: examples that become the inputs of a signature (`tfs`).

use models::{DType, Shape, Signature};

use super::EXPANDED_MAX;
use crate::call::{Call, Input, Wrong};
use crate::tfs::own_name;
use crate::wire::Fields;

/// Reads an `Input`'s examples as they are, as the texts of the signature's only input; the target in the call stays. As
/// TensorFlow Serving does, each example is put behind the context, so that the fields of both become one message.
pub fn decode_serialised_examples(
    input: &[u8],
    body: &[u8],
    signature: &Signature,
    call: &mut Call,
) -> Result<(), Wrong> {
    let target = call.target;
    call.clear();
    call.target = target;
    let [spec] = signature.inputs.as_slice() else {
        return Err(Wrong::request("the signature has no single input of examples"));
    };
    let (mut context, mut room) = (&[][..], 0_usize);
    let start = call.own.align();
    let mut count = 0;
    // The context may come behind the examples, so it is looked for first.
    for is_context in [true, false] {
        for field in Fields::of(input) {
            let field = field?;
            if !matches!(field.number, 1 | 2) {
                continue;
            }
            for member in Fields::of(field.bytes()?) {
                let member = member?;
                match (member.number, is_context) {
                    (2, true) => context = member.bytes()?,
                    (1, false) => {
                        let example = member.bytes()?;
                        room += context.len();
                        if room > EXPANDED_MAX {
                            return Err(Wrong::request("the context is too large for so many examples"));
                        }
                        call.own.push_text_of(&[context, example]);
                        count += 1;
                    }
                    _ => {}
                }
            }
        }
    }
    if count == 0 {
        return Err(Wrong::request("Input is empty."));
    }
    let data = call.own.span(start);
    let shape = Shape::new(&[count]).ok_or_else(|| Wrong::request("too many examples"))?;
    let name = own_name(call, &spec.name);
    call.add(Input { name, dtype: DType::Text, shape, data }, body)
}

#[cfg(test)]
mod tests {
    use models::TensorSpec;

    use super::*;
    use crate::wire::{put_bytes_always, put_message};

    fn read(input: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let inputs = vec![TensorSpec::new("inputs", DType::Text, [])];
        let signature = Signature { inputs, outputs: Vec::new(), columns: Vec::new() };
        let mut call = Call::new();
        decode_serialised_examples(input, input, &signature, &mut call).map_err(|wrong| wrong.to_string())?;
        let tensor = call.view(input).tensor(0).expect("one tensor");
        Ok(tensor.elements().map(|text| text.expect("legal").to_vec()).collect())
    }

    #[test]
    fn each_example_comes_behind_the_context() {
        let mut plain = Vec::new();
        put_message(&mut plain, 1, |out| {
            put_bytes_always(out, 1, b"one");
            put_bytes_always(out, 1, b"");
        });
        assert_eq!(read(&plain), Ok(vec![b"one".to_vec(), Vec::new()]));
        let mut behind = Vec::new();
        put_message(&mut behind, 2, |out| {
            put_bytes_always(out, 1, b"one");
            put_bytes_always(out, 2, b"c");
        });
        assert_eq!(read(&behind), Ok(vec![b"cone".to_vec()]));
        assert_eq!(read(&[]), Err("Input is empty.".to_owned()));
    }

    #[test]
    fn a_context_is_not_multiplied_without_bound() {
        let mut input = Vec::new();
        put_message(&mut input, 2, |out| {
            put_bytes_always(out, 2, &vec![0; EXPANDED_MAX / 64]);
            (0..70).for_each(|_| put_bytes_always(out, 1, b""));
        });
        assert!(read(&input).expect_err("too much").contains("context is too large"));
    }
}
