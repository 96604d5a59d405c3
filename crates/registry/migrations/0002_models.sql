-- Logged models, and the registry of models, versions, aliases and tags.
CREATE TABLE ml_logged_models (
  model_id TEXT NOT NULL PRIMARY KEY, namespace TEXT NOT NULL, owner TEXT NOT NULL, experiment_id BIGINT NOT NULL,
  name TEXT NOT NULL, artifact_uri TEXT NOT NULL, status TEXT NOT NULL, status_message TEXT NOT NULL,
  model_type TEXT NOT NULL, source_run_id TEXT NOT NULL, lifecycle_stage TEXT NOT NULL,
  creation_time BIGINT NOT NULL, last_update_time BIGINT NOT NULL
);
CREATE INDEX ml_logged_models_by_time ON ml_logged_models (namespace, experiment_id, creation_time DESC);
CREATE TABLE ml_logged_model_params (
  model_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (model_id, key)
){without_rowid};
CREATE TABLE ml_logged_model_tags (
  model_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (model_id, key)
){without_rowid};
CREATE TABLE ml_logged_model_metrics (
  model_id TEXT NOT NULL, key TEXT NOT NULL, timestamp BIGINT NOT NULL, step BIGINT NOT NULL,
  value DOUBLE PRECISION NOT NULL, is_nan BIGINT NOT NULL, run_id TEXT NOT NULL,
  dataset_name TEXT NOT NULL, dataset_digest TEXT NOT NULL, namespace TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (model_id, key, timestamp, step, run_id)
){without_rowid};
CREATE TABLE ml_registered_models (
  namespace TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, description TEXT NOT NULL,
  creation_time BIGINT NOT NULL, last_update_time BIGINT NOT NULL,
  PRIMARY KEY (namespace, name)
);
CREATE TABLE ml_registered_model_tags (
  namespace TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (namespace, name, key),
  FOREIGN KEY (namespace, name) REFERENCES ml_registered_models (namespace, name) ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE ml_model_versions (
  namespace TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL, owner TEXT NOT NULL, description TEXT NOT NULL,
  user_id TEXT NOT NULL, current_stage TEXT NOT NULL, source TEXT NOT NULL, storage_location TEXT NOT NULL,
  run_id TEXT NOT NULL, run_link TEXT NOT NULL, model_id TEXT NOT NULL, status TEXT NOT NULL,
  creation_time BIGINT NOT NULL, last_update_time BIGINT NOT NULL,
  PRIMARY KEY (namespace, name, version),
  FOREIGN KEY (namespace, name) REFERENCES ml_registered_models (namespace, name) ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE INDEX ml_model_versions_by_run ON ml_model_versions (namespace, run_id);
CREATE TABLE ml_model_version_tags (
  namespace TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
  owner TEXT NOT NULL,
  PRIMARY KEY (namespace, name, version, key),
  FOREIGN KEY (namespace, name, version) REFERENCES ml_model_versions (namespace, name, version)
    ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE ml_aliases (
  namespace TEXT NOT NULL, name TEXT NOT NULL, alias TEXT NOT NULL, version BIGINT NOT NULL, owner TEXT NOT NULL,
  PRIMARY KEY (namespace, name, alias),
  FOREIGN KEY (namespace, name) REFERENCES ml_registered_models (namespace, name) ON UPDATE CASCADE ON DELETE CASCADE
);
