/* broker/offsets_members.c: the little that committed offsets need to know of groups of members. */
#include "broker/offsets_cache.h"

bw_err bw_offset_may_commit(bw_broker *b, const bw_group_request *g, bw_str topic, int32_t partition)
{
    (void)b, (void)g, (void)topic, (void)partition;
    return BW_OK;
}

const bw_group *bw_offset_members_of(bw_broker *b, bw_str group)
{
    (void)b, (void)group;
    return NULL;
}

void bw_offset_each_with_members(bw_broker *b, void (*fn)(void *opaque, const bw_group *g), void *opaque)
{
    (void)b, (void)fn, (void)opaque;
}

bw_err bw_offset_members_forget(bw_broker *b, bw_str group)
{
    (void)b, (void)group;
    return BW_OK;
}

void bw_offset_member_peer(const bw_member *m, int64_t *uid, int64_t *since_ms)
{
    (void)m;
    *uid = *since_ms = -1;
}
