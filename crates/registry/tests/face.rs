//! Laws of the MLflow face, each on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use axum::body::Body;
use common::{Face, Postgres, open};
use http::{Request, StatusCode};
use serde_json::{Value, json};

/// Runs each law on a fresh database of both kinds.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $law() {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}/platform.db", folder.path().display());
            laws::$law(open(&url, laws::isolated(stringify!($law))).await).await;
        })*

        #[tokio::test(flavor = "multi_thread")]
        async fn every_law_holds_on_postgresql() {
            let Some(postgres) = Postgres::start() else { return };
            $({
                let url = postgres.url(stringify!($law)).await;
                laws::$law(open(&url, laws::isolated(stringify!($law))).await).await;
            })*
        }
    };
}

laws!(
    a_run_is_read_as_it_was_logged,
    a_changed_param_is_refused_and_nothing_of_the_batch_stays,
    a_search_finds_by_every_kind_of_key,
    pages_give_every_run_once,
    versions_made_at_once_have_different_numbers,
    a_version_finds_its_run_by_its_source,
    hostile_sources_are_refused,
    tenants_do_not_see_each_other,
    artifacts_come_back_and_stay_in_their_place,
    an_exact_repeat_of_a_metric_is_one_row,
    errors_have_the_codes_of_mlflow,
);

mod laws {
    use super::*;

    pub fn isolated(law: &str) -> bool {
        law == "tenants_do_not_see_each_other"
    }

    pub async fn a_run_is_read_as_it_was_logged(face: Face) {
        let run = face.run("0").await;
        let batch = json!({"run_id": run,
            "metrics": [{"key": "loss", "value": 2.5, "timestamp": 1, "step": 0}, {"key": "loss", "value": 0.5, "timestamp": 2, "step": 1},
                        {"key": "nan", "value": "NaN", "timestamp": 1}],
            "params": [{"key": "depth", "value": "3"}], "tags": [{"key": "a b", "value": "x"}]});
        assert_eq!(face.post("runs/log-batch", batch).await, json!({}));
        let read = face.get(&format!("runs/get?run_id={run}")).await;
        let data = &read["run"]["data"];
        let metric = |key: &str| {
            data["metrics"].as_array().unwrap().iter().find(|one| one["key"] == key).unwrap()["value"].clone()
        };
        assert_eq!((metric("loss"), metric("nan")), (json!(0.5), json!("NaN")));
        assert_eq!(data["params"], json!([{"key": "depth", "value": "3"}]));
        assert!(data["tags"].as_array().unwrap().contains(&json!({"key": "a b", "value": "x"})));
        assert_eq!(read["run"]["info"]["artifact_uri"], format!("mlflow-artifacts:/0/{run}/artifacts"));
        let history = face.get(&format!("metrics/get-history?run_id={run}&metric_key=loss")).await;
        assert_eq!(history["metrics"].as_array().unwrap().len(), 2);
    }

    pub async fn a_changed_param_is_refused_and_nothing_of_the_batch_stays(face: Face) {
        let run = face.run("0").await;
        face.post("runs/log-parameter", json!({"run_id": run, "key": "a", "value": "1"})).await;
        face.post("runs/log-parameter", json!({"run_id": run, "key": "a", "value": "1"})).await;
        let batch = json!({"run_id": run, "params": [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}], "tags": [{"key": "t", "value": "x"}]});
        let (status, answer) = face.call("POST", "runs/log-batch", batch).await;
        assert_eq!(
            (status, &answer["error_code"]),
            (StatusCode::BAD_REQUEST, &json!("INVALID_PARAMETER_VALUE"))
        );
        let read = face.get(&format!("runs/get?run_id={run}")).await;
        assert_eq!(read["run"]["data"]["params"], json!([{"key": "a", "value": "1"}]));
        assert!(!read["run"]["data"]["tags"].to_string().contains("\"t\""));
    }

    async fn found(face: &Face, filter: &str, order: &[&str]) -> Vec<String> {
        let answer = face
            .post("runs/search", json!({"experiment_ids": ["0"], "filter": filter, "order_by": order}))
            .await;
        let runs = answer["runs"].as_array().unwrap();
        runs.iter().map(|run| run["info"]["run_name"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn a_search_finds_by_every_kind_of_key(face: Face) {
        for index in 0..4 {
            let created = face
                .post(
                    "runs/create",
                    json!({"experiment_id": "0", "run_name": format!("r{index}"), "start_time": index}),
                )
                .await;
            let run = created["run"]["info"]["run_id"].clone();
            let params = if index == 3 {
                json!([])
            } else {
                json!([{"key": "kind", "value": if index == 0 { "Tree" } else { "forest" }}])
            };
            let logged = face
                .post(
                    "runs/log-batch",
                    json!({"run_id": run, "params": params, "tags": [{"key": "a b", "value": "x"}],
                "metrics": [{"key": "acc", "value": f64::from(index) / 10.0, "timestamp": 1}]}),
                )
                .await;
            assert_eq!(logged, json!({}));
        }
        let table: [(&str, &[&str], &[&str]); 9] = [
            ("metrics.acc >= 0.2", &["metrics.acc DESC"], &["r3", "r2"]),
            ("params.kind = 'Tree'", &[], &["r0"]),
            ("params.kind LIKE 'F%'", &[], &[]),
            ("params.kind ILIKE 'F%'", &["run_name ASC"], &["r1", "r2"]),
            ("params.kind IS NULL", &[], &["r3"]),
            ("tags.`a b` = 'x' AND metrics.acc < 0.05", &[], &["r0"]),
            ("run_name IN ('r1', 'r3')", &["start_time ASC"], &["r1", "r3"]),
            ("attributes.start_time > 1", &["attributes.start_time ASC"], &["r2", "r3"]),
            ("", &["params.kind ASC", "start_time ASC"], &["r0", "r1", "r2", "r3"]),
        ];
        for (filter, order, expected) in table {
            assert_eq!(found(&face, filter, order).await, expected, "{filter}");
        }
        let (status, _) = face
            .call(
                "POST",
                "runs/search",
                json!({"experiment_ids": ["0"], "filter": "metrics.acc > 1 OR 1 = 1"}),
            )
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    pub async fn pages_give_every_run_once(face: Face) {
        for _ in 0..7 {
            face.run("0").await;
        }
        let (mut seen, mut token) = (Vec::new(), Value::Null);
        loop {
            let answer = face
                .post("runs/search", json!({"experiment_ids": ["0"], "max_results": 3, "page_token": token}))
                .await;
            seen.extend(
                answer["runs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|run| run["info"]["run_id"].as_str().unwrap().to_owned()),
            );
            token = answer["next_page_token"].clone();
            if token.is_null() {
                break;
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 7);
    }

    pub async fn versions_made_at_once_have_different_numbers(face: Face) {
        face.post("registered-models/create", json!({"name": "m"})).await;
        let calls =
            (0..8).map(|_| face.post("model-versions/create", json!({"name": "m", "source": "s3://b/m"})));
        let mut numbers: Vec<String> = futures::future::join_all(calls)
            .await
            .iter()
            .map(|answer| answer["model_version"]["version"].as_str().unwrap().to_owned())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    }

    pub async fn a_version_finds_its_run_by_its_source(face: Face) {
        face.post("registered-models/create", json!({"name": "iris"})).await;
        let source =
            "minio://mlpipeline/v2/artifacts/default/iris/0b5d4e1c-7c1f-4f8e-9d5e-111122223333/train/x/model";
        let made = face.post("model-versions/create", json!({"name": "iris", "source": source})).await;
        let run = made["model_version"]["run_id"].as_str().unwrap();
        assert_eq!(run, "0b5d4e1c7c1f4f8e9d5e111122223333");
        let read = face.get(&format!("runs/get?run_id={run}")).await;
        assert_eq!(read["run"]["info"]["status"], "RUNNING");
        let again = face.post("model-versions/create", json!({"name": "iris", "source": source})).await;
        assert_eq!(again["model_version"]["run_id"], run);
    }

    pub async fn hostile_sources_are_refused(face: Face) {
        face.post("registered-models/create", json!({"name": "m"})).await;
        let run = face.run("0").await;
        for source in
            ["/etc/passwd", "file:///etc/passwd", "s3://b/../x", "mlflow-artifacts:/0/other/artifacts/model"]
        {
            let (status, answer) = face
                .call("POST", "model-versions/create", json!({"name": "m", "source": source, "run_id": run}))
                .await;
            assert_eq!(
                (status, &answer["error_code"]),
                (StatusCode::BAD_REQUEST, &json!("INVALID_PARAMETER_VALUE")),
                "{source}"
            );
            assert!(answer["message"].as_str().unwrap().contains(source), "{answer}");
        }
        let own = format!("mlflow-artifacts:/0/{run}/artifacts/model");
        face.post("model-versions/create", json!({"name": "m", "source": own, "run_id": run})).await;
    }

    pub async fn tenants_do_not_see_each_other(face: Face) {
        let (status, made) = face.call_in("a", "POST", "runs/create", json!({"experiment_id": "0"})).await;
        assert_eq!(status, StatusCode::OK);
        let run = made["run"]["info"]["run_id"].as_str().unwrap();
        let path = format!("runs/get?run_id={run}");
        assert_eq!(face.call_in("a", "GET", &path, Value::Null).await.0, StatusCode::OK);
        assert_eq!(face.call_in("b", "GET", &path, Value::Null).await.0, StatusCode::NOT_FOUND);
        assert_eq!(
            face.call_in(
                "b",
                "POST",
                "runs/log-metric",
                json!({"run_id": run, "key": "k", "value": 1, "timestamp": 1})
            )
            .await
            .0,
            StatusCode::NOT_FOUND
        );
        for tenant in ["a", "b"] {
            assert_eq!(
                face.call_in(tenant, "POST", "registered-models/create", json!({"name": "same"})).await.0,
                StatusCode::OK
            );
        }
        assert_eq!(face.call_in("../a", "GET", &path, Value::Null).await.0, StatusCode::BAD_REQUEST);
    }

    async fn artifact(face: &Face, method: &str, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let uri = format!("/api/2.0/mlflow-artifacts/artifacts{path}");
        face.send(Request::builder().method(method).uri(uri).body(Body::from(body)).unwrap()).await
    }

    pub async fn artifacts_come_back_and_stay_in_their_place(face: Face) {
        // More than one part of an upload.
        let big: Vec<u8> = (0..20_000_000_u32).map(|at| at as u8).collect();
        for (path, bytes) in
            [("/0/r/artifacts/model/m.bin", big.clone()), ("/0/r/artifacts/a%20b.txt", b"x".to_vec())]
        {
            assert_eq!(artifact(&face, "PUT", path, bytes.clone()).await.0, StatusCode::OK);
            assert_eq!(artifact(&face, "GET", path, Vec::new()).await, (StatusCode::OK, bytes));
        }
        let (_, listed) = artifact(&face, "GET", "?path=0/r/artifacts", Vec::new()).await;
        let listed: Value = serde_json::from_slice(&listed).unwrap();
        assert_eq!(
            listed["files"],
            json!([{"path": "a b.txt", "is_dir": false, "file_size": 1}, {"path": "model", "is_dir": true}])
        );
        for path in ["/..%2fx", "/a/%252e%252e/%252e%252e/x", "/a%5c..%5cx", "/%2fetc%2fpasswd"] {
            for method in ["GET", "PUT", "DELETE"] {
                assert_eq!(
                    artifact(&face, method, path, b"x".to_vec()).await.0,
                    StatusCode::BAD_REQUEST,
                    "{method} {path}"
                );
            }
        }
        assert_eq!(artifact(&face, "DELETE", "/0/r/artifacts/model", Vec::new()).await.0, StatusCode::OK);
        assert_eq!(
            artifact(&face, "GET", "/0/r/artifacts/model/m.bin", Vec::new()).await.0,
            StatusCode::NOT_FOUND
        );
        assert_eq!(artifact(&face, "GET", "/0/r/artifacts/a%20b.txt", Vec::new()).await.0, StatusCode::OK);
    }

    pub async fn an_exact_repeat_of_a_metric_is_one_row(face: Face) {
        let run = face.run("0").await;
        for _ in 0..2 {
            face.post(
                "runs/log-metric",
                json!({"run_id": run, "key": "k", "value": 1.5, "timestamp": 7, "step": "3"}),
            )
            .await;
        }
        let history = face.get(&format!("metrics/get-history?run_id={run}&metric_key=k")).await;
        assert_eq!(
            history["metrics"],
            json!([{"key": "k", "value": 1.5, "timestamp": 7, "step": 3, "run_id": run}])
        );
    }

    pub async fn errors_have_the_codes_of_mlflow(face: Face) {
        let table = [
            ("GET", "runs/get?run_id=none", Value::Null, 404, "RESOURCE_DOES_NOT_EXIST"),
            ("POST", "runs/create", json!({"experiment_id": "77"}), 404, "RESOURCE_DOES_NOT_EXIST"),
            ("POST", "runs/create", json!({"experiment_id": "x"}), 400, "INVALID_PARAMETER_VALUE"),
            ("POST", "experiments/create", json!({"name": "Default"}), 400, "RESOURCE_ALREADY_EXISTS"),
            ("POST", "experiments/create", json!({}), 400, "INVALID_PARAMETER_VALUE"),
            ("POST", "experiments/create", json!([1]), 400, "INVALID_PARAMETER_VALUE"),
            ("POST", "registered-models/create", json!({"name": "a/b"}), 400, "INVALID_PARAMETER_VALUE"),
            ("GET", "model-versions/get?name=m&version=1", Value::Null, 404, "RESOURCE_DOES_NOT_EXIST"),
            ("GET", "model-versions/get?name=m&version=x", Value::Null, 400, "INVALID_PARAMETER_VALUE"),
            (
                "POST",
                "runs/log-metric",
                json!({"run_id": "x", "key": "a", "value": 1}),
                400,
                "INVALID_PARAMETER_VALUE",
            ),
        ];
        for (method, path, body, status, code) in table {
            let (found, answer) = face.call(method, path, body).await;
            assert_eq!(
                (found.as_u16(), answer["error_code"].as_str()),
                (status, Some(code)),
                "{path}: {answer}"
            );
        }
    }
}
