# libpeft - GNU Make 4. `make help` lists the targets; lib/sources.txt is the one list of the library's sources.
#
#   make CC=clang BUILD=build/clang     another compiler, its own folder
#   make STRICT=1                       warnings are errors
#   make MINIMAL=1 BUILD=build/minimal  LoRA on Llama models only, a third of the size (docs/build.md)
#   make HARDEN=                        without the compiler's and the loader's defences (docs/build.md)
#   make BLAS=openblas                 with the kernels "blas" over -lopenblas, for who asks for them (docs/build.md)
#   make EXTRA="-g -fsanitize=address"  flags for compiling and linking
#   make V=1                            whole command lines
#   make PREFIX=/usr DESTDIR=/tmp/pkg install
#   make CC=x86_64-w64-mingw32-gcc      another system; its programs get .exe (docs/platforms.md)

BUILD ?= build
PREFIX ?= /usr/local
EXTRA ?=
MINIMAL ?=
BLAS ?=
HARDEN ?= 1
CFLAGS ?= $(if $(MINIMAL),-Os,-O2)
LDFLAGS ?=
INSTALL ?= install
PYTHON ?= python3

SHELL := /bin/sh
Q := $(if $(V),,@)
SAY = @$(if $(V),:,echo "  $(1)  $@")
.DEFAULT_GOAL := all
.SUFFIXES:
.DELETE_ON_ERROR:
comma := ,

# As many jobs as CPUs, unless the caller (or the make above this one) has said.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

VERSION := $(shell awk '$$2 ~ /^PEFT_VERSION_(MAJOR|MINOR|PATCH)$$/ {v = v s $$3; s = "."} END {print v}' include/peft.h)
SOVERSION := 0# changes only if a promise of docs/abi.md is broken, whatever the version

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla \
	-Wcast-qual -Wpointer-arith -Wwrite-strings -Wformat=2 -Wundef -Wdouble-promotion -Wconversion \
	-Wsign-conversion -Wimplicit-fallthrough $(if $(STRICT),-Werror)
# The compiler says for which system it builds; only Windows differs.
MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null)
WINDOWS := $(findstring mingw,$(MACHINE))
EXE := $(if $(WINDOWS),.exe)
# Windows: exports are those of libpeft.def, and nothing needs a DLL beyond the system's. GCC needs the assembler's help to
# have AVX at all there, see kernels/entries.h.
SYSTEM_FLAGS := $(if $(WINDOWS),-DPEFT_STATIC -Wno-float-conversion $(if $(findstring clang,$(CC)),,-Wa$(comma)-muse-unaligned-vector-move \
	-DPEFT_UNALIGNED_MOVES),-fPIC -pthread)
# Those of some flags that the compiler has.
knows = $(shell for flag in $(1); do $(CC) -Werror $$flag -fsyntax-only -x c /dev/null 2>/dev/null && echo $$flag; done)
# A minimal build is made small, its inner loops excepted (see there); the linker leaves out what nothing calls.
SMALL := $(if $(MINIMAL),-DPEFT_MINIMAL -fno-asynchronous-unwind-tables -ffunction-sections -fdata-sections \
	$(call knows,-fno-align-functions -fno-align-jumps -fno-align-labels -fno-math-errno))
# Hardening, on Linux and with what the compiler knows of it; sanitizers see more and do without. _FORTIFY_SOURCE
# needs an optimiser. A minimal build has room for what the linker does.
ifneq ($(and $(filter-out 0,$(HARDEN)),$(findstring linux,$(MACHINE)),$(if $(findstring -fsanitize,$(CFLAGS) $(EXTRA)),,yes)),)
HARDEN_LINK := -Wl,-z,relro,-z,now,-z,noexecstack
HARDEN_PROGRAM := $(if $(filter -static,$(EXTRA) $(LDFLAGS)),,-pie)
ifeq ($(MINIMAL),)
HARDEN_FLAGS := $(call knows,-fstack-protector -fstack-clash-protection -fcf-protection=return) \
	$(if $(filter -O1 -O2 -O3 -Os,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
# Startup files of a C library that was built without say nothing of the shadow stack; they do not mind one.
HARDEN_LINK := $(HARDEN_LINK)$(if $(filter -fcf-protection%,$(HARDEN_FLAGS)),$(comma)-z$(comma)shstk)
# Layers that read what others wrote have canaries by every array and every address, inner loops have none.
CANARIES := $(call knows,-fstack-protector-strong)
NO_CANARIES := $(call knows,-fno-stack-protector)
endif
endif
# Debuggers' tables and archives say nothing of where and when: two builds are the same to the byte. Empty: they do.
REPRODUCIBLE := $(if $(call knows,-ffile-prefix-map=a=b),"-ffile-prefix-map=$$PWD=.")
ARCHIVE := $(if $(filter Darwin,$(shell uname -s)),rcs,rcsD)
# -ffp-contract=off: the same bits from every compiler. Visibility: only what peft.h marks leaves the shared library.
FLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -ffp-contract=off -fvisibility=hidden $(SYSTEM_FLAGS) \
	-Iinclude $(WARN) $(HARDEN_FLAGS) $(CFLAGS) $(EXTRA) $(SMALL) $(REPRODUCIBLE) $(if $(BLAS),-DPEFT_BLAS)
# gcc 12 for AArch64 breaks off at a vectorised fmax, which tests use to find the largest difference.
TEST_FLAGS := -fno-tree-vectorize
LIBS := $(if $(WINDOWS),-static,-pthread) $(if $(BLAS),-l$(BLAS)) -lm

SOURCES := $(shell cat lib/$(if $(MINIMAL),minimal,sources).txt)
OBJECTS := $(SOURCES:%.c=$(BUILD)/obj/lib/%.o)
OBJECTS_DOUBLE := $(SOURCES:%.c=$(BUILD)/obj/double/%.o)
TOOL_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(wildcard examples/peft/*.c)))
# TESTS="io text": a program of those unit tests alone.
TEST_SOURCES := $(filter-out %_test.c,$(wildcard tests/unit/*.c)) $(wildcard $(patsubst %,tests/unit/%*_test.c,$(or $(TESTS),*))) tests/runner.c
TEST_OBJECTS := $(TEST_SOURCES:%.c=$(BUILD)/obj/%.o)
TEST_OBJECTS_DOUBLE := $(patsubst tests/%.c,$(BUILD)/obj/tests-double/%.o,$(wildcard tests/double/*.c) tests/runner.c)

STATIC := $(BUILD)/libpeft.a
TOOL := $(if $(wildcard examples/peft/main.c),$(BUILD)/peft$(EXE))
EXAMPLES := $(patsubst %,$(BUILD)/%$(EXE),dpo quickstart $(if $(WINDOWS),,on_device serve))

UNIT := $(BUILD)/tests/$(subst $() ,-,$(strip unit $(TESTS)))$(EXE)
DOUBLE := $(BUILD)/tests/double$(EXE)
HOSTILE := $(BUILD)/tests/hostile$(EXE)
HOSTILE_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/hostile/*.c))
# Fuzz targets: over their corpus without a fuzzer, and each for libFuzzer; one has the tool's reader of jobs in it.
REPLAY := $(BUILD)/tests/fuzz$(EXE)
FUZZ_TARGETS := $(filter-out fuzz replay,$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
REPLAY_OBJECTS := $(patsubst tests/fuzz/%.c,$(BUILD)/obj/replay/%.o,$(wildcard tests/fuzz/*.c))
FUZZ_OBJECTS := $(BUILD)/obj/tests/fuzz/fuzz.o $(filter %/system_posix.o %/system_windows.o,$(TOOL_OBJECTS))

ifneq ($(WINDOWS),)
SHARED := $(BUILD)/libpeft-$(SOVERSION).dll
SHARED_LINKS :=
SHARED_FLAGS = -shared lib/libpeft.def -Wl,--out-implib,$(BUILD)/libpeft.dll.a
SHARED_DEPS := lib/libpeft.def
else ifeq ($(shell uname -s),Darwin)
SHARED := $(BUILD)/libpeft.$(VERSION).dylib
SHARED_LINKS := libpeft.$(SOVERSION).dylib libpeft.dylib
SHARED_FLAGS = -dynamiclib -install_name "$(PREFIX)"/lib/libpeft.$(SOVERSION).dylib \
	-Wl,-exported_symbols_list,$(BUILD)/libpeft.exports $(if $(MINIMAL),-Wl$(comma)-dead_strip)
SHARED_DEPS := $(BUILD)/libpeft.exports
else
SHARED := $(BUILD)/libpeft.so.$(VERSION)
SHARED_LINKS := libpeft.so.$(SOVERSION) libpeft.so
SHARED_FLAGS = -shared -Wl,-soname,libpeft.so.$(SOVERSION) -Wl,--version-script,lib/libpeft.map \
	$(if $(MINIMAL),-Wl$(comma)--gc-sections$(comma)-O2$(comma)-z$(comma)noseparate-code$(comma)-z$(comma)pack-relative-relocs$(comma)-z$(comma)defs)
SHARED_DEPS := lib/libpeft.map
endif

.PHONY: all cases case-medical case-markets case-news case-conversation check amalgamation demo base lint format coverage asan tsan msan ubsan valgrind analyze check-hardening check-reproducible check-unit check-part cross install uninstall bench bench-families bindings check-bindings check-peers torture fuzz clean help FORCE

all: $(STATIC) $(SHARED) $(TOOL) $(EXAMPLES) ## static and shared library, tool, examples in C (the default)

check: $(UNIT) $(DOUBLE) $(HOSTILE) $(REPLAY) $(TOOL) ## build and run all tests that need nothing but this folder
	@PEFT_TOOL=$(abspath $(BUILD)/peft) sh tests/total.sh $(UNIT) $(DOUBLE) $(HOSTILE) $(REPLAY) $(wildcard tests/cli/*.sh)

demo: $(TOOL) ## fine-tune a small model and show before and after
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) sh examples/demo/run.sh

base: $(TOOL) ## train the demo's base model anew
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) sh tools/train_base.sh

bench: $(STATIC) $(TOOL) ## speed and memory, as ratios inside one run
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) CC="$(CC)" bash bench/run.sh

bench-families: $(SHARED) ## training speed of each family beside Llama's (docs/benchmarks-families.md)
	@BUILD=$(abspath $(BUILD)) python3 bench/families.py --out docs/benchmarks-families.md

cases: $(SHARED) ## the four case studies of docs/cases, 50 minutes (case-medical: one of them; needs PEFT_TESTDATA)
	@BUILD=$(abspath $(BUILD)) bash examples/cases/run.sh $(ARGS)

case-medical case-markets case-news case-conversation: case-%: $(SHARED)
	@BUILD=$(abspath $(BUILD)) bash examples/cases/run.sh $* $(ARGS)

check-peers: $(STATIC) $(SHARED) $(TOOL) $(EXAMPLES) ## compare with HF PEFT, torch and llama.cpp (needs PEFT_TESTDATA)
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) CC="$(CC)" bash tests/peers/run.sh

torture: $(STATIC) $(TOOL) ## kill, starve and corrupt it for longer than check may take
	@PEFT=$(abspath $(BUILD)/peft) BUILD=$(abspath $(BUILD)) CC="$(CC)" bash tests/torture/run.sh

# Fuzz targets watch memory and all arithmetic at once, but for the x86 kernels, which they do not run; `make ubsan TESTS=...` takes
# this build.
WATCHED := -fsanitize=undefined,integer,float-cast-overflow -fno-sanitize-recover=all \
	-fsanitize-ignorelist=tests/hardening/ubsan-ignore.txt
FUZZ_BUILD = BUILD=$(BUILD)/fuzz FUZZ=1 CC=clang CFLAGS="-O1 -gline-tables-only" EXTRA="-fsanitize=fuzzer-no-link,address $(WATCHED)"
UBSAN_BUILD = BUILD=$(BUILD)/ubsan CC=clang CFLAGS="-O1 -g" EXTRA="$(WATCHED)"

fuzz: ## fuzz every reader of files and texts for SECONDS=10 each (clang; TARGETS="json gguf"); crashes in build/fuzz/artifacts
	+@$(MAKE) --no-print-directory $(FUZZ_BUILD) $(patsubst %,$(BUILD)/fuzz/run/%,$(or $(TARGETS),$(FUZZ_TARGETS)))
	@BUILD=$(BUILD) FUZZ_SECONDS=$(or $(SECONDS),10) sh tests/fuzz/run.sh $(or $(TARGETS),$(FUZZ_TARGETS))

bindings: $(TOOL) ## write anew what is made from the header: api.json, Python and Rust declarations, exports, docs (clang)
	@$(PYTHON) bindings/gen --peft $(BUILD)/peft

check-bindings: $(TOOL) ## is all of that up to date, and does its generator work? (clang)
	@$(PYTHON) bindings/gen --check --peft $(BUILD)/peft
	@$(PYTHON) bindings/gen/test_gen.py

amalgamation: ## the library as two files, peft.c and peft.h, in build/amalgamation
	@sh tools/amalgamate.sh $(BUILD)/amalgamation $(if $(MINIMAL),minimal)
	@echo "  $(BUILD)/amalgamation: peft.c, peft.h"

lint: ## layers, house rules, exports, header in four languages, warnings as errors
	+@CC="$(CC)" BUILD="$(BUILD)" sh tests/lint/run.sh

format: ## lay out all C files with clang-format
	clang-format -i include/*.h $$(find lib examples tests -name '*.[ch]')

asan: ## check with address and undefined-behaviour sanitizers
	+@PEFT_TEST_FEW=1 $(MAKE) --no-print-directory BUILD=$(BUILD)/asan CFLAGS="-O1 -g" check \
		EXTRA="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

tsan: ## check with the thread sanitizer
	+@PEFT_TEST_FEW=1 $(MAKE) --no-print-directory BUILD=$(BUILD)/tsan CFLAGS="-O1 -g" EXTRA="-fsanitize=thread" check

msan: ## check with the sanitizer of uninitialised memory (clang; TESTS="io text": a part, see check-part)
	+@PEFT_TEST_FEW=1 $(MAKE) --no-print-directory BUILD=$(BUILD)/msan CC=clang CFLAGS="-O1 $(if $(TESTS),-gline-tables-only,-g)" \
		$(if $(TESTS),check-part,check) EXTRA="-fsanitize=memory $(if $(TESTS),,-fsanitize-memory-track-origins) \
		-fno-sanitize-recover=all -fno-omit-frame-pointer -fsanitize-ignorelist=tests/hardening/msan-ignore.txt"

ubsan: ## check with clang's sanitizers of all arithmetic, but for what is to wrap (tests/hardening/ubsan-ignore.txt; TESTS=...)
	+@PEFT_TEST_FEW=1 $(MAKE) --no-print-directory $(if $(TESTS),$(FUZZ_BUILD) check-part,$(UBSAN_BUILD) check)

valgrind: ## unit tests under valgrind (hours; TESTS="io base": those alone)
	+@PEFT_TEST_FEW=1 $(MAKE) --no-print-directory BUILD=$(BUILD)/valgrind CFLAGS="-O2 -g" HARDEN= check-unit \
		UNDER="valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect"

check-unit: $(UNIT)
	@$(UNDER) $(UNIT)

check-part: $(UNIT) $(HOSTILE) $(REPLAY)
	@sh tests/total.sh $^

analyze: ## gcc's analyser over what reads files, texts and options: no finding
	@CC=gcc BUILD=$(BUILD)/analyze sh tests/hardening/analyze.sh $(FILES)

check-hardening: $(SHARED) $(TOOL) ## do library and tool have what HARDEN says? (readelf)
	@BUILD=$(BUILD) CC="$(CC)" $(if $(MINIMAL),CANARIES=no) sh tests/hardening/run.sh

check-reproducible: $(STATIC) $(SHARED) $(TOOL) ## another build, elsewhere: the same bytes
	+@BUILD=$(BUILD) MAKE="$(MAKE)" sh tests/hardening/reproducible.sh

cross: $(TOOL) ## build and test for other processors and systems (cross compilers, qemu-user, wine; TARGETS=...)
	+@PEFT=$(abspath $(TOOL)) CROSS_BUILD=$(abspath $(BUILD))/cross bash tests/cross/run.sh $(TARGETS)

coverage: ## check with gcc's line counts; table by file
	+@$(MAKE) --no-print-directory BUILD=$(BUILD)/coverage CC=gcc CFLAGS="-O0 -g" EXTRA="--coverage" check
	@BUILD=$(BUILD)/coverage sh tests/coverage.sh

install: all $(BUILD)/libpeft.pc ## header, libraries, libpeft.pc, CMake package and tool into DESTDIR/PREFIX
	$(INSTALL) -d "$(DESTDIR)$(PREFIX)"/include "$(DESTDIR)$(PREFIX)"/lib/pkgconfig "$(DESTDIR)$(PREFIX)"/bin \
		"$(DESTDIR)$(PREFIX)"/lib/cmake/libpeft
	$(INSTALL) -m 644 include/peft.h "$(DESTDIR)$(PREFIX)"/include/peft.h
	$(INSTALL) -m 644 $(STATIC) "$(DESTDIR)$(PREFIX)"/lib/libpeft.a
	$(INSTALL) -m 755 $(SHARED) "$(DESTDIR)$(PREFIX)"/lib/$(notdir $(SHARED))
	$(if $(WINDOWS),$(INSTALL) -m 644 $(BUILD)/libpeft.dll.a "$(DESTDIR)$(PREFIX)"/lib/libpeft.dll.a)
	for link in $(SHARED_LINKS); do ln -sf $(notdir $(SHARED)) "$(DESTDIR)$(PREFIX)"/lib/$$link; done
	$(INSTALL) -m 644 $(BUILD)/libpeft.pc "$(DESTDIR)$(PREFIX)"/lib/pkgconfig/libpeft.pc
	$(INSTALL) -m 644 tools/cmake/libpeftConfig.cmake "$(DESTDIR)$(PREFIX)"/lib/cmake/libpeft/libpeftConfig.cmake
	sed 's/@VERSION@/$(VERSION)/; s/@MAJOR@/$(firstword $(subst ., ,$(VERSION)))/' tools/cmake/libpeftConfigVersion.cmake.in \
		>"$(DESTDIR)$(PREFIX)"/lib/cmake/libpeft/libpeftConfigVersion.cmake
	$(if $(TOOL),$(INSTALL) -m 755 $(TOOL) "$(DESTDIR)$(PREFIX)"/bin/peft$(EXE))
	$(if $(TOOL),$(INSTALL) -d "$(DESTDIR)$(PREFIX)"/share/man/man1 && $(INSTALL) -m 644 docs/peft.1 "$(DESTDIR)$(PREFIX)"/share/man/man1)

uninstall: ## remove what install wrote
	rm -f "$(DESTDIR)$(PREFIX)"/include/peft.h "$(DESTDIR)$(PREFIX)"/bin/peft$(EXE) \
		"$(DESTDIR)$(PREFIX)"/share/man/man1/peft.1
	rm -f "$(DESTDIR)$(PREFIX)"/lib/pkgconfig/libpeft.pc
	rm -rf "$(DESTDIR)$(PREFIX)"/lib/cmake/libpeft
	cd "$(DESTDIR)$(PREFIX)"/lib && rm -f libpeft.a libpeft.dll.a $(notdir $(SHARED)) $(SHARED_LINKS)

clean: ## remove the build folder
	rm -rf $(BUILD)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' Makefile

# ---- libraries and programs ----------------------------------------------------------------------------------------

$(STATIC): $(OBJECTS)
	$(call SAY,AR)
	@rm -f $@
	$(Q)$(AR) $(ARCHIVE) $@ $(OBJECTS)

$(BUILD)/double/libpeft.a: $(OBJECTS_DOUBLE)
	$(call SAY,AR)
	@mkdir -p $(@D) && rm -f $@
	$(Q)$(AR) $(ARCHIVE) $@ $(OBJECTS_DOUBLE)

$(SHARED): $(OBJECTS) $(SHARED_DEPS)
	$(call SAY,LD)
	$(Q)$(CC) $(EXTRA) $(HARDEN_LINK) $(LDFLAGS) $(SHARED_FLAGS) -o $@ $(OBJECTS) $(LIBS)
	@for link in $(SHARED_LINKS); do ln -sf $(notdir $@) $(BUILD)/$$link; done

$(BUILD)/libpeft.exports: lib/libpeft.map
	@awk '/^ *peft_/ {sub(";", ""); print "_" $$1}' $< > $@

$(BUILD)/peft$(EXE): $(TOOL_OBJECTS) $(STATIC)
	$(call SAY,LD)
	$(Q)$(CC) $(EXTRA) $(HARDEN_LINK) $(HARDEN_PROGRAM) $(LDFLAGS) $(if $(WINDOWS),-municode) -o $@ $^ $(LIBS)

$(EXAMPLES): $(BUILD)/%$(EXE): $(BUILD)/obj/examples/%.o $(STATIC)
	$(call SAY,LD)
	$(Q)$(CC) $(EXTRA) $(HARDEN_LINK) $(HARDEN_PROGRAM) $(LDFLAGS) -o $@ $^ $(LIBS)

$(UNIT): $(TEST_OBJECTS) $(STATIC)
	$(call SAY,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EXTRA) $(HARDEN_LINK) $(HARDEN_PROGRAM) $(LDFLAGS) -o $@ $^ $(LIBS)

$(DOUBLE): $(TEST_OBJECTS_DOUBLE) $(BUILD)/double/libpeft.a
	$(call SAY,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EXTRA) $(HARDEN_LINK) $(HARDEN_PROGRAM) $(LDFLAGS) -o $@ $^ $(LIBS)

$(HOSTILE): $(HOSTILE_OBJECTS) $(STATIC)
	$(call SAY,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EXTRA) $(HARDEN_LINK) $(HARDEN_PROGRAM) $(LDFLAGS) -o $@ $^ $(LIBS)

$(REPLAY): $(REPLAY_OBJECTS) $(filter-out %/fuzz.o,$(FUZZ_OBJECTS)) $(STATIC)
	$(call SAY,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EXTRA) $(HARDEN_LINK) $(HARDEN_PROGRAM) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/run/%: $(BUILD)/obj/tests/fuzz/%.o $(FUZZ_OBJECTS) $(STATIC)
	$(call SAY,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EXTRA) -fsanitize=fuzzer -Wl,--wrap=peft__sys_map -o $@ $^ $(LIBS)

.SECONDARY: $(FUZZ_TARGETS:%=$(BUILD)/obj/tests/fuzz/%.o) $(BUILD)/obj/tests/fuzz/fuzz.o

$(BUILD)/libpeft.pc: include/peft.h FORCE
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' 'libdir=$${prefix}/lib' '' 'Name: libpeft' \
		'Description: Parameter-efficient fine-tuning of transformers on the CPU' 'Version: $(VERSION)' \
		'Cflags: -I"$${includedir}"' 'Libs: -L"$${libdir}" -lpeft' 'Libs.private: $(LIBS)' > $@

# ---- objects -------------------------------------------------------------------------------------------------------

# Layers without inner loops are made for size: a fifth less of their code, at no cost that shows.
$(foreach layer,api infer model peft train,$(BUILD)/obj/lib/$(layer)/%.o): private FLAGS += $(if $(filter -O2,$(CFLAGS)),-Os)
# So are readers, writers and messages of the others.
SIZED := autograd/plan.c autograd/tape.c base/file.c base/findings.c base/options.c base/status.c io/gguf%.c io/json_%.c \
	io/safetensors%.c text/chat.c text/companions.c text/export%.c text/families.c text/pair.c text/sentencepiece.c text/tokenizer%.c \
	text/verify.c text/vocab.c
$(patsubst %.c,$(BUILD)/obj/lib/%.o,$(filter $(SIZED),$(SOURCES))): private FLAGS += $(if $(filter -O2,$(CFLAGS)),-Os)
$(foreach layer,api base io peft text,$(BUILD)/obj/lib/$(layer)/%.o) $(BUILD)/obj/examples/%.o: private FLAGS += $(CANARIES)
$(BUILD)/obj/lib/peft/factor.o: private FLAGS += $(if $(filter -O2,$(CFLAGS)),-O2)
# Targets run the generic kernels; to watch the others would take two thirds of their build.
$(BUILD)/obj/lib/kernels/x86/%.o: private FLAGS := $(if $(FUZZ),$(filter-out $(EXTRA),$(FLAGS)),$(FLAGS)) $(NO_CANARIES)
# Products take four fifths of a step: theirs alone are fast in the minimal build too.
$(foreach made,arm/gemm x86/gemm generic/,$(BUILD)/obj/lib/kernels/$(made)%.o): private FLAGS += $(if $(MINIMAL),-O2)
$(BUILD)/obj/lib/kernels/%.o: private FLAGS += $(NO_CANARIES)

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
	$(Q)$(CC) $(FLAGS) $(TEST_FLAGS) -Ilib -Itests -MMD -MP -c -o $@ $<

$(BUILD)/obj/tests-double/%.o: tests/%.c $(BUILD)/flags
	$(call SAY,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) $(TEST_FLAGS) -DPEFT_DOUBLE -Ilib -Itests -MMD -MP -c -o $@ $<

$(BUILD)/obj/replay/%.o: tests/fuzz/%.c $(BUILD)/flags
	$(call SAY,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) $(TEST_FLAGS) -DLLVMFuzzerTestOneInput=target_$* -Ilib -Itests -MMD -MP -c -o $@ $<

# A change of compiler or flags rebuilds. Two makes may be at it at once.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@new=$@.$$$$; printf '%s\n' '$(CC) $(FLAGS)' > $$new; cmp -s $@ $$new && rm $$new || mv $$new $@

FORCE:

-include $(patsubst %.o,%.d,$(OBJECTS) $(OBJECTS_DOUBLE) $(TOOL_OBJECTS) $(TEST_OBJECTS) $(TEST_OBJECTS_DOUBLE) $(HOSTILE_OBJECTS) $(REPLAY_OBJECTS)) $(wildcard $(BUILD)/obj/tests/fuzz/*.d)
-include $(EXAMPLES:$(BUILD)/%$(EXE)=$(BUILD)/obj/examples/%.d)
