//! A compiled pipeline package: YAML or JSON, alone or in a zip or gzipped tar.
//!
//! What the SDK's compiler writes: document 1 is the PipelineSpec, document 2 (if any) the platform spec. Anything else
//! is refused with a text that says what it looks like and what was expected.

use std::io::{Cursor, Read};

use api::workflow::admission;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::wire;

/// Largest upload, as upstream's: 32 MiB.
pub const PACKAGE_BYTES_MAX: usize = 32 << 20;
/// Most files looked at in an archive.
const MEMBERS_MAX: usize = 1000;

/// The two documents of a package.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// The PipelineSpec, camelCase.
    pub pipeline_spec: Value,
    /// `{platforms: {kubernetes: …}}`, when there is one.
    pub platform_spec: Option<Value>,
}

impl Package {
    /// Reads a package file; `file_name` is for the messages only, its content decides.
    pub fn read(bytes: &[u8], file_name: &str) -> Result<Self> {
        if bytes.len() > PACKAGE_BYTES_MAX {
            return Err(Error::Invalid(format!("{file_name} is larger than {PACKAGE_BYTES_MAX} bytes")));
        }
        let text = match bytes {
            [0x1f, 0x8b, ..] => from_tar(bytes, file_name)?,
            [b'P', b'K', 3, 4, ..] => from_zip(bytes, file_name)?,
            _ => bytes.to_vec(),
        };
        let text = String::from_utf8(text).map_err(|_| {
            Error::Invalid(format!("{file_name} is neither text nor a zip or tar.gz archive"))
        })?;
        let documents = documents(&text, file_name)?;
        Self::from_documents(documents, file_name)
    }

    /// From the API's `pipeline_spec`: the spec itself, or `{pipeline_spec, platform_spec}`.
    pub fn from_api(value: &Value) -> Result<Self> {
        let package = match value.get("pipeline_spec").or_else(|| value.get("pipelineSpec")) {
            Some(spec) => {
                let platform = value.get("platform_spec").or_else(|| value.get("platformSpec"));
                Self {
                    pipeline_spec: spec.clone(),
                    platform_spec: platform.filter(|p| !p.is_null()).cloned(),
                }
            }
            None => Self { pipeline_spec: value.clone(), platform_spec: None },
        };
        package.checked("pipeline_spec")
    }

    /// As the API shows it.
    pub fn to_api(&self) -> Value {
        match &self.platform_spec {
            None => self.pipeline_spec.clone(),
            Some(platform) => json!({ "pipeline_spec": self.pipeline_spec, "platform_spec": platform }),
        }
    }

    /// `pipelineInfo.name`.
    pub fn name(&self) -> &str {
        self.pipeline_spec["pipelineInfo"]["name"].as_str().unwrap_or_default()
    }

    fn from_documents(documents: Vec<Value>, file_name: &str) -> Result<Self> {
        let mut documents = documents.into_iter().filter(|document| !document.is_null());
        let first = documents.next().ok_or_else(|| Error::Invalid(format!("{file_name} is empty")))?;
        let platform_spec = documents.next();
        if documents.next().is_some() {
            return Err(Error::Invalid(format!("{file_name} has more than two YAML documents")));
        }
        if let Some(platform) = &platform_spec
            && platform.get("platforms").is_none()
        {
            let text = format!("{file_name}: the second YAML document has no `platforms`");
            return Err(Error::Invalid(text));
        }
        Self { pipeline_spec: first, platform_spec }.checked(file_name)
    }

    fn checked(mut self, at: &str) -> Result<Self> {
        if let Some(reason) = other_kind(&self.pipeline_spec) {
            return Err(Error::Invalid(format!("{at} is no compiled KFP pipeline: {reason}. {EXPECTED}")));
        }
        wire::whole_numbers(&mut self.pipeline_spec);
        match admission::check_pipeline(&self.pipeline_spec, at) {
            Ok(_) => Ok(self),
            Err(problems) => Err(Error::Invalid(problems.to_string())),
        }
    }
}

const EXPECTED: &str = "Expected the YAML that kfp 2 compiles (pipelineInfo, root, components, deploymentSpec): \
    `kfp dsl compile --py pipeline.py --output pipeline.yaml`";

/// What a document that is no pipeline looks like.
fn other_kind(document: &Value) -> Option<String> {
    match document {
        Value::Object(fields) if fields.contains_key("pipelineInfo") && fields.contains_key("root") => None,
        Value::Object(fields) => {
            let api_version = fields.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            let kind = fields.get("kind").and_then(Value::as_str);
            Some(match kind {
                Some(kind) if api_version.starts_with("argoproj.io/") => format!(
                    "it is an Argo {kind}, which kfp 1 compiled to or which is meant for `kubectl apply`"
                ),
                Some(kind) => format!("it is a Kubernetes object of kind {kind}"),
                None => {
                    let missing: Vec<_> = ["pipelineInfo", "root"]
                        .into_iter()
                        .filter(|key| !fields.contains_key(*key))
                        .collect();
                    format!("it has no `{}`", missing.join("` and no `"))
                }
            })
        }
        Value::String(_) => Some("it is plain text".to_owned()),
        _ => Some("it is no YAML mapping".to_owned()),
    }
}

/// Whether a text is Python source: what people upload when they forget to compile.
fn python_hint(text: &str) -> Option<String> {
    let python = text.lines().any(|line| {
        let line = line.trim_end();
        line.starts_with("import ")
            || line.starts_with("from ") && line.contains(" import ")
            || line.starts_with("def ")
    });
    if !python {
        return None;
    }
    let old = ["create_component_from_func", "kfp.components", "ContainerOp", "func_to_container_op"];
    let old = old.iter().find(|name| text.contains(**name));
    Some(match old {
        Some(name) => format!(
            "it is Python source, written for kfp 1 (`{name}` is not in kfp 2); use @dsl.component and @dsl.container_component of kfp>=2 (examples/iris/pipeline_kfp2.py is this pipeline in that form) and compile it"
        ),
        None => "it is Python source and has to be compiled first".to_owned(),
    })
}

fn documents(text: &str, file_name: &str) -> Result<Vec<Value>> {
    if let Some(hint) = python_hint(text) {
        return Err(Error::Invalid(format!("{file_name} is no compiled KFP pipeline: {hint}. {EXPECTED}")));
    }
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| {
            Value::deserialize(document)
                .map_err(|e| Error::Invalid(format!("{file_name} is not YAML: {e}. {EXPECTED}")))
        })
        .collect()
}

fn from_tar(bytes: &[u8], file_name: &str) -> Result<Vec<u8>> {
    let bad = |e: std::io::Error| Error::Invalid(format!("{file_name} is not a readable tar.gz: {e}"));
    let reader = flate2::read::MultiGzDecoder::new(bytes).take(2 * PACKAGE_BYTES_MAX as u64);
    let mut archive = tar::Archive::new(reader);
    let mut found = Vec::new();
    for (index, member) in archive.entries().map_err(bad)?.enumerate() {
        let member = member.map_err(bad)?;
        if index >= MEMBERS_MAX {
            return Err(Error::Invalid(format!("{file_name} has more than {MEMBERS_MAX} members")));
        }
        let name = member.path().map_err(bad)?.display().to_string();
        if member.header().entry_type().is_file() && is_pipeline_name(&name) {
            found.push((name, bounded(member, file_name)?));
        }
    }
    choose(found, file_name)
}

fn from_zip(bytes: &[u8], file_name: &str) -> Result<Vec<u8>> {
    let bad = |e: zip::result::ZipError| Error::Invalid(format!("{file_name} is not a readable zip: {e}"));
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(bad)?;
    if archive.len() > MEMBERS_MAX {
        return Err(Error::Invalid(format!("{file_name} has more than {MEMBERS_MAX} members")));
    }
    let mut found = Vec::new();
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(bad)?;
        let name = member.name().to_owned();
        if member.is_file() && is_pipeline_name(&name) {
            found.push((name, bounded(member, file_name)?));
            if found.len() > 1 && !found.iter().any(|(name, _)| is_main(name)) && found.len() > 8 {
                break;
            }
        }
    }
    choose(found, file_name)
}

fn is_pipeline_name(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

fn is_main(name: &str) -> bool {
    name.rsplit('/').next() == Some("pipeline.yaml")
}

fn bounded(reader: impl Read, file_name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = reader.take(PACKAGE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::Invalid(format!("{file_name} cannot be unpacked: {e}")))?;
    if bytes.len() > PACKAGE_BYTES_MAX {
        return Err(Error::Invalid(format!("{file_name} unpacks to more than {PACKAGE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// `pipeline.yaml`, or the only candidate.
fn choose(mut found: Vec<(String, Vec<u8>)>, file_name: &str) -> Result<Vec<u8>> {
    if let Some(index) = found.iter().position(|(name, _)| is_main(name)) {
        return Ok(found.swap_remove(index).1);
    }
    match found.len() {
        1 => Ok(found.swap_remove(0).1),
        0 => Err(Error::Invalid(format!("{file_name} holds no pipeline.yaml"))),
        count => {
            Err(Error::Invalid(format!("{file_name} holds {count} YAML files and none is pipeline.yaml")))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// A pipeline of one container step with an optional and a required parameter.
    pub(crate) const HELLO: &str = r#"
pipelineInfo: {name: hello}
root:
  dag:
    tasks:
      say:
        componentRef: {name: comp-say}
        taskInfo: {name: say}
        inputs: {parameters: {text: {componentInputParameter: text}}}
  inputDefinitions:
    parameters:
      text: {parameterType: STRING}
      count: {parameterType: NUMBER_INTEGER, defaultValue: 1.0}
components:
  comp-say:
    executorLabel: exec-say
    inputDefinitions: {parameters: {text: {parameterType: STRING}}}
deploymentSpec:
  executors:
    exec-say: {container: {image: busybox, command: [echo], args: ["{{$.inputs.parameters['text']}}"]}}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
"#;

    #[test]
    fn yaml_zip_and_tar_hold_the_same_package() {
        let plain = Package::read(HELLO.as_bytes(), "hello.yaml").unwrap();
        assert_eq!((plain.name(), &plain.platform_spec), ("hello", &None));
        assert_eq!(
            plain.pipeline_spec["root"]["inputDefinitions"]["parameters"]["count"]["defaultValue"],
            json!(1)
        );
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("pipeline.yaml", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(HELLO.as_bytes()).unwrap();
        assert_eq!(Package::read(&zip.finish().unwrap().into_inner(), "p.zip").unwrap(), plain);
        let mut tar =
            tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(HELLO.len() as u64);
        tar.append_data(&mut header, "x/any.yaml", HELLO.as_bytes()).unwrap();
        assert_eq!(Package::read(&tar.into_inner().unwrap().finish().unwrap(), "p.tar.gz").unwrap(), plain);
        let two = format!("{HELLO}---\nplatforms: {{kubernetes: {{}}}}\n");
        let two = Package::read(two.as_bytes(), "two").unwrap();
        assert!(two.platform_spec.is_some());
        assert_eq!(Package::from_api(&two.to_api()).unwrap(), two);
    }

    #[test]
    fn what_is_no_pipeline_is_named() {
        let table = [
            ("from kfp.components import create_component_from_func\n", "written for kfp 1"),
            ("import kfp\n", "Python source"),
            ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n", "Argo Workflow"),
            ("a: 1", "no `pipelineInfo`"),
            ("just words", "plain text"),
            ("", "empty"),
            ("a: [", "not YAML"),
            ("\u{1f}x", "not YAML"),
        ];
        for (text, expected) in table {
            let error = Package::read(text.as_bytes(), "f.yaml").unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let broken = HELLO.replace("executorLabel: exec-say", "executorLabel: other");
        assert!(Package::read(broken.as_bytes(), "f").unwrap_err().to_string().contains("executor"));
    }
}
