//! Models that are loaded by the first call that needs them, and go when room is needed.

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use infer::config::{Lazy, Source};
use infer::evaluate::{Call, run_here};
use infer::repository::{NotServed, Repository, Which};
use infer::{Config, Personality, Reason, Refusal, Served};
use models::{Engines, Hosted, Outputs, Tensor, Wanted};
use support::{Running, fixture};

/// A folder with an iris forest for each name.
fn root(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for name in names {
        std::fs::create_dir_all(root.path().join(name).join("1")).expect("made");
        std::fs::copy(fixture("forest_classifier"), root.path().join(name).join("1/model.joblib"))
            .expect("copied");
    }
    root
}

fn config(root: &Path, lazy: Lazy) -> Config {
    let personality = Personality::Kserve;
    let mut config = Config::of(Source::Folder { path: root.to_owned(), personality, only: None });
    config.loading.lazy = Some(lazy);
    config
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

fn wake(repository: &Repository, name: &str) -> Result<(), Refusal> {
    block(repository.wake(name, None))
}

fn find(repository: &Repository, name: &str) -> Option<Arc<Served>> {
    match repository.find(name, Which::Default) {
        Ok(served) => Some(served),
        Err(NotServed::Asleep(asleep)) if asleep == name => None,
        Err(other) => panic!("{other}"),
    }
}

fn predict(served: &Arc<Served>) {
    let inputs = [Tensor::borrowed(&[5.1, 3.5, 1.4, 0.2], &[1, 4]).expect("a row")];
    let mut outputs = Outputs::new();
    run_here(Call { served, rows: 1, inputs: &inputs, priority: 0, deadline: None }, &mut outputs)
        .expect("an answer");
    assert_eq!(*outputs.tensors()[0].to_f64s().expect("numbers"), [0.0]);
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn one_load_is_for_all_who_wait() {
    let root = root(&["a", "b"]);
    let repository = Repository::open(&config(root.path(), Lazy::default())).expect("a repository");
    assert!(repository.is_ready(), "nothing is missing");
    assert!(find(&repository, "a").is_none());
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let repository = repository.clone();
            std::thread::spawn(move || {
                wake(&repository, "a").expect("loaded");
                find(&repository, "a").expect("there")
            })
        })
        .collect();
    let all: Vec<Arc<Served>> = callers.into_iter().map(|caller| caller.join().expect("an answer")).collect();
    assert!(all.iter().all(|served| Arc::ptr_eq(served, &all[0])), "it was read once");
    predict(&all[0]);
    assert!(find(&repository, "b").is_none(), "nobody needs it");
    assert!(wake(&repository, "nobody").is_err_and(|refusal| refusal.reason == Reason::NotFound));
}

#[test]
fn the_longest_unused_goes_to_sleep() {
    let root = root(&["a", "b", "c"]);
    let lazy = Lazy { models_max: Some(2), ..Lazy::default() };
    let repository = Repository::open(&config(root.path(), lazy)).expect("a repository");
    for name in ["a", "b"] {
        wake(&repository, name).expect("loaded");
    }
    let held = find(&repository, "b").expect("there");
    predict(&find(&repository, "a").expect("there"));
    wake(&repository, "c").expect("loaded");
    assert!(find(&repository, "a").is_some() && find(&repository, "c").is_some());
    assert!(find(&repository, "b").is_none());
    // Whoever had found it goes on.
    predict(&held);
    wake(&repository, "b").expect("loaded again");
    assert!(find(&repository, "a").is_none(), "c was asked for after it");
    assert!(!Arc::ptr_eq(&held, &find(&repository, "b").expect("there")));
}

#[test]
fn bytes_are_bounded_and_what_alone_is_too_large_is_refused() {
    let root = root(&["a", "b", "c"]);
    let open = |bytes_max| {
        let lazy = Lazy { bytes_max: Some(bytes_max), models_max: None };
        Repository::open(&config(root.path(), lazy)).expect("a repository")
    };
    let repository = open(u64::MAX);
    wake(&repository, "a").expect("loaded");
    let bytes = find(&repository, "a").expect("there").about.bytes;
    let repository = open(2 * bytes);
    for name in ["a", "b", "c"] {
        wake(&repository, name).expect("loaded");
    }
    let there = ["a", "b", "c"].map(|name| find(&repository, name).is_some());
    assert_eq!(there, [false, true, true]);
    let refusal = wake(&open(bytes - 1), "a").expect_err("too large");
    assert_eq!(refusal.reason, Reason::NotReady);
    assert!(refusal.text.contains("bytes of memory"), "{refusal}");
}

#[test]
fn a_model_that_cannot_be_loaded_is_tried_again_when_it_is_needed() {
    let root = root(&["a"]);
    let file = root.path().join("a/1/model.joblib");
    std::fs::write(&file, "no model").expect("written");
    std::fs::create_dir(root.path().join("empty")).expect("made");
    let mut config = config(root.path(), Lazy::default());
    config.loading.retry_wait = Duration::from_millis(10);
    let repository = Repository::open(&config).expect("a repository");
    let refusal = wake(&repository, "a").expect_err("no model");
    assert_eq!(refusal.reason, Reason::NotReady);
    std::fs::copy(fixture("forest_classifier"), &file).expect("copied");
    until("the end of the refusal", || {
        matches!(repository.find("a", Which::Default), Err(NotServed::Asleep(_)))
    });
    wake(&repository, "a").expect("mended");
    predict(&find(&repository, "a").expect("there"));
    let refusal = wake(&repository, "empty").expect_err("no version");
    assert!(refusal.text.contains("no version"), "{refusal}");
    assert!(find(&repository, "empty").is_none());
}

/// Keeps every load waiting until the other end of its channel is dropped.
#[derive(Debug)]
struct Gate(Mutex<mpsc::Receiver<()>>);

impl Engines for Gate {
    fn load(&self, _: &Wanted<'_>) -> Option<Result<Hosted, String>> {
        None
    }

    fn comes_first(&self, _: &Wanted<'_>) -> bool {
        let _ = self.0.lock().expect("no panic").recv();
        false
    }
}

#[test]
fn a_call_waits_no_longer_than_its_deadline() {
    let root = root(&["a"]);
    let (closed, gate) = mpsc::channel();
    let engines: Vec<Arc<dyn Engines>> = vec![Arc::new(Gate(Mutex::new(gate)))];
    let config = Config { engines, ..config(root.path(), Lazy::default()) };
    let repository = Repository::open(&config).expect("a repository");
    let refusal = block(repository.wake("a", Some(Duration::ZERO))).expect_err("no time");
    assert_eq!(refusal.reason, Reason::Deadline);
    drop(closed);
    wake(&repository, "a").expect("the load went on");
}

#[test]
fn a_call_that_unloads_is_not_undone_by_one_that_predicts() {
    let root = root(&["a"]);
    let repository = Repository::open(&config(root.path(), Lazy::default())).expect("a repository");
    wake(&repository, "a").expect("loaded");
    block(repository.unload("a")).expect("unloaded");
    assert!(matches!(repository.find("a", Which::Default), Err(NotServed::NotReady { .. })));
    block(repository.load("a")).expect("loaded");
    assert!(find(&repository, "a").is_some());
}

#[test]
fn calls_are_answered_while_models_come_and_go() {
    let names = ["a", "b", "c", "d", "e"];
    let root = root(&names);
    let lazy = Lazy { models_max: Some(3), ..Lazy::default() };
    let repository = Repository::open(&config(root.path(), lazy)).expect("a repository");
    std::thread::scope(|scope| {
        for first in 0..2 {
            let repository = &repository;
            scope.spawn(move || {
                for turn in 0..100 {
                    let name = names[(first + turn * 2) % names.len()];
                    // Between its load and its call a model may go again.
                    let served = (0..100).find_map(|_| {
                        find(repository, name).or_else(|| {
                            wake(repository, name).expect("loaded");
                            find(repository, name)
                        })
                    });
                    predict(&served.expect("it comes"));
                }
            });
        }
    });
}

#[test]
fn over_http_a_sleeping_model_is_ready_and_its_first_call_loads_it() {
    let running = Running::with("forest_classifier", |config| config.loading.lazy = Some(Lazy::default()));
    assert_eq!(running.ask("GET", "/v2/health/ready", "").0, 200);
    assert_eq!(
        running.ask("GET", "/v2/models/iris/ready", ""),
        (200, r#"{"name":"iris","ready":true}"#.into())
    );
    assert_eq!(running.ask("GET", "/v1/models/iris", "").0, 200);
    let (_, index) = running.ask("POST", "/v2/repository/index", "");
    assert!(index.contains(r#""state":"UNAVAILABLE","reason":"not loaded"#), "{index}");
    let row = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
    assert_eq!(running.predict(row), (200, r#"{"predictions":[0]}"#.into()));
    let (_, index) = running.ask("POST", "/v2/repository/index", "");
    assert!(index.contains(r#""state":"READY""#), "{index}");
    let (_, text) = running.ask("GET", "/metrics", "");
    for line in ["loads_total 1", "load_failures_total 0", "evictions_total 0", "awake 1"] {
        assert!(text.contains(&format!("\nslipway_serve_lazy_{line}\n")), "{line} in {text}");
    }
    let other = Running::like("forest_classifier", Personality::TfServing, |config| {
        config.loading.lazy = Some(Lazy::default());
    });
    assert!(other.ask("GET", "/v1/models/iris", "").1.contains("START"));
    assert!(other.ask("GET", "/v1/models/iris/metadata", "").1.contains("signature_def"), "metadata load it");
    assert!(other.ask("GET", "/v1/models/iris", "").1.contains("AVAILABLE"));
}

#[test]
fn models_that_come_and_go_are_counted() {
    let root = root(&["a", "b"]);
    std::fs::create_dir_all(root.path().join("c/1")).expect("made");
    std::fs::write(root.path().join("c/1/model.joblib"), "no model").expect("written");
    let running = Running::with("forest_classifier", |own| {
        *own = config(root.path(), Lazy { models_max: Some(1), ..Lazy::default() });
        own.http = ([127, 0, 0, 1], 0).into();
        own.workers = Some(1);
    });
    let ask = |name: &str| {
        running.ask("POST", &format!("/v1/models/{name}:predict"), r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#).0
    };
    assert_eq!([ask("a"), ask("b"), ask("b"), ask("a")], [200; 4]);
    assert_eq!(ask("c"), 503);
    until("the counts", || {
        let (_, text) = running.ask("GET", "/metrics", "");
        // Whoever wakes a model that cannot be loaded sends another one to sleep.
        ["loads_total 4", "evictions_total 3", "load_failures_total 0", "awake 1"]
            .iter()
            .all(|line| text.contains(&format!("\nslipway_serve_lazy_{line}\n")))
    });
}
