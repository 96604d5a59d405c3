#!/usr/bin/env python3
"""Makes the model fixtures: small models of every estimator with the library's own answers.

Each call adds the fixtures of the scikit-learn it runs under to `fixtures/<version>/`; they are made once and
kept, because the point is to read what old versions wrote. Pythons and versions used:

    3.9   scikit-learn==1.0.2 'numpy<1.24'        3.10  scikit-learn==1.2.2 'numpy<2'
    3.11  scikit-learn==1.4.2 'numpy<2'           3.12  scikit-learn==1.6.1
    3.11  scikit-learn==1.9.1  (the newest; writes every estimator and every container)

    python make_fixtures.py [all]      needs scikit-learn, joblib; for `all` also cloudpickle, skops, lz4

A fixture is `NAME.model` (bytes of any container) and an entry in `expected.json`: rows and the answers of
`predict`, `predict_proba`, `decision_function` and `transform` as the library gives them.
"""
import io
import json
import os
import pickle
import sys
import warnings
import zlib

import joblib
import numpy as np
import sklearn
from sklearn import (cluster, compose, datasets, decomposition, ensemble, feature_selection, impute, linear_model,
                     naive_bayes, neighbors, neural_network, pipeline, preprocessing, svm, tree)

warnings.filterwarnings("ignore")
ALL = "all" in sys.argv[1:]
VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", sklearn.__version__)
os.makedirs(HERE, exist_ok=True)
EXPECTED = {}
RNG = np.random.RandomState(7)

iris = datasets.load_iris()
X, Y = iris.data, iris.target
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
X2, Y2 = X[Y < 2], Y[Y < 2]
# Two classes that overlap, so that probabilities are not all 0 and 1.
XB, YB = X[Y > 0], (Y[Y > 0] == 2).astype(int)
XR = RNG.normal(size=(120, 5))
YR = XR @ [1.0, -2.0, 0.5, 0.0, 3.0] + 0.1 * RNG.normal(size=120)


def plain(values):
    return [[None if isinstance(v, float) and not np.isfinite(v) else v for v in row] if isinstance(row, list) else row
            for row in np.asarray(values).tolist()]


def save(name, model, rows, how="joblib", **options):
    path = os.path.join(HERE, name + ".model")
    if how == "joblib":
        joblib.dump(model, path, **options)
    elif how == "pickle":
        with open(path, "wb") as out:
            pickle.dump(model, out, **options)
    elif how == "cloudpickle":
        import cloudpickle
        with open(path, "wb") as out:
            cloudpickle.dump(model, out)
    elif how == "skops":
        import skops.io
        skops.io.dump(model, path)
    entry = {"rows": plain(rows)}
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        if hasattr(model, method) and not (method == "transform" and hasattr(model, "predict")):
            entry[method] = plain(getattr(model, method)(np.asarray(rows, dtype=float)))
    EXPECTED[name] = entry


def sample(data, count=12):
    rows = data[RNG.choice(len(data), count)]
    return rows + np.round(RNG.normal(scale=0.3, size=rows.shape), 3)


def add(name, model, data, target, **options):
    save(name, model.fit(data, target), sample(data), **options)


def base():
    """What every version of the library is asked for."""
    add("tree_classifier", tree.DecisionTreeClassifier(random_state=0, max_depth=4), X, Y)
    add("tree_regressor", tree.DecisionTreeRegressor(random_state=0, max_depth=5), XR, YR)
    add("extra_tree_classifier", tree.ExtraTreeClassifier(random_state=0, max_depth=5), X, NAMES)
    add("forest_classifier", ensemble.RandomForestClassifier(10, random_state=0), X, Y)
    add("forest_classifier_names", ensemble.RandomForestClassifier(9, max_depth=4, random_state=0), X, NAMES)
    add("forest_classifier_bools", ensemble.RandomForestClassifier(5, max_depth=3, random_state=0), XB, YB == 1)
    add("forest_classifier_weighted",
        ensemble.RandomForestClassifier(9, max_depth=4, class_weight="balanced", random_state=0), X, Y + 10)
    add("forest_regressor", ensemble.RandomForestRegressor(8, max_depth=6, random_state=0), XR, YR)
    add("forest_regressor_two", ensemble.RandomForestRegressor(5, max_depth=4, random_state=0), XR,
        np.stack([YR, -YR], axis=1))
    add("extra_trees_classifier", ensemble.ExtraTreesClassifier(9, max_depth=5, random_state=0), X, Y)
    add("extra_trees_regressor", ensemble.ExtraTreesRegressor(9, max_depth=5, random_state=0), XR, YR)
    add("boosting_binary", ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0), XB, YB)
    add("boosting_three", ensemble.GradientBoostingClassifier(n_estimators=6, random_state=0), X, Y)
    add("boosting_exponential",
        ensemble.GradientBoostingClassifier(n_estimators=6, loss="exponential", random_state=0), XB, YB)
    add("boosting_zero", ensemble.GradientBoostingClassifier(n_estimators=4, init="zero", random_state=0), X, Y)
    add("boosting_regressor", ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0), XR, YR)
    add("linear_regression", linear_model.LinearRegression(), XR, YR)
    add("linear_regression_two", linear_model.LinearRegression(), XR, np.stack([YR, 2 * YR + 1], axis=1))
    add("ridge", linear_model.Ridge(), XR, YR)
    add("lasso", linear_model.Lasso(alpha=0.1), XR, YR)
    add("elastic_net", linear_model.ElasticNet(alpha=0.1), XR, YR)
    add("poisson", linear_model.PoissonRegressor(), XR, np.abs(YR))
    add("logistic_binary", linear_model.LogisticRegression(), XB, YB)
    add("logistic_three", linear_model.LogisticRegression(max_iter=500), X, NAMES)
    add("logistic_liblinear", linear_model.LogisticRegression(solver="liblinear"), XB, YB)
    add("sgd_hinge", linear_model.SGDClassifier(random_state=0), X, Y)
    add("sgd_huber", linear_model.SGDClassifier(loss="modified_huber", random_state=0), X, Y)
    add("sgd_log", linear_model.SGDClassifier(loss="log_loss" if VERSION >= (1, 1) else "log", random_state=0), XB, YB)
    add("sgd_regressor", linear_model.SGDRegressor(random_state=0), XR, YR)
    add("ridge_classifier", linear_model.RidgeClassifier(), X, Y)
    add("linear_svc", svm.LinearSVC(random_state=0), X, Y)
    add("standard_scaler", preprocessing.StandardScaler(), X, Y)
    add("standard_scaler_mean_only", preprocessing.StandardScaler(with_std=False), X, Y)
    add("min_max_scaler", preprocessing.MinMaxScaler((-1, 2), clip=True), X, Y)
    add("max_abs_scaler", preprocessing.MaxAbsScaler(), X, Y)
    add("robust_scaler", preprocessing.RobustScaler(), X, Y)
    add("normalizer", preprocessing.Normalizer(), X, Y)
    add("pca", decomposition.PCA(2), X, Y)
    add("pca_whiten", decomposition.PCA(3, whiten=True), X, Y)
    add("k_means", cluster.KMeans(4, n_init=2, random_state=0), X, Y)
    add("pipeline_forest", pipeline.make_pipeline(
        preprocessing.StandardScaler(), ensemble.RandomForestClassifier(6, max_depth=4, random_state=0)), X, Y)
    add("pipeline_nested", pipeline.Pipeline([
        ("scale", pipeline.make_pipeline(preprocessing.RobustScaler(), "passthrough", preprocessing.MinMaxScaler())),
        ("project", decomposition.PCA(3)),
        ("model", linear_model.LogisticRegression())]), X, NAMES)
    add("pipeline_regressor", pipeline.make_pipeline(preprocessing.MaxAbsScaler(), linear_model.Ridge()), XR, YR)


def wide():
    """The rest of the library that is evaluated natively."""
    add("hist_binary", ensemble.HistGradientBoostingClassifier(max_iter=8, random_state=0), XB, YB)
    add("hist_three", ensemble.HistGradientBoostingClassifier(max_iter=6, random_state=0), X, NAMES)
    add("hist_regressor", ensemble.HistGradientBoostingRegressor(max_iter=10, random_state=0), XR, YR)
    add("hist_poisson", ensemble.HistGradientBoostingRegressor(max_iter=5, loss="poisson", random_state=0), XR,
        np.abs(YR))
    holes = X.copy()
    holes[RNG.rand(*holes.shape) < 0.2] = np.nan
    save("hist_missing", ensemble.HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(holes, Y), sample(holes))
    discrete = {} if VERSION >= (1, 6) else {"algorithm": "SAMME"}
    add("ada_discrete", ensemble.AdaBoostClassifier(n_estimators=6, random_state=0, **discrete), X, NAMES)
    add("ada_discrete_binary", ensemble.AdaBoostClassifier(n_estimators=6, random_state=0, **discrete), XB, YB)
    if VERSION < (1, 6):
        add("ada_real", ensemble.AdaBoostClassifier(n_estimators=6, random_state=0), X, Y)
    add("ada_regressor", ensemble.AdaBoostRegressor(n_estimators=6, random_state=0), XR, YR)
    add("bagging", ensemble.BaggingClassifier(n_estimators=5, random_state=0), X, NAMES)
    add("bagging_columns", ensemble.BaggingClassifier(linear_model.LogisticRegression(), max_features=0.5,
                                                      n_estimators=5, random_state=0), X, Y)
    add("bagging_votes", ensemble.BaggingClassifier(linear_model.RidgeClassifier(), n_estimators=5, random_state=0), X, Y)
    add("bagging_regressor", ensemble.BaggingRegressor(n_estimators=5, random_state=0), XR, YR)
    voters = [("a", linear_model.LogisticRegression(max_iter=500)), ("b", naive_bayes.GaussianNB()),
              ("c", tree.DecisionTreeClassifier(max_depth=2, random_state=0))]
    add("voting_hard", ensemble.VotingClassifier(voters, weights=[1, 2, 1]), X, NAMES)
    add("voting_soft", ensemble.VotingClassifier(voters, voting="soft"), X, Y)
    add("voting_regressor", ensemble.VotingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(
        max_depth=3, random_state=0))], weights=[1, 3]), XR, YR)
    add("stacking", ensemble.StackingClassifier(voters, cv=3), X, NAMES)
    add("stacking_binary", ensemble.StackingClassifier(voters + [("d", svm.LinearSVC(random_state=0))], cv=3,
                                                       passthrough=True), XB, YB)
    add("stacking_regressor", ensemble.StackingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(
        max_depth=3, random_state=0))], cv=3), XR, YR)
    if VERSION >= (1, 1):  # Before, this transformer did not note how many columns it was fitted on.
        add("function_none", preprocessing.FunctionTransformer(), X, Y)
        logs = pipeline.make_pipeline(preprocessing.FunctionTransformer(np.log1p), linear_model.Ridge())
        save("function_log", logs.fit(np.abs(XR), YR), np.abs(XR[:9]))
    add("power", preprocessing.PowerTransformer(), X, Y)
    save("power_box_cox", preprocessing.PowerTransformer("box-cox", standardize=False).fit(X), X[::20])
    add("truncated_svd", decomposition.TruncatedSVD(2, random_state=0), X, Y)
    add("isolation_forest", ensemble.IsolationForest(n_estimators=10, random_state=0), X, Y)
    add("isolation_forest_columns", ensemble.IsolationForest(n_estimators=8, max_features=2, contamination=0.2,
                                                             random_state=0), X, Y)
    for kernel in ("linear", "poly", "rbf", "sigmoid"):
        add("svc_" + kernel, svm.SVC(kernel=kernel), X, NAMES)
    add("svc_binary", svm.SVC(), XB, YB)
    add("svc_one_vs_one", svm.SVC(decision_function_shape="ovo"), X, Y)
    add("svc_ties", svm.SVC(break_ties=True, kernel="sigmoid"), X, Y)
    if VERSION < (1, 9):
        add("svc_probability", svm.SVC(probability=True, random_state=0), X, Y)
        add("svc_probability_binary", svm.SVC(probability=True, random_state=0), XB, YB)
    add("nu_svc", svm.NuSVC(nu=0.3), X, Y)
    add("svr", svm.SVR(), XR, YR)
    add("svr_poly", svm.SVR(kernel="poly", degree=2, coef0=1), XR, YR)
    add("one_class_svm", svm.OneClassSVM(nu=0.2), X, Y)
    add("neighbors", neighbors.KNeighborsClassifier(5), X, NAMES)
    add("neighbors_distance", neighbors.KNeighborsClassifier(4, weights="distance", p=1), X, Y)
    add("neighbors_regressor", neighbors.KNeighborsRegressor(3, weights="distance"), XR, YR)
    add("neighbors_regressor_two", neighbors.KNeighborsRegressor(3, p=3), XR, np.stack([YR, -YR], axis=1))
    add("gaussian_nb", naive_bayes.GaussianNB(), X, NAMES)
    add("multinomial_nb", naive_bayes.MultinomialNB(), np.abs(X), Y)
    add("complement_nb", naive_bayes.ComplementNB(), np.abs(X), Y)
    add("bernoulli_nb", naive_bayes.BernoulliNB(binarize=2.0), X, Y)
    network = {"hidden_layer_sizes": (6, 4), "max_iter": 60, "random_state": 0}
    for activation in ("identity", "logistic", "tanh", "relu"):
        add("mlp_" + activation, neural_network.MLPClassifier(activation=activation, **network), X, NAMES)
    add("mlp_binary", neural_network.MLPClassifier(**network), XB, YB)
    add("mlp_regressor", neural_network.MLPRegressor(**network), XR, YR)
    save("imputer", impute.SimpleImputer(strategy="median").fit(holes), sample(holes))
    save("imputer_zero", impute.SimpleImputer(missing_values=0.2, strategy="mean").fit(X), X[:9])
    add("binarizer", preprocessing.Binarizer(threshold=2.5), X, Y)
    add("variance_threshold", feature_selection.VarianceThreshold(0.6), X, Y)
    add("polynomial", preprocessing.PolynomialFeatures(3), X, Y)
    add("polynomial_interactions", preprocessing.PolynomialFeatures(3, interaction_only=True, include_bias=False), X, Y)
    whole = np.round(X)
    dense = {"sparse_output": False} if VERSION >= (1, 2) else {"sparse": False}
    save("one_hot", preprocessing.OneHotEncoder(**dense).fit(whole), whole[::13])
    save("one_hot_drop", preprocessing.OneHotEncoder(drop="first", **dense).fit(whole), whole[::13])
    save("one_hot_ignore", preprocessing.OneHotEncoder(handle_unknown="ignore", **dense).fit(whole), whole[::13] + [0, 99, 0, 0])
    save("ordinal", preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(whole),
         whole[::13] + [0, 99, 0, 0])
    add("feature_union", pipeline.make_union(preprocessing.StandardScaler(), decomposition.PCA(2)), X, Y)
    columns = compose.ColumnTransformer(
        [("scale", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler()), [0, 1]),
         ("range", preprocessing.MinMaxScaler(), [-1]), ("none", "drop", [2])], remainder="passthrough")
    add("column_transformer", columns, X, Y)
    add("column_pipeline", pipeline.make_pipeline(columns, linear_model.LogisticRegression()), X, NAMES)
    add("imputed_hist", pipeline.make_pipeline(impute.SimpleImputer(), ensemble.HistGradientBoostingClassifier(
        max_iter=3, random_state=0)), holes, Y)


def containers():
    """Every way to write one model."""
    model = pipeline.make_pipeline(preprocessing.StandardScaler(),
                                   ensemble.RandomForestClassifier(3, max_depth=3, random_state=0)).fit(X, NAMES)
    rows = sample(X, 5)
    for protocol in range(6):
        save("pickle_%d" % protocol, model, rows, "pickle", protocol=protocol)
    for method in ("zlib", "gzip", "bz2", "xz", "lzma", "lz4"):
        save("joblib_" + method, model, rows, compress=(method, 3))
    save("joblib_protocol_2", model, rows, protocol=2)
    save("cloudpickle", model, rows, "cloudpickle")
    save("skops", model, rows, "skops")
    for name, kind, target in [("tree", tree.DecisionTreeClassifier(max_depth=3), Y), ("forest_names", ensemble.RandomForestClassifier(
            3, max_depth=3, random_state=0), NAMES), ("logistic", linear_model.LogisticRegression(), Y), (
            "boosting", ensemble.GradientBoostingClassifier(n_estimators=3), Y)]:
        save("skops_" + name, kind.fit(X, target), rows, "skops")


def missing_values():
    """Trees that were trained with missing values, and asked about them."""
    holes = X.copy()
    holes[RNG.rand(*holes.shape) < 0.2] = np.nan
    rows = sample(holes)
    for name, model in [("missing_tree", tree.DecisionTreeClassifier(max_depth=4, random_state=0)),
                        ("missing_forest", ensemble.RandomForestClassifier(6, max_depth=4, random_state=0))]:
        save(name, model.fit(holes, Y), rows)


base()
wide()
if VERSION >= (1, 4):
    missing_values()
if ALL:
    containers()
with open(os.path.join(HERE, "expected.json"), "w") as out:
    json.dump(EXPECTED, out)
    out.write("\n")
print(sklearn.__version__, len(EXPECTED), "fixtures")
