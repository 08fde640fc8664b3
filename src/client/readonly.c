/* client/readonly.c: what a read-only bus answers by itself: which topics there are, offsets, descriptions. See readonly.h. */
#include "client/readonly.h"

#include "format/names.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bw_err bw_readonly_refuse(const bw_bus *bus, const char *what)
{
    if (!bus->readonly) return BW_OK;
    return bw_fail(BW_ERR_READ_ONLY, "%s: %s was opened with mode=ro, which only reads; open it without that", what, bus->url.path);
}

/* ---- topics ---- */

typedef struct topic_list {
    const char *only;
    bw_readonly_topic *items;
    size_t count, cap;
    bool no_memory;
} topic_list;

static bool on_folder(void *opaque, const char *name)
{
    topic_list *l = opaque;
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
    if (!bw_partition_dir_parse(name, topic, &partition) || (l->only && strcmp(topic, l->only) != 0)) return true;
    if (l->count && strcmp(l->items[l->count - 1].name, topic) == 0) { /* the usual case: neighbours */
        if (partition >= l->items[l->count - 1].partitions) l->items[l->count - 1].partitions = partition + 1;
        return true;
    }
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 32;
        bw_readonly_topic *more = realloc(l->items, cap * sizeof *more);
        if (!more) return l->no_memory = true, false;
        l->items = more;
        l->cap = cap;
    }
    bw_readonly_topic *t = &l->items[l->count++];
    memset(t, 0, sizeof *t);
    memcpy(t->name, topic, sizeof topic);
    t->partitions = partition + 1;
    return true;
}

static int by_name(const void *x, const void *y) { return strcmp(((const bw_readonly_topic *)x)->name, ((const bw_readonly_topic *)y)->name); }

static void read_id(const bw_readonly *r, bw_readonly_topic *t)
{
    char path[BW_PARTITION_DIR_MAX + 32], text[256];
    for (int32_t i = 0; i < t->partitions && i < 16; i++) {
        char folder[BW_PARTITION_DIR_MAX];
        bw_partition_dir_name(folder, t->name, i);
        snprintf(path, sizeof path, "%s/partition.metadata", folder);
        size_t len;
        if (bw_smallfile_read(r->data_fd, path, text, sizeof text, &len) == BW_OK && bw_partition_metadata_decode(text, len, &t->id) == BW_OK)
            return;
    }
}

bw_err bw_readonly_topics(const bw_readonly *r, const char *name, bw_readonly_topic **out, size_t *count)
{
    topic_list l = {.only = name};
    bw_err e = BW_OK;
    if (bw_os_list_dir(r->data_fd, on_folder, &l)) e = bw_fail_errno(errno, "cannot list %s", r->bus->url.path);
    else if (l.no_memory) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the topics of %s", r->bus->url.path);
    else if (name && l.count == 0) e = bw_fail(BW_ERR_UNKNOWN_TOPIC, "there is no topic '%s' in %s", name, r->bus->url.path);
    if (e) {
        free(l.items);
        return e;
    }
    if (l.count) qsort(l.items, l.count, sizeof *l.items, by_name);
    size_t n = 0;
    for (size_t i = 0; i < l.count; i++) { /* folders of one topic need not lie together */
        if (n && strcmp(l.items[n - 1].name, l.items[i].name) == 0) {
            if (l.items[i].partitions > l.items[n - 1].partitions) l.items[n - 1].partitions = l.items[i].partitions;
        } else {
            l.items[n++] = l.items[i];
        }
    }
    for (size_t i = 0; i < n; i++) read_id(r, &l.items[i]);
    *out = l.items;
    *count = n;
    return BW_OK;
}

/* ---- requests ---- */

/* The answer's memory becomes the reply's: as if it had come by a connection. */
static bw_err keep_answer(const bw_answer *a, bw_reply *reply)
{
    bw_buf frame = {0};
    bw_frame f;
    size_t used, need;
    bw_err e = bw_answer_encode(a, &frame, false);
    if (!e) e = bw_frame_parse(frame.data, frame.len, frame.len, &f, &used, &need);
    if (!e) e = bw_answer_decode(&f, &reply->answer);
    reply->frame = frame.data;
    reply->frame_len = frame.len;
    return e;
}

static bw_err name_of(bw_str s, char out[BW_TOPIC_NAME_MAX + 1])
{
    bw_err e = bw_topic_name_check(s.data, s.len);
    if (e) return e;
    memcpy(out, s.data, s.len);
    out[s.len] = 0;
    return BW_OK;
}

static bw_err metadata(bw_readonly *r, const bw_request *q, bw_reply *reply)
{
    char name[BW_TOPIC_NAME_MAX + 1];
    bw_readonly_topic *topics = NULL;
    size_t count = 0;
    bw_err e = q->topic.len ? name_of(q->topic, name) : BW_OK;
    if (!e) e = bw_readonly_topics(r, q->topic.len ? name : NULL, &topics, &count);
    if (e) return e;
    bw_answer a;
    bw_answer_init(&a, q);
    a.topics = calloc(count + 1, sizeof *a.topics);
    a.topic_count = count;
    if (!a.topics) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu topics", count);
    for (size_t i = 0; !e && i < count; i++)
        a.topics[i] = (bw_topic_meta){.name = bw_str_of(topics[i].name), .id = topics[i].id, .partitions = topics[i].partitions,
                                      .compression = bw_str_of("producer"), .message_max = INT32_MAX};
    if (!e) e = keep_answer(&a, reply);
    free(a.topics);
    free(topics);
    return e;
}

/* One partition looked at, with a slot of its own. */
typedef struct glance {
    bw_tail_slot *slot;
    bw_follow *follow;
} glance;

static void glance_end(glance *g)
{
    bw_follow_close(g->follow);
    free(g->slot);
}

static bw_err glance_at(const bw_readonly *r, const char *topic, int32_t partition, glance *g)
{
    g->follow = NULL;
    g->slot = aligned_alloc(64, sizeof *g->slot);
    if (!g->slot) return bw_fail(BW_ERR_NO_MEMORY, "no memory to look at a partition");
    memset(g->slot, 0, sizeof *g->slot);
    return bw_follow_open(r->data_fd, topic, partition, g->slot, &g->follow);
}

static bw_err list_offsets(bw_readonly *r, const bw_request *q, bw_reply *reply)
{
    char name[BW_TOPIC_NAME_MAX + 1];
    bw_readonly_topic *topics = NULL;
    size_t count;
    glance g;
    bw_answer a;
    bw_err e = name_of(q->topic, name);
    if (!e) e = bw_readonly_topics(r, name, &topics, &count);
    free(topics);
    if (e) return e;
    bw_answer_init(&a, q);
    e = glance_at(r, name, q->partition, &g);
    if (!e) {
        a.log_start = atomic_load(&g.slot->log_start);
        a.end = a.durable = atomic_load(&g.slot->next_offset);
        a.offset = q->timestamp == BW_OFFSET_END ? a.end : a.log_start;
        if (q->timestamp >= 0) e = bw_follow_offset_for_time(g.follow, q->timestamp, &a.offset, &a.timestamp);
    }
    glance_end(&g);
    return e ? e : keep_answer(&a, reply);
}

static bw_err mailbox(bw_readonly *r, const bw_request *q, bw_reply *reply)
{
    bw_answer a;
    bw_answer_init(&a, q);
    pthread_mutex_lock(&r->mutex);
    for (uint32_t i = BW_MAILBOX_SYNCER + 1; i < BW_MAILBOXES && !a.mailbox; i++) {
        if (r->mailboxes[i / 64] & (UINT64_C(1) << (i % 64))) continue;
        r->mailboxes[i / 64] |= UINT64_C(1) << (i % 64);
        a.mailbox = i;
    }
    pthread_mutex_unlock(&r->mutex);
    if (!a.mailbox) return bw_fail(BW_ERR_LIMIT_REACHED, "too many consumers on one read-only bus");
    return keep_answer(&a, reply);
}

void bw_readonly_release_mailbox(bw_bus *bus, uint32_t number)
{
    pthread_mutex_lock(&bus->readonly->mutex);
    bus->readonly->mailboxes[number / 64] &= ~(UINT64_C(1) << (number % 64));
    pthread_mutex_unlock(&bus->readonly->mutex);
}

bw_err bw_readonly_request(bw_bus *bus, const bw_request *q, bw_reply *reply)
{
    memset(&reply->answer, 0, sizeof reply->answer);
    reply->frame = NULL;
    switch (q->type) {
    case BW_API_METADATA: return metadata(bus->readonly, q, reply);
    case BW_API_LIST_OFFSETS: return list_offsets(bus->readonly, q, reply);
    case BW_API_MAILBOX: return mailbox(bus->readonly, q, reply);
    default: return bw_readonly_refuse(bus, bw_api_name(q->type));
    }
}

/* ---- descriptions ---- */

static bw_err add(bw_buf *out, const char *format, ...) BW_PRINTF(2, 3);
static bw_err add(bw_buf *out, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return bw_buf_append(out, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
}

static bw_err describe_partition(const bw_readonly *r, const char *topic, int32_t partition, bool first, bw_buf *out)
{
    glance g;
    bw_follow_info info;
    bw_err e = glance_at(r, topic, partition, &g);
    if (!e) {
        bw_follow_info_get(g.follow, &info);
        int64_t end = atomic_load(&g.slot->next_offset);
        e = add(out, "%s{\"partition\":%d,\"log_start_offset\":%" PRId64 ",\"end_offset\":%" PRId64 ",\"durable_offset\":%" PRId64
                ",\"size_bytes\":%" PRIu64 ",\"segments\":%u,\"leader_epoch\":%d,\"state\":\"read-only\"}", first ? "" : ",",
                partition, (int64_t)atomic_load(&g.slot->log_start), end, end, info.size_bytes, info.segments, info.leader_epoch);
    }
    glance_end(&g);
    return e == BW_ERR_UNKNOWN_PARTITION ? BW_OK : e; /* a copy need not have all */
}

bw_err bw_readonly_describe(bw_bus *bus, const char *topic, char **json)
{
    bw_readonly_topic *topics = NULL;
    size_t count = 0;
    bw_buf out = {0};
    *json = NULL;
    bw_err e = topic ? bw_topic_name_check(topic, strlen(topic)) : BW_OK;
    if (!e) e = bw_readonly_topics(bus->readonly, topic, &topics, &count);
    if (!e) e = add(&out, "[");
    for (size_t i = 0; !e && i < count; i++) {
        char id[23];
        bw_uuid_base64(&topics[i].id, id);
        e = add(&out, "%s{\"name\":\"%s\",\"id\":\"%s\",\"partitions\":[", i ? "," : "", topics[i].name, id);
        for (int32_t p = 0; !e && p < topics[i].partitions; p++)
            e = describe_partition(bus->readonly, topics[i].name, p, out.data[out.len - 1] == '[', &out);
        if (!e) e = add(&out, "],\"config\":{}}"); /* that lies in the coordinator's store */
    }
    if (!e) e = bw_buf_append(&out, "]", 2);
    free(topics);
    if (e) bw_buf_free(&out);
    else *json = (char *)out.data;
    return e;
}

static bw_err add_string(bw_buf *out, const char *text)
{
    bw_err e = add(out, "\"");
    for (const unsigned char *p = (const unsigned char *)text; !e && *p; p++)
        e = *p == '"' || *p == '\\' ? add(out, "\\%c", *p) : *p < ' ' ? add(out, "\\u%04x", *p) : bw_buf_append(out, p, 1);
    return e ? e : add(out, "\"");
}

bw_err bw_readonly_status(bw_bus *bus, char **json)
{
    bw_readonly_topic *topics = NULL;
    size_t count = 0;
    bw_buf out = {0};
    int64_t partitions = 0;
    const char *fs = "unknown";
    *json = NULL;
    bw_err e = bw_readonly_topics(bus->readonly, NULL, &topics, &count);
    for (size_t i = 0; i < count; i++) partitions += topics[i].partitions;
    free(topics);
    bw_os_fs_is_local(bus->readonly->data_fd, &fs);
    if (!e) e = add(&out, "{\"version\":\"%s\",\"mode\":\"read-only\",\"data_dir\":", BW_VERSION_STRING);
    if (!e) e = add_string(&out, bus->url.path);
    if (!e) e = add(&out, ",\"file_system\":\"%s\",\"topics\":%zu,\"partitions\":%" PRId64 ",\"coordinator\":\"none: the files alone are read\"}",
                    fs, count, partitions);
    if (!e) e = bw_buf_append(&out, "", 1);
    if (e) bw_buf_free(&out);
    else *json = (char *)out.data;
    return e;
}
