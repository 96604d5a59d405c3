"""One cluster for the whole run, and the clients that talk to it."""
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = os.environ.get("SLIPWAY_BIN", "slipway")
PYTHON = Path(os.environ.get("SLIPWAY_PYTHON", "/usr/bin"))
KUBECTLS = [path for path in os.environ.get("SLIPWAY_KUBECTLS", "").split(":") if path and os.access(path, os.X_OK)]


class Cluster:
    """A running `slipway up`."""

    def __init__(self, data: Path):
        self.data = data
        self.slipway("up", "--detach", "--no-merge", *ports())
        self.env = os.environ | dict(self._exports())

    def _exports(self):
        for line in self.slipway("env").stdout.splitlines():
            name, value = line.removeprefix("export ").split("=", 1)
            yield name, shlex.split(value)[0]

    def slipway(self, command, *arguments, check=True, timeout=180):
        line = [BIN, *command.split(), "--data", str(self.data), *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done

    def run(self, *line, check=True, timeout=240, stdin=None):
        line = list(map(str, line))
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, env=self.env, input=stdin)
        assert not check or done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done

    def status(self):
        return json.loads(self.slipway("status", "-o", "json").stdout)


def ports():
    return [f"--{part}-port=0" for part in ("kubernetes", "pipelines", "mlflow", "gateway", "artifacts")]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A cluster whose python:3.9-slim is this machine's Python with scikit-learn and the article's script."""
    cluster = Cluster(tmp_path_factory.mktemp("slipway") / "data")
    script = ROOT / "examples/iris/train.py"
    image = ["--from", "host", "--copy", f"{script}:/app/train.py", "--path-prepend", PYTHON]
    cluster.slipway("images add", "python:3.9-slim", *image)
    yield cluster
    cluster.slipway("down")
    left = subprocess.run(["pgrep", "-f", f"{cluster.data}/"], capture_output=True, text=True).stdout
    assert not left, f"processes of the cluster are left after `down`: {left}"


@pytest.fixture(params=KUBECTLS, ids=lambda path: Path(path).name)
def kubectl(request, cluster):
    """Runs one of the kubectls."""

    def run(*arguments, **options):
        return cluster.run(request.param, *arguments, **options)

    return run
