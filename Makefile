# Trutina. `make` alone says what there is.

PYTHON := /usr/bin/python3 -B
# Network namespaces need root; everything else does not.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
DEVICE ?= af_packet
AS_ROOT := $(SUDO) env $(if $(CARGO_TARGET_DIR),CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)) $(PYTHON)
DEMO := $(AS_ROOT) tests/demo.py
PYTEST := -m pytest -ra -p no:cacheprovider

.PHONY: help deps build build-pgo demo demo-down test test-nic test-oracle bench figures compare instructions lint clean

help:
	@echo "make demo       build, and show the appliance balancing real HTTP traffic"
	@echo "                DEVICE=af_packet|af_xdp|tap   the DPDK device to use"
	@echo "                KEEP=1                        leave it up at the end"
	@echo "make demo-down  take away what a demo left"
	@echo "make test       all tests: units, miri, replay, end to end, one NIC, and IPVS"
	@echo "make test-nic   on PCI NICs, emulated in a virtual machine; four minutes"
	@echo "                CASES=virtio-2                only one NIC and number of workers"
	@echo "make test-oracle  frame by frame against Linux IPVS in a virtual machine; two minutes"
	@echo "make lint       formatting, and clippy with every warning an error"
	@echo "make bench      take all measurements, into perf/results"
	@echo "                QUICK=1 NAME=mine RUNS=\"hit memory\"   fewer repeats, the file's name, only some"
	@echo "make figures    bring the plot and the tables of perf/README.md up to date; NAME=mine"
	@echo "make compare    against nftables, haproxy and nginx, in namespaces; installs them; ten minutes"
	@echo "make instructions  count instructions per packet into perf/instructions.tsv; needs valgrind"
	@echo "make build      release binaries in target/release"
	@echo "make build-pgo  the same, trutinad laid out by a trial run; needs huge pages and rustup's llvm-tools"
	@echo "make deps       install the Debian packages that all of this needs"
	@echo "make clean      remove what was built"

deps:
	@tests/deps.sh

build: deps
	cargo build --release

build-pgo: build
	@$(PYTHON) perf/pgo.py

demo: build
	@$(DEMO) --device $(DEVICE) $(if $(filter 1,$(KEEP)),--keep)

demo-down:
	@$(DEMO) --down

test: build
	@$(PYTHON) tests/run.py

# Taps need root; the virtual machines do not.
test-nic: build
	@$(AS_ROOT) $(PYTEST) $(if $(CASES),-k "$(CASES)") tests/nic

test-oracle: build
	@$(PYTHON) $(PYTEST) tests/oracle

bench: build
	@$(AS_ROOT) perf/bench.py $(if $(NAME),--name $(NAME)) $(if $(filter 1,$(QUICK)),--quick) $(RUNS)

figures:
	@$(PYTHON) perf/figures.py $(NAME)

compare: build
	@tests/deps.sh haproxy nftables libnginx-mod-stream
	@$(AS_ROOT) perf/compare.py $(if $(OUT),--out $(OUT))

instructions: build
	@$(PYTHON) perf/instructions.py

lint: deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

clean:
	cargo clean
