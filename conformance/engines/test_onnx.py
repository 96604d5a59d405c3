"""Graphs in ONNX Runtime: the server's answers are those of the library's Python package, to the bit."""
import json
import os
import signal
import subprocess
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import BIN, opened

RANDOM = np.random.default_rng(7)
OURS = ("--host=127.0.0.1", "--http_port=0", "--enable_grpc=false", "--model_name=m")


def info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weights(name, *shape):
    return numpy_helper.from_array((RANDOM.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32), name)


def save(folder, nodes, inputs, outputs, initializers=(), **external):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx", **external)
    return folder


def mlp(folder, **external):
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w2"], ["y"]),
        node("Softmax", ["y"], ["p"]),
    ]
    outputs = [info("y", ["n", 3]), info("p", ["n", 3])]
    return save(folder, nodes, [info("x", ["n", 8])], outputs, [weights("w1", 8, 64), weights("w2", 64, 3)], **external)


def convolutions(folder):
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]), node("Flatten", ["c"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    return save(folder, nodes, [info("x", ["n", 1, 8, 8])], [info("y", ["n", 5])], [weights("k1", 4, 1, 3, 3), weights("w", 64, 5)])


def transformer(folder):
    """One head of attention over tokens, with a residual and a normalisation."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "wq"], ["q"]), node("MatMul", ["x", "wk"], ["k"]), node("MatMul", ["x", "wv"], ["v"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]), node("MatMul", ["q", "kt"], ["s"]),
        node("Softmax", ["s"], ["p"], axis=-1), node("MatMul", ["p", "v"], ["h"]), node("Add", ["x", "h"], ["r"]),
        node("LayerNormalization", ["r", "g", "b"], ["y"], axis=-1),
    ]
    ones = numpy_helper.from_array(np.ones(16, np.float32), "g")
    zeros = numpy_helper.from_array(np.zeros(16, np.float32), "b")
    matrices = [weights(name, 16, 16) for name in ("wq", "wk", "wv")]
    return save(folder, nodes, [info("x", ["n", "t", 16])], [info("y", ["n", "t", 16])], [*matrices, ones, zeros])


def v2(array, name="x"):
    kinds = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "uint8": "UINT8", "bool": "BOOL"}
    kind = kinds.get(str(array.dtype), "BYTES")
    return {"name": name, "shape": list(array.shape), "datatype": kind, "data": array.ravel().tolist()}


def outputs(answer):
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer["outputs"]}


@pytest.mark.parametrize("make, shape", [(mlp, (5, 8)), (convolutions, (4, 1, 8, 8)), (transformer, (3, 6, 16))])
def test_answers_are_the_librarys(start, tmp_path, make, shape):
    folder = make(tmp_path / "m")
    server = start("serve", *OURS, f"--model_dir={folder}", "--onnx_engine=onnxruntime")
    x = RANDOM.normal(size=shape).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    got = outputs(server.ask("/v2/models/m/infer", {"inputs": [v2(x)]}))
    for output, want in zip(session.get_outputs(), session.run(None, {"x": x})):
        np.testing.assert_array_equal(got[output.name].astype(np.float32), want)
    rows = server.ask("/v1/models/m:predict", {"instances": x.tolist()})["predictions"]
    assert len(rows) == shape[0]
    metadata = server.ask("/v2/models/m")
    assert metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"][0]["shape"][0] == -1
    assert server.opened() == set()
    assert [opened(pid) for pid in server.workers()] == [{"libonnxruntime"}]


def test_weights_beside_the_graph_and_rows_one_by_one(start, tmp_path):
    external = dict(save_as_external_data=True, location="model.bin", size_threshold=0)
    folder = mlp(tmp_path / "m", **external)
    assert (folder / "model.bin").exists()
    server = start("serve", *OURS, f"--model_dir={folder}")
    x = RANDOM.normal(size=(2, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    got = outputs(server.ask("/v2/models/m/infer", {"inputs": [v2(x)]}))
    np.testing.assert_array_equal(got["y"].astype(np.float32), session.run(["y"], {"x": x})[0])
    one = save(tmp_path / "one", [helper.make_node("HardSwish", ["x"], ["y"])], [info("x", [1, 2])], [info("y", [1, 2])])
    server = start("serve", *OURS, f"--model_dir={one}", "--onnx_engine=onnxruntime")
    x = np.array([[1, 2], [3, 4], [-1, 0]], np.float32)
    session = onnxruntime.InferenceSession(one / "model.onnx")
    want = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
    got = outputs(server.ask("/v2/models/m/infer", {"inputs": [v2(x)]}))
    np.testing.assert_array_equal(got["y"].astype(np.float32), want)


def test_texts_types_and_graphs_without_rows(start, tmp_path):
    node = helper.make_node
    nodes = [
        node("Identity", ["t"], ["same"]), node("Cast", ["d"], ["whole"], to=TensorProto.INT64),
        node("Cast", ["d"], ["truth"], to=TensorProto.BOOL), node("ReduceSum", ["d"], ["sum"], keepdims=0),
    ]
    inputs = [info("t", ["n"], TensorProto.STRING), info("d", ["n", 2], TensorProto.DOUBLE)]
    made = [
        info("same", ["n"], TensorProto.STRING), info("whole", ["n", 2], TensorProto.INT64),
        info("truth", ["n", 2], TensorProto.BOOL), info("sum", [], TensorProto.DOUBLE),
    ]
    folder = save(tmp_path / "m", nodes, inputs, made)
    server = start("serve", *OURS, f"--model_dir={folder}", "--onnx_engine=onnxruntime")
    d = np.array([[1.5, 0.0], [-2.25, 3.0]])
    body = {"inputs": [v2(np.array(["å", "b"]), "t"), v2(d, "d")]}
    got = outputs(server.ask("/v2/models/m/infer", body))
    assert got["same"].tolist() == ["å", "b"]
    np.testing.assert_array_equal(got["whole"], d.astype(np.int64))
    np.testing.assert_array_equal(got["truth"], d != 0)
    assert (got["sum"].shape, got["sum"].item()) == ((), 2.25)
    assert [one["shape"] for one in server.ask("/v2/models/m")["outputs"]] == [[-1], [-1, 2], [-1, 2], []]
    wrong = {"inputs": [v2(np.array(["a"]), "t"), v2(d[:, :1], "d")]}
    code, text = server.curl("/v2/models/m/infer", wrong)
    assert code == 400 and '\\"d\\"' in text, text


def test_a_graph_runs_in_the_servers_process_only_where_it_is_asked_for(start, tmp_path):
    folder = mlp(tmp_path / "m")
    server = start("serve", *OURS, f"--model_dir={folder}", "--onnx_engine=onnxruntime", "--onnx_in_process")
    x = RANDOM.normal(size=(3, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    got = outputs(server.ask("/v2/models/m/infer", {"inputs": [v2(x)]}))
    np.testing.assert_array_equal(got["y"].astype(np.float32), session.run(["y"], {"x": x})[0])
    assert (server.opened(), server.workers()) == ({"libonnxruntime"}, [])


def refused(*flags):
    done = subprocess.run([BIN, "serve", *OURS, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    return done.stderr + done.stdout


def test_what_is_not_there_is_refused_by_name(tmp_path):
    folder = mlp(tmp_path / "m")
    text = refused(f"--model_dir={folder}", "--onnx_engine=onnxruntime", "--onnx_execution_providers=CUDAExecutionProvider")
    assert "CUDAExecutionProvider" in text and "CPUExecutionProvider" in text
    text = refused(f"--model_dir={folder}", "--onnx_engine=onnxruntime", f"--onnx_library={tmp_path}")
    assert "ONNX Runtime was not found" in text and str(tmp_path) in text
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:200])
    assert "model.onnx" in refused(f"--model_dir={folder}", "--onnx_engine=onnxruntime")


def test_a_worker_that_is_killed_costs_its_calls_alone(start, tmp_path):
    folder = mlp(tmp_path / "m")
    server = start("serve", *OURS, f"--model_dir={folder}", "--onnx_engine=onnxruntime", "--onnx_intra_op_threads=1")
    body = {"inputs": [v2(np.zeros((1, 8), np.float32))]}
    server.ask("/v2/models/m/infer", body)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    end = time.monotonic() + 60
    code, text = server.curl("/v2/models/m/infer", body)
    while code != 200:
        assert code == 503 and time.monotonic() < end, (code, text)
        code, text = server.curl("/v2/models/m/infer", body)
    assert server.workers() != [worker] and json.loads(text)["outputs"]
