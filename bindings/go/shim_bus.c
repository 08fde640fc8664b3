/* shim_bus.c: opening a bus, its log through a pipe, administration. See shim.h.
 *
 * The log callback runs in whichever thread hit the event, and must not enter Go, which may be in any state: it writes one message, whole
 * or not at all, to a pipe that a goroutine reads. A full pipe loses messages, never time. */
#include "shim.h"
#include "shim_private.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

bwgo_result bwgo_result_of(bw_err e)
{
    bwgo_result r = {.code = (int32_t)e};
    if (e) r.message = strdup(bw_error_message());
    return r;
}

static void on_log(void *opaque, bw_log_level level, const char *message)
{
    char frame[PIPE_BUF];
    uint32_t head[2];
    size_t len = strlen(message);
    if (len > sizeof frame - sizeof head) len = sizeof frame - sizeof head;
    head[0] = (uint32_t)len;
    head[1] = (uint32_t)level;
    memcpy(frame, head, sizeof head);
    memcpy(frame + sizeof head, message, len);
    if (write((int)(intptr_t)opaque, frame, sizeof head + len) < 0) {} /* full: it is lost */
}

bwgo_result bwgo_bus_open(const char *url, int transport, int32_t connect_ms, int32_t request_ms, const char *client_id, const char *daemon,
                          int log_fd, void **out)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.transport = (bw_transport)transport;
    if (connect_ms) o.connect_timeout_ms = connect_ms;
    if (request_ms) o.request_timeout_ms = request_ms;
    o.client_id = client_id;
    o.daemon_path = daemon;
    if (log_fd >= 0) {
        o.log = on_log;
        o.log_opaque = (void *)(intptr_t)log_fd;
    }
    bw_bus *bus = NULL;
    bwgo_result r = bwgo_result_of(bw_bus_open(url, &o, &bus));
    *out = bus;
    return r;
}

bwgo_result bwgo_json(int what, bw_bus *bus, const char *a, const char *b, const char *c, int32_t partition, int32_t max, char **json)
{
    switch (what) {
    case BWGO_TOPICS: return bwgo_result_of(bw_topics_describe(bus, a, json));
    case BWGO_GROUPS: return bwgo_result_of(bw_groups_list(bus, json));
    case BWGO_GROUP: return bwgo_result_of(bw_group_describe(bus, a, json));
    case BWGO_QUOTAS: return bwgo_result_of(bw_quotas_list(bus, a, b, c, json));
    case BWGO_STATUS: return bwgo_result_of(bw_status(bus, json));
    case BWGO_TXNS: return bwgo_result_of(bw_transactions_list(bus, json));
    case BWGO_TXN: return bwgo_result_of(bw_transaction_describe(bus, a, json));
    case BWGO_PRODUCERS: return bwgo_result_of(bw_producers_describe(bus, a, partition, json));
    case BWGO_QUEUES: return bwgo_result_of(bw_queue_describe(bus, a, json));
    case BWGO_LINKS: return bwgo_result_of(bw_links_list(bus, json));
    case BWGO_LINK: return bwgo_result_of(bw_link_describe(bus, a, json));
    case BWGO_TAILS: return bwgo_result_of(bw_tails(bus, a, json));
    case BWGO_USERS: return bwgo_result_of(bw_users_list(bus, json));
    default: return bwgo_result_of(bw_queue_peek(bus, a, b, partition, max, json));
    }
}

bwgo_result bwgo_topic(int what, bw_bus *bus, const char *topic, int32_t partitions, bw_config_entry *config, size_t count)
{
    int32_t n = 0;
    bw_err e;
    switch (what) {
    case BWGO_CREATE: e = bw_topic_create(bus, topic, partitions, config, count); break;
    case BWGO_ALTER: e = bw_topic_alter(bus, topic, partitions, config, count); break;
    case BWGO_DELETE: e = bw_topic_delete(bus, topic); break;
    default: e = bw_topic_partitions(bus, topic, &n); break;
    }
    bwgo_result r = bwgo_result_of(e);
    r.n = n;
    return r;
}

bwgo_result bwgo_link(int what, bw_bus *bus, const char *link, bw_config_entry *options, size_t count)
{
    switch (what) {
    case BWGO_LINK_ADD: return bwgo_result_of(bw_link_add(bus, link, options, count));
    case BWGO_LINK_ALTER: return bwgo_result_of(bw_link_alter(bus, link, options, count));
    default: return bwgo_result_of(bw_link_remove(bus, link));
    }
}

bwgo_result bwgo_promote(bw_bus *bus, const char *topic, bool force) { return bwgo_result_of(bw_promote(bus, topic, force)); }

bwgo_result bwgo_user_set(bw_bus *bus, const char *name, int kind, const char *role, const char *secret)
{
    return bwgo_result_of(bw_user_set(bus, name, (bw_user_kind)kind, role, secret));
}

bwgo_result bwgo_token_add(bw_bus *bus, const char *name, const char *role, char *token)
{
    return bwgo_result_of(bw_token_add(bus, name, role, token));
}

bwgo_result bwgo_user_remove(bw_bus *bus, const char *name) { return bwgo_result_of(bw_user_remove(bus, name)); }

bwgo_result bwgo_quota_set(bw_bus *bus, const char *user, const char *client, const char *pid, bw_config_entry *rates, size_t count)
{
    return bwgo_result_of(bw_quota_set(bus, user, client, pid, rates, count));
}

bwgo_result bwgo_delete_records(bw_bus *bus, const char *topic, int32_t partition, int64_t before)
{
    int64_t start = 0;
    bwgo_result r = bwgo_result_of(bw_delete_records(bus, topic, partition, before, &start));
    r.a = start;
    return r;
}

bwgo_result bwgo_offsets_range(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out)
{
    return bwgo_result_of(bw_offsets_range(bus, topic, partition, out));
}

bwgo_result bwgo_offset_end(bw_bus *bus, const char *topic, int32_t partition, int limit)
{
    int64_t end = -1;
    bwgo_result r = bwgo_result_of(bw_offset_end(bus, topic, partition, (bw_read_limit)limit, &end));
    r.a = end;
    return r;
}

bwgo_result bwgo_offset_for_time(bw_bus *bus, const char *topic, int32_t partition, int64_t ms)
{
    int64_t offset = 0, found = -1;
    bwgo_result r = bwgo_result_of(bw_offset_for_time(bus, topic, partition, ms, &offset, &found));
    r.a = offset;
    r.b = found;
    return r;
}

bwgo_result bwgo_group_delete(bw_bus *bus, const char *group) { return bwgo_result_of(bw_group_delete(bus, group)); }

bwgo_result bwgo_group_offsets(bw_bus *bus, int alter, const char *group, bw_group_offset *offsets, size_t count)
{
    return bwgo_result_of(alter ? bw_group_offsets_alter(bus, group, offsets, count) : bw_group_offsets_delete(bus, group, offsets, count));
}

bwgo_result bwgo_txn_abort_admin(bw_bus *bus, const char *id) { return bwgo_result_of(bw_transaction_abort_admin(bus, id)); }

bwgo_result bwgo_queue_settle(bw_bus *bus, const char *group, const char *topic, int32_t partition, int64_t first, int64_t last, int outcome)
{
    int64_t settled = 0;
    bwgo_result r = bwgo_result_of(bw_queue_settle(bus, group, topic, partition, first, last, (bw_queue_outcome)outcome, &settled));
    r.a = settled;
    return r;
}

bwgo_result bwgo_queue_delete(bw_bus *bus, const char *group) { return bwgo_result_of(bw_queue_delete(bus, group)); }

static bool on_redrive(void *opaque, int64_t moved, int64_t skipped) { return bwgoRedrive((uintptr_t)opaque, moved, skipped) != 0; }

bwgo_result bwgo_queue_redrive(bw_bus *bus, const char *topic, int64_t max, uintptr_t handle)
{
    int64_t moved = 0, skipped = 0;
    bwgo_result r = bwgo_result_of(bw_queue_redrive(bus, topic, max, handle ? on_redrive : NULL, (void *)handle, &moved, &skipped));
    r.a = moved;
    r.b = skipped;
    return r;
}

/* ---- offline ---- */

static void on_finding(void *opaque, const bw_finding *f)
{
    bwgoFinding((uintptr_t)opaque, (char *)f->path, f->position, f->offset, f->is_error, (char *)f->message);
}

static void on_progress(void *opaque, uint64_t done, uint64_t total) { bwgoProgress((uintptr_t)opaque, done, total); }

bwgo_result bwgo_verify(const char *path, uintptr_t handle, bw_verify_totals *totals)
{
    return bwgo_result_of(bw_verify(path, on_finding, on_progress, (void *)handle, totals));
}

static bool on_dump(void *opaque, const bw_dump_batch *batch, const bw_record_view *record)
{
    return bwgoDump((uintptr_t)opaque, (bw_dump_batch *)batch, (bw_record_view *)record) != 0;
}

bwgo_result bwgo_dump(const char *path, int records, uintptr_t handle)
{
    return bwgo_result_of(bw_dump(path, records != 0, on_dump, (void *)handle));
}
