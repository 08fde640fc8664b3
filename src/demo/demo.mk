# The demonstration: `make demo`. Included by the Makefile.
DEMO_OBJ := $(call obj,$(call layer_src,demo))
$(B)/busway-demo: $(DEMO_OBJ) $(B)/libbusway.a
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $(DEMO_OBJ) $(B)/libbusway.a $(LIB_LIBS) -o $@

all: $(B)/busway-demo

.PHONY: demo
demo: deps
	@echo "Building (a minute or two the first time) …"
	@$(MAKE) --no-print-directory -s -j$$(nproc) $(B)/buswayd $(B)/busway $(B)/busway-demo
	@$(B)/busway-demo
