//! Python behind the model server, over HTTP: models that only Python reads, classes of an operator's own, and what a
//! hostile one can and cannot do.
//!
//! The Python is the one that `make deps` installs; without it (and without CI) these tests are skipped.
//!
//! Not here: engines in Rust (`engine.rs`), torch (`conformance/serving`).

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backend_host::Python;
use infer::Method;
use infer::config::{Model, Source};
use models::{Engines, Wanted};
use serde_json::{Value, json};
use support::{Running, class, made, python};

fn estimator(name: &str) -> Model {
    Model::new(name, made().join(name))
}

#[test]
fn an_estimator_that_nobody_reads_natively_is_answered_by_python() {
    let Some(python) = python() else { return };
    let expected = support::expected(made());
    let rows = &expected["rows"];
    let server = Running::start(vec![estimator("process"), estimator("nearest")], Some(python));
    let body = json!({ "instances": rows }).to_string();
    for name in ["process", "nearest"] {
        let (status, answer) = server.predict(name, &body);
        assert_eq!((status, &answer["predictions"]), (200, &expected[name]), "{name}: {answer}");
    }
    let flat: Vec<f64> = rows
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|row| row.as_array().unwrap())
        .map(|x| x.as_f64().unwrap())
        .collect();
    let v2 = json!({"inputs": [{"name": "input-0", "datatype": "FP64", "shape": [3, 4], "data": flat}]});
    let (status, answer) = server.ask("POST", "/v2/models/nearest/infer", &v2.to_string());
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &expected["nearest"]), "{answer}");
    let (_, about) = server.ask("GET", "/v2/models/nearest", "");
    assert_eq!(
        about["outputs"],
        json!([{"name": "output-0", "datatype": "BYTES", "shape": [-1]}]),
        "{about}"
    );
    for (body, status, word) in [
        (r#"{"instances":[[1,2,3]]}"#, 400, "expected 4"),
        (r#"{"instances":[["a","b","c","d"]]}"#, 400, "a string where a number"),
        (r#"{"instances":[[1,2,3,NaN]]}"#, 400, "NaN"),
    ] {
        let (got, answer) = server.predict("nearest", body);
        assert_eq!(got, status, "{answer}");
        assert!(answer.to_string().contains(word), "{answer}");
    }
}

#[test]
fn an_estimator_holds_the_contract_of_backends() {
    let Some(python) = python() else { return };
    let path = made().join("nearest");
    for method in [Method::Predict, Method::Probabilities] {
        let wanted = Wanted { name: "nearest", path: &path, file: None, method, class: None, refusal: None };
        let hosted = python.load(&wanted).expect("for Python").expect("it is read");
        let rows = [vec![5.1, 3.5, 1.4, 0.2], vec![6.7, 3.0, 5.2, 2.3], vec![6.0, 2.2, 4.0, 1.0]];
        models::contract::check_backend(&*hosted.backend, &rows);
        assert!(hosted.backend.row_cost_ns() > 0);
    }
}

#[test]
fn without_leave_a_model_of_python_is_refused_by_name_and_flag() {
    if python().is_none() {
        return;
    }
    for (model, word) in [
        (estimator("process"), "GaussianProcessClassifier"),
        (estimator("nearest"), "cloudpickle"),
        (class("doubler", "models:Doubler"), "models:Doubler"),
    ] {
        let error = support::start(vec![model], None).err().expect("refused").to_string();
        assert!(error.contains(word), "{error}");
        assert!(error.contains("--allow_python"), "{error}");
    }
}

#[test]
fn a_class_like_kserves_model_gets_the_document_and_its_answer_is_the_reply() {
    let Some(python) = python() else { return };
    let server = Running::start(vec![class("doubler", "models:Doubler")], Some(python));
    let (status, answer) = server.predict("doubler", r#"{"instances":[[1,2],[3,4]],"more":"x"}"#);
    assert_eq!((status, answer), (200, json!({"predictions": [[2, 4], [6, 8]], "by": "doubler"})));
    let (status, answer) = server.predict("doubler", r#"{"rows":[]}"#);
    assert_eq!(status, 400, "its own word for bad input: {answer}");
    assert!(answer.to_string().contains("expected instances"), "{answer}");
    assert_eq!(server.predict("doubler", "{").0, 400);
    let v2 = r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[2,2],"data":[1,2,3,4]}]}"#;
    let (status, answer) = server.ask("POST", "/v2/models/doubler/infer", v2);
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([2.0, 4.0, 6.0, 8.0])), "{answer}");
}

#[test]
fn a_class_like_mlservers_model_is_found_by_its_settings() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    support::copy_classes(folder.path());
    let settings = r#"{"name":"totals","implementation":"models.Totals","parameters":{"extra":{"offset":100}},
        "inputs":[{"name":"table","datatype":"FP64","shape":[-1,2]}]}"#;
    std::fs::write(folder.path().join("model-settings.json"), settings).expect("written");
    let source = Source::Folder {
        path: folder.path().to_owned(),
        personality: infer::Personality::MlServer,
        only: None,
    };
    let server = Running::of(source, Some(python));
    let v2 = r#"{"inputs":[{"name":"table","datatype":"FP64","shape":[2,2],"data":[1,2,3,4]}]}"#;
    let (status, answer) = server.ask("POST", "/v2/models/totals/infer", v2);
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([103.0, 107.0])), "{answer}");
}

#[test]
fn an_mlflow_pyfunc_is_answered_by_python() {
    let Some(python) = python() else { return };
    let folder = support::made_with_mlflow();
    let expected = &support::expected(folder)["pyfunc"];
    let server = Running::start(vec![Model::new("pyfunc", folder.join("pyfunc"))], Some(python));
    let (status, answer) = server.predict("pyfunc", r#"{"instances":[[5.1,3.5],[6.0,3.0]]}"#);
    assert_eq!((status, &answer["predictions"]), (200, expected), "{answer}");
    let by_name = r#"{"instances":[{"width":3.5,"length":5.1}]}"#;
    let (status, answer) = server.predict("pyfunc", by_name);
    assert_eq!((status, &answer["predictions"][0]), (200, &expected[0]), "{answer}");
}

fn hostile(change: impl FnOnce(&mut Python)) -> Option<Running> {
    let mut python = python()?;
    change(&mut python);
    Some(Running::start(vec![class("hostile", "models:Hostile"), support::native()], Some(python)))
}

fn does(server: &Running, what: u32) -> (u16, Value) {
    server.predict("hostile", &format!(r#"{{"instances":[[{what}]]}}"#))
}

/// Calls until the worker is back; the bound is a guard against hanging.
fn comes_back(server: &Running) {
    let start = Instant::now();
    loop {
        match does(server, 0) {
            (200, _) => return,
            (503, _) if start.elapsed() < Duration::from_secs(60) => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_worker_that_crashes_costs_its_own_call_and_comes_back() {
    let Some(server) = hostile(|_| {}) else { return };
    for (what, signal) in [(2, "os._exit"), (3, "SIGSEGV")] {
        let (status, answer) = does(&server, what);
        assert_eq!(status, 503, "{signal}: {answer}");
        assert!(answer.to_string().contains("ended during the call"), "{answer}");
        assert_eq!(server.predict("native", support::ROW).0, 200, "others are unharmed");
        comes_back(&server);
    }
    let (status, answer) = does(&server, 6);
    assert_eq!((status, answer), (500, json!({"error": "RuntimeError: not today"})));
    assert_eq!(does(&server, 0).0, 200, "an exception ends nothing");
    let counts = counts(&server);
    assert_eq!(counts("slipway_serve_worker_crashes_total"), 2);
    assert_eq!(counts("slipway_serve_worker_restarts_total"), 2);
}

#[test]
fn a_worker_that_hangs_is_ended_at_its_deadline_and_nobody_else_waits() {
    let Some(server) = hostile(|python| python.call_timeout = Duration::from_secs(2)) else { return };
    let server = Arc::new(server);
    let (begun, hangs) = std::sync::mpsc::channel();
    // More calls than the machine has CPUs: none of them may hold a thread that the other model needs.
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (server, begun) = (server.clone(), begun.clone());
            std::thread::spawn(move || {
                begun.send(()).expect("somebody waits");
                does(&server, 1).0
            })
        })
        .collect();
    hangs.iter().take(8).for_each(drop);
    let large = support::many_rows();
    let native: Vec<u16> = (0..50).map(|_| server.predict("native", &large).0).collect();
    assert_eq!(native, [200; 50]);
    let mut statuses: Vec<u16> = calls.into_iter().map(|call| call.join().expect("answered")).collect();
    statuses.sort_unstable();
    assert!(statuses.iter().all(|status| matches!(status, 503 | 504)), "{statuses:?}");
    assert!(statuses.contains(&504), "{statuses:?}");
    comes_back(&server);
    let counts = counts(&server);
    assert_eq!(counts("slipway_serve_workers"), 1);
    assert!(counts("slipway_serve_worker_timeouts_total") >= 1);
    assert!(counts("slipway_serve_worker_restarts_total") >= counts("slipway_serve_worker_timeouts_total"));
}

/// What the metrics tell of the hostile model.
fn counts(server: &Running) -> impl Fn(&str) -> u64 + use<> {
    let (_, text) = server.ask("GET", "/metrics", "");
    let text = text.as_str().expect("text").to_owned();
    move |name| {
        let start = format!("{name}{{model=\"hostile\",version=\"1\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    }
}

#[test]
fn a_worker_that_floods_its_log_costs_no_memory() {
    let Some(server) = hostile(|_| {}) else { return };
    let before = support::resident_bytes();
    // 50 MB of lines that are longer than lines may be.
    assert_eq!(does(&server, 4).0, 200);
    let grown = support::resident_bytes().saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes");
    assert!(counts(&server)("slipway_serve_worker_lines_dropped_total") > 0);
}

#[test]
fn answers_that_do_not_fit_are_the_models_fault() {
    let Some(server) = hostile(|python| python.memory_bytes_max = 1 << 20) else { return };
    let v2 = |what: u32| {
        let body =
            format!(r#"{{"inputs":[{{"name":"x","datatype":"FP64","shape":[1,1],"data":[{what}]}}]}}"#);
        server.ask("POST", "/v2/models/hostile/infer", &body)
    };
    let (status, answer) = v2(5);
    assert_eq!(status, 500, "three rows for one: {answer}");
    assert!(answer.to_string().contains("[3, 1] for 1 rows"), "{answer}");
    let (status, answer) = v2(7);
    assert_eq!(status, 500, "64 MB of outputs: {answer}");
    assert!(answer.to_string().contains("1048576 bytes"), "{answer}");
    let (status, answer) =
        server.predict("hostile", &format!(r#"{{"instances":[["{}"]]}}"#, "x".repeat(2 << 20)));
    assert_eq!(status, 400, "2 MB of inputs: {answer}");
    assert_eq!(v2(0).0, 200);
}

#[test]
fn a_worker_gets_its_lane_and_no_more() {
    let Some(server) = hostile(|python| python.env.push(("OWN".into(), "1".into()))) else { return };
    let (status, seen) = does(&server, 8);
    assert_eq!(status, 200, "{seen}");
    let env: Vec<&str> = seen["env"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(env.contains(&"PATH") && env.contains(&"OWN"), "{env:?}");
    assert!(!env.iter().any(|name| name.starts_with("CARGO")), "the server's own variables: {env:?}");
    let sockets = |name: &&Value| name.as_str().is_some_and(|name| name.starts_with("socket:"));
    let fds: Vec<&Value> = seen["fds"].as_array().into_iter().flatten().collect();
    // The lane's and the two of its event loop's wake-up; the server's listeners and connections are not among them.
    assert_eq!(fds.iter().copied().filter(|fd| sockets(fd)).count(), 3, "{fds:?}");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    assert!(!maps.contains("libpython") && !maps.contains("slipway-lane"), "the server maps neither");
    let worker = std::fs::read_to_string(format!("/proc/{}/maps", seen["pid"])).expect("maps");
    assert!(worker.contains("python"), "the worker does");
}

#[test]
fn several_workers_work_at_the_same_time() {
    let Some(server) = hostile(|python| python.workers = 2) else { return };
    let server = Arc::new(server);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let server = server.clone();
            std::thread::spawn(move || {
                does(&server, 10);
                does(&server, 8).1["pid"].as_u64().expect("a process")
            })
        })
        .collect();
    let mut pids: Vec<u64> = calls.into_iter().map(|call| call.join().expect("answered")).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 2, "{pids:?}");
}
