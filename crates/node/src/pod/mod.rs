//! One pod: observed, decided about and acted for by one task.
//!
//! * [`decide`] judges, purely; [`status`], [`env`] and [`spec`] turn Kubernetes objects into what is written and run;
//! * [`worker`] is the task: it takes messages in, carries steps out, writes the status;
//! * [`prepare`] does what may take long (volumes, images) beside the task;
//! * [`probe`] asks containers how they are; [`report`] writes the status.

pub mod decide;
pub mod env;
pub mod prepare;
pub mod probe;
pub mod report;
pub mod spec;
pub mod status;
pub mod worker;
