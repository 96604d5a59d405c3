//! Triton's classification extension: instead of an output, its largest values as texts `value:index`.
//!
//! Not here: which outputs are asked for (`v2::select`).

use models::{DType, Outputs, Shape, Tensor};

use crate::refusal::{Reason, Refusal};

/// One output of an answer: its place in the signature, and how many classes are asked for instead of it; 0 is the
/// output itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) place: usize,
    pub(crate) classes: u32,
}

/// The tensors of an answer. `made` keeps those that are made here.
pub(crate) fn tensors<'t>(
    chosen: &'t [Chosen],
    outputs: &'t Outputs,
    made: &'t mut Outputs,
) -> Result<impl Iterator<Item = (usize, &'t Tensor<'static>)> + Clone, Refusal> {
    made.clear();
    for one in chosen.iter().filter(|one| one.classes > 0) {
        match outputs.tensors().get(one.place) {
            Some(tensor) => top(tensor, one.classes as usize, made)?,
            None => return Err(Refusal::new(Reason::Internal, "the model gave fewer outputs than it has")),
        }
    }
    let made: &Outputs = made;
    let mut next = 0;
    Ok(chosen.iter().filter_map(move |one| {
        if one.classes == 0 {
            return Some((one.place, outputs.tensors().get(one.place)?));
        }
        next += 1;
        Some((one.place, made.tensors().get(next - 1)?))
    }))
}

/// Appends the largest values of each row, largest first and of equal ones the first.
fn top(tensor: &Tensor<'_>, count: usize, made: &mut Outputs) -> Result<(), Refusal> {
    let wrong = || Refusal::new(Reason::Input, "classes can be asked for only of an output of numbers");
    let numbers = tensor.to_f64s().ok_or_else(wrong)?;
    let rows = tensor.dims().first().copied().unwrap_or(1);
    let width = numbers.len().checked_div(rows).unwrap_or(0);
    let count = count.min(width);
    let is_whole = !matches!(tensor.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16);
    let mut texts = Vec::with_capacity(rows * count);
    for row in numbers.chunks_exact(width.max(1)) {
        let mut places: Vec<usize> = (0..width).collect();
        places.sort_by(|one, other| row[*other].total_cmp(&row[*one]));
        for place in &places[..count] {
            let value = row[*place];
            texts.push(if is_whole { format!("{value}:{place}") } else { format!("{value:.6}:{place}") });
        }
    }
    let shape = Shape::new(&[rows, count]).ok_or_else(wrong)?;
    made.texts(shape, texts.iter().map(String::as_str));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_with_their_places() {
        let mut outputs = Outputs::new();
        let shape = Shape::new(&[2, 3]).expect("small");
        outputs.numbers::<f64>(shape).copy_from_slice(&[0.25, 0.5, 0.25, 1.0, 0.0, 0.0]);
        let mut made = Outputs::new();
        let chosen = [Chosen { place: 0, classes: 2 }, Chosen { place: 0, classes: 0 }];
        let all: Vec<_> = tensors(&chosen, &outputs, &mut made).expect("numbers").collect();
        assert_eq!(all[0].1.dims(), [2, 2]);
        let texts: Vec<_> = all[0].1.texts().flatten().collect();
        assert_eq!(texts, ["0.500000:1", "0.250000:0", "1.000000:0", "0.000000:1"]);
        assert_eq!(all[1].1.dims(), [2, 3]);
        let many = [Chosen { place: 0, classes: u32::MAX }];
        let mut made = Outputs::new();
        let all: Vec<_> = tensors(&many, &outputs, &mut made).expect("numbers").collect();
        assert_eq!(all[0].1.dims(), [2, 3]);
    }
}
