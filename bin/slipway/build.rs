//! Link options of the binary: equal functions are folded into one, and what a request runs through lies side by side.
//!
//! Monomorphised code of the Kubernetes types is the same for many kinds, which makes some megabytes. And a server of one
//! model uses a thirtieth of the code: scattered over the whole of it, that part costs twice the memory, because the
//! system maps 64 kB around each page that is touched. `request_path.txt` names these functions; scripts/request_path.py
//! writes it. A name that is gone is passed over, and a function without a line only lies elsewhere.
//!
//! The options are known to the linker that Rust brings for this target, not to GNU's, so they are given for this target
//! alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=request_path.txt");
    let is_known = std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if is_known && is_release {
        // From the workspace's root, where cargo runs the compiler: what this prints is kept, and another checkout that
        // shares the target folder would be sent to the first one's file.
        let order = "--symbol-ordering-file=bin/slipway/request_path.txt";
        for option in ["--icf=all", "--no-warn-symbol-ordering", order] {
            println!("cargo::rustc-link-arg-bins=-Wl,{option}");
        }
    }
}
