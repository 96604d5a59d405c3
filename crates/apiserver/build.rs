//! Packs the descriptions of built-in kinds' fields into `OUT_DIR/prose.json.gz`, for `openapi::prose`.
//!
//! The texts are long, change with every release and are not ours, so they are not in the repository: the schemas of
//! the `k8s-openapi` that is built for this script carry them. Only the packed table reaches the binary (about 200 KiB),
//! where the schemas themselves would be megabytes of code.
//!
//! Form: `{"<definition>": ["<its text>", {"<field>": "<its text>"}]}`.

use std::fs::File;
use std::path::Path;

use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use k8s_openapi::{api, apiextensions_apiserver as extensions, apimachinery};
use serde_json::{Map, Value, json};

/// The packed table may not grow beyond this unnoticed.
const BYTES_MAX: u64 = 400 << 10;

/// Asks for the schema of each type and of all that it refers to.
macro_rules! add_all {
    ($generator:expr; $($module:path: $($kind:ident)+;)+) => {
        $({ use $module as kinds; $(add::<kinds::$kind>($generator);)+ })+
    };
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut generator = SchemaGenerator::default();
    add_kinds(&mut generator);
    let definitions = generator.take_definitions(true);
    let table: Map<String, Value> =
        definitions.into_iter().map(|(name, schema)| (name, texts(&schema))).collect();
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it for build scripts");
    let path = Path::new(&out).join("prose.json.gz");
    let file = File::create(&path).expect("cargo made the folder for it");
    let mut packer = flate2::GzBuilder::new().mtime(0).write(file, flate2::Compression::best());
    serde_json::to_writer(&mut packer, &table).expect("maps of texts are JSON");
    let file = packer.finish().expect("the disk takes the file");
    let bytes = file.metadata().expect("the file is open").len();
    assert!(bytes <= BYTES_MAX, "{} has {bytes} bytes, more than {BYTES_MAX}", path.display());
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    let _reference = generator.subschema_for::<T>();
}

/// Every kind of the table of facts (`cargo xtask facts`); a test of `openapi::prose` tells what is missing here.
fn add_kinds(generator: &mut SchemaGenerator) {
    add_all! { generator;
        api::admissionregistration::v1: MutatingWebhookConfiguration ValidatingAdmissionPolicy
            ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
        api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        api::authentication::v1: SelfSubjectReview TokenRequest TokenReview;
        api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
            SubjectAccessReview;
        api::autoscaling::v1: HorizontalPodAutoscaler Scale;
        api::autoscaling::v2: HorizontalPodAutoscaler;
        api::batch::v1: CronJob Job;
        api::certificates::v1: CertificateSigningRequest;
        api::coordination::v1: Lease;
        api::core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        api::discovery::v1: EndpointSlice;
        api::events::v1: Event;
        api::networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        api::policy::v1: Eviction PodDisruptionBudget;
        api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
        api::scheduling::v1: PriorityClass;
        api::storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
        extensions::pkg::apis::apiextensions::v1: CustomResourceDefinition;
        apimachinery::pkg::apis::meta::v1: DeleteOptions ListMeta Status;
    }
}

/// The text of a definition and those of its fields.
fn texts(schema: &Value) -> Value {
    let text = |of: &Value| of.get("description").and_then(Value::as_str).map(str::to_owned);
    let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let fields: Map<String, Value> =
        fields.filter_map(|(name, of)| Some((name.clone(), text(of)?.into()))).collect();
    json!([text(schema).unwrap_or_default(), fields])
}
