//! The commands of the CLI: one file each; this one parses and dispatches.

mod connect;
mod deploy;
mod down;
mod env;
mod images;
mod kfp;
mod kubeconfig;
mod logs;
mod model;
mod multicall;
mod predict;
mod reset;
mod serve;
mod status;
mod storage_initializer;
mod up;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::cluster::folder::Folder;

/// Trains, tunes, launches and serves models the Kubernetes way, in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "slipway",
    version,
    about,
    after_help = "First steps:\n  slipway up --detach            a whole cluster on this machine\n  eval \"$(slipway env)\"          point kubectl, mlflow and kfp of this shell at it\n  kubectl get pods -A            look around\n  slipway deploy iris models:/iris/1 && slipway predict iris 5.1,3.5,1.4,0.2\n  slipway down"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the cluster.
    Up(up::Args),
    /// Ends the server and all pods, also when the server is already dead.
    Down(down::Args),
    /// Shows what runs and where it answers.
    Status(status::Args),
    /// Prints shell exports: KUBECONFIG, MLFLOW_TRACKING_URI, KF_PIPELINES_ENDPOINT.
    Env(env::Args),
    /// Prints the cluster's kubeconfig.
    Kubeconfig(kubeconfig::Args),
    /// Removes everything the cluster keeps.
    Reset(reset::Args),
    /// Serves a model: creates an InferenceService and waits until it answers.
    Deploy(deploy::Args),
    /// Asks a served model.
    Predict(predict::Args),
    /// Prints the log of a run's step: RUN/STEP, or of all its steps.
    Logs(logs::Args),
    /// Looks at model files.
    Model(model::Args),
    /// Images that pods can use.
    Images(images::Args),
    /// Kubeflow Pipelines: submits packages; other subcommands go to the real `kfp`.
    Kfp(kfp::Args),
    /// The model server alone, no cluster.
    Serve(Box<serve::Args>),
    /// The model server with the flags of TensorFlow Serving's; also by a link of this name.
    #[command(hide = true, name = "tensorflow_model_server")]
    TensorflowModelServer(Box<serve::TfsArgs>),
    /// A worker of the model server, which alone starts it.
    #[command(hide = true)]
    BackendHost(serve::WorkerArgs),
    /// Fetches a model to a folder (the entry point of the storage-initializer image).
    #[command(hide = true)]
    StorageInitializer(storage_initializer::Args),
}

/// Which cluster a command talks about.
#[derive(Debug, Clone, Args)]
pub struct DataFolder {
    /// The cluster's data folder [default: below the user's data home].
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
}

impl DataFolder {
    fn folder(&self) -> anyhow::Result<Folder> {
        Folder::resolve(self.data.as_deref())
    }
}

/// Parses the arguments, runs the command, prints its error as one line a cause.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let cli = Cli::parse_from(multicall::translate(arguments));
    let result = match cli.command {
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Env(args) => env::run(&args),
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Reset(args) => reset::run(&args),
        Command::Deploy(args) => deploy::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Model(args) => model::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Kfp(args) => kfp::run(args),
        Command::Serve(args) => serve::run(*args),
        Command::TensorflowModelServer(args) => serve::run_tfs(*args),
        Command::BackendHost(args) => serve::run_worker(&args),
        Command::StorageInitializer(args) => storage_initializer::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A small runtime for commands that talk to a cluster.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
