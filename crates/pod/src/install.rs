//! `pod install DEST`: copies this very binary into a shared volume.
//!
//! The copy is written beside its destination and renamed, so that a reader sees all of it or nothing.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Copies the running binary to the one path in `args`; the process's exit code.
pub fn run(args: &[OsString]) -> i32 {
    let [destination] = args else {
        eprintln!("usage: pod install DEST");
        return 64;
    };
    match install(Path::new(destination)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("pod install: cannot write {destination:?}: {error}");
            1
        }
    }
}

fn install(destination: &Path) -> io::Result<()> {
    let target = if destination.is_dir() { destination.join("pod") } else { destination.to_path_buf() };
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut partial = target.clone().into_os_string();
    partial.push(".partial");
    std::fs::copy("/proc/self/exe", &partial)?;
    std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&partial, &target)
}
