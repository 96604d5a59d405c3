//! Work that no request waits for: reading versions that replace others, and freeing those that are gone.
//!
//! It takes seconds of a CPU where a model is large. At the priority of requests the system would give it every second
//! turn; at the lowest one a thread that serves takes the CPU as soon as it has something to do, and what is left of it
//! reads the model. The lowest, and not the class of idle work: a server that is never idle has to come to the end of a
//! load too, and this still gives a seventieth of a CPU. Nobody can raise a thread again without a privilege, so a
//! thread that was lowered stays what it is.
//!
//! Not here: reading that requests wait for, which is done at their priority (`repository::reading`).

/// The lowest priority.
const NICE: i32 = 19;

/// Lowers the calling thread. Threads that it starts are as low. Where the system refuses, all stays as it was.
pub(crate) fn lower() {
    // Of a thread and not of its process: on Linux that is what this call means.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread keeps its priority");
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
