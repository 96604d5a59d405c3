"""A plain training script: nothing in it knows which server it talks to.

Its model is linear because the client itself refuses tree ensembles without options today: mlflow 3.17 saves with skops, and
current skops (0.16) does not trust `sklearn.tree._tree.Tree`. No server can change that.
"""

import os

import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

data = load_iris()
model = make_pipeline(StandardScaler(), LogisticRegression(C=10)).fit(data.data, data.target)
with mlflow.start_run():
    mlflow.log_param("C", 10)
    mlflow.log_metric("accuracy", model.score(data.data, data.target))
    mlflow.sklearn.log_model(model, name="model", registered_model_name=os.environ.get("MODEL_NAME", "churn"))
