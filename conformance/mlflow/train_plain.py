"""A plain training script: nothing in it knows which server it talks to."""

import os

import mlflow
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

data = load_iris()
model = RandomForestClassifier(n_estimators=10).fit(data.data, data.target)
with mlflow.start_run():
    mlflow.log_param("n_estimators", 10)
    mlflow.log_metric("accuracy", model.score(data.data, data.target))
    mlflow.sklearn.log_model(model, name="model", registered_model_name=os.environ.get("MODEL_NAME", "churn"))
