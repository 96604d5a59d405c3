#!/usr/bin/env python3
"""Makes the fixtures of explanations: small models with the Shapley values of the package `shap`.

    python make_shap_fixtures.py        needs scikit-learn==1.9.1, shap==0.51.0, joblib (Python 3.11)

`fixtures/explain/shap/NAME.model` is a joblib file; `expected.json` holds for each: rows, background, and `path` (without
background), `against` (with it), each with `base` (outputs) and `values` (rows x features x outputs).
"""
import json
import os
import warnings

import joblib
import numpy as np
import shap
from sklearn import datasets, ensemble, linear_model, tree

warnings.filterwarnings("ignore")
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "explain", "shap")
os.makedirs(HERE, exist_ok=True)
EXPECTED = {}
RNG = np.random.RandomState(11)
X, Y = datasets.load_iris(return_X_y=True)
# Exact in f32: scikit-learn's trees round rows before they compare, the package does not where a value is a threshold.
X = X.astype(np.float32).astype(float)
XB, YB = X[Y > 0], (Y[Y > 0] == 2).astype(int)
XR = RNG.normal(size=(150, 6)).astype(np.float32).astype(float)
YR = XR @ [1.0, -2.0, 0.5, 0.0, 3.0, 0.0] + XR[:, 0] * XR[:, 1] + 0.1 * RNG.normal(size=150)


def shaped(values, rows, features):
    values = np.asarray(values, dtype=float)
    return values.reshape(rows, features, -1).tolist()


def answers(explainer, rows):
    options = {} if isinstance(explainer, shap.LinearExplainer) else {"check_additivity": False}
    values = explainer.shap_values(rows, **options)
    base = np.atleast_1d(np.asarray(explainer.expected_value, dtype=float)).tolist()
    return {"base": base, "values": shaped(values, *rows.shape)}


def add(name, model, x, y, linear=False):
    model.fit(x, y)
    joblib.dump(model, os.path.join(HERE, name + ".model"), compress=3)
    rows, background = x[RNG.choice(len(x), 6, replace=False)], x[RNG.choice(len(x), 9, replace=False)]
    entry = {"rows": rows.tolist(), "background": background.tolist()}
    if linear:
        masker = shap.maskers.Independent(background, max_samples=1000)
        entry["against"] = answers(shap.LinearExplainer(model, masker), rows)
    else:
        entry["path"] = answers(shap.TreeExplainer(model), rows)
        against = shap.TreeExplainer(model, data=background, feature_perturbation="interventional")
        entry["against"] = answers(against, rows)
    EXPECTED[name] = entry


add("tree_classifier", tree.DecisionTreeClassifier(random_state=0), X, Y)
add("tree_regressor", tree.DecisionTreeRegressor(random_state=0, max_depth=9), XR, YR)
add("forest_classifier", ensemble.RandomForestClassifier(20, random_state=0), X, Y)
add("forest_regressor", ensemble.RandomForestRegressor(10, random_state=0), XR, YR)
add("extra_classifier", ensemble.ExtraTreesClassifier(10, random_state=0, max_depth=6), XB, YB)
add("gradient_classifier", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), XB, YB)
add("gradient_regressor", ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0), XR, YR)
add("hist_classifier", ensemble.HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5), XB, YB)
add("hist_three", ensemble.HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5), X, Y)
add("hist_regressor", ensemble.HistGradientBoostingRegressor(max_iter=10, min_samples_leaf=5), XR, YR)
add("linear", linear_model.LinearRegression(), XR, YR, linear=True)
add("logistic", linear_model.LogisticRegression(max_iter=500), XB, YB, linear=True)
add("logistic_three", linear_model.LogisticRegression(max_iter=500), X, Y, linear=True)

# KernelSHAP with few columns asks every set; the package's own answers for a model that it can only ask.
for name, x, y in [("kernel_forest", X, Y), ("kernel_wide", XR, YR)]:
    classifies = name == "kernel_forest"
    model = (ensemble.RandomForestClassifier(10, random_state=3) if classifies
             else ensemble.RandomForestRegressor(10, random_state=3)).fit(x, y)
    joblib.dump(model, os.path.join(HERE, name + ".model"), compress=3)
    rows, background = x[::40], x[5::30]
    explainer = shap.KernelExplainer(model.predict_proba if classifies else model.predict, background)
    values = explainer.shap_values(rows, l1_reg=False, silent=True)
    base = np.atleast_1d(np.asarray(explainer.expected_value, dtype=float)).tolist()
    EXPECTED[name] = {"rows": rows.tolist(), "background": background.tolist(),
                      "asked": {"base": base, "values": shaped(values, *rows.shape)}}

with open(os.path.join(HERE, "expected.json"), "w") as out:
    json.dump(EXPECTED, out)
print(len(EXPECTED), "models by shap", shap.__version__)
