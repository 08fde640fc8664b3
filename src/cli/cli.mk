# buswayd.conf(5): its options are printed by the daemon from the table that parses them. Included by the Makefile.
$(B)/man/buswayd.conf.5: src/cli/man/buswayd.conf.5.in $(B)/buswayd
	@mkdir -p $(@D)
	$(B)/buswayd --help-config=man > $@.options
	sed -e 's/@VERSION@/$(VERSION)/' -e '/^@OPTIONS@$$/r $@.options' -e '/^@OPTIONS@$$/d' $< > $@
	@rm -f $@.options

all: $(B)/man/buswayd.conf.5
