/* client/links.c: the calls of busway/link.h. */
#include "client/admin.h"
#include "client/bus.h"

#include <busway/link.h>
#include <stdlib.h>

static bw_err begin(bw_bus *bus, const char *link, bw_api_key type, bw_request *q)
{
    if (!bus || !link) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a bus and a link's name are needed");
    BW_CHECK_FORK(bus);
    bw_request_init(q, type);
    q->link.name = bw_str_of(link);
    return BW_OK;
}

static bw_err ask(bw_bus *bus, const char *link, bw_api_key type, const bw_config_entry *options, size_t count)
{
    bw_request q;
    bw_err e = begin(bus, link, type, &q);
    if (e) return e;
    bw_config_pair *pairs = calloc(count ? count : 1, sizeof *pairs);
    if (!pairs) return bw_fail(BW_ERR_NO_MEMORY, "no memory for options");
    for (size_t i = 0; !e && i < count; i++) {
        if (!options[i].name) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "option %zu has no name", i);
        else pairs[i] = (bw_config_pair){bw_str_of(options[i].name), bw_str_of(options[i].value), options[i].value != NULL};
    }
    q.configs = pairs;
    q.config_count = count;
    if (!e) e = bw_admin_ask(bus, &q);
    free(pairs);
    return e;
}

bw_err bw_link_add(bw_bus *bus, const char *link, const bw_config_entry *options, size_t option_count)
{
    return ask(bus, link, BW_API_LINK_ADD, options, option_count);
}

bw_err bw_link_alter(bw_bus *bus, const char *link, const bw_config_entry *options, size_t option_count)
{
    return ask(bus, link, BW_API_LINK_ALTER, options, option_count);
}

bw_err bw_link_remove(bw_bus *bus, const char *link) { return ask(bus, link, BW_API_LINK_REMOVE, NULL, 0); }

bw_err bw_links_list(bw_bus *bus, char **json)
{
    bw_request q;
    bw_err e = begin(bus, "", BW_API_LINK_LIST, &q);
    return e ? e : bw_admin_document(bus, &q, json);
}

bw_err bw_link_describe(bw_bus *bus, const char *link, char **json)
{
    bw_request q;
    bw_err e = begin(bus, link, BW_API_LINK_DESCRIBE, &q);
    return e ? e : bw_admin_document(bus, &q, json);
}
