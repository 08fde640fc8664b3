/* link/endpoint_bus.c: a daemon of Busway as the end of a link: this one, or a peer.
 *
 * Both ends are asked the same requests (proto/message_link.h) through a channel. A stream is begun by the first fetch that follows
 * `begin`; the daemon keeps where it is. */
#include "link/channel.h"
#include "link/endpoint.h"
#include "link/endpoint_bus.h"
#include "link/kafka.h"
#include "link/spec.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct bus {
    bw_endpoint base; /* first */
    bw_channel *channel;
    bw_origin self, other;
    bw_request begin; /* the stream's parts; texts in `names` */
    bw_piece *pieces;
    size_t piece_count;
    bool begun; /* the daemon knows */
};

struct transfer {
    bw_ask ask; /* first */
    bw_transfer *t;
    struct bus *bus;
};

static struct bus *bus_of(bw_endpoint *ep) { return (struct bus *)(void *)ep; }

static void start_request(struct bus *x, bw_request *r, bw_api_key type)
{
    bw_request_init(r, type);
    r->link.name = bw_str_of(x->base.spec->name);
    r->link.mode = (int8_t)x->base.spec->mode;
}

/* ---- the connection ---- */

static void bus_close(bw_endpoint *ep)
{
    struct bus *x = bus_of(ep);
    bw_channel_close(x->channel);
    free(x->pieces);
    free(x);
}

static void count_wire(struct bus *x) { bw_channel_bytes(x->channel, &x->base.wire_out, &x->base.wire_in); }

static bw_err bus_connect(bw_endpoint *ep, bw_deadline deadline)
{
    bus_of(ep)->begun = false;
    return bw_channel_connect(bus_of(ep)->channel, deadline);
}

static void bus_drop(bw_endpoint *ep) { bw_channel_drop(bus_of(ep)->channel); }
static bool bus_is_up(bw_endpoint *ep) { return bw_channel_is_up(bus_of(ep)->channel); }

static bw_err bus_wait(bw_endpoint *ep, int extra_fd, bw_deadline deadline)
{
    bw_err e = bw_channel_wait(bus_of(ep)->channel, extra_fd, deadline);
    count_wire(bus_of(ep));
    return e;
}

static size_t bus_dispatch(bw_endpoint *ep) { return bw_channel_dispatch(bus_of(ep)->channel); }
static int bus_fd(bw_endpoint *ep) { return bw_channel_fd(bus_of(ep)->channel); }

static bw_err bus_hello(bw_endpoint *ep, const bw_origin *mine, bw_origin *out, bw_deadline deadline)
{
    struct bus *x = bus_of(ep);
    bw_request r;
    bw_reply reply;
    start_request(x, &r, BW_API_LINK_HELLO);
    if (mine) {
        memcpy(r.link.origin, mine->id.b, 16);
        r.link.incarnation = mine->incarnation;
        x->other = *mine;
    }
    bw_err e = bw_channel_request(x->channel, &r, deadline, &reply);
    if (e == BW_ERR_UNSUPPORTED) e = bw_error_context(e, "the peer at %s is of a release without links", x->base.spec->url);
    if (!e) {
        memcpy(x->self.id.b, reply.answer.link.origin, 16);
        x->self.incarnation = reply.answer.link.incarnation;
        *out = x->self;
    }
    bw_reply_fini(&reply);
    return e;
}

/* ---- as a source ---- */

static bw_err bus_list(bw_endpoint *ep, bw_source_topic **out, size_t *count, bw_deadline deadline)
{
    bw_request r;
    bw_reply reply;
    bw_request_init(&r, BW_API_METADATA);
    r.allow_auto_create = false;
    *out = NULL;
    *count = 0;
    bw_err e = bw_channel_request(bus_of(ep)->channel, &r, deadline, &reply);
    size_t n = e ? 0 : reply.answer.topic_count;
    if (!e && !(*out = calloc(n ? n : 1, sizeof **out))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the list of topics");
    for (size_t i = 0; !e && i < n; i++) {
        const bw_topic_meta *t = &reply.answer.topics[i];
        bw_source_topic *to = &(*out)[*count];
        if (t->error || t->name.len > BW_TOPIC_NAME_MAX || t->partitions < 1 || t->partitions > (int32_t)BW_PARTITIONS_MAX) continue;
        memcpy(to->name, t->name.data, t->name.len);
        to->id = t->id;
        to->partitions = t->partitions;
        ++*count;
    }
    bw_reply_fini(&reply);
    return e;
}

/* One block: the pairs, then their texts. */
static bw_err pairs_of(const json_t *config, bw_config_pair **out, size_t *count)
{
    size_t n = 0, bytes = 0;
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)config, name, entry)
    {
        if (json_is_true(json_object_get(entry, "default")) || !json_is_string(json_object_get(entry, "value"))) continue;
        n++;
        bytes += strlen(name) + json_string_length(json_object_get(entry, "value"));
    }
    bw_config_pair *pairs = malloc(n * sizeof *pairs + bytes + 1);
    if (!pairs) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
    char *text = (char *)(pairs + n);
    n = 0;
    json_object_foreach((json_t *)(uintptr_t)config, name, entry)
    {
        const json_t *value = json_object_get(entry, "value");
        if (json_is_true(json_object_get(entry, "default")) || !json_is_string(value)) continue;
        size_t len = json_string_length(value);
        pairs[n] = (bw_config_pair){{text, strlen(name)}, {text + strlen(name), len}, true};
        memcpy(text, name, strlen(name));
        memcpy(text + strlen(name), json_string_value(value), len);
        text += strlen(name) + len;
        n++;
    }
    *out = pairs;
    *count = n;
    return BW_OK;
}

static bw_err bus_configs(bw_endpoint *ep, const char *topic, bw_config_pair **out, size_t *count, bw_deadline deadline)
{
    bw_request r;
    bw_reply reply;
    bw_buf text = {0};
    bw_request_init(&r, BW_API_DESCRIBE_TOPICS);
    r.topic = bw_str_of(topic);
    *out = NULL;
    *count = 0;
    bw_err e = bw_channel_request(bus_of(ep)->channel, &r, deadline, &reply);
    if (!e) e = bw_json_from_msgpack(reply.answer.doc, reply.answer.doc_len, &text);
    bw_reply_fini(&reply);
    json_t *doc = e ? NULL : json_loadb((const char *)text.data, text.len, 0, NULL);
    bw_buf_free(&text);
    if (!e && !doc) e = bw_fail(BW_ERR_PROTOCOL, "the description of topic '%s' can't be read", topic);
    if (!e) e = pairs_of(json_object_get(json_array_get(doc, 0), "config"), out, count);
    json_decref(doc);
    return e;
}

static bw_err bus_begin(bw_endpoint *ep, const bw_piece *pieces, size_t count)
{
    struct bus *x = bus_of(ep);
    bw_piece *copy = malloc((count ? count : 1) * sizeof *copy);
    if (!copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a stream of %zu partitions", count);
    memcpy(copy, pieces, count * sizeof *copy);
    free(x->pieces);
    x->pieces = copy;
    x->piece_count = count;
    x->begun = false;
    return BW_OK;
}

static void piece_from(const bw_link_part *p, bw_piece *out)
{
    size_t n = p->topic.len < sizeof out->topic - 1 ? p->topic.len : sizeof out->topic - 1;
    memcpy(out->topic, p->topic.data, n);
    out->topic[n] = 0;
    memcpy(out->id.b, p->id, 16);
    out->partition = p->partition;
    out->offset = p->offset;
    out->next = p->next;
    out->base = p->base;
    out->epoch = p->epoch;
    out->crc = p->crc;
    out->size = p->size;
    out->log_start = p->log_start;
    out->end = p->end;
    out->left = p->left;
    out->incarnation = p->incarnation;
    out->priority = p->priority;
    out->timestamp = p->timestamp;
    out->error = (bw_err)p->error;
    snprintf(out->message, sizeof out->message, "%.*s", (int)(p->message.len < 255 ? p->message.len : 255), p->message.data ? p->message.data : "");
}

/* How pieces and payload of an answer fit together is checked here: the sink relies on it. */
static bw_err chunk_from(const bw_answer *a, bw_chunk *out)
{
    size_t total = 0, n = a->link.part_count;
    *out = (bw_chunk){.count = n, .codec = (bw_codec)a->link.codec, .plain = a->link.plain, .payload = a->payload, .len = a->payload_len,
                      .changed = a->link.changed};
    for (size_t i = 0; i < n; i++) total += a->link.parts[i].size;
    bool packed = a->link.codec != BW_CODEC_NONE;
    if (a->link.codec < BW_CODEC_NONE || a->link.codec > BW_CODEC_ZSTD || total != (packed ? a->link.plain : a->payload_len))
        return bw_fail(BW_ERR_PROTOCOL, "the peer's parts have %zu bytes, its payload %zu", total, packed ? (size_t)a->link.plain : a->payload_len);
    if (n && !(out->pieces = calloc(n, sizeof *out->pieces))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu parts", n);
    for (size_t i = 0; i < n; i++) piece_from(&a->link.parts[i], &out->pieces[i]);
    return BW_OK;
}

static void transferred(bw_ask *ask, bw_err e, const bw_answer *a)
{
    struct transfer *x = (struct transfer *)(void *)ask;
    bw_transfer *t = x->t;
    bool append = ask->type == BW_API_LINK_APPEND;
    bw_chunk chunk = {0};
    if (!e && !append) e = chunk_from(a, &chunk);
    else if (!e && a->link.part_count) {
        chunk.count = a->link.part_count;
        chunk.pieces = calloc(chunk.count, sizeof *chunk.pieces);
        if (!chunk.pieces) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu parts", chunk.count);
        for (size_t i = 0; !e && i < chunk.count; i++) piece_from(&a->link.parts[i], &chunk.pieces[i]);
    }
    count_wire(x->bus);
    uint64_t wire = ask->wire_bytes;
    free(x);
    t->own = NULL;
    t->done(t, e, e ? NULL : &chunk, wire);
    free(chunk.pieces);
}

static bw_err submit(struct bus *x, bw_request *r, bw_transfer *t)
{
    struct transfer *one = calloc(1, sizeof *one);
    if (!one) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    *one = (struct transfer){.ask = {.done = transferred}, .t = t, .bus = x};
    t->own = one;
    bw_err e = bw_channel_submit(x->channel, r, &one->ask);
    if (e) {
        t->own = NULL;
        free(one);
    }
    return e;
}

static bw_link_part *parts_of(const bw_piece *pieces, size_t count)
{
    bw_link_part *parts = calloc(count ? count : 1, sizeof *parts);
    for (size_t i = 0; parts && i < count; i++) {
        const bw_piece *p = &pieces[i];
        parts[i] = (bw_link_part){.topic = bw_str_of(p->topic), .partition = p->partition, .offset = p->offset, .next = p->next, .base = p->base,
                                  .epoch = p->epoch, .crc = p->crc, .size = p->size, .log_start = p->log_start, .end = p->end, .left = p->left,
                                  .incarnation = p->incarnation, .priority = p->priority, .timestamp = p->timestamp};
        memcpy(parts[i].id, p->id.b, 16);
    }
    return parts;
}

static void set_filter(bw_request *r, const bw_link_spec *s)
{
    r->link.key_prefix = bw_str_of(s->key_prefix);
    r->link.header = bw_str_of(s->header);
    r->link.header_value = bw_str_of(s->header_value);
}

static bw_err bus_fetch(bw_endpoint *ep, bw_transfer *t, uint32_t max_bytes, int32_t max_wait_ms)
{
    struct bus *x = bus_of(ep);
    const bw_link_spec *s = ep->spec;
    bw_request r;
    start_request(x, &r, BW_API_LINK_FETCH);
    r.link.stream = 1;
    r.max_bytes = max_bytes;
    r.max_wait_ms = max_wait_ms;
    if (!x->begun) {
        r.link.begin = true;
        r.read_limit = s->durable;
        r.link.codec = bw_channel_is_local(x->channel) && !s->push ? BW_CODEC_NONE : (int8_t)s->codec;
        if (s->mode == BW_LINK_MERGE) memcpy(r.link.origin, x->other.id.b, 16);
        set_filter(&r, s);
        if (!(r.link.parts = parts_of(x->pieces, x->piece_count))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a stream");
        r.link.part_count = x->piece_count;
    }
    bw_err e = submit(x, &r, t);
    if (!e) x->begun = true;
    bw_request_fini(&r);
    return e;
}

/* ---- as a sink ---- */

static bw_err bus_prepare(bw_endpoint *ep, const char *target, const bw_source_topic *from, const bw_origin *origin, const bw_config_pair *configs,
                          size_t config_count, bw_sink_part **parts, bw_deadline deadline)
{
    struct bus *x = bus_of(ep);
    bw_request r;
    bw_reply reply;
    start_request(x, &r, BW_API_LINK_TOPIC);
    r.topic = bw_str_of(target);
    r.partitions = from->partitions;
    memcpy(r.link.origin, origin->id.b, 16);
    r.link.incarnation = origin->incarnation;
    memcpy(r.link.source, from->id.b, 16);
    r.link.create = true;
    set_filter(&r, x->base.spec);
    r.configs = (bw_config_pair *)(uintptr_t)configs;
    r.config_count = config_count;
    *parts = NULL;
    bw_err e = bw_channel_request(x->channel, &r, deadline, &reply);
    const bw_link_answer *a = &reply.answer.link;
    if (!e && a->part_count < (size_t)from->partitions)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "topic '%s' has %zu partitions, its source %d", target, a->part_count, from->partitions);
    if (!e && !(*parts = calloc((size_t)from->partitions, sizeof **parts))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for positions");
    for (size_t i = 0; !e && i < (size_t)from->partitions; i++) {
        const bw_link_part *p = &a->parts[i];
        if (p->error) e = bw_fail((bw_err)p->error, "topic '%s' partition %zu: %.*s", target, i,
                                  (int)(p->message.len < 200 ? p->message.len : 200), p->message.data);
        else if (p->partition != (int32_t)i || p->offset < 0) e = bw_fail(BW_ERR_PROTOCOL, "topic '%s': the positions are not in order", target);
        else (*parts)[i] = (bw_sink_part){p->offset, p->base, p->epoch, p->crc};
    }
    if (e) {
        free(*parts);
        *parts = NULL;
    }
    bw_reply_fini(&reply);
    return e;
}

static bw_err bus_append(bw_endpoint *ep, const bw_chunk *chunk, bw_transfer *t)
{
    struct bus *x = bus_of(ep);
    bw_request r;
    start_request(x, &r, BW_API_LINK_APPEND);
    memcpy(r.link.origin, x->other.id.b, 16);
    r.link.incarnation = x->other.incarnation;
    r.link.codec = (int8_t)chunk->codec;
    r.link.plain = chunk->plain;
    r.payload = chunk->payload;
    r.payload_len = chunk->len;
    if (!(r.link.parts = parts_of(chunk->pieces, chunk->count))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu parts", chunk->count);
    r.link.part_count = chunk->count;
    bw_err e = submit(x, &r, t);
    bw_request_fini(&r);
    return e;
}

static const bw_endpoint_ops bus_ops = {
    .close = bus_close, .connect = bus_connect, .drop = bus_drop, .is_up = bus_is_up, .wait = bus_wait, .dispatch = bus_dispatch, .fd = bus_fd,
    .hello = bus_hello, .list = bus_list, .configs = bus_configs, .begin = bus_begin, .fetch = bus_fetch, .offsets = bw_bus_offsets,
    .prepare = bus_prepare, .append = bus_append, .commit = bw_bus_commit,
};

bw_channel *bw_bus_channel(bw_endpoint *ep) { return bus_of(ep)->channel; }

static bw_err make(bw_channel *channel, const bw_link_spec *spec, const bw_stop *stop, bw_endpoint **out)
{
    struct bus *x = calloc(1, sizeof *x);
    if (!x) {
        bw_channel_close(channel);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    }
    x->base = (bw_endpoint){.ops = &bus_ops, .is_bus = true, .spec = spec, .stop = stop};
    x->channel = channel;
    *out = &x->base;
    return BW_OK;
}

bw_err bw_endpoint_open_local(bw_broker *b, const bw_link_spec *spec, const bw_stop *stop, bw_endpoint **out)
{
    char name[BW_LINK_NAME_MAX + 8];
    bw_channel *channel;
    snprintf(name, sizeof name, "link %s", spec->name);
    bw_err e = bw_channel_open_local(b, name, stop, &channel);
    return e ? e : make(channel, spec, stop, out);
}

bw_err bw_endpoint_open_peer(const bw_link_spec *spec, const bw_stop *stop, bw_endpoint **out)
{
    char name[BW_LINK_NAME_MAX + 8];
    bw_channel *channel;
    if (bw_link_spec_is_cluster(spec)) {
        bw_err bad = bw_endpoint_open_kafka(spec, out);
        if (!bad) (*out)->stop = stop;
        return bad;
    }
    snprintf(name, sizeof name, "link %s", spec->name);
    bw_err e = bw_channel_open_remote(spec->url, name, stop, &channel);
    return e ? e : make(channel, spec, stop, out);
}
