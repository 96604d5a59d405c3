//! Argo's features one by one, each as a small workflow whose pods are pretended.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use plan::engine::{Outcome, PodEnd};
use plan::order::PodOrder;
use plan::{Action, Engine, Event, Identity};
use pod_protocol::launch::{LaunchReport, UploadedArtifact};
use serde_json::{Value, json};

/// A run that ended: argv by node name, phases by node name, the workflow's phase and message.
struct Ran {
    engine: Engine,
    pods: BTreeMap<String, Arc<PodOrder>>,
}

impl Ran {
    fn phase(&self) -> &str {
        self.engine.phase().unwrap().word()
    }
    fn node(&self, name: &str) -> api::workflow::NodeStatus {
        let nodes = self.engine.status().nodes;
        let found = nodes.values().find(|node| node.name == name);
        found.cloned().unwrap_or_else(|| {
            panic!("no node {name} among {:?}", nodes.values().map(|n| &n.name).collect::<Vec<_>>())
        })
    }
    fn argv(&self, name: &str) -> &[String] {
        &self.pods[name].argv
    }
}

/// Pods whose command is `false` fail with 1; the others succeed, write `v` to each parameter and their last word as result.
fn end(order: &PodOrder) -> PodEnd {
    let code = i32::from(order.argv[0] == "false");
    let mut report = LaunchReport { version: 1, exit_code: Some(code), ..LaunchReport::default() };
    if code == 0 {
        for parameter in &order.launch.output_parameters {
            report.parameters.insert(parameter.name.clone(), "v".into());
        }
        for artifact in &order.launch.output_artifacts {
            let uploaded = UploadedArtifact { uri: artifact.uri.clone(), ..UploadedArtifact::default() };
            report.artifacts.insert(artifact.name.clone(), uploaded);
        }
        report.result = order.launch.capture_result.then(|| order.argv.last().cloned().unwrap());
    }
    let outcome = if code == 0 { Outcome::Succeeded } else { Outcome::Failed };
    PodEnd { outcome, exit_code: Some(code), report: Some(report), ..PodEnd::default() }
}

fn run(yaml: &str) -> Ran {
    run_with(yaml, &BTreeMap::new())
}

fn run_with(yaml: &str, library: &BTreeMap<String, Value>) -> Ran {
    let spec: Value = serde_yaml_ng::from_str(yaml).unwrap();
    let identity = Identity {
        name: "wf".into(),
        namespace: "team".into(),
        bucket: "mlpipeline".into(),
        ..Identity::default()
    };
    let mut engine = Engine::new(Arc::new(plan::argo::compile(identity, &spec, library).unwrap()));
    let mut pods = BTreeMap::new();
    let mut now = 0;
    let mut open = engine.apply(&Event::Begin { at: 0 });
    loop {
        now += 1;
        if open.is_empty() {
            let Some(due) = engine.next_timer() else { return Ran { engine, pods } };
            open.extend(engine.apply(&Event::Tick { at: due }));
            now = due;
            continue;
        }
        if let Action::StartPod { node, token } = open.remove(0) {
            let Some(order) = engine.order(node, token) else { continue };
            pods.insert(order.node_name.clone(), order.clone());
            open.extend(engine.apply(&Event::Ended { node, token, end: Box::new(end(&order)), at: now }));
        }
    }
}

const LEAVES: &str = "
- name: echo
  inputs: {parameters: [{name: m, default: none}]}
  container: {image: a, command: [echo, '{{inputs.parameters.m}}']}
- name: fail
  container: {image: a, command: ['false']}
";

fn templates(text: &str) -> String {
    format!("{text}{LEAVES}")
}

#[test]
fn artifacts_and_output_parameters_travel() {
    let ran = run(&templates(
        "
entrypoint: main
templates:
- name: main
  dag:
    tasks:
    - {name: make, template: make}
    - name: use
      template: use
      dependencies: [make]
      arguments:
        parameters: [{name: p, value: '{{tasks.make.outputs.parameters.out}}'}]
        artifacts: [{name: in, from: '{{tasks.make.outputs.artifacts.model}}'}]
- name: make
  container: {image: a, command: [sh]}
  outputs:
    parameters: [{name: out, valueFrom: {path: /tmp/o, default: x}}]
    artifacts: [{name: model, path: /out/m, archive: {tar: {}}}]
- name: use
  inputs:
    parameters: [{name: p}]
    artifacts: [{name: in, path: /in/m}, {name: raw, path: /in/raw, raw: {data: hello}}]
  script: {image: a, command: [sh], source: 'echo {{inputs.parameters.p}} {{inputs.artifacts.in.path}}'}
",
    ));
    assert_eq!(ran.phase(), "Succeeded", "{}", ran.engine.message());
    let order = &ran.pods["wf.use"];
    let input = &order.launch.input_artifacts[0];
    assert!(input.uri.starts_with("minio://mlpipeline/team/wf/wf-make-") && input.uri.ends_with("/model"));
    assert_eq!(input.archive, pod_protocol::launch::Archive::TarGz);
    let texts: Vec<&str> = order.launch.files.iter().map(|file| file.text.as_str()).collect();
    assert_eq!(texts, ["hello", "echo v /in/m"]);
    assert_eq!(order.argv, ["sh", "/var/run/slipway/script"]);
}

#[test]
fn skipped_outputs_fall_back_to_defaults() {
    let ran = run(&templates(
        "
entrypoint: main
templates:
- name: main
  steps:
  - - {name: a, template: echo, when: 'false'}
  - - name: b
      template: echo
      arguments: {parameters: [{name: m, value: '{{steps.a.outputs.result}}'}]}
    - name: c
      template: echo
      arguments: {parameters: [{name: m, value: \"{{=steps.a.outputs.result ?? 'other'}}\"}]}
  - - name: d
      template: echo
      arguments: {parameters: [{name: m, value: 'x {{steps.a.outputs.result}}'}]}
",
    ));
    assert_eq!(ran.argv("wf[1].b")[1], "none");
    assert_eq!(ran.argv("wf[1].c")[1], "other");
    assert_eq!(ran.node("wf[2].d").phase, "Error");
    assert_eq!(ran.phase(), "Error");
}

#[test]
fn failures_that_are_accepted_do_not_fail_the_group() {
    let ran = run(&templates(
        "
entrypoint: main
templates:
- name: main
  steps:
  - - {name: a, template: fail, continueOn: {failed: true}}
    - {name: b, template: echo}
  - - {name: c, template: echo, when: '{{steps.a.status}} == Failed'}
",
    ));
    assert_eq!((ran.phase(), ran.node("wf[1].c").phase.as_str()), ("Succeeded", "Succeeded"));
}

#[test]
fn hooks_run_when_their_expression_holds() {
    let ran = run(&templates(
        "
entrypoint: main
hooks:
  exit: {template: echo}
  running: {template: echo, expression: workflow.status == \"Running\"}
  never: {template: echo, expression: workflow.status == \"Error\"}
templates:
- name: main
  steps:
  - - name: a
      template: fail
      hooks:
        failed: {template: echo, expression: 'steps.a.status == \"Failed\"'}
        good: {template: echo, expression: 'steps.a.status == \"Succeeded\"'}
",
    ));
    let names: Vec<&str> = ran.pods.keys().map(String::as_str).collect();
    assert_eq!(names, ["wf.hooks.running", "wf.onExit", "wf[0].a", "wf[0].a.hooks.failed"]);
    assert_eq!(ran.phase(), "Failed");
}

#[test]
fn templates_of_other_objects_are_found_by_reference() {
    let other: Value = serde_yaml_ng::from_str(&templates(
        "
templates:
- name: outer
  inputs: {parameters: [{name: x}]}
  steps:
  - - {name: in, template: echo, arguments: {parameters: [{name: m, value: '{{inputs.parameters.x}}'}]}}
",
    ))
    .unwrap();
    let library = BTreeMap::from([("team/shared".to_owned(), other)]);
    let ran = run_with(
        "
entrypoint: main
arguments: {parameters: [{name: who, value: 7}]}
templates:
- name: main
  dag:
    tasks:
    - name: a
      templateRef: {name: shared, template: outer}
      arguments: {parameters: [{name: x, value: 'hi {{workflow.parameters.who}} {{workflow.name}}'}]}
    - name: b
      inline: {container: {image: a, command: [echo, inline]}}
",
        &library,
    );
    assert_eq!(ran.phase(), "Succeeded", "{}", ran.engine.message());
    assert_eq!(ran.argv("wf.a[0].in")[1], "hi 7 wf");
    assert_eq!(ran.argv("wf.b")[1], "inline");
}

#[test]
fn loops_name_their_items_and_may_be_empty() {
    let ran = run(&templates(
        "
entrypoint: main
templates:
- name: main
  steps:
  - - name: seq
      template: echo
      withSequence: {start: 3, end: 1, format: 'n%02d'}
      arguments: {parameters: [{name: m, value: '{{item}}'}]}
    - name: maps
      template: echo
      withItems: [{b: 2, a: (x)}]
      when: '{{item.b}} == 2'
      arguments: {parameters: [{name: m, value: '{{item.a}}'}]}
    - {name: none, template: echo, withParam: '[]'}
",
    ));
    assert_eq!(ran.argv("wf[0].seq(0:n03)")[1], "n03");
    assert_eq!(ran.argv("wf[0].maps(0:a:x,b:2)")[1], "(x)");
    let none = ran.node("wf[0].none");
    assert_eq!((none.phase.as_str(), none.message.as_str()), ("Skipped", "Skipped, empty params"));
    assert_eq!(ran.phase(), "Succeeded");
}

#[test]
fn retries_ask_their_expression() {
    let ran = run("
entrypoint: main
templates:
- name: main
  retryStrategy: {limit: 5, expression: 'asInt(lastRetry.exitCode) > 1'}
  container: {image: a, command: ['false']}
");
    assert_eq!(ran.pods.len(), 1);
    assert_eq!(ran.phase(), "Failed");
}

#[test]
fn what_cannot_be_started_is_not_tried_for_ever() {
    let ran = run("
entrypoint: main
templates:
- name: main
  retryStrategy: {retryPolicy: Always}
  dag: {tasks: [{name: a, template: work, arguments: {parameters: [{name: m, value: x}]}}]}
- name: work
  retryStrategy: {retryPolicy: Always}
  inputs: {parameters: [{name: m}]}
  container: {image: a, command: ['{{=asInt(inputs.parameters.m)}}']}
");
    assert_eq!((ran.phase(), ran.pods.len()), ("Error", 0));
    assert!(ran.node("wf(0).a").message.contains("asInt"), "{}", ran.node("wf(0).a").message);
}

#[test]
fn a_name_stands_for_one_thing() {
    for (text, why) in [
        (
            "templates: [{name: main, dag: {tasks: [{name: a, template: x}, {name: a, template: x}]}}, {name: x, container: {image: a, command: [b]}}]",
            "templates.main.tasks[1].name 'a' is not unique",
        ),
        (
            "templates: [{name: main, steps: [[{name: a, template: x}], [{name: a, template: x}]]}, {name: x, container: {image: a, command: [b]}}]",
            "templates.main.steps[1].name 'a' is not unique",
        ),
        (
            "templates: [{name: main, container: {image: a, command: [b]}}, {name: main, container: {image: a, command: [b]}}]",
            "templates[1].name 'main' is not unique",
        ),
    ] {
        let spec: Value = serde_yaml_ng::from_str(&format!("entrypoint: main\n{text}")).unwrap();
        let refused =
            plan::argo::compile(Identity::default(), &spec, &BTreeMap::new()).map(drop).unwrap_err();
        assert_eq!(refused.to_string(), why);
    }
}

#[test]
fn a_workflow_that_recurses_for_ever_ends() {
    let ran = run("
entrypoint: main
templates:
- {name: main, steps: [[{name: again, template: main}]]}
");
    assert_eq!(ran.phase(), "Error");
}

#[test]
fn a_graph_that_recurses_for_ever_ends_and_shows_its_nodes() {
    let ran = run("
entrypoint: main
templates:
- {name: main, dag: {tasks: [{name: again, template: main}]}}
");
    assert_eq!(ran.phase(), "Error");
    let nodes = ran.engine.status().nodes;
    let deepest = nodes.values().find(|node| node.message.contains("max recursion depth")).unwrap();
    assert!(deepest.outbound_nodes.is_empty(), "it never began");
}

#[test]
fn what_cannot_run_says_so_and_the_rest_runs() {
    let ran = run(&templates(
        "
entrypoint: main
templates:
- name: main
  dag:
    failFast: false
    tasks: [{name: a, template: res}, {name: b, template: echo}, {name: c, template: bare}]
- {name: res, resource: {action: get}}
- {name: bare, container: {image: a}}
",
    ));
    assert!(ran.node("wf.a").message.contains("'resource', which is not supported yet"));
    assert!(ran.node("wf.c").message.contains("does not have the command specified"));
    assert_eq!(ran.node("wf.b").phase, "Succeeded");
    assert_eq!(ran.phase(), "Error");
}

#[test]
fn suspend_waits_its_time_and_expressions_make_group_outputs() {
    let ran = run(&templates(
        "
entrypoint: main
templates:
- name: main
  outputs: {parameters: [{name: r, valueFrom: {expression: \"steps.a.outputs.result + '!'\"}, globalName: g}]}
  steps:
  - - {name: wait, template: wait}
  - - {name: a, template: echo}
- {name: wait, suspend: {duration: 20s}}
",
    ));
    assert_eq!(ran.phase(), "Succeeded", "{}", ran.engine.message());
    assert!(ran.engine.now() >= 20_000);
    assert_eq!(ran.node("wf").outputs.parameters[0].value.as_deref(), Some("none!"));
    assert_eq!(ran.engine.globals().parameters["g"], json!("none!"));
}

#[test]
fn names_that_climb_are_refused() {
    let ran = run("
entrypoint: main
templates:
- name: main
  inputs: {parameters: [{name: p, value: '/out/../../etc'}]}
  container: {image: a, command: [sh]}
  outputs: {artifacts: [{name: m, path: '{{inputs.parameters.p}}/x'}]}
");
    assert_eq!(ran.phase(), "Error");
    assert!(ran.engine.message().contains("must not contain '..'"), "{}", ran.engine.message());
}
