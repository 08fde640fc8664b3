/* broker/link_feed.c: which links feed a merge, and that they filter alike.
 *
 * A merge's version vector says how far each origin's log is here, not which of its records were left out on the way. So when two links bring
 * records of one origin (rings and meshes do) and one of them filters, what it leaves out and the other brings later is older than what came,
 * and left out for ever. That is refused instead: links that filter differently have different targets. The first one that is connected has
 * the topic; it is forgotten with its connection. */
#include "broker/links.h"

#include <stdio.h>
#include <stdlib.h>

enum { SHOWN = 60 };

struct bw_feed {
    struct bw_feed *next;
    bw_uuid topic, origin;
    char link[BW_LINK_NAME_BYTES + 1];
    uint64_t filter; /* a hash of it; 0: none */
    char shown[2 * SHOWN + 40];
};

static uint64_t mix(uint64_t hash, bw_str s)
{
    for (size_t i = 0; i < s.len; i++) hash = (hash ^ (uint8_t)s.data[i]) * 1099511628211u; /* FNV-1a */
    return (hash ^ s.len) * 1099511628211u;
}

static int shown(bw_str s) { return (int)(s.len < SHOWN ? s.len : SHOWN); }

static struct bw_feed describe(const bw_topic *t, const bw_link_request *r)
{
    struct bw_feed f = {.topic = t->id};
    memcpy(f.origin.b, r->origin, 16);
    memcpy(f.link, r->name.data, r->name.len < BW_LINK_NAME_BYTES ? r->name.len : BW_LINK_NAME_BYTES);
    if (!r->key_prefix.len && !r->header.len) {
        snprintf(f.shown, sizeof f.shown, "brings everything");
        return f;
    }
    f.filter = mix(mix(mix(14695981039346656037u, r->key_prefix), r->header), r->header_value);
    snprintf(f.shown, sizeof f.shown, "brings only key-prefix=%.*s header=%.*s", shown(r->key_prefix), r->key_prefix.data ? r->key_prefix.data : "",
             shown(r->header), r->header.data ? r->header.data : "");
    return f;
}

static bool same_link(const struct bw_feed *f, const struct bw_feed *g)
{
    return bw_uuid_equal(&f->origin, &g->origin) && !strcmp(f->link, g->link);
}

static const struct bw_feed *contrary(const bw_broker *b, const struct bw_feed *f)
{
    for (const bw_session *s = b->sessions; s; s = s->next) {
        if (!s->linking) continue;
        for (const struct bw_feed *g = s->linking->feeds; g; g = g->next)
            if (bw_uuid_equal(&g->topic, &f->topic) && g->filter != f->filter && !same_link(f, g)) return g;
    }
    return NULL;
}

bw_err bw_feed_claim(bw_broker *b, bw_session *s, const bw_topic *t, const bw_link_request *r)
{
    struct bw_feed f = describe(t, r);
    const struct bw_feed *other = contrary(b, &f);
    if (other)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "topic '%s' gets records by link '%s', which %s: this one %s, and what one leaves out would be lost "
                       "when the other brings it; links that filter differently need different targets (prefix, rename)",
                       t->name, other->link, other->shown, f.shown);
    struct bw_linking *l = bw_linking_of(s);
    if (!l) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    struct bw_feed *mine = l->feeds;
    while (mine && !(bw_uuid_equal(&mine->topic, &f.topic) && same_link(mine, &f))) mine = mine->next;
    if (!mine) {
        if (!(mine = calloc(1, sizeof *mine))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
        mine->next = l->feeds;
        l->feeds = mine;
    }
    f.next = mine->next;
    *mine = f;
    return BW_OK;
}

void bw_feeds_free(struct bw_linking *l)
{
    while (l->feeds) {
        struct bw_feed *gone = l->feeds;
        l->feeds = gone->next;
        free(gone);
    }
}
