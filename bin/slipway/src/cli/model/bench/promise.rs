//! `slipway model bench --slo`: the rate that a server can promise.
//!
//! A model that is served here is tried twice: with the server on one CPU and the load on another, then with the server
//! on all CPUs and the load among them. Not here: the search (`loadgen::slo`).

use anyhow::{Context, Result, bail};
use loadgen::slo::{Bounds, Found, Objective, Trial, search};
use loadgen::{Pace, Plan, Requests, Spacing, Target};
use serde_json::{Value, json};

use super::served::{Served, cpus, hold};
use super::{Args, advice, print};

/// The first rate that is tried.
const RATE_MIN: f64 = 100.0;
/// How much longer what was found is tried again.
const LONGER: u32 = 2;

/// One setting that a rate is searched for.
struct Setting {
    title: String,
    /// CPUs of the server, where it is ours.
    server: Option<Vec<usize>>,
    /// The CPU of the load.
    load: Option<usize>,
}

fn settings(args: &Args) -> Vec<Setting> {
    if args.is_url() {
        return vec![Setting { title: "this server".into(), server: None, load: None }];
    }
    let all = cpus();
    let mut settings = Vec::new();
    if let [first, .., last] = all.as_slice() {
        settings.push(Setting {
            title: format!("one core (server on CPU {first}, load from CPU {last})"),
            server: Some(vec![*first]),
            load: Some(*last),
        });
    }
    settings.push(Setting {
        title: format!("this machine (server on {} CPUs, the load among them)", all.len()),
        server: None,
        load: None,
    });
    settings
}

pub(super) fn run(args: &Args, objective: &Objective) -> Result<()> {
    let is_text = args.output == "text";
    let mut found = Vec::new();
    for setting in settings(args) {
        let (served, target) = args.server(setting.server.as_deref())?;
        let (target, requests) = args.requests(target)?;
        if is_text && found.is_empty() {
            println!("{}", args.title(&target, &requests));
        }
        if is_text {
            println!("\n{objective} on {}:", setting.title);
        }
        let own = setting.load.map(|cpu| hold(&[cpu])).transpose()?;
        let result = find(args, objective, &target, &requests, is_text);
        if let Some(own) = own {
            rustix::thread::sched_setaffinity(None, &own).context("cannot give the CPUs back")?;
        }
        let usage = served.as_ref().map(Served::usage);
        found.push((setting.title, result.with_context(|| advice(args))?, usage));
    }
    if is_text {
        println!("\n{objective}");
        found.iter().for_each(|(title, found, _)| println!("  {title}: {}", verdict(found)));
    } else {
        let each = found.iter().map(|(title, found, usage)| document(title, found, usage.as_ref()));
        let all = json!({ "objective": objective.to_string(), "promises": each.collect::<Vec<Value>>() });
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    if found.iter().all(|(_, found, _)| matches!(found, Found::Never(_))) {
        bail!("{objective} is not kept at any rate that was tried; ask for less, or see why with --rate");
    }
    Ok(())
}

fn find(
    args: &Args,
    objective: &Objective,
    target: &Target,
    requests: &Requests,
    is_text: bool,
) -> Result<Found, loadgen::Error> {
    let spacing = if args.spacing == "even" { Spacing::Even } else { Spacing::Poisson };
    let attempt = |rate: f64, is_long: bool| {
        let plan = Plan {
            pace: Pace::Open { rate, spacing },
            duration: if is_long { args.duration * LONGER } else { args.duration },
            connections: args.max_connections.clamp(1, 4096),
            // So far behind, no quantile can be within the promise any more.
            behind_max: objective.latency * 20,
            patience: (objective.latency * 50).max(std::time::Duration::from_secs(2)),
            ..args.plan()
        };
        loadgen::run(target, requests, &plan)
    };
    let seen = |trial: &Trial| {
        if is_text {
            println!("  {}", line(objective, trial));
        }
    };
    search(
        objective,
        Bounds { rate_min: RATE_MIN.min(args.max_rate), rate_max: args.max_rate },
        attempt,
        seen,
    )
}

fn line(objective: &Objective, trial: &Trial) -> String {
    let quantile = print::short(trial.report.latency.quantile(objective.share));
    match &trial.broken {
        None => format!("{:>9.0}/s  kept    {quantile}", trial.rate),
        Some(why) => format!("{:>9.0}/s  broken  {why}", trial.rate),
    }
}

fn verdict(found: &Found) -> String {
    match found {
        Found::Rate(trial) => format!("{:.0} requests/s", trial.rate),
        Found::AtLeast(trial) => format!("at least {:.0} requests/s (--max-rate)", trial.rate),
        Found::Never(trial) => {
            let why = trial.broken.as_deref().unwrap_or_default();
            format!("not at {:.0} requests/s: {why}", trial.rate)
        }
    }
}

fn document(title: &str, found: &Found, usage: Option<&super::served::Usage>) -> Value {
    let (kind, trial) = match found {
        Found::Rate(trial) => ("rate", trial),
        Found::AtLeast(trial) => ("at_least", trial),
        Found::Never(trial) => ("never", trial),
    };
    json!({
        "on": title,
        "kind": kind,
        "rate": trial.rate,
        "broken": trial.broken,
        "resident_bytes": usage.map(|usage| usage.resident_bytes),
        "trial": print::document(&trial.report, None),
    })
}
