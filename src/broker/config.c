/* broker/config.c: the tables of the daemon's and of the topics' options, and what depends on several of them.
 *
 * The tables are the only place where an option is named: defaults are parsed from the texts in them, messages, `--help-config` and
 * the man page are printed from them (config_reference.c), files are parsed by them (config_file.c). */
#include "broker/config_tables.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static_assert(offsetof(bw_daemon_config, listen_count) == offsetof(bw_daemon_config, listen) + sizeof(char **), "a list is two fields");
static_assert(offsetof(bw_daemon_config, listeners_count) == offsetof(bw_daemon_config, listeners) + sizeof(char **), "and so is this");

#define WIDTH(type, field) sizeof(((type *)0)->field)
#define D(field, kind, name, min, max, preset, choices, help)                                                                        \
    {name, BW_OPTION_##kind, offsetof(bw_daemon_config, field), WIDTH(bw_daemon_config, field), min, max, preset, choices, help},
#define T(field, kind, name, min, max, preset, choices, help)                                                                        \
    {name, BW_OPTION_##kind, offsetof(bw_topic_config, field), WIDTH(bw_topic_config, field), min, max, preset, choices, help},

const bw_option bw_daemon_options[] = {BW_DAEMON_OPTIONS(D)};
const size_t bw_daemon_option_count = sizeof bw_daemon_options / sizeof *bw_daemon_options;
const bw_option bw_topic_options[] = {BW_TOPIC_OPTIONS(T)};
const size_t bw_topic_option_count = sizeof bw_topic_options / sizeof *bw_topic_options;

static void set_presets(const bw_option *table, size_t count, void *config)
{
    for (size_t i = 0; i < count; i++) {
        bw_err e = bw_option_parse(&table[i], config, table[i].preset, strlen(table[i].preset));
        assert(!e); /* a default of ours that its own table refuses */
        (void)e;
    }
}

void bw_daemon_config_init(bw_daemon_config *c)
{
    memset(c, 0, sizeof *c);
    set_presets(bw_daemon_options, bw_daemon_option_count, c);
    c->topic_defaults = calloc(1, sizeof *c->topic_defaults);
    if (c->topic_defaults) bw_topic_config_init(c->topic_defaults);
}

void bw_daemon_config_fini(bw_daemon_config *c)
{
    for (size_t i = 0; i < bw_daemon_option_count; i++) bw_option_clear(&bw_daemon_options[i], c);
    bw_daemon_config_links_fini(c);
    free(c->topic_defaults);
    c->topic_defaults = NULL;
}

bw_err bw_daemon_config_copy(bw_daemon_config *to, const bw_daemon_config *from)
{
    bw_daemon_config_init(to);
    if (!to->topic_defaults) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    for (size_t i = 0; i < bw_daemon_option_count; i++) {
        char text[4096];
        bw_option_print(&bw_daemon_options[i], from, text, sizeof text);
        bw_err e = bw_option_parse(&bw_daemon_options[i], to, text, strlen(text));
        if (e) {
            bw_daemon_config_fini(to);
            return e;
        }
    }
    for (size_t i = 0; i < from->link_option_count; i++) {
        const bw_link_option *o = &from->link_options[i];
        bw_err e = bw_daemon_config_link(to, o->link, o->name, o->value);
        if (!e) continue;
        bw_daemon_config_fini(to);
        return e;
    }
    if (from->topic_defaults) *to->topic_defaults = *from->topic_defaults;
    to->event = from->event;
    to->event_opaque = from->event_opaque;
    to->is_private = from->is_private;
    to->in_process = from->in_process;
    to->handover = from->handover;
    to->handover_opaque = from->handover_opaque;
    return BW_OK;
}

bw_err bw_daemon_config_set(bw_daemon_config *c, const char *name, const char *value)
{
    const bw_option *o = bw_option_find(bw_daemon_options, bw_daemon_option_count, name, strlen(name));
    if (o) return bw_option_parse(o, c, value, strlen(value));
    if (!c->topic_defaults) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    if (bw_option_find(bw_topic_options, bw_topic_option_count, name, strlen(name)))
        return bw_topic_config_set(c->topic_defaults, c->topic_defaults, name, strlen(name), value, strlen(value));
    return bw_fail(BW_ERR_INVALID_CONFIG, "unknown option '%.100s'; buswayd --help-config lists them all", name);
}

/* Relative paths are relative to where the daemon was started; nothing later may depend on that. */
static bw_err make_absolute(char **path)
{
    if (!*path || **path == '/') return BW_OK;
    char *cwd = getcwd(NULL, 0), *whole = NULL;
    if (!cwd) return bw_fail_errno(errno, "cannot name the working directory, to which '%s' is relative", *path);
    int n = asprintf(&whole, "%s/%s", cwd, *path);
    free(cwd);
    if (n < 0) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    free(*path);
    *path = whole;
    return BW_OK;
}

bw_err bw_daemon_config_check(bw_daemon_config *c)
{
    if (!c->topic_defaults) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    if (!c->data_dir)
        return bw_fail(BW_ERR_INVALID_CONFIG, "no data directory: give --data-dir, or data-dir in the configuration file");
    bw_err e = make_absolute(&c->data_dir);
    if (!e) e = make_absolute(&c->runtime_dir);
    if (e) return e;
    if (!c->runtime_dir) {
        if (asprintf(&c->runtime_dir, "%s/run", c->data_dir) < 0) {
            c->runtime_dir = NULL;
            return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
        }
    }
    if (!c->listen_count) {
        char url[4096];
        if (snprintf(url, sizeof url, "ipc://%s/bus.sock", c->runtime_dir) >= (int)sizeof url)
            return bw_fail(BW_ERR_INVALID_CONFIG, "runtime-dir = '%.100s…': the path is too long", c->runtime_dir);
        char *item = strdup(url);
        c->listen = malloc(sizeof *c->listen);
        if (!item || !c->listen) {
            free(item);
            return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
        }
        c->listen[0] = item;
        c->listen_count = 1;
    }
    if (c->topic_defaults->max_message_bytes + 4096 > (int64_t)c->socket_request_max_bytes)
        return bw_fail(BW_ERR_INVALID_CONFIG, "max.message.bytes = %lld does not fit into socket.request.max.bytes = %u less 4096 for its "
                       "header: raise the latter", (long long)c->topic_defaults->max_message_bytes, c->socket_request_max_bytes);
    return bw_topic_config_check(c->topic_defaults);
}

/* ---- topics ---- */

void bw_topic_config_init(bw_topic_config *c)
{
    memset(c, 0, sizeof *c);
    set_presets(bw_topic_options, bw_topic_option_count, c);
}

static bw_err unknown_topic_option(const char *name, size_t len)
{
    char list[512];
    size_t at = 0;
    list[0] = 0;
    for (size_t i = 0; i < bw_topic_option_count && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", bw_topic_options[i].name);
    return bw_fail(BW_ERR_INVALID_CONFIG, "unknown topic configuration '%.*s'; there are: %s", (int)(len > 100 ? 100 : len), name, list);
}

/* Both policies, in either order, with or without a blank: a list in Kafka. */
static bool is_both(const char *value, size_t len)
{
    static const char *const ways[] = {"delete,compact", "delete, compact", "compact, delete"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strlen(ways[i]) == len && !memcmp(ways[i], value, len)) return true;
    return false;
}

bw_err bw_topic_config_set(bw_topic_config *c, const bw_topic_config *defaults, const char *name, size_t name_len, const char *value,
                           size_t value_len)
{
    const bw_option *o = bw_option_find(bw_topic_options, bw_topic_option_count, name, name_len);
    if (!o) return unknown_topic_option(name, name_len);
    if (!value) {
        memmove((char *)c + o->offset, (const char *)defaults + o->offset, o->width);
        return BW_OK;
    }
    if (!strcmp(o->name, "cleanup.policy") && is_both(value, value_len)) return bw_option_parse(o, c, "compact,delete", 14);
    return bw_option_parse(o, c, value, value_len);
}

bw_err bw_topic_config_check(const bw_topic_config *c)
{
    if (c->index_interval_bytes > c->segment_bytes)
        return bw_fail(BW_ERR_INVALID_CONFIG, "index.interval.bytes = %lld is larger than segment.bytes = %lld", (long long)c->index_interval_bytes,
                       (long long)c->segment_bytes);
    if (c->min_compaction_lag_ms > c->max_compaction_lag_ms)
        return bw_fail(BW_ERR_INVALID_CONFIG, "min.compaction.lag.ms = %lld is larger than max.compaction.lag.ms = %lld",
                       (long long)c->min_compaction_lag_ms, (long long)c->max_compaction_lag_ms);
    if (bw_topic_config_read_limit(c) == BW_LIMIT_REPLICATED && c->replicas == 0)
        return bw_fail(BW_ERR_INVALID_CONFIG, "read.limit = replicated needs replicas of at least 1: with 0 nothing would ever be seen");
    return BW_OK;
}

bw_reader_limit bw_topic_config_read_limit(const bw_topic_config *c)
{
    return c->read_limit[0] == 'r' ? BW_LIMIT_REPLICATED : c->read_limit[0] == 'd' ? BW_LIMIT_DURABLE : BW_LIMIT_VISIBLE;
}

void bw_topic_config_partition(const bw_topic_config *c, bw_partition_config *out)
{
    bool compacts = bw_topic_config_compacts(c), deletes = strstr(c->cleanup_policy, "delete") != NULL;
    *out = (bw_partition_config){
        .segment_bytes = (uint32_t)c->segment_bytes,
        .segment_ms = compacts && c->max_compaction_lag_ms < c->segment_ms ? c->max_compaction_lag_ms : c->segment_ms,
        .retention_bytes = deletes ? c->retention_bytes : -1,
        .retention_ms = deletes ? c->retention_ms : -1,
        .max_message_bytes = (uint32_t)c->max_message_bytes,
        .index_interval_bytes = (uint32_t)c->index_interval_bytes,
        .log_append_time = !strcmp(c->timestamp_type, "LogAppendTime"),
        .file_delete_delay_ms = c->file_delete_delay_ms,
        .compact = compacts,
        .min_dirty_ratio = c->min_cleanable_dirty_ratio,
        .min_compaction_lag_ms = c->min_compaction_lag_ms,
        .max_compaction_lag_ms = c->max_compaction_lag_ms,
        .delete_retention_ms = c->delete_retention_ms,
        .reuse_segments = true,
        .replicas = (uint32_t)c->replicas,
        .read_limit = (uint8_t)bw_topic_config_read_limit(c),
    };
}

void bw_topic_config_each(const bw_topic_config *c, const bw_topic_config *defaults,
                          void (*fn)(void *opaque, const char *name, const char *value, bool is_default), void *opaque)
{
    for (size_t i = 0; i < bw_topic_option_count; i++) {
        const bw_option *o = &bw_topic_options[i];
        char value[64], preset[64];
        bw_option_print(o, c, value, sizeof value);
        bw_option_print(o, defaults, preset, sizeof preset);
        fn(opaque, o->name, value, !strcmp(value, preset));
    }
}
