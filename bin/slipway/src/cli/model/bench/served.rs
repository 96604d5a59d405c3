//! A model server of our own for the time of a measurement: `slipway serve` on a free port of loopback.
//!
//! A process of its own, so that what it costs can be told from what sending costs, and so that it can be held on one
//! CPU. It ends with the value.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::CpuSet;

use crate::cli::model::Located;

pub(super) struct Served {
    child: Child,
    address: String,
    _model: Located,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
}

impl Usage {
    pub(super) fn since(self, before: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), ..self }
    }
}

impl Served {
    /// Starts it and waits until it listens. With `cpus` it runs on these alone.
    pub(super) fn start(model: Located, predict_proba: bool, cpus: Option<&[usize]>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg("serve").args(["--model_name=model", "--host=127.0.0.1", "--http_port=0"]);
        command.arg(format!("--model_dir={}", model.path.display()));
        command.arg(format!("--predict_proba={predict_proba}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // A child has its parent's CPUs, so ours are changed while it starts.
        let own = cpus.map(hold).transpose()?;
        let child = command.spawn();
        if let Some(own) = own {
            rustix::thread::sched_setaffinity(None, &own).context("cannot give the CPUs back")?;
        }
        let mut child = child.context("cannot start the model server")?;
        let lines = child.stdout.take().context("the model server has no output")?;
        let mut served = Self { child, address: String::new(), _model: model };
        for line in BufReader::new(lines).lines() {
            let line = line.context("cannot read the model server's output")?;
            if let Some((_, address)) = line.split_once("listening on ") {
                address.trim().clone_into(&mut served.address);
                return Ok(served);
            }
        }
        let status = served.child.wait()?;
        bail!("the model server ended with {status} before it listened; its reason is above")
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What it has used so far; zeros where the system does not say.
    pub(super) fn usage(&self) -> Usage {
        let file = |name: &str| {
            std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default()
        };
        // After the name in brackets: state is field 3, so user and system time are at 11 and 12 from there.
        let stat = file("stat");
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let status = file("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Usage {
            cpu: Duration::from_secs_f64((ticks(11) + ticks(12)) as f64 / per_second as f64),
            resident_bytes: kilobytes.unwrap_or(0) * 1024,
        }
    }
}

/// Holds this thread on some CPUs; those it had.
pub(super) fn hold(cpus: &[usize]) -> Result<CpuSet> {
    let own = rustix::thread::sched_getaffinity(None).context("cannot learn the CPUs of this thread")?;
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    rustix::thread::sched_setaffinity(None, &set).context("cannot hold this thread on a CPU")?;
    Ok(own)
}

/// The CPUs that this process may use.
pub(super) fn cpus() -> Vec<usize> {
    let Ok(own) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|cpu| own.is_set(*cpu)).collect()
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
