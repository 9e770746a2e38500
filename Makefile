# Berth's everyday commands. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PREFIX ?= /usr/local
# Building needs a C compiler and libseccomp's headers; running containers needs root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH)
export CARGO_TERM_COLOR ?= auto

.PHONY: help setup build image demo test test-cgroup2 nightly sim-week install uninstall

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Install what is missing on Debian or Ubuntu: packages, Python tools in .venv
	@scripts/setup

# One small test goes along: cargo then resolves the features that `make test` resolves, and each crate is compiled once for both.
build: setup ## Build berth and its small programs (release)
	cargo build --release --workspace --bins --test loopback

image: build ## Build the sample image, target/hello.tar
	target/release/xtask image

demo: image ## Start Berth in the background and deploy a sample service
	@$(SUDO) scripts/demo

test: setup ## Everything: format, clippy, tidy, generated code, unit, property, black-box, real containers
	@scripts/test

test-cgroup2: ## The tests of shim and runtime on pure cgroup v2, in an emulated machine; fetches a kernel, needs qemu-system-x86
	@crates/shim/tests/guest-v2.sh

nightly: setup ## The simulation under 100,000 seeds, the properties a hundred times with new cases; both go on after a failure
	cargo run --quiet --release --package xtask -- sim --seeds 100000 --keep-going; sim=$$?; \
	cargo nextest run --release --package berth-scheduler --package berth-acs --package berth-identity --stress-count 100 --no-fail-fast \
	    --status-level fail && exit $$sim

sim-week: setup ## A week of 1,000 services on 500 hollow machines under 20 seeds; prints the processor time
	cargo run --quiet --release --package xtask -- sim --fleet week --seeds 20

fuzz: ## Every decoder under libFuzzer, ten minutes each (SECONDS_EACH=600); needs a nightly compiler
	@scripts/fuzz

install: build ## Install below PREFIX (default /usr/local)
	$(SUDO) install -D -m 755 target/release/berth $(DESTDIR)$(PREFIX)/bin/berth
	$(SUDO) install -D -m 755 target/release/berth-shim $(DESTDIR)$(PREFIX)/libexec/berth/berth-shim
	$(SUDO) install -D -m 755 target/release/berth-monitor $(DESTDIR)$(PREFIX)/libexec/berth/berth-monitor
	$(SUDO) install -D -m 755 target/release/berth-seccomp $(DESTDIR)$(PREFIX)/libexec/berth/berth-seccomp

uninstall: ## Remove what `make install` installed
	$(SUDO) rm -rf $(DESTDIR)$(PREFIX)/bin/berth $(DESTDIR)$(PREFIX)/libexec/berth
