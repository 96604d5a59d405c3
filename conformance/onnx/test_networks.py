"""Networks in the server's own engine answer as ONNX Runtime does, within 1e-5 of the largest number, for any batch.

They are made here in the shapes that torch exports. Not here: each operator alone (crates/onnx).
"""

import json
import os
import pathlib
import re
import subprocess
import urllib.error
import urllib.request

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

BIN = os.environ.get("SLIPWAY_BIN", "slipway")
RNG = np.random.default_rng(5)
node = helper.make_node


def weights(*shape):
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def model(nodes, x, y, constants):
    info = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [info("x", x)], [info("y", y)], made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def residual():
    """Two blocks of a ResNet: strided, with batch normalisation, and a head."""
    nodes, constants, channels = [], {}, 3
    source = "x"

    def conv(x, to, size, stride, groups=1):
        nonlocal channels
        name = f"c{len(nodes)}"
        constants.update({name + "w": weights(to, channels // groups, size, size)})
        for key, value in {"s": RNG.random(to) + 0.5, "b": RNG.normal(size=to), "m": RNG.normal(size=to), "v": RNG.random(to) + 0.5}.items():
            constants[name + key] = value.astype(np.float32)
        nodes.append(node("Conv", [x, name + "w"], [name], strides=[stride] * 2, pads=[size // 2] * 4, group=groups))
        nodes.append(node("BatchNormalization", [name, *(name + key for key in "sbmv")], [name + "n"]))
        channels = to
        return name + "n"

    for to in (16, 32):
        start = channels
        a = conv(source, to, 3, 2)
        nodes.append(node("Relu", [a], [a + "r"]))
        b = conv(a + "r", to, 3, 1, groups=to)
        c = conv(b, to, 1, 1)
        channels = start
        short = conv(source, to, 1, 2)
        nodes.append(node("Add", [c, short], [c + "s"]))
        nodes.append(node("Relu", [c + "s"], [c + "o"]))
        source = c + "o"
    constants.update({"w": weights(10, channels), "b": weights(10)})
    nodes += [node("GlobalAveragePool", [source], ["p"]), node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"], transB=1)]
    return model(nodes, ["N", 3, 33, 30], ["N", 10], constants), (3, 33, 30)


def encoder():
    """An encoder's block: attention of four heads over tokens, and two layers with GELU."""
    size, heads = 64, 4
    nodes = [
        node("LayerNormalization", ["x", "g", "z"], ["n"]), node("MatMul", ["n", "wqkv"], ["qkv"]),
        node("Split", ["qkv"], ["q", "k", "v"], axis=-1, num_outputs=3),
    ]
    for key in "qkv":
        nodes += [node("Reshape", [key, "split"], [key + "r"]),
                  node("Transpose", [key + "r"], [key + "t"], perm=[0, 2, 3, 1] if key == "k" else [0, 2, 1, 3])]
    nodes += [
        node("MatMul", ["qt", "kt"], ["s"]), node("Mul", ["s", "scale"], ["ss"]), node("Softmax", ["ss"], ["p"], axis=-1),
        node("MatMul", ["p", "vt"], ["o"]), node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]), node("Reshape", ["ot", "join"], ["oj"]),
        node("MatMul", ["oj", "wo"], ["op"]), node("Add", ["x", "op"], ["r"]), node("LayerNormalization", ["r", "g", "z"], ["m"]),
        node("MatMul", ["m", "wi"], ["i"]), node("Mul", ["i", "root"], ["ir"]), node("Erf", ["ir"], ["e"]), node("Add", ["e", "one"], ["e1"]),
        node("Mul", ["i", "e1"], ["ie"]), node("Mul", ["ie", "half"], ["ge"]), node("MatMul", ["ge", "wd"], ["d"]), node("Add", ["r", "d"], ["y"]),
    ]
    number = lambda x: np.array(x, dtype=np.float32)
    constants = {
        "g": np.ones(size, np.float32), "z": np.zeros(size, np.float32), "wqkv": weights(size, 3 * size), "wo": weights(size, size),
        "wi": weights(size, 4 * size), "wd": weights(4 * size, size), "split": np.array([0, -1, heads, size // heads]),
        "join": np.array([0, -1, size]), "scale": number((size // heads) ** -0.5), "root": number(0.5 ** 0.5), "one": number(1), "half": number(0.5),
    }
    return model(nodes, ["N", "T", size], ["N", "T", size], constants), (17, size)


def recurrent():
    """Two LSTMs, the first in both directions, and a head on the last step."""
    width, hidden = 12, 20
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("LSTM", ["t", "w1", "r1", "b1"], ["a"], hidden_size=hidden, direction="bidirectional"),
        node("Transpose", ["a"], ["at"], perm=[0, 2, 1, 3]), node("Reshape", ["at", "flat"], ["ar"]),
        node("LSTM", ["ar", "w2", "r2", "b2"], ["", "h"], hidden_size=hidden),
        node("Squeeze", ["h", "first"], ["hs"]), node("MatMul", ["hs", "w"], ["y"]),
    ]
    constants = {
        "w1": weights(2, 4 * hidden, width), "r1": weights(2, 4 * hidden, hidden), "b1": weights(2, 8 * hidden),
        "w2": weights(1, 4 * hidden, 2 * hidden), "r2": weights(1, 4 * hidden, hidden), "b2": weights(1, 8 * hidden),
        "flat": np.array([0, 0, 2 * hidden]), "first": np.array([0]), "w": weights(hidden, 5),
    }
    return model(nodes, ["N", "T", width], ["N", 5], constants), (9, width)


class Server:
    def __init__(self, folder, *flags):
        line = [BIN, "serve", "--model_name=m", f"--model_dir={folder}", "--host=127.0.0.1", "--http_port=0", "--enable_grpc=false", *flags]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        found = re.search(r"listening(?: on)? (\S+)", first)
        assert found, f"the server's first line is {first!r}"
        self.url = f"http://{found.group(1)}"

    def infer(self, x):
        body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}
        request = urllib.request.Request(f"{self.url}/v2/models/m/infer", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            (output,) = json.load(answer)["outputs"]
        return np.array(output["data"], dtype=np.float32).reshape(output["shape"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(30) == 0


@pytest.mark.parametrize("make", [residual, encoder, recurrent])
def test_a_network_answers_as_onnx_runtime_does(make, tmp_path):
    network, row = make()
    onnx.checker.check_model(network)
    onnx.save(network, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    with Server(tmp_path, "--onnx_engine=native") as server:
        x = RNG.normal(size=(9, *row)).astype(np.float32)
        (want,) = session.run(None, {"x": x})
        scale = np.abs(want).max()
        for rows in (9, 4, 1):
            np.testing.assert_allclose(server.infer(x[:rows]), want[:rows], rtol=0, atol=1e-5 * scale)
        np.testing.assert_array_equal(server.infer(x[:1]), server.infer(x)[:1], "a row's bits do not depend on its batch")
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.infer(x[:, :-1] if row[0] == 3 else x[..., :-1])
        assert refused.value.code == 400
        maps = pathlib.Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not re.search("onnxruntime|libpython|libtorch|libtensorflow", maps)


def test_an_operator_that_is_not_there_is_refused_by_name(tmp_path):
    nodes = [node("Relu", ["x"], ["r"], name="first"), node("Det", ["r"], ["y"], name="odd_one")]
    onnx.save(model(nodes, ["N", 3, 3], ["N"], {}), tmp_path / "model.onnx")
    line = [BIN, "serve", "--model_name=m", f"--model_dir={tmp_path}", "--http_port=0", "--enable_grpc=false", "--onnx_engine=native"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert 'Det "odd_one"' in done.stderr and "ONNX Runtime" in done.stderr, done.stderr
