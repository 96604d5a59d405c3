//! What an image name means on this node.
//!
//! A name resolves in this order, see `docs/adr/0008-image-policy-and-stand-in-root.md`:
//! 1. an explicit entry ([`store`]: `slipway images add`);
//! 2. a built-in runtime: the platform's own binary under the name of a known server;
//! 3. the stand-in root ([`stand_in`]): the host's system folders for names in a configured list;
//! 4. nothing: `ErrImagePull`, as upstream.
//!
//! What stood in for an image is told by [`Image::stand_in`], so that the node can record it.

pub mod name;
pub mod python;
pub mod stand_in;
pub mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pod_protocol::shim::{Entry, Root};

use store::From;

/// Names for which the host's system folders may stand in, unless configured otherwise.
pub const STAND_IN_DEFAULT: [&str; 6] = ["python:*", "busybox*", "alpine*", "debian*", "ubuntu*", "bash*"];
/// The search path inside a stand-in root.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A runtime that the platform's own binary is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// Image names, e.g. `kserve/sklearnserver*`; a `*` at the end matches any rest.
    pub pattern: String,
    /// Entry point inside, e.g. `["/usr/local/bin/slipway", "serve"]`.
    pub argv: Vec<String>,
}

/// How images are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Refuse stand-ins.
    pub strict: bool,
    /// Names for which a stand-in is allowed; a `*` at the end matches any rest.
    pub stand_in: Vec<String>,
    /// Built-in runtimes; the first match wins.
    pub builtin: Vec<Builtin>,
    /// The platform's own binary, found as `/usr/local/bin/slipway` in built-in images.
    pub slipway: PathBuf,
    /// The Python that stands in for `python:*`; none: the first `python3` on the server's `PATH`.
    pub python: Option<PathBuf>,
}

impl Config {
    /// The defaults, with the running program as the platform's binary.
    pub fn new(builtin: Vec<Builtin>) -> Self {
        let slipway = std::env::current_exe().unwrap_or_default();
        let stand_in = STAND_IN_DEFAULT.map(str::to_owned).to_vec();
        Self { strict: false, stand_in, builtin, slipway, python: None }
    }
}

/// What a container gets from its image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Image {
    /// Its root folder.
    pub root: Root,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its working folder; empty: `/`.
    pub workdir: String,
    /// `uid`, `uid:gid` or a name; empty: root.
    pub user: String,
    /// What `command` replaces.
    pub entrypoint: Vec<String>,
    /// What `args` replaces.
    pub args: Vec<String>,
    /// `status.containerStatuses[].imageID`.
    pub id: String,
    /// What stands in for the image, in words; none: it is what its name says.
    pub stand_in: Option<String>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a reference.
    #[error("couldn't parse image name \"{image}\": invalid reference format")]
    InvalidName {
        /// As the pod says it.
        image: String,
    },
    /// Nothing provides it.
    #[error(
        "failed to pull and unpack image \"{image}\": this node pulls no images; provide it with \
         `slipway images add {image} --from DIR`"
    )]
    NotHere {
        /// Normalised.
        image: String,
    },
    /// A stand-in would be used and is refused.
    #[error(
        "image \"{image}\" would be a stand-in of the host's system folders, which --strict-images refuses"
    )]
    Strict {
        /// Normalised.
        image: String,
    },
    /// `imagePullPolicy: Never` and nothing there.
    #[error("Container image \"{image}\" is not present with pull policy of Never")]
    NeverPull {
        /// As the pod says it.
        image: String,
    },
    /// An entry of `images.json` cannot be used.
    #[error("image \"{image}\": {reason}")]
    Broken {
        /// Normalised.
        image: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// What the container's status gives as reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::NotHere { .. } | Self::Strict { .. } | Self::Broken { .. } => "ErrImagePull",
        }
    }
}

/// The images of one node.
#[derive(Debug)]
pub struct Images {
    data_dir: PathBuf,
    config: Config,
    pod_binary: PathBuf,
    python: tokio::sync::OnceCell<Option<python::Python>>,
    /// Interpreters of entries' own folders, by folder: asking one takes an interpreter's start.
    pythons: tokio::sync::Mutex<BTreeMap<PathBuf, Option<python::Python>>>,
}

impl Images {
    /// Images by this configuration; entries are read from `DATA/images/images.json` at each use.
    pub fn new(data_dir: &Path, config: Config, pod_binary: PathBuf) -> Self {
        let python = tokio::sync::OnceCell::new();
        let pythons = tokio::sync::Mutex::default();
        Self { data_dir: data_dir.to_path_buf(), config, pod_binary, python, pythons }
    }

    /// Finds the host's Python ahead of its first use; the search runs an interpreter.
    pub async fn warm_up(&self) {
        self.python().await;
    }

    /// What `image` means here.
    pub async fn resolve(&self, image: &str, pull_policy: Option<&str>) -> Result<Image, Error> {
        let full = name::normalise(image).ok_or_else(|| Error::InvalidName { image: image.into() })?;
        if let Some(entry) = store::find(&self.data_dir, &full) {
            return self.entry_image(&full, entry).await;
        }
        if let Some(builtin) = self.builtin(&full) {
            return Ok(builtin);
        }
        if !self.config.stand_in.iter().any(|pattern| name::matches(pattern, &full)) {
            return Err(match pull_policy {
                Some("Never") => Error::NeverPull { image: image.into() },
                _ => Error::NotHere { image: full },
            });
        }
        if self.config.strict {
            return Err(Error::Strict { image: full });
        }
        let with_python = name::matches("python*", &full);
        Ok(self.stand_in(&full, with_python).await)
    }

    fn builtin(&self, full: &str) -> Option<Image> {
        let (file, argv) = if name::matches("slipway/pod*", full) {
            (("/usr/local/bin/pod", &self.pod_binary), vec!["/usr/local/bin/pod".to_owned()])
        } else {
            let found = self.config.builtin.iter().find(|builtin| name::matches(&builtin.pattern, full))?;
            (("/usr/local/bin/slipway", &self.config.slipway), found.argv.clone())
        };
        let mut entries = stand_in::system(stand_in::Local::Hidden);
        let (target, source) = file;
        entries
            .push(Entry::Bind { source: source.to_string_lossy().into_owned(), target: target.to_owned() });
        Some(Image {
            root: Root { lower: None, entries },
            env: vec![("PATH".into(), PATH.into())],
            entrypoint: argv,
            id: format!("slipway.dev/builtin/{full}"),
            ..Image::default()
        })
    }

    /// Python is part of it only where the name promises one: finding it takes an interpreter's start.
    async fn stand_in(&self, full: &str, with_python: bool) -> Image {
        let mut entries = stand_in::system(stand_in::Local::Shown);
        let mut path = PATH.to_owned();
        let mut what = "the host's system folders, read-only".to_owned();
        let python = if with_python { self.python().await } else { None };
        if let Some(python) = python {
            entries.extend(python.entries());
            path = format!("{}:{path}", python.path());
            what = format!("{what}, with its Python {} of {}", python.version, python.prefix.display());
        }
        Image {
            root: Root { lower: None, entries },
            env: vec![("PATH".into(), path)],
            args: vec![if name::matches("python:*", full) { "python3".into() } else { "sh".into() }],
            id: format!("slipway.dev/stand-in/{full}"),
            stand_in: Some(what),
            ..Image::default()
        }
    }

    async fn entry_image(&self, full: &str, entry: store::Entry) -> Result<Image, Error> {
        let broken = |reason: String| Error::Broken { image: full.to_owned(), reason };
        let mut image = match &entry.from {
            From::Host if self.config.strict => return Err(Error::Strict { image: full.to_owned() }),
            From::Host => self.stand_in(full, true).await,
            From::Folder(folder) if folder.is_dir() => Image {
                root: Root { lower: Some(folder.to_string_lossy().into_owned()), entries: Vec::new() },
                env: vec![("PATH".into(), PATH.into())],
                id: format!("slipway.dev/folder/{full}"),
                ..Image::default()
            },
            From::Folder(folder) => return Err(broken(format!("{} is no folder", folder.display()))),
        };
        for copy in &entry.copy {
            if !copy.src.exists() {
                return Err(broken(format!("--copy: {} does not exist", copy.src.display())));
            }
            let source = copy.src.to_string_lossy().into_owned();
            image.root.entries.push(Entry::Copy { source, target: copy.dest.clone() });
        }
        for (key, value) in &entry.env {
            set(&mut image.env, key, value);
        }
        if entry.from == From::Host {
            self.show_folders(&mut image, &entry.path_prepend).await.map_err(broken)?;
        }
        if !entry.path_prepend.is_empty() {
            let before = image.env.iter().find(|(key, _)| key == "PATH").map_or(PATH, |(_, value)| value);
            let path = format!("{}:{before}", entry.path_prepend.join(":"));
            set(&mut image.env, "PATH", &path);
        }
        image.workdir = entry.workdir.unwrap_or(image.workdir);
        image.user = entry.user.unwrap_or(image.user);
        if let Some(entrypoint) = entry.entrypoint {
            (image.entrypoint, image.args) = (entrypoint, Vec::new());
        }
        Ok(image)
    }

    /// Binds the folders in front of `PATH`: a Python's with all that it needs, others as they are.
    async fn show_folders(&self, image: &mut Image, folders: &[String]) -> Result<(), String> {
        for folder in folders.iter().map(PathBuf::from) {
            if !folder.is_dir() {
                return Err(format!("--path-prepend: {} is no folder", folder.display()));
            }
            match self.python_in(&folder).await {
                Some(python) => image.root.entries.extend(python.entries()),
                None => {
                    let path = python::shown(&folder, &self.data_dir).ok_or_else(|| {
                        format!("--path-prepend: {} holds private folders", folder.display())
                    })?;
                    image.root.entries.push(Entry::Bind { source: path.clone(), target: path });
                }
            }
        }
        Ok(())
    }

    async fn python_in(&self, folder: &Path) -> Option<python::Python> {
        let interpreter = folder.join("python3");
        if !interpreter.is_file() {
            return None;
        }
        let mut known = self.pythons.lock().await;
        if let Some(python) = known.get(folder) {
            return python.clone();
        }
        let python = python::find(Some(interpreter), &self.data_dir).await;
        known.insert(folder.to_path_buf(), python.clone());
        python
    }

    async fn python(&self) -> Option<&python::Python> {
        let search = || python::find(self.config.python.clone(), &self.data_dir);
        self.python.get_or_init(search).await.as_ref()
    }
}

fn set(env: &mut Vec<(String, String)>, key: &str, value: &str) {
    env.retain(|(name, _)| name != key);
    env.push((key.to_owned(), value.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(data_dir: &Path, strict: bool) -> Images {
        let argv = vec!["/usr/local/bin/slipway".to_owned(), "serve".to_owned()];
        let builtin = vec![Builtin { pattern: "kserve/sklearnserver*".into(), argv }];
        let config = Config { strict, ..Config::new(builtin) };
        Images::new(data_dir, config, PathBuf::from("/bin/true"))
    }

    #[tokio::test]
    async fn names_resolve_in_the_stated_order() {
        let data = tempfile::tempdir().unwrap();
        let ours = images(data.path(), false);
        let entry =
            store::Entry { name: "mine/train:v1".into(), workdir: Some("/w".into()), ..Default::default() };
        store::add(data.path(), entry).unwrap();
        assert_eq!(ours.resolve("mine/train:v1", None).await.unwrap().workdir, "/w");
        assert_eq!(
            ours.resolve("docker.io/kserve/sklearnserver:v0.15", None).await.unwrap().entrypoint[1],
            "serve"
        );
        let busybox = ours.resolve("docker.io/library/busybox", None).await.unwrap();
        assert!(busybox.stand_in.is_some());
        assert_eq!(ours.resolve("nginx", None).await.unwrap_err().reason(), "ErrImagePull");
        assert_eq!(ours.resolve("nginx", Some("Never")).await.unwrap_err().reason(), "ErrImageNeverPull");
        assert_eq!(ours.resolve("Bad Name", None).await.unwrap_err().reason(), "InvalidImageName");
        let strict = images(data.path(), true).resolve("busybox", None).await;
        assert!(matches!(strict, Err(Error::Strict { .. })));
    }
}
