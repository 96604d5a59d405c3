//! A search for inputs that break a reader, led by the code that they reach and by what they are compared with.
//!
//! An input that reaches something new is kept: it is made as short as it can be while it still does, what its bytes
//! were compared with is put into their place, and then it is one of those that new inputs are made of. Of these the
//! ones that reach what few runs reach come first, the less the more often they had their turn.
//!
//! Nothing is decided by the clock: a bound in runs gives a slow machine as good a search as a fast one. Two searches
//! with one seed are nearly the same; where memory lies differs from process to process, and readers compare that, too.
//!
//! Not here: the readers (`targets`), what was searched in all (`ledger`).

use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use crate::compared;
use crate::coverage::{News, Reached, Taken};
use crate::memory;
use crate::mutate::{Dice, edges, mutate};
use crate::targets::Target;

/// An input that takes longer, in processor time, is a finding.
const TIME_MAX: Duration = Duration::from_secs(5);
/// An input that takes more memory is a finding: the readers' own bounds are below it.
const BYTES_MAX: usize = 192 << 20;
/// Runs that one new input may have, at most: to be made shorter, for comparisons, for words.
const TRIM_RUNS_MAX: usize = 160;
const COMPARED_RUNS_MAX: usize = 192;
const WORD_RUNS_MAX: usize = 512;
/// New inputs that are made of one before another has its turn.
const TURN: usize = 24;
/// Words that are learned from comparisons, at most.
const LEARNED_MAX: usize = 256;

/// How long to search.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Processor time.
    pub time: Duration,
    /// Inputs that are run.
    pub runs: u64,
}

/// What is wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A text for people.
    pub why: String,
    /// The input.
    pub input: Vec<u8>,
}

struct Known {
    bytes: Vec<u8>,
    /// What it was the first to reach.
    first: Vec<Taken>,
    turns: u32,
}

/// A search and what it has so far.
pub struct Search {
    target: &'static Target,
    dice: Dice,
    known: Vec<Known>,
    learned: Vec<Vec<u8>>,
    reached: Reached,
    runs: u64,
    found: Option<Finding>,
    /// Holds the input that runs, and [`END`], for the case that it ends the process.
    current: Option<std::fs::File>,
}

/// Processor time of this thread.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// What follows the input in the file of the one that runs: to shorten the file for each would take longer than most runs.
const END: &[u8] = b"\n=== here the input ends ===\n";

/// Where an input of a target is written that is no kept one: in memory where the system has a place for that.
pub fn scratch(what: &str, target: &Target) -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let folder = if shared.is_dir() { shared } else { std::env::temp_dir() }.join("slipway-fuzz");
    let _ = std::fs::create_dir_all(&folder);
    folder.join(format!("{what}-{}", target.name))
}

impl Search {
    /// A search that has seen nothing.
    pub fn new(target: &'static Target, seed: u64) -> Self {
        let current = std::fs::File::create(scratch("current", target)).ok();
        Reached::begin();
        Self {
            target,
            dice: Dice::new(seed),
            known: Vec::new(),
            learned: Vec::new(),
            reached: Reached::default(),
            runs: 0,
            found: None,
            current,
        }
    }

    /// Inputs that were run.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Edges that were taken.
    pub fn edges(&self) -> usize {
        self.reached.edges()
    }

    /// The inputs that reached something new.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.known.iter().map(|known| known.bytes.as_slice())
    }

    /// Runs what is there already.
    pub fn begin(&mut self, inputs: impl IntoIterator<Item = Vec<u8>>) -> Option<Finding> {
        for input in inputs {
            let news = self.try_out(&input);
            if self.found.is_some() {
                break;
            }
            if news != News::default() {
                self.known.push(Known { bytes: input, first: news.taken, turns: 0 });
            }
        }
        self.found.take()
    }

    /// Searches until a bound is reached or something is found.
    pub fn run(&mut self, bounds: Bounds) -> Option<Finding> {
        let start = cpu_time();
        while self.found.is_none() && self.runs < bounds.runs && !self.known.is_empty() {
            if cpu_time() - start >= bounds.time {
                break;
            }
            let chosen = self.choose();
            self.known[chosen].turns += 1;
            // Chance chooses among many comparisons and words: the first time is not always the right one.
            if self.known[chosen].turns.is_power_of_two() {
                self.look_closely(chosen);
            }
            for _ in 0..TURN {
                if self.found.is_some() || self.runs >= bounds.runs {
                    break;
                }
                let input = self.change(chosen);
                self.take(input);
            }
        }
        let _ = std::fs::remove_file(scratch("current", self.target));
        self.found.take()
    }

    /// The next to have a turn: of some that chance shows, the one that reaches what the fewest runs reached. Every
    /// fourth time it is one of the newest, which nobody knows yet.
    fn choose(&mut self) -> usize {
        let count = self.known.len();
        if self.dice.below(4) == 0 {
            return count - 1 - self.dice.below(count.min(16));
        }
        let score = |known: &Known| {
            u64::from(self.reached.rarest(&known.first)).saturating_mul(1 + u64::from(known.turns))
        };
        let shown: Vec<usize> = (0..8).map(|_| self.dice.below(count)).collect();
        shown.into_iter().min_by_key(|index| score(&self.known[*index])).unwrap_or(0)
    }

    fn change(&mut self, from: usize) -> Vec<u8> {
        let other = self.dice.below(self.known.len());
        let mut input = self.known[from].bytes.clone();
        // Those of the language are few and good, those that were learned are many.
        let learned: Vec<&[u8]> = match self.dice.below(2) {
            0 => self.learned.iter().map(Vec::as_slice).collect(),
            _ => Vec::new(),
        };
        let words = if learned.is_empty() { self.target.words } else { &learned };
        mutate(&mut self.dice, &mut input, &self.known[other].bytes, words, self.target.len_max);
        input
    }

    /// Runs an input and keeps it if it is new.
    fn take(&mut self, input: Vec<u8>) {
        let news = self.try_out(&input);
        if news != News::default() && self.found.is_none() {
            let shorter = self.shortened(input.clone(), &news.taken);
            // What was cut off may be needed for the next step: both are known then.
            if news.edge && shorter.len() < input.len() {
                self.known.push(Known { bytes: input, first: news.taken.clone(), turns: 0 });
            }
            self.known.push(Known { bytes: shorter, first: news.taken, turns: 0 });
        }
    }

    /// What is left of an input when all is taken away that it does not need to reach the same new things.
    fn shortened(&mut self, mut input: Vec<u8>, wanted: &[Taken]) -> Vec<u8> {
        let mut runs = 0;
        let mut step = input.len() / 2;
        while step > 0 && runs < TRIM_RUNS_MAX {
            let mut at = 0;
            while at < input.len() && runs < TRIM_RUNS_MAX && self.found.is_none() {
                let end = (at + step).min(input.len());
                let shorter = [&input[..at], &input[end..]].concat();
                let news = self.try_out(&shorter);
                runs += 1;
                let still_has = self.reached.last_has(wanted);
                if news != News::default() {
                    // What is not there any more may be a thing of its own.
                    let bytes = shorter.clone();
                    self.known.push(Known { bytes, first: news.taken, turns: 0 });
                }
                if still_has {
                    input = shorter;
                } else {
                    at = end;
                }
            }
            step /= 2;
        }
        input
    }

    /// What an input is tried with on its own: what its bytes were compared with, and the words of its language in it.
    fn look_closely(&mut self, chosen: usize) {
        let input = self.known[chosen].bytes.clone();
        compared::begin();
        self.try_out(&input);
        let seen = compared::end();
        // What is not in the input is the reader's own.
        let is_own = |text: &[u8]| !input.windows(text.len()).any(|part| part == text);
        let sides = seen.texts.iter().flat_map(|(left, right)| [left, right]);
        for text in sides.filter(|text| is_own(text)) {
            self.learn(text);
        }
        for candidate in seen.candidates(&mut self.dice, &input, COMPARED_RUNS_MAX) {
            if self.found.is_none() {
                self.take(candidate);
            }
        }
        let mut tries: Vec<(usize, &[u8])> = edges(&input)
            .flat_map(|at| self.target.words.iter().map(move |word| (at, *word)))
            .filter(|(_, word)| input.len() + word.len() + 2 <= self.target.len_max)
            .collect();
        while tries.len() > WORD_RUNS_MAX {
            tries.swap_remove(self.dice.below(tries.len()));
        }
        for (at, word) in tries {
            if self.found.is_none() {
                self.take([&input[..at], b" ", word, b" ", &input[at..]].concat());
            }
        }
    }

    /// Remembers a text as a word; when there are many, in the place of another.
    fn learn(&mut self, text: &[u8]) {
        let is_word = (3..compared::TEXT_BYTES_MAX).contains(&text.len());
        if !is_word || self.learned.iter().any(|known| known == text) {
            return;
        }
        if self.learned.len() < LEARNED_MAX {
            self.learned.push(text.to_vec());
        } else {
            let place = self.dice.below(LEARNED_MAX);
            self.learned[place] = text.to_vec();
        }
    }

    /// Runs an input: what is new about it. What is wrong with it is in `found` then.
    fn try_out(&mut self, input: &[u8]) -> News {
        if let Some(file) = &self.current {
            let _ = rustix::io::pwritev(file, &[IoSlice::new(input), IoSlice::new(END)], 0);
        }
        self.runs += 1;
        let (start, before) = (cpu_time(), memory::live());
        memory::begin();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        let news = self.reached.end();
        let (time, taken) = (cpu_time() - start, memory::taken(before));
        let why = match outcome {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Some(format!("panic: {}", text.unwrap_or_default()))
            }
            Ok(()) if time > TIME_MAX => Some(format!("it takes {time:?}")),
            Ok(()) if taken > BYTES_MAX => Some(format!("it takes {taken} bytes of memory")),
            Ok(()) => None,
        };
        self.found = why.map(|why| Finding { why, input: input.to_vec() }).or(self.found.take());
        news
    }

    /// A small set of inputs, none longer than `bytes_max`, that reach what all of them reach beyond `without`.
    pub fn cover(&self, without: &[Vec<u8>], bytes_max: usize, count_max: usize) -> Vec<Vec<u8>> {
        let run = |reached: &mut Reached, input: &[u8]| {
            Reached::begin();
            let _ = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
            reached.end().edge
        };
        let begun = || {
            let mut reached = Reached::default();
            for input in without {
                run(&mut reached, input);
            }
            reached
        };
        let mut inputs: Vec<&[u8]> = self.inputs().filter(|input| input.len() <= bytes_max).collect();
        inputs.sort_by_key(|input| input.len());
        let mut reached = begun();
        inputs.retain(|input| run(&mut reached, input));
        // Once more from the other end: the longer ones reach most of what the shorter ones were taken for.
        let mut reached = begun();
        inputs.reverse();
        inputs.retain(|input| run(&mut reached, input));
        inputs.truncate(count_max);
        inputs.into_iter().map(<[u8]>::to_vec).collect()
    }
}
