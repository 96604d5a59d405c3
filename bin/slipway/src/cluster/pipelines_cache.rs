//! Step results kept by the pipelines' database, as the workflow controller asks for them.
