/* The assignors beside Kafka's own (assignor_cases.txt, made by tests/compat/MakeAssignments.java), their invariants on generated
 * groups, and their speed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "broker/assignor.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOPICS = 64, MOST_MEMBERS = 64, MOST_PARTS = 4096 };

typedef struct scene {
    bw_assignor_kind kind;
    bw_assign_topic topics[MOST_TOPICS];
    size_t topic_count;
    bw_assign_member members[MOST_MEMBERS];
    size_t member_count;
    uint32_t expected[MOST_PARTS], owners[MOST_PARTS];
} scene;

static uint32_t first_of(const scene *s, uint32_t topic)
{
    uint32_t at = 0;
    for (uint32_t t = 0; t < topic; t++) at += s->topics[t].partitions;
    return at;
}

static bool subscribed(const scene *s, uint32_t member, uint32_t topic)
{
    for (size_t i = 0; i < s->members[member].topic_count; i++)
        if (s->members[member].topics[i] == topic) return true;
    return false;
}

static void scene_free(scene *s)
{
    for (size_t t = 0; t < s->topic_count; t++) free((char *)s->topics[t].name);
    for (size_t m = 0; m < s->member_count; m++) {
        free((char *)s->members[m].id);
        free((char *)s->members[m].instance);
        free((uint32_t *)s->members[m].topics);
        free((bw_assign_part *)s->members[m].owned);
    }
    *s = (scene){0};
}

/* ---- the table ---- */

static uint32_t topic_named(const scene *s, const char *name)
{
    for (uint32_t t = 0; t < s->topic_count; t++)
        if (strcmp(s->topics[t].name, name) == 0) return t;
    return BW_NOBODY;
}

/* "topic:0,1;other:2": those whose topic is there. */
static size_t read_parts(const scene *s, char *text, bw_assign_part *out)
{
    size_t n = 0;
    char *save_topic, *save_part;
    if (strcmp(text, "-") == 0) return 0;
    for (char *topic = strtok_r(text, ";", &save_topic); topic; topic = strtok_r(NULL, ";", &save_topic)) {
        char *colon = strrchr(topic, ':');
        assert_non_null(colon);
        *colon = 0;
        uint32_t t = topic_named(s, topic);
        for (char *p = strtok_r(colon + 1, ",", &save_part); p; p = strtok_r(NULL, ",", &save_part)) {
            if (t == BW_NOBODY) continue;
            assert_true(n < MOST_PARTS);
            out[n++] = (bw_assign_part){t, (uint32_t)atoi(p)};
        }
    }
    return n;
}

static void read_member(scene *s, char *line)
{
    static bw_assign_part parts[MOST_PARTS];
    char *save, *name_save, *id = strtok_r(line, " ", &save), *instance = strtok_r(NULL, " ", &save);
    int generation = atoi(strtok_r(NULL, " ", &save));
    char *topics = strtok_r(NULL, " ", &save), *owned = strtok_r(NULL, " ", &save);
    uint32_t *list = malloc(MOST_TOPICS * sizeof *list);
    bw_assign_member *m = &s->members[s->member_count++];
    assert_true(s->member_count <= MOST_MEMBERS);
    *m = (bw_assign_member){.id = strdup(id), .instance = strcmp(instance, "-") ? strdup(instance) : NULL, .topics = list, .generation = generation};
    for (char *t = strtok_r(topics, ",", &name_save); t && strcmp(t, "-"); t = strtok_r(NULL, ",", &name_save))
        if (topic_named(s, t) != BW_NOBODY) list[m->topic_count++] = topic_named(s, t);
    m->owned_count = read_parts(s, owned, parts);
    bw_assign_part *copy = malloc((m->owned_count + 1) * sizeof *copy);
    memcpy(copy, parts, m->owned_count * sizeof *copy);
    m->owned = copy;
}

static void read_out(scene *s, char *line)
{
    static bw_assign_part parts[MOST_PARTS];
    char *space = strchr(line, ' ');
    *space = 0;
    uint32_t m = 0;
    while (strcmp(s->members[m].id, line)) m++;
    size_t n = read_parts(s, space + 1, parts);
    for (size_t i = 0; i < n; i++) s->expected[first_of(s, parts[i].topic) + parts[i].partition] = m;
}

/* The next case; false at the end. */
static bool read_case(FILE *f, scene *s, int *number)
{
    char *line = NULL, strategy[32];
    size_t size = 0;
    *s = (scene){0};
    memset(s->expected, 0xff, sizeof s->expected);
    while (getline(&line, &size, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "case %d %31s", number, strategy) == 2) {
            assert_int_equal(bw_assignor_by_name(strategy, strlen(strategy), &s->kind), BW_OK);
        } else if (strncmp(line, "topic ", 6) == 0) {
            char *space = strrchr(line, ' ');
            *space = 0;
            assert_true(s->topic_count < MOST_TOPICS);
            s->topics[s->topic_count++] = (bw_assign_topic){strdup(line + 6), (uint32_t)atoi(space + 1)};
        } else if (strncmp(line, "member ", 7) == 0) {
            read_member(s, line + 7);
        } else if (strncmp(line, "out ", 4) == 0) {
            read_out(s, line + 4);
        } else if (strcmp(line, "end") == 0) {
            free(line);
            return true;
        }
    }
    free(line);
    return false;
}

/* ---- what must hold ---- */

static void assign(scene *s)
{
    memset(s->owners, 0xee, sizeof s->owners);
    assert_int_equal(bw_assign(s->kind, s->topics, s->topic_count, s->members, s->member_count, s->owners), BW_OK);
}

/* Each partition has an owner exactly if somebody subscribes, and the owner does. */
static void check_owned(const scene *s)
{
    for (uint32_t t = 0; t < s->topic_count; t++) {
        bool wanted = false;
        for (uint32_t m = 0; m < s->member_count; m++) wanted |= subscribed(s, m, t);
        for (uint32_t p = 0; p < s->topics[t].partitions; p++) {
            uint32_t owner = s->owners[first_of(s, t) + p];
            if (!wanted) assert_int_equal(owner, BW_NOBODY);
            else assert_true(owner < s->member_count && subscribed(s, owner, t));
        }
    }
}

static uint64_t imbalance(const scene *s, const uint32_t *owners)
{
    uint64_t load[MOST_MEMBERS] = {0}, sum = 0;
    uint32_t parts = first_of(s, (uint32_t)s->topic_count);
    for (uint32_t p = 0; p < parts; p++)
        if (owners[p] != BW_NOBODY) load[owners[p]]++;
    for (size_t m = 0; m < s->member_count; m++) sum += load[m] * load[m];
    return sum;
}

/* Partitions that a subscriber had by the newest claim and alone, and that another has now. */
static unsigned moved(const scene *s, const uint32_t *owners)
{
    unsigned n = 0;
    for (uint32_t t = 0; t < s->topic_count; t++)
        for (uint32_t p = 0; p < s->topics[t].partitions; p++) {
            uint32_t had = BW_NOBODY;
            int32_t generation = INT32_MIN;
            for (uint32_t m = 0; m < s->member_count; m++)
                for (size_t i = 0; i < s->members[m].owned_count && subscribed(s, m, t); i++) {
                    bw_assign_part o = s->members[m].owned[i];
                    if (o.topic != t || o.partition != p || s->members[m].generation < generation) continue;
                    had = s->members[m].generation == generation ? BW_NOBODY : m;
                    generation = s->members[m].generation;
                }
            if (had != BW_NOBODY && owners[first_of(s, t) + p] != had) n++;
        }
    return n;
}

/* No chain of moves from a member to one with at least two less: by brute force over reachability. */
static void check_balanced(const scene *s)
{
    unsigned load[MOST_MEMBERS] = {0};
    bool reach[MOST_MEMBERS][MOST_MEMBERS] = {{false}};
    for (uint32_t t = 0; t < s->topic_count; t++)
        for (uint32_t p = 0; p < s->topics[t].partitions; p++) {
            uint32_t owner = s->owners[first_of(s, t) + p];
            if (owner == BW_NOBODY) continue;
            load[owner]++;
            for (uint32_t m = 0; m < s->member_count; m++)
                if (subscribed(s, m, t)) reach[owner][m] = true;
        }
    for (size_t k = 0; k < s->member_count; k++)
        for (size_t a = 0; a < s->member_count; a++)
            for (size_t b = 0; b < s->member_count && reach[a][k]; b++) reach[a][b] |= reach[k][b];
    for (size_t a = 0; a < s->member_count; a++)
        for (size_t b = 0; b < s->member_count; b++)
            if (reach[a][b]) assert_true(load[a] <= load[b] + 1);
}

static void test_assignor_kafkas_cases_give_kafkas_results(void **state)
{
    (void)state;
    const char *root = getenv("BW_ASSIGNOR_CASES");
    FILE *f = fopen(root ? root : "tests/unit/broker/assignor_cases.txt", "r");
    assert_non_null(f);
    static scene s;
    int number = 0, equal = 0, sticky = 0, better_balance = 0, fewer_moves = 0;
    while (read_case(f, &s, &number)) {
        assign(&s);
        check_owned(&s);
        uint32_t parts = first_of(&s, (uint32_t)s.topic_count);
        if (s.kind == BW_ASSIGNOR_RANGE || s.kind == BW_ASSIGNOR_ROUNDROBIN) {
            for (uint32_t p = 0; p < parts; p++)
                if (s.owners[p] != s.expected[p])
                    fail_msg("case %d: partition %u is of member %u, Kafka's %u", number, p, s.owners[p], s.expected[p]);
            equal++;
        } else {
            check_balanced(&s);
            uint64_t ours = imbalance(&s, s.owners), kafkas = imbalance(&s, s.expected);
            unsigned our_moves = moved(&s, s.owners), kafkas_moves = moved(&s, s.expected);
            if (ours > kafkas) fail_msg("case %d: imbalance %" PRIu64 ", Kafka's %" PRIu64, number, ours, kafkas);
            if (ours == kafkas && our_moves > kafkas_moves) fail_msg("case %d: %u moved, Kafka's %u", number, our_moves, kafkas_moves);
            sticky++;
            better_balance += ours < kafkas;
            fewer_moves += ours == kafkas && our_moves < kafkas_moves;
        }
        scene_free(&s);
    }
    fclose(f);
    print_message("%d equal to Kafka's; %d sticky, of which %d better balanced and %d with fewer moves\n", equal, sticky, better_balance,
                  fewer_moves);
    assert_true(equal >= 140 && sticky >= 160);
}

/* ---- generated ---- */

static uint64_t seed = 88172645463325252u;
static uint32_t below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % n;
}

static void make_member(scene *s, bool all)
{
    static unsigned number;
    char id[32];
    snprintf(id, sizeof id, "m%u-%u", below(1000), number++);
    uint32_t *list = malloc(MOST_TOPICS * sizeof *list);
    bw_assign_member *m = &s->members[s->member_count++];
    *m = (bw_assign_member){.id = strdup(id), .topics = list};
    snprintf(id, sizeof id, "i%u", number);
    if (below(5) == 0) m->instance = strdup(id);
    for (uint32_t t = 0; t < s->topic_count; t++)
        if (all || below(2)) list[m->topic_count++] = t;
}

/* Everybody owns from now on what he was given. */
static void adopt(scene *s, int32_t generation)
{
    for (uint32_t m = 0; m < s->member_count; m++) {
        bw_assign_part *list = malloc(MOST_PARTS * sizeof *list);
        size_t n = 0;
        for (uint32_t t = 0; t < s->topic_count; t++)
            for (uint32_t p = 0; p < s->topics[t].partitions; p++)
                if (s->owners[first_of(s, t) + p] == m) list[n++] = (bw_assign_part){t, p};
        free((bw_assign_part *)s->members[m].owned);
        s->members[m].owned = list;
        s->members[m].owned_count = n;
        s->members[m].generation = generation;
    }
}

static void drop_member(scene *s, uint32_t m)
{
    free((char *)s->members[m].id);
    free((char *)s->members[m].instance);
    free((uint32_t *)s->members[m].topics);
    free((bw_assign_part *)s->members[m].owned);
    s->members[m] = s->members[--s->member_count];
}

static void test_assignor_generated_groups_keep_every_rule(void **state)
{
    (void)state;
    static scene s;
    for (int round = 0; round < 1500; round++) {
        s = (scene){.kind = (bw_assignor_kind)below(4)};
        bool all = below(2);
        char name[32];
        for (uint32_t n = below(8); s.topic_count <= n;) {
            snprintf(name, sizeof name, "t%u-%zu", below(100), s.topic_count);
            s.topics[s.topic_count++] = (bw_assign_topic){strdup(name), below(20)};
        }
        for (uint32_t n = below(12); s.member_count <= n;) make_member(&s, all);
        for (int step = 1; step <= 4; step++) {
            assign(&s);
            check_owned(&s);
            if (s.kind >= BW_ASSIGNOR_STICKY) {
                check_balanced(&s);
                adopt(&s, step);
                assign(&s); /* again: nothing moves */
                assert_int_equal(moved(&s, s.owners), 0);
            }
            adopt(&s, step);
            if (below(2) && s.member_count > 1) drop_member(&s, below((uint32_t)s.member_count));
            else make_member(&s, all);
        }
        scene_free(&s);
    }
}

/* One of n equal members leaves or comes: exactly the partitions that must move do. */
static void test_assignor_sticky_one_member_changes_the_least_moves(void **state)
{
    (void)state;
    static scene s;
    for (uint32_t n = 2; n <= 30; n++) {
        s = (scene){.kind = BW_ASSIGNOR_STICKY, .topic_count = 2};
        s.topics[0] = (bw_assign_topic){strdup("a"), 57};
        s.topics[1] = (bw_assign_topic){strdup("b"), 40};
        while (s.member_count < n) make_member(&s, true);
        assign(&s);
        adopt(&s, 1);
        drop_member(&s, below(n));
        assign(&s);
        assert_int_equal(moved(&s, s.owners), 0); /* those of the one that left had nobody any more */
        adopt(&s, 2);
        make_member(&s, true);
        assign(&s);
        assert_int_equal(moved(&s, s.owners), 97 / n); /* the newcomer's share */
        scene_free(&s);
    }
}

static void test_assignor_two_claims_of_one_partition_newest_wins_equal_ones_lose(void **state)
{
    (void)state;
    static const uint32_t both[] = {0};
    bw_assign_topic topic = {"t", 2};
    bw_assign_part zero = {0, 0}, one = {0, 1};
    bw_assign_member m[] = {{.id = "a", .topics = both, .topic_count = 1, .owned = &zero, .owned_count = 1, .generation = 4},
                            {.id = "b", .topics = both, .topic_count = 1, .owned = &zero, .owned_count = 1, .generation = 5}};
    uint32_t owners[2];
    assert_int_equal(bw_assign(BW_ASSIGNOR_STICKY, &topic, 1, m, 2, owners), BW_OK);
    assert_int_equal(owners[0], 1);
    m[0].owned = &one;
    m[0].generation = m[1].generation = 5;
    m[1].owned = &one;
    assert_int_equal(bw_assign(BW_ASSIGNOR_STICKY, &topic, 1, m, 2, owners), BW_OK);
    assert_true(owners[0] != owners[1]);
}

static void test_assignor_member_order_is_javas(void **state)
{
    (void)state;
    assert_true(bw_assign_compare_ids("a", "b") < 0);
    assert_true(bw_assign_compare_ids("a", "aa") < 0);
    assert_true(bw_assign_compare_ids("B", "a") < 0);
    assert_true(bw_assign_compare_ids("\xef\xbf\xbd", "\xf0\x9f\x98\x80") > 0); /* U+FFFD after the surrogates of U+1F600 */
    assert_true(bw_assign_compare_ids("\xed\x9f\xbf", "\xf0\x9f\x98\x80") < 0); /* U+D7FF before them */
    assert_int_equal(bw_assign_compare_ids("x", "x"), 0);
}

static void test_assignor_unknown_name_is_refused(void **state)
{
    (void)state;
    bw_assignor_kind kind;
    assert_int_equal(bw_assignor_by_name("sticky", 6, &kind), BW_OK);
    assert_int_equal(kind, BW_ASSIGNOR_STICKY);
    assert_int_equal(bw_assignor_by_name("stick", 5, &kind), BW_ERR_UNSUPPORTED_ASSIGNOR);
    assert_non_null(strstr(bw_error_message(), "cooperative-sticky"));
}

/* 1,000 members, 10,000 partitions in 100 topics; `share` of 100 topics each. Returns milliseconds. */
static int64_t big(bw_assignor_kind kind, uint32_t share, bool grow)
{
    enum { N = 1000, T = 100, P = 100 };
    static bw_assign_topic topics[T];
    static bw_assign_member members[N];
    static uint32_t owners[T * P], lists[N][T];
    static bw_assign_part owned[N][T * P / 8];
    static char ids[N][16], names[T][16];
    for (uint32_t t = 0; t < T; t++) {
        snprintf(names[t], sizeof names[t], "topic%03u", t);
        topics[t] = (bw_assign_topic){names[t], P};
    }
    for (uint32_t m = 0; m < N; m++) {
        snprintf(ids[m], sizeof ids[m], "member%04u", m);
        members[m] = (bw_assign_member){.id = ids[m], .topics = lists[m], .owned = owned[m], .generation = 1};
        for (uint32_t t = 0; t < T; t++)
            if (below(100) < share) lists[m][members[m].topic_count++] = t;
    }
    if (grow) { /* half of them have everything, the others come */
        assert_int_equal(bw_assign(kind, topics, T, members, N / 2, owners), BW_OK);
        for (uint32_t i = 0; i < T * P; i++) {
            bw_assign_member *m = &members[owners[i]];
            assert_true(m->owned_count < T * P / 8);
            owned[owners[i]][m->owned_count++] = (bw_assign_part){i / P, i % P};
        }
    }
    int64_t start = bw_clock_mono_ms();
    assert_int_equal(bw_assign(kind, topics, T, members, N, owners), BW_OK);
    return bw_clock_mono_ms() - start;
}

static void test_assignor_thousand_members_ten_thousand_partitions_is_fast(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++)
        for (int grow = 0; grow < 2; grow++) {
            int64_t alike = big((bw_assignor_kind)kind, 100, grow), different = big((bw_assignor_kind)kind, 50, grow);
            int64_t few = big((bw_assignor_kind)kind, 10, grow);
            print_message("%-18s %s: all topics %" PRId64 " ms, half %" PRId64 " ms, a tenth %" PRId64 " ms\n",
                          bw_assignor_name((bw_assignor_kind)kind), grow ? "half are new" : "new group   ", alike, different, few);
            int64_t slow = getenv("ARM64_RUN") ? 8 : 1; /* it is emulated */
            assert_true(alike < 1000 * slow && different < 5000 * slow && few < 5000 * slow); /* sanitizers and a busy machine included */
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assignor_kafkas_cases_give_kafkas_results),
        cmocka_unit_test(test_assignor_generated_groups_keep_every_rule),
        cmocka_unit_test(test_assignor_sticky_one_member_changes_the_least_moves),
        cmocka_unit_test(test_assignor_two_claims_of_one_partition_newest_wins_equal_ones_lose),
        cmocka_unit_test(test_assignor_member_order_is_javas),
        cmocka_unit_test(test_assignor_unknown_name_is_refused),
        cmocka_unit_test(test_assignor_thousand_members_ten_thousand_partitions_is_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
