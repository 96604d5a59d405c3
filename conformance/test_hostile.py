"""Hostile and broken input: a clear error in the protocol's own shape, nothing run or read, everything else goes on."""
import json
import pickle
import urllib.error
import urllib.request

import joblib
import pytest
from conftest import KUBECTLS


def post(url, body, headers=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"} | (headers or {}))
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/slipway-was-here",)


def test_a_pickle_that_calls_os_system_is_refused_by_name(cluster, tmp_path):
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps(Evil()))
    refused = cluster.slipway("model inspect", file, check=False)
    assert "system" in refused.stdout + refused.stderr
    assert refused.returncode != 0


def test_a_truncated_joblib_is_refused(cluster, tmp_path):
    from sklearn.linear_model import LinearRegression

    file = tmp_path / "model.joblib"
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), file)
    file.write_bytes(file.read_bytes()[:-40])
    refused = cluster.slipway("model inspect", file, check=False)
    assert refused.returncode != 0 and refused.stderr


def test_a_package_that_is_no_pipeline_is_a_400(cluster):
    base = cluster.status()["addresses"]["pipelines"]
    code, text = post(f"{base}/apis/v2beta1/runs", {"display_name": "x", "pipeline_spec": {"not": "a pipeline"}})
    assert code == 400 and json.loads(text)["message"]


def pipeline(tasks):
    """IR of tasks of one component that prints; `tasks` maps names to what they depend on."""
    executor = {"container": {"image": "busybox", "command": ["true"]}}
    return {
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
        "pipelineInfo": {"name": "broken"},
        "components": {"comp-say": {"executorLabel": "exec-say"}},
        "deploymentSpec": {"executors": {"exec-say": executor}},
        "root": {"dag": {"tasks": {
            name: {"taskInfo": {"name": name}, "componentRef": {"name": component}, "dependentTasks": after}
            for name, (component, after) in tasks.items()
        }}},
    }


@pytest.mark.parametrize("tasks, said", [
    ({"a": ("comp-none", [])}, "comp-none"),
    ({"a": ("comp-say", ["b"]), "b": ("comp-say", ["a"])}, "cycle"),
    ({"a": ("comp-say", ["nobody"])}, "nobody"),
])
def test_a_pipeline_that_cannot_run_is_a_400_that_names_the_fault(cluster, tasks, said):
    base = cluster.status()["addresses"]["pipelines"]
    code, text = post(f"{base}/apis/v2beta1/runs", {"display_name": "x", "pipeline_spec": pipeline(tasks)})
    assert code == 400 and said in json.loads(text)["message"], (code, text)


def test_a_foreign_host_header_is_refused_on_every_face(cluster):
    addresses = cluster.status()["addresses"]
    for part, path in [("pipelines", "/apis/v2beta1/healthz"), ("mlflow", "/health")]:
        request = urllib.request.Request(addresses[part] + path, headers={"Host": "evil.example"})
        try:
            urllib.request.urlopen(request)
            raise AssertionError(f"{part} answered a foreign Host")
        except urllib.error.HTTPError as error:
            assert error.code in (403, 421), (part, error.code)


def test_another_user_of_the_machine_gets_nothing(cluster):
    import os

    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    url = cluster.status()["addresses"]["mlflow"] + "/api/2.0/mlflow/experiments/search"
    code = (
        # What Python loads late must be loaded while its folder can still be read.
        "import os,sys,urllib.request,urllib.error,encodings.idna\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: urllib.request.urlopen(urllib.request.Request(sys.argv[1], data=b'{}'))\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    assert cluster.run("python3", "-c", code, url).stdout.strip() in ("401", "403")


def test_an_artifact_with_dots_is_refused_before_anything_runs(cluster):
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "dots"},
        "spec": {"entrypoint": "a", "templates": [{
            "name": "a",
            "inputs": {"artifacts": [{"name": "x", "path": "/in", "s3": {"key": "../../cluster.db"}}]},
            "container": {"image": "busybox", "command": ["cat", "/in"]},
        }]},
    }
    refused = cluster.run(KUBECTLS[0], "create", "-f", "-", stdin=json.dumps(workflow), check=False)
    assert refused.returncode != 0 and ".." in refused.stderr, refused.stderr


def test_a_step_sees_no_keys_and_no_host_environment(cluster):
    script = f"cat ~/.ssh/id_* /etc/shadow {cluster.data}/pki/* 2>/dev/null; env; true"
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nosy"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", script]}]},
    }
    cluster.run(KUBECTLS[0], "create", "-f", "-", stdin=json.dumps(pod))
    cluster.run(KUBECTLS[0], "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/nosy", "--timeout=60s")
    log = cluster.run(KUBECTLS[0], "logs", "nosy").stdout
    assert "PRIVATE KEY" not in log and "root:" not in log
    assert "SLIPWAY_BIN" not in log and "HOSTNAME=nosy" in log
