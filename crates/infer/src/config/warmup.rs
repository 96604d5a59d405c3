//! `model_warmup` of Triton's `config.pbtxt`: requests that are described instead of stored.
//!
//! A request's inputs are filled with zeros, with small numbers that are the same in every run, or from a file in the
//! model's folder. For models that take batches, one row is described and repeated.
//!
//! Not here: making and running the requests (`proof`).

use codecs::textproto::{Field, Message, TextError};
use models::DType;

use super::tfs::child;

type Result<T> = std::result::Result<T, TextError>;

/// Requests of a model, at most, and how often one may be repeated.
const REQUESTS_MAX: usize = 1000;
const COUNT_MAX: u64 = 10_000;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmup {
    /// What it is called.
    pub name: String,
    /// Rows, where the model takes batches; their number then comes before each input's dimensions.
    pub batch: Option<usize>,
    /// How often it is run.
    pub count: u32,
    /// Its tensors.
    pub inputs: Vec<WarmupInput>,
}

/// One tensor of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmupInput {
    /// The input.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// Its dimensions, without the batch's.
    pub dims: Vec<usize>,
    /// What is in it.
    pub fill: Fill,
}

/// What is in a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fill {
    /// Zeros.
    Zero,
    /// Numbers that differ from each other.
    Random,
    /// The bytes of a file in the model's folder `warmup`, in the layout of binary tensors.
    File(String),
}

fn wrong<T>(field: &Field, what: impl Into<String>) -> Result<T> {
    Err(TextError { line: field.line, what: what.into() })
}

/// Reads all of a model's. `takes_batches` is whether its `max_batch_size` is above 0.
pub(super) fn read(all: &Message, takes_batches: bool) -> Result<Vec<Warmup>> {
    let mut warmups = Vec::new();
    for field in all.all("model_warmup") {
        if warmups.len() == REQUESTS_MAX {
            return wrong(field, format!("more than {REQUESTS_MAX} warm-up requests"));
        }
        warmups.push(one(field, takes_batches)?);
    }
    Ok(warmups)
}

fn one(field: &Field, takes_batches: bool) -> Result<Warmup> {
    let message = field.message()?;
    message.only(&["name", "batch_size", "inputs", "count"])?;
    let rows = message.get("batch_size").map_or(Ok(1), super::triton::size)?.max(1);
    if !takes_batches && rows > 1 {
        return wrong(field, format!("batch_size {rows} of a model whose max_batch_size is 0"));
    }
    let count = message.get("count").map_or(Ok(1), Field::count)?.max(1);
    if count > COUNT_MAX {
        return wrong(field, format!("count {count} is above {COUNT_MAX}"));
    }
    Ok(Warmup {
        name: message.get("name").map_or(Ok(""), Field::text)?.to_owned(),
        batch: takes_batches.then_some(rows),
        count: count as u32,
        inputs: message.all("inputs").map(input).collect::<Result<_>>()?,
    })
}

fn input(field: &Field) -> Result<WarmupInput> {
    let pair = field.message()?;
    pair.only(&["key", "value"])?;
    let (Some(key), Some(value)) = (pair.get("key"), child(pair, "value")?) else {
        return wrong(field, "inputs needs a key and a value");
    };
    value.only(&["data_type", "dims", "zero_data", "random_data", "input_data_file"])?;
    let dtype = match value.get("data_type") {
        Some(kind) => {
            let word = kind.word()?;
            let name = word.strip_prefix("TYPE_").unwrap_or(word);
            let name = if name == "STRING" { "BYTES" } else { name };
            match DType::of_v2_name(name.as_bytes()) {
                Some(dtype) => dtype,
                None => return wrong(kind, format!("data_type {word} is no type of tensors")),
            }
        }
        None => return wrong(field, format!("the input {:?} has no data_type", key.text()?)),
    };
    let given = |name: &str| value.get(name).map_or(Ok(false), Field::truth);
    let fill = match (value.get("input_data_file"), given("random_data")?, given("zero_data")?) {
        (Some(file), false, false) => {
            let name = file.text()?;
            if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == "..") {
                return wrong(file, format!("{name:?} is no file in the model's folder warmup"));
            }
            Fill::File(name.to_owned())
        }
        (None, true, false) => Fill::Random,
        (None, false, true) => Fill::Zero,
        _ => {
            let what = "an input is filled by one of zero_data, random_data and input_data_file";
            return wrong(field, what);
        }
    };
    let dims = value.all("dims").map(super::triton::size).collect::<Result<_>>()?;
    Ok(WarmupInput { name: key.text()?.to_owned(), dtype, dims, fill })
}

#[cfg(test)]
mod tests {
    use codecs::textproto::parse;

    use super::*;

    #[test]
    fn requests_are_taken_from_the_document() {
        let text = r#"model_warmup [ { name: "w" batch_size: 4 count: 2
            inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }
            inputs { key: "s" value: { data_type: TYPE_STRING dims: 1 input_data_file: "texts" } } } ]"#;
        let all = read(&parse(text).expect("a text"), true).expect("requests");
        let [warmup] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((warmup.batch, warmup.count, &*warmup.name), (Some(4), 2, "w"));
        assert_eq!((warmup.inputs[0].dtype, &*warmup.inputs[0].dims), (DType::F32, &[4][..]));
        assert_eq!((&warmup.inputs[0].fill, warmup.inputs[1].dtype), (&Fill::Random, DType::Text));
        assert_eq!(warmup.inputs[1].fill, Fill::File("texts".to_owned()));
        for (inside, want) in [
            ("batch: 1", "unknown field"),
            ("inputs { key: 'x' value { dims: 1 zero_data: true } }", "data_type"),
            ("inputs { key: 'x' value { data_type: TYPE_FP32 dims: 1 } }", "is filled by one of"),
            ("inputs { key: 'x' value { data_type: TYPE_FP9 zero_data: true } }", "TYPE_FP9"),
            ("inputs { key: 'x' value { data_type: TYPE_INT8 input_data_file: '../x' } }", "no file"),
            ("count: 100000", "above 10000"),
            ("batch_size: 2", "max_batch_size is 0"),
        ] {
            let text = format!("model_warmup {{ {inside} }}");
            let error = read(&parse(&text).expect("a text"), false).expect_err(inside).to_string();
            assert!(error.contains(want), "{inside}: {error}");
        }
    }
}
