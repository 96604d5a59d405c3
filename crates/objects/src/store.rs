//! The embedded store: one file an object, `ROOT/<bucket>/<key>`.
//!
//! A folder of plain files, because users then read, copy and back up artifacts with the tools they have. A write goes
//! to `ROOT/.tmp`, is synced, renamed, and the folders that changed are synced: an object that was answered
//! survives a power cut, and no reader sees half of one. The SHA-256 is kept as the extended attribute
//! `user.slipway.sha256` where the file system has them; where not, reads go without it.
//!
//! Not a versioned store, and no remote one: `s3://` and `gs://` come as further implementations.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::Error;
use crate::uri::{ObjectName, check_bucket};

const SHA256_ATTRIBUTE: &str = "user.slipway.sha256";
/// Most entries that one listing returns.
pub const LIST_MAX: usize = 100_000;

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub modified: SystemTime,
    /// SHA-256, lower-case hex, where known.
    pub sha256: Option<String>,
}

/// The objects of one data folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    root: std::sync::Arc<Path>,
    bytes_max: u64,
}

impl ArtifactStore {
    /// Opens (and makes) the store in `root`; left-overs of writes that a crash cut off are removed.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let temporary = root.join(".tmp");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(temporary, error)),
            _ => {}
        }
        fs::create_dir_all(&temporary).map_err(|e| Error::io(&temporary, e))?;
        Ok(Self { root: root.into(), bytes_max: 64 << 30 })
    }

    /// The same store with another bound for one object, in bytes (64 GiB unless told).
    pub fn with_bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// The file that holds an object. Read-only for callers: writing there skips every guarantee.
    pub fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.bucket()).join(name.key())
    }

    /// What is known of an object; `NotFound` also for a folder.
    pub async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, Error> {
        Ok(self.open_object(name).await?.1)
    }

    /// Whether the name is an object, or a folder that holds one.
    pub async fn exists(&self, name: &ObjectName) -> Result<bool, Error> {
        match tokio::fs::metadata(self.path(name)).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(Error::io(self.path(name), error)),
        }
    }

    /// An object's bytes as a file to read from.
    pub async fn get(&self, name: &ObjectName) -> Result<(tokio::fs::File, ObjectMeta), Error> {
        self.open_object(name).await
    }

    async fn open_object(&self, name: &ObjectName) -> Result<(tokio::fs::File, ObjectMeta), Error> {
        let path = self.path(name);
        let key = name.key().to_owned();
        let shown = name.to_string();
        blocking(move || {
            let file = match fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if is_absent(&error) => return Err(Error::NotFound(shown)),
                Err(error) => return Err(Error::io(path, error)),
            };
            let metadata = file.metadata().map_err(|e| Error::io(&path, e))?;
            if !metadata.is_file() {
                return Err(Error::NotFound(shown));
            }
            let meta = ObjectMeta {
                key,
                size: metadata.len(),
                modified: metadata.modified().map_err(|e| Error::io(&path, e))?,
                sha256: read_digest(&file),
            };
            Ok((tokio::fs::File::from_std(file), meta))
        })
        .await
    }

    /// Writes an object from a stream; it replaces what was there. `expected_sha256` (hex) must match when given.
    /// Answers after everything is on disk; an error leaves the old object as it was.
    pub async fn put<S, E>(
        &self,
        name: &ObjectName,
        mut body: S,
        expected_sha256: Option<&str>,
    ) -> Result<ObjectMeta, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        let temporary = Temporary(self.root.join(".tmp").join(uuid::Uuid::new_v4().to_string()));
        let created = tokio::fs::File::create_new(&temporary.0).await;
        let mut file = created.map_err(|e| Error::io(&temporary.0, e))?;
        let mut digest = Sha256::new();
        let mut size = 0_u64;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| Error::Body { name: name.clone(), reason: e.to_string() })?;
            size += chunk.len() as u64;
            if size > self.bytes_max {
                return Err(Error::TooLarge { name: name.to_string(), bytes_max: self.bytes_max });
            }
            digest.update(&chunk);
            file.write_all(&chunk).await.map_err(|e| Error::io(&temporary.0, e))?;
        }
        file.flush().await.map_err(|e| Error::io(&temporary.0, e))?;
        let actual = hex::encode(digest.finalize());
        if let Some(expected) = expected_sha256.filter(|expected| !expected.eq_ignore_ascii_case(&actual)) {
            return Err(Error::Digest { name: name.clone(), expected: expected.to_owned(), actual });
        }
        let file = file.into_std().await;
        let (target, root, name) = (self.path(name), self.root.clone(), name.clone());
        let meta = ObjectMeta {
            key: name.key().to_owned(),
            size,
            modified: SystemTime::now(),
            sha256: Some(actual.clone()),
        };
        blocking(move || publish(&root, &temporary, &file, &target, &name, &actual)).await?;
        Ok(meta)
    }

    /// Writes an object from memory.
    pub async fn put_bytes(&self, name: &ObjectName, bytes: impl Into<Bytes>) -> Result<ObjectMeta, Error> {
        let body = futures::stream::iter([Ok::<_, std::convert::Infallible>(bytes.into())]);
        self.put(name, body, None).await
    }

    /// Removes an object, and the folders that are empty without it. No object is no error: a repeat does no harm.
    pub async fn delete(&self, name: &ObjectName) -> Result<(), Error> {
        let (path, bucket) = (self.path(name), self.root.join(name.bucket()));
        blocking(move || {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::IsADirectory => {
                    return Ok(());
                }
                Err(error) => return Err(Error::io(path, error)),
            }
            let mut folder = path.parent();
            while let Some(now) = folder.filter(|now| *now != bucket) {
                // A folder that is not empty ends the walk; so does one that another writer just made.
                if fs::remove_dir(now).is_err() {
                    break;
                }
                folder = now.parent();
            }
            folder.map_or(Ok(()), sync_folder)
        })
        .await
    }

    /// The objects whose key begins with `prefix`, by key; at most [`LIST_MAX`], more is an error.
    /// The prefix is text, as in S3: `a/b` finds `a/b`, `a/b/c` and `a/bc`.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectMeta>, Error> {
        let bad = |reason| Error::BadName { name: format!("{bucket}/{prefix}"), reason };
        check_bucket(bucket).map_err(bad)?;
        let (folder, _) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        if folder.split('/').any(|segment| segment == ".." || segment == ".") || prefix.contains('\0') {
            return Err(bad("the prefix has a `.` or `..` segment or a NUL".to_owned()));
        }
        let base = self.root.join(bucket);
        let (folder, prefix) = (folder.to_owned(), prefix.to_owned());
        blocking(move || {
            let mut found = Vec::new();
            walk(&base.join(&folder), &folder, &prefix, &mut found)?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    /// The objects below `name` taken as a folder.
    pub async fn list_folder(&self, name: &ObjectName) -> Result<Vec<ObjectMeta>, Error> {
        self.list(name.bucket(), &format!("{}/", name.key())).await
    }
}

/// A file that goes away unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn publish(
    root: &Path,
    temporary: &Temporary,
    file: &fs::File,
    target: &Path,
    name: &ObjectName,
    sha256: &str,
) -> Result<(), Error> {
    // Best effort: overlay and network file systems may have no user attributes.
    let _ = rustix::fs::fsetxattr(file, SHA256_ATTRIBUTE, sha256.as_bytes(), rustix::fs::XattrFlags::empty());
    file.sync_all().map_err(|e| Error::io(&temporary.0, e))?;
    let folder = target.parent().unwrap_or(root);
    // A concurrent delete may remove a folder it found empty between the two calls: then once more.
    for attempt in 0.. {
        let made = make_folders(root, folder).and_then(|()| fs::rename(&temporary.0, target));
        match made {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < 8 => {}
            Err(error) if is_folder_clash(&error) => return Err(Error::KeyIsFolder(name.clone())),
            Err(error) => return Err(Error::io(target, error)),
        }
    }
    sync_folder(folder)
}

/// Makes the folders down to `folder` and syncs each parent in which a new one appeared.
fn make_folders(root: &Path, folder: &Path) -> io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folders(root, parent)?;
        match fs::create_dir(folder) {
            Ok(()) => fs::File::open(parent)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    match fs::File::open(folder).and_then(|opened| opened.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| Error::io(folder, e)),
    }
}

fn is_folder_clash(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_digest(file: &fs::File) -> Option<String> {
    let mut value = [0_u8; 64];
    let length = rustix::fs::fgetxattr(file, SHA256_ATTRIBUTE, &mut value[..]).ok()?;
    let text = std::str::from_utf8(&value[..length]).ok()?;
    (text.len() == 64).then(|| text.to_owned())
}

fn walk(folder: &Path, key: &str, prefix: &str, found: &mut Vec<ObjectMeta>) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(Error::io(folder, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let child = if key.is_empty() { file_name } else { format!("{key}/{file_name}") };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let below = format!("{child}/");
            if below.starts_with(prefix) || prefix.starts_with(&below) {
                walk(&entry.path(), &child, prefix, found)?;
            }
        } else if metadata.is_file() && child.starts_with(prefix) {
            if found.len() == LIST_MAX {
                return Err(Error::TooLarge {
                    name: format!("listing of {prefix}"),
                    bytes_max: LIST_MAX as u64,
                });
            }
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(ObjectMeta { key: child, size: metadata.len(), modified, sha256: None });
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.expect("store work does not panic and is not cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(key: &str) -> ObjectName {
        ObjectName::new("mlpipeline", key).unwrap()
    }

    fn store() -> (tempfile::TempDir, ArtifactStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn an_object_reads_back_and_a_cut_write_leaves_the_old_one() {
        let (folder, store) = store();
        let object = name("team/run/model");
        let meta = store.put_bytes(&object, "first").await.unwrap();
        assert_eq!(meta.sha256.as_deref().unwrap(), hex::encode(Sha256::digest("first")));
        let broken = futures::stream::iter([Ok(Bytes::from("sec")), Err("gone")]);
        assert!(matches!(store.put(&object, broken, None).await, Err(Error::Body { .. })));
        let wrong = futures::stream::iter([Ok::<_, &str>(Bytes::from("second"))]);
        assert!(matches!(store.put(&object, wrong, Some("00")).await, Err(Error::Digest { .. })));
        assert_eq!(fs::read(store.path(&object)).unwrap(), b"first");
        assert_eq!(store.head(&object).await.unwrap().size, 5);
        assert_eq!(fs::read_dir(folder.path().join(".tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_listing_is_by_text_prefix_and_sorted() {
        let (_folder, store) = store();
        for key in ["a/b", "a/bc/d", "a/c", "ab", "z"] {
            store.put_bytes(&name(key), key.to_owned()).await.unwrap();
        }
        let keys = async |prefix: &str| -> Vec<String> {
            store.list("mlpipeline", prefix).await.unwrap().into_iter().map(|m| m.key).collect()
        };
        assert_eq!(keys("").await, ["a/b", "a/bc/d", "a/c", "ab", "z"]);
        assert_eq!(keys("a/b").await, ["a/b", "a/bc/d"]);
        assert_eq!(keys("a/").await, ["a/b", "a/bc/d", "a/c"]);
        assert_eq!(keys("a").await, ["a/b", "a/bc/d", "a/c", "ab"]);
        assert!(keys("nothing/here").await.is_empty());
        assert!(store.list("mlpipeline", "../other/").await.is_err());
    }

    #[tokio::test]
    async fn a_key_is_an_object_or_a_folder_never_both() {
        let (_folder, store) = store();
        store.put_bytes(&name("a/b"), "x").await.unwrap();
        assert!(matches!(store.put_bytes(&name("a"), "x").await, Err(Error::KeyIsFolder(_))));
        assert!(matches!(store.put_bytes(&name("a/b/c"), "x").await, Err(Error::KeyIsFolder(_))));
        assert!(matches!(store.head(&name("a")).await, Err(Error::NotFound(_))));
        store.delete(&name("a/b")).await.unwrap();
        store.delete(&name("a/b")).await.unwrap();
        store.put_bytes(&name("a"), "now free").await.unwrap();
    }

    #[tokio::test]
    async fn more_than_the_bound_is_refused() {
        let (_folder, store) = store();
        let store = store.with_bytes_max(3);
        assert!(matches!(store.put_bytes(&name("k"), "1234").await, Err(Error::TooLarge { .. })));
        store.put_bytes(&name("k"), "123").await.unwrap();
    }
}
