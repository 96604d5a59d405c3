//! Transformers: classes in the shape of KServe's `Model` that ask a predictor, which is another server of ours.
//!
//! Not here: classes that predict themselves (`python.rs`).

mod support;

use std::time::Duration;

use backend_host::Python;
use models::Predictor;
use serde_json::json;
use support::{Running, class, python};

fn transformer(kind: &str, host: &str, protocol: &str) -> Option<Running> {
    let predictor = Predictor {
        host: host.into(),
        protocol: protocol.into(),
        use_ssl: false,
        timeout: Duration::from_secs(20),
        retries: 1,
    };
    let python = Python { predictor: Some(predictor), ..python()? };
    Some(Running::start(vec![class("flower", kind)], Some(python)))
}

#[test]
fn a_transformer_asks_its_predictor_in_v1() {
    let predictor = Running::start(vec![support::forest("flower")], None);
    for kind in ["models:Millimetres", "models:Twice"] {
        let Some(server) = transformer(kind, &predictor.host(), "v1") else { return };
        let (status, answer) = server.predict("flower", r#"{"instances":[[51,35,14,2],[67,30,52,23]]}"#);
        assert_eq!((status, &answer["predictions"]), (200, &json!([0, 2])), "{kind}: {answer}");
        assert_eq!(answer["asked"], json!(predictor.host()), "{kind}");
        let (status, answer) = server.predict("flower", r#"{"instances":[[51,35]]}"#);
        assert_eq!(status, 400, "what the predictor refuses is the caller's: {answer}");
        assert!(answer.to_string().contains("expected 4"), "{answer}");
    }
}

#[test]
fn a_transformer_asks_its_predictor_in_v2() {
    let predictor = Running::start(vec![support::forest("flower")], None);
    let Some(server) = transformer("models:Millimetres", &predictor.host(), "v2") else { return };
    let v2 =
        r#"{"inputs":[{"name":"input-0","datatype":"FP64","shape":[2,4],"data":[51,35,14,2,67,30,52,23]}]}"#;
    let (status, answer) = server.ask("POST", "/v2/models/flower/infer", v2);
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([0, 2])), "{answer}");
}

#[test]
fn a_predictor_that_is_gone_is_no_fault_of_the_caller() {
    let predictor = Running::start(vec![support::forest("flower")], None);
    let host = predictor.host();
    let Some(server) = transformer("models:Millimetres", &host, "v1") else { return };
    let body = r#"{"instances":[[51,35,14,2]]}"#;
    assert_eq!(server.predict("flower", body).0, 200);
    drop(predictor);
    let (status, answer) = server.predict("flower", body);
    assert_eq!(status, 500, "{answer}");
    assert!(answer.to_string().contains(&format!("the predictor {host} does not answer")), "{answer}");
}

#[test]
fn a_class_that_can_only_ask_needs_somebody_to_ask() {
    let Some(python) = python() else { return };
    let error =
        support::start(vec![class("flower", "models:Millimetres")], Some(python)).err().expect("refused");
    assert!(error.to_string().contains("--predictor_host"), "{error}");
}
