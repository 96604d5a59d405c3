"""kubectl's verbs against the embedded API, without --validate=false."""
import json
import time
import uuid

from conftest import ROOT

SEED = ROOT / "examples/iris"

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - {{name: main, image: busybox, command: [sh, -c, "echo hello; exec sleep 1000"]}}
"""


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


def test_a_deployment_is_applied_watched_read_and_deleted(kubectl):
    name = unique("web")
    manifest = DEPLOYMENT.format(name=name)
    assert "created" in kubectl("apply", "-f", "-", stdin=manifest).stdout
    kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    assert "2/2" in kubectl("get", "deployment", name).stdout
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=manifest).stdout
    changed = manifest.replace("replicas: 2", "replicas: 1")
    diff = kubectl("diff", "-f", "-", stdin=changed, check=False)
    assert diff.returncode == 1 and "replicas: 1" in diff.stdout, diff.stdout + diff.stderr
    assert "configured" in kubectl("apply", "-f", "-", stdin=changed).stdout
    kubectl("scale", f"deployment/{name}", "--replicas=2")
    kubectl("wait", "--for=condition=Available", f"deployment/{name}", "--timeout=60s")
    described = kubectl("describe", "deployment", name).stdout
    assert "ScalingReplicaSet" in described and "RollingUpdate" in described
    pods = kubectl("get", "pods", "-l", f"app={name}", "-o", "wide").stdout
    assert "Running" in pods and "NODE" in pods
    assert "hello" in kubectl("logs", f"deployment/{name}").stdout
    kubectl("delete", "deployment", name, "--wait=true")
    assert name not in kubectl("get", "deployments").stdout


def test_a_job_ends_and_its_log_can_be_followed(kubectl):
    name = unique("job")
    kubectl("create", "job", name, "--image=busybox", "--", "sh", "-c", "echo one; echo two")
    kubectl("wait", "--for=condition=complete", f"job/{name}", "--timeout=60s")
    assert kubectl("logs", "-f", f"job/{name}").stdout == "one\ntwo\n"
    assert "1/1" in kubectl("get", "job", name).stdout
    kubectl("delete", "job", name)


def test_a_typo_is_refused_before_anything_is_stored(kubectl):
    name = unique("typo")
    manifest = DEPLOYMENT.format(name=name).replace("replicas: 2", "replica: 2")
    refused = kubectl("apply", "-f", "-", stdin=manifest, check=False)
    assert refused.returncode != 0 and 'unknown field "spec.replica"' in refused.stderr, refused.stderr
    assert kubectl("get", "deployment", name, check=False).returncode != 0


def test_explain_knows_built_in_and_our_own_kinds(kubectl):
    assert "replicas" in kubectl("explain", "deployment.spec").stdout
    assert "entrypoint" in kubectl("explain", "workflow.spec").stdout


def test_the_gpu_file_is_refused_as_upstream_does(kubectl):
    refused = kubectl("apply", "-f", SEED / "gpu-model.yaml", check=False)
    assert refused.returncode != 0
    assert "spec.template.metadata.labels" in refused.stderr
    assert "`selector` does not match template `labels`" in refused.stderr


def test_the_hpa_is_shown(kubectl):
    kubectl("apply", "-f", SEED / "hpa.yaml")
    shown = kubectl("get", "hpa").stdout
    assert "ml-hpa" in shown and "Deployment/ml-service" in shown and "MINPODS" in shown
    kubectl("delete", "-f", SEED / "hpa.yaml")


def test_what_does_not_fit_waits_with_the_usual_event(kubectl):
    kubectl("apply", "-f", SEED / "optimized-serving.yaml")
    try:
        # Four times 2 CPUs and 8 GiB: on 2 CPUs at most one of them fits.
        deadline = time.monotonic() + 60
        while "FailedScheduling" not in kubectl("describe", "pods", "-l", "app=ml-svc", check=False).stdout:
            assert time.monotonic() < deadline, "no pod waits"
        assert "Pending" in kubectl("get", "pods", "-l", "app=ml-svc").stdout
    finally:
        kubectl("delete", "-f", SEED / "optimized-serving.yaml")


def test_the_platforms_parts_are_pods_with_logs(kubectl):
    pods = json.loads(kubectl("get", "pods", "-n", "kubeflow", "-o", "json").stdout)["items"]
    names = {pod["metadata"]["name"] for pod in pods}
    assert {"workflow-controller", "ml-pipeline", "metadata-db"} <= names, names
    for pod in pods:
        assert "kubernetes.io/config.mirror" in pod["metadata"]["annotations"]
    kubectl("logs", "-n", "kubeflow", "workflow-controller")


def test_a_users_own_kind_has_schema_defaults_and_columns(kubectl):
    plural, group = unique("w").replace("-", "") + "s", "example.com"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural[:-1], "kind": plural[:-1].capitalize()},
            "versions": [{
                "name": "v1", "served": True, "storage": True,
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                    "type": "object",
                    "properties": {"size": {"type": "integer", "minimum": 1, "default": 3}},
                }}}},
            }],
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(definition))
    kubectl("wait", "--for=condition=Established", f"crd/{plural}.{group}", "--timeout=30s")
    thing = {"apiVersion": f"{group}/v1", "kind": plural[:-1].capitalize(), "metadata": {"name": "a"}, "spec": {}}
    kubectl("apply", "-f", "-", stdin=json.dumps(thing))
    shown = kubectl("get", f"{plural}.{group}").stdout.splitlines()
    assert "SIZE" in shown[0] and "3" in shown[1]
    thing["spec"]["size"] = 0
    refused = kubectl("apply", "-f", "-", stdin=json.dumps(thing), check=False)
    assert "spec.size" in refused.stderr and "greater than or equal to 1" in refused.stderr
    kubectl("delete", f"crd/{plural}.{group}")
