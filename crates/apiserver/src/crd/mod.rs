//! CustomResourceDefinitions: from a stored document to served resources, and away again.
//!
//! The only way in which the platform's own kinds are served; see ADR 0003. A definition is accepted and established in
//! the write that stores it, so a kind is served before its create is answered.
//!
//! Conversion between versions is `None`: only `apiVersion` differs. A webhook strategy is refused.

mod conditions;
mod delete;

use serde_json::{Value, json};

pub use conditions::{finish, mark_terminating, prepare_create, prepare_update, validate};
pub use delete::{add_finalizer, resume as resume_deletions, spawn as spawn_deletion};

use crate::builtin::subresource;
use crate::facts::Schema;
use crate::handlers::scale;
use crate::object;
use crate::resource::{ALL_VERBS, Convert, Resource, api_version};

/// Storage keys of all definitions begin so.
pub const PREFIX: &str = "/apiextensions.k8s.io/customresourcedefinitions/";

/// Removed by this server once no instance is left.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A column for `kubectl get`.
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// Such as `name`.
    pub format: String,
    /// For `kubectl explain` and the like.
    pub description: String,
    /// Above 0: only with `-o wide`.
    pub priority: i64,
    /// Where the value is.
    pub path: String,
}

/// What only custom resources have.
#[derive(Debug, Clone)]
pub struct Custom {
    /// The version's schema.
    pub schema: Schema,
    /// Columns beside the name.
    pub columns: Vec<Column>,
    /// Fields that can be selected by, as dotted paths.
    pub selectable: Vec<String>,
    /// Where replicas are, if it scales.
    pub scale: Option<scale::Paths>,
}

/// The resources that a definition serves now, the storage version's first in preference.
pub fn served(definition: &Value) -> Vec<Resource> {
    let is_established =
        conditions::is_true(definition, "Established") && conditions::is_true(definition, "NamesAccepted");
    if !is_established {
        return Vec::new();
    }
    let versions = object::items(definition, "/spec/versions");
    let storage = versions.iter().find(|one| one["storage"] == true).or(versions.first());
    let storage = storage.map_or("", |one| object::text(one, "/name"));
    let is_going = object::is_terminating(definition);
    versions
        .iter()
        .filter(|one| one["served"] == true)
        .map(|version| resource(definition, version, storage, is_going))
        .collect()
}

fn strings(value: &Value, pointer: &str) -> Vec<String> {
    object::items(value, pointer).iter().filter_map(Value::as_str).map(Into::into).collect()
}

fn resource(definition: &Value, version: &Value, storage: &str, is_going: bool) -> Resource {
    let group = object::text(definition, "/spec/group");
    let names = "/status/acceptedNames";
    let text = |field: &str| object::text(definition, &format!("{names}/{field}")).to_owned();
    let own = object::text(version, "/name");
    let kind = text("kind");
    let mut subresources = Vec::new();
    for name in ["status", "scale"] {
        if version.pointer(&format!("/subresources/{name}")).is_some_and(|one| !one.is_null()) {
            subresources.extend(subresource(name, &kind));
        }
    }
    // While its instances go, nothing new may come: upstream leaves the same verbs.
    let verbs: &[&str] = if is_going {
        &["delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    } else {
        ALL_VERBS
    };
    Resource {
        group: group.into(),
        version: own.into(),
        list_kind: text("listKind"),
        plural: text("plural"),
        singular: text("singular"),
        short_names: strings(definition, &format!("{names}/shortNames")),
        categories: strings(definition, &format!("{names}/categories")),
        namespaced: object::text(definition, "/spec/scope") == "Namespaced",
        verbs,
        subresources,
        storage_group: group.into(),
        storage_api_version: api_version(group, storage),
        convert: if own == storage { Convert::Same } else { Convert::ApiVersion },
        custom: Some(std::sync::Arc::new(custom(version))),
        kind,
    }
}

fn custom(version: &Value) -> Custom {
    let columns = object::items(version, "/additionalPrinterColumns")
        .iter()
        .map(|one| Column {
            name: object::text(one, "/name").into(),
            kind: object::text(one, "/type").into(),
            format: object::text(one, "/format").into(),
            description: object::text(one, "/description").into(),
            priority: object::int(one, "/priority").unwrap_or(0),
            path: object::text(one, "/jsonPath").into(),
        })
        .collect::<Vec<_>>();
    let pointer = |field: &str| {
        let path = object::text(version, &format!("/subresources/scale/{field}"));
        (!path.is_empty()).then(|| path.replace('.', "/"))
    };
    let scale = pointer("specReplicasPath").map(|spec| scale::Paths {
        spec,
        status: pointer("statusReplicasPath").unwrap_or_default(),
        selector: pointer("labelSelectorPath"),
    });
    let paths = object::items(version, "/selectableFields").iter();
    Custom {
        schema: Schema::from_crd(version.pointer("/schema/openAPIV3Schema")),
        columns: if columns.is_empty() { vec![age()] } else { columns },
        selectable: paths
            .map(|one| object::text(one, "/jsonPath").trim_start_matches('.').to_owned())
            .collect(),
        scale,
    }
}

/// The column that a definition without columns gets.
fn age() -> Column {
    Column {
        name: "Age".into(),
        kind: "date".into(),
        format: String::new(),
        description:
            "CreationTimestamp is a timestamp representing the server time when this object was created."
                .into(),
        priority: 0,
        path: ".metadata.creationTimestamp".into(),
    }
}

/// A condition of a definition's status.
pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "lastTransitionTime": object::now(), "reason": reason, "message": message,
    })
}
