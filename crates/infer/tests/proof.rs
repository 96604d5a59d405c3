//! What a version must show before it answers: digests, golden rows, warm-up requests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use codecs::wire::{put_bytes, put_int, put_message};
use infer::Config;
use infer::config::{Model, Source};
use infer::repository::{Repository, Which};

const POLL: Duration = Duration::from_millis(10);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/1.9.1").join(format!("{name}.model"))
}

/// A model's folder with one version of these files; `1/model.joblib` is the iris forest, which knows class 0 of the
/// row below.
struct Folder(tempfile::TempDir);

const ROW: &str = "[5.1,3.5,1.4,0.2]";

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.write("1/model.joblib", &std::fs::read(fixture("forest_classifier")).expect("read"));
        folder
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }

    fn with(path: &str, bytes: &[u8]) -> Self {
        let folder = Self::new();
        folder.write(path, bytes);
        folder
    }

    fn open(&self, change: impl FnOnce(&mut Config)) -> Result<Repository, String> {
        let mut config = Config::of(Source::Fixed(vec![Model::new("m", self.0.path())]));
        change(&mut config);
        Repository::open(&config).map_err(|error| error.to_string())
    }

    /// Whether the version answers; `want` is a part of the reason, empty where it does.
    fn check(&self, want: &str) {
        match (self.open(|_| {}), want) {
            (Ok(repository), "") => assert!(repository.find("m", Which::Version(1)).is_ok()),
            (Err(error), want) if !want.is_empty() => assert!(error.contains(want), "{want}: {error}"),
            (got, want) => panic!("want {want:?}, got {:?}", got.map(drop)),
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn golden_rows_decide_whether_a_version_answers() {
    let v1 = |answer: &str| format!(r#"{{"request":{{"instances":[{ROW},{ROW}]}},"response":{answer}}}"#);
    let v2 = |data: &str| {
        format!(
            r#"{{"cases":[{{"request":{{"inputs":[{{"name":"input-0","shape":[1,4],"datatype":"FP64","data":{ROW}}}]}},
            "response":{{"model_name":"m","outputs":[{{"name":"output-0","datatype":"INT64","shape":[1],"data":{data}}}]}}}}]}}"#
        )
    };
    for (document, want) in [
        (v1(r#"{"predictions":[0,0]}"#), ""),
        (v1(r#"{"predictions":[0,1]}"#), "case 1: row 2, output \"output-0\": got 0, 1 is stored"),
        (v1(r#"{"predictions":[0]}"#), "2 rows were asked and 1 predictions are stored"),
        (v1(r#"{"predictions":[0,"setosa"]}"#), "row 2"),
        (v1(r#"{"outputs":[]}"#), "has \"predictions\""),
        (v2("[0]"), ""),
        (v2("[2]"), "case 1: row 1, output \"output-0\": got 0, 2 is stored"),
        (v2("[0,0]"), "has 1 elements, 2 are stored"),
        (format!(r#"{{"tolerance":{{"absolute":1.5}},{}"#, &v1(r#"{"predictions":[0,1]}"#)[1..]), ""),
        (r#"{"cases":[]}"#.to_owned(), "expected \"request\""),
        (r#"{"request":{"instances":[[1,2]]},"response":{"predictions":[0]}}"#.to_owned(), "case 1: "),
        (r#"{"rows":[]}"#.to_owned(), "unknown field `rows`"),
    ] {
        Folder::with("1/golden.json", document.as_bytes()).check(want);
    }
}

#[test]
fn digests_decide_whether_a_version_is_read() {
    let zeros = "0".repeat(64);
    let document = format!(r#"{{"sha256":"{zeros}"}}"#);
    Folder::with("1/slipway-model.json", document.as_bytes()).check("slipway-model.json says 0000");
    let folder = Folder::new();
    let told = |sha256: &str| {
        let sha256 = sha256.to_owned();
        folder.open(move |config| {
            let Source::Fixed(models) = &mut config.models else { panic!("one model") };
            models[0].sha256 = Some(sha256);
        })
    };
    let error = told(&zeros).err().expect("other bytes");
    let actual = error.split("model.joblib is ").nth(1).and_then(|rest| rest.get(..64)).expect("the digest");
    assert!(told(actual).is_ok());
    // A model's own document carries it too.
    let pbtxt = format!("parameters {{ key: \"sha256\" value {{ string_value: \"{zeros}\" }} }}");
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(root.path().join("m/1")).expect("made");
    std::fs::copy(fixture("forest_classifier"), root.path().join("m/1/model.joblib")).expect("copied");
    std::fs::write(root.path().join("m/config.pbtxt"), pbtxt).expect("written");
    let personality = infer::Personality::Triton;
    let source = Source::Folder { path: root.path().to_owned(), personality, only: None };
    let error = Repository::open(&Config::of(source)).err().expect("other bytes").to_string();
    assert!(error.contains("the configuration says 0000"), "{error}");
}

#[test]
fn the_last_good_version_answers_when_the_next_fails_its_golden_rows() {
    let folder = Folder::new();
    let repository = folder.open(|config| config.loading.poll = Some(POLL)).expect("a repository");
    folder.write("tmp-2/model.joblib", &std::fs::read(fixture("forest_classifier")).expect("read"));
    let golden = format!(r#"{{"request":{{"instances":[{ROW}]}},"response":{{"predictions":[2]}}}}"#);
    folder.write("tmp-2/golden.json", golden.as_bytes());
    std::fs::rename(folder.0.path().join("tmp-2"), folder.0.path().join("2")).expect("renamed");
    let error = || repository.status("m").and_then(|status| status.versions.get(1)?.error.clone());
    until("the failure", || error().is_some_and(|why| why.contains("got 0, 2 is stored")));
    assert_eq!(repository.find("m", Which::Default).expect("an answer").version, Some(1));
    assert!(repository.find("m", Which::Version(2)).is_err());
    folder.write("2/golden.json", golden.replace("[2]", "[0]").as_bytes());
    until("the mended version", || repository.find("m", Which::Version(2)).is_ok());
}

#[test]
fn a_warm_up_request_that_fails_keeps_the_version_away() {
    for (document, want) in [
        (format!(r#"{{"instances":[{ROW}]}}"#), ""),
        (
            format!(r#"[{{"instances":[{ROW}]}},{{"inputs":[[1,2,3]]}}]"#),
            "warm-up request 2 of warmup.json failed",
        ),
        ("[1".to_owned(), "warmup.json: "),
    ] {
        Folder::with("1/warmup.json", document.as_bytes()).check(want);
    }
    let folder = Folder::with("1/warmup.json", b"[1");
    assert!(folder.open(|config| config.loading.warmup_iterations = 0).is_ok(), "it is not to be warmed up");
}

/// A `PredictionLog` of a predict call with one row of so many numbers.
fn predict_log(width: usize) -> Vec<u8> {
    let tensor = |out: &mut Vec<u8>| {
        put_int(out, 1, 2);
        put_message(out, 2, |out| {
            for size in [1, width as u64] {
                put_message(out, 2, |out| put_int(out, 1, size));
            }
        });
        let content: Vec<u8> = (0..width).flat_map(|index| (index as f64).to_le_bytes()).collect();
        put_bytes(out, 4, &content);
    };
    let mut log = Vec::new();
    put_message(&mut log, 6, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |out| put_bytes(out, 1, b"whatever it was called"));
            put_message(out, 2, |out| {
                put_bytes(out, 1, b"input-0");
                put_message(out, 2, tensor);
            });
        });
    });
    log
}

/// The checksum of TensorFlow's records, bit by bit.
fn masked(bytes: &[u8]) -> u32 {
    let sum = !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[test]
fn tensorflows_warm_up_records_are_run() {
    let file = |record: &[u8]| {
        let len = (record.len() as u64).to_le_bytes();
        [&len[..], &masked(&len).to_le_bytes(), record, &masked(record).to_le_bytes()].concat()
    };
    let path = "1/assets.extra/tf_serving_warmup_requests";
    let good = file(&predict_log(4));
    Folder::with(path, &good).check("");
    Folder::with(path, &file(&predict_log(3))).check("warm-up request 1 of assets.extra");
    Folder::with(path, &good[..good.len() - 1]).check("the record at byte 0 is broken");
}

#[test]
fn tritons_warm_up_requests_are_run() {
    for (inside, file, want) in [
        ("random_data: true", None, ""),
        ("zero_data: true", None, ""),
        ("input_data_file: 'row'", Some(16), ""),
        ("input_data_file: 'row'", Some(15), "warm-up request \"w\" of config.pbtxt failed"),
        ("input_data_file: 'row'", None, "warmup/row is not there"),
    ] {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(root.path().join("m/1")).expect("made");
        std::fs::create_dir_all(root.path().join("m/warmup")).expect("made");
        std::fs::copy(fixture("forest_classifier"), root.path().join("m/1/model.joblib")).expect("copied");
        let text = format!(
            "max_batch_size: 8 model_warmup {{ name: 'w' batch_size: 2 count: 3 inputs {{ key: 'input-0' value {{ data_type: TYPE_FP32 dims: 4 {inside} }} }} }}"
        );
        std::fs::write(root.path().join("m/config.pbtxt"), text).expect("written");
        if let Some(bytes) = file {
            std::fs::write(root.path().join("m/warmup/row"), vec![0; bytes]).expect("written");
        }
        let personality = infer::Personality::Triton;
        let source = Source::Folder { path: root.path().to_owned(), personality, only: None };
        match (Repository::open(&Config::of(source)), want) {
            (Ok(repository), "") => assert!(repository.find("m", Which::Version(1)).is_ok()),
            (Err(error), want) if !want.is_empty() => {
                assert!(error.to_string().contains(want), "{want}: {error}");
            }
            (got, want) => panic!("{inside}: want {want:?}, got {:?}", got.map(drop)),
        }
    }
}
