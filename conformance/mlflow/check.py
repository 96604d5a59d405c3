"""The real `mlflow` client against a tracking server: MLFLOW_TRACKING_URI names it. Exits 0 when every answer is right.

Needs mlflow and scikit-learn. First runs the plain training script beside this file as its own process, the way a user
would, then goes through runs, search, models, versions, aliases, artifacts, and hostile input.
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

URI = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
HERE = pathlib.Path(__file__).parent
TAG = uuid.uuid4().hex[:8]


def refused(code, call, *args, **kwargs):
    """`call` must fail with the error code, and at once: a client that retries waits for minutes."""
    start = time.monotonic()
    try:
        call(*args, **kwargs)
    except MlflowException as error:
        assert error.error_code == code, f"{error.error_code} instead of {code}: {error}"
        assert time.monotonic() - start < 5, "the client retried"
        return str(error)
    raise AssertionError(f"{call} was not refused with {code}")


def post(path, body, method="POST"):
    request = urllib.request.Request(
        f"{URI}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def plain_training_script():
    env = dict(os.environ, MODEL_NAME=f"churn-{TAG}")
    subprocess.run([sys.executable, str(HERE / "train_plain.py")], check=True, env=env)
    client = MlflowClient()
    version = client.get_model_version(f"churn-{TAG}", "1")
    assert version.status == "READY" and version.run_id, version
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED", run.info
    model = mlflow.sklearn.load_model(f"models:/churn-{TAG}/1")
    from sklearn.datasets import load_iris

    data = load_iris()
    assert (model.predict(data.data) == data.target).mean() > 0.9
    return version


def runs(client):
    experiment = client.create_experiment(f"exp-{TAG}", tags={"team": "a"})
    assert client.get_experiment(experiment).tags["team"] == "a"
    refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, f"exp-{TAG}")
    refused("RESOURCE_DOES_NOT_EXIST", client.get_experiment, "987654")
    assert client.get_experiment_by_name(f"none-{TAG}") is None
    mlflow.set_experiment(f"exp-{TAG}")
    ids = []
    for index in range(5):
        with mlflow.start_run(run_name=f"run {index}") as run:
            ids.append(run.info.run_id)
            mlflow.log_params({"depth": index, "kind": "tree" if index % 2 else "Forest"})
            mlflow.log_metric("acc", 0.5 + index / 10)
            for step in range(3):
                mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
            mlflow.set_tag("a b", f"value {index}")
    with mlflow.start_run(run_id=ids[0]):
        mlflow.log_metric("odd", math.nan)
        mlflow.log_metric("odd.inf", math.inf)
        data = mlflow.data.from_numpy(__import__("numpy").eye(3), name="eye")
        mlflow.log_input(data, context="training")
        mlflow.log_dict({"x": 1}, "folder/x.json")
        mlflow.log_text("hello", "hello.txt")
    run = client.get_run(ids[0])
    assert math.isnan(run.data.metrics["odd"]) and run.data.metrics["odd.inf"] > 1e300
    assert run.inputs.dataset_inputs[0].dataset.name == "eye"
    assert [m.value for m in client.get_metric_history(ids[1], "loss")] == [1.0, 0.5, 1 / 3]
    assert run.data.metrics["loss"] == 1 / 3 and run.data.params["depth"] == "0"
    assert {f.path for f in client.list_artifacts(ids[0])} == {"folder", "hello.txt"}
    assert [f.path for f in client.list_artifacts(ids[0], "folder")] == ["folder/x.json"]
    assert mlflow.artifacts.load_dict(f"runs:/{ids[0]}/folder/x.json") == {"x": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(ids[0], "", folder)
        assert (pathlib.Path(path) / "hello.txt").read_text() == "hello"
    search(client, experiment, ids)
    refused("INVALID_PARAMETER_VALUE", client.log_param, ids[0], "depth", "9")
    client.delete_run(ids[4])
    assert len(client.search_runs([experiment])) == 4
    refused("INVALID_PARAMETER_VALUE", client.log_metric, ids[4], "x", 1)
    client.restore_run(ids[4])
    client.update_run(ids[4], name="renamed", status="KILLED")
    assert client.get_run(ids[4]).info.run_name == "renamed"
    client.delete_tag(ids[0], "a b")
    assert "a b" not in client.get_run(ids[0]).data.tags
    client.delete_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    client.restore_experiment(experiment)
    client.rename_experiment(experiment, f"exp-{TAG}-2")
    assert client.get_experiment_by_name(f"exp-{TAG}-2").experiment_id == experiment
    big = [mlflow.entities.Metric("m", index, 1, index) for index in range(1000)]
    client.log_batch(ids[0], metrics=big)
    assert len(client.get_metric_history(ids[0], "m")) == 1000


def search(client, experiment, ids):
    found = lambda text, **kw: [r.info.run_id for r in client.search_runs([experiment], text, **kw)]
    assert found("metrics.acc > 0.75", order_by=["metrics.acc ASC"]) == ids[3:]
    assert found("params.kind = 'tree' AND metrics.acc >= 0.8") == [ids[3]]
    assert set(found("params.kind LIKE 'F%'")) == {ids[0], ids[2], ids[4]}
    assert found("params.kind LIKE 'f%'") == []
    assert set(found("params.kind ILIKE 'f%'")) == {ids[0], ids[2], ids[4]}
    assert found("tags.`a b` = 'value 2'") == [ids[2]]
    assert found("attributes.run_name = 'run 1'") == [ids[1]]
    assert found(f"run_id IN ('{ids[1]}', '{ids[2]}')", order_by=["run_name DESC"]) == [ids[2], ids[1]]
    assert found("datasets.name = 'eye'") == [ids[0]]
    assert found("params.missing IS NULL AND params.depth IS NOT NULL", order_by=["start_time ASC"]) == ids
    assert found("", order_by=["params.depth DESC"], max_results=2) == [ids[4], ids[3]]
    first = client.search_runs([experiment], max_results=3, order_by=["start_time ASC"])
    second = client.search_runs([experiment], max_results=3, order_by=["start_time ASC"], page_token=first.token)
    assert [r.info.run_id for r in [*first, *second]] == ids and not second.token
    text = refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment], "metrics.acc > 1 OR metrics.acc < 0")
    assert "Invalid clause" in text, text
    assert mlflow.search_runs([experiment]).shape[0] == 5
    assert len(mlflow.search_experiments(filter_string=f"name LIKE 'exp-{TAG}%'")) == 1


def models(client, version):
    name = version.name
    client.set_registered_model_alias(name, "champion", "1")
    assert client.get_model_version_by_alias(name, "champion").run_id == version.run_id
    assert client.get_registered_model(name).aliases == {"champion": "1"}
    mlflow.sklearn.load_model(f"models:/{name}@champion")
    mlflow.pyfunc.load_model(f"models:/{name}/latest")
    mlflow.sklearn.load_model(version.source)
    client.set_model_version_tag(name, "1", "ok", "yes")
    assert client.get_model_version(name, "1").tags == {"ok": "yes"}
    client.set_registered_model_tag(name, "team", "a")
    assert name in [m.name for m in client.search_registered_models(f"name LIKE 'churn-{TAG}%' AND tags.team = 'a'")]
    assert [v.version for v in client.search_model_versions(f"run_id = '{version.run_id}'")] == [version.version]
    client.transition_model_version_stage(name, "1", "Production")
    assert client.get_latest_versions(name, ["Production"])[0].current_stage == "Production"
    client.update_model_version(name, "1", "words")
    client.update_registered_model(name, "more words")
    assert client.get_registered_model(name).description == "more words"
    refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, name)
    refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, f"none-{TAG}")
    refused("RESOURCE_DOES_NOT_EXIST", client.get_model_version, name, "99")
    refused("INVALID_PARAMETER_VALUE", client.get_model_version_by_alias, name, "nobody")
    found = mlflow.search_logged_models(experiment_ids=["0"], filter_string="name = 'model'", output_format="list")
    assert any(model.source_run_id == version.run_id for model in found)
    second = mlflow.register_model(version.source, name)
    assert int(second.version) == 2
    client.rename_registered_model(name, f"{name}-2")
    assert client.get_model_version(f"{name}-2", "2").run_id == version.run_id
    client.delete_registered_model_alias(f"{name}-2", "champion")
    client.delete_model_version(f"{name}-2", "2")
    client.delete_registered_model(f"{name}-2")


def pipeline_source(client):
    """The seed's pipeline registers a model by its URI alone; the run has to be found from it."""
    run = str(uuid.uuid4())
    source = f"minio://mlpipeline/v2/artifacts/default/iris-pipeline/{run}/train-model/{uuid.uuid4()}/model"
    assert post("registered-models/create", {"name": f"iris-{TAG}"})[0] == 200
    status, answer = post("model-versions/create", {"name": f"iris-{TAG}", "source": source})
    assert status == 200 and answer["model_version"]["version"] == "1", answer
    run_id = client.get_model_version(f"iris-{TAG}", "1").run_id
    assert run_id == run.replace("-", "")
    assert client.get_run(run_id).info.run_id == run_id
    assert client.get_model_version_download_uri(f"iris-{TAG}", "1") == source


def hostile(client):
    name = f"iris-{TAG}"
    for source in ["/etc/passwd", "file:///etc/passwd", "s3://b/../../x", "mlflow-artifacts:/0/..%2f..%2fetc", "mlflow-artifacts:/0/x/artifacts"]:
        status, answer = post("model-versions/create", {"name": name, "source": source})
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), (source, answer)
    for location in ["/etc", "file:///etc", "s3://b/../c", "s3://b/c#x"]:
        status, answer = post("experiments/create", {"name": f"bad-{TAG}", "artifact_location": location})
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), (location, answer)
    for path in ["..%2f..%2fplatform.db", "%252e%252e/platform.db", "0/..%5c..%5cx"]:
        for method in ["GET", "PUT", "DELETE"]:
            request = urllib.request.Request(f"{URI}/api/2.0/mlflow-artifacts/artifacts/{path}", b"x" if method == "PUT" else None, method=method)
            try:
                urllib.request.urlopen(request, timeout=10)
                raise AssertionError(f"{method} {path} was not refused")
            except urllib.error.HTTPError as error:
                assert error.code in (400, 404), (method, path, error.code)


def main():
    with urllib.request.urlopen(f"{URI}/health") as response:
        assert response.read() == b"OK"
    client = MlflowClient()
    start = time.monotonic()
    version = plain_training_script()
    runs(client)
    models(client, version)
    pipeline_source(client)
    hostile(client)
    print(f"mlflow {mlflow.__version__}: every answer is right ({time.monotonic() - start:.1f} s)")


main()
