//! `slipway model`: looks at model files, measures, compares and converts them. One file a command; this one has what
//! they share.
//!
//! Nothing in a model file is executed. Not here: what the commands compute (`models`, `onnx`, `infer`, `loadgen`).

mod bench;
mod convert;
mod diff;
mod inspect;
mod quantize;
mod validate;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use models::table::Table;
use objects::{
    ArtifactUri,
    fetch::{Endpoints, fetch},
};

use super::{DataFolder, block_on, connect};
use validate::print as print_agreement;

/// The most bytes of a file of data.
const DATA_BYTES_MAX: u64 = 2 << 30;

/// Looks at model files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a model is, whether it is safe to load, and what will serve it.
    Inspect(inspect::Args),
    /// Measures a served model: latency under a load that waits for nobody.
    Bench(Box<bench::Args>),
    /// Asks two models about the same data and tells how far they agree.
    Validate(validate::Args),
    /// What changed between two models: format, versions, classes, settings, trees.
    Diff(diff::Args),
    /// Writes a model as ONNX, for every other server and device.
    Convert(convert::Args),
    /// Makes the weights of an ONNX model's matrix products integers of 8 bits.
    Quantize(quantize::Args),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Quantize(args) => quantize::run(args),
    }
}

/// A model on this machine; what was fetched goes with the value.
struct Located {
    path: PathBuf,
    _fetched: Option<tempfile::TempDir>,
}

/// The path of a model; URIs are fetched from the cluster.
fn locate(model: &str, data: &DataFolder) -> Result<Located> {
    if Path::new(model).exists() || !model.contains(":/") {
        return Ok(Located { path: PathBuf::from(model), _fetched: None });
    }
    let uri: ArtifactUri = model.parse()?;
    let target = tempfile::tempdir()?;
    block_on(async {
        let cluster = connect::cluster(data).await?;
        let endpoints = Endpoints {
            artifacts_url: Some(cluster.address("artifacts")?.to_owned()),
            tracking_uri: Some(cluster.address("mlflow")?.to_owned()),
            token: None,
        };
        fetch(&uri, target.path(), &endpoints).await.with_context(|| format!("cannot fetch {model}"))
    })?;
    Ok(Located { path: target.path().to_path_buf(), _fetched: Some(target) })
}

/// A model file that a command makes.
#[derive(Debug, clap::Args)]
struct Made {
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
}

impl Made {
    /// Finds the model that it is made from, unless there is a file already that is not to be replaced.
    fn from(&self, model: &str) -> Result<Located> {
        anyhow::ensure!(
            self.force || !self.output.exists(),
            "{} is there already; --force replaces it",
            self.output.display()
        );
        locate(model, &DataFolder { data: None })
    }

    /// Writes the whole file or none: beside its place first.
    fn write(&self, bytes: &[u8]) -> Result<()> {
        let path = &self.output;
        let failed = || format!("cannot write {}", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
        std::io::Write::write_all(&mut file, bytes).with_context(failed)?;
        file.persist(path).with_context(failed)?;
        Ok(())
    }
}

/// Rows to try a model on.
#[derive(Debug, Clone, Default, clap::Args)]
struct DataFile {
    /// Rows: a CSV, NPY, NPZ or JSON file. Columns are matched by name where file and model have names.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// A column to leave out, by name or number from 0: the target, say. May be given several times.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    drop: Vec<String>,
    /// Use at most so many rows.
    #[arg(long, value_name = "N", requires = "data")]
    rows: Option<usize>,
}

impl DataFile {
    fn read(&self) -> Result<Option<Table>> {
        let Some(path) = &self.data else { return Ok(None) };
        let shown = path.display();
        let size = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
        anyhow::ensure!(
            size <= DATA_BYTES_MAX,
            "{shown} has {size} bytes, at most {DATA_BYTES_MAX} are read"
        );
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let table = Table::read(&path.to_string_lossy(), &bytes.into());
        let mut table = table.with_context(|| format!("cannot use {shown}"))?;
        for column in &self.drop {
            table.take(column).with_context(|| format!("--drop {column}"))?;
        }
        Ok(Some(match self.rows {
            Some(rows) => table.slice(0..rows.max(1)),
            None => table,
        }))
    }

    fn required(&self, command: &str) -> Result<Table> {
        let table = self.read()?;
        table.with_context(|| {
            format!("`slipway model {command}` needs rows: --data FILE (csv, npy, npz, json)")
        })
    }
}
