/* link/links.c: LINK_ADD to LINK_REMOVE, and the links that are stored. All but start and stop runs in the broker's turns.
 *
 * A link is stored before it starts, and its record is removed before it stops: what was answered outlives a crash. One that is altered in
 * more than `paused` is another one from then on; the old one may still be ending meanwhile: positions are the targets' own, so that
 * the two can only be refused, not double anything. */
#include "link/links_internal.h"

#include "base/killpoint.h"
#include "broker/document.h"

#include <stdio.h>
#include <stdlib.h>

enum { LINKS_MAX = 256 };

static size_t key_of(const char *name, char key[BW_LINK_NAME_MAX + 2])
{
    key[0] = 'l';
    memcpy(key + 1, name, strlen(name) + 1);
    return strlen(key);
}

static bw_err store(bw_broker *b, const bw_link_spec *s, bool remove)
{
    char key[BW_LINK_NAME_MAX + 2];
    bw_buf value = {0};
    bw_err e = remove ? BW_OK : bw_link_spec_encode(s, &value);
    bw_meta_change change = {BW_TABLE_LINKS, key, key_of(s->name, key), remove ? NULL : value.data, value.len};
    if (!e) e = bw_store_change(b->store, &change, 1);
    bw_buf_free(&value);
    BW_KILL_POINT("links.stored");
    return e;
}

/* ---- the list ---- */

static bw_link *find(bw_links *l, bw_str name)
{
    bw_link *k = l->list;
    while (k && !bw_str_is(name, k->spec.name)) k = k->next;
    return k;
}

static void insert(bw_links *l, bw_link *k)
{
    bw_link **at = &l->list;
    while (*at && strcmp((*at)->spec.name, k->spec.name) < 0) at = &(*at)->next;
    k->next = *at;
    *at = k;
}

static void link_free(bw_link *k)
{
    if (k->runs) pthread_join(k->thread, NULL);
    bw_copy_fini(&k->copy);
    bw_link_spec_fini(&k->spec);
    pthread_mutex_destroy(&k->mutex);
    pthread_cond_destroy(&k->cond);
    bw_stop_fini(&k->waits);
    free(k);
}

static void retire(bw_links *l, bw_link *k)
{
    bw_link **at = &l->list;
    while (*at != k) at = &(*at)->next;
    *at = k->next;
    k->next = l->dying;
    l->dying = k;
    atomic_store(&k->stop, true);
    bw_link_poke(k);
}

static void reap(bw_links *l)
{
    for (bw_link **at = &l->dying; *at;) {
        bw_link *k = *at;
        if (!atomic_load(&k->finished)) {
            at = &k->next;
            continue;
        }
        *at = k->next;
        link_free(k);
    }
}

/* spec is taken, on an error too. */
static bw_err run(bw_links *l, bw_link_spec *spec)
{
    bw_link *k = calloc(1, sizeof *k);
    if (!k) {
        bw_link_spec_fini(spec);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    }
    k->links = l;
    k->spec = *spec;
    *spec = (bw_link_spec){0};
    bw_err e = bw_link_start(k);
    if (e) link_free(k);
    else insert(l, k);
    return e;
}

/* ---- requests ---- */

static bw_err set_all(bw_link_spec *s, const bw_request *r)
{
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < r->config_count; i++) {
        const bw_config_pair *c = &r->configs[i];
        e = bw_link_spec_set(s, c->name.data, c->name.len, c->has_value ? c->value.data : NULL, c->has_value ? c->value.len : 0);
    }
    return e ? e : bw_link_spec_check(s);
}

/* What one of two links leaves out is lost when the other brings it into the same merge: broker/link_feed.c has the rest of it. */
static bw_err check_others(const bw_links *l, const bw_link_spec *s)
{
    char topic[BW_TOPIC_NAME_MAX + 1];
    for (const bw_link *k = l->list; k; k = k->next)
        if (strcmp(k->spec.name, s->name) && bw_link_specs_mix(s, &k->spec, topic, sizeof topic))
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s' and link '%s' merge into topic '%s' but filter differently (key-prefix, header): give "
                           "them different targets, by prefix or rename", s->name, k->spec.name, topic);
    return BW_OK;
}

static bw_err add(bw_links *l, const bw_request *r)
{
    bw_link_spec s;
    size_t count = 0;
    for (bw_link *k = l->list; k; k = k->next) count++;
    if (find(l, r->link.name)) return bw_fail(BW_ERR_LINK_EXISTS, "link '%.*s' is there already", (int)r->link.name.len, r->link.name.data);
    if (count >= LINKS_MAX) return bw_fail(BW_ERR_LIMIT_REACHED, "a daemon has at most %d links", LINKS_MAX);
    bw_err e = bw_link_spec_init(&s, r->link.name);
    if (e) return e;
    bw_endpoint *peer = NULL;
    e = set_all(&s, r);
    if (!e) e = check_others(l, &s);
    if (!e) e = bw_endpoint_open_peer(&s, NULL, &peer); /* connects to nobody: is it a URL? */
    if (!e) peer->ops->close(peer);
    if (!e) e = store(l->broker, &s, false);
    if (e) {
        bw_link_spec_fini(&s);
        return e;
    }
    return run(l, &s);
}

static bw_err known(bw_links *l, const bw_request *r, bool to_change, bw_link **out)
{
    *out = find(l, r->link.name);
    if (!*out) return bw_fail(BW_ERR_UNKNOWN_LINK, "there is no link '%.*s'", (int)r->link.name.len, r->link.name.data);
    if (to_change && (*out)->spec.is_static)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s' is the configuration file's: change it there", (*out)->spec.name);
    return BW_OK;
}

static bw_err copy_spec(const bw_link_spec *from, bw_link_spec *to)
{
    bw_buf record = {0};
    bw_err e = bw_link_spec_encode(from, &record);
    if (!e) e = bw_link_spec_decode(bw_str_of(from->name), record.data, record.len, to);
    bw_buf_free(&record);
    return e;
}

static bw_err alter(bw_links *l, const bw_request *r)
{
    bw_link *k;
    bw_link_spec s;
    bool pause_only = r->config_count == 1 && bw_str_is(r->configs[0].name, "paused");
    bw_err e = known(l, r, !pause_only, &k);
    if (!e) e = copy_spec(&k->spec, &s);
    if (e) return e;
    e = set_all(&s, r);
    if (!e) e = check_others(l, &s);
    if (!e && !k->spec.is_static) e = store(l->broker, &s, false);
    if (!e && pause_only) {
        k->spec.paused = s.paused;
        atomic_store(&k->paused, s.paused);
        bw_link_poke(k);
    } else if (!e) {
        retire(l, k);
        return run(l, &s);
    }
    bw_link_spec_fini(&s);
    return e;
}

static bw_err removed(bw_links *l, const bw_request *r)
{
    bw_link *k;
    bw_err e = known(l, r, true, &k);
    if (!e) e = store(l->broker, &k->spec, true);
    if (!e) retire(l, k);
    return e;
}

static void describe(bw_links *l, bw_op *op, bool one)
{
    msgpack_packer pk;
    bw_link *k = NULL;
    size_t n = 0;
    bw_err e = one ? known(l, &op->request, false, &k) : BW_OK;
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    bw_doc_begin(l->broker, &pk);
    int bad = 0;
    if (one) bad = bw_link_put(k, &pk, true);
    else {
        for (k = l->list; k; k = k->next) n++;
        bad = msgpack_pack_array(&pk, n);
        for (k = l->list; k; k = k->next) bad |= bw_link_put(k, &pk, false);
    }
    bw_doc_send(l->broker, op, bad);
}

static void handle(void *links, bw_op *op)
{
    bw_links *l = links;
    const bw_request *r = &op->request;
    bw_err e = BW_OK;
    reap(l);
    switch (r->type) {
    case BW_API_LINK_LIST: describe(l, op, false); return;
    case BW_API_LINK_DESCRIBE: describe(l, op, true); return;
    case BW_API_LINK_ADD: e = add(l, r); break;
    case BW_API_LINK_ALTER: e = alter(l, r); break;
    default: e = removed(l, r); break;
    }
    if (e) bw_op_fail(op, e);
    else bw_op_ok(op);
}

static int status(void *links, void *packer)
{
    bw_links *l = links;
    size_t n = 0;
    for (bw_link *k = l->list; k; k = k->next) n++;
    int bad = msgpack_pack_array(packer, n);
    for (bw_link *k = l->list; k; k = k->next) bad |= bw_link_put(k, packer, false);
    return bad;
}

static const bw_links_ops ops = {handle, status};

/* ---- start and stop ---- */

struct loading {
    bw_links *links;
    bw_err error;
    bw_link_spec specs[LINKS_MAX];
    size_t count;
};

static bool load_one(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    struct loading *x = opaque;
    if (x->count == LINKS_MAX) return false;
    bw_err e = bw_link_spec_decode((bw_str){(const char *)key + 1, key_len - 1}, value, value_len, &x->specs[x->count]);
    if (!e) x->count++;
    else bw_broker_event(x->links->broker, BW_LOG_ERROR, "link_not_read", "link=%.*s error=%s", (int)(key_len - 1),
                         (const char *)key + 1, bw_err_name(e));
    return true;
}

static bw_err one_static(bw_links *l, const bw_daemon_config *config, const char *name)
{
    bw_link_spec s;
    bw_endpoint *peer = NULL;
    bw_err e = bw_link_spec_init(&s, bw_str_of(name));
    for (size_t i = 0; !e && i < config->link_option_count; i++) {
        const bw_link_option *o = &config->link_options[i];
        if (!strcmp(o->link, name)) e = bw_link_spec_set(&s, o->name, strlen(o->name), o->value, strlen(o->value));
    }
    if (!e) e = bw_link_spec_check(&s);
    if (!e) e = check_others(l, &s);
    if (!e) e = bw_endpoint_open_peer(&s, NULL, &peer);
    if (!e) peer->ops->close(peer);
    s.is_static = true;
    if (!e) return run(l, &s);
    bw_link_spec_fini(&s);
    bw_error_context(e, "the configuration's link '%.64s'", name);
    return BW_ERR_INVALID_CONFIG;
}

/* One of the same name that is stored rests while the configuration has it. */
static bw_err start_static(bw_links *l, const bw_daemon_config *config)
{
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < config->link_option_count; i++) {
        const char *name = config->link_options[i].link;
        if (!find(l, bw_str_of(name))) e = one_static(l, config, name);
    }
    return e;
}

bw_err bw_links_start(bw_broker *b, const bw_daemon_config *config, bw_links **out)
{
    bw_links *l = calloc(1, sizeof *l);
    struct loading *x = calloc(1, sizeof *x);
    if (!l || !x) {
        free(l);
        free(x);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for links");
    }
    *l = (bw_links){.broker = b, .config = config};
    x->links = l;
    bw_err e = bw_store_each(b->store, BW_TABLE_LINKS, "l", 1, load_one, x);
    if (!e) e = start_static(l, config);
    for (size_t i = 0; i < x->count; i++) {
        if (!e && !find(l, bw_str_of(x->specs[i].name))) e = run(l, &x->specs[i]);
        else bw_link_spec_fini(&x->specs[i]);
    }
    free(x);
    if (e) {
        bw_links_stop(l);
        return e;
    }
    bw_broker_set_links(b, &ops, l);
    *out = l;
    return BW_OK;
}

void bw_links_stop(bw_links *l)
{
    bw_broker_set_links(l->broker, NULL, NULL);
    while (l->list) retire(l, l->list);
    while (l->dying) {
        bw_link *k = l->dying;
        l->dying = k->next;
        link_free(k);
    }
    free(l);
}
