//! The user's kubeconfig: adds the cluster's context, as kubectl itself would write it.
//!
//! The merge takes kubectl's own lock (`<file>.lock`, made exclusively), writes the file atomically, and never changes an
//! existing `current-context`. Not here: the cluster's own kubeconfig in the data folder, which `apiserver::pki` renders.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_yaml_ng::{Mapping, Value};

use super::folder::{Folder, write_atomically};

/// The context's name: `slipway`, or `slipway-<folder name>` for other data folders.
pub fn context_name(folder: &Folder) -> String {
    if folder.is_default() {
        return "slipway".to_owned();
    }
    let name = folder.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("slipway-{}", name.trim_start_matches('.'))
}

/// The file that kubectl would change: the first of `KUBECONFIG`, else `~/.kube/config`.
pub fn user_file() -> Option<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        return std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty());
    }
    Some(Path::new(&std::env::var_os("HOME")?).join(".kube/config"))
}

/// Merges the cluster's kubeconfig text into the user's file under the given context name.
///
/// # Errors
/// When the lock is held, the file is no kubeconfig, or it cannot be written. The file is unchanged then.
pub fn merge_into(file: &Path, cluster: &str, context: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let _lock = Lock::take(file)?;
    let existing = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let merged = merged(&existing, cluster, context).with_context(|| file.display().to_string())?;
    if merged != existing {
        // A symlinked kubeconfig keeps being one: the file behind it is replaced.
        let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
        write_atomically(&target, merged.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// The pure part: both texts in, the new text out.
fn merged(existing: &str, cluster: &str, context: &str) -> Result<String> {
    let mut config: Value = if existing.trim().is_empty() {
        serde_yaml_ng::from_str("{apiVersion: v1, kind: Config, preferences: {}}")?
    } else {
        serde_yaml_ng::from_str(existing)?
    };
    let root = config.as_mapping_mut().context("not a kubeconfig: a mapping was expected")?;
    let ours: Value = serde_yaml_ng::from_str(cluster)?;
    let mut changed = false;
    for (list, field) in [("clusters", "cluster"), ("users", "user")] {
        let entry = ours[list][0][field].clone();
        changed |= set_named(root, list, field, context, entry)?;
    }
    let mut entry = Mapping::new();
    entry.insert("cluster".into(), context.into());
    entry.insert("user".into(), context.into());
    changed |= set_named(root, "contexts", "context", context, entry.into())?;
    if root.get("current-context").and_then(Value::as_str).unwrap_or_default().is_empty() {
        root.insert("current-context".into(), context.into());
        changed = true;
    }
    if changed { Ok(serde_yaml_ng::to_string(&config)?) } else { Ok(existing.to_owned()) }
}

fn set_named(root: &mut Mapping, list: &str, field: &str, name: &str, entry: Value) -> Result<bool> {
    let slot = root.entry(list.into()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Sequence(Vec::new());
    }
    let items = slot.as_sequence_mut().with_context(|| format!("`{list}` is not a list"))?;
    let mut item = Mapping::new();
    item.insert("name".into(), name.into());
    item.insert(field.into(), entry);
    let item = Value::Mapping(item);
    match items.iter_mut().find(|item| item["name"].as_str() == Some(name)) {
        Some(found) if *found == item => return Ok(false),
        Some(found) => *found = item,
        None => items.push(item),
    }
    Ok(true)
}

/// kubectl's lock file; removed on drop.
struct Lock(PathBuf);

impl Lock {
    fn take(file: &Path) -> Result<Self> {
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        match OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path) {
            Ok(_) => Ok(Self(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                "{} is locked by another kubectl; if none runs, remove {}, or start with --no-merge",
                file.display(),
                path.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", file.display())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "clusters: [{name: x, cluster: {server: 'https://127.0.0.1:7443'}}]\nusers: [{name: x, user: {token: t}}]";

    #[test]
    fn an_existing_current_context_and_other_clusters_stay() {
        let existing = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters: [{name: work, cluster: {server: 'https://a'}}]\ncontexts: null\n";
        let text = merged(existing, CLUSTER, "slipway").unwrap();
        let value: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(value["current-context"], "work");
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://a");
        assert_eq!(value["clusters"][1]["cluster"]["server"], "https://127.0.0.1:7443");
        assert_eq!(value["contexts"][0]["context"]["user"], "slipway");
    }

    #[test]
    fn a_second_merge_changes_nothing() {
        let once = merged("", CLUSTER, "slipway").unwrap();
        assert_eq!(merged(&once, CLUSTER, "slipway").unwrap(), once);
        let value: Value = serde_yaml_ng::from_str(&once).unwrap();
        assert_eq!(value["current-context"], "slipway");
    }

    #[test]
    fn a_held_lock_refuses_and_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        fs::write(dir.path().join("config.lock"), "").unwrap();
        let refused = merge_into(&file, CLUSTER, "slipway").unwrap_err().to_string();
        assert!(refused.contains("--no-merge"), "{refused}");
        assert!(!file.exists());
    }
}
