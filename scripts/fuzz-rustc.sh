#!/bin/sh
# Cargo's wrapper around the compiler for the workspace's own crates (RUSTC_WORKSPACE_WRAPPER): counts which edges of the
# code are taken and shows what is compared, which is what `fuzz` is led by. LLVM does both, so that the pinned compiler
# is enough. Other crates are compiled as ever, and so are build scripts and the search itself, which counts nothing.
compiler=$1
shift
case " $* " in
*" crates/fuzz/src/lib.rs "*)
	exec "$compiler" "$@" --cfg slipway_coverage
	;;
*" --crate-name build_script_"*)
	exec "$compiler" "$@"
	;;
esac
# Short comparisons of bytes stay calls (the last line), so that they are seen.
exec "$compiler" "$@" --cfg slipway_coverage -C passes=sancov-module \
	-C llvm-args=-sanitizer-coverage-level=3 -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
	-C llvm-args=-sanitizer-coverage-trace-compares -C llvm-args=-max-loads-per-memcmp=0
