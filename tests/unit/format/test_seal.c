/* format/seal.c: the seal's bytes, what it refuses, and the running Merkle root against the tree built level by level. */
#include "samples.h"

#include "base/crc32c.h"
#include "base/murmur2.h"
#include "format/names.h"

#include <stdlib.h>

static const bw_seal sample_seal = {
    .length = 0x11223344, .base_offset = 1000, .next_offset = 2000, .batches = 77, .root = 0xdeadbeef};

static void test_seal_reads_back_and_has_its_layout(void **state)
{
    (void)state;
    uint8_t data[BW_SEAL_BYTES];
    static const uint8_t head[] = {'B', 'W', 'S', 'E', 'A', 'L', '0', '1', 1, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 0xe8, 0x03};
    bw_seal got;
    bw_seal_encode(data, &sample_seal);
    assert_memory_equal(data, head, sizeof head);
    assert_int_equal(data[32], 77);
    assert_int_equal(data[43], 0xde);
    assert_int_equal(bw_seal_decode(data, sizeof data, &got), BW_OK);
    assert_true(got.length == sample_seal.length && got.base_offset == 1000 && got.next_offset == 2000 && got.batches == 77 &&
                got.root == 0xdeadbeef);
}

static void test_seal_every_cut_and_flipped_bit_is_refused(void **state)
{
    (void)state;
    uint8_t data[BW_SEAL_BYTES + 1] = {0};
    bw_seal got;
    bw_seal_encode(data, &sample_seal);
    guard g = guard_open(sizeof data);
    for (size_t cut = 0; cut < BW_SEAL_BYTES; cut++)
        assert_int_equal(bw_seal_decode(guard_copy(&g, data, cut), cut, &got), BW_ERR_CORRUPT);
    assert_int_equal(bw_seal_decode(data, BW_SEAL_BYTES + 1, &got), BW_ERR_CORRUPT);
    for (size_t bit = 0; bit < BW_SEAL_BYTES * 8; bit++) {
        uint8_t *copy = guard_copy(&g, data, BW_SEAL_BYTES);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(bw_seal_decode(copy, BW_SEAL_BYTES, &got), BW_OK);
    }
    guard_close(&g);
}

static void test_seal_newer_format_and_impossible_offsets_are_refused(void **state)
{
    (void)state;
    uint8_t data[BW_SEAL_BYTES];
    bw_seal got, backwards = sample_seal;
    bw_seal_encode(data, &sample_seal);
    data[8] = 2;
    assert_int_equal(bw_seal_decode(data, sizeof data, &got), BW_ERR_NEWER_FORMAT);
    backwards.next_offset = 999;
    bw_seal_encode(data, &backwards);
    assert_int_equal(bw_seal_decode(data, sizeof data, &got), BW_ERR_CORRUPT);
    backwards.base_offset = -1;
    bw_seal_encode(data, &backwards);
    assert_int_equal(bw_seal_decode(data, sizeof data, &got), BW_ERR_CORRUPT);
}

/* The definition: pair neighbours level by level, an odd last one is carried up. */
static uint32_t merkle_by_levels(uint32_t *nodes, size_t count)
{
    if (count == 0) return 0;
    while (count > 1) {
        size_t up = 0;
        for (size_t i = 0; i < count; i += 2) {
            uint32_t pair[2] = {nodes[i], i + 1 < count ? nodes[i + 1] : 0};
            nodes[up++] = i + 1 < count ? bw_murmur2(pair, 8) : nodes[i];
        }
        count = up;
    }
    return nodes[0];
}

static void leaf_bytes(uint8_t out[21], uint32_t i)
{
    uint64_t seed = i * 31u + 1;
    for (size_t at = 0; at < 21; at++) out[at] = (uint8_t)random_next(&seed);
}

static void test_merkle_every_count_matches_the_tree_by_levels(void **state)
{
    (void)state;
    bw_merkle m = {.count = 0};
    uint32_t nodes[300];
    assert_int_equal(bw_merkle_root(&m), 0);
    for (uint32_t count = 1; count <= 300; count++) {
        uint8_t leaf[21];
        leaf_bytes(leaf, count - 1);
        bw_merkle_add(&m, leaf);
        assert_true(m.count == count);
        for (uint32_t i = 0; i < count; i++) {
            leaf_bytes(leaf, i);
            nodes[i] = bw_crc32c(leaf, 21);
        }
        assert_true(bw_merkle_root(&m) == merkle_by_levels(nodes, count));
    }
}

static void test_merkle_many_at_once_match_one_by_one(void **state)
{
    (void)state;
    static uint8_t leaves[200][21];
    const uint8_t *first[200];
    for (uint32_t i = 0; i < 200; i++) {
        leaf_bytes(leaves[i], i);
        first[i] = leaves[i];
    }
    for (size_t piece = 1; piece <= 70; piece++) {
        bw_merkle one = {.count = 0}, many = {.count = 0};
        for (size_t at = 0; at < 200; at += piece) {
            size_t n = at + piece < 200 ? piece : 200 - at;
            for (size_t i = at; i < at + n; i++) bw_merkle_add(&one, leaves[i]);
            bw_merkle_add_many(&many, first + at, n);
            assert_true(many.count == one.count && bw_merkle_root(&many) == bw_merkle_root(&one));
        }
    }
}

static void test_merkle_changed_swapped_or_missing_leaf_changes_the_root(void **state)
{
    (void)state;
    enum { LEAVES = 37 };
    uint8_t leaves[LEAVES][21];
    bw_merkle m = {.count = 0};
    for (uint32_t i = 0; i < LEAVES; i++) {
        leaf_bytes(leaves[i], i);
        bw_merkle_add(&m, leaves[i]);
    }
    uint32_t root = bw_merkle_root(&m);
    for (uint32_t hit = 0; hit < LEAVES; hit++) {
        bw_merkle changed = {.count = 0}, missing = {.count = 0}, swapped = {.count = 0};
        for (uint32_t i = 0; i < LEAVES; i++) {
            uint8_t leaf[21];
            memcpy(leaf, leaves[i], 21);
            if (i == hit) leaf[hit % 21] ^= 0x10;
            bw_merkle_add(&changed, leaf);
            if (i != hit) bw_merkle_add(&missing, leaves[i]);
            uint32_t from = i == hit ? (hit + 1) % LEAVES : i == (hit + 1) % LEAVES ? hit : i;
            bw_merkle_add(&swapped, leaves[from]);
        }
        assert_true(bw_merkle_root(&changed) != root);
        assert_true(bw_merkle_root(&missing) != root);
        assert_true(bw_merkle_root(&swapped) != root);
    }
}

/* With a CRC over the pairs this would go unseen: the two changes would cancel. */
static void test_merkle_same_change_in_any_two_leaves_changes_the_root(void **state)
{
    (void)state;
    enum { LEAVES = 20 };
    bw_merkle m = {.count = 0};
    uint8_t leaf[21];
    for (uint32_t i = 0; i < LEAVES; i++) {
        leaf_bytes(leaf, i);
        bw_merkle_add(&m, leaf);
    }
    for (uint32_t one = 0; one < LEAVES; one++) {
        for (uint32_t two = one + 1; two < LEAVES; two++) {
            bw_merkle changed = {.count = 0};
            for (uint32_t i = 0; i < LEAVES; i++) {
                leaf_bytes(leaf, i);
                if (i == one || i == two) leaf[15] ^= 1; /* the leader epoch */
                bw_merkle_add(&changed, leaf);
            }
            assert_true(bw_merkle_root(&changed) != bw_merkle_root(&m));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seal_reads_back_and_has_its_layout),
        cmocka_unit_test(test_seal_every_cut_and_flipped_bit_is_refused),
        cmocka_unit_test(test_seal_newer_format_and_impossible_offsets_are_refused),
        cmocka_unit_test(test_merkle_every_count_matches_the_tree_by_levels),
        cmocka_unit_test(test_merkle_many_at_once_match_one_by_one),
        cmocka_unit_test(test_merkle_changed_swapped_or_missing_leaf_changes_the_root),
        cmocka_unit_test(test_merkle_same_change_in_any_two_leaves_changes_the_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
