"""Makes tests/fixtures/net_*_{weights,dynamic,static}.json: what ONNX Runtime answers for the files that tests/quantized.rs
writes.

Needs Python 3.11 with onnx, onnxruntime and numpy; run as `python make_quantized.py` in this folder. Fails where ONNX
Runtime does not join what was written into operators of integers.
"""
import collections
import json
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime

HERE = pathlib.Path(__file__).parent / "fixtures"
# Of each net: its convolutions and products.
COUNTS = {"images": (3, 1), "signals": (2, 0)}
CONVOLUTIONS = {"weights": ("Conv", "FusedConv"), "dynamic": ("ConvInteger",), "static": ("QLinearConv",)}
PRODUCTS = {"weights": ("MatMulNBits",), "dynamic": ("DynamicQuantizeMatMul",), "static": ("QGemm",)}


def listed(array):
    return [float(str(x)) for x in np.asarray(array).ravel()]


for name, counts in COUNTS.items():
    plain = json.loads((HERE / f"net_{name}.json").read_text())
    side = plain["inputs"]["X"]
    rows = np.array(side["cells"], np.float32).reshape(side["dims"])
    for mode in CONVOLUTIONS:
        path = HERE / f"net_{name}_{mode}.onnx"
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = f"{folder}/joined.onnx"
            # Further steps are for this CPU alone.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
            ops = collections.Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
        joined = tuple(sum(ops[op] for op in kinds[mode]) for kinds in (CONVOLUTIONS, PRODUCTS))
        assert joined == counts, (path.name, ops)
        if mode == "weights":
            # What it joins here multiplies in fewer bits than the file says.
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        # The range of a batch decides about all its rows; the server asks row by row.
        parts = np.split(rows, len(rows)) if mode == "dynamic" else [rows]
        made = np.concatenate([session.run(["Y"], {"X": part})[0] for part in parts])
        outputs = {"Y": {"dims": list(made.shape), "dtype": str(made.dtype), "cells": listed(made)}}
        path.with_suffix(".json").write_text(json.dumps({"inputs": plain["inputs"], "outputs": outputs}) + "\n")
        away = np.abs(made.ravel() - np.array(plain["outputs"]["Y"]["cells"])).max() / np.abs(made).max()
        print(f"{path.name}: {dict(ops)}, {away:.4f} away from the floats")
