"""Makes the models of `python.rs` in the folder that is its argument, and `expected.json` with what they answer.

Not fixtures: they are made by the very Python that serves them.
"""
import json
import os
import sys

import cloudpickle
import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.gaussian_process import GaussianProcessClassifier

root = sys.argv[1]
X, y = load_iris(return_X_y=True)
rows = X[[0, 60, 120]]


def folder(*names):
    path = os.path.join(root, *names)
    os.makedirs(path, exist_ok=True)
    return path


class Nearest(ClassifierMixin, BaseEstimator):
    """Classifies by the nearest mean: nobody's class but ours, pickled by value."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == c].mean(axis=0) for c in self.classes_])
        self.n_features_in_ = X.shape[1]
        return self

    def distances(self, X):
        if not np.isfinite(X).all():
            raise ValueError("Input X contains NaN")
        return ((X[:, None, :] - self.means_) ** 2).sum(axis=2)

    def predict(self, X):
        return self.classes_[self.distances(X).argmin(axis=1)]

    def predict_proba(self, X):
        shares = np.exp(-self.distances(X))
        return shares / shares.sum(axis=1, keepdims=True)


process = GaussianProcessClassifier(random_state=0).fit(X, y)
joblib.dump(process, os.path.join(folder("process"), "model.joblib"))
nearest = Nearest().fit(X, np.array(["setosa", "versicolor", "virginica"])[y])
with open(os.path.join(folder("nearest"), "model.pkl"), "wb") as file:
    cloudpickle.dump(nearest, file)

expected = {
    "rows": rows.tolist(),
    "process": process.predict(rows).tolist(),
    "process_proba": process.predict_proba(rows).tolist(),
    "nearest": nearest.predict(rows).tolist(),
}

if "--mlflow" in sys.argv:
    import mlflow.pyfunc
    import pandas
    from mlflow.models import infer_signature

    class Shares(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input["length"] / model_input["width"]

    frame = pandas.DataFrame({"length": [5.1, 6.0], "width": [3.5, 3.0]})
    signature = infer_signature(frame, pandas.Series([1.0, 2.0]))
    mlflow.pyfunc.save_model(
        os.path.join(root, "pyfunc"), python_model=Shares(), signature=signature, pip_requirements=[]
    )
    expected["pyfunc"] = (frame["length"] / frame["width"]).tolist()

with open(os.path.join(root, "expected.json"), "w") as file:
    json.dump(expected, file)
