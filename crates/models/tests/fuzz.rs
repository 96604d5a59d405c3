//! PMML documents that were made to hurt: each ends in an error or a model that answers, without a panic.
//!
//! `make fuzz` asks for more cases than `make test`.

use std::path::Path;

use bytes::Bytes;
use models::{Backend, Batch, Limits, Method, Native, Outputs, Tensor, load_bytes};
use proptest::prelude::*;

fn samples() -> &'static [Bytes] {
    static SAMPLES: std::sync::OnceLock<Vec<Bytes>> = std::sync::OnceLock::new();
    SAMPLES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pmml/4");
        let entries =
            ["hand", "jpmml"].map(|name| std::fs::read_dir(folder.join(name)).expect("the fixtures"));
        let paths = entries.into_iter().flatten().map(|entry| entry.expect("an entry").path());
        let documents = paths.filter(|path| path.extension().is_some_and(|ending| ending == "pmml"));
        let read = documents.map(|path| Bytes::from(std::fs::read(path).expect("a document")));
        read.filter(|bytes| bytes.len() < 20_000).collect()
    })
}

/// What loads must also answer or refuse.
fn exercise(bytes: Vec<u8>) {
    let limits = Limits { bytes_max: 4 << 20, values_max: 100_000, depth_max: 64 };
    for method in [Method::Predict, Method::Probabilities] {
        let Ok(loaded) = load_bytes("mutated", bytes.clone().into(), &limits) else { return };
        let Ok(model) = Native::new(loaded.estimator, method) else { continue };
        let inputs = &model.signature().inputs;
        let width = inputs[0].row.first().map_or(inputs.len(), |width| width.unwrap_or(0));
        for value in [1.0, f64::NAN, -1e300, 3.5] {
            let row = vec![value; width];
            let input = Tensor::borrowed(&row, &[1, width]).expect("fits");
            let _ = model.run(&Batch { rows: 1, inputs: &[input] }, &mut Outputs::new());
        }
    }
}

#[test]
fn a_prefix_is_an_error() {
    for whole in samples() {
        let end = whole.trim_ascii_end().len();
        for cut in (0..end).step_by((end / 60).max(1)) {
            assert!(load_bytes("cut", whole.slice(..cut), &Limits::default()).is_err(), "cut at {cut}");
        }
    }
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn mutated_documents_never_panic(
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = samples()[sample.index(samples().len())].to_vec();
        for (index, byte) in changes {
            let at = index.index(file.len());
            file[at] = byte;
        }
        exercise(file);
    }

    /// Digits for digits and signs: such documents are read to their end.
    #[test]
    fn mutated_numbers_never_panic(
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"0123456789-e.".to_vec())), 1..12),
    ) {
        let mut file = samples()[sample.index(samples().len())].to_vec();
        let digits: Vec<usize> = (60..file.len()).filter(|at| file[*at].is_ascii_digit()).collect();
        for (index, byte) in changes {
            file[digits[index.index(digits.len())]] = byte;
        }
        exercise(file);
    }

    /// One element or attribute in the place of another.
    #[test]
    fn exchanged_words_never_panic(
        sample in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let text = String::from_utf8(samples()[sample.index(samples().len())].to_vec()).expect("UTF-8");
        let words: Vec<&str> = text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| word.len() > 2).collect();
        exercise(text.replace(words[from.index(words.len())], words[to.index(words.len())]).into_bytes());
    }
}
