# bench/bench.mk: `make bench`; options by BENCH_ARGS, e.g. make bench BENCH_ARGS='--quick --case e2e'.
BENCH_SRC := $(wildcard bench/*.c)
BENCH_OBJ := $(patsubst bench/%.c,$(B)/bench/%.o,$(BENCH_SRC))

$(B)/bench/%.o: bench/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/busway-bench: $(BENCH_OBJ) $(B)/libbusway.a
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -lnng -o $@

.PHONY: bench
bench: all $(B)/busway-bench
	$(B)/busway-bench --daemon $(B)/buswayd $(BENCH_ARGS)
