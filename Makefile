# tenantauth: build, install, try, test and measure. `make` alone says what there is.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
TARGET  ?= target

MODULE  := $(TARGET)/release/libtenantauth.so
COMMAND := $(TARGET)/release/tenantauth
LIB     := $(DESTDIR)$(PREFIX)/lib/tenantauth
BIN     := $(DESTDIR)$(PREFIX)/bin
SHARE   := $(DESTDIR)$(PREFIX)/share/tenantauth
VENV    := $(TARGET)/venv
PROVIDER := tests/provider

.PHONY: help build install demo test bench lint fuzz fuzz-smoke endurance memcheck setup-demo setup-test setup-bench setup-fuzz provider clean

help:
	@echo "make build                 the module and the command line, into $(TARGET)/release"
	@echo "make install PREFIX=/usr/local [DESTDIR=...]"
	@echo "make demo                  a gateway in front of a real Prometheus, and a dozen requests"
	@echo "make test                  everything that is proven"
	@echo "make bench                 what a request costs, as ratios"
	@echo "make endurance [MINUTES=30]"
	@echo "make memcheck              the module under valgrind"
	@echo "make fuzz [MINUTES=10] [TARGETS='path policy']"

# Two commands on purpose: cargo leaves link-time optimisation out, without a word, where a library is built as
# cdylib and rlib at once, as the first command does. The second one's file is the one that is installed.
build:
	$(CARGO) build --release --locked --bin tenantauth
	$(CARGO) rustc --release --locked --lib --crate-type cdylib

# `install` unlinks and creates, so that a running nginx keeps the file it has mapped; writing into that file would
# crash its workers. The rename makes the new file appear whole.
install:
	@test -f $(MODULE) -a -f $(COMMAND) || { echo "nothing is built yet: run \`make build\` first" >&2; exit 1; }
	install -d $(LIB) $(BIN) $(SHARE) $(SHARE)/examples
	install -m 0755 $(MODULE) $(LIB)/.tenantauth.so.new
	mv -f $(LIB)/.tenantauth.so.new $(LIB)/tenantauth.so
	install -m 0755 $(COMMAND) $(BIN)/.tenantauth.new
	mv -f $(BIN)/.tenantauth.new $(BIN)/tenantauth
	for file in nginx/http.conf nginx/policy.schema.json lua/auth.lua; do \
	  install -m 0644 $$file $(SHARE)/.new && mv -f $(SHARE)/.new $(SHARE)/$$(basename $$file) || exit 1; \
	done
	for file in nginx/examples/*; do \
	  install -m 0644 $$file $(SHARE)/examples/.new && mv -f $(SHARE)/examples/.new $(SHARE)/examples/$$(basename $$file) || exit 1; \
	done

setup-demo:
	@./setup.sh nginx lua prometheus

setup-test:
	@./setup.sh nginx lua prometheus python node
	@$(MAKE) --silent $(VENV)/ready provider

# The SQL engine of the tests, into a directory of the build; each file is known by its hash.
$(VENV)/ready: tests/requirements.txt
	@echo "this goes into $(VENV): $$(grep -o '^[a-z].*==[^ ]*' $<)"
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	@touch $@

# The OpenID provider of the tests, exactly as its lock file says; nothing of it runs while it is installed.
provider: $(PROVIDER)/node_modules/.package-lock.json

$(PROVIDER)/node_modules/.package-lock.json: $(PROVIDER)/package-lock.json
	@echo "this goes into $(PROVIDER)/node_modules: $$(grep -o '"oidc-provider": .*' $(PROVIDER)/package.json) and what it needs"
	npm ci --prefix $(PROVIDER) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

setup-fuzz:
	@./setup.sh cxx

setup-bench:
	@./setup.sh nginx lua wrk

demo: setup-demo build
	TENANTAUTH_SO=$(abspath $(MODULE)) $(CARGO) run --quiet --locked --example demo

lint:
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features vendored --all-targets -- -D warnings
	@! grep -rlE 'mlua::|use mlua' src | grep -vE '^src/lua(\.rs|/)' || { echo "mlua is named outside src/lua*" >&2; exit 1; }
	@! grep -rlE 'aws_lc_rs|jsonwebtoken' src | grep -vE '^src/(token(\.rs|/)|client_ip/signature|fetch/(http|tests/server)\.rs)' || { echo "cryptography is named outside its rooms" >&2; exit 1; }
	@! grep -rlE 'ureq|rustls' src | grep -vE '^src/fetch(\.rs|/)' || { echo "the HTTP client or TLS is named outside src/fetch*" >&2; exit 1; }
	@! grep -rlE 'ipnet' src | grep -v '^src/network.rs$$' || { echo "ipnet is named outside src/network.rs" >&2; exit 1; }

# The integration tests drive the very module that is installed.
test: setup-test lint build
	$(CARGO) test --locked --no-default-features --lib --bins --tests
	$(CARGO) test --locked --no-default-features --features vendored --lib
	TENANTAUTH_SO=$(abspath $(MODULE)) TENANTAUTH_PYTHON=$(abspath $(VENV))/bin/python $(CARGO) test --locked
	./tests/install.sh
	$(MAKE) fuzz-smoke
	TENANTAUTH_SO=$(abspath $(MODULE)) $(CARGO) run --quiet --locked --example demo < /dev/null

# Every parser of bytes from outside for four seconds each, from its committed seeds: 48 seconds and the build.
fuzz-smoke: setup-fuzz
	CORPUS=none CARGO="$(CARGO)" ./fuzz/run.sh 4

# The same for MINUTES each, going on from what earlier runs found; TARGETS names some of them.
fuzz: MINUTES ?= 10
fuzz: setup-fuzz
	CARGO="$(CARGO)" ./fuzz/run.sh $$(( $(MINUTES) * 60 )) $(TARGETS)

# Good and hostile load for MINUTES while everything changes; `make test` holds twenty seconds of it.
endurance: MINUTES ?= 30
endurance: build
	@./setup.sh nginx lua
	TENANTAUTH_SO=$(abspath $(MODULE)) MINUTES=$(MINUTES) $(CARGO) test --locked --test endurance -- --nocapture

# The module in nginx under valgrind.
memcheck: build
	@./setup.sh nginx lua valgrind
	TENANTAUTH_SO=$(abspath $(MODULE)) $(CARGO) test --locked --test memcheck -- --nocapture

bench: setup-bench build
	$(CARGO) bench --profile measure --locked --bench micro
	TENANTAUTH_SO=$(abspath $(MODULE)) $(CARGO) bench --profile dev --locked --bench gateway
	TENANTAUTH_SO=$(abspath $(MODULE)) $(CARGO) bench --profile measure --locked --bench scale

clean:
	$(CARGO) clean
