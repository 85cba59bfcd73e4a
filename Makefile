# libpeft - GNU Make 4. `make help` lists the targets; lib/sources.txt is the one list of the library's sources.
#
#   make CC=clang BUILD=build/clang     another compiler, its own folder
#   make STRICT=1                       warnings are errors
#   make EXTRA="-g -fsanitize=address"  flags for compiling and linking
#   make V=1                            whole command lines
#   make PREFIX=/usr DESTDIR=/tmp/pkg install

BUILD ?= build
PREFIX ?= /usr/local
EXTRA ?=
CFLAGS ?= -O2
LDFLAGS ?=
INSTALL ?= install
PYTHON ?= python3

SHELL := /bin/sh
Q := $(if $(V),,@)
SAY = @$(if $(V),:,echo "  $(1)  $@")
.DEFAULT_GOAL := all
.SUFFIXES:
.DELETE_ON_ERROR:

# As many jobs as CPUs, unless the caller (or the make above this one) has said.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

VERSION := $(shell awk '$$2 ~ /^PEFT_VERSION_(MAJOR|MINOR|PATCH)$$/ {v = v s $$3; s = "."} END {print v}' include/peft.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla \
	-Wcast-qual -Wpointer-arith -Wwrite-strings -Wformat=2 -Wundef -Wdouble-promotion -Wconversion \
	-Wsign-conversion -Wimplicit-fallthrough $(if $(STRICT),-Werror)
# -ffp-contract=off: the same bits from every compiler. Visibility: only what peft.h marks leaves the shared library.
FLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -ffp-contract=off -fvisibility=hidden -fPIC -pthread \
	-Iinclude $(WARN) $(CFLAGS) $(EXTRA)
LIBS := -pthread -lm

SOURCES := $(shell cat lib/sources.txt)
OBJECTS := $(SOURCES:%.c=$(BUILD)/obj/lib/%.o)
OBJECTS_DOUBLE := $(SOURCES:%.c=$(BUILD)/obj/double/%.o)
TOOL_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard examples/peft/*.c))
TEST_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/unit/*.c) tests/runner.c)
TEST_OBJECTS_DOUBLE := $(patsubst tests/%.c,$(BUILD)/obj/tests-double/%.o,$(wildcard tests/double/*.c) tests/runner.c)

STATIC := $(BUILD)/libpeft.a
TOOL := $(if $(wildcard examples/peft/main.c),$(BUILD)/peft)
QUICKSTART := $(if $(wildcard examples/quickstart.c),$(BUILD)/quickstart)

ifeq ($(shell uname -s),Darwin)
SHARED := $(BUILD)/libpeft.$(VERSION).dylib
SHARED_LINKS := libpeft.$(SOVERSION).dylib libpeft.dylib
SHARED_FLAGS = -dynamiclib -install_name $(PREFIX)/lib/libpeft.$(SOVERSION).dylib \
	-Wl,-exported_symbols_list,$(BUILD)/libpeft.exports
SHARED_DEPS := $(BUILD)/libpeft.exports
else
SHARED := $(BUILD)/libpeft.so.$(VERSION)
SHARED_LINKS := libpeft.so.$(SOVERSION) libpeft.so
SHARED_FLAGS = -shared -Wl,-soname,libpeft.so.$(SOVERSION) -Wl,--version-script,lib/libpeft.map
SHARED_DEPS := lib/libpeft.map
endif

.PHONY: all check demo base lint format coverage asan tsan install uninstall bench bindings check-bindings check-peers torture clean help FORCE

all: $(STATIC) $(SHARED) $(TOOL) $(QUICKSTART) ## static and shared library, tool, quickstart (the default)

check: $(BUILD)/tests/unit $(BUILD)/tests/double $(TOOL) ## build and run all tests that need nothing but this folder
	@PEFT_TOOL=$(abspath $(BUILD)/peft) sh tests/total.sh $(BUILD)/tests/unit $(BUILD)/tests/double $(wildcard tests/cli/run.sh)

demo: $(TOOL) ## fine-tune a small model and show before and after
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) sh examples/demo/run.sh

base: $(TOOL) ## train the demo's base model anew
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) sh tools/train_base.sh

bench: $(STATIC) $(TOOL) ## speed and memory, as ratios inside one run
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) CC="$(CC)" bash bench/run.sh

check-peers: $(STATIC) $(SHARED) $(TOOL) ## compare with HF PEFT, torch and llama.cpp (needs PEFT_TESTDATA)
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) CC="$(CC)" bash tests/peers/run.sh

torture: $(STATIC) $(TOOL) ## kill, starve and corrupt it for longer than check may take
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) CC="$(CC)" bash tests/torture/run.sh

bindings: $(TOOL) ## write anew what is made from the header: api.json, Python and Rust declarations, exports, docs (clang)
	@$(PYTHON) bindings/gen --peft $(BUILD)/peft

check-bindings: $(TOOL) ## is all of that up to date, and does its generator work? (clang)
	@$(PYTHON) bindings/gen --check --peft $(BUILD)/peft
	@$(PYTHON) bindings/gen/test_gen.py

lint: ## layers, house rules, exports, header in four languages, warnings as errors
	+@CC="$(CC)" BUILD="$(BUILD)" sh tests/lint/run.sh

format: ## lay out all C files with clang-format
	clang-format -i include/*.h $$(find lib examples tests -name '*.[ch]')

asan: ## check with address and undefined-behaviour sanitizers
	+@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan CFLAGS="-O1 -g" check \
		EXTRA="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

tsan: ## check with the thread sanitizer
	+@$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan CFLAGS="-O1 -g" EXTRA="-fsanitize=thread" check

coverage: ## check with gcc's line counts; table by file
	+@$(MAKE) --no-print-directory BUILD=$(BUILD)/coverage CC=gcc CFLAGS="-O0 -g" EXTRA="--coverage" check
	@BUILD=$(BUILD)/coverage sh tests/coverage.sh

install: all $(BUILD)/libpeft.pc ## header, libraries, libpeft.pc and tool into DESTDIR/PREFIX
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/bin
	$(INSTALL) -m 644 include/peft.h $(DESTDIR)$(PREFIX)/include/peft.h
	$(INSTALL) -m 644 $(STATIC) $(DESTDIR)$(PREFIX)/lib/libpeft.a
	$(INSTALL) -m 755 $(SHARED) $(DESTDIR)$(PREFIX)/lib/$(notdir $(SHARED))
	for link in $(SHARED_LINKS); do ln -sf $(notdir $(SHARED)) $(DESTDIR)$(PREFIX)/lib/$$link; done
	$(INSTALL) -m 644 $(BUILD)/libpeft.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/libpeft.pc
	$(if $(TOOL),$(INSTALL) -m 755 $(TOOL) $(DESTDIR)$(PREFIX)/bin/peft)

uninstall: ## remove what install wrote
	rm -f $(DESTDIR)$(PREFIX)/include/peft.h $(DESTDIR)$(PREFIX)/bin/peft
	rm -f $(DESTDIR)$(PREFIX)/lib/pkgconfig/libpeft.pc
	cd $(DESTDIR)$(PREFIX)/lib && rm -f libpeft.a $(notdir $(SHARED)) $(SHARED_LINKS)

clean: ## remove the build folder
	rm -rf $(BUILD)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

# ---- libraries and programs ----------------------------------------------------------------------------------------

$(STATIC): $(OBJECTS)
	$(call SAY,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $(OBJECTS)

$(BUILD)/double/libpeft.a: $(OBJECTS_DOUBLE)
	$(call SAY,AR)
	@mkdir -p $(@D) && rm -f $@
	$(Q)$(AR) rcs $@ $(OBJECTS_DOUBLE)

$(SHARED): $(OBJECTS) $(SHARED_DEPS)
	$(call SAY,LD)
	$(Q)$(CC) $(EXTRA) $(LDFLAGS) $(SHARED_FLAGS) -o $@ $(OBJECTS) $(LIBS)
	@for link in $(SHARED_LINKS); do ln -sf $(notdir $@) $(BUILD)/$$link; done

$(BUILD)/libpeft.exports: lib/libpeft.map
	@awk '/^ *peft_/ {sub(";", ""); print "_" $$1}' $< > $@

$(BUILD)/peft: $(TOOL_OBJECTS) $(STATIC)
	$(call SAY,LD)
	$(Q)$(CC) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/quickstart: $(BUILD)/obj/examples/quickstart.o $(STATIC)
	$(call SAY,LD)
	$(Q)$(CC) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/tests/unit: $(TEST_OBJECTS) $(STATIC)
	$(call SAY,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/tests/double: $(TEST_OBJECTS_DOUBLE) $(BUILD)/double/libpeft.a
	$(call SAY,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libpeft.pc: include/peft.h FORCE
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' 'libdir=$${prefix}/lib' '' 'Name: libpeft' \
		'Description: Parameter-efficient fine-tuning of transformers on the CPU' 'Version: $(VERSION)' \
		'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lpeft' 'Libs.private: $(LIBS)' > $@

# ---- objects -------------------------------------------------------------------------------------------------------

$(BUILD)/obj/lib/%.o: lib/%.c $(BUILD)/flags
	$(call SAY,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) -DPEFT_BUILD -Ilib -MMD -MP -c -o $@ $<

$(BUILD)/obj/double/%.o: lib/%.c $(BUILD)/flags
	$(call SAY,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) -DPEFT_BUILD -DPEFT_DOUBLE -Ilib -MMD -MP -c -o $@ $<

$(BUILD)/obj/examples/%.o: examples/%.c $(BUILD)/flags
	$(call SAY,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/tests/%.o: tests/%.c $(BUILD)/flags
	$(call SAY,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) -Ilib -Itests -MMD -MP -c -o $@ $<

$(BUILD)/obj/tests-double/%.o: tests/%.c $(BUILD)/flags
	$(call SAY,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) -DPEFT_DOUBLE -Ilib -Itests -MMD -MP -c -o $@ $<

# A change of compiler or flags rebuilds.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(FLAGS)' > $@.new; cmp -s $@ $@.new && rm $@.new || mv $@.new $@

FORCE:

-include $(patsubst %.o,%.d,$(OBJECTS) $(OBJECTS_DOUBLE) $(TOOL_OBJECTS) $(TEST_OBJECTS) $(TEST_OBJECTS_DOUBLE))
-include $(BUILD)/obj/examples/quickstart.d
