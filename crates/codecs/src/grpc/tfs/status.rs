//! Messages of TensorFlow Serving's `ModelService`, and the fields of a metadata request.

use std::collections::BTreeMap;

use crate::tfs::VersionStatus;
use crate::wire::{Fields, WireError, put_bytes, put_int, put_message};

/// Which versions of a folder are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many.
    Latest(u32),
    /// All.
    All,
    /// These.
    Specific(Vec<i64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

/// A `ModelConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelOrder {
    /// The model's name.
    pub name: String,
    /// The folder with its versions.
    pub base_path: String,
    /// `tensorflow`, or what else the file says.
    pub platform: String,
    /// Which versions.
    pub policy: VersionPolicy,
    /// Labels and the versions that carry them.
    pub labels: BTreeMap<String, i64>,
}

/// Decodes a `ReloadConfigRequest`; `None` if it has no `model_config_list`.
pub fn decode_reload(body: &[u8]) -> Result<Option<Vec<ModelOrder>>, WireError> {
    let mut models = None;
    for field in Fields::of(body) {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for field in Fields::of(field.bytes()?) {
            let field = field?;
            if field.number == 1 {
                let all = models.get_or_insert_with(Vec::new);
                for field in Fields::of(field.bytes()?) {
                    let field = field?;
                    if field.number == 1 {
                        all.push(order(field.bytes()?)?);
                    }
                }
            }
        }
    }
    Ok(models)
}

fn order(message: &[u8]) -> Result<ModelOrder, WireError> {
    let mut order = ModelOrder::default();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => order.name = field.text()?.to_owned(),
            2 => order.base_path = field.text()?.to_owned(),
            4 => order.platform = field.text()?.to_owned(),
            7 => order.policy = policy(field.bytes()?)?,
            8 => {
                let (mut label, mut version) = ("", 0);
                for field in Fields::of(field.bytes()?) {
                    let field = field?;
                    match field.number {
                        1 => label = field.text()?,
                        2 => version = field.int()? as i64,
                        _ => {}
                    }
                }
                order.labels.insert(label.to_owned(), version);
            }
            _ => {}
        }
    }
    Ok(order)
}

fn policy(message: &[u8]) -> Result<VersionPolicy, WireError> {
    let mut policy = VersionPolicy::default();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            100 => {
                let mut count = 1;
                for field in Fields::of(field.bytes()?) {
                    let field = field?;
                    if field.number == 1 {
                        count = u32::try_from(field.int()?).unwrap_or(u32::MAX);
                    }
                }
                policy = VersionPolicy::Latest(count);
            }
            101 => policy = VersionPolicy::All,
            102 => {
                let mut versions = Vec::new();
                for field in Fields::of(field.bytes()?) {
                    let field = field?;
                    if field.number == 1 {
                        field.ints(|version| versions.push(version as i64))?;
                    }
                }
                policy = VersionPolicy::Specific(versions);
            }
            _ => {}
        }
    }
    Ok(policy)
}

fn put_status(out: &mut Vec<u8>, field: u32, code: u32, text: &str) {
    put_message(out, field, |out| {
        put_int(out, 1, u64::from(code));
        put_bytes(out, 2, text.as_bytes());
    });
}

/// Appends a `ReloadConfigResponse`.
pub fn encode_reload(out: &mut Vec<u8>, code: u32, text: &str) {
    put_status(out, 1, code, text);
}

/// Appends the versions of a `GetModelStatusResponse`.
pub fn encode_versions(out: &mut Vec<u8>, versions: &[VersionStatus]) {
    for version in versions {
        put_message(out, 1, |out| {
            put_int(out, 1, version.version as u64);
            put_int(out, 2, u64::from(version.state));
            put_status(out, 3, version.code, &version.message);
        });
    }
}

/// What a `GetModelMetadataRequest` asks for: field 2, of which only `signature_def` is known.
pub fn metadata_fields(body: &[u8]) -> Result<Vec<&str>, WireError> {
    let mut fields = Vec::new();
    for field in Fields::of(body) {
        let field = field?;
        if field.number == 2 {
            fields.push(field.text()?);
        }
    }
    Ok(fields)
}
