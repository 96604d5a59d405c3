//! Checks of the house's order that neither rustc nor clippy makes.
//!
//! * every Rust file opens with `//!`;
//! * arrows between crates go downward only, as ARCHITECTURE.md draws them;
//! * no file grows beyond its bound: a ratchet, so that old large files may only shrink;
//! * no link in a Markdown file leads to a file that is not there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Lines (with tests) that a Rust file may have unless the ratchet file allows it more.
const FILE_LINES_MAX: usize = 700;
/// Files that were larger when the bound was set: `<lines> <path>`.
const RATCHET: &str = "xtask/tidy-ratchet.txt";

/// The layer of each crate; an arrow must lead to a lower one.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["types", "pod-protocol"]),
    (1, &["api", "cluster", "objects", "telemetry"]),
    (2, &["plan", "models", "codecs", "onnx", "engines", "store"]),
    (
        3,
        &[
            "apiserver",
            "workloads",
            "node",
            "workflows",
            "pipelines",
            "registry",
            "serving",
            "gateway",
            "infer",
            "backend-host",
            "loadgen",
            "pod-image",
        ],
    ),
    (4, &["slipway", "pod", "fuzz", "xtask"]),
];
/// Arrows inside a layer that are meant.
const MEANT: &[(&str, &str, &str)] = &[
    ("api", "objects", "artifact URIs are validated by the same parser"),
    ("cluster", "api", "one copy of the code that reads the platform's kinds"),
    ("node", "pod-image", "the node starts the embedded shim"),
    ("infer", "codecs", ""),
    ("codecs", "models", "tensors on the wire are the tensors of backends"),
    ("onnx", "models", "an ONNX model is a backend"),
    ("engines", "models", "a model in a native engine is a backend"),
    ("engines", "codecs", "signatures of SavedModels are protobuf messages"),
];
/// Crates that must not know Kubernetes.
const WITHOUT_KUBERNETES: &[&str] = &[
    "infer",
    "backend-host",
    "loadgen",
    "models",
    "codecs",
    "onnx",
    "engines",
    "plan",
    "store",
    "types",
    "pod-protocol",
    "pod",
];
/// Crates that must not know the embedded parts.
const WITHOUT_STORE: &[&str] =
    &["workloads", "node", "workflows", "pipelines", "registry", "serving", "gateway", "infer", "loadgen"];

/// Runs all checks and reports every finding.
pub fn run() -> Result<()> {
    let root = root()?;
    let mut findings = Vec::new();
    let files = tracked_files(&root)?;
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        check_header(&root, file, &mut findings)?;
    }
    check_sizes(&root, &files, &mut findings)?;
    check_arrows(&root, &mut findings)?;
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        check_links(&root, file, &mut findings)?;
    }
    if findings.is_empty() {
        println!("tidy: {} files in order", files.len());
        return Ok(());
    }
    bail!("tidy: {} findings\n  {}", findings.len(), findings.join("\n  "))
}

/// The workspace root. Cargo names the package's folder when it runs us; what was true at build time may be another checkout's
/// where several share a target folder.
fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    Ok(manifest.parent().context("xtask has no parent folder")?.to_path_buf())
}

fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter(|line| root.join(line).is_file()).map(str::to_owned).collect())
}

fn check_header(root: &Path, file: &str, findings: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
    if !text.trim_start().starts_with("//!") {
        findings.push(format!("{file}: does not open with //! (what, why this way, what it is not)"));
    }
    Ok(())
}

fn check_sizes(root: &Path, files: &[String], findings: &mut Vec<String>) -> Result<()> {
    let ratchet = fs::read_to_string(root.join(RATCHET)).unwrap_or_default();
    let allowed: BTreeMap<&str, usize> = ratchet
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(lines, path)| Some((path, lines.parse().ok()?)))
        .collect();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let lines = fs::read_to_string(root.join(file))?.lines().count();
        let bound = allowed.get(file.as_str()).copied().unwrap_or(FILE_LINES_MAX);
        if lines > bound {
            findings.push(format!("{file}: {lines} lines, at most {bound}; one idea a file"));
        }
    }
    Ok(())
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, names)| names.contains(&name)).map(|(layer, _)| *layer)
}

fn check_arrows(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .current_dir(root)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(from) = layer(name) else {
            findings
                .push(format!("crate {name} has no layer; add it to xtask/src/tidy.rs and ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            let is_dev = dependency["kind"].as_str() == Some("dev");
            let to = dependency["name"].as_str().unwrap_or_default();
            if is_dev {
                continue;
            }
            findings.extend(forbidden_arrow(name, from, to));
        }
    }
    Ok(())
}

fn forbidden_arrow(name: &str, from: u8, to: &str) -> Option<String> {
    if WITHOUT_KUBERNETES.contains(&name) && matches!(to, "kube" | "k8s-openapi") {
        return Some(format!("{name} -> {to}: this crate knows nothing of Kubernetes"));
    }
    if WITHOUT_STORE.contains(&name) && matches!(to, "store" | "apiserver" | "node" | "workloads") {
        return Some(format!("{name} -> {to}: controllers know a Kubernetes client only"));
    }
    let target = layer(to)?;
    let meant = MEANT.iter().any(|(a, b, _)| *a == name && *b == to);
    (target >= from && !meant)
        .then(|| format!("{name} (L{from}) -> {to} (L{target}): arrows go downward only"))
}

fn check_links(root: &Path, file: &str, findings: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join(file))?;
    let folder = root.join(file).parent().map(Path::to_path_buf).unwrap_or_default();
    for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = target.split('#').next().unwrap_or_default();
        let is_local =
            !path.is_empty() && !path.contains("://") && !path.contains(' ') && !path.starts_with("mailto:");
        if is_local && !folder.join(path).exists() {
            findings.push(format!("{file}: link to {path:?} leads nowhere"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_go_downward_only() {
        assert_eq!(forbidden_arrow("workflows", 3, "plan"), None);
        assert_eq!(forbidden_arrow("node", 3, "pod-image"), None);
        assert!(forbidden_arrow("workflows", 3, "registry").is_some());
        assert!(forbidden_arrow("serving", 3, "store").is_some(), "controllers do not know the store");
        assert!(forbidden_arrow("models", 2, "kube").is_some(), "models know nothing of Kubernetes");
    }
}
