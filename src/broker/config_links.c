/* broker/config_links.c: [link NAME] sections of the configuration file, as text: what the options mean is known to link/spec.c alone. */
#include "broker/config.h"

#include <stdlib.h>
#include <string.h>

enum { OPTIONS_MAX = 4096 };

bw_err bw_daemon_config_link(bw_daemon_config *c, const char *link, const char *name, const char *value)
{
    for (size_t i = 0; i < c->link_option_count; i++)
        if (!strcmp(c->link_options[i].link, link) && !strcmp(c->link_options[i].name, name))
            return bw_fail(BW_ERR_INVALID_CONFIG, "%s is given twice for link '%.64s'", name, link);
    if (c->link_option_count == OPTIONS_MAX) return bw_fail(BW_ERR_INVALID_CONFIG, "more than %d options of links", OPTIONS_MAX);
    bw_link_option *grown = realloc(c->link_options, (c->link_option_count + 1) * sizeof *grown);
    if (grown) c->link_options = grown;
    bw_link_option o = {strdup(link), strdup(name), strdup(value)};
    if (!grown || !o.link || !o.name || !o.value) {
        free(o.link);
        free(o.name);
        free(o.value);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    }
    c->link_options[c->link_option_count++] = o;
    return BW_OK;
}

void bw_daemon_config_links_fini(bw_daemon_config *c)
{
    for (size_t i = 0; i < c->link_option_count; i++) {
        free(c->link_options[i].link);
        free(c->link_options[i].name);
        free(c->link_options[i].value);
    }
    free(c->link_options);
    c->link_options = NULL;
    c->link_option_count = 0;
}
