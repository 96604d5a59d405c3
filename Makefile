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

release: ## The release binary.
	cargo build --release --locked -p slipway

conformance: deps release ## Real clients against the binary: kubectl, kfp, mlflow, joblib, curl.
	@conformance/run.sh "$(BIN)"

crash: deps release ## kill -9 at random points, and power cuts under the store.
	@conformance/crash/run.sh "$(BIN)"

# The test build, because it checks arithmetic; what every case runs through is optimised in it.
FUZZ_FAST := models codecs plan types serde_json serde_yaml_ng unsafe-libyaml flate2 miniz_oxide lz4_flex lzma-rust2 proptest
fuzz: ## Random and mutated input for parsers and the workflow engine; FUZZ_SEED and FUZZ_CASES choose.
	@seed=$${FUZZ_SEED:-$$RANDOM}; echo "fuzz: seed $$seed, $${FUZZ_CASES:-20000} cases of each"; \
	PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=$${FUZZ_CASES:-20000} \
	cargo test --workspace --locked $(FUZZ_FAST:%=--config profile.dev.package.%.opt-level=2) --test fuzz --test hostile
	@$(FUZZ) all --seconds $${FUZZ_SECONDS:-60}

# Led by coverage, which the compiler counts in the workspace's own crates. FUZZ_SECONDS of each reader.
FUZZ = LLVM_PROFILE_FILE=/dev/null RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/scripts/fuzz-rustc.sh \
	cargo run -q --locked --target-dir "$(CARGO_TARGET_DIR)/fuzz" \
	$(patsubst %,--config profile.dev.package.%.opt-level=2,$(filter-out plan proptest,$(FUZZ_FAST)) onnx infer fuzz) -p fuzz --

# Chance decides how soon it is found, so it is a command of its own and no gate.
fuzz-planted: ## Whether the search finds a planted bug within ten minutes.
	@$(FUZZ) planted --seconds 600

fuzz-keep: ## Searches each reader for FUZZ_SECONDS (60) and keeps the inputs that reach something, in crates/fuzz/corpus.
	@$(FUZZ) all --keep --seconds $${FUZZ_SECONDS:-60}

bench: deps release ## Side by side with peers; prints ratios (BENCH=start,jobs,... chooses rows).
	@bench/run.sh "$(BIN)"

wheel: release ## A Python wheel that carries the binary: dist/slipway-*.whl.
	@scripts/wheel.py "$(BIN)" dist

clean-cache: ## Removes build outputs, environments and helpers.
	rm -rf "$(CACHE)"
