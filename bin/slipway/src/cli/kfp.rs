//! `slipway kfp submit`: a compiled package becomes a run, shown as a live tree. Other subcommands are the real `kfp`'s.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use pipelines::client::{self, Client, Submit, TaskState};

use super::{DataFolder, block_on, multicall};

/// Kubeflow Pipelines.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates a run of a compiled package.
    #[command(
        after_help = "Examples:\n  slipway kfp submit --pipeline-file iris_pipeline.yaml --run-name iris-run-001 --wait\n  slipway kfp submit --pipeline-file p.yaml --run-name r -p name=iris -p epochs=3"
    )]
    Submit(SubmitArgs),
    /// Everything else: the real `kfp`.
    #[command(external_subcommand)]
    Real(Vec<OsString>),
}

#[derive(Debug, clap::Args)]
struct SubmitArgs {
    #[command(flatten)]
    data: DataFolder,
    /// A package that kfp 2 compiled: .yaml, .json, .zip or .tar.gz.
    #[arg(long, value_name = "FILE")]
    pipeline_file: PathBuf,
    /// The run's name.
    #[arg(long, value_name = "NAME")]
    run_name: String,
    /// The experiment's name; `Default` when not given.
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// A parameter (repeatable).
    #[arg(short = 'p', long = "parameter", value_name = "K=V")]
    parameters: Vec<String>,
    /// Follow the run to its end; its failure is this command's.
    #[arg(long)]
    wait: bool,
    /// Run every step, also those whose result is known.
    #[arg(long)]
    no_cache: bool,
    /// The pipelines API [default: the running cluster's, or KF_PIPELINES_ENDPOINT].
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Submit(args) => block_on(submit(args)),
        Command::Real(arguments) => multicall::become_real("kfp", &arguments),
    }
}

async fn submit(args: SubmitArgs) -> Result<()> {
    if args.pipeline_file.extension().is_some_and(|extension| extension == "py") {
        bail!("{}", uncompiled(&args.pipeline_file)?);
    }
    let package = client::load(&args.pipeline_file).await?;
    let wanted = Submit {
        endpoint: endpoint(&args)?,
        token: None,
        run_name: args.run_name.clone(),
        experiment: args.experiment.clone(),
        parameters: parameters(&args.parameters)?,
        enable_caching: args.no_cache.then_some(false),
    };
    let client = Client::new(&wanted.endpoint, None)?;
    let run = client.create_run(&package, &wanted).await?;
    let id = run["run_id"].as_str().context("the answer has no run_id")?.to_owned();
    println!("run {} {id}", args.run_name);
    if !args.wait {
        return Ok(());
    }
    let mut tree = Tree::new();
    let finished = client.follow(&id, |task| tree.show(task)).await?;
    println!("run {} {} after {} ms", args.run_name, finished.state, tree.started.elapsed().as_millis());
    if finished.state != "SUCCEEDED" {
        bail!(
            "run {} {}: {}\n  slipway logs {0} shows what its steps said",
            args.run_name,
            finished.state,
            finished.message
        );
    }
    Ok(())
}

/// What to do with Python source: a package is what the SDK's compiler makes of it.
fn uncompiled(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let shown = path.display();
    let is_old =
        ["create_component_from_func", "ContainerOp", "VolumeMount("].iter().any(|name| text.contains(name));
    if is_old {
        return Ok(format!(
            "{shown} uses names of kfp 1 (create_component_from_func, …) that kfp 2 does not have, and this server runs \
             packages compiled by kfp 2 (`pip install 'kfp>=2'`); examples/iris/pipeline_kfp2.py is the same pipeline in \
             its working form"
        ));
    }
    Ok(format!(
        "{shown} is source; compile it first (`kfp dsl compile --py {shown} --output pipeline.yaml`) and submit that"
    ))
}

fn endpoint(args: &SubmitArgs) -> Result<String> {
    if let Some(url) = &args.endpoint {
        return Ok(url.clone());
    }
    let folder = args.data.folder()?;
    if let Some(address) = folder.running().and_then(|state| state.addresses.get("pipelines").cloned()) {
        return Ok(address);
    }
    std::env::var("KF_PIPELINES_ENDPOINT").ok().with_context(|| {
        format!(
            "no server runs on {0}; start one with `slipway up --detach --data {0}`",
            folder.path().display()
        )
    })
}

fn parameters(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let split = |pair: &String| {
        let (key, value) = pair.split_once('=').with_context(|| format!("-p {pair}: K=V was expected"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    pairs.iter().map(split).collect()
}

/// The run's tasks as they go: redrawn in place on a terminal, a line a change elsewhere.
struct Tree {
    started: Instant,
    live: bool,
    tasks: Vec<TaskState>,
    lines_drawn: usize,
}

impl Tree {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            live: std::io::stdout().is_terminal(),
            tasks: Vec::new(),
            lines_drawn: 0,
        }
    }

    fn show(&mut self, task: &TaskState) {
        match self.tasks.iter_mut().find(|known| known.id == task.id) {
            Some(known) => *known = task.clone(),
            None => self.tasks.push(task.clone()),
        }
        if self.live {
            self.redraw();
        } else {
            let message = if task.message.is_empty() { String::new() } else { format!("  {}", task.message) };
            println!(
                "{:>7} ms  {:<10} {}{message}",
                self.started.elapsed().as_millis(),
                task.state,
                task.name
            );
        }
    }

    fn redraw(&mut self) {
        let mut out = String::new();
        if self.lines_drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.lines_drawn));
        }
        for task in &self.tasks {
            let depth = self.depth(task);
            let mark = match task.state.as_str() {
                "SUCCEEDED" => "\x1b[32m✔\x1b[0m",
                "FAILED" => "\x1b[31m✖\x1b[0m",
                "RUNNING" => "\x1b[36m●\x1b[0m",
                "SKIPPED" => "○",
                _ => "·",
            };
            out.push_str(&format!("\x1b[2K{}{mark} {}  {}\n", "  ".repeat(depth), task.name, task.message));
        }
        self.lines_drawn = self.tasks.len();
        let mut terminal = std::io::stdout().lock();
        // A terminal that went away is no reason to end the run's follower.
        let _ = terminal.write_all(out.as_bytes()).and_then(|()| terminal.flush());
    }

    fn depth(&self, task: &TaskState) -> usize {
        let mut depth = 0;
        let mut parent = task.parent.as_str();
        while let Some(above) = self.tasks.iter().find(|other| other.id == parent && !parent.is_empty()) {
            depth += 1;
            parent = &above.parent;
            if depth > 16 {
                break;
            }
        }
        depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_articles_old_pipeline_is_told_which_kfp_it_needs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/iris/pipeline.py");
        let told = uncompiled(&path).unwrap();
        assert!(told.contains("kfp 2") && told.contains("pipeline_kfp2.py"), "{told}");
    }

    #[test]
    fn source_is_told_to_be_compiled() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/iris/pipeline_kfp2.py");
        assert!(uncompiled(&path).unwrap().contains("kfp dsl compile"));
    }
}
