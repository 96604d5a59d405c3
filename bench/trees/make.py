"""Makes the models of the rows `trees` and the rows they are asked, once, in the folder that is given.

usage: make.py FOLDER. A forest of 500 trees of depth 12 over 100 features and the iris forest of 100 trees
(scikit-learn), and 500 boosted trees of 63 leaves (LightGBM); the forests also as ONNX, the boosted trees also
compiled by lleaves. Everything is seeded; times that a peer needs to prepare are kept in `made.json`.
"""
import json
import pathlib
import sys
import time

import joblib
import lightgbm
import numpy
import skl2onnx
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import RandomForestClassifier

ROWS = 1024


def rows(folder, name, table):
    """Rows as every peer takes them: 32-bit values, so that all see the same numbers."""
    picked = numpy.random.default_rng(7).integers(0, len(table), ROWS)
    table.astype(numpy.float32)[picked].astype(numpy.float64).tofile(folder / f"{name}.rows")


def forest(folder, name, trees, depth, x, y):
    model = RandomForestClassifier(trees, max_depth=depth, random_state=0, n_jobs=-1).fit(x, y)
    model.n_jobs = 1
    joblib.dump(model, folder / f"{name}.joblib")
    kind = [("x", skl2onnx.common.data_types.FloatTensorType([None, x.shape[1]]))]
    graph = skl2onnx.to_onnx(model, initial_types=kind, options={"zipmap": False})
    (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    rows(folder, name, x)


def boosted(folder, name, x, y):
    settings = {"objective": "binary", "num_leaves": 63, "verbose": -1, "seed": 0, "deterministic": True}
    booster = lightgbm.train(settings, lightgbm.Dataset(x, y), num_boost_round=500)
    booster.save_model(folder / f"{name}.txt")
    rows(folder, name, x)


def compiled(folder, name):
    """What lleaves makes of a model; empty where it cannot be had."""
    try:
        import lleaves
        started = time.process_time()
        lleaves.Model(model_file=str(folder / f"{name}.txt")).compile(cache=str(folder / f"{name}.elf"))
        return {"lleaves_compile_s": time.process_time() - started}
    except Exception as error:
        print(f"lleaves: {error}")
        return {}


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    x, y = make_classification(20_000, 100, n_informative=20, random_state=0)
    x = x.astype(numpy.float32)
    iris = load_iris(return_X_y=True)
    forest(folder, "iris", 100, None, *iris)
    forest(folder, "forest", 500, 12, x, y)
    boosted(folder, "boosted", x, y)
    made = compiled(folder, "boosted")
    (folder / "made.json").write_text(json.dumps(made))


if __name__ == "__main__":
    main()
