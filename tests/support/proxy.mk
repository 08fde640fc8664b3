# tests/support/proxy.mk: netproxy, a bad network in user space; see proxy/proxy.c.
$(B)/netproxy: $(patsubst %,$(B)/tests/support/proxy/%.o,proxy line)
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ -lm -o $@
integration-bin: $(B)/netproxy
