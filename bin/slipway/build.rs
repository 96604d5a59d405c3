//! Link options of the binary: equal functions are folded into one.
//!
//! Monomorphised code of the Kubernetes types is the same for many kinds, which makes some megabytes. The option is
//! known to the linker that Rust brings for this target, not to GNU's, so it is given for this target alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_known = std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if is_known && is_release {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
