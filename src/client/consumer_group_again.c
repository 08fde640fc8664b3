/* client/consumer_group_again.c: what is left out of commits that are sent again. See consumer_group.h.
 *
 * What a later commit has already asked for must not be asked for again by an earlier one, or the committed offset would go back: such a
 * partition is left out, and the later one's outcome is the earlier one's. So is a partition that the member has given up meanwhile: its
 * next owner's commits count. */
#include "client/consumer_group.h"

#include <stdlib.h>
#include <string.h>

typedef struct newest { /* the newest commit that asked for this partition */
    UT_hash_handle hh;
    bw_commit *commit;
    size_t key_len;
    char key[]; /* partition, topic */
} newest;

static newest *newest_of(newest **table, const bw_topic_partition *p, bw_commit *k, bool *fresh)
{
    char key[sizeof p->partition + BW_TOPIC_NAME_MAX];
    size_t len = sizeof p->partition + strlen(p->topic);
    memcpy(key, &p->partition, sizeof p->partition);
    memcpy(key + sizeof p->partition, p->topic, len - sizeof p->partition);
    newest *n;
    HASH_FIND(hh, *table, key, len, n);
    *fresh = !n;
    if (n) return n;
    n = calloc(1, sizeof *n + len);
    if (!n) return NULL;
    n->commit = k;
    n->key_len = len;
    memcpy(n->key, key, len);
    HASH_ADD(hh, *table, key, len, n);
    return n;
}

static void leave_out(bw_commit *k, size_t i, const newest *n)
{
    k->skip[i] = true;
    if (!n) {
        k->parts[i].error = BW_ERR_REBALANCE_IN_PROGRESS;
        return;
    }
    k->follow = n->commit;
    k->group->followed = true;
}

/* From the newest to the oldest. */
bw_err bw_group_thin_out(bw_cgroup *g)
{
    bw_commit **list = malloc((g->commit_count + 1) * sizeof *list);
    newest *table = NULL, *n, *following;
    size_t count = 0;
    bw_err e = list ? BW_OK : BW_ERR_NO_MEMORY;
    for (bw_commit *k = g->commits; k && !e; k = k->next) list[count++] = k;
    while (count > 0 && !e) {
        bw_commit *k = list[--count];
        if (!k->sent_once || (k->state == BW_COMMIT_DONE && k->error)) continue;
        for (size_t i = 0; i < k->count && !e; i++) {
            bool fresh, again = k->state == BW_COMMIT_QUEUED && !k->skip[i];
            if (!(n = newest_of(&table, &k->parts[i], k, &fresh))) e = BW_ERR_NO_MEMORY;
            else if (again && !fresh && n->commit != k) leave_out(k, i, n);
            else if (again && g->state == BW_MEMBER_IN && !bw_consumer_find(g->consumer, k->parts[i].topic, k->parts[i].partition))
                leave_out(k, i, NULL);
        }
    }
    HASH_ITER(hh, table, n, following) {
        HASH_DEL(table, n);
        free(n);
    }
    free(list);
    return e;
}
