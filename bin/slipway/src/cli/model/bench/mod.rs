//! `slipway model bench`: latency and throughput of a served model.
//!
//! Given a folder or file instead of a URL, it serves the model itself on a free port of loopback for the time of the
//! measurement. Not here: sending and counting (`loadgen`).

mod print;
mod promise;
mod served;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use loadgen::{Pace, Plan, Protocol, Requests, Spacing, Target, ask, slo::Objective};

use super::{DataFile, DataFolder, locate};
use served::Served;

/// Measures a served model: latency under a load that waits for nobody.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --rate requests go out by the clock and a latency begins when its request was due (open loop); with\n--connections each connection sends again when it is answered (closed loop), which shows the highest rate.\n\nExamples:\n  slipway model bench ./model --rate 2000 --data rows.csv --drop target\n  slipway model bench http://127.0.0.1:8080/v1/models/iris --connections 16 --protocol v2-binary\n  slipway model bench ./model --slo p99=5ms --protocol grpc"
)]
pub(super) struct Args {
    /// A server's URL (http://HOST:PORT, or with /v1/models/NAME), or a model's folder or file to serve here.
    target: String,
    /// Requests a second, by the clock.
    #[arg(long, value_name = "R", conflicts_with_all = ["connections", "slo"], value_parser = positive)]
    rate: Option<f64>,
    /// Connections that each send again when answered.
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: Option<u16>,
    /// Search the highest rate that keeps this quantile of the latency, such as p99=5ms.
    #[arg(long, value_name = "OBJECTIVE", conflicts_with = "connections")]
    slo: Option<Objective>,
    /// How long to measure (each trial, with --slo).
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// How long to send before it counts.
    #[arg(long, default_value = "500ms", value_parser = duration)]
    warmup: Duration,
    /// How the model is asked: v1, v2, v2-binary, grpc or tfs.
    #[arg(long, default_value = "v1")]
    protocol: Protocol,
    #[command(flatten)]
    data: DataFile,
    /// Rows of one request.
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// How requests are spread in time with --rate and --slo.
    #[arg(long, value_parser = ["poisson", "even"], default_value = "poisson")]
    spacing: String,
    /// The most connections of an open loop.
    #[arg(long, value_name = "C", default_value_t = 256)]
    max_connections: usize,
    /// Calls under way on each connection of gRPC.
    #[arg(long, value_name = "S", default_value_t = 16)]
    streams: usize,
    /// The highest rate that --slo tries.
    #[arg(long, value_name = "R", default_value = "1000000", value_parser = positive)]
    max_rate: f64,
    /// Ask for probabilities (where the model is served here).
    #[arg(long)]
    predict_proba: bool,
    /// Print JSON.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| *rate > 0.0 && *rate <= 1e7)
        .ok_or("expected a number above 0".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "expected a time such as 5s or 500ms".to_owned())?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        _ => return Err("expected a unit: ms, s or m".into()),
    };
    if (0.0..=3600.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err("expected 0 to 60 minutes".into())
}

impl Args {
    fn plan(&self) -> Plan {
        let spacing = if self.spacing == "even" { Spacing::Even } else { Spacing::Poisson };
        let (pace, connections) = match (self.rate, self.connections) {
            (Some(rate), _) => (Pace::Open { rate, spacing }, self.max_connections.clamp(1, 4096)),
            (None, connections) => (Pace::Closed, usize::from(connections.unwrap_or(16))),
        };
        Plan {
            pace,
            duration: self.duration,
            warmup: self.warmup,
            connections,
            streams: self.streams.clamp(1, 1000),
            ..Plan::default()
        }
    }

    /// The server: a child of ours on these CPUs, or the one that the URL names.
    fn server(&self, cpus: Option<&[usize]>) -> Result<(Option<Served>, Target)> {
        if self.is_url() {
            return Ok((None, Target::parse(&self.target)?));
        }
        let located = locate(&self.target, &DataFolder { data: None })?;
        anyhow::ensure!(
            located.path.exists(),
            "{:?} is neither a URL (http://HOST:PORT) nor a model's folder or file",
            self.target
        );
        let served = Served::start(located, self.predict_proba, cpus)?;
        let target = Target::parse(&format!("{}/v1/models/model", served.address()))?;
        Ok((Some(served), target))
    }

    fn is_url(&self) -> bool {
        let has_scheme = self.target.starts_with("http://") || self.target.starts_with("https://");
        let has_port = self.target.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        has_scheme || (has_port && !Path::new(&self.target).exists())
    }

    fn requests(&self, target: Target) -> Result<(Target, Requests)> {
        let target = ask::with_model(target, self.protocol)?;
        let signature = ask::signature(&target, self.protocol)?;
        let table = self.data.read()?;
        let requests =
            loadgen::requests(&target, self.protocol, signature.as_ref(), table.as_ref(), self.batch)?;
        Ok((target, requests))
    }

    /// What stands above the numbers.
    fn title(&self, target: &Target, requests: &Requests) -> String {
        let rows = match &self.data.data {
            Some(path) => format!("rows of {}", path.display()),
            None => "made-up numbers; --data FILE sends real ones".into(),
        };
        format!(
            "model {:?} at {}, protocol {}, {} row{} a request, {} different ({rows})",
            target.model,
            target.address,
            match self.protocol {
                Protocol::V1 => "v1",
                Protocol::V2 => "v2",
                Protocol::V2Binary => "v2-binary",
                Protocol::Grpc => "grpc",
                Protocol::Tfs => "tfs",
            },
            self.batch,
            if self.batch == 1 { "" } else { "s" },
            requests.len()
        )
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(objective) = args.slo {
        return promise::run(args, &objective);
    }
    let (served, target) = args.server(None)?;
    let (target, requests) = args.requests(target)?;
    let plan = args.plan();
    let is_text = args.output == "text";
    if is_text {
        println!("{}", args.title(&target, &requests));
        println!("{}", print::pace(&plan));
    }
    let before = served.as_ref().map(Served::usage);
    let report = loadgen::run(&target, &requests, &plan).with_context(|| advice(args))?;
    let usage = served.as_ref().zip(before).map(|(served, before)| served.usage().since(&before));
    if is_text {
        print::report(&report, usage.as_ref());
    } else {
        println!("{}", serde_json::to_string_pretty(&print::document(&report, usage.as_ref()))?);
    }
    anyhow::ensure!(report.answered > 0, "no request was answered well");
    Ok(())
}

fn advice(args: &Args) -> String {
    match args.is_url() {
        true => format!("cannot measure {}; is the server there, and is the path right?", args.target),
        false => format!("cannot measure {}", args.target),
    }
}
