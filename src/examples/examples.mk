# The examples: one program a file, on the public headers alone. Included by the Makefile.
EXAMPLE_BIN := $(patsubst src/examples/%.c,$(B)/examples/%,$(sort $(wildcard src/examples/*.c)))
$(B)/examples/%: src/examples/%.c $(B)/libbusway.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $< $(B)/libbusway.a $(LIB_LIBS) -o $@

all: $(EXAMPLE_BIN)
