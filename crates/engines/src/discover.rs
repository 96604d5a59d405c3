//! Where the machine has an engine's library.
//!
//! An explicit file or folder decides alone. Else the packages of the configured Python are looked through (PyPI's
//! wheels carry both libraries), then the linker's folders. Python is not run for this: its folders have fixed places
//! beside the interpreter.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ONNX Runtime.
    OnnxRuntime,
    /// TensorFlow.
    TensorFlow,
}

impl Kind {
    /// The library's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "ONNX Runtime",
            Self::TensorFlow => "TensorFlow",
        }
    }

    /// Where its wheel has the library, below the packages.
    fn in_packages(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime/capi",
            Self::TensorFlow => "tensorflow",
        }
    }

    /// The names that its file begins with, the best first.
    fn stems(self) -> &'static [&'static str] {
        match self {
            Self::OnnxRuntime => &["libonnxruntime.so"],
            // The wheel's library with everything, and the one of the C interface alone.
            Self::TensorFlow => &["libtensorflow_cc.so", "libtensorflow.so"],
        }
    }
}

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The library's file or folder; nothing else is looked at.
    pub explicit: Option<PathBuf>,
    /// Python interpreters whose packages are looked through.
    pub interpreters: Vec<PathBuf>,
    /// Folders of libraries.
    pub folders: Vec<PathBuf>,
}

impl Places {
    /// An explicit place, or else an interpreter's packages, those of the system's Python, and the linker's folders.
    pub fn new(explicit: Option<PathBuf>, interpreter: Option<PathBuf>) -> Self {
        let mut folders: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
            .map(|paths| std::env::split_paths(&paths).filter(|path| path.is_absolute()).collect())
            .unwrap_or_default();
        let debian = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        folders.extend([&*debian, "/usr/local/lib", "/usr/lib64", "/usr/lib"].map(PathBuf::from));
        let interpreters = interpreter.into_iter().chain([PathBuf::from("/usr/bin/python3")]).collect();
        Self { explicit, interpreters, folders }
    }

    /// The folders that a library is looked for in, in their order.
    fn of(&self, kind: Kind) -> Vec<PathBuf> {
        if let Some(explicit) = &self.explicit {
            return vec![explicit.clone()];
        }
        let packages = self.interpreters.iter().flat_map(|interpreter| packages(interpreter));
        packages.map(|folder| folder.join(kind.in_packages())).chain(self.folders.clone()).collect()
    }
}

/// The files that may be the library, the best first. An error says where nothing was.
pub fn candidates(kind: Kind, places: &Places) -> Result<Vec<PathBuf>, Error> {
    let looked = places.of(kind);
    let mut found: Vec<PathBuf> = Vec::new();
    for place in &looked {
        if place.is_file() {
            found.push(place.clone());
            continue;
        }
        for stem in kind.stems() {
            found.extend(newest(place, stem));
        }
    }
    if found.is_empty() { Err(Error::NotFound { library: kind.name(), looked }) } else { Ok(found) }
}

/// Opens the first of the files that may be the library and can be opened; else the error of the best.
pub(crate) fn open_first<T>(
    kind: Kind,
    places: &Places,
    open: impl Fn(&Path) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut first = None;
    for path in candidates(kind, places)? {
        match open(&path) {
            Ok(library) => return Ok(library),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.expect("there is at least one candidate"))
}

/// The file of the highest version whose name is the stem and a version.
fn newest(folder: &Path, stem: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let versions = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let rest = name.to_str()?.strip_prefix(stem)?.to_owned();
        let numbers = rest.split('.').skip(1).map(|part| part.parse::<u64>().ok());
        let version =
            numbers.collect::<Option<Vec<u64>>>().filter(|_| rest.is_empty() || rest.starts_with('.'))?;
        Some((version, entry.path()))
    });
    versions.max().map(|(_, path)| path)
}

/// The folders of packages that an interpreter has: its environment's, then those of the Python that it was made from.
fn packages(interpreter: &Path) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    let mut push = |binary: &Path| {
        if let Some(root) = binary.parent().and_then(Path::parent)
            && !roots.iter().any(|known| known == root)
        {
            roots.push(root.to_owned());
        }
    };
    push(interpreter);
    // Environments are made of links to their Python.
    if let Ok(real) = std::fs::canonicalize(interpreter) {
        push(&real);
    }
    let mut folders = Vec::new();
    for root in roots {
        for lib in ["lib", "lib64", "local/lib"] {
            let Ok(entries) = std::fs::read_dir(root.join(lib)) else { continue };
            let mut own: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            own.sort();
            let pythons = own.into_iter().filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"))
            });
            for python in pythons {
                folders.extend(["site-packages", "dist-packages"].map(|name| python.join(name)));
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
    // `lib64` is mostly a link to `lib`.
    let mut seen = Vec::new();
    folders.retain(|folder| {
        let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        let is_new = !seen.contains(&real);
        seen.push(real);
        is_new
    });
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        root
    }

    fn check(files: &[&str], kind: Kind, places: Places, want: &[&str]) {
        let root = tree(files);
        let below = |path: &PathBuf| root.path().join(path);
        let places = Places {
            explicit: places.explicit.as_ref().map(below),
            interpreters: places.interpreters.iter().map(below).collect(),
            folders: places.folders.iter().map(below).collect(),
        };
        let found = candidates(kind, &places).unwrap_or_default();
        let found: Vec<&str> = found
            .iter()
            .map(|path| path.strip_prefix(root.path()).expect("below").to_str().expect("a name"))
            .collect();
        assert_eq!(found, want, "{files:?}");
    }

    #[test]
    fn the_newest_file_of_the_first_folder_comes_first() {
        let wheel = "venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.9.0";
        let newer = "venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0";
        let other = "venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime_providers_shared.so";
        let system = "usr/lib/libonnxruntime.so.1.21.0";
        let files = [wheel, newer, other, system, "usr/lib/libonnxruntime.so.old", "venv/bin/python"];
        let places = || Places {
            explicit: None,
            interpreters: vec!["venv/bin/python".into()],
            folders: vec!["usr/lib".into()],
        };
        check(&files, Kind::OnnxRuntime, places(), &[newer, system]);
        check(&files, Kind::TensorFlow, places(), &[]);
        check(&files, Kind::OnnxRuntime, Places { explicit: Some("usr/lib".into()), ..places() }, &[system]);
        check(&files, Kind::OnnxRuntime, Places { explicit: Some(wheel.into()), ..places() }, &[wheel]);
    }

    #[test]
    fn tensorflow_is_found_in_its_wheel_and_as_the_library_for_c() {
        let wheel = "p/lib/python3.11/site-packages/tensorflow/libtensorflow_cc.so.2";
        let framework = "p/lib/python3.11/site-packages/tensorflow/libtensorflow_framework.so.2";
        let for_c = "usr/lib/libtensorflow.so.2.18.0";
        let places = Places {
            explicit: None,
            interpreters: vec!["p/bin/python3".into()],
            folders: vec!["usr/lib".into()],
        };
        check(&[wheel, framework, for_c], Kind::TensorFlow, places, &[wheel, for_c]);
    }

    #[test]
    fn what_is_not_there_is_said_with_the_places() {
        let places = Places { explicit: Some("/no/such/folder".into()), ..Places::default() };
        let error = candidates(Kind::OnnxRuntime, &places).expect_err("absent").to_string();
        assert!(error.contains("ONNX Runtime") && error.contains("/no/such/folder"), "{error}");
    }
}
