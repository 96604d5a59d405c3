//! What a server tells besides its answers: to its log, to a collector of traces, to a log of payloads, to its admin.

mod support;

use codecs::wire::{Fields, Value};
use infer::Config;
use infer::config::observing::{PayloadMode, Payloads, Sampler, Shadow, Target, Traces};
use infer::config::{Model, Source};
use serde_json::Value as Json;
use support::collector::{Came, Collector};
use support::{Running, fixture};

const ROW: &str = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
const BAD: &str = r#"{"instances":[[5.1]]}"#;
const PREDICT: &str = "/v1/models/iris:predict";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn with_admin(change: impl FnOnce(&mut Config)) -> Running {
    Running::with("forest_classifier", |config| {
        config.admin = Some(([127, 0, 0, 1], 0).into());
        change(config);
    })
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_access_log_has_a_line_for_each_call_of_the_sample() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let server = Running::with("forest_classifier", |config| {
        config.observing.access = Some((Target::File(path.clone()), 1.0));
    });
    assert_eq!(server.predict(ROW).0, 200);
    assert_eq!(server.predict(BAD).0, 400);
    drop(server);
    let text = std::fs::read_to_string(&path).expect("a log");
    let lines: Vec<Json> = text.lines().map(json).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        (&lines[0]["model"], &lines[0]["status"], &lines[0]["rows"]),
        (&"iris".into(), &200.into(), &1.into())
    );
    assert_eq!((&lines[0]["api"], &lines[0]["request_bytes"]), (&"Predict".into(), &ROW.len().into()));
    assert!(lines[0]["predict_ms"].as_f64().is_some_and(|time| time > 0.0), "{text}");
    assert_eq!((&lines[1]["reason"], &lines[1]["status"]), (&"input".into(), &400.into()));
}

fn traces(url: &str, is_json: bool) -> Option<Traces> {
    Some(Traces {
        url: format!("{url}/v1/traces"),
        is_json,
        headers: vec![("api-key".to_owned(), "secret".to_owned())],
        resource: vec![("service.name".to_owned(), "iris-server".to_owned())],
        delay: std::time::Duration::ZERO,
    })
}

fn traced(is_json: bool) -> Came {
    let collector = Collector::start();
    let server = Running::with("forest_classifier", |config| {
        config.observing.traces = traces(&collector.url, is_json);
        config.observing.sampler = Sampler { parent_based: true, ratio: 0.0 };
    });
    let parent = |flags: &str| format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-{flags}\r\n");
    assert_eq!(server.send(PREDICT, &parent("00"), ROW.as_bytes()).0, 200);
    assert_eq!(server.send(PREDICT, "", ROW.as_bytes()).0, 200);
    assert_eq!(server.send(PREDICT, &parent("01"), ROW.as_bytes()).0, 200);
    let came = collector.next();
    drop(server);
    assert!(collector.rest().is_empty(), "only the sampled call has spans");
    assert_eq!((came.path.as_str(), came.header("api-key")), ("/v1/traces", "secret"));
    came
}

#[test]
fn sampled_calls_become_spans_in_json() {
    let came = traced(true);
    assert_eq!(came.header("content-type"), "application/json");
    let body: Json = serde_json::from_slice(&came.body).expect("JSON");
    let resource = &body["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "iris-server");
    let spans = resource["scopeSpans"][0]["spans"].as_array().expect("spans");
    let names: Vec<&str> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
    assert_eq!(names, ["Predict iris", "parse", "predict", "write"]);
    assert_eq!(
        (&spans[0]["traceId"], &spans[0]["parentSpanId"]),
        (&TRACE.into(), &"00f067aa0ba902b7".into())
    );
    assert_eq!(spans[0]["kind"], 2);
    let time = |span: &Json, name: &str| {
        span[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a time")
    };
    for span in &spans[1..] {
        assert_eq!(span["parentSpanId"], spans[0]["spanId"]);
        assert!(time(span, "startTimeUnixNano") >= time(&spans[0], "startTimeUnixNano"));
        assert!(time(span, "endTimeUnixNano") <= time(&spans[0], "endTimeUnixNano"));
    }
}

/// The only field of this number.
fn field<'a>(message: &'a [u8], number: u32) -> Value<'a> {
    let all: Vec<Value<'a>> = Fields::of(message)
        .flatten()
        .filter(|field| field.number == number)
        .map(|field| field.value)
        .collect();
    assert_eq!(all.len(), 1, "field {number}");
    all[0]
}

fn bytes(message: &[u8], number: u32) -> &[u8] {
    match field(message, number) {
        Value::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sampled_calls_become_spans_in_protobuf() {
    let came = traced(false);
    assert_eq!(came.header("content-type"), "application/x-protobuf");
    // ExportTraceServiceRequest: resource_spans 1; in it scope_spans 2; in it spans 2.
    let resource = bytes(&came.body, 1);
    let scope = bytes(resource, 2);
    let spans = Fields::of(scope).flatten().filter(|field| field.number == 2);
    let spans: Vec<&[u8]> = spans.map(|field| field.bytes().expect("a message")).collect();
    assert_eq!(spans.len(), 4);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        (hex(bytes(spans[0], 1)).as_str(), hex(bytes(spans[0], 4)).as_str()),
        (TRACE, "00f067aa0ba902b7")
    );
    assert_eq!((bytes(spans[0], 5), field(spans[0], 6)), (&b"Predict iris"[..], Value::Varint(2)));
    assert_eq!(bytes(spans[1], 4), bytes(spans[0], 2));
    let (Value::Fixed64(start), Value::Fixed64(end)) = (field(spans[0], 7), field(spans[0], 8)) else {
        panic!("times are of fixed length")
    };
    assert!(start < end && start > 1_500_000_000_000_000_000);
    let service = bytes(bytes(resource, 1), 1);
    assert_eq!((bytes(service, 1), bytes(bytes(service, 2), 1)), (&b"service.name"[..], &b"iris-server"[..]));
}

fn payloads(url: &str, mode: PayloadMode) -> Option<Payloads> {
    Some(Payloads {
        url: url.to_owned(),
        mode,
        share: 1.0,
        workers: 5,
        source: "pod-7".to_owned(),
        inference_service: "iris".to_owned(),
        namespace: "ml".to_owned(),
        endpoint: "default".to_owned(),
        component: "predictor".to_owned(),
        metadata_headers: vec!["X-User".to_owned()],
    })
}

#[test]
fn payloads_go_out_as_the_agent_of_kserve_sends_them() {
    let collector = Collector::start();
    let server = Running::with("forest_classifier", |config| {
        config.observing.payloads = payloads(&format!("{}/log", collector.url), PayloadMode::All);
    });
    let headers = "content-type: application/json\r\nce-id: abc\r\nx-user: me\r\n";
    assert_eq!(server.send(PREDICT, headers, ROW.as_bytes()).0, 200);
    let mut came = [collector.next(), collector.next()];
    came.sort_by_key(|event| event.header("ce-type").to_owned());
    for (event, kind, body) in [(&came[0], "request", ROW), (&came[1], "response", r#"{"predictions":[0]}"#)]
    {
        assert_eq!(event.path, "/log");
        assert_eq!(event.header("ce-type"), format!("org.kubeflow.serving.inference.{kind}"));
        assert_eq!(String::from_utf8_lossy(&event.body), body);
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "abc"),
            ("ce-source", "pod-7"),
            ("ce-inferenceservicename", "iris"),
            ("ce-namespace", "ml"),
            ("ce-component", "predictor"),
            ("ce-endpoint", "default"),
            ("ce-metadata", r#"{"X-User":["me"]}"#),
            ("content-type", "application/json"),
        ] {
            assert_eq!(event.header(name), value, "{name}");
        }
        assert!(event.header("ce-time").ends_with('Z'));
    }
    // What is answered with an error has no response event; events of one call share an invented id.
    assert_eq!(server.send(PREDICT, "", BAD.as_bytes()).0, 400);
    assert_eq!(server.send(PREDICT, "", ROW.as_bytes()).0, 200);
    drop(server);
    let rest = collector.rest();
    let kinds = |wanted: &str| rest.iter().filter(|event| event.header("ce-type").ends_with(wanted)).count();
    assert_eq!((kinds("request"), kinds("response")), (2, 1));
    let response =
        rest.iter().find(|event| event.header("ce-type").ends_with("response")).expect("a response");
    let id = response.header("ce-id");
    assert!(id.len() == 36 && rest.iter().filter(|event| event.header("ce-id") == id).count() == 2, "{id}");
}

#[test]
fn a_log_that_is_not_there_costs_no_call_and_is_counted() {
    // A port that was free a moment ago, and that nobody listens on.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let server = Running::with("forest_classifier", |config| {
        config.observing.payloads = payloads(&format!("http://{gone}"), PayloadMode::Request);
        config.observing.traces = traces(&format!("http://{gone}"), false);
        config.observing.sampler = Sampler { parent_based: false, ratio: 1.0 };
    });
    for _ in 0..20 {
        assert_eq!(server.predict(ROW).0, 200);
    }
    for sink in ["payloads", "spans"] {
        let line = format!("slipway_serve_observations_dropped_total{{sink=\"{sink}\"}} 20");
        while !server.ask("GET", "/metrics", "").1.contains(&line) {
            std::thread::yield_now();
        }
    }
}

fn shadowed(rule: &str) -> (Running, Json) {
    let server = with_admin(|config| {
        let Source::Fixed(models) = &mut config.models else { panic!("one model") };
        models.push(Model::new("rose", fixture("forest_classifier")));
        models.push(Model::new("names", fixture("forest_classifier_names")));
        config.observing.shadows = vec![rule.parse::<Shadow>().expect("a rule")];
    });
    for _ in 0..3 {
        assert_eq!(server.predict(ROW), (200, r#"{"predictions":[0]}"#.to_owned()));
    }
    assert_eq!(server.predict(BAD).0, 400);
    loop {
        let report = json(&server.ask_admin("GET", "/debug/shadow").1)[0].clone();
        let count = |name: &str| report[name].as_u64().expect("a count");
        if count("same") + count("different") + count("failed") == 3 {
            return (server, report);
        }
    }
}

#[test]
fn a_shadow_is_asked_the_same_and_compared() {
    let (server, report) = shadowed("iris=rose");
    assert_eq!((&report["same"], &report["largest_difference"]), (&3.into(), &0.0.into()));
    assert!(report["latency_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{report}");
    let (_, text) = server.ask("GET", "/metrics", "");
    let line = "slipway_serve_shadow_calls_total{model=\"iris\",shadow=\"rose\",version=\"newest\",result=\"same\"} 3";
    assert!(text.contains(line), "{text}");
    // The copies are no calls of the shadow's own.
    assert!(
        text.contains("slipway_serve_calls_total{model=\"rose\",version=\"1\",result=\"ok\"} 0"),
        "{text}"
    );
}

#[test]
fn a_shadow_that_differs_or_is_missing_never_shows_in_answers() {
    let (_server, report) = shadowed("iris=names@1.0");
    assert_eq!(report["different"], 3, "{report}");
    assert_eq!(report["examples"][0]["difference"]["shadow"], "setosa", "{report}");
    let (_server, report) = shadowed("iris=nobody");
    assert_eq!(report["failed"], 3, "{report}");
    assert!(report["last_failure"].as_str().is_some_and(|why| why.contains("nobody")), "{report}");
}

#[test]
fn the_flight_recorder_keeps_failed_and_slow_calls() {
    let server = with_admin(|_| {});
    assert_eq!(server.predict(ROW).0, 200);
    assert_eq!(server.predict(BAD).0, 400);
    assert_eq!(server.ask("POST", "/v1/models/nobody:predict", ROW).0, 404);
    let (status, text) = server.ask_admin("GET", "/debug/requests");
    let page = json(&text);
    let requests = page["requests"].as_array().expect("a list");
    assert_eq!((status, requests.len()), (200, 2), "{text}");
    assert_eq!(
        (&requests[0]["status"], &requests[0]["text"]),
        (&404.into(), &"/v1/models/nobody:predict".into())
    );
    assert_eq!((&requests[1]["model"], &requests[1]["reason"]), (&"iris".into(), &"input".into()));
    assert!(requests[1]["text"].as_str().is_some_and(|why| why.contains("expected 4")), "{text}");
    let (_, text) = server.ask_admin("GET", "/debug/requests?model=iris&limit=1");
    assert_eq!(json(&text)["requests"].as_array().map(Vec::len), Some(1));
    let server = with_admin(|config| config.observing.slow = std::time::Duration::ZERO);
    assert_eq!(server.predict(ROW).0, 200);
    let (_, text) = server.ask_admin("GET", "/debug/requests");
    assert_eq!(json(&text)["requests"][0]["status"], 200);
}

#[test]
fn the_admins_pages_are_on_the_admins_port_alone() {
    let server = with_admin(|config| {
        config.open_repository = true;
        config.observing.traces = traces("http://user:word@127.0.0.1:9", false);
    });
    for path in ["/debug", "/debug/requests", "/debug/config", "/debug/pprof/heap", "/debug/shadow"] {
        assert_eq!(server.ask("GET", path, "").0, 404, "{path}");
        assert_eq!(server.ask_admin("GET", path).0, 200, "{path}");
    }
    let (_, config) = server.ask_admin("GET", "/debug/config");
    assert!(config.contains("api-key") && config.contains("127.0.0.1:9"), "{config}");
    assert!(!config.contains("secret") && !config.contains("word@"), "{config}");
    let heap = json(&server.ask_admin("GET", "/debug/pprof/heap").1);
    assert!(heap["kernel"]["Rss"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{heap}");
    assert!(heap["allocator"]["in_use"].as_u64().is_some_and(|bytes| bytes > 1 << 16), "{heap}");
    assert_eq!(heap["models"][0]["model"], "iris");
    assert_eq!(server.ask_admin("GET", "/debug/nothing").0, 404);
    assert_eq!(server.ask_admin("GET", "/v1/models/iris").0, 200, "all else is there too");
}

#[test]
fn a_profile_of_the_running_server_is_taken() {
    let server = with_admin(|_| {});
    let (status, body) = server.ask_admin("GET", "/debug/pprof/profile?seconds=1");
    assert_eq!(status, 200);
    // The form of gperftools ends with the process' mappings.
    assert!(body.contains("r-xp"), "mappings");
    assert_eq!(server.ask_admin("GET", "/debug/pprof/profile?seconds=0").0, 400);
}

#[test]
fn the_level_of_the_log_changes_while_the_server_runs() {
    let server = with_admin(|_| {});
    assert_eq!(server.ask_admin("GET", "/debug/log_level").0, 501, "the test's process has no log yet");
    infer::logs::start().expect("no other log");
    assert!(!tracing::enabled!(tracing::Level::DEBUG));
    let (status, text) = server.ask_admin("POST", "/debug/log_level?level=warn,observe=debug");
    assert_eq!((status, &json(&text)["level"]), (200, &"warn,observe=debug".into()));
    assert!(tracing::enabled!(tracing::Level::DEBUG));
    let (status, text) = server.ask_admin("POST", "/debug/log_level?level=loud");
    assert!(status == 400 && text.contains("loud"), "{text}");
    assert_eq!(json(&server.ask_admin("GET", "/debug/log_level").1)["level"], "warn,observe=debug");
}

#[test]
fn answers_say_their_times_and_their_model_where_asked() {
    let plain = Running::start("forest_classifier");
    let (_, head, _) = plain.send(PREDICT, "", ROW.as_bytes());
    assert!(!head.contains("server-timing") && !head.contains("slipway-model"), "{head}");
    let server = Running::with("forest_classifier", |config| {
        config.observing.server_timing = true;
        config.observing.model_headers = true;
    });
    let (_, head, _) = server.send(PREDICT, "", ROW.as_bytes());
    for part in
        ["slipway-model: iris", "slipway-model-version: 1", "server-timing: parse;dur=0.", ", predict;dur="]
    {
        assert!(head.contains(part), "{part} in {head}");
    }
    let (status, head, _) = server.send(PREDICT, "", BAD.as_bytes());
    assert!(status == 400 && head.contains("slipway-model: iris") && !head.contains("predict;dur"), "{head}");
}

/// A receiver that points elsewhere with each answer.
fn pointing(to: &str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut came = Vec::new();
            // A row ends the message.
            while !came.ends_with(ROW.as_bytes()) {
                let mut piece = [0; 4096];
                match stream.read(&mut piece) {
                    Ok(count @ 1..) => came.extend_from_slice(&piece[..count]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn payloads_follow_a_receiver_that_is_elsewhere() {
    let collector = Collector::start();
    let server = Running::with("forest_classifier", |config| {
        let url = pointing(&format!("{}/moved", collector.url));
        config.observing.payloads = payloads(&url, PayloadMode::Request);
    });
    assert_eq!(server.predict(ROW).0, 200);
    let came = collector.next();
    assert_eq!((came.path.as_str(), &came.body[..]), ("/moved", ROW.as_bytes()));
    assert_eq!(came.header("ce-type"), "org.kubeflow.serving.inference.request");
}

#[test]
fn all_payloads_of_many_calls_get_there_once() {
    let collector = Collector::start();
    let server = Running::with("forest_classifier", |config| {
        config.observing.payloads = payloads(&collector.url, PayloadMode::All);
    });
    for call in 0..300 {
        assert_eq!(server.send(PREDICT, &format!("ce-id: {call}\r\n"), ROW.as_bytes()).0, 200);
    }
    drop(server);
    let mut came: Vec<(u32, String)> = collector
        .rest()
        .iter()
        .map(|event| (event.header("ce-id").parse().expect("a number"), event.header("ce-type").to_owned()))
        .collect();
    came.sort();
    let kinds = ["request", "response"].map(|kind| format!("org.kubeflow.serving.inference.{kind}"));
    let wanted: Vec<(u32, String)> =
        (0..300).flat_map(|call| kinds.clone().map(|kind| (call, kind))).collect();
    assert!(came == wanted, "{} came", came.len());
}
