# Nightjar. `make` builds ./nightjar; `make help` lists the rest.
CC      ?= cc
PREFIX  ?= /usr/local
BUILD   ?= build
OPT     ?= -O3 -g
WARN     = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Werror=implicit-function-declaration
# Contraction off: a result must not depend on where a compiler sees a chance to fuse (kernels fuse explicitly).
CFLAGS  += -std=c17 -D_GNU_SOURCE -I. $(OPT) $(WARN) -ffp-contract=off -fno-math-errno -pthread -MMD -MP $(SAN)
LIBS     = -lhwloc -lnuma -lpcre2-8 -lutf8proc -ljansson -lm -pthread $(MALLOC)
MALLOC  ?= -ljemalloc

ROOMS    = quant numa io engine
LIB_SRC  = $(wildcard $(ROOMS:%=%/*.c) quant/x86/*.c)
APP_SRC  = $(filter-out appliance/main.c,$(wildcard appliance/*.c))
LIB      = $(BUILD)/libnightjar.a
OBJ      = $(patsubst %.c,$(BUILD)/%.o,$(LIB_SRC) $(APP_SRC))
TESTS    = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/test_*.c))

all: nightjar

nightjar: $(BUILD)/appliance/main.o $(LIB)
	$(CC) $(CFLAGS) -o $@ $^ $(LDFLAGS) $(LIBS)

$(LIB): $(OBJ)
	@rm -f $@
	ar rcs $@ $(OBJ)

$(BUILD)/%_avx2.o:   CFLAGS += -mavx2 -mfma -mf16c
$(BUILD)/%_avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(LIB)
	$(CC) $(CFLAGS) -o $@ $^ $(LDFLAGS) -lcmocka -lopenblas $(LIBS)

tests: $(TESTS)

clean:
	rm -rf $(BUILD) nightjar

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all tests clean
.SECONDARY:
