"""The real SDKs as independent processes."""
import json

import pytest
from conftest import PYTHON, ROOT


@pytest.mark.parametrize("script, part", [("kfp/client.py", "pipelines"), ("mlflow/check.py", "mlflow")])
def test_the_real_sdk_does_its_whole_round(cluster, script, part):
    endpoint = cluster.status()["addresses"][part]
    cluster.run(PYTHON / "python", ROOT / "conformance" / script, endpoint, timeout=300)


LIBRARY_ANSWERS = """
import json, sys, mlflow
from sklearn.datasets import load_iris
rows = load_iris().data.tolist()
answers = mlflow.sklearn.load_model("models:/churn/1").predict(rows).tolist()
json.dump({"instances": rows, "predictions": answers}, open(sys.argv[1], "w"))
"""


def test_a_model_logged_by_a_plain_script_is_deployed_and_answers_as_the_library_does(cluster, tmp_path):
    cluster.run("env", "MODEL_NAME=churn", PYTHON / "python", ROOT / "conformance/mlflow/train_plain.py")
    cluster.slipway("deploy", "churn", "models:/churn/1")
    file = tmp_path / "library.json"
    cluster.run(PYTHON / "python", "-c", LIBRARY_ANSWERS, file)
    library = json.loads(file.read_text())
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps({"instances": library["instances"]}))
    answer = json.loads(cluster.slipway("predict", "churn", f"@{rows}").stdout)
    assert answer["predictions"] == library["predictions"]
    refused = cluster.slipway("predict", "churn", "1,2,3", check=False)
    assert refused.returncode != 0 and "4" in refused.stderr and "3" in refused.stderr, refused.stderr
