//! Artifact URIs as a type: a value that exists is safe.
//!
//! Every place that takes a URI from outside (a pipeline spec, a model source, an `InferenceService`) parses it
//! here, so path traversal is refused in one place. The text forms are the ones of upstream: KFP's `minio://bucket/key`,
//! MLflow's `mlflow-artifacts:/path` and `models:/name/version`, KServe's `file://`, `https://`.
//! Percent signs are not decoded: a key is the bytes as written.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// Longest URI taken, in bytes; KFP keys stay far below it.
pub const URI_BYTES_MAX: usize = 4096;
/// Longest segment of a key, in bytes: the file systems' bound.
const SEGMENT_BYTES_MAX: usize = 255;
/// Longest key, in bytes (S3's bound).
const KEY_BYTES_MAX: usize = 1024;

/// An address of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ArtifactUri {
    /// `minio://`, `s3://`, `gs://`: an object, or a folder of objects, in a bucket.
    Object(Scheme, ObjectName),
    /// `file:///path`: absolute, without `..`.
    File(PathBuf),
    /// `https://…` or `http://…`, as it was.
    Http(String),
    /// `mlflow-artifacts:/path`; the host form keeps `host[:port]`.
    MlflowArtifacts {
        /// `host[:port]` of the `mlflow-artifacts://host/path` form.
        host: Option<String>,
        /// Path below the server's artifact root, no leading slash.
        path: String,
    },
    /// `models:/…`: resolved by the registry.
    Model(ModelSelector),
}

/// The bucket schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// The platform's own store.
    Minio,
    /// Amazon S3 and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gs,
}

/// What a `models:/` URI selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelSelector {
    /// `models:/name/3`.
    Version {
        /// Registered model.
        name: String,
        /// Its version, from 1.
        version: u64,
    },
    /// `models:/name@alias`.
    Alias {
        /// Registered model.
        name: String,
        /// Its alias.
        alias: String,
    },
    /// `models:/name/latest`.
    Latest {
        /// Registered model.
        name: String,
    },
    /// `models:/m-…`: a logged model.
    Logged {
        /// Its id, `m-` included.
        model_id: String,
    },
}

/// A bucket and a key in it: both legal, the key relative and without empty, `.` or `..` segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    bucket: String,
    key: String,
}

impl ObjectName {
    /// Checks both parts. One trailing slash of the key is dropped: `folder/` and `folder` are one name.
    pub fn new(bucket: &str, key: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadName { name: format!("{bucket}/{key}"), reason };
        check_bucket(bucket).map_err(bad)?;
        let key = key.strip_suffix('/').unwrap_or(key);
        check_key(key).map_err(bad)?;
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key, without leading or trailing slash.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The object below this one taken as a folder.
    pub fn join(&self, relative: &str) -> Result<Self, Error> {
        Self::new(&self.bucket, &format!("{}/{relative}", self.key))
    }

    /// Last segment of the key.
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

/// Checks a bucket name: 1 to 63 of `a-z 0-9 . - _`, beginning with a letter or digit.
pub fn check_bucket(bucket: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let starts_well = bucket.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if bucket.is_empty() || bucket.len() > 63 || !starts_well || !bucket.chars().all(legal) {
        return Err(format!(
            "bucket `{bucket}` must be 1 to 63 of a-z, 0-9, `.`, `-`, `_` and begin with a letter or digit"
        ));
    }
    Ok(())
}

/// Checks a key: not empty, relative, no empty, `.` or `..` segment, no control characters, within the bounds.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("the key has {} bytes, more than {KEY_BYTES_MAX}", key.len()));
    }
    if let Some(c) = key.chars().find(|c| c.is_control()) {
        return Err(format!("the key holds the control character {c:?}"));
    }
    for segment in key.split('/') {
        match segment {
            "" => return Err("the key has an empty segment (`//` or a leading `/`)".to_owned()),
            "." | ".." => return Err(format!("the key has a `{segment}` segment")),
            long if long.len() > SEGMENT_BYTES_MAX => {
                return Err(format!("a segment of the key is longer than {SEGMENT_BYTES_MAX} bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

impl FromStr for ArtifactUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|reason| Error::BadUri { uri: text.chars().take(200).collect(), reason })
    }
}

fn parse(text: &str) -> Result<ArtifactUri, String> {
    if text.len() > URI_BYTES_MAX {
        return Err(format!("it is longer than {URI_BYTES_MAX} bytes"));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(format!("it holds the control character {c:?}"));
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err("it has no scheme; expected e.g. minio://bucket/key or models:/name/1".to_owned());
    };
    match scheme {
        "minio" => object(Scheme::Minio, rest),
        "s3" => object(Scheme::S3, rest),
        "gs" => object(Scheme::Gs, rest),
        "file" => file(rest),
        "https" | "http" => http(text, rest),
        "mlflow-artifacts" => mlflow_artifacts(rest),
        "models" => model(rest).map(ArtifactUri::Model),
        other => Err(format!(
            "scheme `{other}` is unknown; known are minio, s3, gs, file, https, http, mlflow-artifacts, models"
        )),
    }
}

fn object(scheme: Scheme, rest: &str) -> Result<ArtifactUri, String> {
    let path = rest.strip_prefix("//").ok_or("expected `//` after the scheme")?;
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    check_bucket(bucket)?;
    let key = key.strip_suffix('/').unwrap_or(key);
    check_key(key)?;
    Ok(ArtifactUri::Object(scheme, ObjectName { bucket: bucket.to_owned(), key: key.to_owned() }))
}

fn file(rest: &str) -> Result<ArtifactUri, String> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.strip_prefix("localhost").unwrap_or(path);
    if !path.starts_with('/') {
        return Err("a file URI needs an absolute path: file:///path".to_owned());
    }
    if path.split('/').any(|segment| segment == "..") {
        return Err("the path has a `..` segment".to_owned());
    }
    Ok(ArtifactUri::File(PathBuf::from(path)))
}

fn http(text: &str, rest: &str) -> Result<ArtifactUri, String> {
    let authority = rest.strip_prefix("//").ok_or("expected `//` after the scheme")?;
    let host = authority.split(['/', '?', '#']).next().unwrap_or("");
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    if host.contains('@') {
        return Err("it holds a user name or password; use a Secret".to_owned());
    }
    Ok(ArtifactUri::Http(text.to_owned()))
}

fn mlflow_artifacts(rest: &str) -> Result<ArtifactUri, String> {
    let (host, path) = match rest.strip_prefix("//") {
        Some(with_host) => {
            let (host, path) = with_host.split_once('/').unwrap_or((with_host, ""));
            (Some(host).filter(|h| !h.is_empty()).map(str::to_owned), path)
        }
        None => (None, rest.trim_start_matches('/')),
    };
    let path = path.trim_start_matches('/').trim_end_matches('/');
    check_key(path)?;
    // The proxy decodes percent signs once; a hidden `..` must not appear there.
    if path.to_ascii_lowercase().contains("%2e") || path.to_ascii_lowercase().contains("%2f") {
        return Err("the path hides a dot or slash behind a percent sign".to_owned());
    }
    Ok(ArtifactUri::MlflowArtifacts { host, path: path.to_owned() })
}

fn model(rest: &str) -> Result<ModelSelector, String> {
    let path = rest.trim_start_matches('/').trim_end_matches('/');
    if !rest.starts_with('/') || path.is_empty() {
        return Err("expected models:/name/version, models:/name@alias or models:/m-id".to_owned());
    }
    check_key(path)?;
    match path.split_once('/') {
        None => match path.rsplit_once('@') {
            Some((name, alias)) if !name.is_empty() && !alias.is_empty() => {
                Ok(ModelSelector::Alias { name: name.to_owned(), alias: alias.to_owned() })
            }
            Some(_) => Err("the name or the alias is empty".to_owned()),
            None if path.starts_with("m-") => Ok(ModelSelector::Logged { model_id: path.to_owned() }),
            None => Err(format!("it names no version; expected models:/{path}/1 or models:/{path}@alias")),
        },
        Some((name, version)) => match version.parse::<u64>() {
            Ok(version) if version > 0 => Ok(ModelSelector::Version { name: name.to_owned(), version }),
            _ if version.eq_ignore_ascii_case("latest") => {
                Ok(ModelSelector::Latest { name: name.to_owned() })
            }
            _ => Err(format!("`{version}` is no version: expected a number from 1, `latest`, or name@alias")),
        },
    }
}

impl Scheme {
    /// The text before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minio => "minio",
            Self::S3 => "s3",
            Self::Gs => "gs",
        }
    }
}

impl fmt::Display for ArtifactUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(scheme, name) => write!(f, "{}://{name}", scheme.as_str()),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Http(url) => f.write_str(url),
            Self::MlflowArtifacts { host: None, path } => write!(f, "mlflow-artifacts:/{path}"),
            Self::MlflowArtifacts { host: Some(host), path } => write!(f, "mlflow-artifacts://{host}/{path}"),
            Self::Model(ModelSelector::Version { name, version }) => write!(f, "models:/{name}/{version}"),
            Self::Model(ModelSelector::Alias { name, alias }) => write!(f, "models:/{name}@{alias}"),
            Self::Model(ModelSelector::Latest { name }) => write!(f, "models:/{name}/latest"),
            Self::Model(ModelSelector::Logged { model_id }) => write!(f, "models:/{model_id}"),
        }
    }
}

/// Whether `relative` may be joined to a folder: no root, no `..`, no control characters.
pub fn is_safe_relative(relative: &Path) -> bool {
    relative.to_str().is_some_and(|text| check_key(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_upstream_form_parses_and_prints_itself() {
        for text in [
            "minio://mlpipeline/v2/artifacts/team/p/run/task/model",
            "s3://bucket/key",
            "gs://bucket/a/b",
            "file:///mnt/models/x",
            "https://example.com/m.tar.gz?x=1",
            "mlflow-artifacts:/1/abc/artifacts/model",
            "mlflow-artifacts://host:5000/1/abc",
            "models:/iris/3",
            "models:/iris@champion",
            "models:/iris/latest",
            "models:/m-0123456789abcdef",
        ] {
            let uri: ArtifactUri = text.parse().unwrap();
            assert_eq!(uri.to_string(), text);
        }
        let folder: ArtifactUri = "minio://b/folder/".parse().unwrap();
        assert_eq!(folder.to_string(), "minio://b/folder");
    }

    #[test]
    fn what_could_leave_its_folder_is_refused() {
        for text in [
            "minio://bucket/a/../b",
            "minio://bucket/..",
            "minio://../key",
            "minio://bucket/",
            "minio://bucket",
            "minio://bucket//key",
            "minio://bucket/a\0b",
            "minio:bucket/key",
            "minio://.tmp/key",
            "file://relative",
            "file:///a/../etc/shadow",
            "mlflow-artifacts:/../../etc",
            "mlflow-artifacts:/%2e%2e/etc",
            "models:/",
            "models:iris/1",
            "models:/iris",
            "models:/iris/0",
            "models:/iris/Production",
            "models:/../1",
            "models:/@a",
            "ftp://host/x",
            "no-scheme",
            "https://user:pw@host/x",
            "https:///x",
        ] {
            let error = text.parse::<ArtifactUri>().unwrap_err();
            assert!(matches!(error, Error::BadUri { .. }), "{text}: {error}");
        }
    }
}
