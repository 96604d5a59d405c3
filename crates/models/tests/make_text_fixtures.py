#!/usr/bin/env python3
"""Makes the fixtures of models with columns of texts, of several answers, and around other models.

    python make_text_fixtures.py       under each scikit-learn that `make_fixtures.py` names; needs pandas

Writes `texts/VERSION/NAME.model` and `texts/VERSION/expected.json`: `columns` (lists of texts or numbers, by
column) and the library's answers.
"""
import json
import os
import warnings

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn import (compose, ensemble, impute, linear_model, model_selection, multioutput, pipeline, preprocessing, tree)

warnings.filterwarnings("ignore")
VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "texts", sklearn.__version__)
os.makedirs(HERE, exist_ok=True)
EXPECTED = {}
RNG = np.random.RandomState(11)
COUNT = 90
FRAME = pd.DataFrame({
    "colour": RNG.choice(["red", "green", "größer", ""], COUNT), "size": RNG.normal(size=COUNT),
    "city": RNG.choice(["Rome", "Oslo", "Lima", "Bern", "Kyiv"], COUNT, p=[.5, .3, .1, .05, .05]),
    "count": RNG.randint(0, 9, COUNT).astype(float)}).astype({"colour": object, "city": object})
TARGET = ((FRAME["colour"] == "red") ^ (FRAME["size"] > 0)).astype(int).to_numpy()
NAMES = np.array(["no", "yes"], dtype=object)[TARGET]


def save(name, model, frame):
    joblib.dump(model, os.path.join(HERE, name + ".model"), compress=3)
    entry = {"columns": [frame[column].tolist() for column in frame.columns]}
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        if hasattr(model, method) and not (method == "transform" and hasattr(model, "predict")):
            answers = getattr(model, method)(frame)
            entry[method] = [np.asarray(one).tolist() for one in answers] if isinstance(answers, list) else \
                np.asarray(answers.toarray() if hasattr(answers, "toarray") else answers).tolist()
    EXPECTED[name] = entry


TEXTS, NUMBERS = FRAME[["colour", "city"]], FRAME[["size", "count"]]
ROWS = FRAME.iloc[:12]
ODD = ROWS.assign(city=["Paris"] + ROWS["city"].tolist()[1:])
dense = {"sparse_output": False} if VERSION >= (1, 2) else {"sparse": False}
save("one_hot", preprocessing.OneHotEncoder(**dense).fit(TEXTS), ROWS[["colour", "city"]])
save("one_hot_drop", preprocessing.OneHotEncoder(drop="first", **dense).fit(TEXTS), ROWS[["colour", "city"]])
save("one_hot_ignore", preprocessing.OneHotEncoder(handle_unknown="ignore", **dense).fit(TEXTS), ODD[["colour", "city"]])
save("ordinal", preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(TEXTS),
     ODD[["colour", "city"]])
if VERSION >= (1, 2):
    rare = preprocessing.OneHotEncoder(min_frequency=8, handle_unknown="infrequent_if_exist", **dense)
    save("one_hot_rare", rare.fit(TEXTS), ODD[["colour", "city"]])
    save("one_hot_rare_drop", preprocessing.OneHotEncoder(max_categories=3, drop="first", **dense).fit(TEXTS),
         ROWS[["colour", "city"]])
if VERSION >= (1, 3):
    save("ordinal_rare", preprocessing.OrdinalEncoder(min_frequency=8).fit(TEXTS), ROWS[["colour", "city"]])
    save("target", preprocessing.TargetEncoder(random_state=0).fit(TEXTS, TARGET), ODD[["colour", "city"]])
if VERSION >= (1, 4):
    save("target_three", preprocessing.TargetEncoder(random_state=0).fit(TEXTS, RNG.randint(0, 3, COUNT)),
         ODD[["colour", "city"]])
columns = compose.ColumnTransformer([
    ("text", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["colour", "city"]),
    ("range", preprocessing.StandardScaler(), slice("size", "size"))], remainder="passthrough", sparse_threshold=0)
whole = pipeline.make_pipeline(columns, linear_model.LogisticRegression())
save("columns", columns.fit(FRAME, TARGET), ODD)
save("pipeline", whole.fit(FRAME, NAMES), ODD)
search = model_selection.GridSearchCV(whole, {"logisticregression__C": [0.1, 1.0]}, cv=3)
save("search", search.fit(FRAME, NAMES), ODD)
two = np.stack([TARGET, RNG.randint(0, 3, COUNT)], axis=1)
both = np.stack([TARGET, 1 - TARGET * RNG.randint(0, 2, COUNT)], axis=1)
numbers = NUMBERS.iloc[:12]
save("tree_two", tree.DecisionTreeClassifier(max_depth=4, random_state=0).fit(NUMBERS, two), numbers)
save("forest_two", ensemble.RandomForestClassifier(5, max_depth=4, random_state=0).fit(NUMBERS, two), numbers)
save("several", multioutput.MultiOutputClassifier(linear_model.LogisticRegression()).fit(NUMBERS, two), numbers)
save("several_numbers", multioutput.MultiOutputRegressor(linear_model.Ridge()).fit(NUMBERS, two), numbers)
save("chain", multioutput.ClassifierChain(linear_model.LogisticRegression(), order=[1, 0]).fit(NUMBERS, both), numbers)
save("chain_numbers", multioutput.RegressorChain(linear_model.Ridge(), order=[1, 0]).fit(NUMBERS, two), numbers)
# Imputers of texts, labels, histogram boosting over texts.
filled = pipeline.make_pipeline(impute.SimpleImputer(missing_values="", strategy="most_frequent"),
                                preprocessing.OneHotEncoder(handle_unknown="ignore", **dense))
save("imputed_one_hot", filled.fit(TEXTS), ODD[["colour", "city"]])
constant = impute.SimpleImputer(missing_values="", strategy="constant", fill_value="none")
save("imputed_ordinal", pipeline.make_pipeline(constant, preprocessing.OrdinalEncoder()).fit(TEXTS),
     ROWS[["colour", "city"]])
if VERSION >= (1, 9):
    gaps = TEXTS.copy()
    gaps.loc[gaps.index % 7 == 3, "city"] = None
    save("one_hot_gaps", preprocessing.OneHotEncoder(handle_unknown="ignore", **dense).fit(gaps), ODD[["colour", "city"]])
    save("ordinal_gaps", preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(gaps),
         ODD[["colour", "city"]])
    kinds = multioutput.MultiOutputClassifier(linear_model.LogisticRegression()).fit(NUMBERS, two)
    kinds.estimators_[0].fit(NUMBERS, NAMES.astype(str))
    kinds.classes_[0] = kinds.estimators_[0].classes_
    save("several_kinds", kinds, numbers)
mixed = compose.ColumnTransformer([("text", filled, ["colour", "city"]),
                                   ("number", impute.SimpleImputer(strategy="median"), ["size", "count"])],
                                  sparse_threshold=0)
save("imputed_columns", pipeline.make_pipeline(mixed, linear_model.LogisticRegression()).fit(FRAME, NAMES), ODD)
labels = preprocessing.LabelEncoder().fit(FRAME["city"])
joblib.dump(labels, os.path.join(HERE, "label_encoder.model"), compress=3)
EXPECTED["label_encoder"] = {"columns": [ROWS["city"].tolist()], "transform": labels.transform(ROWS["city"]).tolist()}
if VERSION >= (1, 4):
    typed = FRAME.astype({"colour": "category", "city": "category"})
    asked = typed.iloc[:12].astype({"city": object})
    asked["city"] = ODD["city"].to_numpy()
    hist = ensemble.HistGradientBoostingClassifier(categorical_features=[0, 2], max_iter=4, min_samples_leaf=5)
    save("hist_texts", hist.fit(typed, NAMES), asked)
with open(os.path.join(HERE, "expected.json"), "w") as out:
    json.dump(EXPECTED, out)
    out.write("\n")
print(sklearn.__version__, len(EXPECTED), "fixtures")
