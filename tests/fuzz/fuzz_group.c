/* What the store has of groups: any bytes as a group's record, a member's, a subscription. What is taken is restored, encodes again to
 * what decodes to the same, and its group keeps its invariants. First byte: which. */
#include "fuzz/fuzz.h"

#include "broker/groups_core.h"

static const bw_group_limits limits = {.max_members = 4, .max_bytes = 1 << 18, .min_session_ms = 1, .max_session_ms = 1 << 30};

static void on_save(void *context, bw_group *g, bw_member *m) { (void)context, (void)g, (void)m; }
static void on_assigned(void *context, bw_group *g, bw_member *m)
{
    (void)context;
    FUZZ_CHECK(m->epoch == g->epoch);
}
static void on_removed(void *context, bw_group *g, bw_member *m, bw_err why, const char *reason)
{
    (void)context, (void)g, (void)why, (void)reason;
    FUZZ_CHECK(m->part_count == 0);
}
static void on_joined(void *context, bw_group *g, void *token, const bw_joined *answer) { (void)context, (void)g, (void)token, (void)answer; }
static void on_synced(void *context, bw_group *g, void *token, bw_err e, const bw_member *m)
{
    (void)context, (void)g, (void)token, (void)e, (void)m;
}
static const bw_group_ops ops = {on_save, on_assigned, on_removed, on_joined, on_synced};

static bw_group *group_make(void)
{
    bw_group *g;
    FUZZ_CHECK(bw_group_create(bw_str_of("g"), &limits, &ops, NULL, 0, &g) == BW_OK);
    return g;
}

static void poll(bw_group *g)
{
    int64_t now = 0;
    for (int i = 0; i < 100 && bw_group_next_ms(g) != BW_GROUP_NEVER; i++) {
        if (bw_group_next_ms(g) > now) now = bw_group_next_ms(g);
        bw_group_poll(g, now);
    }
    FUZZ_CHECK(g->member_count == 0 && g->topic_count == 0 && g->bytes == 0); /* nobody comes back: all leases end */
}

static void take_group(const uint8_t *data, size_t size)
{
    bw_group *g = group_make(), *again = group_make();
    bw_err e = bw_group_decode(g, data, size);
    if (e) FUZZ_CHECK(e == BW_ERR_CORRUPT || e == BW_ERR_NEWER_FORMAT);
    else {
        bw_buf record = {0}, second = {0};
        FUZZ_CHECK(bw_group_encode(g, &record) == BW_OK && bw_group_decode(again, record.data, record.len) == BW_OK);
        FUZZ_CHECK(bw_group_encode(again, &second) == BW_OK && second.len == record.len && memcmp(second.data, record.data, record.len) == 0);
        bw_buf_free(&record);
        bw_buf_free(&second);
        poll(g);
    }
    bw_group_free(g);
    bw_group_free(again);
}

static void take_member(const uint8_t *data, size_t size, bool classic)
{
    bw_saved_member s, t;
    bw_err e = bw_saved_member_decode(data, size, &s);
    if (e) {
        FUZZ_CHECK(e == BW_ERR_CORRUPT || e == BW_ERR_NEWER_FORMAT);
        return;
    }
    for (size_t i = 0; i < s.part_count; i++) s.parts[i].partition &= 0x3ff; /* the log has so many at most */
    bw_group *g = group_make();
    if (classic) g->kind = BW_GROUP_CLASSIC;
    bw_topic_view topic = {.name = "t", .partitions = 3};
    fuzz_allow(1 << 20);
    fuzz_allow(size / 22 * 1024 * sizeof(bw_group_part)); /* topics with as many partitions as were let through */
    if (bw_group_restore(g, &s, &topic, 1, 0) == BW_OK) {
        bw_buf record = {0};
        FUZZ_CHECK(bw_member_encode(g, g->members[0], &record) == BW_OK);
        FUZZ_CHECK(bw_saved_member_decode(record.data, record.len, &t) == BW_OK);
        FUZZ_CHECK(t.part_count == g->members[0]->part_count && t.epoch == s.epoch);
        bw_saved_member_fini(&t);
        bw_buf_free(&record);
    }
    poll(g);
    bw_group_free(g);
    bw_saved_member_fini(&s);
}

static void take_subscription(const uint8_t *data, size_t size)
{
    bw_wanted w;
    fuzz_allow(16 << 20); /* the C library's compiled expressions, of the cost that is let through */
    bw_err e = bw_wanted_decode((bw_str){(const char *)data, size}, &w);
    if (e) {
        FUZZ_CHECK(e == BW_ERR_CORRUPT || e == BW_ERR_INVALID_ARGUMENT || e == BW_ERR_LIMIT_REACHED);
        return;
    }
    for (size_t i = 0; i < w.count; i++) {
        FUZZ_CHECK((const uint8_t *)w.list[i].topic.data >= data && (const uint8_t *)w.list[i].topic.data + w.list[i].topic.len <= data + size);
        if (w.list[i].pattern) (void)regexec(&w.patterns[i], "orders.eu-1", 0, NULL, 0);
    }
    bw_wanted_fini(&w);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    switch (data[0] % 4) {
    case 0: take_group(data + 1, size - 1); break;
    case 1: take_member(data + 1, size - 1, false); break;
    case 2: take_member(data + 1, size - 1, true); break;
    default: take_subscription(data + 1, size - 1);
    }
    return 0;
}
