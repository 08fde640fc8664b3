/* link/links_doc.c: what `busway link list` and `describe` show: the options, how it goes, and the lag in records, bytes and time.
 *
 * The lag in records is exact as of the source's last word; that in bytes an estimate from the bytes of what came; that in time the age of
 * the newest record that was copied while there are others behind it. */
#include "link/links_internal.h"

#include "broker/document.h"

#include <stdio.h>

struct sums {
    uint64_t lag_records, lag_bytes, records, bytes, lost;
    int64_t lag_ms;
    size_t parts, stopped;
};

static uint64_t lag_records(const bw_copy_part *p) { return p->end > p->next ? (uint64_t)(p->end - p->next) : 0; }

static int64_t lag_ms(const bw_copy_part *p, int64_t now)
{
    return lag_records(p) && p->timestamp >= 0 && now > p->timestamp ? now - p->timestamp : 0;
}

static void add_up(const bw_link *k, struct sums *s)
{
    int64_t now = bw_clock_wall_ms();
    for (const bw_copy_part *p = k->copy.parts; p; p = p->hh.next) {
        if (!p->present) continue;
        int64_t ms = lag_ms(p, now);
        s->parts++;
        s->stopped += p->error != BW_OK;
        s->lag_records += lag_records(p);
        s->lag_bytes += lag_records(p) ? p->left : 0;
        s->records += p->records;
        s->bytes += p->bytes;
        s->lost += (uint64_t)p->lost;
        if (ms > s->lag_ms) s->lag_ms = ms;
    }
}

static const char *state_name(const bw_link *k, const struct sums *s)
{
    if (atomic_load(&k->stop)) return "stopping";
    if (atomic_load(&k->paused)) return "paused";
    if (k->state == BW_LINK_WAITS) return "down";
    if (!k->copy.arranged) return "connecting";
    return s->stopped && s->stopped == s->parts ? "stopped" : s->lag_records ? "copying" : "up to date";
}

struct option_walk {
    msgpack_packer *pk;
    size_t count;
    int bad;
};
static void count_option(void *opaque, const char *name, const char *value)
{
    (void)name, (void)value;
    ((struct option_walk *)opaque)->count++;
}
static void put_option(void *opaque, const char *name, const char *value)
{
    struct option_walk *w = opaque;
    bool secret = !strncmp(name, "kafka.", 6) && strstr(name, "password");
    w->bad |= key_text(w->pk, name, secret ? "***" : value);
}

static int put_part(msgpack_packer *pk, const bw_copy_part *p)
{
    int bad = msgpack_pack_map(pk, 14);
    bad |= key_text(pk, "topic", p->key.topic) | key_text(pk, "target", p->target) | key_int(pk, "partition", p->key.partition);
    bad |= key_int(pk, "priority", p->priority) | key_int(pk, "next_offset", p->next) | key_int(pk, "end_offset", p->end);
    bad |= key_int(pk, "lag_records", (int64_t)lag_records(p)) | key_int(pk, "lag_bytes", lag_records(p) ? (int64_t)p->left : 0);
    bad |= key_int(pk, "lag_ms", lag_ms(p, bw_clock_wall_ms())) | key_int(pk, "records", (int64_t)p->records);
    bad |= key_int(pk, "bytes", (int64_t)p->bytes) | key_int(pk, "lost_records", p->lost);
    bad |= key_text(pk, "error", p->error ? bw_err_name(p->error) : "") | key_text(pk, "message", p->error ? p->message : "");
    return bad;
}

int bw_link_put(bw_link *k, void *packer, bool with_parts)
{
    msgpack_packer *pk = packer;
    struct sums s = {0};
    static const bw_uuid none;
    char origin[23] = "";
    pthread_mutex_lock(&k->mutex);
    pthread_mutex_lock(&k->copy.mutex);
    add_up(k, &s);
    if (!bw_uuid_equal(&k->copy.origin.id, &none)) bw_uuid_base64(&k->copy.origin.id, origin);
    int bad = msgpack_pack_map(pk, with_parts ? 22 : 21);
    bad |= key_text(pk, "name", k->spec.name) | key_text(pk, "url", k->spec.url ? k->spec.url : "");
    bad |= key_text(pk, "direction", k->spec.push ? "push" : "pull") | key_text(pk, "mode", k->spec.mode == BW_LINK_MERGE ? "merge" : "mirror");
    bad |= key_text(pk, "state", state_name(k, &s)) | key_int(pk, "since_ms", k->since_ms) | key_bool(pk, "static", k->spec.is_static);
    bool down = k->error && !k->copy.arranged, missing = !down && k->copy.arranged && k->copy.missing[0];
    char why[BW_TOPIC_NAME_MAX + 64];
    snprintf(why, sizeof why, "topic '%s' is not there at the source; it is copied when it comes", k->copy.missing);
    bad |= key_text(pk, "error", down ? bw_err_name(k->error) : missing ? bw_err_name(BW_ERR_UNKNOWN_TOPIC) : "");
    bad |= key_text(pk, "message", down ? k->message : missing ? why : "") | key_text(pk, "peer_id", origin);
    bad |= key_int(pk, "connects", (int64_t)k->connects) | key_int(pk, "partitions", (int64_t)s.parts) | key_int(pk, "stopped", (int64_t)s.stopped);
    bad |= key_int(pk, "lag_records", (int64_t)s.lag_records) | key_int(pk, "lag_bytes", (int64_t)s.lag_bytes) | key_int(pk, "lag_ms", s.lag_ms);
    bad |= key_int(pk, "records", (int64_t)s.records) | key_int(pk, "bytes", (int64_t)s.bytes) | key_int(pk, "wire_bytes", (int64_t)k->copy.wire);
    bad |= key_int(pk, "lost_records", (int64_t)s.lost);
    struct option_walk w = {.pk = pk};
    bw_link_spec_each(&k->spec, count_option, &w);
    bad |= put_text(pk, "options") | msgpack_pack_map(pk, w.count);
    bw_link_spec_each(&k->spec, put_option, &w);
    if (with_parts) {
        bad |= put_text(pk, "parts") | msgpack_pack_array(pk, s.parts);
        for (const bw_copy_part *p = k->copy.parts; p; p = p->hh.next)
            if (p->present) bad |= put_part(pk, p);
    }
    pthread_mutex_unlock(&k->copy.mutex);
    pthread_mutex_unlock(&k->mutex);
    return bad | w.bad;
}
