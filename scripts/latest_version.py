"""Prints `VERSION RUN_ID` of a registered model's newest version, asked with the real MLflow client."""
import sys

from mlflow import MlflowClient

client = MlflowClient()
versions = client.search_model_versions(f"name='{sys.argv[1]}'")
newest = max(versions, key=lambda version: int(version.version))
run = client.get_run(newest.run_id)
print(newest.version, run.info.run_id)
