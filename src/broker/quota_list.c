/* broker/quota_list.c: the quotas as a document: [{"user", "client", "pid" (those that matter), and the rates that are set}]. */
#include "broker/document.h"
#include "broker/quota_admit.h"

struct walk {
    msgpack_packer pk;
    const bw_quota_entity *only;
    size_t count;
    bool counting;
    int bad;
};

static bool is_wanted(bw_str wanted, const char *text) { return !wanted.len || bw_str_is(wanted, text); }

static void put_entry(void *opaque, const bw_quota_entry *e)
{
    struct walk *w = opaque;
    const char *const names[] = {"user", "client", "pid"}, *const values[] = {e->name.user, e->name.client, e->name.pid};
    if (w->only && !(is_wanted(w->only->user, e->name.user) && is_wanted(w->only->client, e->name.client) && is_wanted(w->only->pid, e->name.pid)))
        return;
    w->count++;
    if (w->counting) return;
    size_t fields = 0;
    for (int i = 0; i < 3; i++) fields += values[i][0] != 0;
    for (int k = 0; k < BW_QUOTA_KINDS; k++) fields += e->rates[k] != 0;
    w->bad |= msgpack_pack_map(&w->pk, fields);
    for (int i = 0; i < 3; i++)
        if (values[i][0]) w->bad |= put_text(&w->pk, names[i]) | put_text(&w->pk, values[i]);
    for (int k = 0; k < BW_QUOTA_KINDS; k++)
        if (e->rates[k]) w->bad |= put_text(&w->pk, bw_quota_kind_name((bw_quota_kind)k)) | msgpack_pack_int64(&w->pk, e->rates[k]);
}

int bw_quota_pack(bw_broker *b, const bw_quota_entity *only)
{
    struct walk w = {.only = only, .counting = true};
    msgpack_packer_init(&w.pk, &b->doc, bw_doc_append);
    bw_quotas_each(b->quotas, put_entry, &w);
    w.bad |= msgpack_pack_array(&w.pk, w.count);
    w.counting = false;
    bw_quotas_each(b->quotas, put_entry, &w);
    return w.bad;
}

void bw_handle_list_quotas(bw_broker *b, bw_op *op)
{
    b->doc.len = 0;
    bw_doc_send(b, op, bw_quota_pack(b, &op->request.quota));
}
