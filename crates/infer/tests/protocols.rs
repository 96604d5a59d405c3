//! V2 and TensorFlow Serving over real sockets.

mod support;

use infer::Personality;
use support::Running;

const ROW: &str = r#"{"name":"input-0","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}"#;

fn tfs() -> Running {
    Running::like("forest_classifier", Personality::TfServing, |_| {})
}

#[test]
fn v2_answers_over_json() {
    let server = Running::start("forest_classifier");
    let infer = |body: &str| server.ask("POST", "/v2/models/iris/infer", body);
    let (status, answer) = infer(&format!(r#"{{"id":"a\n7","inputs":[{ROW}]}}"#));
    let want = r#"{"model_name":"iris","id":"a\n7","outputs":[{"name":"output-0","datatype":"INT64","shape":[1],"data":[0]}]}"#;
    assert_eq!((status, answer.as_str()), (200, want));
    // KServe's clients expect an id even where they sent none.
    let (status, answer) = infer(&format!(r#"{{"inputs":[{ROW}],"outputs":[{{"name":"output-0"}}]}}"#));
    assert!(status == 200 && answer.contains(r#""id":""#), "{answer}");
    let columns = ["0", "1", "2", "3"]
        .map(|name| format!(r#"{{"name":"{name}","shape":[2,1],"datatype":"FP32","data":[5.5,5.5]}}"#));
    let (status, answer) = infer(&format!(r#"{{"inputs":[{}]}}"#, columns.join(",")));
    assert!(status == 200 && answer.contains(r#""shape":[2]"#), "{answer}");
}

#[test]
fn v2_tensors_go_raw_both_ways() {
    let server = Running::start("forest_classifier");
    let json = r#"{"id":"b","parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[2,4],"datatype":"FP32","parameters":{"binary_data_size":32}}]}"#;
    let mut body = json.as_bytes().to_vec();
    for number in [5.1_f32, 3.5, 1.4, 0.2, 6.7, 3.0, 5.2, 2.3] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    let headers = format!(
        "content-type: application/octet-stream\r\ninference-header-content-length: {}\r\n",
        json.len()
    );
    let (status, head, reply) = server.send("/v2/models/iris/infer", &headers, &body);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&reply));
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("inference-header-content-length: "))
        .and_then(|length| length.parse().ok())
        .expect("the header");
    assert!(String::from_utf8_lossy(&reply[..length]).contains(r#""binary_data_size":16"#));
    let classes: Vec<i64> =
        reply[length..].chunks(8).map(|bytes| i64::from_le_bytes(bytes.try_into().expect("eight"))).collect();
    assert_eq!(classes, [0, 2]);
}

#[test]
fn v2_tells_about_server_and_model() {
    let server = Running::start("forest_classifier");
    let specs = r#""inputs":[{"name":"input-0","datatype":"FP64","shape":[-1,4]}],"outputs":[{"name":"output-0","datatype":"INT64","shape":[-1]}]}"#;
    let metadata = format!(r#"{{"name":"iris","versions":[],"platform":"sklearn",{specs}"#);
    for (method, path, status, want) in [
        ("GET", "/v2", 200, "\"model_repository_extension\""),
        ("GET", "/v2/models/iris", 200, metadata.as_str()),
        (
            "GET",
            "/v2/models/iris/config",
            200,
            r#""input":[{"name":"input-0","data_type":"TYPE_FP64","dims":[-1,4]}]"#,
        ),
        ("GET", "/v2/models", 200, r#"{"models":["iris"]}"#),
        ("GET", "/v2/models/iris/versions/3/ready", 404, "has no version 3"),
        ("GET", "/v2/models/iris/versions/x", 400, "specified version string \\\"x\\\""),
        ("GET", "/v2/models/iris/infer", 405, ""),
        ("GET", "/v2/models/iris/nothing", 404, "Not Found"),
        ("POST", "/v2/repository/index", 200, r#"[{"name":"iris","state":"READY","reason":""}]"#),
        ("POST", "/v2/repository/models/iris/unload", 403, "--open_repository_api"),
        ("POST", "/v2/repository/models/iris/load", 403, "--open_repository_api"),
        ("GET", "/v2/repository/index", 405, ""),
        ("POST", "/v2/models/rose/infer", 404, "Model with name rose does not exist."),
    ] {
        let (got, answer) = server.ask(method, path, "");
        assert_eq!(got, status, "{path}: {answer}");
        assert!(answer.contains(want), "{path}: {answer}");
    }
}

#[test]
fn an_open_repository_loads_and_unloads() {
    let server = Running::with("forest_classifier", |config| config.open_repository = true);
    for (path, body, status, want) in [
        ("/v2/repository/models/iris/unload", "", 200, r#"{"name":"iris","unload":true}"#),
        ("/v2/repository/index", "{\"ready\":true}", 200, "[]"),
        ("/v2/models/iris/infer", "{}", 503, "not ready"),
        ("/v2/repository/models/iris/load", "", 200, r#"{"name":"iris","load":true}"#),
        ("/v2/repository/models/rose/load", "", 404, "rose"),
        ("/v2/repository/models/iris/load", r#"{"parameters":{"config":"{}"}}"#, 501, "of its own"),
    ] {
        let (got, answer) = server.ask("POST", path, body);
        assert_eq!(got, status, "{path}: {answer}");
        assert!(answer.contains(want), "{path}: {answer}");
    }
    assert_eq!(server.predict(r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#).0, 200);
}

#[test]
fn v2_names_what_does_not_fit() {
    let server = Running::start("forest_classifier");
    let deep =
        format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP64","data":{}"#, "[".repeat(60_000));
    let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"x",{rest}}}]}}"#);
    for (body, want) in [
        (
            input(r#""shape":[1,3],"datatype":"FP64","data":[1,2,3]"#),
            r#"model \"iris\": input \"input-0\": expected the shape [-1, 4], got [1, 3]"#,
        ),
        (
            input(r#""shape":[1,4],"datatype":"BYTES","data":["a","b","c","d"]"#),
            "expected the type FP64, got BYTES",
        ),
        (
            input(r#""shape":[2,4],"datatype":"FP64","data":[[1,2,3,4],[5,6,7]]"#),
            "lists of different lengths",
        ),
        (input(r#""shape":[4294967296,4294967296,4],"datatype":"FP64","data":[1]"#), "too many elements"),
        (input(r#""shape":[1250000000,4],"datatype":"FP64","data":[1]"#), "takes 40000000000 bytes, got 8"),
        (
            input(r#""shape":[9000000000000000000,0],"datatype":"FP64","data":[]"#),
            "expected the shape [-1, 4]",
        ),
        (
            input(r#""shape":[1,4],"datatype":"FP64","parameters":{"binary_data_size":10737418240}"#),
            "without the header",
        ),
        (input(r#""shape":[1,4],"datatype":"UINT8","data":[1,2,3,256]"#), "a number out of range"),
        (deep, "nested too deeply"),
        (format!(r#"{{"inputs":[{ROW}],"outputs":[{{"name":"y"}}]}}"#), "unexpected inference output 'y'"),
        (format!(r#"{{"inputs":[{ROW},{ROW}]}}"#), "one is there twice"),
        (r#"{"inputs":[]}"#.to_owned(), "expected 1 inputs, got 0"),
        ("{".to_owned(), ""),
    ] {
        let (status, answer) = server.ask("POST", "/v2/models/iris/infer", &body);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(want), "{answer}");
    }
    let headers = "inference-header-content-length: 10737418240\r\n";
    assert_eq!(server.send("/v2/models/iris/infer", headers, b"{}").0, 400);
    assert_eq!(server.ask("POST", "/v2/models/iris/infer", &format!(r#"{{"inputs":[{ROW}]}}"#)).0, 200);
}

#[test]
fn values_that_are_not_finite_reach_the_model() {
    let server = Running::start("forest_classifier");
    let body = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,Infinity,0.2]}]}"#;
    let (status, answer) = server.ask("POST", "/v2/models/iris/infer", body);
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("infinity"), "{answer}");
}

#[test]
fn large_v2_calls_are_answered_whole() {
    let server = Running::start("forest_classifier");
    let rows = 20_000;
    let data = vec!["5.1,3.5,1.4,0.2"; rows].join(",");
    let body =
        format!(r#"{{"inputs":[{{"name":"x","shape":[{rows},4],"datatype":"FP32","data":[{data}]}}]}}"#);
    let (status, answer) = server.ask("POST", "/v2/models/iris/infer", &body);
    assert_eq!(status, 200);
    assert!(answer.contains(&format!(r#""shape":[{rows}],"data":[0,0,"#)), "{}", &answer[..200]);
}

#[test]
fn tensorflow_servings_rest_api_answers() {
    let server = tfs();
    let rows = "[[5.1,3.5,1.4,0.2],[6.7,3.0,5.2,2.3]]";
    let examples = r#"{"examples":[{"input-0":[5.1,3.5,1.4,0.2]}]}"#;
    for (method, path, body, status, want) in [
        (
            "POST",
            "/v1/models/iris:predict",
            format!(r#"{{"instances":{rows}}}"#),
            200,
            r#"{"predictions":[0,2]}"#,
        ),
        ("POST", "/v1/models/iris:predict", format!(r#"{{"inputs":{rows}}}"#), 200, r#"{"outputs":[0,2]}"#),
        (
            "POST",
            "/v1/models/iris:predict",
            format!(r#"{{"signature_name":"serving_default","inputs":{{"input-0":{rows}}}}}"#),
            200,
            r#"{"outputs":[0,2]}"#,
        ),
        (
            "POST",
            "/v1/models/iris:predict",
            format!(r#"{{"inputs":{rows},"instances":{rows}}}"#),
            400,
            "both",
        ),
        ("POST", "/v1/models/iris:predict", "{}".into(), 400, "Missing 'inputs' or 'instances' key"),
        (
            "POST",
            "/v1/models/iris:predict",
            r#"{"instances":[[1,2,3]]}"#.into(),
            400,
            "expected the shape [-1, 4], got [1, 3]",
        ),
        (
            "POST",
            "/v1/models/iris:predict",
            r#"{"signature_name":"x","instances":[[1]]}"#.into(),
            400,
            "not found in signature def",
        ),
        ("POST", "/v1/models/iris:classify", examples.into(), 200, r#"{"results":[[["0",0.0]]]}"#),
        ("POST", "/v1/models/iris:regress", examples.into(), 400, "no output of one number"),
        ("GET", "/v1/models/iris", String::new(), 200, r#""state": "AVAILABLE""#),
        ("GET", "/v1/models/iris/metadata", String::new(), 200, r#""dtype":"DT_DOUBLE""#),
        ("GET", "/v1/models/iris/versions/7", String::new(), 404, "Could not find version 7 of model iris"),
        ("GET", "/v1/models/rose", String::new(), 404, "Could not find any versions of model rose"),
        ("POST", "/v1/models/rose:predict", "{}".into(), 404, "Servable not found for request: Latest(rose)"),
        ("POST", "/v1/models/iris/versions/7:predict", "{}".into(), 404, "Specific(iris, 7)"),
        (
            "POST",
            "/v1/models/iris/labels/x:predict",
            "{}".into(),
            400,
            "Unrecognized servable version label: x",
        ),
        ("POST", "/v1/models/iris:what", "{}".into(), 400, "Malformed request: POST /v1/models/iris:what"),
    ] {
        let (got, answer) = server.ask(method, path, &body);
        assert_eq!(got, status, "{path} {body}: {answer}");
        assert!(answer.contains(want), "{path} {body}: {answer}");
    }
}

#[test]
fn a_regressor_regresses() {
    let server = Running::like("forest_regressor", Personality::TfServing, |_| {});
    let width: usize = {
        let (_, metadata) = server.ask("GET", "/v2/models/iris", "");
        let shape = metadata.split("\"shape\":[-1,").nth(1).expect("a shape");
        shape.split(']').next().and_then(|width| width.parse().ok()).expect("a width")
    };
    let row = vec!["0.5"; width].join(",");
    let body = format!(r#"{{"examples":[{{"input-0":[{row}]}},{{"input-0":[{row}]}}]}}"#);
    let (status, answer) = server.ask("POST", "/v1/models/iris:regress", &body);
    assert!(status == 200 && answer.starts_with(r#"{"results":["#), "{answer}");
}

#[test]
fn columns_of_texts_are_taken_in_every_form() {
    let server = Running::start("../texts/1.9.1/pipeline");
    let (_, metadata) = server.ask("GET", "/v2/models/iris", "");
    let inputs = metadata.split("\"outputs\"").next().expect("inputs");
    let names: Vec<&str> = inputs
        .split("{\"name\":\"")
        .skip(1)
        .filter_map(|part| part.split('"').next())
        .filter(|name| *name != "iris")
        .collect();
    assert!(names.len() == 4 && metadata.contains("BYTES"), "{metadata}");
    let rows = r#"[["green",0.9368847294360477,"Paris",3.0],["red",0.007991622041786647,"Rome",4.0]]"#;
    let objects = format!(
        r#"[{{"{0}":"green","{1}":0.9368847294360477,"{2}":"Paris","{3}":3}},{{"{0}":"red","{1}":0.007991622041786647,"{2}":"Rome","{3}":4}}]"#,
        names[0], names[1], names[2], names[3]
    );
    for rows in [rows, &objects] {
        let answer = server.predict(&format!(r#"{{"instances":{rows}}}"#));
        assert_eq!(answer, (200, r#"{"predictions":["yes","no"]}"#.to_owned()), "{rows}");
    }
    let columns = [
        ("BYTES", r#"["green","red"]"#),
        ("FP64", "[0.9368847294360477,0.007991622041786647]"),
        ("BYTES", r#"["Paris","Rome"]"#),
        ("INT64", "[3,4]"),
    ];
    let tensors = names.iter().zip(columns).map(|(name, (kind, data))| {
        format!(r#"{{"name":"{name}","shape":[2],"datatype":"{kind}","data":{data}}}"#)
    });
    let body = format!(r#"{{"inputs":[{}]}}"#, tensors.collect::<Vec<_>>().join(","));
    let (status, answer) = server.ask("POST", "/v2/models/iris/infer", &body);
    assert!(status == 200 && answer.contains(r#""data":["yes","no"]"#), "{answer}");
    let (status, answer) = server.predict(r#"{"instances":[["green",1]]}"#);
    assert!(status == 400 && answer.contains("instance 0 has 2 values, expected 4"), "{answer}");
}

#[test]
fn models_are_explained() {
    let server = Running::with("forest_classifier", |config| config.method = infer::Method::Probabilities);
    let rows = "[[5.1,3.5,1.4,0.2],[6.7,3.0,5.2,2.3]]";
    let (_, shares) = server.predict(&format!(r#"{{"instances":{rows}}}"#));
    let shares: serde_json::Value = serde_json::from_str(&shares).expect("JSON");
    for body in [
        format!(r#"{{"instances":{rows}}}"#),
        format!(r#"{{"instances":{rows},"background":[[5.0,3.3,1.5,0.3],[6.0,3.0,4.8,1.8]]}}"#),
    ] {
        let (status, answer) = server.ask("POST", "/v1/models/iris:explain", &body);
        assert_eq!(status, 200, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let explanations = &answer["explanations"];
        assert_eq!(explanations["method"], "tree");
        // What the columns add to the base is the answer.
        for row in 0..2 {
            for class in 0..3 {
                let added: f64 = (0..4)
                    .map(|column| explanations["values"][row][column][class].as_f64().expect("a number"))
                    .sum();
                let base = explanations["base_values"][class].as_f64().expect("a number");
                let want = shares["predictions"][row][class].as_f64().expect("a number");
                assert!((base + added - want).abs() < 1e-9, "{row} {class}: {base} + {added}, not {want}");
            }
        }
    }
    for (method, body, status, want) in [
        ("GET", "", 405, ""),
        ("POST", r#"{"instances":[[1,2]]}"#, 400, "2 values, expected 4"),
        ("POST", r#"{"instances":[[1,2,3,4]],"background":[[1]]}"#, 400, "no rows of 4 columns"),
        ("POST", r#"{"instances":[[1,2,3,4]],"background":1}"#, 400, "expected a list"),
    ] {
        let (got, answer) = server.ask(method, "/v1/models/iris:explain", body);
        assert!(got == status && answer.contains(want), "{answer}");
    }
    let other = Running::start("svc_rbf");
    let (status, answer) =
        other.ask("POST", "/v1/models/iris:explain", &format!(r#"{{"instances":{rows}}}"#));
    assert!(status == 501 && answer.contains("background"), "{answer}");
}
