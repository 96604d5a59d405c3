//! The packages of a KFP Python component, without running its `pip install` layer for every step.
//!
//! Upstream's layer costs 0.7 s even when everything is installed. Here: if the image's own Python already satisfies the
//! requirements nothing is added; else an environment per (Python version, platform, arguments) is installed once into
//! the cache folder and put on `PYTHONPATH`. Both answers are remembered, so a warm step reads two small files and the
//! names in the site folders. The image itself is never changed.
//!
//! The cache is shared by one namespace's pods and trusted as far as they trust each other.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pod_protocol::launch::PythonEnv;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::outputs::hex;

/// Asks the interpreter who it is and whether the requirements are met.
const PROBE: &str = include_str!("probe.py");

/// What an interpreter says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Interpreter {
    version: String,
    platform: String,
    /// Folders that hold installed packages.
    site: Vec<String>,
}

#[derive(Deserialize)]
struct Probe {
    #[serde(flatten)]
    interpreter: Interpreter,
    satisfied: bool,
    reason: String,
}

/// The environment variables to run the command with; none when the image has all that is needed.
pub fn provide(env: &PythonEnv) -> Result<Vec<(String, OsString)>, String> {
    let layers: Vec<Vec<String>> = env.pip_arguments.iter().map(|layer| without_verb(layer)).collect();
    if layers.iter().all(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let python =
        find("python3").ok_or("the image has no python3 in PATH, which the component's packages need")?;
    let cache = Path::new(&env.cache_folder);
    for folder in ["pythons", "answers", "envs"] {
        fs::create_dir_all(cache.join(folder))
            .map_err(|e| format!("package cache {}: {e}", cache.display()))?;
    }
    let interpreter_file = identity(&python).map(|id| cache.join("pythons").join(id));
    let known = interpreter_file.as_deref().and_then(read_json::<Interpreter>);
    let remembered =
        known.as_ref().map(|known| cache.join("answers").join(answer_key(&python, known, &layers)));
    let answer = remembered.as_deref().and_then(|file| fs::read_to_string(file).ok());
    let (interpreter, satisfied) = match (known, answer.as_deref()) {
        (Some(known), Some("yes")) => (known, true),
        (Some(known), Some("no")) => (known, false),
        _ => {
            let probe = probe(&python, &layers)?;
            if let Some(file) = interpreter_file {
                remember(&file, &serde_json::to_string(&probe.interpreter).map_err(|e| e.to_string())?);
                let key = answer_key(&python, &probe.interpreter, &layers);
                remember(&cache.join("answers").join(key), if probe.satisfied { "yes" } else { "no" });
            }
            if !probe.satisfied {
                eprintln!("slipway: python packages of the image do not suffice: {}", probe.reason);
            }
            (probe.interpreter, probe.satisfied)
        }
    };
    if satisfied {
        return Ok(Vec::new());
    }
    let folder = installed(cache, &python, &interpreter, &layers)?;
    Ok(variables(&folder, layers.len()))
}

/// The arguments without a leading `install`.
fn without_verb(layer: &[String]) -> Vec<String> {
    let skip = usize::from(layer.first().is_some_and(|first| first == "install"));
    layer[skip..].to_vec()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A name for the interpreter that changes when it does. None for a script that chooses one (pyenv): it is asked each time.
fn identity(python: &Path) -> Option<String> {
    let metadata = fs::metadata(python).ok()?;
    let mut start = [0_u8; 2];
    io::Read::read_exact(&mut fs::File::open(python).ok()?, &mut start).ok()?;
    if start == *b"#!" {
        return None;
    }
    let mut hash = Sha256::new();
    for part in [
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime() as u64,
        metadata.mtime_nsec() as u64,
    ] {
        hash.update(part.to_le_bytes());
    }
    hash.update(python.as_os_str().as_encoded_bytes());
    for name in ["PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "HOME"] {
        hash.update([0]);
        hash.update(std::env::var_os(name).unwrap_or_default().as_encoded_bytes());
    }
    Some(hex(&hash.finalize()))
}

/// A name for the question "does this interpreter, with what is installed now, meet these requirements?".
fn answer_key(python: &Path, interpreter: &Interpreter, layers: &[Vec<String>]) -> String {
    let mut hash = Sha256::new();
    hash.update(python.as_os_str().as_encoded_bytes());
    hash.update(environment_key(interpreter, layers));
    for site in &interpreter.site {
        // The names of `NAME-VERSION.dist-info` folders tell every install and removal. Order does not matter.
        let mut sum = 0_u64;
        for entry in fs::read_dir(site).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().ends_with(b"-info") || name.as_encoded_bytes().ends_with(b"-link") {
                let mut hasher = DefaultHasher::new();
                name.hash(&mut hasher);
                sum = sum.wrapping_add(hasher.finish());
            }
        }
        hash.update(site.as_bytes());
        hash.update(sum.to_le_bytes());
    }
    hex(&hash.finalize())
}

/// sha256 of Python version, platform and arguments: the name of an installed environment.
fn environment_key(interpreter: &Interpreter, layers: &[Vec<String>]) -> String {
    let mut hash = Sha256::new();
    for part in [&interpreter.version, &interpreter.platform] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    for layer in layers {
        for argument in layer {
            hash.update(argument.as_bytes());
            hash.update([0]);
        }
        hash.update([1]);
    }
    hex(&hash.finalize())
}

fn read_json<T: for<'a> Deserialize<'a>>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Best effort: a cache that cannot be written costs time only. Renamed, so that no reader sees half.
fn remember(file: &Path, text: &str) {
    let partial = super::inputs::beside(file);
    if fs::write(&partial, text).is_ok() {
        let _ = fs::rename(partial, file);
    }
}

fn probe(python: &Path, layers: &[Vec<String>]) -> Result<Probe, String> {
    let question = serde_json::to_string(layers).map_err(|e| e.to_string())?;
    let output = Command::new(python)
        .args(["-c", PROBE, &question])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    if !output.status.success() {
        return Err(format!("{} ended with {} when asked for its packages", python.display(), output.status));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{}: unexpected answer: {e}", python.display()))
}

/// The environment's folder, installed now if it is not there yet. One installs, the others wait at the lock.
fn installed(
    cache: &Path,
    python: &Path,
    interpreter: &Interpreter,
    layers: &[Vec<String>],
) -> Result<PathBuf, String> {
    let key = environment_key(interpreter, layers);
    let folder = cache.join("envs").join(&key);
    if folder.is_dir() {
        return Ok(folder);
    }
    let shown = |e: io::Error| format!("package cache {}: {e}", folder.display());
    let lock = fs::File::create(folder.with_extension("lock")).map_err(shown)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|e| shown(e.into()))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(shown)?;
    }
    for (index, layer) in layers.iter().enumerate() {
        install(python, &partial.join(index.to_string()), layer)?;
    }
    // An environment that is there is whole, also after a power cut.
    let opened = fs::File::open(&partial).map_err(shown)?;
    rustix::fs::syncfs(&opened).map_err(|e| shown(e.into()))?;
    fs::rename(&partial, &folder).map_err(shown)?;
    Ok(folder)
}

/// One pip layer into a folder of its own: layers never overwrite each other's files.
fn install(python: &Path, target: &Path, layer: &[String]) -> Result<(), String> {
    eprintln!("slipway: pip install {}", layer.join(" "));
    fs::create_dir_all(target).map_err(|e| format!("{}: {e}", target.display()))?;
    let status = Command::new(python)
        .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"])
        .arg("--target")
        .arg(target)
        .args(layer)
        .stdin(Stdio::null())
        // The step's standard output is its own.
        .stdout(rustix::io::dup(rustix::stdio::stderr()).map_err(|e| e.to_string())?)
        .status()
        .map_err(|e| format!("{} -m pip: {e}", python.display()))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("pip install {} ended with {status}; its own words are in the log above", layer.join(" ")))
}

/// `PYTHONPATH` and `PATH` with the layers in front, the last one first: it was installed over the others.
fn variables(folder: &Path, layers: usize) -> Vec<(String, OsString)> {
    let layers: Vec<PathBuf> = (0..layers).rev().map(|index| folder.join(index.to_string())).collect();
    let joined = |name: &str, own: Vec<PathBuf>| {
        let old = std::env::var_os(name).unwrap_or_default();
        let old = std::env::split_paths(&old).filter(|path| !path.as_os_str().is_empty()).collect::<Vec<_>>();
        // A path with `:` in it cannot be listed; the cache folder has none.
        (name.to_owned(), std::env::join_paths(own.into_iter().chain(old)).unwrap_or_default())
    };
    let programs = layers.iter().map(|layer| layer.join("bin")).collect();
    vec![joined("PYTHONPATH", layers), joined("PATH", programs)]
}
