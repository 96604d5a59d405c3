//! Versions come and go many times, and memory stays.
//!
//! Counted are the bytes that are allocated and not yet freed, which no noise of the system changes, unlike the
//! process's resident size; that one is measured by `bench/serving/many.py`.

#[path = "support/counted.rs"]
mod counted;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use counted::live;
use infer::config::{Lazy, Model, Source};
use infer::evaluate::{Call, run_here};
use infer::repository::{Repository, Which};
use infer::{Config, Personality};
use models::{Outputs, Tensor};

/// One test at a time: they share the count.
static ALONE: Mutex<()> = Mutex::new(());

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/1.9.1").join(format!("{name}.model"))
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

fn predict(repository: &Repository, name: &str) {
    let served = repository.find(name, Which::Default).expect("an answer");
    let inputs = [Tensor::borrowed(&[5.1, 3.5, 1.4, 0.2], &[1, 4]).expect("a row")];
    let call = Call { served: &served, rows: 1, inputs: &inputs, priority: 0, deadline: None };
    run_here(call, &mut Outputs::new()).expect("an answer");
}

/// Waits until no more is allocated than this: what went is freed by a thread of its own.
fn comes_down_to(bytes: usize) {
    let start = Instant::now();
    while live() > bytes {
        let live = live();
        assert!(start.elapsed() < Duration::from_secs(10), "{live} bytes are allocated, at most {bytes}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn memory_after_many_reloads_is_that_after_a_few() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let root = tempfile::tempdir().expect("a folder");
    let mut config = Config::of(Source::Fixed(vec![Model::new("m", root.path())]));
    config.cache.by_default = true;
    let turn = |repository: Option<&Repository>, turn: u64| {
        let aside = root.path().join("tmp");
        std::fs::create_dir(&aside).expect("made");
        std::fs::copy(fixture("forest_classifier"), aside.join("model.joblib")).expect("copied");
        std::fs::rename(&aside, root.path().join(turn.to_string())).expect("renamed");
        if let Some(repository) = repository {
            block(repository.load("m")).expect("loaded");
            predict(repository, "m");
            std::fs::remove_dir_all(root.path().join((turn - 1).to_string())).expect("removed");
        }
    };
    turn(None, 1);
    let repository = Repository::open(&config).expect("a repository");
    // Until as many versions have ended as are reported.
    (2..=20).for_each(|number| turn(Some(&repository), number));
    let ended = || {
        repository.status("m").is_some_and(|status| {
            status.versions.iter().filter(|version| version.served.is_some()).count() == 1
        })
    };
    let start = Instant::now();
    while !ended() {
        assert!(start.elapsed() < Duration::from_secs(10), "the old versions did not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    let few = live();
    (21..=120).for_each(|number| turn(Some(&repository), number));
    comes_down_to(few + few / 10);
}

#[test]
fn memory_of_models_that_went_to_sleep_comes_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let root = tempfile::tempdir().expect("a folder");
    let names: Vec<String> = (0..100).map(|index| format!("m{index}")).collect();
    for name in &names {
        std::fs::create_dir_all(root.path().join(name)).expect("made");
        std::fs::copy(fixture("forest_classifier"), root.path().join(name).join("model.joblib"))
            .expect("copied");
    }
    let (path, personality) = (root.path().to_owned(), Personality::Kserve);
    let mut config = Config::of(Source::Folder { path, personality, only: None });
    config.loading.lazy = Some(Lazy { models_max: Some(4), bytes_max: None });
    let repository = Repository::open(&config).expect("a repository");
    let call = |name: &str| {
        block(repository.wake(name, None)).expect("loaded");
        predict(&repository, name);
    };
    // Each was called once, and what is known of it stays.
    names.iter().for_each(|name| call(name));
    let few = live();
    (0..2).for_each(|_| names.iter().for_each(|name| call(name)));
    comes_down_to(few + few / 10);
}
