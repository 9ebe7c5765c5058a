# Two commands: `make demo` and `make test`. Everything else is for people who change the code.
MESON = .venv/bin/meson
BUILD = build

.PHONY: all demo test check-c check-includes clean

all: $(BUILD)/build.ninja
	$(MESON) compile -C $(BUILD)

$(BUILD)/build.ninja: | install-build
	$(MESON) setup $(BUILD) --buildtype=release

.PHONY: install-build install-test
install-build:
	@tools/install.sh build
install-test:
	@tools/install.sh test

test: install-test
	@tools/test.sh

clean:
	rm -rf build build-*
