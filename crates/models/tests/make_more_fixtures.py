#!/usr/bin/env python3
"""Makes the fixtures of estimators around estimators, imputers, and data with gaps, ties and many classes.

    python make_more_fixtures.py       needs scikit-learn and joblib only

Writes `fixtures/more/VERSION/NAME.model` and `expected.json` as `make_fixtures.py` does. Pythons and versions used:

    3.9   scikit-learn==1.0.2, 1.1.3 'numpy<1.24'     3.10/3.11  scikit-learn==1.2.2, 1.3.2, 1.4.2 'numpy<2'
    3.12  scikit-learn==1.5.2, 1.6.1, 1.7.2, 1.8.0    3.11       scikit-learn==1.9.1
"""
import json
import os
import warnings

import joblib
import numpy as np
import sklearn
from sklearn import (calibration, datasets, ensemble, linear_model, multiclass, naive_bayes, neighbors, neural_network,
                     pipeline, preprocessing, svm, tree)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn import impute

warnings.filterwarnings("ignore")
VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "more", sklearn.__version__)
os.makedirs(HERE, exist_ok=True)
EXPECTED = {}
RNG = np.random.RandomState(5)
X, Y = datasets.load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
XB, YB = X[Y > 0], (Y[Y > 0] == 2).astype(int)
# A constant column, a column of ties, gaps, and no two rows at the same distance.
XG = np.column_stack([X + RNG.normal(scale=1e-3, size=X.shape), np.full(len(X), 2.5), RNG.randint(0, 3, len(X))])
HOLES = XG.copy()
HOLES[RNG.rand(*HOLES.shape) < 0.2] = np.nan
YR = XG @ [1.0, -2.0, 0.5, 3.0, 1.0, 1.0] + 0.1 * RNG.normal(size=len(X))


def plain(values):
    return [[None if isinstance(v, float) and not np.isfinite(v) else v for v in row] if isinstance(row, list) else row
            for row in np.asarray(values).tolist()]


def save(name, model, rows):
    joblib.dump(model, os.path.join(HERE, name + ".model"), compress=("zlib", 9))
    entry = {"rows": plain(rows)}
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        if hasattr(model, method) and not (method == "transform" and hasattr(model, "predict")):
            entry[method] = plain(getattr(model, method)(np.asarray(rows, dtype=float)))
    EXPECTED[name] = entry


def sample(data, count=8):
    rows = data[RNG.choice(len(data), count)]
    return rows + np.round(RNG.normal(scale=0.3, size=rows.shape), 3)


def add(name, model, data, target, rows=None):
    save(name, model.fit(data, target), sample(data) if rows is None else rows)


GAPS = HOLES[5:90:11].copy()
GAPS[0] = np.nan
for distribution in ("uniform", "normal"):
    add("quantile_" + distribution, preprocessing.QuantileTransformer(n_quantiles=20, output_distribution=distribution),
        HOLES, Y, np.vstack([GAPS, XG[:4], XG.min(0)[None], XG.max(0)[None] + 1]))
# Which of equally near rows are taken depends on the library's partition: no constant columns here.
for weights in ("uniform", "distance"):
    add("knn_imputer_" + weights, impute.KNNImputer(n_neighbors=3, weights=weights), HOLES[:60, :4], Y[:60], GAPS[:, :4])
add("knn_imputer_indicator", impute.KNNImputer(n_neighbors=2, add_indicator=True), HOLES[:40], Y[:40], GAPS)
add("iterative_imputer", impute.IterativeImputer(max_iter=4, random_state=0), HOLES, Y, GAPS)
add("iterative_ridge", impute.IterativeImputer(linear_model.Ridge(), max_iter=3, random_state=0, min_value=0.0,
                                               max_value=6.0), HOLES, Y, GAPS)
add("imputer_indicator", impute.SimpleImputer(add_indicator=True), HOLES, Y, GAPS)
add("imputer_frequent", impute.SimpleImputer(strategy="most_frequent"), HOLES, Y, GAPS)
add("imputer_constant", impute.SimpleImputer(strategy="constant", fill_value=-1.0), HOLES, Y, GAPS)
empty = HOLES.copy()
empty[:, 2] = np.nan
add("imputer_empty", impute.SimpleImputer(), empty, Y, GAPS)
base = linear_model.LogisticRegression(max_iter=500)
add("calibrated_sigmoid", calibration.CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=3), X, NAMES)
add("calibrated_isotonic", calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), method="isotonic", cv=3), X, Y)
add("calibrated_binary", calibration.CalibratedClassifierCV(linear_model.SGDClassifier(random_state=0), cv=3), XB, YB)
add("calibrated_binary_isotonic", calibration.CalibratedClassifierCV(
    tree.DecisionTreeClassifier(max_depth=3, random_state=0), method="isotonic", cv=3), XB, YB)
add("calibrated_whole", calibration.CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=3, ensemble=False), X, Y)
add("one_vs_rest", multiclass.OneVsRestClassifier(base), X, NAMES)
add("one_vs_rest_svc", multiclass.OneVsRestClassifier(svm.LinearSVC(random_state=0)), X, Y)
add("one_vs_rest_trees", multiclass.OneVsRestClassifier(tree.DecisionTreeClassifier(max_depth=3, random_state=0)), X, Y)
add("one_vs_rest_binary", multiclass.OneVsRestClassifier(base), XB, YB)
add("one_vs_one", multiclass.OneVsOneClassifier(svm.LinearSVC(random_state=0)), X, NAMES)
add("one_vs_one_trees", multiclass.OneVsOneClassifier(tree.DecisionTreeClassifier(max_depth=2, random_state=0)), X, Y)
add("one_vs_one_binary", multiclass.OneVsOneClassifier(base), XB, YB)
# What there is of older kinds too, for the versions that `make_fixtures.py` was not run under.
add("forest", ensemble.RandomForestClassifier(5, max_depth=4, random_state=0), XG, NAMES)
add("forest_regressor", ensemble.RandomForestRegressor(4, max_depth=4, random_state=0), XG, YR)
add("boosting", ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0), XG, Y)
add("boosting_regressor", ensemble.GradientBoostingRegressor(n_estimators=5, random_state=0), XG, YR)
add("hist_gaps", ensemble.HistGradientBoostingClassifier(max_iter=4, random_state=0), HOLES, Y, GAPS)
add("hist_regressor_gaps", ensemble.HistGradientBoostingRegressor(max_iter=4, random_state=0), HOLES, YR, GAPS)
categories = np.column_stack([XG[:, :2], RNG.randint(0, 6, len(X)), RNG.randint(0, 3, len(X))])
YC = categories[:, 0] + np.array([0, 3, -1, 2, 5, -4])[categories[:, 2].astype(int)]
asked = categories[::19].copy()
asked[0, 2], asked[1, 3] = np.nan, 17
add("hist_categories", ensemble.HistGradientBoostingRegressor(categorical_features=[2, 3], max_iter=5, random_state=0),
    categories, YC, asked)
add("logistic", base, XG, NAMES)
add("svc", svm.SVC(), XG, Y)
add("svr", svm.SVR(), XG, YR)
add("neighbors", neighbors.KNeighborsClassifier(3), XG, NAMES)
add("network", neural_network.MLPClassifier((4,), max_iter=30, random_state=0), XG, NAMES)
add("scaled", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler(), base), HOLES, NAMES, GAPS)
# 200 classes.
if VERSION in ((1, 0), (1, 9)):
    XK = np.round(RNG.normal(size=(1000, 3)), 2)
    YK = np.arange(1000) % 200
    XK[:, 0] += YK
    add("forest_200", ensemble.RandomForestClassifier(2, max_depth=8, random_state=0), XK, YK, sample(XK, 3))
    add("nb_200", naive_bayes.GaussianNB(), XK, YK, sample(XK, 3))
    add("logistic_200", linear_model.LogisticRegression(max_iter=20), XK, YK, sample(XK, 3))
with open(os.path.join(HERE, "expected.json"), "w") as out:
    json.dump(EXPECTED, out, separators=(",", ":"))
    out.write("\n")
print(sklearn.__version__, len(EXPECTED), "fixtures")
