//! Whole workflows through the engine with pods that are only pretended: the seed's files, groups,
//! loops, retries, hooks, and a crash after every event.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::workflow::KfpRun;
use plan::engine::{Outcome, PodEnd};
use plan::model::Phase;
use plan::order::PodOrder;
use plan::{Action, Engine, Event, Identity, Plan};
use pod_protocol::launch::{LaunchReport, UploadedArtifact};
use serde_json::{Value, json};

fn identity() -> Identity {
    Identity {
        name: "wf".into(),
        namespace: "team".into(),
        uid: "u".into(),
        created_ms: 1_700_000_000_000,
        bucket: "mlpipeline".into(),
        ..Identity::default()
    }
}

fn argo(spec: &Value) -> Arc<Plan> {
    Arc::new(plan::argo::compile(identity(), spec, &BTreeMap::new()).unwrap())
}

fn kfp(document: &Value, parameters: &Value) -> Arc<Plan> {
    let run = KfpRun {
        run_id: "run-1".into(),
        display_name: "my run".into(),
        pipeline_spec: document.clone(),
        runtime_config: api::workflow::RuntimeConfig {
            parameters: parameters.as_object().cloned().unwrap_or_default(),
            pipeline_root: None,
        },
        ..KfpRun::default()
    };
    Arc::new(plan::kfp::compile(identity(), &run).unwrap())
}

fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap()
}

/// Runs a plan to its end; `pod` says how each pod ends. Returns the engine, the events, the pods in order.
struct World<'a> {
    engine: Engine,
    events: Vec<Event>,
    pods: Vec<Arc<PodOrder>>,
    now: i64,
    pod: &'a dyn Fn(&PodOrder) -> PodEnd,
}

impl<'a> World<'a> {
    fn new(plan: Arc<Plan>, pod: &'a dyn Fn(&PodOrder) -> PodEnd) -> Self {
        Self { engine: Engine::new(plan), events: Vec::new(), pods: Vec::new(), now: 1_700_000_000_000, pod }
    }

    fn apply(&mut self, event: Event) -> Vec<Action> {
        assert!(self.engine.accepts(&event), "{event:?}");
        let actions = self.engine.apply(&event);
        self.events.push(event);
        actions
    }

    fn run(&mut self) -> Phase {
        let mut open: VecDeque<Action> = self.apply(Event::Begin { at: self.now }).into();
        loop {
            let Some(action) = open.pop_front() else {
                if let Some(phase) = self.engine.finished().and(self.engine.phase()) {
                    return phase;
                }
                let Some(due) = self.engine.next_timer() else { return self.engine.phase().unwrap() };
                self.now = due;
                open.extend(self.apply(Event::Tick { at: due }));
                continue;
            };
            self.now += 1;
            open.extend(self.act(action));
        }
    }

    fn act(&mut self, action: Action) -> Vec<Action> {
        match action {
            Action::StartPod { node, token } => {
                let Some(order) = self.engine.order(node, token) else { return Vec::new() };
                self.pods.push(order.clone());
                let end = Box::new((self.pod)(&order));
                self.apply(Event::Ended { node, token, end, at: self.now })
            }
            Action::Lookup { node, token, .. } => {
                self.apply(Event::Cache { node, token, hit: None, at: self.now })
            }
            Action::StopPod { .. } | Action::Record { .. } | Action::Finished { .. } => Vec::new(),
        }
    }

    fn phases(&self) -> BTreeMap<String, String> {
        let status = self.engine.status();
        status.nodes.values().map(|node| (node.name.clone(), node.phase.clone())).collect()
    }
}

fn good(order: &PodOrder) -> PodEnd {
    let mut report = LaunchReport { version: 1, exit_code: Some(0), ..LaunchReport::default() };
    for parameter in &order.launch.output_parameters {
        let value = parameter.default.clone().unwrap_or_else(|| "v".into());
        report.parameters.insert(parameter.name.clone(), value);
    }
    for artifact in &order.launch.output_artifacts {
        let uploaded = UploadedArtifact { uri: artifact.uri.clone(), size: 3, files: 1, sha256: "ab".into() };
        report.artifacts.insert(artifact.name.clone(), uploaded);
    }
    if order.launch.capture_result {
        report.result = order.argv.last().cloned();
    }
    PodEnd { outcome: Outcome::Succeeded, exit_code: Some(0), report: Some(report), ..PodEnd::default() }
}

fn bad(code: i32) -> PodEnd {
    let report = LaunchReport { version: 1, exit_code: Some(code), ..LaunchReport::default() };
    PodEnd { outcome: Outcome::Failed, exit_code: Some(code), report: Some(report), ..PodEnd::default() }
}

/// The leaf that all small workflows use: echoes its input.
fn echo() -> Value {
    json!({"name": "echo", "inputs": {"parameters": [{"name": "m", "default": "none"}]},
        "container": {"image": "busybox", "command": ["echo"], "args": ["{{inputs.parameters.m}}"]}})
}

fn spec(templates: Value) -> Value {
    let mut all = templates.as_array().cloned().unwrap();
    all.push(echo());
    json!({"entrypoint": "main", "templates": all})
}

#[test]
fn the_seeds_template_runs_by_reference() {
    let template = yaml(include_str!("fixtures/train-component.yaml"));
    let merged =
        plan::argo::merge(&json!({"workflowTemplateRef": {"name": "train-iris-model"}}), &template["spec"]);
    let mut world = World::new(argo(&merged), &good);
    assert_eq!(world.run(), Phase::Succeeded);
    let order = &world.pods[0];
    assert_eq!(order.name, "wf");
    assert_eq!(order.argv, ["python", "/app/train.py", "--output", "/output/model.pkl"]);
    assert_eq!(order.spec["volumes"], json!([{"name": "output-volume", "emptyDir": {}}]));
    assert_eq!(order.launch.output_artifacts[0].uri, "minio://mlpipeline/team/wf/wf/model");
    let status = world.engine.status();
    let node = &status.nodes["wf"];
    assert_eq!((node.kind.as_str(), node.phase.as_str()), ("Pod", "Succeeded"));
    assert_eq!(node.outputs.artifacts[0].s3.as_ref().unwrap().key, "team/wf/wf/model");
    assert_eq!(status.progress, "1/1");
}

#[test]
fn the_seeds_pipeline_runs() {
    let document = yaml(include_str!("fixtures/iris_pipeline.yaml"));
    let pod = |order: &PodOrder| {
        let mut end = good(order);
        if order.template == "comp-register-model" {
            let report = end.report.as_mut().unwrap();
            report.executor_output = Some(json!({"parameterValues": {"Output": "1"}}));
        }
        end
    };
    let mut world = World::new(kfp(&document, &json!({})), &pod);
    assert_eq!(world.run(), Phase::Succeeded, "{}", world.engine.message());
    let train = &world.pods[0];
    let uri = &train.launch.output_artifacts[0].uri;
    assert!(
        uri.starts_with(
            "minio://mlpipeline/v2/artifacts/team/iris-classification-pipeline/run-1/train-model/"
        )
    );
    assert_eq!(train.argv[..2], ["python", "/app/train.py"]);
    assert_eq!(train.argv[3], uri.replace("minio://", "/minio/"));
    let register = &world.pods[1];
    let python = register.launch.python.as_ref().unwrap();
    assert_eq!(python.pip_arguments[0][..2], ["kfp==2.17.0", "--no-deps"]);
    assert_eq!(register.argv[..2], ["sh", "-ec"]);
    let at = register.argv.iter().position(|word| word == "--executor_input").unwrap();
    let input: Value = serde_json::from_str(&register.argv[at + 1]).unwrap();
    assert_eq!(input["inputs"]["parameterValues"]["name"], "iris");
    assert_eq!(input["inputs"]["artifacts"]["model"]["artifacts"][0]["uri"], json!(uri));
    assert_eq!(register.launch.input_artifacts[0].path, uri.replace("minio://", "/minio/"));
    let status = world.engine.status();
    let node = status.nodes.values().find(|node| node.display_name == "register-model").unwrap();
    assert_eq!(node.outputs.parameters[0].value.as_deref(), Some("1"));
    assert!(node.memoization_status.is_some());
}

#[test]
fn steps_pass_results_and_skip_by_when() {
    let main = json!({"name": "main", "steps": [
        [{"name": "a", "template": "echo", "arguments": {"parameters": [{"name": "m", "value": "heads"}]}}],
        [{"name": "b", "template": "echo", "when": "{{steps.a.outputs.result}} == heads",
            "arguments": {"parameters": [{"name": "m", "value": "got {{steps.a.outputs.result}}"}]}},
         {"name": "c", "template": "echo", "when": "{{steps.a.outputs.result}} == tails"}]]});
    let mut world = World::new(argo(&spec(json!([main]))), &good);
    assert_eq!(world.run(), Phase::Succeeded);
    assert_eq!(world.pods[1].argv, ["echo", "got heads"]);
    let phases = world.phases();
    assert_eq!(phases["wf[1].c"], "Skipped");
    assert_eq!(phases["wf[1].b"], "Succeeded");
    let status = world.engine.status();
    let id = plan::ids::node_id("wf", "wf[1].b");
    assert_eq!(status.nodes[&id].boundary_id, "wf");
}

#[test]
fn dags_follow_depends_and_loops_aggregate() {
    let main = json!({"name": "main", "dag": {"tasks": [
        {"name": "list", "template": "echo", "arguments": {"parameters": [{"name": "m", "value": "[1, {\"a\": 2}]"}]}},
        {"name": "each", "template": "echo", "dependencies": ["list"], "withParam": "{{tasks.list.outputs.result}}",
            "arguments": {"parameters": [{"name": "m", "value": "{{item}}"}]}},
        {"name": "sum", "template": "echo", "depends": "each.Succeeded",
            "arguments": {"parameters": [{"name": "m", "value": "{{tasks.each.outputs.result}}"}]}},
        {"name": "never", "template": "echo", "depends": "each.Failed"}]}});
    let mut world = World::new(argo(&spec(json!([main]))), &good);
    assert_eq!(world.run(), Phase::Succeeded);
    let phases = world.phases();
    assert_eq!(phases["wf.never"], "Omitted");
    assert_eq!(phases["wf.each(1:a:2)"], "Succeeded");
    assert_eq!(world.pods.last().unwrap().argv[1], r#"["1",{"a":2}]"#);
}

#[test]
fn a_failed_branch_fails_the_dag_and_omits_what_follows() {
    let main = json!({"name": "main", "dag": {"tasks": [
        {"name": "a", "template": "echo"},
        {"name": "b", "template": "echo", "dependencies": ["a"]},
        {"name": "cleanup", "template": "echo", "depends": "a.Failed"}]}});
    let pod = |order: &PodOrder| if order.node_name == "wf.a" { bad(3) } else { good(order) };
    let mut world = World::new(argo(&spec(json!([main]))), &pod);
    assert_eq!(world.run(), Phase::Failed);
    let phases = world.phases();
    assert_eq!((phases["wf.a"].as_str(), phases["wf.b"].as_str()), ("Failed", "Omitted"));
}

#[test]
fn retries_run_as_often_as_the_policy_says() {
    let mut main = echo();
    main["name"] = json!("main");
    main["retryStrategy"] = json!({"limit": 2, "backoff": {"duration": "10", "factor": 2}});
    let pod = |order: &PodOrder| if order.node_name.ends_with("(2)") { good(order) } else { bad(1) };
    let mut world = World::new(argo(&spec(json!([main]))), &pod);
    assert_eq!(world.run(), Phase::Succeeded);
    let names: Vec<&str> = world.pods.iter().map(|order| order.node_name.as_str()).collect();
    assert_eq!(names, ["wf(0)", "wf(1)", "wf(2)"]);
    assert!(world.now - 1_700_000_000_000 >= 30_000, "pauses of 10 and 20 seconds");
    let always = |_: &PodOrder| bad(1);
    let mut world = World::new(world.engine.plan().clone().into(), &always);
    assert_eq!(world.run(), Phase::Failed);
    assert_eq!(world.pods.len(), 3);
    assert_eq!(world.engine.message(), "No more retries left");
}

#[test]
fn exit_handlers_run_after_failure_and_see_the_status() {
    let main = json!({"name": "main", "steps": [[{"name": "a", "template": "echo", "onExit": "bye"}]]});
    let bye = json!({"name": "bye", "container": {"image": "b", "command": ["echo", "{{workflow.status}}"]}});
    let mut spec = spec(json!([main, bye]));
    spec["onExit"] = json!("bye");
    let pod = |order: &PodOrder| if order.node_name == "wf[0].a" { bad(1) } else { good(order) };
    let mut world = World::new(argo(&spec), &pod);
    assert_eq!(world.run(), Phase::Failed);
    let names: Vec<&str> = world.pods.iter().map(|order| order.node_name.as_str()).collect();
    assert_eq!(names, ["wf[0].a", "wf[0].a.onExit", "wf.onExit"]);
    assert_eq!(world.pods[2].argv, ["echo", "Failed"]);
}

#[test]
fn a_shutdown_ends_pods_and_a_suspension_holds_them() {
    let main = json!({"name": "main", "steps": [[{"name": "wait", "template": "wait"}], [{"name": "a", "template": "echo"}]]});
    let wait = json!({"name": "wait", "suspend": {}});
    let spec = spec(json!([main, wait]));
    let mut world = World::new(argo(&spec), &good);
    assert_eq!(world.run(), Phase::Running);
    let resumed = world.apply(Event::Resume { node: String::new(), at: world.now });
    assert!(matches!(resumed[..], [Action::StartPod { .. }]));
    let stopped = world.apply(Event::Shutdown { terminate: false, at: world.now });
    assert!(stopped.iter().any(|action| matches!(action, Action::StopPod { .. })));
    assert_eq!(world.engine.phase(), Some(Phase::Failed));
}

#[test]
fn parallelism_bounds_pods() {
    let main = json!({"name": "main", "steps": [[{"name": "a", "template": "echo", "withSequence": {"count": "5"}}]]});
    let mut spec = spec(json!([main]));
    spec["parallelism"] = json!(2);
    let mut engine = Engine::new(argo(&spec));
    let actions = engine.apply(&Event::Begin { at: 0 });
    assert_eq!(actions.len(), 2);
    assert_eq!(engine.status().progress, "0/5");
}

fn big_pipeline() -> Value {
    json!({
        "pipelineInfo": {"name": "p"},
        "root": {
            "inputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0}}},
            "dag": {"tasks": {
                "make": {"componentRef": {"name": "make"}, "inputs": {"parameters": {"n": {"componentInputParameter": "n"}}}},
                "loop": {"componentRef": {"name": "loop"}, "dependentTasks": ["make"],
                    "parameterIterator": {"itemInput": "item", "items": {"inputParameter": "list"}},
                    "inputs": {"parameters": {"list": {"taskOutputParameter": {"producerTask": "make", "outputParameterKey": "Output"}}}}},
                "yes": {"componentRef": {"name": "one"}, "dependentTasks": ["make"],
                    "triggerPolicy": {"condition": "int(inputs.parameter_values['n']) == 3"},
                    "inputs": {"parameters": {"n": {"componentInputParameter": "n"}}}},
                "no": {"componentRef": {"name": "one"}, "dependentTasks": ["make"],
                    "triggerPolicy": {"condition": "!(int(inputs.parameter_values['n']) == 3)"},
                    "inputs": {"parameters": {"n": {"componentInputParameter": "n"}}}},
                "collect": {"componentRef": {"name": "collect"}, "dependentTasks": ["loop"],
                    "inputs": {"parameters": {"all": {"taskOutputParameter": {"producerTask": "loop", "outputParameterKey": "out"}}}}},
                "exit": {"componentRef": {"name": "status"}, "dependentTasks": ["collect"],
                    "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
                    "inputs": {"parameters": {"status": {"taskFinalStatus": {"producerTask": "collect"}}}}}
            }}},
        "components": {
            "make": leaf(json!({"n": {"parameterType": "NUMBER_INTEGER"}}), "LIST"),
            "loop": {"inputDefinitions": {"parameters": {"item": {"parameterType": "NUMBER_INTEGER"}, "list": {"parameterType": "LIST"}}},
                "outputDefinitions": {"parameters": {"out": {"parameterType": "LIST"}}},
                "dag": {"outputs": {"parameters": {"out": {"valueFromParameter": {"producerSubtask": "inner", "outputParameterKey": "Output"}}}},
                    "tasks": {"inner": {"componentRef": {"name": "one"}, "inputs": {"parameters": {"n": {"componentInputParameter": "item"}}}}}}},
            "one": leaf(json!({"n": {"parameterType": "NUMBER_INTEGER"}}), "NUMBER_INTEGER"),
            "collect": leaf(json!({"all": {"parameterType": "LIST"}}), "STRING"),
            "status": leaf(json!({"status": {"parameterType": "TASK_FINAL_STATUS"}}), "STRING")
        },
        "deploymentSpec": {"executors": {"e": {"container": {"image": "a", "command": ["run"], "args": ["{{$}}"]}}}}
    })
}

fn leaf(parameters: Value, output: &str) -> Value {
    json!({"executorLabel": "e", "inputDefinitions": {"parameters": parameters},
        "outputDefinitions": {"parameters": {"Output": {"parameterType": output}}}})
}

fn echo_component(order: &PodOrder) -> PodEnd {
    let input: Value = serde_json::from_str(&order.argv[1]).unwrap();
    let values = &input["inputs"]["parameterValues"];
    let output = match order.template.as_str() {
        "make" => json!([1, 2]),
        "one" => values["n"].clone(),
        _ => json!(values.to_string()),
    };
    let report = LaunchReport {
        version: 1,
        exit_code: Some(0),
        executor_output: Some(json!({"parameterValues": {"Output": output}})),
        ..LaunchReport::default()
    };
    PodEnd { outcome: Outcome::Succeeded, exit_code: Some(0), report: Some(report), ..PodEnd::default() }
}

#[test]
fn conditions_loops_and_exit_tasks_of_kfp_run() {
    let mut world = World::new(kfp(&big_pipeline(), &json!({})), &echo_component);
    assert_eq!(world.run(), Phase::Succeeded, "{}", world.engine.message());
    let phases = world.phases();
    assert_eq!((phases["wf.yes"].as_str(), phases["wf.no"].as_str()), ("Succeeded", "Skipped"));
    assert_eq!(phases["wf.loop(1).inner"], "Succeeded");
    let input = |name: &str| {
        let order = world.pods.iter().find(|order| order.node_name == name).unwrap();
        serde_json::from_str::<Value>(&order.argv[1]).unwrap()["inputs"]["parameterValues"].clone()
    };
    assert_eq!(input("wf.collect"), json!({"all": [1, 2]}));
    assert_eq!(input("wf.exit")["status"]["state"], "COMPLETE");
}

#[test]
fn an_exit_task_of_kfp_runs_after_a_failure() {
    let pod = |order: &PodOrder| if order.node_name == "wf.collect" { bad(7) } else { echo_component(order) };
    let mut world = World::new(kfp(&big_pipeline(), &json!({"n": 4})), &pod);
    assert_eq!(world.run(), Phase::Failed);
    let order = world.pods.iter().find(|order| order.node_name == "wf.exit").unwrap();
    let input: Value = serde_json::from_str(&order.argv[1]).unwrap();
    let status = &input["inputs"]["parameterValues"]["status"];
    assert_eq!((status["state"].as_str(), status["error"]["code"].as_i64()), (Some("FAILED"), Some(7)));
    assert_eq!(status["pipelineTaskName"], "collect");
}

#[test]
fn a_cache_hit_starts_no_pod() {
    let document = yaml(include_str!("fixtures/iris_pipeline.yaml"));
    let mut engine = Engine::new(kfp(&document, &json!({})));
    let actions = engine.apply(&Event::Begin { at: 1 });
    let [Action::Lookup { node, token, .. }] = &actions[..] else { panic!("{actions:?}") };
    let artifact =
        plan::values::ArtifactRef { uri: "minio://mlpipeline/old/model".into(), ..Default::default() };
    let hit = plan::values::Values {
        artifacts: BTreeMap::from([("model".into(), vec![artifact])]),
        ..Default::default()
    };
    let event = Event::Cache { node: *node, token: *token, hit: Some(Box::new(hit)), at: 2 };
    let actions = engine.apply(&event);
    assert!(matches!(&actions[..], [Action::Lookup { .. }]), "{actions:?}");
    assert!(!engine.accepts(&event), "a second answer is stale");
}

/// Replays every prefix: the state is the same, what was asked for is asked for again, and a pod
/// that ended is never ordered again.
fn check_crashes(plan: &Arc<Plan>, pod: &dyn Fn(&PodOrder) -> PodEnd) {
    let mut world = World::new(plan.clone(), pod);
    world.run();
    let mut ended: Vec<(u32, u32)> = Vec::new();
    let mut live = Engine::new(plan.clone());
    for (index, event) in world.events.iter().enumerate() {
        let text = serde_json::to_string(event).unwrap();
        assert_eq!(&serde_json::from_str::<Event>(&text).unwrap(), event, "records survive JSON");
        live.apply(event);
        let replayed = Engine::replay(plan.clone(), &world.events[..=index]);
        assert_eq!(replayed.status(), live.status(), "prefix {index}");
        assert_eq!(replayed.outstanding(), live.outstanding(), "prefix {index}");
        assert_eq!(replayed.next_timer(), live.next_timer(), "prefix {index}");
        if let Event::Ended { node, token, .. } = event {
            assert!(!ended.contains(&(*node, *token)), "an attempt ends once");
            ended.push((*node, *token));
        }
        for action in replayed.outstanding() {
            if let Action::StartPod { node, token } = action {
                assert!(!ended.contains(&(node, token)), "an ended attempt is not ordered again");
                let (a, b) = (replayed.order(node, token), live.order(node, token));
                assert_eq!(a, b, "the pod is the same, name included");
            }
        }
    }
    assert!(live.finished().is_some());
}

#[test]
fn a_crash_after_any_event_changes_nothing() {
    check_crashes(&kfp(&big_pipeline(), &json!({})), &echo_component);
    let main = json!({"name": "main", "dag": {"failFast": false, "tasks": [
        {"name": "a", "template": "echo", "withItems": [1, 2, 3], "arguments": {"parameters": [{"name": "m", "value": "{{item}}"}]}},
        {"name": "b", "template": "flaky", "dependencies": ["a"], "onExit": "echo"},
        {"name": "c", "template": "echo", "depends": "b.Failed || b.Succeeded"}]}});
    let mut flaky = echo();
    flaky["name"] = json!("flaky");
    flaky["retryStrategy"] = json!({"limit": "3", "retryPolicy": "Always", "backoff": {"duration": "1s"}});
    let mut spec = spec(json!([main, flaky]));
    spec["onExit"] = json!("echo");
    spec["parallelism"] = json!(1);
    check_crashes(&argo(&spec), &|order| if order.node_name.contains("b(0)") { bad(1) } else { good(order) });
}

#[test]
fn wide_workflows_cost_little_per_node() {
    let main = json!({"name": "main", "dag": {"tasks": [
        {"name": "a", "template": "echo", "withSequence": {"count": "2000"},
            "arguments": {"parameters": [{"name": "m", "value": "{{item}}"}]}}]}});
    let begin = std::time::Instant::now();
    let mut world = World::new(argo(&spec(json!([main]))), &good);
    assert_eq!(world.run(), Phase::Succeeded);
    let per_node = begin.elapsed() / 2000;
    assert!(per_node < std::time::Duration::from_millis(1), "{per_node:?} a node");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]

    /// Any dag, any failures: it ends, a crash anywhere changes nothing, and no attempt runs twice.
    #[test]
    fn any_dag_survives_any_crash(
        needs in proptest::collection::vec(proptest::collection::vec(0usize..12, 0..3), 1..12),
        failing in proptest::collection::btree_set(0usize..12, 0..4),
        retries in 0usize..3,
        at_once in 0u32..3,
    ) {
        let tasks: Vec<Value> = needs.iter().enumerate().map(|(at, before)| {
            let before: std::collections::BTreeSet<String> =
                before.iter().filter(|need| **need < at).map(|need| format!("t{need}")).collect();
            json!({"name": format!("t{at}"), "template": "try", "dependencies": before})
        }).collect();
        let main = json!({"name": "main", "dag": {"tasks": tasks, "failFast": retries > 1}});
        let mut attempt = echo();
        attempt["name"] = json!("try");
        if retries > 0 {
            attempt["retryStrategy"] = json!({"limit": retries, "backoff": {"duration": "5s"}});
        }
        let mut spec = spec(json!([main, attempt]));
        spec["parallelism"] = json!(at_once);
        check_crashes(&argo(&spec), &|order| {
            let hit = failing.iter().any(|at| {
                let name = format!("wf.t{at}");
                order.node_name == name || order.node_name.starts_with(&format!("{name}("))
            });
            if hit { bad(1) } else { good(order) }
        });
    }
}
