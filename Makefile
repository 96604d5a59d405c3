# Two commands do everything on a fresh machine: `make demo` (train, register, serve, predict) and `make test`.
# Build outputs, Python environments and built helpers live outside the checkout, so that runs stay quick.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/slipway
export CARGO_TARGET_DIR ?= $(CACHE)/target
export SLIPWAY_CACHE := $(CACHE)
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
BIN := $(CARGO_TARGET_DIR)/release/slipway

.PHONY: help demo test lint fmt unit deps conformance crash fuzz fuzz-keep fuzz-planted bench wheel release clean-cache

help: ## Lists the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: deps release ## Builds, starts a cluster, trains, registers, serves and predicts (examples/iris).
	@scripts/demo.sh "$(BIN)"

test: deps lint unit ## Passes the tests: lint, then every test of the workspace with real kubectl, kfp and mlflow.

lint: deps ## rustfmt, clippy with warnings denied, licences, tidy.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	"$(CACHE)/tools/bin/cargo-deny" check licenses bans sources
	cargo run -q -p xtask --locked -- tidy

unit: deps ## Every test of the workspace.
	cargo test --workspace --locked --no-fail-fast

fmt: ## Formats the code.
	cargo fmt --all

deps: ## Installs what building and testing need (apt, pip), inside the cache folder where it can.
	@scripts/deps.sh

# Calls between crates go straight to their functions instead of through a table, which each process would have to fill;
# what is read-only after the start still is, and nothing is bound late.
release bench: export RUSTFLAGS := $(RUSTFLAGS) -C relro-level=partial -C link-arg=-Wl,-z,now
release: ## The release binary.
	cargo build --release --locked -p slipway

conformance: deps release ## Real clients against the binary: kubectl, kfp, mlflow, joblib, curl.
	@conformance/run.sh "$(BIN)"

crash: deps release ## kill -9 at random points, and power cuts under the store.
	@conformance/crash/run.sh "$(BIN)"

# The test build, because it checks arithmetic; what every case runs through is optimised in it.
FUZZ_FAST := models codecs plan types serde_json serde_yaml_ng unsafe-libyaml flate2 miniz_oxide lz4_flex lzma-rust2 proptest
fuzz: ## Random and mutated input for parsers and the workflow engine, and a planted bug; FUZZ_SEED, FUZZ_CASES, FUZZ_SECONDS choose.
	@seed=$${FUZZ_SEED:-$$RANDOM}; echo "fuzz: seed $$seed, $${FUZZ_CASES:-20000} cases of each"; \
	PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=$${FUZZ_CASES:-20000} \
	cargo test --workspace --locked $(FUZZ_FAST:%=--config profile.dev.package.%.opt-level=2) --test fuzz --test hostile --test replay
	@$(MAKE) --no-print-directory fuzz-planted
	@$(FUZZ) all --seed $${FUZZ_SEED:-4} --seconds $${FUZZ_SECONDS:-60}

# Led by what LLVM counts in the workspace's own crates. FUZZ_SECONDS are processor time, of each reader.
FUZZ = RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/scripts/fuzz-rustc.sh \
	cargo run -q --locked --target-dir "$(CARGO_TARGET_DIR)/fuzz" \
	$(patsubst %,--config profile.dev.package.%.opt-level=2,$(filter-out plan proptest,$(FUZZ_FAST)) onnx infer fuzz) -p fuzz --

# Counted in runs, so that a slow machine finds as much as a fast one. With ten seeds each of the three was found after
# at most 186,000 runs and 3 s; the bound is five times that, some 20 s each.
fuzz-planted: ## Whether the search finds the planted bugs.
	@$(FUZZ) planted --seed 4 --runs $${FUZZ_RUNS:-1000000} --seconds 600

fuzz-keep: ## Searches each reader for FUZZ_SECONDS (60), keeps the inputs that reach something and adds up the time, in crates/fuzz/corpus.
	@$(FUZZ) all --keep --seed $${FUZZ_SEED:-$$RANDOM} --seconds $${FUZZ_SECONDS:-60}

bench: deps release ## Side by side with peers; prints ratios (BENCH=start,jobs,... chooses rows).
	@bench/run.sh "$(BIN)"

wheel: release ## A Python wheel that carries the binary: dist/slipway-*.whl.
	@scripts/wheel.py "$(BIN)" dist

clean-cache: ## Removes build outputs, environments and helpers.
	rm -rf "$(CACHE)"
