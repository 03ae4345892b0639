# Nightjar. `make` builds ./nightjar; `make help` lists the rest.
CC      ?= cc
PREFIX  ?= /usr/local
BUILD   ?= build
OPT     ?= -O3 -g
MALLOC  ?= -ljemalloc
SECONDS ?= 60
FORMATS ?=
RESULTS ?=
WARN     = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Werror=implicit-function-declaration
# Contraction off: a result must not depend on where a compiler sees a chance to fuse (kernels fuse explicitly).
FLAGS   := -std=c17 -D_GNU_SOURCE -I. $(OPT) $(WARN) -ffp-contract=off -fno-math-errno -pthread $(SAN) $(CPPFLAGS) $(CFLAGS)
LIBS     = -lhwloc -lnuma -lpcre2-8 -lutf8proc -ljansson -ledit -lm -pthread $(MALLOC)
AVX2     = -mavx2 -mfma -mf16c
AVX512   = $(AVX2) -mavx512f -mavx512bw -mavx512vl -mavx512dq

LIB_SRC  = $(wildcard quant/*.c quant/x86/*.c numa/*.c io/*.c engine/*.c)
APP_SRC  = $(filter-out appliance/main.c,$(wildcard appliance/*.c))
OBJ      = $(patsubst %.c,$(BUILD)/%.o,$(LIB_SRC) $(APP_SRC))
LIB      = $(BUILD)/libnightjar.a
TESTS    = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/test_*.c tests/fuzz_*.c))
BENCHES  = $(patsubst %.c,$(BUILD)/%,$(wildcard perf/bench_*.c))

# All cores, unless asked otherwise; short lines, unless V=1.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
SAY      = $(if $(V),,@printf '  %-5s %s\n' $(1) $@;)
SUBMAKE  = $(MAKE) --no-print-directory $(if $(V),,-s)

all: nightjar

nightjar: $(BUILD)/nightjar
	@cp $< $@

$(BUILD)/nightjar: $(BUILD)/appliance/main.o $(LIB)
	$(call SAY,link)$(CC) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LIBS)

$(LIB): $(OBJ)
	$(call SAY,ar)rm -f $@ && ar rcs $@ $(OBJ)

# gcc moves the products of the int8 kernel away from their sums, and then spills them: prefill q4_k 158 GOP/s, 236 without.
IN_ORDER = $(if $(findstring clang,$(shell $(CC) --version)),,-fno-tree-reassoc -fno-tree-ter)
$(BUILD)/%_avx2.o:   ISA = $(AVX2) $(IN_ORDER)
$(BUILD)/%_avx512.o: ISA = $(AVX512)
$(BUILD)/%_avx512vnni.o: ISA = $(AVX512) -mavx512vnni
$(BUILD)/%_amx.o: ISA = $(AVX512) -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16

$(BUILD)/%.o: %.c $(BUILD)/flags | $(BUILD)/ready
	@mkdir -p $(@D)
	$(call SAY,cc)$(CC) $(FLAGS) $(ISA) -MMD -MP -c -o $@ $<

# Once per build folder: is there what building needs? A sentence instead of a page of compiler errors.
HEADERS  = hwloc numa pcre2 utf8proc jansson histedit $(if $(findstring jemalloc,$(MALLOC)),jemalloc/jemalloc)
$(BUILD)/ready:
	@$(WRITABLE)
	@mkdir -p $(@D); printf '#include <%s.h>\n' stdio $(HEADERS) | \
	    $(CC) $(CPPFLAGS) $(CFLAGS) -DPCRE2_CODE_UNIT_WIDTH=8 -E -x c - >/dev/null 2>$@.log || { \
	    grep -ho '[a-z0-9/]*\.h: No such file' $@.log; \
	    echo "The compiler ($(CC)) or packages that Nightjar needs are missing: make setup (or make demo) installs them."; \
	    exit 1; } >&2
	@rm -f $@.log; touch $@
WRITABLE = [ -w . ] || { echo "This folder can't be written to. Clone Nightjar into a folder of your own, and build there." >&2; exit 1; }

# Other flags or another compiler: everything is built anew.
$(BUILD)/flags: FORCE | $(BUILD)/ready
	@mkdir -p $(@D); echo '$(CC) $(FLAGS)' | cmp -s - $@ || echo '$(CC) $(FLAGS)' >$@

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(LIB)
	$(call SAY,link)$(CC) $(FLAGS) -o $@ $^ $(LDFLAGS) -lcmocka -lopenblas $(LIBS)

# The AMX kernels over emulated tiles: for tests alone.
EMULATED = $(BUILD)/tests/amx_emulated.o
$(EMULATED): ISA = $(AVX512) -mavx512vnni -mavx512bf16
$(BUILD)/tests/test_kernels $(BUILD)/tests/test_wide $(BUILD)/tests/test_recipe: $(EMULATED)

# A fuzz target without the fuzzer: runs over its corpus, as a test.
$(BUILD)/tests/fuzz_%: $(BUILD)/tests/fuzz_%.o $(BUILD)/tests/replay.o $(LIB)
	$(call SAY,link)$(CC) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LIBS)

$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz_%.o $(LIB)
	$(call SAY,link)$(CC) $(FLAGS) -fsanitize=fuzzer -o $@ $^ $(LDFLAGS) $(LIBS)

$(BUILD)/perf/bench_%: $(BUILD)/perf/bench_%.o $(LIB)
	$(call SAY,link)$(CC) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LIBS)

tests: $(TESTS)

setup:
	@$(WRITABLE)
	@.ci/setup

demo: setup
	+@$(SUBMAKE) nightjar
	@appliance/demo/run

test: setup
	+@$(SUBMAKE) $(BUILD)/nightjar tests
	@tests/run $(BUILD)

# Each in its own folder, without jemalloc, which would hide the heap from them.
SANITIZED = +@TEST_TIMEOUT_S=3600 $(SUBMAKE) test BUILD=build/$@ MALLOC= OPT='-O1 -g -fno-omit-frame-pointer'
asan:  ; $(SANITIZED) SAN='-fsanitize=address'
ubsan: ; $(SANITIZED) SAN='-fsanitize=undefined -fno-sanitize-recover=all'
tsan:  ; $(SANITIZED) SAN='-fsanitize=thread'

# What the fuzzer finds goes to build/fuzz; the kept inputs are in tests/corpus.
FUZZERS  = $(patsubst tests/fuzz_%.c,%,$(wildcard tests/fuzz_*.c))
fuzz:
	$(if $(filter $(FUZZERS),$(FUZZ)),,$(error Say what to fuzz: make fuzz FUZZ=gguf SECONDS=60. There are: $(FUZZERS)))
	@.ci/setup fuzz
	+@$(SUBMAKE) build/fuzz/fuzz_$(FUZZ) BUILD=build/fuzz CC=clang MALLOC= OPT='-O1 -g' \
	    SAN='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
	@mkdir -p build/fuzz/new-$(FUZZ) tests/corpus/$(FUZZ)
	build/fuzz/fuzz_$(FUZZ) -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$(FUZZ)- build/fuzz/new-$(FUZZ) tests/corpus/$(FUZZ)

bench: setup
	+@$(SUBMAKE) $(BUILD)/nightjar $(BENCHES)
	@FORMATS="$(FORMATS)" perf/standard $(BUILD) $(RESULTS)
	@$(BUILD)/perf/bench_attention f16
	@$(BUILD)/perf/bench_tokenizer

tidy:
	@.ci/setup tidy
	@tests/tidy

install: nightjar
	install -D -m 755 nightjar $(DESTDIR)$(PREFIX)/bin/nightjar
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/nightjar/demo $(wildcard appliance/demo/*.jsonl appliance/demo/*.gguf)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/nightjar README.md LICENSE

clean:
	rm -rf build $(BUILD) nightjar

help:
	@echo 'make                build ./nightjar'
	@echo 'make setup          install the packages that building and testing need'
	@echo 'make demo           set up, build, and answer a file of prompts with the small model that comes along'
	@echo 'make test           set up, build, and run all tests'
	@echo 'make install        install into PREFIX=$(PREFIX), below DESTDIR if given'
	@echo 'make asan           the tests under AddressSanitizer; also: make ubsan, make tsan'
	@echo 'make fuzz FUZZ=gguf SECONDS=60    feed hostile input to a parser: $(FUZZERS); installs clang'
	@echo 'make bench          measure kernels and a model beside the limits of this machine, about two minutes;'
	@echo '                    FORMATS="q4_k q8_0" for some formats, FORMATS=all for all, which takes longer;'
	@echo '                    RESULTS=perf/results/NAME.jsonl keeps the figures there (perf/compare shows two runs)'
	@echo 'make tidy           check formatting, include rules and sizes; installs clang-format'
	@echo 'make clean          remove all that was built'
	@echo 'Variables: CC OPT CFLAGS LDFLAGS BUILD PREFIX DESTDIR, V=1 to see the commands'

FORCE:
-include $(OBJ:.o=.d) $(TESTS:=.d) $(BENCHES:=.d) $(BUILD)/appliance/main.d $(BUILD)/tests/replay.d $(EMULATED:.o=.d)
.PHONY: all tests setup demo test asan ubsan tsan fuzz bench tidy install clean help FORCE
.SECONDARY:
