//! `slipway serve`: the model server alone.

use std::sync::Arc;

use anyhow::Result;
use backend_host::native;
use infer::config::{Libraries, OnnxEngine};
use tokio::signal::unix::{SignalKind, signal};

use super::block_on;

/// The model server's own flags.
pub type Args = infer::cli::Args;

/// The flags of `tensorflow_model_server`.
pub type TfsArgs = infer::cli::tfs::Args;

/// Serves until it is told to end.
pub fn run(args: Args) -> Result<()> {
    let config = args.config(pod_ip()).map_err(anyhow::Error::msg)?;
    serve("slipway serve", config, &args.without_effect(), args.lists.check_config)
}

/// The same with TensorFlow Serving's flags.
pub fn run_tfs(args: TfsArgs) -> Result<()> {
    let config = args.config(pod_ip()).map_err(anyhow::Error::msg)?;
    serve("tensorflow_model_server", config, &args.without_effect(), args.check_config)
}

fn pod_ip() -> Option<std::net::IpAddr> {
    std::env::var("SLIPWAY_POD_IP").ok().and_then(|ip| ip.parse().ok())
}

/// The engines that the operator allowed.
fn engines(config: &infer::Config) -> Vec<Arc<dyn models::Engines>> {
    let mut engines: Vec<Arc<dyn models::Engines>> = Vec::new();
    if let Some(python) = &config.python {
        let variable = |text: &String| match text.split_once('=') {
            Some((name, value)) => Some((name.into(), value.into())),
            None => std::env::var_os(text).map(|value| (text.into(), value)),
        };
        engines.push(Arc::new(backend_host::Python {
            program: python.program.clone(),
            workers: python.workers,
            call_timeout: python.call_timeout,
            start_timeout: python.start_timeout,
            memory_bytes_max: python.memory_bytes_max,
            env: python.env.iter().filter_map(variable).collect(),
            predictor: python.predictor.clone(),
        }));
    }
    engines.push(Arc::new(libraries(&config.libraries)));
    engines
}

/// The libraries that are opened where the machine has them and a model needs one.
fn libraries(wishes: &Libraries) -> native::Native {
    let search = |library: &Option<std::path::PathBuf>| native::Search {
        library: library.clone(),
        interpreter: wishes.interpreter.clone(),
    };
    native::Native {
        choice: match wishes.onnx_engine {
            OnnxEngine::Auto => native::Choice::Others,
            OnnxEngine::OnnxRuntime => native::Choice::All,
            OnnxEngine::Native => native::Choice::None,
        },
        place: if wishes.onnx_in_process { native::Where::Here } else { native::Where::Worker },
        onnx: native::Onnx {
            search: search(&wishes.onnx_library),
            providers: wishes.onnx_providers.clone(),
            intra_op_threads: wishes.onnx_intra_op_threads,
            inter_op_threads: wishes.onnx_inter_op_threads,
            optimization: wishes.onnx_optimization.clone(),
        },
        tensorflow: native::TensorFlow {
            search: search(&wishes.tensorflow_library),
            tags: wishes.saved_model_tags.clone(),
            intra_op_threads: wishes.tensorflow_intra_op_threads,
            inter_op_threads: wishes.tensorflow_inter_op_threads,
            gpu_memory_fraction: wishes.gpu_memory_fraction,
        },
        lanes: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 32),
        call_timeout: wishes.call_timeout,
        start_timeout: wishes.start_timeout,
        memory_bytes_max: wishes.memory_bytes_max,
        env: Vec::new(),
    }
}

/// What a worker of [`libraries`] does.
pub fn run_worker(args: &WorkerArgs) -> Result<()> {
    native::work(&args.lanes).map_err(anyhow::Error::msg)
}

/// A worker is started by the server alone.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// Descriptors that the server left.
    #[arg(long)]
    lanes: String,
}

fn serve(
    name: &'static str,
    mut config: infer::Config,
    without_effect: &[&str],
    only_check: bool,
) -> Result<()> {
    for flag in without_effect {
        eprintln!("{name}: {flag} has no effect here");
    }
    if only_check {
        print!("{}", infer::config::check(&config)?);
        return Ok(());
    }
    infer::logs::start().map_err(anyhow::Error::msg)?;
    config.engines = engines(&config);
    block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let told = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Port 0 means that only this line tells the port.
        let ready = move |server: &infer::Server| println!("{name}: listening on {}", server.address());
        infer::run(config, ready, told).await?;
        Ok(())
    })
}
