-- Experiments, pipelines, runs and the step cache. Times are microseconds since 1970, 0 for none; texts are '' for none,
-- so that one statement reads both databases. A run's row is derived from its Workflow and outlives it.
CREATE TABLE kfp_experiments (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_run_created_at BIGINT NOT NULL,
    storage_state TEXT NOT NULL,
    UNIQUE (namespace, name)
);
CREATE TABLE kfp_pipelines (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (namespace, name)
);
CREATE TABLE kfp_versions (
    id TEXT NOT NULL PRIMARY KEY,
    pipeline_id TEXT NOT NULL REFERENCES kfp_pipelines (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    tags TEXT NOT NULL,
    spec TEXT NOT NULL,
    UNIQUE (pipeline_id, name)
);
CREATE TABLE kfp_runs (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    experiment_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    storage_state TEXT NOT NULL,
    pipeline_id TEXT NOT NULL,
    version_id TEXT NOT NULL,
    spec TEXT NOT NULL,
    runtime_config TEXT NOT NULL,
    service_account TEXT NOT NULL,
    recurring_run_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    scheduled_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    state TEXT NOT NULL,
    state_history TEXT NOT NULL,
    error TEXT NOT NULL,
    task_details TEXT NOT NULL,
    workflow TEXT NOT NULL,
    workflow_uid TEXT NOT NULL
);
CREATE INDEX kfp_runs_by_experiment ON kfp_runs (experiment_id, created_at);
CREATE INDEX kfp_runs_by_time ON kfp_runs (created_at);
CREATE INDEX kfp_versions_by_pipeline ON kfp_versions (pipeline_id, created_at);
CREATE TABLE kfp_cache (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    outputs TEXT NOT NULL,
    artifact_uris TEXT NOT NULL,
    PRIMARY KEY (namespace, pipeline, fingerprint)
);
