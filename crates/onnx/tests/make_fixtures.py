"""Makes tests/fixtures/*.onnx and, beside each, what ONNX Runtime answers (*.json).

Needs Python 3.11 with scikit-learn, xgboost, lightgbm, pandas, skl2onnx, onnxmltools and onnxruntime; run as `python make_fixtures.py` in this folder.
"""
import json
import pathlib

import numpy as np
import onnx
import lightgbm
import onnxmltools
import onnxruntime
import xgboost
from onnx import TensorProto, helper, numpy_helper
from onnxmltools.convert.common.data_types import FloatTensorType as ConverterFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import (ExtraTreesRegressor, GradientBoostingClassifier, GradientBoostingRegressor,
                              RandomForestClassifier, RandomForestRegressor)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (Binarizer, MinMaxScaler, Normalizer, OneHotEncoder, OrdinalEncoder,
                                   PolynomialFeatures, StandardScaler)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

HERE = pathlib.Path(__file__).parent / "fixtures"
RANDOM = np.random.default_rng(7)


def listed(array):
    def plain(value):
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, float) and value != value:
            return "NaN"
        return value
    return [plain(value) for value in np.asarray(array).ravel().tolist()]


def save(name, model, inputs):
    data = model.SerializeToString() if not isinstance(model, bytes) else model
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = {}
    for key, value in zip(names, session.run(None, inputs)):
        if isinstance(value, list):  # ZipMap: one map a row
            value = np.array([list(row.values()) for row in value], dtype=np.float32)
        outputs[key] = {"dims": list(value.shape), "dtype": str(value.dtype), "cells": listed(value)}
    given = {key: {"dims": list(value.shape), "dtype": str(value.dtype), "cells": listed(value)}
             for key, value in inputs.items()}
    (HERE / f"{name}.onnx").write_bytes(data)
    (HERE / f"{name}.json").write_text(json.dumps({"inputs": given, "outputs": outputs}) + "\n")


def sklearn_models():
    iris, diabetes = load_iris(), load_diabetes()
    x, y = iris.data.astype(np.float32), iris.target
    two = y[:100]
    rows = np.concatenate([x[::17], x[:4] + RANDOM.normal(size=(4, 4)).astype(np.float32)])
    words = np.array(["setosa", "versicolor", "virginica"])[y]

    def classifier(name, model, target=y, data=x, **options):
        model.fit(data, target)
        save(name, to_onnx(model, data[:1], target_opset={"": 17, "ai.onnx.ml": 3}, **options), {"X": rows[:, :data.shape[1]]})

    classifier("forest", RandomForestClassifier(10, random_state=0), options={"zipmap": False})
    classifier("forest_words", RandomForestClassifier(5, random_state=0), words)
    classifier("forest_two", RandomForestClassifier(5, random_state=0), two, x[:100])
    classifier("tree", DecisionTreeClassifier(random_state=0))
    classifier("gradient_boosting", GradientBoostingClassifier(n_estimators=8, random_state=0))
    classifier("gradient_boosting_two", GradientBoostingClassifier(n_estimators=8, random_state=0), two, x[:100])
    classifier("logistic", LogisticRegression(max_iter=500))
    classifier("logistic_two", LogisticRegression(), two, x[:100])
    classifier("sgd", SGDClassifier(random_state=0))
    classifier("linear_svc", LinearSVC())
    classifier("linear_svc_two", LinearSVC(), two, x[:100])
    classifier("mlp", MLPClassifier((8,), max_iter=300, random_state=0))
    classifier("gaussian_nb", GaussianNB())
    classifier("scaled_forest", make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)))
    for norm in ["l1", "l2", "max"]:
        classifier(f"normalized_{norm}", make_pipeline(Normalizer(norm), LogisticRegression(max_iter=500)))
    classifier("poly", make_pipeline(MinMaxScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=900)))
    classifier("pca", make_pipeline(PCA(2), DecisionTreeClassifier(random_state=0)))
    classifier("binarized", make_pipeline(Binarizer(threshold=2.0), LogisticRegression()))
    classifier("kmeans", KMeans(3, n_init=2, random_state=0))

    dx, dy = diabetes.data.astype(np.float32), diabetes.target
    for name, model in [
        ("forest_regressor", RandomForestRegressor(5, max_depth=5, random_state=0)),
        ("extra_trees_regressor", ExtraTreesRegressor(5, max_depth=5, random_state=0)),
        ("tree_regressor", DecisionTreeRegressor(max_depth=4, random_state=0)),
        ("gradient_boosting_regressor", GradientBoostingRegressor(n_estimators=8, random_state=0)),
        ("linear_regression", LinearRegression()),
        ("mlp_regressor", MLPRegressor(hidden_layer_sizes=(6,), max_iter=50, random_state=0)),
    ]:
        model.fit(dx, dy)
        save(name, to_onnx(model, dx[:1], target_opset={"": 17, "ai.onnx.ml": 3}), {"X": dx[::61]})
    two_targets = LinearRegression().fit(dx, np.stack([dy, dy[::-1]], 1))
    save("linear_two_targets", to_onnx(two_targets, dx[:1]), {"X": dx[::61]})
    wide = DecisionTreeClassifier(max_depth=4, random_state=0).fit(diabetes.data, dy > 140)
    double = to_onnx(wide, diabetes.data[:1], target_opset={"": 17, "ai.onnx.ml": 3}, options={"zipmap": False})
    double.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT  # what the operator gives
    save("tree_double", double, {"X": diabetes.data[::61]})

    gaps = dx.copy()
    gaps[RANDOM.random(gaps.shape) < 0.2] = np.nan
    filled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LinearRegression()).fit(gaps, dy)
    save("imputed", to_onnx(filled, gaps[:1]), {"X": gaps[::61]})
    rows = gaps[::61]
    for name, model in [("xgboost", xgboost.XGBClassifier(n_estimators=4, max_depth=3)),
                        ("lightgbm", lightgbm.LGBMClassifier(n_estimators=4, num_leaves=6, verbose=-1))]:
        for kind, target in [("two", dy > 140), ("three", np.digitize(dy, [100, 200]))]:
            model.fit(gaps, target.astype(int))
            convert = getattr(onnxmltools, f"convert_{name}")
            save(f"{name}_{kind}", convert(model, initial_types=[("X", ConverterFloats([None, 10]))], target_opset=15),
                 {"X": rows})

    import pandas as pd
    frame = pd.DataFrame({"town": RANDOM.choice(["Rome", "Oslo", "Lima"], 60), "floor": RANDOM.integers(0, 4, 60),
                          "size": RANDOM.normal(60, 20, 60).astype(np.float32)})
    price = frame["size"] * 3 + (frame["town"] == "Oslo") * 50 + frame["floor"] * 2
    columns = make_pipeline(
        ColumnTransformer([("town", OneHotEncoder(handle_unknown="ignore"), ["town"]),
                           ("floor", OneHotEncoder(handle_unknown="ignore"), ["floor"]),
                           ("size", StandardScaler(), ["size"])]), LinearRegression()).fit(frame, price)
    types = [("town", StringTensorType([None, 1])), ("floor", Int64TensorType([None, 1])),
             ("size", FloatTensorType([None, 1]))]
    given = {"town": np.array([["Rome"], ["Oslo"], ["Atlantis"]], dtype=object),
             "floor": np.array([[0], [3], [9]], dtype=np.int64),
             "size": np.array([[50], [61.5], [70]], dtype=np.float32)}
    save("columns", to_onnx(columns, initial_types=types), given)
    ordinal = make_pipeline(
        ColumnTransformer([("town", OrdinalEncoder(), ["town"]), ("size", "passthrough", ["size"])]),
        DecisionTreeRegressor(max_depth=4, random_state=0)).fit(frame, price)
    del given["floor"]
    given["town"][2] = "Lima"
    save("ordinal", to_onnx(ordinal, initial_types=[types[0], types[2]]), given)


def made(name, nodes, inputs, outputs, weights, data, opset=17, ml=3):
    graph = helper.make_graph(nodes, name, inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)],
                              ir_version=9)
    onnx.checker.check_model(model)
    save(name, model, data)


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def made_models():
    F = TensorProto.FLOAT
    normal = lambda *shape: RANDOM.normal(size=shape).astype(np.float32)
    for post in ["NONE", "LOGISTIC"]:
        made(f"linear_one_score_{post.lower()}",
             [helper.make_node("LinearClassifier", ["X"], ["label", "scores"], domain="ai.onnx.ml",
                               coefficients=[0.5, -1.0], intercepts=[0.1], classlabels_ints=[3, 8],
                               post_transform=post)],
             [info("X", F, [None, 2])], [info("label", TensorProto.INT64, [None]), info("scores", F, [None, 2])], {},
             {"X": normal(5, 2)})
    # A network of convolutions, which the engine of tensors runs.
    made("convolutions",
         [helper.make_node("Conv", ["X", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
          helper.make_node("Relu", ["c"], ["r"]),
          helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
          helper.make_node("GlobalAveragePool", ["p"], ["g"]),
          helper.make_node("Flatten", ["g"], ["f"]),
          helper.make_node("Gemm", ["f", "v", "a"], ["Y"], transB=1)],
         [info("X", F, ["N", 1, 8, 8])], [info("Y", F, ["N", 3])],
         {"w": normal(4, 1, 3, 3), "b": normal(4), "v": normal(3, 4), "a": normal(3)}, {"X": normal(5, 1, 8, 8)})
    # A batch fixed at one row, and a free dimension besides the rows.
    made("one_row", [helper.make_node("MatMul", ["X", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["Y"], axis=-1)],
         [info("X", F, [1, 4])], [info("Y", F, [1, 3])], {"w": normal(4, 3)}, {"X": normal(1, 4)})
    made("free", [helper.make_node("ReduceMean", ["X"], ["m"], axes=[1], keepdims=0),
                  helper.make_node("TopK", ["m", "k"], ["Y", "I"])],
         [info("X", F, ["N", "T", 3])], [info("Y", F, ["N", 2]), info("I", TensorProto.INT64, ["N", 2])],
         {"k": np.array([2])}, {"X": normal(4, 6, 3)})
    modes = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    nodes = {"nodes_treeids": [], "nodes_nodeids": [], "nodes_featureids": [], "nodes_modes": [], "nodes_values": [],
             "nodes_truenodeids": [], "nodes_falsenodeids": [], "nodes_missing_value_tracks_true": []}
    for tree, mode in enumerate(modes * 2):
        for node, (kind, yes, no) in enumerate([(mode, 1, 2), ("LEAF", 0, 0), ("LEAF", 0, 0)]):
            for key, value in zip(nodes, [tree, node, tree % 2, kind, 1.0, yes, no, int(tree >= 6 and node == 0)]):
                nodes[key].append(value)
    leaves = {"target_treeids": [t for t in range(12) for _ in (1, 2)], "target_nodeids": [1, 2] * 12,
              "target_ids": [0] * 24, "target_weights": [float(2 ** t) * s for t in range(12) for s in (1, 0)]}
    made("modes", [helper.make_node("TreeEnsembleRegressor", ["X"], ["Y"], domain="ai.onnx.ml", n_targets=1,
                                    **nodes, **leaves)],
         [info("X", F, [None, 2])], [info("Y", F, [None, 1])], {},
         {"X": np.array([[1, 1], [0, 2], [2, 0], [np.nan, 1], [1, np.nan], [np.nextafter(np.float32(1), np.float32(0)), 1]],
                        dtype=np.float32)})


HERE.mkdir(exist_ok=True)
sklearn_models()
made_models()
print(sum(f.stat().st_size for f in HERE.iterdir()) // 1024, "KiB")
