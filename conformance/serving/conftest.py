"""Models made by scikit-learn, and servers that serve them."""
import os
import re
import socket
import subprocess

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

BIN = os.environ.get("SLIPWAY_BIN", "slipway")


class Serving:
    """A running `slipway serve`. Its port of HTTP takes gRPC too; `grpc` is the port that gRPC has for itself."""

    def __init__(self, folder, *flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.grpc = f"127.0.0.1:{probe.getsockname()[1]}"
        flags = ["--model_name=iris", f"--model_dir={folder}", "--host=127.0.0.1", "--http_port=0", *flags]
        flags += ["--enable_grpc=true", f"--grpc_port={self.grpc.split(':')[1]}"]
        self.process = subprocess.Popen([BIN, "serve", *flags], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"listening(?: on)? (\S+)", line)
        assert found, f"the server's first line is {line!r}"
        self.http = found.group(1)
        self.url = f"http://{self.http}"

    def curl(self, path, body=None, *arguments):
        line = ["curl", "-sS", "-w", "\n%{http_code}", *arguments, f"{self.url}{path}"]
        if body is not None:
            line += ["-d", body]
        done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=30)
        text, code = done.stdout.rsplit("\n", 1)
        return int(code), text

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0


class Made:
    """A model with rows to ask it."""

    def __init__(self, folder, model, rows):
        self.folder, self.model, self.rows = folder, model, rows
        joblib.dump(model, folder / "model.joblib")


@pytest.fixture(scope="session")
def iris():
    return load_iris()


@pytest.fixture(scope="session")
def forest(tmp_path_factory, iris):
    model = RandomForestClassifier(50, random_state=0).fit(iris.data, iris.target)
    return Made(tmp_path_factory.mktemp("forest"), model, iris.data[::7])


@pytest.fixture(scope="session")
def regressor(tmp_path_factory, iris):
    model = RandomForestRegressor(30, random_state=0).fit(iris.data, iris.target * 1.7)
    return Made(tmp_path_factory.mktemp("regressor"), model, iris.data[::5])


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """A model of a data frame with columns of texts and numbers."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({
        "colour": random.choice(["red", "green", "blue"], 200),
        "size": random.normal(size=200),
        "city": random.choice(["Oslo", "Rome", "Kyiv"], 200),
        "rooms": random.integers(1, 9, 200).astype(float),
    })
    columns = ColumnTransformer([
        ("texts", OneHotEncoder(handle_unknown="ignore"), ["colour", "city"]),
        ("numbers", StandardScaler(), ["size", "rooms"]),
    ])
    target = np.where(frame["size"] + (frame["city"] == "Rome") > 0.4, "yes", "no")
    model = make_pipeline(columns, RandomForestClassifier(30, random_state=0)).fit(frame, target)
    return Made(tmp_path_factory.mktemp("table"), model, frame[:40])


@pytest.fixture(scope="session")
def serve(request):
    """Starts servers and stops them at the end; those with the same flags are shared."""
    running = {}

    def start(made, *flags):
        key = (made.folder, flags)
        if key not in running:
            running[key] = Serving(made.folder, *flags)
        return running[key]

    yield start
    for server in running.values():
        server.stop()


def same_fields(ours, theirs):
    """Every field that we know has the clients' number, type and label."""
    known = {field.name: field for field in theirs.fields}
    for field in ours.fields:
        other = known.get(field.name)
        assert other is not None, f"{ours.full_name}.{field.name} is unknown to the client"
        got, want = (field.number, field.type, field.is_repeated), (other.number, other.type, other.is_repeated)
        assert got == want, f"{ours.full_name}.{field.name}: {got}, the client has {want}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            same_fields(field.message_type, other.message_type)
