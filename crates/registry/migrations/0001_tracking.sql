-- Experiments, runs and what they log. Every row carries the tenant (`namespace`) and who wrote it (`owner`), so that a
-- query can never cross tenants by forgetting a join. `{without_rowid}` is empty on PostgreSQL.
CREATE TABLE ml_experiments (
  namespace TEXT NOT NULL, owner TEXT NOT NULL, id BIGINT NOT NULL, name TEXT NOT NULL,
  artifact_location TEXT NOT NULL, lifecycle_stage TEXT NOT NULL,
  creation_time BIGINT NOT NULL, last_update_time BIGINT NOT NULL,
  PRIMARY KEY (namespace, id), UNIQUE (namespace, name)
);
CREATE TABLE ml_experiment_tags (
  namespace TEXT NOT NULL, owner TEXT NOT NULL, experiment_id BIGINT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (namespace, experiment_id, key)
){without_rowid};
CREATE TABLE ml_runs (
  run_id TEXT NOT NULL PRIMARY KEY, namespace TEXT NOT NULL, owner TEXT NOT NULL, experiment_id BIGINT NOT NULL,
  name TEXT NOT NULL, user_id TEXT NOT NULL, status TEXT NOT NULL, start_time BIGINT, end_time BIGINT,
  lifecycle_stage TEXT NOT NULL, deleted_time BIGINT, artifact_uri TEXT NOT NULL
);
CREATE INDEX ml_runs_by_start ON ml_runs (namespace, experiment_id, lifecycle_stage, start_time DESC);
CREATE TABLE ml_params (
  run_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (run_id, key)
){without_rowid};
CREATE INDEX ml_params_by_key ON ml_params (key, value);
CREATE TABLE ml_tags (
  run_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (run_id, key)
){without_rowid};
CREATE TABLE ml_metrics (
  run_id TEXT NOT NULL, key TEXT NOT NULL, timestamp BIGINT NOT NULL, step BIGINT NOT NULL,
  value DOUBLE PRECISION NOT NULL, is_nan BIGINT NOT NULL, namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (run_id, key, timestamp, step, value, is_nan)
){without_rowid};
CREATE TABLE ml_latest_metrics (
  run_id TEXT NOT NULL, key TEXT NOT NULL, timestamp BIGINT NOT NULL, step BIGINT NOT NULL,
  value DOUBLE PRECISION NOT NULL, is_nan BIGINT NOT NULL, namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (run_id, key)
){without_rowid};
CREATE TABLE ml_run_datasets (
  run_id TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, source_type TEXT NOT NULL, source TEXT NOT NULL,
  schema TEXT NOT NULL, profile TEXT NOT NULL, tags TEXT NOT NULL, context TEXT NOT NULL,
  namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (run_id, name, digest, context)
);
CREATE TABLE ml_run_models (
  run_id TEXT NOT NULL, direction TEXT NOT NULL, model_id TEXT NOT NULL, step BIGINT NOT NULL,
  namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (run_id, direction, model_id, step)
){without_rowid};
