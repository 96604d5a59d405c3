"""ONNX Runtime answers from a converted model as scikit-learn does: the same labels, numbers within 1e-9.

Models are fitted here, saved with joblib and converted by the binary. Not here: our own engine (crates/onnx).
"""

import os
import subprocess

import joblib
import numpy as np
import onnxruntime
import pytest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn import calibration, cluster, compose, decomposition, ensemble, impute, linear_model, multioutput, naive_bayes
from sklearn import neighbors, neural_network, pipeline, preprocessing, svm, tree

RNG = np.random.default_rng(7)
X = RNG.normal(size=(240, 6))
THREE = np.digitize(X[:, 0] + X[:, 1] * X[:, 2], [-0.5, 0.5])
FIVE = np.digitize(X[:, 0] - X[:, 5], [-1.5, -0.5, 0.5, 1.5])
TWO = np.where(X[:, 0] - X[:, 3] > 0, "yes", "no")
NUMBER = X[:, 0] * 3 + np.sin(X[:, 1]) + X[:, 4] ** 2
HOLES = np.where(RNG.random(X.shape) < 0.1, np.nan, X)

CASES = {
    "tree": (tree.DecisionTreeClassifier(max_depth=6, random_state=1), X, THREE),
    "forest": (ensemble.RandomForestClassifier(40, random_state=1), X, THREE),
    "forest_words": (ensemble.RandomForestClassifier(40, random_state=1), X, TWO),
    "forest_regressor": (ensemble.RandomForestRegressor(30, random_state=1), X, NUMBER),
    "extra_trees": (ensemble.ExtraTreesClassifier(30, random_state=1), X, THREE),
    "gradient_boosting": (ensemble.GradientBoostingClassifier(n_estimators=20, random_state=1), X, THREE),
    "hist_boosting": (ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=1), HOLES, THREE),
    "hist_regressor": (ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=1), HOLES, NUMBER),
    "ada_boost": (ensemble.AdaBoostClassifier(n_estimators=10, random_state=1), X, THREE),
    "isolation_forest": (ensemble.IsolationForest(n_estimators=20, random_state=1), X, None),
    "linear": (linear_model.LinearRegression(), X, NUMBER),
    "logistic": (linear_model.LogisticRegression(max_iter=500), X, THREE),
    "logistic_words": (linear_model.LogisticRegression(max_iter=500), X, TWO),
    "svc": (svm.SVC(), X, THREE),
    "svc_shares": (svm.SVC(probability=True, random_state=1), X, THREE),
    "svc_shares_two": (svm.SVC(kernel="poly", probability=True, random_state=1), X, TWO),
    "svc_shares_many": (svm.SVC(C=3.0, probability=True, break_ties=True, random_state=1), X, FIVE),
    "nu_svc_shares": (svm.NuSVC(nu=0.2, kernel="sigmoid", probability=True, random_state=1), X, THREE),
    "svc_shares_stack": (
        ensemble.StackingClassifier(
            [("s", svm.SVC(probability=True, random_state=1)), ("n", naive_bayes.GaussianNB())],
            stack_method="predict_proba",
        ),
        X,
        THREE,
    ),
    "svr": (svm.SVR(), X, NUMBER),
    "neighbors": (neighbors.KNeighborsClassifier(7, weights="distance"), X, THREE),
    "neighbors_regressor": (neighbors.KNeighborsRegressor(5), X, NUMBER),
    "gaussian_nb": (naive_bayes.GaussianNB(), X, THREE),
    "mlp": (neural_network.MLPClassifier((20,), max_iter=50, random_state=1), X, THREE),
    "k_means": (cluster.KMeans(4, n_init=2, random_state=1), X, None),
    "pca": (decomposition.PCA(3, whiten=True), X, None),
    "power": (preprocessing.PowerTransformer(), X, None),
    "knn_imputer": (impute.KNNImputer(n_neighbors=4, weights="distance", add_indicator=True), HOLES, None),
    "iterative_imputer": (impute.IterativeImputer(max_iter=3, random_state=1), HOLES, None),
    "imputed": (
        pipeline.make_pipeline(impute.KNNImputer(n_neighbors=3), svm.SVC(probability=True, random_state=1)),
        HOLES,
        THREE,
    ),
    "quantile": (preprocessing.QuantileTransformer(n_quantiles=50, output_distribution="normal"), X, None),
    "bagging": (ensemble.BaggingClassifier(svm.SVC(probability=True, random_state=1), 4, random_state=1), X, THREE),
    "calibrated": (calibration.CalibratedClassifierCV(svm.SVC(random_state=1), cv=3), X, TWO),
    "chain": (multioutput.RegressorChain(linear_model.Ridge()), X, np.column_stack([NUMBER, X[:, 2] * X[:, 3]])),
    "polynomial": (preprocessing.PolynomialFeatures(3), X, None),
    "stack": (
        ensemble.StackingClassifier(
            [("f", ensemble.RandomForestClassifier(10, random_state=1)), ("l", linear_model.LogisticRegression(max_iter=500))]
        ),
        X,
        THREE,
    ),
    "vote": (
        ensemble.VotingClassifier(
            [("t", tree.DecisionTreeClassifier(random_state=1)), ("n", naive_bayes.GaussianNB())], voting="soft"
        ),
        X,
        TWO,
    ),
    "pipeline": (
        pipeline.make_pipeline(
            impute.SimpleImputer(), preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=500)
        ),
        HOLES,
        THREE,
    ),
    "columns": (
        pipeline.make_pipeline(
            compose.ColumnTransformer(
                [("scale", preprocessing.StandardScaler(), [0, 1, 2]), ("bins", preprocessing.Binarizer(), [3])],
                remainder="passthrough",
            ),
            ensemble.GradientBoostingRegressor(n_estimators=15, random_state=1),
        ),
        X,
        NUMBER,
    ),
}


def convert(model, folder):
    joblib.dump(model, folder / "model.joblib")
    made = folder / "model.onnx"
    subprocess.run([os.environ["SLIPWAY_BIN"], "model", "convert", folder / "model.joblib", "-o", made], check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])


def near(got, want):
    want = np.asarray(want, dtype=float).reshape(np.asarray(got).shape)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_answers_as_the_library_does(name, tmp_path):
    model, rows, target = CASES[name]
    model.fit(rows) if target is None else model.fit(rows, target)
    session = convert(model, tmp_path)
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(None, {session.get_inputs()[0].name: rows})))
    if "label" in answers:
        assert list(answers["label"]) == list(model.predict(rows))
    if "variable" in answers:
        near(answers["variable"], model.predict(rows) if hasattr(model, "predict") else model.transform(rows))
    if "probabilities" in answers:
        near(answers["probabilities"], model.predict_proba(rows))
    for decided in {"decisions", "scores"} & answers.keys():
        near(answers[decided], model.decision_function(rows))


def test_texts_go_in_column_by_column(tmp_path):
    colours = RNG.choice(["red", "green", "blue"], size=240)
    rows = np.empty((240, 2), dtype=object)
    rows[:, 0], rows[:, 1] = colours, X[:, 0]
    model = pipeline.make_pipeline(
        compose.ColumnTransformer(
            [("one", preprocessing.OneHotEncoder(handle_unknown="ignore"), [0]), ("scale", preprocessing.StandardScaler(), [1])]
        ),
        linear_model.LogisticRegression(max_iter=500),
    )
    model.fit(rows, TWO)
    session = convert(model, tmp_path)
    first, second = session.get_inputs()
    given = {first.name: colours.astype(object).reshape(-1, 1), second.name: X[:, :1]}
    label, probabilities = session.run(["label", "probabilities"], given)
    assert list(label) == list(model.predict(rows))
    near(probabilities, model.predict_proba(rows))
