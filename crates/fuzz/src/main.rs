//! Looks for inputs that break a reader, led by the code that they reach.
//!
//! `fuzz TARGET|all|planted [--seconds N] [--seed N] [--keep]`; `make fuzz` builds it with coverage. An input that
//! panics, takes seconds or takes much memory is written to `slipway-fuzz/finding-<target>` among the temporary files and
//! ends the run with status 1; one that ends the process lies there as `current-<target>`. `planted` ends well only if
//! its bug is found. `--keep` writes the inputs that together reach everything, smallest first, to `corpus/<target>`.
//!
//! Not here: the readers (`targets`).

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzz::coverage::{News, Reached};
use fuzz::mutate::{Dice, mutate};
use fuzz::targets::{PLANTED, TARGETS, Target};
use fuzz::{corpus, kept, memory};

#[global_allocator]
static COUNTED: memory::Counted = memory::Counted;

/// An input that takes longer is a finding.
const TIME_MAX: Duration = Duration::from_secs(5);
/// An input that takes more memory is a finding: the readers' own bounds are below it.
const BYTES_MAX: usize = 192 << 20;
/// Kept inputs of a target, at most, and bytes of one.
const KEPT_MAX: usize = 150;
const KEPT_BYTES_MAX: usize = 6 << 10;

struct Options {
    target: String,
    seconds: u64,
    seed: u64,
    keep: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { target: String::new(), seconds: 60, seed: 4, keep: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            value.parse().map_err(|_| format!("{word} {value}: expected a number"))
        };
        match word.as_str() {
            "--seconds" => options.seconds = number()?,
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
    if Reached::regions_max() == 0 {
        eprintln!("fuzz: compiled without coverage; build it with scripts/fuzz-rustc.sh as `make fuzz` does");
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|_| {}));
    if options.target == PLANTED.name {
        let found = Search::new(&PLANTED, &options).run();
        println!("{}", if found { "the planted bug was found" } else { "THE PLANTED BUG WAS NOT FOUND" });
        return if found { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let chosen = |target: &&Target| options.target == "all" || options.target == target.name;
    let all: Vec<&Target> = TARGETS.iter().filter(chosen).collect();
    if all.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("fuzz: no target {:?}; there are {}, all, planted", options.target, names.join(", "));
        return ExitCode::FAILURE;
    }
    let found = all.into_iter().map(|target| Search::new(target, &options).run());
    // All targets get their time, whatever is found in the first.
    if found.fold(false, |one, other| one | other) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Where an input of a target is written that is no kept one.
fn file(what: &str, target: &Target) -> PathBuf {
    let folder = std::env::temp_dir().join("slipway-fuzz");
    let _ = std::fs::create_dir_all(&folder);
    folder.join(format!("{what}-{}", target.name))
}

struct Search<'a> {
    target: &'a Target,
    options: &'a Options,
    dice: Dice,
    inputs: Vec<Vec<u8>>,
    /// Those of them that reached a region, or a new number of times: the first choice for what comes next.
    best: Vec<usize>,
    reached: Reached,
    runs: u64,
    /// Holds the input that runs, for the case that it ends the process.
    current: Option<std::fs::File>,
}

impl<'a> Search<'a> {
    fn new(target: &'a Target, options: &'a Options) -> Self {
        let current = std::fs::File::create(file("current", target)).ok();
        let (dice, inputs, best) = (Dice::new(options.seed), Vec::new(), Vec::new());
        Self { target, options, dice, inputs, best, reached: Reached::default(), runs: 0, current }
    }

    /// Searches until the time is up or something is found.
    fn run(mut self) -> bool {
        let start = Instant::now();
        let until = start + Duration::from_secs(self.options.seconds);
        let mut first = (self.target.seeds)();
        first.extend(kept(self.target.name).unwrap_or_default().into_iter().map(|(_, bytes)| bytes));
        let mut found = first.into_iter().find_map(|input| self.try_out(input));
        let begun = self.reached.regions();
        while found.is_none() && Instant::now() < until && !self.inputs.is_empty() {
            found = (0..100).find_map(|_| {
                let input = self.next();
                self.try_out(input)
            });
        }
        println!(
            "{:<8} {:>9} runs in {:>4} s   {:>5} inputs   regions {begun} -> {} of {}",
            self.target.name,
            self.runs,
            start.elapsed().as_secs(),
            self.inputs.len(),
            self.reached.regions(),
            Reached::regions_max(),
        );
        let _ = std::fs::remove_file(file("current", self.target));
        if let Some((why, input)) = &found {
            let file = file("finding", self.target);
            let _ = std::fs::write(&file, input);
            println!("{:<8} FOUND: {why} ({} bytes, in {})", self.target.name, input.len(), file.display());
        } else if self.options.keep {
            self.keep();
        }
        found.is_some()
    }

    /// A new input. Of the known ones the best are taken as often as all, and of these the newest as often as others.
    fn next(&mut self) -> Vec<u8> {
        let count = self.inputs.len();
        let from = match (self.dice.below(4), self.best.len()) {
            (0 | 1, best) if best > 0 => self.best[self.dice.below(best)],
            (2, _) if count > 16 => count - 16 + self.dice.below(16),
            _ => self.dice.below(count),
        };
        let other = self.dice.below(count);
        let mut input = self.inputs[from].clone();
        mutate(&mut self.dice, &mut input, &self.inputs[other], self.target.words, self.target.len_max);
        input
    }

    /// Runs an input and keeps it if it is new; what is wrong with it, if something is.
    fn try_out(&mut self, input: Vec<u8>) -> Option<(String, Vec<u8>)> {
        if let Some(file) = &self.current {
            let _ = file.set_len(0).and_then(|()| file.write_all_at(&input, 0));
        }
        self.runs += 1;
        let (start, before) = (Instant::now(), memory::live());
        memory::begin();
        Reached::begin();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.run)(&input)));
        let news = self.reached.end();
        let (time, taken) = (start.elapsed(), memory::taken(before));
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            return Some((format!("panic: {}", text.unwrap_or_default()), input));
        }
        if time > TIME_MAX {
            return Some((format!("it takes {time:?}"), input));
        }
        if taken > BYTES_MAX {
            return Some((format!("it takes {taken} bytes of memory"), input));
        }
        if news.region || news.count {
            self.best.push(self.inputs.len());
        }
        if news != News::default() {
            self.inputs.push(input);
        }
        None
    }

    /// Writes a small set of inputs that reach what all of them reach.
    fn keep(&mut self) {
        self.inputs.sort_by_key(Vec::len);
        let mut reached = Reached::default();
        let mut all = Vec::new();
        for input in self.inputs.iter().filter(|input| input.len() <= KEPT_BYTES_MAX) {
            Reached::begin();
            let _ = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
            if reached.end().region {
                all.push(input);
            }
        }
        // What reaches the most comes last: it is the longest.
        let all = &all[all.len().saturating_sub(KEPT_MAX)..];
        let folder = corpus(self.target.name);
        let _ = std::fs::remove_dir_all(&folder);
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            all.iter()
                .enumerate()
                .try_for_each(|(place, input)| std::fs::write(folder.join(format!("{place:03}")), input))
        });
        match written {
            Ok(()) => println!("{:<8} kept {} inputs", self.target.name, all.len()),
            Err(error) => eprintln!("{}: cannot keep inputs: {error}", self.target.name),
        }
    }
}
