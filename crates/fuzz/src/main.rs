//! Looks for inputs that break a reader.
//!
//! `fuzz TARGET|all|planted [--seconds N] [--runs N] [--seed N] [--keep]`; `make fuzz` builds it with coverage. Seconds
//! are of processor time, for each target. An input that panics, takes seconds or takes much memory is written to
//! `slipway-fuzz/finding-<target>` in `/dev/shm`, or else among the temporary files, and ends the run with status 1; one that
//! ends the process lies there as `current-<target>`. `planted` ends well only if all planted bugs are found. `--keep` writes the inputs
//! that reach what the seeds do not to `corpus/<target>`, and adds the search to `corpus/SEARCHED.md`.
//!
//! Not here: how it is searched (`fuzz::search`).

mod planted;

use std::process::ExitCode;
use std::time::Duration;

use fuzz::coverage::Reached;
use fuzz::search::{Bounds, Finding, Search, cpu_time, scratch};
use fuzz::targets::{TARGETS, Target};
use fuzz::{keep, kept, ledger, memory};
use planted::PLANTED;

#[global_allocator]
static COUNTED: memory::Counted = memory::Counted;

/// Kept inputs of a target, at most, and bytes of one.
const KEPT_MAX: usize = 150;
const KEPT_BYTES_MAX: usize = 6 << 10;
/// A thread's stack, as the server's threads have it: what is too deep for it is too deep here.
const STACK_BYTES: usize = 2 << 20;

struct Options {
    target: String,
    bounds: Bounds,
    seed: u64,
    keep: bool,
}

fn options() -> Result<Options, String> {
    let bounds = Bounds { time: Duration::from_secs(60), runs: u64::MAX };
    let mut options = Options { target: String::new(), bounds, seed: 4, keep: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            value.parse().map_err(|_| format!("{word} {value}: expected a number"))
        };
        match word.as_str() {
            "--seconds" => options.bounds.time = Duration::from_secs(number()?),
            "--runs" => options.bounds.runs = number()?,
            "--seed" => options.seed = number()?,
            "--keep" => options.keep = true,
            name if !name.starts_with('-') && options.target.is_empty() => options.target = name.to_owned(),
            other => return Err(format!("unknown word {other:?}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("fuzz: {why}");
            return ExitCode::FAILURE;
        }
    };
    if Reached::edges_max() == 0 {
        eprintln!("fuzz: compiled without coverage; build it with scripts/fuzz-rustc.sh as `make fuzz` does");
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run(&options));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Whether all is as it should be.
fn run(options: &Options) -> bool {
    if let Some(target) = PLANTED.iter().find(|target| target.name == options.target) {
        return planted(target, options);
    }
    if options.target == "planted" {
        return PLANTED.iter().fold(true, |so_far, target| planted(target, options) & so_far);
    }
    let chosen = |target: &&Target| options.target == "all" || options.target == target.name;
    let all: Vec<&Target> = TARGETS.iter().filter(chosen).collect();
    if all.is_empty() {
        let names: Vec<&str> = TARGETS.iter().chain(&PLANTED).map(|target| target.name).collect();
        eprintln!("fuzz: no target {:?}; there are all, planted, {}", options.target, names.join(", "));
        return false;
    }
    // All targets get their time, whatever is found in the first.
    all.into_iter().fold(true, |so_far, target| search(target, options) & so_far)
}

/// Whether a planted bug is found.
fn planted(target: &'static Target, options: &Options) -> bool {
    let (start, mut search) = (cpu_time(), Search::new(target, options.seed));
    let found = search.begin((target.seeds)()).or_else(|| search.run(options.bounds));
    let is_found = found.is_some_and(|finding| finding.why == "panic: planted");
    let (runs, time) = (search.runs(), cpu_time() - start);
    let what = if is_found { "found" } else { "NOT FOUND" };
    println!(
        "{:<13} seed {:<3} {what} after {runs} runs, {:.1} s",
        target.name,
        options.seed,
        time.as_secs_f64()
    );
    is_found
}

/// Whether nothing is found in a target.
fn search(target: &'static Target, options: &Options) -> bool {
    let (start, mut search) = (cpu_time(), Search::new(target, options.seed));
    let seeds = (target.seeds)();
    let first = kept(target.name).unwrap_or_default().into_iter().map(|(_, bytes)| bytes);
    let found = search.begin(seeds.iter().cloned().chain(first));
    let begun = search.edges();
    let found = found.or_else(|| search.run(options.bounds));
    let time = cpu_time() - start;
    println!(
        "{:<8} {:>9} runs in {:>4} s   {:>5} inputs   edges {begun} -> {} of {}",
        target.name,
        search.runs(),
        time.as_secs(),
        search.inputs().len(),
        search.edges(),
        Reached::edges_max(),
    );
    match found {
        Some(finding) => {
            report(target, &finding);
            false
        }
        None if options.keep => keep_and_record(target, &search, &seeds, time),
        None => true,
    }
}

fn report(target: &Target, finding: &Finding) {
    let Finding { why, input } = finding;
    let file = scratch("finding", target);
    let _ = std::fs::write(&file, input);
    println!("{:<8} FOUND: {why} ({} bytes, in {})", target.name, input.len(), file.display());
}

fn keep_and_record(target: &Target, search: &Search, seeds: &[Vec<u8>], time: Duration) -> bool {
    let inputs = search.cover(seeds, KEPT_BYTES_MAX, KEPT_MAX);
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let row = ledger::searched(target.name, time, search.runs(), search.edges(), inputs.len(), day);
    match keep(target, &inputs).and_then(|()| ledger::record(row)) {
        Ok(()) => {
            println!("{:<8} kept {} inputs", target.name, inputs.len());
            true
        }
        Err(error) => {
            eprintln!("{}: cannot keep inputs: {error}", target.name);
            false
        }
    }
}
