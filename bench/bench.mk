# bench/bench.mk: `make bench`; options by BENCH_ARGS, e.g. make bench BENCH_ARGS='--quick --case e2e'.
BENCH_SRC := $(wildcard bench/*.c)
BENCH_OBJ := $(patsubst bench/%.c,$(B)/bench/%.o,$(BENCH_SRC))

$(B)/bench/%.o: bench/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/busway-bench: $(BENCH_OBJ) $(B)/libbusway.a
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -lnng -llmdb -o $@

.PHONY: bench
bench: all $(B)/busway-bench $(B)/makecerts
	$(B)/busway-bench --daemon $(B)/buswayd $(BENCH_ARGS)

# Busway beside Aeron, Chronicle Queue, iceoryx2, ZeroMQ, nng, Kafka, Redis and NATS: installs below build/peers, skips what can't be had.
# Options by PEERS_ARGS, e.g. make bench-peers PEERS_ARGS='--quick --only limit,zeromq'.
.PHONY: bench-peers
bench-peers: all $(B)/busway-bench
	@python3 bench/peers/peers.py $(PEERS_ARGS)

# One differing batch in a mirror of 10 GB (MIRROR_GB): found and mended; needs 20 GB of disk for some minutes.
.PHONY: bench-mirror
bench-mirror: all
	@bench/mirror.sh
