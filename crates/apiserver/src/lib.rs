//! The embedded Kubernetes API: untyped objects, tables of facts, one path for all kinds.
//!
//! A request goes through [`http::handle`]: authenticate ([`authn`]), read the line ([`request`]), authorise ([`authz`]),
//! then the handler of its verb ([`handlers`]). Writes pass defaults, admission and validation and become one durable
//! transaction of the store; watchers get the very bytes that were written.
//!
//! `bin` calls [`ApiServer::start`], [`ApiServer::serve`], [`ApiServer::client`] and [`ApiServer::set_pod_streams`].
//!
//! Not here: controllers (they are clients), how a pod runs, and the meaning of the platform's own kinds.

pub mod admission;
mod apply;
pub mod authn;
pub mod authz;
mod bootstrap;
mod builtin;
mod convert;
mod crd;
mod discovery;
pub mod error;
mod expiry;
pub mod facts;
pub mod field;
mod handlers;
mod http;
mod kinds;
mod names;
mod object;
mod openapi;
pub mod pki;
mod protobuf;
mod request;
mod resource;
mod schema;
mod selectors;
mod serve;
mod server;
pub mod services;
mod storage;
pub mod streams;
mod table;

pub use admission::Admission;
pub use authn::UserInfo;
pub use error::ApiError;
pub use field::FieldError;
pub use pki::Pki;
pub use serve::LocalService;
pub use server::{ApiServer, Config};
pub use services::{Ipv4Range, PortRange};
pub use streams::PodStreams;
