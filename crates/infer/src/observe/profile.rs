//! A CPU profile of the running process: where its threads are, a hundred times in each second of CPU time.
//!
//! The kernel's profiling timer sends a signal to whichever thread runs; the handler walks that thread's stack with the
//! unwinder that panics use and writes the addresses into memory that was reserved before. It allocates nothing and
//! takes no lock. When no profile is taken there is no timer, and all of this costs nothing.
//!
//! Addresses stay addresses here: names are found afterwards (`symbols`), or by `pprof` on another machine.
#![allow(unsafe_code)] // Signal handlers, their timer and the unwinder are C. Each block has a note.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Samples in a second of CPU time.
const RATE: usize = 100;
/// Frames of a stack, at most: the innermost.
const FRAMES: usize = 64;
/// Samples of one profile, at most: a minute of two CPUs, or ten seconds of sixteen. 8 MiB while it is taken.
const SAMPLES: usize = 16 << 10;

/// What is being taken.
struct Recorder {
    next: AtomicUsize,
    /// `FRAMES` words for each sample; 0 ends a shorter stack.
    words: Box<[AtomicUsize]>,
}

static RECORDER: AtomicPtr<Recorder> = AtomicPtr::new(std::ptr::null_mut());
/// Handlers that may still look at the recorder.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// A profile that is being taken; one at a time in a process.
pub(super) struct Taking(*mut Recorder);

// SAFETY: the pointer is to memory that only atomics of are written, and that `Taking` alone frees.
unsafe impl Send for Taking {}

/// Stacks, innermost frame first, and how often each was seen.
#[derive(Debug, Default)]
pub(super) struct Stacks(pub(super) HashMap<Vec<usize>, usize>);

impl Taking {
    /// Starts the timer; `None` while another profile is taken, an error where the kernel refuses.
    pub(super) fn start() -> std::io::Result<Option<Self>> {
        if IS_TAKEN.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        // The unwinder's first walk may load what it needs; that must not happen in a signal handler.
        let mut once = Walk { words: &[], used: 0, from: 0, is_found: true };
        walk(&mut once);
        let words = (0..FRAMES * SAMPLES).map(|_| AtomicUsize::new(0)).collect();
        let recorder = Box::into_raw(Box::new(Recorder { next: AtomicUsize::new(0), words }));
        RECORDER.store(recorder, Ordering::SeqCst);
        let taking = Self(recorder);
        install()?;
        timer(1_000_000 / RATE)?;
        Ok(Some(taking))
    }

    /// Stops and gives what was seen.
    pub(super) fn stop(self) -> Stacks {
        self.silence();
        // SAFETY: `silence` has waited until no handler holds the pointer; it stays valid until `self` is dropped.
        let recorder = unsafe { &*self.0 };
        let count = recorder.next.load(Ordering::Acquire).min(SAMPLES);
        let mut stacks = Stacks::default();
        for sample in recorder.words.chunks(FRAMES).take(count) {
            let words = sample.iter().map(|word| word.load(Ordering::Relaxed));
            let stack: Vec<usize> = words.take_while(|word| *word != 0).collect();
            if !stack.is_empty() {
                *stacks.0.entry(stack).or_default() += 1;
            }
        }
        stacks
    }

    fn silence(&self) {
        let _ = timer(0);
        RECORDER.store(std::ptr::null_mut(), Ordering::SeqCst);
        while INSIDE.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.silence();
        // SAFETY: the pointer is from `Box::into_raw` and freed only here; no handler holds it any more.
        drop(unsafe { Box::from_raw(self.0) });
        IS_TAKEN.store(false, Ordering::Release);
    }
}

/// The handler stays for the life of the process: a signal that is still under way when a profile ends would otherwise
/// meet the default, which is to end the process.
fn install() -> std::io::Result<()> {
    // SAFETY: the structure is plain data for which zero is a value; the handler has the signature that SA_SIGINFO asks
    // for and does only what is allowed in one.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Every so many microseconds of CPU time; 0 is never.
fn timer(micros: usize) -> std::io::Result<()> {
    let every = libc::timeval { tv_sec: 0, tv_usec: micros as libc::suseconds_t };
    let value = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: a pointer to a structure of ours, and none for what was set before.
    let failed = unsafe { libc::setitimer(libc::ITIMER_PROF, &value, std::ptr::null_mut()) };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A walk over a stack into reserved words.
struct Walk<'a> {
    words: &'a [AtomicUsize],
    used: usize,
    /// Where the thread was interrupted: frames before are the handler's own.
    from: usize,
    is_found: bool,
}

unsafe extern "C" {
    fn _Unwind_Backtrace(frame: extern "C" fn(*mut c_void, *mut c_void) -> c_int, walk: *mut c_void)
    -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

const GO_ON: c_int = 0;
/// `_URC_END_OF_STACK`: any other answer ends a walk.
const ENOUGH: c_int = 5;

extern "C" fn on_frame(context: *mut c_void, walk: *mut c_void) -> c_int {
    // SAFETY: `walk` is what `walk()` passed, alive for the whole walk and used by nobody else.
    let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
    // SAFETY: the unwinder's own context, valid during this call.
    let address = unsafe { _Unwind_GetIP(context) };
    walk.is_found |= address == walk.from;
    if !walk.is_found {
        return GO_ON;
    }
    match walk.words.get(walk.used) {
        Some(word) if address != 0 => {
            word.store(address, Ordering::Relaxed);
            walk.used += 1;
            GO_ON
        }
        _ => ENOUGH,
    }
}

fn walk(walk: &mut Walk<'_>) {
    // SAFETY: the callback has the unwinder's signature and gets the pointer that it expects.
    unsafe { _Unwind_Backtrace(on_frame, std::ptr::from_mut(walk).cast()) };
}

/// The stack of the caller, innermost frame first.
pub(super) fn here(frames: usize) -> Vec<usize> {
    let words: Vec<AtomicUsize> = (0..frames).map(|_| AtomicUsize::new(0)).collect();
    let mut taken = Walk { words: &words, used: 0, from: 0, is_found: true };
    walk(&mut taken);
    let used = taken.used;
    words.into_iter().take(used).map(AtomicUsize::into_inner).collect()
}

/// Where the thread was when the signal came.
fn interrupted_at(context: *mut c_void) -> usize {
    // SAFETY: the kernel's third argument of a handler with SA_SIGINFO is a `ucontext_t`.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    return context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    #[cfg(target_arch = "aarch64")]
    return context.uc_mcontext.pc as usize;
}

extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    let recorder = RECORDER.load(Ordering::SeqCst);
    if !recorder.is_null() {
        // SAFETY: not null, and freed only after `INSIDE`, which counts us, was seen to be 0 later than the null.
        let recorder = unsafe { &*recorder };
        let sample = recorder.next.fetch_add(1, Ordering::AcqRel);
        if let Some(words) = recorder.words.get(sample.saturating_mul(FRAMES)..) {
            let words = &words[..words.len().min(FRAMES)];
            let from = interrupted_at(context);
            let mut taken = Walk { words, used: 0, from, is_found: false };
            walk(&mut taken);
            if taken.used == 0
                && let Some(word) = words.first()
            {
                // A place that the unwinder does not know, such as a system call's own page.
                word.store(from, Ordering::Relaxed);
            }
        }
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

impl Stacks {
    /// The form of gperftools' CPU profiler, which every `pprof` reads: words of the machine, then its mappings.
    pub(super) fn to_pprof(&self, maps: &str) -> Vec<u8> {
        let mut words = vec![0, 3, 0, 1_000_000 / RATE, 0];
        for (stack, count) in &self.0 {
            words.extend([*count, stack.len()]);
            words.extend(stack);
        }
        words.extend([0, 1, 0]);
        let mut out: Vec<u8> = words.into_iter().flat_map(usize::to_ne_bytes).collect();
        out.extend_from_slice(maps.as_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Uses CPU time in a frame of its own.
    #[inline(never)]
    fn burn(until: Instant) -> u64 {
        let mut sum = 0_u64;
        while Instant::now() < until {
            sum = (0..1_000).fold(sum, |sum, number| std::hint::black_box(sum.wrapping_mul(31) ^ number));
        }
        sum
    }

    #[test]
    fn busy_threads_are_seen_and_only_one_profile_is_taken_at_a_time() {
        let taking = Taking::start().expect("a timer").expect("no other profile");
        assert!(Taking::start().expect("no error").is_none());
        let own = burn as *const () as usize;
        let is_near = |address: &usize| (own..own + 4096).contains(address);
        let mut rounds = 0;
        // CPU time passes slowly on a busy machine: what is waited for is a sample of this thread.
        loop {
            burn(Instant::now() + Duration::from_millis(20));
            // SAFETY: the recorder lives as long as `taking`.
            let words = &unsafe { &*taking.0 }.words;
            rounds += 1;
            if words.iter().any(|word| is_near(&word.load(Ordering::Relaxed))) || rounds > 5_000 {
                break;
            }
        }
        let stacks = taking.stop();
        assert!(stacks.0.keys().any(|stack| stack.iter().any(is_near)), "{stacks:?}");
        let written = stacks.to_pprof("maps");
        assert!(written.ends_with(b"maps") && (written.len() - 4).is_multiple_of(size_of::<usize>()));
        assert!(Taking::start().expect("a timer").is_some(), "the next profile");
    }
}
