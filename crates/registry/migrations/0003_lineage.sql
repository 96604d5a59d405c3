-- What pipeline runs did: one row a task attempt, keyed as it is derived, so that deriving it again changes nothing.
CREATE TABLE ml_tasks (
  workflow_uid TEXT NOT NULL, node_id TEXT NOT NULL, attempt BIGINT NOT NULL,
  namespace TEXT NOT NULL, owner TEXT NOT NULL, run_id TEXT NOT NULL, parent_run_id TEXT NOT NULL,
  name TEXT NOT NULL, template TEXT NOT NULL, phase TEXT NOT NULL, message TEXT NOT NULL,
  pod TEXT NOT NULL, image TEXT NOT NULL, image_stand_in TEXT NOT NULL,
  started_at BIGINT, finished_at BIGINT,
  PRIMARY KEY (workflow_uid, node_id, attempt)
);
CREATE INDEX ml_tasks_by_parent ON ml_tasks (namespace, parent_run_id);
CREATE TABLE ml_task_artifacts (
  workflow_uid TEXT NOT NULL, node_id TEXT NOT NULL, attempt BIGINT NOT NULL, direction TEXT NOT NULL, name TEXT NOT NULL,
  namespace TEXT NOT NULL, owner TEXT NOT NULL, run_id TEXT NOT NULL, uri TEXT NOT NULL,
  PRIMARY KEY (workflow_uid, node_id, attempt, direction, name)
);
CREATE INDEX ml_task_artifacts_by_uri ON ml_task_artifacts (namespace, uri);
