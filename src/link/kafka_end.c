/* link/kafka_end.c: a Kafka cluster as the end of a link: the connection, and what both directions share. See kafka.h. */
#include "link/kafka.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_SLICE_MS = 1000, REQUEST_MS = 20000 };

/* ---- partitions and transfers ---- */

bw_kend_part *bw_kend_part_of(bw_kend *k, const char *topic, int32_t partition, bool make)
{
    bw_kend_key key = {.partition = partition};
    bw_kend_part *p;
    snprintf(key.topic, sizeof key.topic, "%s", topic);
    HASH_FIND(hh, k->parts, &key, sizeof key, p);
    if (p || !make || !(p = calloc(1, sizeof *p))) return p;
    p->key = key;
    p->log_start = p->end = -1;
    HASH_ADD(hh, k->parts, key, sizeof key, p);
    if (!p->not_hashed) return p;
    free(p);
    return NULL;
}

bw_err bw_kend_submit(bw_kend *k, bw_transfer *t, bw_kend_transfer **out)
{
    bw_kend_transfer *x = calloc(1, sizeof *x);
    if (!x) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transfer");
    x->t = t;
    *k->tail = x;
    k->tail = &x->next;
    *out = x;
    return BW_OK;
}

void bw_kend_finish(bw_kend *k, bw_err e, const bw_chunk *chunk)
{
    bw_kend_transfer *x = k->transfers;
    k->transfers = x->next;
    if (!k->transfers) k->tail = &k->transfers;
    uint64_t wire = chunk ? chunk->len : 0;
    x->t->done(x->t, e, e ? NULL : chunk, wire);
    free(x->chunk.pieces);
    free(x);
}

int32_t bw_kend_left_ms(bw_deadline deadline)
{
    int64_t ms = bw_deadline_left_ns(deadline) / 1000000;
    return ms < 1 ? 1 : ms > 60000 ? 60000 : (int32_t)ms;
}

/* Two FNV-1a hashes of what makes it what it is. */
static bw_uuid hashed(const char *kind, const char *text, const char *more)
{
    bw_uuid id;
    for (int half = 0; half < 2; half++) {
        uint64_t hash = 14695981039346656037u ^ (uint64_t)half * 0x9e3779b97f4a7c15u;
        const char *const words[] = {kind, text, more};
        for (int w = 0; w < 3; w++) {
            for (const char *c = words[w]; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
            hash = (hash ^ 0xff) * 1099511628211u;
        }
        bw_put_be64(id.b + 8 * half, hash);
    }
    return id;
}

bw_uuid bw_kend_topic_id(const bw_kend *k, const char *topic)
{
    char cluster[33];
    for (int i = 0; i < 16; i++) snprintf(cluster + 2 * i, 3, "%02x", k->self.id.b[i]);
    return hashed("topic", cluster, topic);
}

/* ---- the connection ---- */

static void end_drop(bw_endpoint *ep)
{
    bw_kend *k = bw_kend_of(ep);
    while (k->transfers) {
        bw_fail(BW_ERR_NOT_CONNECTED, "the connection to the cluster was dropped");
        bw_kend_finish(k, BW_ERR_NOT_CONNECTED, NULL);
    }
    bw_consumer_close(k->consumer);
    bw_producer_close(k->producer, 0);
    bw_bus_close(k->bus);
    k->consumer = NULL;
    k->producer = NULL;
    k->bus = NULL;
    k->open = false;
    bw_kend_part *p, *next;
    HASH_ITER(hh, k->parts, p, next)
    {
        HASH_DELETE(hh, k->parts, p);
        free(p);
    }
}

static void end_close(bw_endpoint *ep)
{
    bw_kend *k = bw_kend_of(ep);
    end_drop(ep);
    bw_buf_free(&k->plain);
    bw_buf_free(&k->records);
    bw_buf_free(&k->payload);
    bw_batch_builder_fini(&k->builder);
    free(k->pieces);
    free(k->url);
    free(k);
}

static bw_err end_connect(bw_endpoint *ep, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    char name[BW_LINK_NAME_MAX + 8];
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    int64_t left = bw_deadline_left_ns(deadline) / 1000000;
    end_drop(ep);
    snprintf(name, sizeof name, "link-%s", ep->spec->name);
    o.client_id = name;
    o.connect_timeout_ms = left > 0 && left < o.connect_timeout_ms ? (int32_t)left : o.connect_timeout_ms;
    o.request_timeout_ms = REQUEST_MS;
    k->lost = false;
    return bw_bus_open(k->url, &o, &k->bus);
}

static bool end_is_up(bw_endpoint *ep) { return bw_kend_of(ep)->bus && !bw_kend_of(ep)->lost; }

static bw_err end_hello(bw_endpoint *ep, const bw_origin *mine, bw_origin *out, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    char id[256];
    bw_err e = bw_cluster_id(k->bus, id, sizeof id);
    if (e) return e;
    if (mine) k->other = *mine;
    k->self = (bw_origin){hashed("cluster", id, ""), 1};
    *out = k->self;
    return ep->spec->push ? bw_kend_start_sink(k, deadline) : BW_OK;
}

/* ---- waiting ---- */

static size_t end_dispatch(bw_endpoint *ep)
{
    bw_kend *k = bw_kend_of(ep);
    size_t n = 0;
    if (!k->bus) return 0;
    if (ep->spec->push) {
        for (const bw_kend_transfer *x = k->transfers; x; x = x->next) n++;
        if (n) bw_kend_commit(k);
    } else {
        while (k->transfers && bw_kend_give(k)) n++;
    }
    return n;
}

/* Commits when something was appended; else whatever comes first. librdkafka's own news come with the consumer's descriptor. */
static bw_err end_wait(bw_endpoint *ep, int extra_fd, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    if (!k->bus) return bw_fail(BW_ERR_NOT_CONNECTED, "there is no connection to the cluster");
    for (;;) {
        if (end_dispatch(ep)) return BW_OK;
        if (k->lost) return bw_fail(BW_ERR_NOT_CONNECTED, "the cluster was lost");
        int64_t left = bw_deadline_left_ns(deadline);
        if (left == 0) return bw_fail(BW_ERR_TIMED_OUT, "nothing came in time");
        int slice = left / 1000000 < WAIT_SLICE_MS ? (int)(left / 1000000) + 1 : WAIT_SLICE_MS;
        struct pollfd fds[3] = {{.fd = k->consumer && !ep->spec->push ? bw_consumer_fd(k->consumer) : -1, .events = POLLIN},
                                {.fd = extra_fd, .events = POLLIN},
                                {.fd = ep->stop ? ep->stop->fd : -1, .events = POLLIN}};
        if (poll(fds, 3, slice) < 0 && errno != EINTR) return bw_fail_errno(errno, "waiting for a cluster");
        if (fds[2].revents) return bw_fail(BW_ERR_CLOSED, "it was told to stop");
        if (fds[1].revents) {
            end_dispatch(ep);
            return BW_OK;
        }
    }
}

/* Only its own wait tells. */
static int end_fd(bw_endpoint *ep)
{
    (void)ep;
    return -1;
}

/* ---- opening ---- */

/* The spec's URL with the link's "kafka.NAME" options behind it. */
static char *make_url(const bw_link_spec *spec)
{
    size_t size = strlen(spec->url) + 1;
    for (size_t i = 0; i < spec->extra_count; i++) size += spec->extra[i].name.len + 3 * spec->extra[i].value.len + 2;
    char *url = malloc(size + 1), *at = url;
    if (!url) return NULL;
    at = stpcpy(at, spec->url);
    for (size_t i = 0; i < spec->extra_count; i++) {
        const bw_config_pair *o = &spec->extra[i];
        if (o->name.len <= 6 || memcmp(o->name.data, "kafka.", 6)) continue;
        *at++ = strchr(url, '?') ? '&' : '?';
        memcpy(at, o->name.data + 6, o->name.len - 6);
        at += o->name.len - 6;
        *at++ = '=';
        for (size_t j = 0; j < o->value.len; j++) {
            uint8_t c = (uint8_t)o->value.data[j];
            bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~/:,", c);
            if (plain && c) *at++ = (char)c;
            else at += sprintf(at, "%%%02X", c);
        }
        *at = 0;
    }
    return url;
}

static const bw_endpoint_ops kafka_ops = {
    .close = end_close, .connect = end_connect, .drop = end_drop, .is_up = end_is_up, .wait = end_wait, .dispatch = end_dispatch, .fd = end_fd,
    .hello = end_hello, .list = bw_kend_list, .configs = bw_kend_configs, .begin = bw_kend_begin, .fetch = bw_kend_fetch,
    .prepare = bw_kend_prepare, .append = bw_kend_append,
};

bw_err bw_endpoint_open_kafka(const bw_link_spec *spec, bw_endpoint **out)
{
    bw_kend *k = calloc(1, sizeof *k);
    if (k) k->url = make_url(spec);
    if (!k || !k->url) {
        free(k);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    }
    k->base = (bw_endpoint){.ops = &kafka_ops, .spec = spec};
    k->tail = &k->transfers;
    bw_batch_builder_init(&k->builder);
    *out = &k->base;
    return BW_OK;
}
