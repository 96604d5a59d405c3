//! The small static binary of a pod: one file, three duties.
//!
//! * `pod shim FOLDER` owns a pod's processes on the node;
//! * `pod launch …` runs inside a container around a workflow step's command;
//! * `pod install DEST` copies this very file, so that an init container can bring the launcher into any image.
//!
//! It is static (glibc, `crt-static`) because it runs inside images that have no libraries of ours, and small because
//! one shim a pod stays in memory.

mod install;
mod launch;
mod shim;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    let code = match command.to_str() {
        Some("shim") => shim::run(&rest),
        Some("launch") => launch::main(&rest),
        Some("install") => install::run(&rest),
        _ => {
            eprintln!("usage: pod shim FOLDER | launch [--] COMMAND... | install DEST");
            64
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
