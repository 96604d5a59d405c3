//! The launcher as a process, against the real artifact face: what the workflow controller relies on.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use objects::face::{Caller, Gate, Refusal};
use objects::{ArtifactStore, ObjectName};
use pod_protocol::launch::{
    Archive, InputArtifact, InputFile, LaunchReport, LaunchSpec, OutputArtifact, OutputParameter, PythonEnv,
    TaskResultPost, TaskResultRef, VERSION,
};

#[derive(Default, Clone)]
struct Open(Arc<Mutex<Vec<TaskResultPost>>>);

#[async_trait]
impl Gate for Open {
    async fn authenticate(&self, _token: Option<&str>) -> Result<Caller, Refusal> {
        Ok(Caller::Platform)
    }

    async fn task_result(&self, post: TaskResultPost) -> Result<(), Refusal> {
        self.0.lock().unwrap().push(post);
        Ok(())
    }
}

struct World {
    folder: tempfile::TempDir,
    store: ArtifactStore,
    posts: Open,
    url: String,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().join("store")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let posts = Open::default();
        let router = objects::face::router(store.clone(), Arc::new(posts.clone()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { folder, store, posts, url, runtime }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn put(&self, key: &str, text: &str) {
        let name = ObjectName::new("b", key).unwrap();
        self.runtime.block_on(self.store.put_bytes(&name, text.to_owned())).unwrap();
    }

    fn stored(&self, key: &str) -> PathBuf {
        self.store.path(&ObjectName::new("b", key).unwrap())
    }

    fn command(&self, spec: &LaunchSpec, argv: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pod"));
        command
            .arg("launch")
            .arg("--")
            .args(argv)
            .env("SLIPWAY_LAUNCH", serde_json::to_string(spec).unwrap())
            .env("SLIPWAY_ARTIFACTS_URL", &self.url)
            .env("SLIPWAY_TERMINATION_LOG", self.path("message"));
        command
    }

    fn run(&self, spec: &LaunchSpec, argv: &[&str]) -> (Output, LaunchReport) {
        let output = self.command(spec, argv).output().unwrap();
        (output, self.report())
    }

    fn report(&self) -> LaunchReport {
        serde_json::from_slice(&std::fs::read(self.path("message")).unwrap()).unwrap()
    }
}

fn spec() -> LaunchSpec {
    LaunchSpec { version: VERSION, ..LaunchSpec::default() }
}

fn output(name: &str, path: String, uri: &str, archive: Archive) -> OutputArtifact {
    OutputArtifact { name: name.into(), path, uri: uri.into(), archive, optional: false }
}

fn input(name: &str, uri: &str, path: String, archive: Archive) -> InputArtifact {
    InputArtifact { name: name.into(), uri: uri.into(), path, archive, optional: false, mode: None }
}

#[test]
fn inputs_arrive_and_outputs_leave_as_files_folders_and_archives() {
    let world = World::new();
    world.put("ns/one", "1");
    world.put("ns/tree/a/x", "x");
    world.put("ns/tree/y", "y");
    let work = world.path("w");
    let mut spec = spec();
    spec.folders = vec![format!("{work}/out")];
    spec.files = vec![InputFile { path: format!("{work}/s.sh"), text: "exit 0\n".into(), mode: Some(0o755) }];
    spec.input_artifacts = vec![
        input("one", "minio://b/ns/one", format!("{work}/in/one"), Archive::None),
        input("tree", "minio://b/ns/tree", format!("{work}/in/tree"), Archive::None),
    ];
    spec.output_parameters = vec![
        OutputParameter { name: "p".into(), path: format!("{work}/out/p"), default: None },
        OutputParameter { name: "d".into(), path: format!("{work}/out/none"), default: Some("dflt".into()) },
    ];
    spec.output_artifacts = vec![
        output("copy", format!("{work}/out/tree"), "minio://b/ns/copy", Archive::None),
        output("file", format!("{work}/in/one"), "minio://b/ns/file", Archive::None),
        output("tar", format!("{work}/out/tree"), "minio://b/ns/tree.tgz", Archive::TarGz),
    ];
    spec.capture_result = true;
    spec.log_uri = Some("minio://b/ns/main.log".into());
    let script = format!(
        "cd {work} && test -x s.sh && cp -r in/tree out/tree && printf 42 >out/p; echo hi; echo err >&2"
    );
    let (done, report) = world.run(&spec, &["sh", "-ec", &script]);
    assert_eq!(done.status.code(), Some(0), "{done:?} {report:?}");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "hi\n");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "err\n");
    assert_eq!((report.exit_code, report.result.as_deref(), report.error), (Some(0), Some("hi\n"), None));
    assert_eq!(report.parameters["p"], "42");
    assert_eq!(report.parameters["d"], "dflt");
    assert_eq!((report.artifacts["copy"].files, report.artifacts["copy"].size), (2, 2));
    assert_eq!(report.artifacts["file"].sha256.len(), 64);
    assert_eq!(std::fs::read(world.stored("ns/copy/a/x")).unwrap(), b"x");
    assert_eq!(std::fs::read(world.stored("ns/file")).unwrap(), b"1");
    let log = std::fs::read_to_string(world.stored("ns/main.log")).unwrap();
    assert!(log.contains("hi\n") && log.contains("err\n"), "{log}");

    let mut next = LaunchSpec { version: VERSION, ..LaunchSpec::default() };
    next.input_artifacts =
        vec![input("tar", "minio://b/ns/tree.tgz", format!("{work}/again"), Archive::TarGz)];
    let (done, _) = world.run(&next, &["cat", &format!("{work}/again/a/x"), &format!("{work}/again/y")]);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "xy");
}

#[test]
fn the_exit_code_is_the_users_and_outputs_leave_after_a_failure_too() {
    let world = World::new();
    let mut spec = spec();
    spec.output_artifacts = vec![
        output("there", world.path("there"), "minio://b/ns/there", Archive::None),
        output("absent", world.path("absent"), "minio://b/ns/absent", Archive::None),
    ];
    let (done, report) = world.run(&spec, &["sh", "-c", &format!("echo x >{}; exit 7", world.path("there"))]);
    assert_eq!((done.status.code(), report.exit_code, report.error), (Some(7), Some(7), None));
    assert!(report.artifacts.contains_key("there") && !report.artifacts.contains_key("absent"));
    let (done, report) = world.run(&spec, &["true"]);
    assert_eq!((done.status.code(), report.exit_code), (Some(67), Some(0)));
    assert!(report.error.unwrap().contains("output artifact `absent`"));
}

#[test]
fn failures_of_the_launcher_are_named() {
    let world = World::new();
    let (done, report) = world.run(&spec(), &["/no/such/program"]);
    assert_eq!((done.status.code(), report.exit_code), (Some(127), None));
    let mut missing = spec();
    missing.input_artifacts = vec![input("m", "minio://b/ns/none", world.path("m"), Archive::None)];
    let (done, report) = world.run(&missing, &["true"]);
    assert_eq!(done.status.code(), Some(65));
    assert!(report.error.unwrap().contains("`m`: minio://b/ns/none does not exist"));
    missing.input_artifacts[0].optional = true;
    assert_eq!(world.run(&missing, &["true"]).0.status.code(), Some(0));
    missing.input_artifacts[0].uri = "minio://b/ns/../other".into();
    assert_eq!(world.run(&missing, &["true"]).0.status.code(), Some(65));
    let mut leak = spec();
    leak.output_artifacts = vec![output("l", world.path("l"), "minio://b/ns/l", Archive::None)];
    let (done, report) = world.run(&leak, &["ln", "-s", "/etc/passwd", &world.path("l")]);
    assert_eq!(done.status.code(), Some(67));
    assert!(report.error.unwrap().contains("leads out"));
    let old = LaunchSpec { version: 99, ..LaunchSpec::default() };
    assert_eq!(world.run(&old, &["true"]).0.status.code(), Some(64));
}

#[test]
fn a_large_report_goes_to_the_task_result() {
    let world = World::new();
    let mut spec = spec();
    spec.capture_result = true;
    spec.task_result = Some(TaskResultRef {
        name: "wf-1".into(),
        namespace: "ns".into(),
        workflow: "wf".into(),
        workflow_uid: "u".into(),
    });
    let (done, report) = world.run(&spec, &["sh", "-c", "seq 1 200000"]);
    assert_eq!(done.status.code(), Some(0));
    assert!(report.elsewhere && report.result.is_none() && report.exit_code == Some(0));
    let posts = world.posts.0.lock().unwrap();
    let result = posts[0].report.result.as_ref().unwrap();
    assert_eq!(result.len(), 256 * 1024);
    assert!(result.ends_with("199999\n200000\n"));
    assert_eq!(posts[0].task_result.name, "wf-1");
}

#[test]
fn sigterm_reaches_the_command_and_its_outputs_are_kept() {
    let world = World::new();
    for capture in [false, true] {
        let mut spec = spec();
        spec.capture_result = capture;
        spec.output_parameters =
            vec![OutputParameter { name: "p".into(), path: world.path("p"), default: None }];
        let script = format!(
            "trap 'echo stopped >{}; exit 3' TERM; echo ready >{}; while :; do sleep 0.01; done",
            world.path("p"),
            world.path("fifo")
        );
        let _ = std::fs::remove_file(world.path("fifo"));
        assert!(Command::new("mkfifo").arg(world.path("fifo")).status().unwrap().success());
        let child: Child =
            world.command(&spec, &["sh", "-c", &script]).stdout(Stdio::null()).spawn().unwrap();
        // Opens when the command has its trap.
        std::fs::read(world.path("fifo")).unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        let done = child.wait_with_output().unwrap();
        let report = world.report();
        assert_eq!((done.status.code(), report.exit_code), (Some(3), Some(3)));
        assert_eq!(report.parameters["p"], "stopped\n");
    }
}

#[test]
fn a_grandchild_that_holds_the_pipes_does_not_hold_the_step() {
    let world = World::new();
    let mut spec = spec();
    spec.capture_result = true;
    let (done, report) = world.run(&spec, &["sh", "-c", "sleep 30 & echo $! ; exit 0"]);
    assert_eq!(done.status.code(), Some(0));
    let pid = report.result.unwrap();
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
}

fn fake_package(folder: &Path) {
    std::fs::create_dir_all(folder.join("tiny")).unwrap();
    std::fs::write(folder.join("tiny/__init__.py"), "value = 'from the cache'\n").unwrap();
    let mut setup = std::fs::File::create(folder.join("setup.py")).unwrap();
    setup
        .write_all(
            b"from setuptools import setup\nsetup(name='tiny-slipway', version='1.0', packages=['tiny'])\n",
        )
        .unwrap();
}

#[test]
fn python_requirements_come_from_the_image_or_the_cache() {
    let has_pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !has_pip.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no python3 with pip");
        return;
    }
    let world = World::new();
    let mut spec = spec();
    let layers = vec![vec!["pip".to_owned(), "--no-deps".to_owned()]];
    spec.python = Some(PythonEnv { cache_folder: world.path("cache"), pip_arguments: layers });
    let print_path = ["python3", "-c", "import os; print(os.environ.get('PYTHONPATH', 'image'))"];
    let (done, _) = world.run(&spec, &print_path);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "image\n", "{done:?}");

    spec.python = Some(PythonEnv {
        cache_folder: world.path("cache"),
        pip_arguments: vec![vec!["install".into(), "--no-index".into(), "no-such-package-slipway==1".into()]],
    });
    let (done, report) = world.run(&spec, &["true"]);
    assert_eq!(done.status.code(), Some(66));
    assert!(report.error.unwrap().contains("no-such-package-slipway==1"));
    assert!(String::from_utf8_lossy(&done.stderr).contains("No matching distribution"), "{done:?}");

    let package = world.folder.path().join("package");
    fake_package(&package);
    spec.python = Some(PythonEnv {
        cache_folder: world.path("cache"),
        pip_arguments: vec![vec![
            "--no-index".into(),
            "--no-deps".into(),
            "--no-build-isolation".into(),
            package.display().to_string(),
        ]],
    });
    let (done, report) = world.run(&spec, &["python3", "-c", "import tiny; print(tiny.value)"]);
    if report.error.as_deref().is_some_and(|error| error.contains("pip install")) {
        eprintln!("skipped: this python cannot build a package offline");
        return;
    }
    assert_eq!(String::from_utf8_lossy(&done.stdout), "from the cache\n", "{done:?}");
}
