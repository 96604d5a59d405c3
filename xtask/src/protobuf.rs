//! Makes the table of protobuf field numbers of built-in kinds from the Go types in `k8s.io/api` and `k8s.io/apimachinery`.
//!
//! The struct tags are the only source that has number, JSON name, pointer and `omitempty` together: the `.proto` files
//! do not tell an absent value from a zero. Needs `go` and its module proxy; run by hand on an upgrade, the result is
//! checked in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const VERSION: &str = "v0.34.2";
const TABLE: &str = "crates/apiserver/src/protobuf/table.json.gz";

/// Packages with kinds, and their group and version as clients write them.
const KINDS: &[(&str, &str)] = &[
    ("k8s.io/api/core/v1", "v1"),
    ("k8s.io/api/apps/v1", "apps/v1"),
    ("k8s.io/api/authentication/v1", "authentication.k8s.io/v1"),
    ("k8s.io/api/authorization/v1", "authorization.k8s.io/v1"),
    ("k8s.io/api/autoscaling/v1", "autoscaling/v1"),
    ("k8s.io/api/autoscaling/v2", "autoscaling/v2"),
    ("k8s.io/api/batch/v1", "batch/v1"),
    ("k8s.io/api/coordination/v1", "coordination.k8s.io/v1"),
    ("k8s.io/api/discovery/v1", "discovery.k8s.io/v1"),
    ("k8s.io/api/events/v1", "events.k8s.io/v1"),
    ("k8s.io/api/networking/v1", "networking.k8s.io/v1"),
    ("k8s.io/api/policy/v1", "policy/v1"),
    ("k8s.io/api/rbac/v1", "rbac.authorization.k8s.io/v1"),
    ("k8s.io/api/scheduling/v1", "scheduling.k8s.io/v1"),
    ("k8s.io/api/storage/v1", "storage.k8s.io/v1"),
];
const META: &str = "k8s.io/apimachinery/pkg/apis/meta/v1";

/// A type as another one names it: how often, and which.
struct Named {
    shape: &'static str,
    base: String,
}

#[derive(Default)]
struct Types {
    /// Full name to its fields: number, JSON name, flags, type expression resolved.
    structs: BTreeMap<String, Vec<Value>>,
    aliases: HashMap<String, String>,
}

/// Reads, reduces, writes.
pub fn run() -> Result<()> {
    let folders =
        [("k8s.io/api", download("k8s.io/api")?), ("k8s.io/apimachinery", download("k8s.io/apimachinery")?)];
    let mut types = Types::default();
    let packages = KINDS.iter().map(|(package, _)| *package).chain([META]);
    for package in packages {
        let (module, folder) = folders
            .iter()
            .find(|(module, _)| package.starts_with(&format!("{module}/")))
            .context("module")?;
        read_package(package, &folder.join(package[module.len()..].trim_start_matches('/')), &mut types)?;
    }
    let mut kinds = BTreeMap::new();
    for (package, api_version) in KINDS {
        let prefix = format!("{package}.");
        for (name, fields) in types.structs.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            let has_meta = fields.iter().any(|field| field[1] == "metadata");
            if has_meta {
                kinds.insert(format!("{api_version}/{}", &name[prefix.len()..]), name.clone());
            }
        }
    }
    kinds.insert("v1/DeleteOptions".into(), format!("{META}.DeleteOptions"));
    let messages = reachable(&types, kinds.values());
    let text = serde_json::to_vec(&json!({ "kinds": kinds, "messages": messages }))?;
    let mut packer = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    packer.write_all(&text)?;
    let packed = packer.finish()?;
    ensure!(packed.len() < 100 << 10, "the table has {} bytes", packed.len());
    fs::create_dir_all(Path::new(TABLE).parent().context("folder of the table")?)?;
    File::create(TABLE)?.write_all(&packed)?;
    println!("{TABLE}: {} kinds, {} messages, {} bytes", kinds.len(), messages.len(), packed.len());
    Ok(())
}

fn download(module: &str) -> Result<PathBuf> {
    let wanted = format!("{module}@{VERSION}");
    let output = Command::new("go").args(["mod", "download", "-json", &wanted]).output().context("run go")?;
    let told: Value = serde_json::from_slice(&output.stdout).context("read go's answer")?;
    Ok(PathBuf::from(told["Dir"].as_str().with_context(|| format!("go could not give {wanted}: {told}"))?))
}

fn read_package(package: &str, folder: &Path, types: &mut Types) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let is_source = name.ends_with(".go") && !name.ends_with("_test.go");
        if is_source && !name.starts_with("zz_") && !name.starts_with("generated") {
            read_file(package, &fs::read_to_string(&path)?, types);
        }
    }
    Ok(())
}

fn read_file(package: &str, text: &str, types: &mut Types) {
    let mut imports: HashMap<String, String> = HashMap::new();
    let mut inside: Option<(String, Vec<Value>)> = None;
    for line in text.lines().map(str::trim) {
        if let Some((name, fields)) = &mut inside {
            if line == "}" {
                types.structs.insert(name.clone(), std::mem::take(fields));
                inside = None;
            } else if let Some(field) = field(package, line, &imports) {
                fields.push(field);
            }
            continue;
        }
        if let Some((alias, path)) = import(line) {
            imports.insert(alias, path);
        }
        let Some(rest) = line.strip_prefix("type ") else { continue };
        let Some((name, target)) = rest.split_once(' ') else { continue };
        let full = format!("{package}.{name}");
        if target.starts_with("struct {") && !target.ends_with('}') {
            inside = Some((full, Vec::new()));
        } else if !target.starts_with("interface") && !target.starts_with("struct") {
            let target = target.trim_start_matches("= ").split("//").next().unwrap_or("").trim();
            types.aliases.insert(full, qualify(package, target, &imports));
        }
    }
}

fn import(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("import ").unwrap_or(line);
    let (head, rest) = line.split_once('"')?;
    let path = rest.strip_suffix('"')?;
    let alias = head.trim();
    let is_name = alias.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let last = path.rsplit('/').next()?;
    (is_name && path.contains('/'))
        .then(|| (if alias.is_empty() { last } else { alias }.to_owned(), path.to_owned()))
}

/// A type expression with its names made full.
fn qualify(package: &str, text: &str, imports: &HashMap<String, String>) -> String {
    for prefix in ["*", "[]"] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return format!("{prefix}{}", qualify(package, rest, imports));
        }
    }
    if let Some((_, value)) = text.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return format!("map[string]{}", qualify(package, value, imports));
    }
    match text.split_once('.') {
        Some((alias, name)) => format!("{}.{name}", imports.get(alias).map_or(alias, String::as_str)),
        None if text.chars().next().is_some_and(char::is_uppercase) => format!("{package}.{text}"),
        None => text.to_owned(),
    }
}

/// `[number, JSON name, flags, type]` of a struct's line: flags `o` for omitempty, `i` for inline.
fn field(package: &str, line: &str, imports: &HashMap<String, String>) -> Option<Value> {
    let (code, tags) = line.split_once('`').filter(|_| !line.starts_with("//"))?;
    let tag = |name: &str| Some(tags.split_once(&format!("{name}:\""))?.1.split_once('"')?.0);
    let (json_name, protobuf) = (tag("json")?, tag("protobuf")?);
    let number: u64 = protobuf.split(',').nth(1)?.parse().ok()?;
    let mut words = code.split_whitespace();
    let first = words.next()?;
    let kind = words.next().unwrap_or(first);
    let (name, options) = json_name.split_once(',').unwrap_or((json_name, ""));
    let mut flags = String::new();
    if options.contains("omitempty") {
        flags.push('o');
    }
    if options.contains("inline") {
        flags.push('i');
    }
    Some(json!([number, name, flags, qualify(package, kind, imports)]))
}

/// Follows aliases down to a scalar, a message or one of the types with a form of their own.
fn settle(types: &Types, text: &str) -> Named {
    if let Some(alias) = types.aliases.get(text) {
        return settle(types, alias);
    }
    if let Some(rest) = text.strip_prefix('*') {
        return Named { shape: "p", base: settle(types, rest).base };
    }
    if text == "[]byte" {
        return Named { shape: "", base: "bytes".into() };
    }
    if let Some(rest) = text.strip_prefix("[]") {
        return Named { shape: "r", base: nested(types, rest) };
    }
    if let Some(rest) = text.strip_prefix("map[string]") {
        return Named { shape: "m", base: nested(types, rest) };
    }
    Named { shape: "", base: text.to_owned() }
}

/// A list inside a list or map is a message with its items in field 1.
fn nested(types: &Types, text: &str) -> String {
    let inner = settle(types, text);
    if inner.shape == "r" { format!("[]{}", inner.base) } else { inner.base }
}

fn reachable<'a>(types: &Types, roots: impl Iterator<Item = &'a String>) -> BTreeMap<String, Vec<Value>> {
    let mut queue: Vec<String> = roots.cloned().collect();
    let mut seen: BTreeSet<String> = queue.iter().cloned().collect();
    let mut out = BTreeMap::new();
    while let Some(name) = queue.pop() {
        let Some(fields) = types.structs.get(&name) else { continue };
        let rows = fields.iter().map(|field| {
            let named = settle(types, field[3].as_str().unwrap_or(""));
            if types.structs.contains_key(&named.base) && seen.insert(named.base.clone()) {
                queue.push(named.base.clone());
            }
            let flags = format!("{}{}", field[2].as_str().unwrap_or(""), named.shape);
            json!([field[0], field[1], flags, named.base])
        });
        out.insert(name, rows.collect());
    }
    out
}
