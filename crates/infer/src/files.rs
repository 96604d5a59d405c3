//! Model folders on disk.
//!
//! Only regular files count, links are followed once by the system, and sizes are checked before reading.
//!
//! Not here: choosing among the files (`models`).

mod saved_model;

use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use models::{Backend, Chosen, Folder, Format, Inspection, Limits, Line, Signature};

/// Files that are listed at most: a model folder has a few.
const FILES_MAX: usize = 10_000;
/// Bytes that are read at a time, into memory that was touched before: while the kernel copies, and finds new pages for
/// the copy, it may not turn to a thread that serves. In one call a large file kept the CPU for 37 ms at a time.
const READ_BYTES: usize = 256 << 10;
/// Folders within folders.
const DEPTH_MAX: usize = 8;

/// A folder on disk, or a single file as if it were alone in one.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    only: Option<String>,
}

impl Disk {
    /// The folder or file at `path`.
    pub fn new(path: &Path) -> Self {
        let file = path.is_file().then(|| path.file_name()).flatten();
        match (file, path.parent()) {
            (Some(name), Some(parent)) => {
                Self { root: parent.to_owned(), only: Some(name.to_string_lossy().into_owned()) }
            }
            _ => Self { root: path.to_owned(), only: None },
        }
    }
}

impl Folder for Disk {
    fn list(&self) -> std::io::Result<Vec<String>> {
        if let Some(only) = &self.only {
            return Ok(vec![only.clone()]);
        }
        let mut files = Vec::new();
        collect(&self.root, "", 0, &mut files)?;
        files.sort();
        Ok(files)
    }

    fn read(&self, path: &str, bytes_max: usize) -> std::io::Result<bytes::Bytes> {
        let mut file = std::fs::File::open(self.root.join(path))?;
        let size = file.metadata()?.len();
        let too_large =
            || Error::new(ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes"));
        if size > bytes_max as u64 {
            return Err(too_large());
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            let end = bytes.len();
            bytes.resize(size.min(end + READ_BYTES), 0);
            file.read_exact(&mut bytes[end..])?;
        }
        // What was added to it meanwhile.
        file.take((bytes_max - size) as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > bytes_max {
            return Err(too_large());
        }
        Ok(bytes.into())
    }
}

fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // `metadata` follows links, which is how storage initialisers and config maps lay files out.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() {
            files.push(name);
        } else if metadata.is_dir()
            && depth < DEPTH_MAX
            && !entry.file_name().to_string_lossy().starts_with("..")
        {
            collect(&entry.path(), &format!("{name}/"), depth + 1, files)?;
        }
        if files.len() > FILES_MAX {
            return Err(Error::other(format!("more than {FILES_MAX} files")));
        }
    }
    Ok(())
}

/// The bytes of the model file at `path`, or of the one in that folder. The error is a text for people.
pub fn read_model(path: &Path, limits: &Limits) -> Result<bytes::Bytes, String> {
    let (_, bytes) = crate::load::read_chosen(path, limits).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Reports on the model file or folder at `path`: what it is, whether it is safe, what serves it.
pub fn inspect(path: &Path, limits: &Limits) -> Inspection {
    if let Some(report) = saved_model::inspect(path, limits) {
        return report;
    }
    match crate::load::read_chosen(path, limits) {
        Ok((chosen, bytes)) if onnx::is_onnx(&bytes) => inspect_onnx(chosen, &bytes),
        _ => models::inspect(&Disk::new(path), limits),
    }
}

/// The report on an ONNX file: loading it has run it once on rows of zeros.
fn inspect_onnx(chosen: Chosen, bytes: &bytes::Bytes) -> Inspection {
    let format = Format {
        name: "onnx".into(),
        packing: "none".into(),
        protocol: None,
        bytes: bytes.len(),
        bytes_unpacked: bytes.len(),
        mlflow_flavor: chosen.flavor,
    };
    let mut report = Inspection {
        file: chosen.path,
        format: Some(format),
        estimators: Vec::new(),
        safe: true,
        features: None,
        feature_names: Vec::new(),
        classes: Vec::new(),
        sklearn_version: None,
        methods: Vec::new(),
        served_by: None,
        problem: None,
    };
    let model = match onnx::Onnx::load(bytes) {
        Ok(model) => model,
        Err(error @ models::LoadError::Unsupported { .. }) => {
            let served_by = Some("ONNX Runtime, in a process of its own, where its library is found".into());
            return Inspection { served_by, estimators: vec![not_ours(&error)], ..report };
        }
        Err(error) => return Inspection { problem: Some(error.to_string()), ..report },
    };
    let signature = model.signature();
    report.features = columns(signature);
    report.feature_names.clone_from(&signature.columns);
    report.methods = signature.outputs.iter().map(|output| output.name.clone()).collect();
    let summary = model.summary();
    report.classes.clone_from(&summary.classes);
    report.served_by = Some(summary.engine.into());
    let line = |(class, detail): &(String, String)| Line {
        depth: 0,
        step: None,
        class: class.clone(),
        detail: detail.clone(),
    };
    report.estimators = summary.nodes.iter().map(line).collect();
    report
}

/// Why the server's own engine does not evaluate a graph.
fn not_ours(error: &models::LoadError) -> Line {
    Line { depth: 0, step: None, class: "graph".into(), detail: format!("not evaluated natively: {error}") }
}

/// The columns of the only input; one for each input where every one is a column of its own.
fn columns(signature: &Signature) -> Option<usize> {
    match signature.inputs.as_slice() {
        [only] => only.row.last().copied().flatten(),
        many => Some(many.len()),
    }
}
