/* broker/offsets_members.c: the little that committed offsets need to know of groups of members. */
#include "broker/groups_core.h"
#include "broker/offsets_cache.h"

bw_err bw_offset_may_commit(bw_broker *b, const bw_group_request *g, bw_str topic, int32_t partition)
{
    return bw_groups_may_commit(b, g->id, g->member, g->instance, g->epoch, topic, partition);
}

const bw_group *bw_offset_members_of(bw_broker *b, bw_str group)
{
    const bw_group *g = bw_groups_find(b, group);
    return g && (g->kind_fixed || g->member_count) ? g : NULL;
}

void bw_offset_each_with_members(bw_broker *b, void (*fn)(void *opaque, const bw_group *g), void *opaque)
{
    bw_entry *e, *more;
    if (!b->groups) return;
    HASH_ITER(hh, b->groups->entries, e, more)
    {
        if (e->g->kind_fixed && e->g->state != BW_GROUP_DEAD) fn(opaque, e->g);
    }
}

bw_err bw_offset_members_forget(bw_broker *b, bw_str group)
{
    bw_entry *e;
    bw_err err = bw_entry_of(b, group, false, &e);
    return err ? err : bw_entry_delete(e);
}

void bw_offset_member_peer(const bw_member *m, int64_t *uid, int64_t *since_ms)
{
    const bw_link *l = m->user;
    *uid = l && l->session ? l->session->peer.uid : -1;
    *since_ms = l && l->session ? l->session->since_wall_ms : -1;
}
