//! What a scrape shows: the names of each peer's dashboards, for models that are called, refused and left alone.

mod support;

use infer::Personality;
use infer::config::{Model, Source};
use support::{Running, fixture};

const ROW: &str = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
const TWO: &str = r#"{"instances":[[5.1,3.5,1.4,0.2],[6.7,3.0,5.2,2.3]]}"#;
const BAD: &str = r#"{"instances":[[5.1]]}"#;
const V2: &str = r#"{"inputs":[{"name":"input-0","shape":[2,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2,6.7,3.0,5.2,2.3]}]}"#;

/// The value of the line that begins so.
fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(' '));
    let found = found.unwrap_or_else(|| panic!("no {line} in\n{text}"));
    found.parse().expect("a number")
}

fn scrape(server: &Running) -> String {
    let (status, text) = server.ask("GET", "/metrics", "");
    assert_eq!(status, 200);
    text
}

#[test]
fn kserves_names_are_shown_for_each_model() {
    let server = Running::with("forest_classifier", |config| {
        let Source::Fixed(models) = &mut config.models else { panic!("one model") };
        models.push(Model::new("rose", fixture("forest_classifier")));
    });
    for _ in 0..3 {
        assert_eq!(server.predict(ROW).0, 200);
    }
    assert_eq!(server.predict(BAD).0, 400);
    assert_eq!(server.ask("POST", "/v1/models/iris:explain", ROW).0, 200);
    let text = scrape(&server);
    for (line, want) in [
        ("request_preprocess_seconds_count{model_name=\"iris\"}", 4.0),
        ("request_predict_seconds_count{model_name=\"iris\"}", 3.0),
        ("request_postprocess_seconds_count{model_name=\"iris\"}", 3.0),
        ("request_explain_seconds_count{model_name=\"iris\"}", 1.0),
        ("request_predict_seconds_bucket{model_name=\"iris\",le=\"+Inf\"}", 3.0),
        ("request_predict_seconds_count{model_name=\"rose\"}", 0.0),
        ("slipway_serve_calls_total{model=\"iris\",version=\"1\",result=\"ok\"}", 4.0),
        ("slipway_serve_calls_total{model=\"iris\",version=\"1\",result=\"input\"}", 1.0),
        ("slipway_serve_calls_under_way{model=\"iris\",version=\"1\"}", 0.0),
        ("slipway_serve_rows_total", 3.0),
        ("slipway_serve_models{state=\"AVAILABLE\"}", 2.0),
        ("slipway_serve_requests_total{code=\"4xx\"}", 1.0),
    ] {
        assert_eq!(value(&text, line), want, "{line}");
    }
    assert!(value(&text, "request_predict_seconds_sum{model_name=\"iris\"}") > 0.0);
    assert!(value(&text, "slipway_serve_model_bytes{model=\"rose\",version=\"1\"}") > 1000.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(!text.contains("nv_inference") && !text.contains(":tensorflow:"), "other peers' names");
}

#[test]
fn tensorflow_servings_names_are_shown_on_its_path() {
    let server = Running::like("forest_classifier", Personality::TfServing, |config| {
        config.metrics_path = Some("/monitoring/prometheus/metrics".to_owned());
    });
    assert_eq!(server.predict(TWO).0, 200);
    assert_eq!(server.predict(BAD).0, 400);
    let (_, text) = server.ask("GET", "/monitoring/prometheus/metrics", "");
    for (line, want) in [
        (":tensorflow:serving:request_count{model_name=\"iris\",status=\"OK\"}", 1.0),
        (":tensorflow:serving:request_count{model_name=\"iris\",status=\"INVALID_ARGUMENT\"}", 1.0),
        (
            ":tensorflow:serving:request_latency_count{model_name=\"iris\",API=\"Predict\",entrypoint=\"REST\"}",
            2.0,
        ),
        (
            ":tensorflow:serving:runtime_latency_count{model_name=\"iris\",API=\"Predict\",runtime=\"slipway\"}",
            1.0,
        ),
        (":tensorflow:serving:request_example_count_total{model=\"iris\"}", 2.0),
        (":tensorflow:serving:request_example_counts_bucket{model=\"iris\",le=\"1\"}", 0.0),
        (":tensorflow:serving:request_example_counts_bucket{model=\"iris\",le=\"2\"}", 1.0),
    ] {
        assert_eq!(value(&text, line), want, "{line}");
    }
    // The buckets are in microseconds and grow by 1.8 from 10.
    let bucket = ":tensorflow:serving:request_latency_bucket{model_name=\"iris\",API=\"Predict\",entrypoint=\"REST\",le=";
    assert!(
        text.contains(&format!("{bucket}\"10\"}}")) && text.contains(&format!("{bucket}\"32.4\"}}")),
        "{text}"
    );
    assert!(!text.contains("request_predict_seconds"), "KServe's names");
}

#[test]
fn tritons_and_mlservers_names_are_shown_for_models_of_their_manners() {
    let infer = |server: &Running, body| server.ask("POST", "/v2/models/iris/infer", body).0;
    let server = Running::like("forest_classifier", Personality::Triton, |_| {});
    assert_eq!((infer(&server, V2), infer(&server, "{}")), (200, 400));
    let text = scrape(&server);
    for (line, want) in [
        ("nv_inference_request_success{model=\"iris\",version=\"1\"}", 1.0),
        ("nv_inference_request_failure{model=\"iris\",version=\"1\",reason=\"OTHER\"}", 1.0),
        ("nv_inference_request_failure{model=\"iris\",version=\"1\",reason=\"REJECTED\"}", 0.0),
        ("nv_inference_count{model=\"iris\",version=\"1\"}", 2.0),
        ("nv_inference_exec_count{model=\"iris\",version=\"1\"}", 1.0),
        ("nv_inference_pending_request_count{model=\"iris\",version=\"1\"}", 0.0),
    ] {
        assert_eq!(value(&text, line), want, "{line}");
    }
    let server = Running::like("forest_classifier", Personality::MlServer, |_| {});
    assert_eq!((infer(&server, V2), infer(&server, "{}")), (200, 400));
    let text = scrape(&server);
    let rest = "method=\"POST\",path=\"/v2/models/{model_name}/infer\"";
    for (line, want) in [
        ("model_infer_request_success_total{model=\"iris\",version=\"1\"}", 1.0),
        ("model_infer_request_failure_total{model=\"iris\",version=\"1\"}", 1.0),
        ("model_infer_request_duration_count{model=\"iris\",version=\"1\"}", 2.0),
        (&format!("rest_server_requests_total{{{rest},status_code=\"200\",app_name=\"mlserver\"}}"), 1.0),
        (&format!("rest_server_requests_total{{{rest},status_code=\"400\",app_name=\"mlserver\"}}"), 1.0),
        (&format!("rest_server_request_duration_seconds_count{{{rest},app_name=\"mlserver\"}}"), 2.0),
    ] {
        assert_eq!(value(&text, line), want, "{line}");
    }
}

#[test]
fn models_beyond_the_bound_are_counted_together() {
    let server = Running::with("forest_classifier", |config| {
        let Source::Fixed(models) = &mut config.models else { panic!("one model") };
        models.extend(["b", "c"].map(|name| Model::new(name, fixture("forest_classifier"))));
        config.observing.models_max = 1;
    });
    for name in ["b", "iris", "c", "b"] {
        assert_eq!(server.ask("POST", &format!("/v1/models/{name}:predict"), ROW).0, 200);
    }
    let text = scrape(&server);
    assert_eq!(value(&text, "request_predict_seconds_count{model_name=\"b\"}"), 2.0);
    assert_eq!(value(&text, "request_predict_seconds_count{model_name=\"other\"}"), 2.0);
    assert!(!text.contains("model_name=\"iris\""), "{text}");
}

#[test]
fn calls_that_wait_in_a_queue_show_its_batches_and_its_age() {
    let server = Running::like("forest_classifier", Personality::Triton, |_| {});
    // So many rows that no event loop runs them.
    let rows = 20_000;
    let row = "5.1,3.5,1.4,0.2,".repeat(rows);
    let data = row.trim_end_matches(',');
    let body = format!(
        r#"{{"inputs":[{{"name":"input-0","shape":[{rows},4],"datatype":"FP64","data":[{data}]}}]}}"#
    );
    assert_eq!(server.ask("POST", "/v2/models/iris/infer", &body).0, 200);
    let text = scrape(&server);
    let labels = "{model=\"iris\",version=\"1\"}";
    assert!(value(&text, &format!("slipway_batch_rows_count{labels}")) >= 1.0);
    assert_eq!(value(&text, &format!("slipway_batch_rows_sum{labels}")), rows as f64);
    assert!(value(&text, &format!("slipway_queue_age_seconds_count{labels}")) >= 1.0);
    assert_eq!(value(&text, &format!("slipway_queue_calls{labels}")), 0.0);
    assert_eq!(value(&text, &format!("nv_inference_count{labels}")), rows as f64);
    assert!(value(&text, &format!("nv_inference_exec_count{labels}")) >= 1.0);
    assert!(text.contains(&format!("nv_inference_queue_duration_us{labels}")), "{text}");
}
