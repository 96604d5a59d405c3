#!/bin/sh
# Cargo's wrapper around the compiler for the workspace's own crates (RUSTC_WORKSPACE_WRAPPER): counts which code runs,
# which is what `fuzz` is led by. Other crates are compiled as ever.
compiler=$1
shift
exec "$compiler" "$@" -C instrument-coverage --cfg slipway_coverage
