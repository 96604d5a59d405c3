//! Answers that are kept: for the same call, of the same version, and never a failure.

mod support;

use infer::Personality;
use support::{Running, fixture};

const ROW: &str = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;

/// Hits and misses, as the metrics tell them.
fn counts(running: &Running) -> (u64, u64) {
    let (_, text) = running.ask("GET", "/metrics", "");
    let count = |name: &str| {
        let start = format!("nv_cache_num_{name}_per_model{{model=\"iris\",version=\"1\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).expect("the metric");
        line.parse().expect("a number")
    };
    (count("hits"), count("misses"))
}

#[test]
fn the_same_call_is_answered_once_by_the_model_whatever_its_protocol() {
    let running = Running::with("forest_classifier", |config| config.cache.by_default = true);
    assert_eq!(counts(&running), (0, 0));
    for _ in 0..3 {
        assert_eq!(running.predict(ROW), (200, r#"{"predictions":[0]}"#.into()));
    }
    assert_eq!(counts(&running), (2, 1));
    let v2 = r#"{"inputs":[{"name":"input-0","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}"#;
    let (status, body) = running.ask("POST", "/v2/models/iris/infer", v2);
    assert!(status == 200 && body.contains(r#""data":[0]"#), "{body}");
    assert_eq!(counts(&running), (3, 1), "the same tensors by another way");
    for other in
        [r#"{"instances":[[5.1,3.5,1.4,0.3]]}"#, r#"{"instances":[[5.1,3.5,1.4,0.2],[5.1,3.5,1.4,0.2]]}"#]
    {
        assert_eq!(running.predict(other).0, 200);
    }
    assert_eq!(counts(&running), (3, 3));
}

#[test]
fn large_calls_are_kept_too() {
    let running = Running::with("forest_classifier", |config| config.cache.by_default = true);
    let rows = vec!["[5.1,3.5,1.4,0.2]"; 10_000].join(",");
    let body = format!("{{\"instances\":[{rows}]}}");
    let first = running.predict(&body);
    assert_eq!(first.0, 200);
    assert_eq!(running.predict(&body), first);
    assert_eq!(counts(&running), (1, 1));
}

#[test]
fn failures_are_not_kept_and_a_new_version_begins_anew() {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(root.path().join("iris/1")).expect("made");
    let file = root.path().join("iris/1/model.joblib");
    std::fs::copy(fixture("forest_classifier"), &file).expect("copied");
    std::fs::write(root.path().join("iris/config.pbtxt"), "response_cache { enable: true }")
        .expect("written");
    let running = Running::with("forest_classifier", |config| {
        let personality = Personality::Triton;
        let path = root.path().to_owned();
        config.models = infer::config::Source::Folder { path, personality, only: None };
        config.open_repository = true;
    });
    let row = r#"{"inputs":[{"name":"input-0","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}"#;
    let infer = |body: &str| running.ask("POST", "/v2/models/iris/infer", body).0;
    let text = r#"{"inputs":[{"name":"input-0","shape":[1,3],"datatype":"FP64","data":[5.1,3.5,1.4]}]}"#;
    assert_eq!([infer(row), infer(row), infer(text), infer(text)], [200, 200, 400, 400]);
    assert_eq!(counts(&running), (1, 1));
    assert_eq!(running.ask("POST", "/v2/repository/models/iris/unload", "").0, 200);
    assert_eq!(running.ask("POST", "/v2/repository/models/iris/load", "").0, 200);
    assert_eq!(infer(row), 200);
    assert_eq!(counts(&running), (0, 1));
}

#[test]
fn the_cache_shows_under_tritons_names_and_ours_without_more_labels_than_are_allowed() {
    let running = Running::with("forest_classifier", |config| config.cache.by_default = true);
    assert_eq!([running.predict(ROW).0, running.predict(ROW).0], [200; 2]);
    let (_, text) = running.ask("GET", "/metrics", "");
    for line in [
        "slipway_serve_cache_hits_total{model=\"iris\",version=\"1\"} 1",
        "slipway_serve_cache_misses_total{model=\"iris\",version=\"1\"} 1",
        "nv_cache_num_entries 1",
        "nv_cache_num_evictions 0",
        "slipway_serve_cache_evictions_total 0",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} in {text}");
    }
    let took = text.lines().find_map(|line| line.strip_prefix("nv_cache_miss_duration_per_model{"));
    assert!(took.is_some(), "{text}");
    let running = Running::with("forest_classifier", |config| {
        config.cache.by_default = true;
        config.observing.models_max = 1;
        let infer::config::Source::Fixed(models) = &mut config.models else { panic!("one model") };
        models.push(infer::config::Model::new("rose", fixture("forest_classifier")));
    });
    let (_, text) = running.ask("GET", "/metrics", "");
    let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(of("nv_cache_num_hits_per_model{"), 1, "{text}");
}
