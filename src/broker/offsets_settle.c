/* broker/offsets_settle.c: what is committed against what the log has become (offsets.h, "Life of a log").
 *
 * It depends on nothing but the entry's log epoch, the history of the log (its epochs' begins, its life's first epoch) and its end, so
 * that a daemon that is killed between a recovery and the change of the entries comes to the same at its next start. */
#include "broker/offsets_cache.h"

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

int64_t bw_offset_epoch_end(const bw_part *p, int32_t epoch, int64_t log_end)
{
    const bw_partition_history *h = &p->history;
    for (size_t i = 0; i < h->count; i++)
        if (h->epochs[i].epoch > epoch) return h->epochs[i].start_offset < log_end ? h->epochs[i].start_offset : log_end;
    return log_end;
}

bw_err bw_offset_mismatch(const bw_part *p, int64_t offset)
{
    return bw_fail(BW_ERR_LOG_INCARNATION_MISMATCH, "topic '%s' partition %u: offset %lld was committed before the log was restored from a "
                   "copy, and may mean other records now: set the group's offset anew (reset-offsets)", p->topic->name, p->index,
                   (long long)offset);
}

bw_part *bw_offset_part_known(bw_broker *b, bw_offset_target *t)
{
    if (t->part) return t->part;
    bw_topic *topic = NULL;
    uint32_t index = bw_get_be32(t->key + 16);
    HASH_FIND(by_id, b->topics_by_id, t->key, 16, topic);
    if (!topic || topic->deleting || index >= topic->part_count) return NULL;
    t->part = topic->parts[index];
    return t->part->offsets = t, t->part;
}

static bw_err clamp(bw_broker *b, const bw_part *p, bw_offset_entry *e, int64_t to, int32_t epoch)
{
    bw_offset_value old = *bw_offset_entry_newest(e);
    bw_offset_value *v = bw_offset_change_entry(b, e, (bw_str){old.metadata, old.metadata_len});
    if (!v) return BW_ERR_NO_MEMORY;
    v->offset = to;
    v->commit_ms = old.commit_ms;
    v->log_epoch = epoch;
    v->leader_epoch = old.leader_epoch;
    char group[800];
    bw_broker_event(b, BW_LOG_WARN, "offset_clamped", "group=%s topic=%s partition=%u from=%lld to=%lld",
                    bw_event_text(e->group->id, group, sizeof group), p->topic->name, p->index, (long long)old.offset, (long long)to);
    return BW_OK;
}

static bw_err settle_entry(bw_broker *b, const bw_part *p, bw_offset_entry *e)
{
    const bw_offset_value *v = bw_offset_entry_newest(e);
    if (v->offset < 0 || v->log_epoch < p->history.life_epoch) return BW_OK; /* of another life: said to who asks for it */
    int64_t end = bw_slot_end_offset(slot_of(p)), most = bw_offset_epoch_end(p, v->log_epoch, end);
    int32_t epoch = (int32_t)atomic_load_explicit(&slot_of(p)->leader_epoch, memory_order_acquire);
    return v->offset > most ? clamp(b, p, e, most, epoch) : BW_OK;
}

bw_err bw_offset_settle(bw_broker *b, bw_offset_target *t)
{
    if (t->settled) return BW_OK;
    bw_part *p = bw_offset_part_known(b, t);
    if (!p) return bw_fail(BW_ERR_UNKNOWN_TOPIC, "the topic is not there any more");
    uint32_t stage = atomic_load(&p->stage);
    if (stage == BW_PART_UNOPENED) {
        bw_opener_want(b, p);
        return bw_fail(BW_ERR_BUSY, "topic '%s' partition %u is being opened; try again", p->topic->name, p->index);
    }
    if (stage == BW_PART_FAILED)
        return bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open: %s", p->topic->name, p->index, p->why ? p->why : "see the daemon's log");
    bw_err e = BW_OK;
    for (bw_offset_entry *x = t->entries; x && !e; x = x->next) e = settle_entry(b, p, x);
    t->settled = !e;
    return e;
}

void bw_offsets_part_opened(bw_broker *b, bw_part *p)
{
    bw_offset_target *t = bw_part_by_number(b, p->bus_number) == p ? bw_offset_target_of_part(b->offsets, p, false) : NULL;
    if (t && atomic_load(&p->stage) == BW_PART_OPEN) (void)bw_offset_settle(b, t); /* again at the first use */
}
