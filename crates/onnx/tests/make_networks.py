"""Makes tests/fixtures/net_*.onnx, networks of every operator that `exec` has for them, and what ONNX Runtime answers.

Needs Python 3.11 with onnx, onnxruntime and numpy; run as `python make_networks.py` in this folder. The shapes are those
that frameworks export: a free batch, weights as initializers.
"""
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).parent / "fixtures"
RANDOM = np.random.default_rng(11)
F, I64 = TensorProto.FLOAT, TensorProto.INT64
U8, I8, I32 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32
node = helper.make_node


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def small(*shape):
    return (RANDOM.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)


def listed(array):
    return [float(str(x)) if array.dtype.kind == "f" else int(x) for x in np.asarray(array).ravel()]


def sides(values):
    return {key: {"dims": list(value.shape), "dtype": str(value.dtype), "cells": listed(value)} for key, value in values.items()}


def save(name, nodes, inputs, outputs, weights, opset=18, free=1):
    """`inputs`: name -> array, whose first `free` dimensions are; `outputs`: name -> type."""
    kinds = {np.dtype("float32"): F, np.dtype("int64"): I64, np.dtype("bool"): TensorProto.BOOL,
             np.dtype("uint8"): U8, np.dtype("int8"): I8}
    given = [helper.make_tensor_value_info(key, kinds[value.dtype], ["N", "T"][:free] + list(value.shape[free:])) for key, value in inputs.items()]
    made = [helper.make_tensor_value_info(key, kind, None) for key, kind in outputs.items()]
    constants = [numpy_helper.from_array(np.asarray(value, order="C"), key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, given, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    answers = dict(zip(outputs, session.run(list(outputs), inputs)))
    (HERE / f"net_{name}.onnx").write_bytes(data)
    (HERE / f"net_{name}.json").write_text(json.dumps({"inputs": sides(inputs), "outputs": sides(answers)}) + "\n")


def convolutions():
    for name, shape, weights, attrs in [
        ("conv_same", (3, 8, 9, 10), (12, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("conv_strided", (2, 8, 11, 12), (6, 8, 5, 3), {"strides": [2, 3], "pads": [2, 0, 1, 1]}),
        ("conv_dilated", (2, 4, 12, 12), (4, 4, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
        ("conv_groups", (2, 12, 7, 7), (8, 3, 3, 3), {"group": 4, "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("conv_depthwise", (2, 6, 9, 9), (12, 1, 3, 3), {"group": 6, "strides": [2, 1], "auto_pad": "SAME_LOWER"}),
        ("conv_pointwise", (2, 16, 5, 6), (20, 16, 1, 1), {}),
        ("conv_line", (3, 5, 40), (7, 5, 5), {"pads": [2, 2], "strides": [2]}),
        ("conv_room", (2, 3, 5, 6, 7), (4, 3, 3, 2, 3), {"pads": [1, 0, 1, 1, 1, 1], "strides": [1, 2, 1]}),
    ]:
        bias = normal(weights[0])
        save(name, [node("Conv", ["X", "w", "b"], ["Y"], **attrs)], {"X": normal(*shape)}, {"Y": F},
             {"w": small(*weights), "b": bias})
    for name, shape, weights, attrs in [
        ("up", (2, 6, 5, 6), (6, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}),
        ("up_groups", (2, 6, 5, 4), (6, 2, 2, 3), {"strides": [2, 1], "group": 3, "dilations": [1, 2]}),
        ("up_line", (2, 3, 9), (3, 5, 4), {"strides": [3]}),
    ]:
        out = weights[1] * attrs.get("group", 1)
        save(f"conv_{name}", [node("ConvTranspose", ["X", "w", "b"], ["Y"], **attrs)], {"X": normal(*shape)}, {"Y": F},
             {"w": small(*weights), "b": normal(out)})


def pools():
    x = {"X": normal(3, 4, 9, 11)}
    save("pools", [
        node("MaxPool", ["X"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("MaxPool", ["X"], ["b"], kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1, dilations=[2, 1]),
        node("AveragePool", ["X"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", ["X"], ["d"], kernel_shape=[3, 3], pads=[1, 0, 0, 1], count_include_pad=1),
        node("AveragePool", ["X"], ["e"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("GlobalAveragePool", ["X"], ["f"]),
        node("GlobalMaxPool", ["X"], ["g"]),
    ], x, {key: F for key in "abcdefg"}, {})


def norms():
    save("norms", [
        node("BatchNormalization", ["X", "s", "b", "m", "v"], ["a"], epsilon=1e-3),
        node("InstanceNormalization", ["X", "s", "b"], ["c"]),
        node("LayerNormalization", ["X", "ls", "lb"], ["d"], axis=-1),
        node("LayerNormalization", ["X", "ts"], ["e"], axis=2, epsilon=1e-4),
        node("LRN", ["X"], ["f"], size=3, alpha=0.01, beta=0.6, bias=1.5),
    ], {"X": normal(3, 6, 5, 4)}, {key: F for key in "acdef"},
        {"s": normal(6), "b": normal(6), "m": normal(6), "v": np.abs(normal(6)), "ls": normal(4), "lb": normal(4), "ts": normal(5, 4)})
    save("group_norm", [node("GroupNormalization", ["X", "s", "b"], ["Y"], num_groups=3)], {"X": normal(2, 6, 5)}, {"Y": F},
         {"s": normal(6), "b": normal(6)}, opset=21)


def recurrence():
    steps, width, hidden = 7, 5, 6
    x = {"X": normal(3, steps, width)}
    for name, op, gates, attrs, directions in [
        ("lstm", "LSTM", 4, {}, 1),
        ("lstm_both", "LSTM", 4, {"direction": "bidirectional"}, 2),
        ("lstm_back", "LSTM", 4, {"direction": "reverse"}, 1),
        ("gru", "GRU", 3, {"linear_before_reset": 1}, 1),
        ("gru_early", "GRU", 3, {"direction": "bidirectional"}, 2),
        ("rnn", "RNN", 1, {}, 1),
    ]:
        kept = ["y", "h"] + (["c"] if op == "LSTM" else [])
        save(name, [
            node("Transpose", ["X"], ["x"], perm=[1, 0, 2]),
            node(op, ["x", "w", "r", "b"], kept, hidden_size=hidden, **attrs),
            node("Transpose", ["y"], ["Y"], perm=[2, 0, 1, 3]),
            node("Transpose", ["h"], ["H"], perm=[1, 0, 2]),
        ], x, {"Y": F, "H": F},
            {"w": small(directions, gates * hidden, width), "r": small(directions, gates * hidden, hidden),
             "b": normal(directions, 2 * gates * hidden) * 0.1})


def attention():
    """A block of an encoder as torch exports it: free batch and length, a causal mask made of shapes."""
    size, heads, inner = 64, 4, 128
    each = size // heads
    nodes = [
        node("Shape", ["X"], ["shape"]),
        node("Gather", ["shape", "zero"], ["n"]), node("Gather", ["shape", "one"], ["t"]),
        node("Unsqueeze", ["n", "at0"], ["n1"]), node("Unsqueeze", ["t", "at0"], ["t1"]),
        node("Concat", ["n1", "t1", "heads", "each"], ["split"], axis=0),
        node("Concat", ["n1", "t1", "size"], ["joined"], axis=0),
        node("LayerNormalization", ["X", "g1", "b1"], ["x1"], axis=-1),
        node("MatMul", ["x1", "wqkv"], ["qkv0"]), node("Add", ["qkv0", "bqkv"], ["qkv"]),
        node("Split", ["qkv"], ["q", "k", "v"], axis=-1, num_outputs=3),
    ]
    for key in "qkv":
        perm = [0, 2, 3, 1] if key == "k" else [0, 2, 1, 3]
        nodes += [node("Reshape", [key, "split"], [key + "r"]), node("Transpose", [key + "r"], [key + "t"], perm=perm)]
    nodes += [
        node("MatMul", ["qt", "kt"], ["s0"]), node("Mul", ["s0", "scale"], ["s1"]),
        node("Concat", ["t1", "t1"], ["square"], axis=0),
        node("ConstantOfShape", ["square"], ["ones"], value=numpy_helper.from_array(np.array([1.0], dtype=np.float32))),
        node("Trilu", ["ones"], ["low"], upper=0),
        node("Equal", ["low", "nil"], ["hidden"]),
        node("Where", ["hidden", "minus", "s1"], ["s2"]),
        node("Softmax", ["s2"], ["p"], axis=-1),
        node("MatMul", ["p", "vt"], ["o0"]), node("Transpose", ["o0"], ["o1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["o1", "joined"], ["o2"]),
        node("MatMul", ["o2", "wo"], ["o3"]), node("Add", ["o3", "bo"], ["o4"]), node("Add", ["X", "o4"], ["x2"]),
        node("LayerNormalization", ["x2", "g2", "b2"], ["x3"], axis=-1),
        node("MatMul", ["x3", "wi"], ["f0"]), node("Add", ["f0", "bi"], ["f1"]),
        node("Div", ["f1", "root"], ["f2"]), node("Erf", ["f2"], ["f3"]), node("Add", ["f3", "unit"], ["f4"]),
        node("Mul", ["f1", "f4"], ["f5"]), node("Mul", ["f5", "half"], ["f6"]),
        node("MatMul", ["f6", "wd"], ["f7"]), node("Add", ["f7", "bd"], ["f8"]), node("Add", ["x2", "f8"], ["Y"]),
    ]
    number = lambda x: np.array(x, dtype=np.float32)
    whole = lambda *x: np.array(x, dtype=np.int64)
    save("attention", nodes, {"X": normal(3, 9, size)}, {"Y": F}, {
        "zero": np.array(0), "one": np.array(1), "at0": whole(0), "heads": whole(heads), "each": whole(each), "size": whole(size),
        "scale": number(each ** -0.5), "nil": number(0), "minus": number(-np.inf), "root": number(2 ** 0.5), "unit": number(1),
        "half": number(0.5), "g1": normal(size), "b1": normal(size), "g2": normal(size), "b2": normal(size),
        "wqkv": small(size, 3 * size), "bqkv": normal(3 * size) * number(0.1), "wo": small(size, size), "bo": normal(size),
        "wi": small(size, inner), "bi": normal(inner), "wd": small(inner, size), "bd": normal(size)}, free=2)


def rest():
    x = {"X": normal(4, 3, 5)}
    names = {"LeakyRelu": {"alpha": 0.1}, "Elu": {}, "Selu": {}, "Celu": {"alpha": 0.7}, "HardSigmoid": {}, "HardSwish": {}, "Mish": {},
             "Softsign": {}, "Softplus": {}, "Erf": {}, "ThresholdedRelu": {"alpha": 0.3}, "Sinh": {}, "Atan": {}}
    save("activations", [node(op, ["X"], [op], **attrs) for op, attrs in names.items()] + [node("PRelu", ["X", "slope"], ["P"])],
         x, {**{op: F for op in names}, "P": F}, {"slope": normal(3, 1)})
    save("gelu", [node("Gelu", ["X"], ["a"]), node("Gelu", ["X"], ["b"], approximate="tanh")], x, {"a": F, "b": F}, {}, opset=20)
    image = {"X": normal(2, 8, 4, 6)}
    save("places", [
        node("Pad", ["X", "pads", "fill"], ["a"]), node("Pad", ["X", "pads"], ["b"], mode="reflect"),
        node("Pad", ["X", "pads"], ["c"], mode="edge"), node("Pad", ["X", "cut"], ["d"]),
        node("DepthToSpace", ["X"], ["e"], blocksize=2), node("DepthToSpace", ["X"], ["f"], blocksize=2, mode="CRD"),
        node("SpaceToDepth", ["X"], ["g"], blocksize=2), node("Trilu", ["X", "shift"], ["h"]),
        node("GatherElements", ["X", "picks"], ["i"], axis=-1), node("Mod", ["X", "third"], ["j"], fmod=1),
    ], {**image, "picks": RANDOM.integers(-6, 6, size=(2, 8, 4, 3))}, {key: F for key in "abcdefghij"}, {
        "pads": np.array([0, 1, 2, 3, 0, 2, 1, 0]), "fill": np.array(0.5, dtype=np.float32),
        "cut": np.array([0, -1, 0, -2, 0, 0, 1, 0]), "shift": np.array(1),
        "third": np.array(0.3, dtype=np.float32)})
    scales, rest = np.array([1, 1, 1.5, 2], dtype=np.float32), np.array([8, 3, 9])
    modes = {"a": {"mode": "nearest"}, "b": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
             "c": {"mode": "linear"}, "d": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
             "e": {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}}
    save("resize", [node("Shape", ["X"], ["n"], start=0, end=1), node("Concat", ["n", "rest"], ["sizes"], axis=0)] + [node("Resize", ["X", "", "scales"], [key], **attrs) for key, attrs in modes.items()]
         + [node("Resize", ["X", "", "", "sizes"], ["s" + key], **attrs) for key, attrs in modes.items() if key in "acd"],
         image, {**{key: F for key in modes}, "sa": F, "sc": F, "sd": F}, {"scales": scales, "rest": rest})
    save("nd", [
        node("GatherND", ["X", "picks"], ["g"], batch_dims=0), node("ScatterND", ["X", "put", "new"], ["a"]),
        node("Range", ["from", "to", "by"], ["r"]), node("Mod", ["r", "three"], ["m"]), node("Cast", ["m"], ["mf"], to=F),
        node("Add", ["X", "mf"], ["b"]), node("ReduceSum", ["g"], ["gs"], keepdims=0), node("Add", ["X", "gs"], ["c"]),
    ], {"X": normal(3, 4, 5)}, {"a": F, "b": F, "c": F}, {
        "picks": np.array([[0, 1], [0, -1]]), "put": np.array([[0, 1, 2], [0, 3, -1]]), "new": normal(2),
        "from": np.array(-4), "to": np.array(6), "by": np.array(2), "three": np.array(3)})


def hostile():
    """Small files that ask for more memory or time than a run may have; each is named after what it misuses."""
    x, big = {"X": normal(1, 4)}, np.array([4000, 4000])
    filled = [node("ConstantOfShape", ["big"], ["c"])]
    image = [node("Unsqueeze", ["c", "front"], ["i"])]
    front = np.array([0, 1])
    cases = {
        "filled": ([node("ConstantOfShape", ["huge"], ["Y"])], {"huge": np.array([1 << 20, 1 << 20, 1 << 20])}),
        "padded": ([node("Pad", ["X", "pads"], ["Y"])], {"pads": np.array([1 << 40, 0, 1 << 40, 0])}),
        "padded_past_all_numbers": ([node("Pad", ["X", "pads"], ["Y"])], {"pads": np.array([(1 << 63) - 1, 0, (1 << 63) - 1, 0])}),
        "tiled": ([node("Tile", ["X", "times"], ["Y"])], {"times": np.array([1 << 31, 1 << 31])}),
        "counted": ([node("Range", ["zero", "much", "one"], ["Y"])], {"zero": np.array(0), "much": np.array(1 << 39), "one": np.array(1)}),
        "broadcast": (filled + [node("Unsqueeze", ["c", "front"], ["a"]), node("Unsqueeze", ["c", "back"], ["b"]), node("Add", ["a", "b"], ["Y"])],
                      {"big": big, "front": front, "back": np.array([2, 3])}),
        "conv_pads": (filled + image + [node("Conv", ["i", "w"], ["Y"], pads=[1 << 20] * 4)], {"big": np.array([4, 4]), "front": front, "w": normal(1, 1, 1, 1)}),
        "conv_up": (filled + image + [node("ConvTranspose", ["i", "w"], ["Y"], strides=[1 << 20] * 2)],
                    {"big": np.array([40, 40]), "front": front, "w": normal(1, 1, 1, 1)}),
        "pool": (filled + image + [node("AveragePool", ["i"], ["Y"], kernel_shape=[1001, 1001], pads=[500] * 4)], {"big": big, "front": front}),
        "lrn": (filled + [node("Unsqueeze", ["c", "one"], ["i"]), node("LRN", ["i"], ["Y"], size=8001)],
                {"big": np.array([1, 40000, 400])[1:], "one": np.array([0])}),
        "resized": (filled + image + [node("Resize", ["i", "", "", "sizes"], ["Y"])], {"big": np.array([4, 4]), "front": front, "sizes": np.array([1, 1, 1 << 24, 1 << 24])}),
        "blocks": ([node("Expand", ["X", "shape"], ["Y"])], {"shape": np.array([1 << 33, 1])}),
    }
    folder = HERE.parent / "hostile"
    folder.mkdir(exist_ok=True)
    for name, (nodes, weights) in cases.items():
        nodes[-1].name = "last"
        constants = [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()]
        info = helper.make_tensor_value_info
        graph = helper.make_graph(nodes, name, [info("X", F, ["N", 4])], [info("Y", F, None)], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def integer_convolutions():
    """Operators of 8-bit models. ONNX Runtime takes one zero point for all weights, and the same type on both sides or
    unsigned images."""
    def whole(low, high, *shape):
        return RANDOM.integers(low, high + 1, size=shape)

    for name, shape, weights, attrs, of in [
        ("same", (2, 40, 5, 6), (6, 40, 3, 3), {"pads": [1, 1, 1, 1]}, (U8, U8)),
        ("groups", (2, 8, 9, 7), (6, 4, 3, 3), {"group": 2, "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (U8, I8)),
        ("depthwise", (2, 4, 7, 8), (8, 1, 3, 3), {"group": 4, "strides": [2, 1], "auto_pad": "SAME_LOWER"}, (U8, U8)),
        ("line", (3, 5, 20), (7, 5, 4), {"pads": [2, 1], "strides": [2]}, (U8, I8)),
        ("room", (2, 3, 4, 5, 4), (4, 3, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 1]}, (U8, U8)),
        ("signed", (2, 5, 6, 6), (4, 5, 2, 3), {"pads": [0, 1, 1, 0]}, (I8, I8)),
    ]:
        types = {U8: (np.uint8, 0, 255, 117), I8: (np.int8, -128, 127, -9)}
        (x, low, high, x_zero), (w, w_low, w_high, w_zero) = types[of[0]], types[of[1]]
        # Half of the range, so that kernels with sums of 16 bits are exact too.
        part = 1 if of[1] == U8 else 2
        given = {"X": whole(low, high, *shape).astype(x)}
        constants = {"w": whole(w_low // part, w_high // part, *weights).astype(w), "xz": x(x_zero), "wz": w(w_zero if w is np.uint8 else 0)}
        if of[0] == U8:
            save(f"conv_integer_{name}", [node("ConvInteger", ["X", "w", "xz", "wz"], ["Y"], **attrs)], given, {"Y": I32}, constants)
        depth = np.prod(weights[1:])
        constants |= {
            "xs": np.float32(0.021), "ws": (RANDOM.random(weights[0]) * 0.01 + 0.001).astype(np.float32),
            "ys": np.float32(0.021 * 0.006 * 60 * np.sqrt(depth)), "yz": x(x_zero),
            "wz": np.full(weights[0], constants["wz"], w), "b": whole(-9000, 9000, weights[0]).astype(np.int32),
        }
        save(f"conv_q_{name}", [node("QLinearConv", ["X", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["Y"], **attrs)],
             given, {"Y": of[0]}, constants)
    constants = {"s": np.array([0.5, 0.25, 2], np.float32), "z": np.array([3, 0, 250], np.uint8), "w": whole(-128, 127, 4, 3).astype(np.int8),
                 "ws": np.array([0.1, 1, 2, 3], np.float32), "wide": whole(-10**6, 10**6, 4).astype(np.int32)}
    save("quantize_axes", [
        node("QuantizeLinear", ["X", "s", "z"], ["q"], axis=1), node("DequantizeLinear", ["q", "s", "z"], ["a"], axis=1),
        node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0), node("DequantizeLinear", ["wide", "ws"], ["bd"], axis=0),
        node("Transpose", ["wd"], ["wt"]), node("MatMul", ["X", "wt"], ["p"]), node("Add", ["p", "bd"], ["b"]),
    ], {"X": (whole(-900, 900, 6, 3) / 8).astype(np.float32)}, {"a": F, "b": F}, constants)


def integer_products():
    """`MatMulInteger` and `QLinearMatMul`, with zero points on both sides and scales for all columns."""
    global RANDOM
    RANDOM = np.random.default_rng(13)
    types = {U8: np.uint8, I8: np.int8}
    for name, of, rows in [("mixed", (U8, I8), 3), ("unsigned", (U8, U8), 14), ("signed", (I8, I8), 1)]:
        (x, low, high), (w, w_low, w_high) = [(types[kind], *((0, 255) if kind == U8 else (-128, 127))) for kind in of]
        # Half of the range, so that kernels with sums of 16 bits are exact too.
        part = 1 if of[1] == U8 else 2
        given = {"X": RANDOM.integers(low, high + 1, (rows, 2, 45)).astype(x)}
        constants = {"w": RANDOM.integers(w_low // part, w_high // part + 1, (45, 35)).astype(w), "xz": x(low + 117), "wz": w(9 if w is np.uint8 else 0)}
        save(f"product_integer_{name}", [node("MatMulInteger", ["X", "w", "xz", "wz"], ["Y"])], given, {"Y": I32}, constants)
        constants |= {"xs": np.float32(0.02), "ws": np.float32(0.007), "ys": np.float32(0.02 * 0.007 * 60 * 45), "yz": x(low + 100)}
        save(f"product_q_{name}", [node("QLinearMatMul", ["X", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["Y"])], given, {"Y": of[0]}, constants)


def flows():
    def typed(name, kind=F, shape=None):
        return helper.make_tensor_value_info(name, kind, shape)

    def constant(name, value):
        return numpy_helper.from_array(np.asarray(value), name)

    # A fixed number of rounds, a branch in each, values of the outer graph in both, and slices of all rounds.
    branches = {}
    for name, op in [("then_branch", "Add"), ("else_branch", "Sub")]:
        branches[name] = helper.make_graph([node(op, ["state", "W"], [name])], name, [], [typed(name)])
    body = helper.make_graph(
        [
            node("Mod", ["round", "two"], ["rest"]),
            node("Equal", ["rest", "zero"], ["even"]),
            node("If", ["even"], ["moved"], **branches),
            node("MatMul", ["moved", "M"], ["next"]),
            node("Identity", ["goes_on"], ["still"]),
            node("Identity", ["next"], ["slice"]),
        ],
        "body",
        [typed("round", I64, []), typed("goes_on", TensorProto.BOOL, []), typed("state")],
        [typed("still", TensorProto.BOOL, []), typed("next"), typed("slice")],
        [constant("two", np.int64(2)), constant("zero", np.int64(0))],
    )
    nodes = [
        node("Loop", ["most", "", "X"], ["last", "all"], body=body),
        node("Transpose", ["all"], ["Y"], perm=[1, 0, 2]),
        node("Relu", ["last"], ["Z"]),
    ]
    weights = {"most": np.int64(5), "W": normal(4), "M": small(4, 4)}
    save("rounds", nodes, {"X": normal(3, 4)}, {"Y": F, "Z": F}, weights)
    # As many rounds as it takes, which may be none.
    body = helper.make_graph(
        [
            node("Mul", ["state", "factor"], ["scaled"]),
            node("Add", ["scaled", "more"], ["next"]),
            node("ReduceMax", ["next"], ["most_now"], keepdims=0),
            node("Less", ["most_now", "limit"], ["still"]),
        ],
        "body",
        [typed("round", I64, []), typed("goes_on", TensorProto.BOOL, []), typed("state")],
        [typed("still", TensorProto.BOOL, []), typed("next")],
    )
    nodes = [
        node("ReduceMax", ["X"], ["first"], keepdims=0),
        node("Less", ["first", "limit"], ["begins"]),
        node("Loop", ["", "begins", "X"], ["Y"], body=body),
    ]
    weights = {"factor": np.float32(1.5), "more": np.float32(0.25), "limit": np.float32(40)}
    for name, scale in [("until", 1), ("until_none", 50)]:
        save(name, nodes, {"X": scale * (1 + abs(normal(1, 4)))}, {"Y": F}, weights)


def whole_nets():
    """Small nets as frameworks export them, which tests/quantized.rs makes 8-bit files of."""
    # Numbers of their own: theirs are the start of other fixtures.
    global RANDOM
    RANDOM = np.random.default_rng(12)
    same = {"auto_pad": "SAME_UPPER"}
    save("images", [
        node("Conv", ["X", "w1", "b1"], ["a"], pads=[1, 1, 1, 1], name="first"), node("Relu", ["a"], ["ar"]),
        node("MaxPool", ["ar"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "w2", "b2"], ["c"], group=12, strides=[1, 2], name="depthwise", **same), node("Clip", ["c", "zero", "six"], ["cr"]),
        node("Conv", ["cr", "w3"], ["d"], group=2, name="pointwise"), node("Add", ["d", "cr"], ["e"]),
        node("GlobalAveragePool", ["e"], ["g"]), node("Flatten", ["g"], ["f"]), node("Gemm", ["f", "w4", "b4"], ["Y"], transB=1, name="last"),
    ], {"X": normal(4, 3, 8, 9)}, {"Y": F}, {
        "w1": small(12, 3, 3, 3), "b1": normal(12), "w2": small(12, 1, 3, 3), "b2": normal(12), "w3": small(12, 6, 1, 1),
        "w4": small(5, 12), "b4": normal(5), "zero": np.float32(0), "six": np.float32(6)})
    save("signals", [
        node("Conv", ["X", "w1", "b1"], ["a"], dilations=[2], pads=[1, 2], name="wide"), node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["m"]),
        node("Conv", ["m", "w2"], ["b"], strides=[2], group=2, name="halved"), node("Relu", ["b"], ["r"]), node("Flatten", ["r"], ["Y"]),
    ], {"X": normal(4, 4, 30)}, {"Y": F}, {"w1": small(10, 4, 5), "b1": normal(10), "w2": small(6, 5, 4)})


def formulas():
    global RANDOM
    RANDOM = np.random.default_rng(13)
    save("einsum", [
        node("Einsum", ["X", "K"], ["scores"], equation="bhid,hjd->bhij"), node("Softmax", ["scores"], ["share"]),
        node("Einsum", ["share", "V"], ["mixed"], equation="b h i j, h j d -> b i h d"),
        node("Einsum", ["mixed", "W"], ["Y"], equation="...hd,hde->...e"), node("Einsum", ["X"], ["Z"], equation="bhid->bdh"),
        node("Einsum", ["X", "K"], ["S"], equation="bhid,hjd"),
    ], {"X": normal(3, 2, 5, 8)}, {"Y": F, "Z": F, "S": F}, {"K": normal(2, 6, 8), "V": normal(2, 6, 7), "W": small(2, 7, 9)})


hostile()
convolutions()
pools()
norms()
recurrence()
attention()
rest()
integer_convolutions()
flows()
whole_nets()
integer_products()
formulas()
print(sum(f.stat().st_size for f in HERE.glob("net_*")) // 1024, "KiB")
