//! Who each part is to the Kubernetes API: its own ServiceAccount, never more than its Role.

use std::sync::Arc;

use apiserver::{ApiServer, UserInfo};
use kube::Client;

use super::PLATFORM_NAMESPACE;

/// The administrator, for the start-up's own installation and the mirror pods only.
pub fn admin(api: &Arc<ApiServer>) -> Client {
    api.client(UserInfo::new("kubernetes-admin", &["system:masters"]))
}

/// A part of the platform: `system:serviceaccount:kubeflow:<part>`.
pub fn part(api: &Arc<ApiServer>, part: &str) -> Client {
    api.client(UserInfo::service_account(PLATFORM_NAMESPACE, part))
}

/// A component that a real cluster brings itself.
pub fn user(api: &Arc<ApiServer>, name: &str) -> Client {
    api.client(UserInfo::new(name, &[]))
}

/// The node.
pub fn node(api: &Arc<ApiServer>, name: &str) -> Client {
    api.client(UserInfo::node(name))
}
