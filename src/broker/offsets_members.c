/* broker/offsets_members.c: the little that committed offsets need to know of groups of members. */
#include "broker/groups_core.h"
#include "broker/offsets_cache.h"

bw_err bw_offset_may_commit(bw_broker *b, const bw_group_request *g, bw_str topic, int32_t partition)
{
    return bw_groups_may_commit(b, g->id, g->member, g->instance, g->epoch, topic, partition);
}

const bw_group *bw_offset_members_of(bw_broker *b, bw_str group) { return bw_groups_find(b, group); }

void bw_offset_each_with_members(bw_broker *b, void (*fn)(void *opaque, const bw_group *g), void *opaque)
{
    bw_entry *e, *more;
    if (!b->groups) return;
    HASH_ITER(hh, b->groups->entries, e, more)
        if (!e->deleting) fn(opaque, e->g);
}

bw_err bw_offset_members_forget(bw_broker *b, bw_str group)
{
    bw_group *g = bw_groups_find(b, group);
    return g ? bw_entry_delete(g->user) : BW_OK;
}

void bw_offset_member_peer(const bw_member *m, int64_t *uid, int64_t *since_ms)
{
    const bw_link *l = bw_link_of(m);
    *uid = l && l->session ? l->session->peer.uid : -1;
    *since_ms = l && l->session ? l->session->since_wall_ms : -1;
}
