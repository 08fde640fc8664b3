/* link/kafka_position.c: where a partition of a link to a cluster goes on: by what the link's group has committed, else by the marks of the
 * records that are there. See kafka.h. */
#include "link/kafka.h"

#include "broker/links.h"

#include <stdlib.h>
#include <string.h>

enum { LOOK_BACK = 256 };

/* The mark of this link's source in a record's headers. */
static bool find_mark(const bw_kend *k, const bw_record_view *r, const bw_uuid *topic, int32_t partition, int64_t *next)
{
    bw_header_iter it;
    bw_header h;
    bw_mark mark;
    bool found = false;
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1) {
        bool ours = (h.name_len == sizeof BW_ORIGIN_HEADER - 1 && !memcmp(h.name, BW_ORIGIN_HEADER, h.name_len)) ||
                    (h.name_len == sizeof BW_KEND_LINK_HEADER - 1 && !memcmp(h.name, BW_KEND_LINK_HEADER, h.name_len));
        if (!ours || !h.value || !bw_mark_parse(h.value, h.value_len, &mark)) continue;
        if (!bw_uuid_equal(&mark.log.origin, &k->other.id) || !bw_uuid_equal(&mark.log.topic, topic) || mark.log.partition != partition) continue;
        *next = mark.offset + 1;
        found = true;
    }
    return found;
}

/* The last of the partition's committed records with this link's mark: from the end backwards, twice as far each time. */
static bw_err look_back(bw_kend *k, const char *target, int32_t partition, const bw_uuid *topic, int64_t *next, bw_deadline deadline)
{
    bw_offset_range range;
    bw_consumer *c = NULL;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.isolation = BW_READ_COMMITTED;
    *next = 0;
    bw_err e = bw_offsets_range(k->bus, target, partition, &range);
    if (e || range.end == range.log_start) return e;
    e = bw_consumer_open(k->bus, &o, &c);
    bool found = false;
    for (int64_t back = LOOK_BACK; !e && !found; back *= 2) {
        int64_t from = range.end - back > range.log_start ? range.end - back : range.log_start, at = from;
        e = bw_consumer_assign(c, target, partition, from);
        while (!e && at < range.end) {
            bw_batch b;
            bw_record_view r;
            e = bw_consumer_poll(c, 100, &b);
            if (e == BW_ERR_TIMED_OUT && bw_deadline_left_ns(deadline) > 0) {
                e = bw_consumer_position(c, target, partition, &at); /* what is left are ends of transactions */
                continue;
            }
            while (!e && bw_batch_next(&b, &r) == 1) found |= find_mark(k, &r, topic, partition, next);
            if (!e) at = b.last_offset + 1;
        }
        if (from == range.log_start) break;
    }
    bw_consumer_close(c);
    return e;
}

bw_err bw_kend_prepare(bw_endpoint *ep, const char *target, const bw_source_topic *from, const bw_origin *origin, const bw_config_pair *configs,
                       size_t config_count, bw_sink_part **parts, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    size_t n = (size_t)from->partitions;
    (void)origin;
    *parts = calloc(n, sizeof **parts);
    bw_topic_partition *asked = calloc(n, sizeof *asked);
    bw_err e = *parts && asked ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for positions");
    if (!e) e = bw_kend_make_target(k, target, from->partitions, configs, config_count);
    for (size_t i = 0; i < n && !e; i++) asked[i] = (bw_topic_partition){.topic = target, .partition = (int32_t)i, .leader_epoch = -1};
    if (!e) e = bw_consumer_committed(k->consumer, asked, n, bw_kend_left_ms(deadline));
    for (size_t i = 0; i < n && !e; i++) {
        int64_t next = asked[i].offset;
        if (asked[i].error) e = bw_fail(asked[i].error, "the link's own position in topic '%s' partition %zu", target, i);
        else if (next < 0) e = look_back(k, target, (int32_t)i, &from->id, &next, deadline);
        bw_kend_part *p = e ? NULL : bw_kend_part_of(k, target, (int32_t)i, true);
        if (!e && !p) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for positions");
        if (e) break;
        p->next = p->committed = next;
        p->id = from->id;
        p->failed = BW_OK;
        (*parts)[i] = (bw_sink_part){next, -1, -1, 0};
    }
    free(asked);
    if (e) {
        free(*parts);
        *parts = NULL;
    }
    return e;
}
