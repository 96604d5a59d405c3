//! Work that no request waits for: reading versions that replace others, freeing those that are gone, sending what was
//! observed, shadows.
//!
//! A large model takes seconds of a CPU. At the priority of requests the system would give it every second turn; at the
//! lowest one a thread that serves takes the CPU as soon as it has something to do, and what is left of it does the work.
//! The lowest, and not the class of idle work: a server that is never idle has to come to the end of a load too, and
//! this still gives a seventieth of a CPU. Nobody can raise a thread again without a privilege, so a thread that was
//! lowered stays what it is.
//!
//! Not here: reading that requests wait for, which is done at their priority (`repository::reading`).

#![allow(unsafe_code)] // The system call that sets a thread's turns has no other wrapper. Its block has a note.

use std::io::Error;
use std::time::Duration;

/// How long small pieces of work gather before a thread turns to them: to be woken for each, and to wake those that serve
/// from the rhythm that they have found, costs more than the work does.
pub(crate) const GATHER: Duration = Duration::from_millis(50);
/// The lowest priority.
const NICE: i32 = 19;
/// How long the thread's turn is. It is never taken to its end: Linux (from 6.12) lets a thread with shorter turns, as
/// all others have them, interrupt one with longer turns when it wakes, and else only when a tick of up to 4 ms is over.
const TURN_NS: u64 = 100_000_000;

/// Lowers the calling thread. Threads that it starts are as low. Where the system refuses, all stays as it was.
pub(crate) fn lower() {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: TURN_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the call reads the attributes, whose size they tell, and nothing else.
    let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0;
    if refused {
        tracing::debug!(error = %Error::last_os_error(), "a thread keeps its priority");
    }
}

/// Runs what frees memory on a low thread of its own. Where no thread can be had it is dropped here, and with it what it
/// was to free.
pub(crate) fn run(name: &str, work: impl FnOnce() + Send + 'static) {
    let body = move || {
        lower();
        work();
    };
    let _ = std::thread::Builder::new().name(name.to_owned()).spawn(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_itself_is_lowered() {
        let nice = || rustix::process::getpriority_process(None).expect("a priority");
        let before = nice();
        std::thread::spawn(move || {
            lower();
            assert_eq!(nice(), NICE);
        })
        .join()
        .expect("the lowered thread");
        assert_eq!(nice(), before);
    }
}
