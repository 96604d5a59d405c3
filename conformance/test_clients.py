"""The real SDKs as independent processes."""
import pytest
from conftest import PYTHON, ROOT


@pytest.mark.parametrize("folder", ["kfp", "mlflow"])
def test_the_real_sdk_does_its_whole_round(cluster, folder):
    scripts = sorted((ROOT / "conformance" / folder).glob("*.py"))
    assert scripts, f"conformance/{folder} has no script"
    for script in scripts:
        cluster.run(PYTHON / "python", script, timeout=300)
