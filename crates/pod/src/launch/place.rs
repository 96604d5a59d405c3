//! Where an artifact is: bucket and key of a URI, and which local paths are taken.
//!
//! The same rules as `objects::uri`, in the few lines that this small binary needs; the artifact face checks again.

/// A bucket and a key of the platform's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    pub key: String,
}

impl Place {
    /// Parses `minio://bucket/key`.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let Some(rest) = uri.strip_prefix("minio://") else {
            let scheme = uri.split_once(':').map_or("none", |(scheme, _)| scheme);
            return Err(format!(
                "artifact `{uri}`: scheme `{scheme}` is not implemented in the launcher yet; expected minio://bucket/key"
            ));
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let key = key.strip_suffix('/').unwrap_or(key);
        if bucket.is_empty() || bucket.starts_with('.') || !is_plain(key) {
            return Err(format!(
                "artifact `{uri}`: expected minio://bucket/key without empty, `.` or `..` segments"
            ));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// Path of the object on the artifact face.
    pub fn object_path(&self) -> String {
        object_path(&self.bucket, &self.key)
    }

    /// Path and query that list what is below the key.
    pub fn list_path(&self) -> String {
        format!("/v1/objects/{}?prefix={}%2F", self.bucket, encode(&self.key, false))
    }

    /// The place below this one.
    pub fn join(&self, relative: &str) -> Self {
        Self { bucket: self.bucket.clone(), key: format!("{}/{relative}", self.key) }
    }
}

/// Path of an object on the artifact face.
pub fn object_path(bucket: &str, key: &str) -> String {
    format!("/v1/objects/{bucket}/{}", encode(key, true))
}

/// Whether a relative path is plain: not empty, no empty, `.` or `..` segment, no control character.
pub fn is_plain(path: &str) -> bool {
    !path.chars().any(char::is_control) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Checks a local path of the spec: absolute and without `..`.
pub fn check_local(path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(format!("path `{path}` must be absolute and without `..`"));
    }
    Ok(())
}

fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        if plain || (keep_slash && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_leaves_its_folder_is_refused() {
        for uri in
            ["minio://b/../x", "minio://b/", "minio://b", "minio:///k", "s3://b/k", "minio://b/a//c", "x"]
        {
            assert!(Place::parse(uri).is_err(), "{uri}");
        }
        let place = Place::parse("minio://b/team/a b/").unwrap();
        assert_eq!(place.object_path(), "/v1/objects/b/team/a%20b");
        assert_eq!(place.list_path(), "/v1/objects/b?prefix=team%2Fa%20b%2F");
        assert!(
            check_local("/tmp/../etc").is_err()
                && check_local("tmp").is_err()
                && check_local("/tmp/x").is_ok()
        );
    }
}
