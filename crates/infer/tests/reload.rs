//! Versions that come, go and fail while requests run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use infer::Config;
use infer::config::{Model, Source, VersionPolicy};
use infer::evaluate::{Call, run_here};
use infer::repository::{NotServed, Repository, State, Which};
use models::{Outputs, Tensor};

const POLL: Duration = Duration::from_millis(10);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/1.9.1").join(format!("{name}.model"))
}

/// A folder of versions on disk.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds a version as a careful writer does: whole, by a rename.
    fn add(&self, version: &str, model: &str) {
        let aside = self.path().join(format!("tmp-{version}"));
        std::fs::create_dir(&aside).expect("made");
        std::fs::copy(fixture(model), aside.join("model.joblib")).expect("copied");
        std::fs::rename(aside, self.path().join(version)).expect("renamed");
    }

    fn add_broken(&self, version: &str) {
        std::fs::create_dir(self.path().join(version)).expect("made");
        std::fs::write(self.path().join(version).join("model.joblib"), b"no model").expect("written");
    }

    fn remove(&self, version: &str) {
        std::fs::remove_dir_all(self.path().join(version)).expect("removed");
    }

    fn open(&self, change: impl FnOnce(&mut Model)) -> Repository {
        let mut model = Model::new("m", self.path());
        change(&mut model);
        open(vec![model])
    }
}

fn open(models: Vec<Model>) -> Repository {
    let mut config = Config::of(Source::Fixed(models));
    config.loading.poll = Some(POLL);
    Repository::open(&config).expect("a repository")
}

/// Looks until it holds; the bound is for a broken server only.
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn version(repository: &Repository) -> Option<u64> {
    repository.find("m", Which::Default).ok().and_then(|served| served.version)
}

fn states(repository: &Repository) -> Vec<(u64, State)> {
    let status = repository.status("m").expect("known");
    status.versions.iter().map(|version| (version.version.unwrap_or(1), version.state)).collect()
}

fn predict(repository: &Repository, which: Which<'_>) -> Result<String, NotServed> {
    let served = repository.find("m", which)?;
    let row = [5.1, 3.5, 1.4, 0.2];
    let inputs = [Tensor::borrowed(&row, &[1, 4]).expect("a row")];
    let mut outputs = Outputs::new();
    let call = Call { served: &served, rows: 1, inputs: &inputs, priority: 0, deadline: None };
    run_here(call, &mut outputs).expect("an answer");
    let answer = &outputs.tensors()[0];
    Ok(answer
        .texts()
        .flatten()
        .map(str::to_owned)
        .chain(answer.to_f64s().map(|n| format!("{n:?}")))
        .collect())
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn versions_answer_side_by_side_and_by_label() {
    let folder = Folder::new();
    folder.add("1", "forest_classifier");
    folder.add("2", "forest_classifier_names");
    let repository = folder.open(|model| {
        model.policy = VersionPolicy::Latest(2);
        model.labels = [("stable".to_owned(), 1)].into();
    });
    assert_eq!(states(&repository), [(1, State::Available), (2, State::Available)]);
    assert_eq!(predict(&repository, Which::Default).as_deref(), Ok("setosa"));
    assert_eq!(predict(&repository, Which::Version(1)).as_deref(), Ok("[0.0]"));
    assert_eq!(predict(&repository, Which::Label("stable")).as_deref(), Ok("[0.0]"));
    assert_eq!(predict(&repository, Which::Version(3)), Err(NotServed::Version("m".into(), 3)));
    assert_eq!(
        predict(&repository, Which::Label("canary")),
        Err(NotServed::Label("m".into(), "canary".into()))
    );
}

#[test]
fn no_request_fails_while_versions_are_swapped() {
    let folder = Folder::new();
    folder.add("1", "forest_classifier");
    let repository = folder.open(|_| {});
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let hammers: Vec<_> = (0..2)
        .map(|_| {
            let (repository, stop, count) = (repository.clone(), stop.clone(), count.clone());
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    let answer = predict(&repository, Which::Default).expect("always an answer");
                    assert!(["[0.0]", "setosa"].contains(&answer.as_str()), "{answer}");
                    count.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for round in 2..12_u64 {
        let name = if round % 2 == 0 { "forest_classifier_names" } else { "forest_classifier" };
        folder.add(&round.to_string(), name);
        until("the new version", || version(&repository) == Some(round));
        folder.remove(&(round - 1).to_string());
    }
    stop.store(true, Relaxed);
    for hammer in hammers {
        hammer.join().expect("no request failed");
    }
    assert!(count.load(Relaxed) > 0);
    until("the end of the others", || {
        states(&repository)
            .iter()
            .all(|(version, state)| *state == if *version == 11 { State::Available } else { State::End })
    });
}

#[test]
fn the_last_good_version_answers_when_a_new_one_cannot_be_read() {
    let folder = Folder::new();
    folder.add("1", "forest_classifier");
    let repository = folder.open(|_| {});
    folder.add_broken("2");
    until("the failure", || states(&repository) == [(1, State::Available), (2, State::End)]);
    assert_eq!(version(&repository), Some(1));
    assert!(repository.status("m").is_some_and(|status| status.versions[1].error.is_some()));
    // Its files are mended: it is read without being asked for.
    folder.remove("2");
    folder.add("2", "forest_classifier_names");
    until("the mended version", || version(&repository) == Some(2));
    until("the end of the old", || states(&repository)[0] == (1, State::End));
}

#[test]
fn a_plain_folder_is_version_one_and_is_replaced_in_place() {
    let folder = Folder::new();
    std::fs::copy(fixture("forest_classifier"), folder.path().join("model.joblib")).expect("copied");
    let repository = folder.open(|_| {});
    assert_eq!(predict(&repository, Which::Version(1)).as_deref(), Ok("[0.0]"));
    std::fs::write(folder.path().join("model.joblib"), b"half of a model").expect("written");
    block(repository.load("m")).expect_err("it cannot be read");
    assert_eq!(predict(&repository, Which::Default).as_deref(), Ok("[0.0]"));
    let aside = folder.path().with_extension("new");
    std::fs::copy(fixture("forest_classifier_names"), &aside).expect("copied");
    std::fs::rename(aside, folder.path().join("model.joblib")).expect("renamed");
    until("the new model", || predict(&repository, Which::Default).as_deref() == Ok("setosa"));
}

#[test]
fn a_request_keeps_the_version_it_found() {
    let folder = Folder::new();
    folder.add("1", "forest_classifier");
    let repository = folder.open(|_| {});
    let held = repository.find("m", Which::Default).expect("served");
    block(repository.unload("m")).expect("unloaded");
    assert!(matches!(predict(&repository, Which::Default), Err(NotServed::NotReady { .. })));
    assert_eq!(states(&repository), [(1, State::Unloading)]);
    assert!(repository.is_ready(), "what was unloaded on purpose is not missed");
    assert_eq!(held.backend.signature().inputs.len(), 1);
    drop(held);
    until("the end", || states(&repository) == [(1, State::End)]);
    block(repository.load("m")).expect("loaded");
    assert_eq!(predict(&repository, Which::Default).as_deref(), Ok("[0.0]"));
}

#[test]
fn a_reload_replaces_the_whole_list_and_says_what_failed() {
    let (one, other) = (Folder::new(), Folder::new());
    one.add("1", "forest_classifier");
    other.add("1", "forest_classifier_names");
    let repository = open(vec![Model::new("m", one.path())]);
    block(repository.reload(vec![Model::new("n", other.path())])).expect("reloaded");
    assert!(repository.find("n", Which::Default).is_ok());
    until("the end of m", || repository.status("m").is_none());
    other.add_broken("2");
    let mut wanting = Model::new("n", other.path());
    wanting.labels = [("stable".to_owned(), 7)].into();
    let error = block(repository.reload(vec![wanting])).expect_err("version 2 cannot be read");
    assert_eq!(error.reason, infer::Reason::NotReady);
    other.remove("2");
    let mut labelled = Model::new("n", other.path());
    labelled.labels = [("stable".to_owned(), 7)].into();
    let error = block(repository.reload(vec![labelled])).expect_err("no version 7");
    assert!(error.text.contains("stable"), "{error}");
    assert!(block(repository.load("nobody")).is_err_and(|error| error.reason == infer::Reason::NotFound));
    assert!(repository.find("n", Which::Default).is_ok());
}

#[test]
fn a_list_that_changes_is_followed_and_a_broken_one_changes_nothing() {
    let (one, other) = (Folder::new(), Folder::new());
    one.add("1", "forest_classifier");
    other.add("1", "forest_classifier_names");
    let list = one.path().with_extension("conf");
    // As a whole: a list that is seen between its truncation and its writing is an empty one.
    let replace = |text: &str| {
        let new = list.with_extension("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, &list).expect("renamed");
    };
    let write = |models: &[(&str, &Path)]| {
        let line = |(name, path): &(&str, &Path)| {
            format!("config {{ name: '{name}' base_path: '{}' }}", path.display())
        };
        let lines: Vec<String> = models.iter().map(line).collect();
        replace(&format!("model_config_list {{ {} }}", lines.join("\n")));
    };
    write(&[("m", one.path())]);
    let mut config = Config::of(Source::File { path: list.clone(), poll: Some(POLL) });
    config.loading.poll = Some(POLL);
    assert!(infer::config::check(&config).expect("in order").contains("model m"));
    let repository = Repository::open(&config).expect("a repository");
    write(&[("m", other.path()), ("n", other.path())]);
    until("the new model", || repository.find("n", Which::Default).is_ok());
    until("the folder's change", || predict(&repository, Which::Default).as_deref() == Ok("setosa"));
    replace("model_config_list { config {");
    block(repository.load("m")).expect("still known");
    assert!(infer::config::check(&config).is_err());
    write(&[("m", one.path())]);
    until("the end of n", || repository.status("n").is_none());
    until("the first folder", || predict(&repository, Which::Default).as_deref() == Ok("[0.0]"));
    std::fs::remove_file(&list).expect("removed");
}

#[test]
fn a_folder_of_models_loads_what_it_is_told_to() {
    let root = Folder::new();
    for name in ["m", "n"] {
        std::fs::create_dir_all(root.path().join(name).join("1")).expect("made");
        std::fs::copy(fixture("forest_classifier"), root.path().join(name).join("1/model.joblib"))
            .expect("copied");
    }
    std::fs::write(root.path().join("m/config.pbtxt"), "max_batch_size: 4").expect("written");
    let personality = infer::Personality::Triton;
    let only = Some(vec!["m".to_owned()]);
    let source = Source::Folder { path: root.path().to_owned(), personality, only };
    let repository = Repository::open(&Config::of(source)).expect("a repository");
    assert!(repository.is_ready());
    assert!(repository.find("m", Which::Version(1)).is_ok());
    assert!(matches!(repository.find("n", Which::Default), Err(NotServed::NotReady { .. })));
    block(repository.load("n")).expect("loaded");
    assert!(repository.find("n", Which::Default).is_ok());
    // A model that comes later is found by the call that names it.
    std::fs::create_dir_all(root.path().join("o")).expect("made");
    std::fs::copy(fixture("forest_classifier"), root.path().join("o/model.joblib")).expect("copied");
    block(repository.load("o")).expect("loaded");
    assert!(repository.find("o", Which::Default).is_ok());
}
