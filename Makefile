# `make demo`, `make test` and `make bench`. Everything else is for people who change the code: `make check` before each commit.
MESON = .venv/bin/meson
BUILD = build

.PHONY: all demo test check bench docs clean

all: $(BUILD)/build.ninja
	$(MESON) compile -C $(BUILD)

$(BUILD)/build.ninja: | install-build
	$(MESON) setup $(BUILD) --buildtype=release -Dtests=false

.PHONY: install-build install-test install-bench
install-build:
	@tools/install.sh build
install-test:
	@tools/install.sh test
install-bench:
	@tools/install.sh bench

# Publishes a data set to local files, reads it back, publishes the next version while readers are at work.
demo: install-build
	@[ -e build-demo/build.ninja ] || $(MESON) setup build-demo --buildtype=release -Dpython=true -Dtests=false >/dev/null
	@$(MESON) compile -C build-demo >/dev/null
	@PYTHONPATH=build-demo/python .venv/bin/python examples/demo.py

test: install-test
	@tools/test.sh

# What tells most in three minutes.
check: install-test
	@tools/test.sh quick

# Measures everything, side by side with others, in 11 to 12 minutes on two cores at rest: bench/results, docs/performance.md and what stands on it.
# LARGE=1: look-ups over ten million rows, too.
bench: install-bench
	@[ -e build-bench/build.ninja ] || $(MESON) setup build-bench --buildtype=release -Dpython=true -Dtests=false -Dexamples=false -Dcli=false >/dev/null
	@$(MESON) compile -C build-bench >/dev/null
	@.venv/bin/python bench/run.py build-bench $(if $(LARGE),--large)

# The documentation as a site, in build-docs/. A warning of Sphinx's, such as a link that leads nowhere, fails it.
docs: install-build
	@[ -e build-demo/build.ninja ] || $(MESON) setup build-demo --buildtype=release -Dpython=true -Dtests=false >/dev/null
	@$(MESON) compile -C build-demo >/dev/null
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tools/requirements-docs.txt
	@PYTHONPATH=build-demo/python .venv/bin/python -m sphinx -q -W --keep-going -b html docs build-docs
	@echo "build-docs/index.html"

clean:
	rm -rf build build-*
