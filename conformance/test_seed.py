"""The user's own files: Argo's template, the KFP pipeline, the served model."""
import hashlib
import io
import json
import re
import subprocess
import urllib.request

import joblib
import pytest
from conftest import KUBECTLS, PYTHON, ROOT

SEED = ROOT / "examples/iris"


def kubectl(cluster, *arguments, **options):
    return cluster.run(KUBECTLS[0], *arguments, **options)


def test_the_workflow_template_runs_and_its_artifact_is_the_steps_bytes(cluster):
    kubectl(cluster, "apply", "-f", SEED / "train-component.yaml")
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "train-once"},
        "spec": {"workflowTemplateRef": {"name": "train-iris-model"}},
    }
    kubectl(cluster, "create", "-f", "-", stdin=json.dumps(workflow))
    kubectl(cluster, "wait", "--for=jsonpath={.status.phase}=Succeeded", "workflow/train-once", "--timeout=120s")
    pods = json.loads(kubectl(cluster, "get", "pods", "-l", "workflows.argoproj.io/workflow=train-once", "-o", "json").stdout)
    main = next(c for c in pods["items"][0]["status"]["containerStatuses"] if c["name"] == "main")
    report = json.loads(main["state"]["terminated"]["message"])
    base = cluster.status()["addresses"]["pipelines"]
    with urllib.request.urlopen(f"{base}/artifacts/default/train-once/train-once/model") as answer:
        model = answer.read()
    assert hashlib.sha256(model).hexdigest() == report["artifacts"]["model"]["sha256"]
    assert joblib.load(io.BytesIO(model)).predict([[5.1, 3.5, 1.4, 0.2]]).tolist() == [0]


@pytest.fixture(scope="module")
def package(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    subprocess.run([PYTHON / "python", SEED / "pipeline_kfp2.py"], cwd=folder, check=True)
    return folder / "iris_pipeline.yaml"


def test_the_article_s_journey_ends_in_a_prediction(cluster, package):
    submitted = cluster.slipway("kfp submit", "--pipeline-file", package, "--run-name", "iris-run-001", "--wait").stdout
    assert "Succeeded" in submitted or "SUCCEEDED" in submitted
    assert re.search(r"^Accuracy: [01]\.\d{4}$", cluster.slipway("logs", "iris-run-001/train-model").stdout, re.M)
    version = cluster.run(PYTHON / "python", ROOT / "scripts/latest_version.py", "iris").stdout.split()
    assert version[0] == "1" and len(version[1]) == 32
    cluster.slipway("deploy", "pytorch-iris", "models:/iris/1")
    services = json.loads(kubectl(cluster, "get", "svc", "pytorch-iris", "-n", "default", "-o", "json").stdout)
    answer = cluster.run("env", f"SERVICE_IP={services['spec']['clusterIP']}", "sh", SEED / "predict.sh").stdout
    assert json.loads(answer) == {"predictions": [0]}


def test_models_are_served_beside_each_other_and_replaced_without_a_restart(cluster, package):
    """Each is a server on port 8080 of its own pod; a changed one's new pod starts while the old one still answers."""
    cluster.slipway("deploy", "one", "models:/iris/1")
    cluster.slipway("deploy", "other", "models:/iris/1")
    changed = {"spec": {"predictor": {"model": {"args": ["--workers", "1"]}}}}
    kubectl(cluster, "patch", "isvc", "one", "--type=merge", "-p", json.dumps(changed))
    kubectl(cluster, "wait", "--for=jsonpath={.spec.template.spec.containers[0].args[4]}=1", "deployment/one-predictor")
    kubectl(cluster, "rollout", "status", "deployment/one-predictor", "--timeout=60s")
    pods = json.loads(kubectl(cluster, "get", "pods", "-l", "serving.kserve.io/inferenceservice", "-o", "json").stdout)
    restarts = [status["restartCount"] for pod in pods["items"] for status in pod["status"]["containerStatuses"]]
    assert len(restarts) >= 2 and not any(restarts), restarts
    for name in ("one", "other"):
        assert "predictions" in cluster.slipway("predict", name, "5.1,3.5,1.4,0.2").stdout


def test_a_second_run_of_the_same_package_is_cached(cluster, package):
    cluster.slipway("kfp submit", "--pipeline-file", package, "--run-name", "again-1", "--wait")
    cluster.slipway("kfp submit", "--pipeline-file", package, "--run-name", "again-2", "--wait")
    refused = cluster.slipway("logs", "again-2/train-model", check=False)
    assert refused.returncode != 0, "a cached step starts no pod"


def test_the_article_s_old_pipeline_says_what_it_needs(cluster):
    refused = cluster.slipway("kfp submit", "--pipeline-file", SEED / "pipeline.py", "--run-name", "old", check=False)
    assert refused.returncode != 0
    assert "kfp 2" in refused.stderr and "pipeline_kfp2.py" in refused.stderr, refused.stderr
