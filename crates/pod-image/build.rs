//! Builds the static `pod` binary with a cargo of its own and leaves it packed in `OUT_DIR` for `include_bytes!`.
//!
//! A nested cargo, because the outer one cannot build one package for two profiles and link modes at a time. It has a
//! target folder of its own (the outer one is locked by the build that waits for us) and an environment of its own:
//! what the outer cargo sets for build scripts would otherwise change the inner build. `crt-static` on the gnu target
//! gives a static binary without a musl toolchain.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// Above this the binary no longer is what a pod can carry into any image.
const BYTES_MAX: usize = 6 << 20;
/// What the inner cargo needs of the outer environment; nothing else passes.
const KEPT: [&str; 12] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "CARGO_NET_OFFLINE",
    "SSL_CERT_FILE",
    "LANG",
];

fn main() {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root =
        manifest_dir.join("../..").canonicalize().expect("the workspace is two folders above this crate");
    for watched in ["crates/pod", "crates/pod-protocol", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let built = build(&root, &PathBuf::from(variable("OUT_DIR")).join("pod-target"));
    let binary = std::fs::read(&built).expect("cargo left the binary where it was told to");
    let bytes = binary.len();
    assert!(bytes <= BYTES_MAX, "{} has {bytes} bytes; at most {BYTES_MAX} are allowed", built.display());
    let packed = PathBuf::from(variable("OUT_DIR")).join("pod.zlib");
    std::fs::write(&packed, pack(&binary)).expect("OUT_DIR can be written");
    println!("cargo::rustc-env=POD_BINARY={}", packed.display());
    println!("cargo::rustc-env=POD_BINARY_BYTES={bytes}");
}

fn pack(binary: &[u8]) -> Vec<u8> {
    let mut packing = ZlibEncoder::new(Vec::new(), Compression::best());
    packing.write_all(binary).expect("memory takes it");
    packing.finish().expect("memory takes it")
}

fn build(root: &Path, target_dir: &Path) -> PathBuf {
    let target = variable("TARGET");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.env_clear().current_dir(root);
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            cargo.env(name, value);
        }
    }
    cargo.env("RUSTC", variable("RUSTC"));
    // A target is named even though it is the host's: flags then apply to the binary and not to its build scripts.
    cargo.env(format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_")), flags());
    cargo.args(["build", "--release", "--locked", "--package", "pod", "--target", &target, "--target-dir"]);
    cargo.arg(target_dir);
    for setting in ["opt-level=\"z\"", "lto=true", "panic=\"abort\"", "codegen-units=1", "debug=false"] {
        cargo.args(["--config", &format!("profile.release.{setting}")]);
    }
    let output = cargo.output().expect("cargo can be run, as it runs this script");
    assert!(
        output.status.success(),
        "building the static pod binary failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    target_dir.join(target).join("release/pod")
}

fn flags() -> &'static str {
    "-Ctarget-feature=+crt-static -Crelocation-model=static"
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
