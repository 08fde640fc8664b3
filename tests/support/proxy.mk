# tests/support/proxy.mk: netproxy, a bad network in user space, and makecerts, certificates for tests; see the heads of proxy/*.c.
$(B)/netproxy: $(patsubst %,$(B)/tests/support/proxy/%.o,proxy line)
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ -lm -o $@
$(B)/makecerts: $(B)/tests/support/proxy/makecerts.o
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ -lmbedx509 -lmbedcrypto -o $@
integration-bin: $(B)/netproxy $(B)/makecerts
