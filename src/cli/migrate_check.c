/* cli/migrate_check.c: are both sides of a migrated partition equal? Record beside record: key, value, headers and timestamp.
 *
 * When retention has taken records from the source since the migration began, the target's that were copied from them are passed first. */
#include "cli/interrupt.h"
#include "cli/migrate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_FIRST_MS = 5, POLL_MOST_MS = 2000, EMPTY_MAX = 20 };

/* One side, record by record. */
typedef struct side {
    bw_consumer *consumer;
    bw_batch batch;
    bool has_batch;
    int64_t end;
    const char *topic;
    int32_t partition;
} side;

static bw_err side_open(side *s, bw_bus *bus, bw_isolation isolation, const char *topic, int32_t partition, int64_t from, int64_t end)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.isolation = isolation;
    *s = (side){.end = end, .topic = topic, .partition = partition};
    bw_err e = bw_consumer_open(bus, &o, &s->consumer);
    return e ? e : bw_consumer_assign(s->consumer, topic, partition, from);
}

/* 1: a record, 0: there are no more below the end, -1: *e. */
static int side_next(side *s, bw_record_view *r, bw_err *e)
{
    int wait = POLL_FIRST_MS; /* what is left may be ends of transactions, over which an empty poll moves */
    for (int empty = 0; !cli_interrupted();) {
        int got = s->has_batch ? bw_batch_next(&s->batch, r) : 0;
        if (got == 1) return r->offset < s->end;
        s->has_batch = false;
        if (got < 0) {
            *e = BW_ERR_CORRUPT;
            return -1;
        }
        int64_t at;
        *e = bw_consumer_position(s->consumer, s->topic, s->partition, &at);
        if (*e) return -1;
        if (at >= s->end) return 0;
        *e = bw_consumer_poll(s->consumer, wait, &s->batch);
        wait = 2 * wait < POLL_MOST_MS ? 2 * wait : POLL_MOST_MS;
        s->has_batch = *e == BW_OK;
        if (*e == BW_ERR_WOKEN) continue;
        if (*e && (*e != BW_ERR_TIMED_OUT || ++empty == EMPTY_MAX)) return -1;
    }
    *e = BW_ERR_WOKEN;
    return -1;
}

static bool same_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return a_len == b_len && (a == NULL) == (b == NULL) && (a_len == 0 || memcmp(a, b, a_len) == 0);
}

static bool same(const migrate *m, const bw_record_view *a, const bw_record_view *b)
{
    int64_t stamp = a->timestamp_ms < 0 || (m->to_cluster && a->timestamp_ms == 0) ? m->to_cluster : a->timestamp_ms;
    if (!same_bytes(a->key, a->key_len, b->key, b->key_len) || !same_bytes(a->value, a->value_len, b->value, b->value_len)) return false;
    if (a->header_count != b->header_count || stamp != b->timestamp_ms) return false;
    bw_header_iter x, y;
    bw_header h, g;
    bw_header_iter_init(&x, a);
    bw_header_iter_init(&y, b);
    for (uint32_t i = 0; i < a->header_count; i++)
        if (bw_header_iter_next(&x, &h) != 1 || bw_header_iter_next(&y, &g) != 1 || !same_bytes(h.name, h.name_len, g.name, g.name_len) ||
            !same_bytes(h.value, h.value_len, g.value, g.value_len))
            return false;
    return true;
}

/* How many records the source still has of those that were copied; -1: *e. */
static int64_t count_source(migrate *m, const char *topic, int32_t partition, int64_t from, int64_t end, bw_err *e)
{
    side s;
    bw_record_view r;
    int64_t n = 0;
    int got = -1;
    *e = side_open(&s, m->from, m->isolation, topic, partition, from, end);
    while (!*e && (got = side_next(&s, &r, e)) == 1) n++;
    bw_consumer_close(s.consumer);
    return got < 0 ? -1 : n;
}

static int differs(const migrate *m, const char *topic, int32_t partition, int64_t source, int64_t target, const char *how)
{
    return cli_error(m->c, CLI_CORRUPT, "%s partition %" PRId32 ": offset %" PRId64 " of the source and %" PRId64 " of the target: %s", topic,
                     partition, source, target, how);
}

int migrate_check(migrate *m, const char *topic, int32_t partition, const migrate_position *p, migrate_offset *offsets, size_t count,
                  uint64_t *equal)
{
    bw_offset_range from, to;
    side a = {0}, b = {0};
    bw_record_view x, y;
    int64_t skip = 0, last = 0;
    size_t found = 0;
    int rc = CLI_OK, got = 1, other = 1;
    *equal = 0;
    bw_err e = bw_offsets_range(m->from, topic, partition, &from);
    if (!e) e = bw_offsets_range(m->to, topic, partition, &to);
    int64_t begin = from.log_start > p->first ? from.log_start : p->first;
    if (!e && begin > p->first) {
        int64_t there = count_source(m, topic, partition, begin, p->next, &e);
        skip = there < 0 ? 0 : p->records - there;
    }
    if (!e) e = side_open(&a, m->from, m->isolation, topic, partition, begin, p->next);
    if (!e) e = side_open(&b, m->to, BW_READ_COMMITTED, topic, partition, to.log_start, to.end);
    while (!e && skip > 0 && (other = side_next(&b, &y, &e)) == 1) skip--;
    if (!e) cli_interrupt_wake(a.consumer);
    last = to.log_start;
    while (!e && rc == CLI_OK) {
        got = side_next(&a, &x, &e);
        if (got < 0) break;
        other = side_next(&b, &y, &e);
        if (other < 0) break;
        if (!got && !other) break;
        if (!got || !other)
            rc = differs(m, topic, partition, got ? x.offset : p->next, other ? y.offset : to.end, got ? "the target ends" : "the source ends");
        else if (!same(m, &x, &y)) rc = differs(m, topic, partition, x.offset, y.offset, "they differ");
        if (rc != CLI_OK) break;
        for (; found < count && offsets[found].source <= x.offset; found++) offsets[found].target = y.offset;
        last = y.offset + 1;
        ++*equal;
        m->done++;
        migrate_bar(m);
    }
    cli_interrupt_wake(NULL);
    for (; rc == CLI_OK && !e && found < count; found++) offsets[found].target = last;
    if (e && !cli_interrupted()) rc = cli_error_bw(m->c, e, "%s partition %" PRId32, topic, partition);
    if (cli_interrupted()) rc = CLI_INTERRUPTED;
    bw_consumer_close(a.consumer);
    bw_consumer_close(b.consumer);
    return rc;
}

/* ---- groups ---- */

static int by_partition(const void *a, const void *b)
{
    const migrate_offset *x = a, *y = b;
    int order = strcmp(x->topic, y->topic);
    if (order) return order;
    if (x->partition != y->partition) return x->partition < y->partition ? -1 : 1;
    return (x->source > y->source) - (x->source < y->source);
}

static bool is_own(const char *group) { return strncmp(group, "busway.link.", 12) == 0 || strncmp(group, "busway.migrate.", 15) == 0; }

static bool add_group(json_t *doc, migrate_offset **out, size_t *count)
{
    size_t i;
    json_t *p, *parts = json_object_get(doc, "partitions");
    migrate_offset *more = realloc(*out, (*count + json_array_size(parts) + 1) * sizeof *more);
    if (!more) return false;
    *out = more;
    json_array_foreach(parts, i, p)
    {
        const json_t *offset = json_object_get(p, "committed_offset");
        if (!json_is_integer(offset) || json_integer_value(offset) < 0) continue;
        (*out)[(*count)++] = (migrate_offset){.group = json_string_value(json_object_get(doc, "group")),
                                              .topic = json_string_value(json_object_get(p, "topic")),
                                              .metadata = json_string_value(json_object_get(p, "metadata")),
                                              .partition = (int32_t)json_integer_value(json_object_get(p, "partition")),
                                              .source = json_integer_value(offset), .target = -1};
    }
    return true;
}

json_t *migrate_groups(migrate *m, migrate_offset **out, size_t *count, int *exit_code)
{
    char *text = NULL;
    size_t i;
    json_t *g;
    *out = NULL;
    *count = 0;
    *exit_code = CLI_OK;
    bw_err e = bw_groups_list(m->from, &text);
    if (e == BW_ERR_UNSUPPORTED || e == BW_ERR_UNSUPPORTED_VERSION || e == BW_ERR_READ_ONLY) {
        cli_note(m->c, "groups' offsets are not copied: %s", bw_error_message());
        return NULL;
    }
    if (e) {
        *exit_code = cli_error_bw(m->c, e, "the source's groups");
        return NULL;
    }
    json_t *list = json_loads(text, 0, NULL), *docs = json_array();
    bw_free(text);
    json_array_foreach(list, i, g)
    {
        const char *name = json_string_value(json_object_get(g, "group")), *kind = json_string_value(json_object_get(g, "kind"));
        if (!name || is_own(name) || (kind && strcmp(kind, "queue") == 0)) continue;
        if (bw_group_describe(m->from, name, &text) != BW_OK) continue; /* gone meanwhile */
        json_t *doc = json_loads(text, 0, NULL);
        bw_free(text);
        if (doc && add_group(doc, out, count)) json_array_append(docs, doc);
        json_decref(doc);
    }
    json_decref(list);
    qsort(*out, *count, sizeof **out, by_partition);
    return docs;
}

int migrate_groups_commit(migrate *m, migrate_offset *offsets, size_t count, size_t *groups)
{
    bw_group_offset *list = calloc(count + 1, sizeof *list);
    bool *done = calloc(count + 1, sizeof *done);
    int rc = list && done ? CLI_OK : cli_error(m->c, CLI_FAILURE, "out of memory");
    *groups = 0;
    for (size_t i = 0; i < count && rc == CLI_OK; i++) {
        size_t n = 0;
        if (done[i] || offsets[i].target < 0) continue;
        for (size_t j = i; j < count; j++) {
            if (offsets[j].target < 0 || strcmp(offsets[j].group, offsets[i].group) != 0) continue;
            done[j] = true;
            list[n++] = (bw_group_offset){offsets[j].topic, offsets[j].partition, offsets[j].target, offsets[j].metadata, BW_OK};
        }
        bw_err e = bw_group_offsets_alter(m->to, offsets[i].group, list, n);
        if (e) rc = cli_error_bw(m->c, e, "the offsets of group %s at the target", offsets[i].group);
        else ++*groups;
    }
    free(list);
    free(done);
    return rc;
}
