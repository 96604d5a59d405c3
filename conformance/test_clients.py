"""The real SDKs as independent processes."""
import pytest
from conftest import PYTHON, ROOT


@pytest.mark.parametrize("script, part", [("kfp/client.py", "pipelines"), ("mlflow/check.py", "mlflow")])
def test_the_real_sdk_does_its_whole_round(cluster, script, part):
    endpoint = cluster.status()["addresses"][part]
    cluster.run(PYTHON / "python", ROOT / "conformance" / script, endpoint, timeout=300)
