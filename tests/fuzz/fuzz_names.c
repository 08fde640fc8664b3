/* Names and small files: what a parser accepts, its writer makes again byte for byte (checkpoints: entry for entry).
 * First byte: which parser. */
#include "fuzz/fuzz.h"

#include "format/names.h"

static void fuzz_text_names(const char *text)
{
    char topic[BW_TOPIC_NAME_MAX + 1], again[BW_PARTITION_DIR_MAX], segment[BW_SEGMENT_NAME_MAX];
    int32_t partition;
    int64_t base_offset;
    uint32_t seq;
    bw_uuid id;
    char hex[33], base64[23];
    if (bw_partition_dir_parse(text, topic, &partition)) {
        FUZZ_CHECK(partition >= 0 && bw_topic_name_check(topic, strlen(topic)) == BW_OK);
        bw_partition_dir_name(again, topic, partition);
        FUZZ_CHECK(strcmp(again, text) == 0);
    }
    if (bw_segment_name_parse(text, ".log", &base_offset)) {
        FUZZ_CHECK(base_offset >= 0);
        bw_segment_name(segment, base_offset, ".log");
        FUZZ_CHECK(strcmp(segment, text) == 0);
    }
    if (bw_spare_name_parse(text, &seq)) {
        bw_spare_name(segment, seq);
        FUZZ_CHECK(strcmp(segment, text) == 0);
    }
    if (bw_uuid_from_hex(text, &id)) {
        bw_uuid_hex(&id, hex);
        FUZZ_CHECK(strcmp(hex, text) == 0);
    }
    if (bw_uuid_from_base64(text, &id)) {
        bw_uuid_base64(&id, base64);
        FUZZ_CHECK(strcmp(base64, text) == 0);
    }
    FUZZ_CHECK(bw_topic_names_collide(text, text));
}

static void fuzz_metadata(const char *text, size_t len)
{
    bw_uuid id, same;
    char again[64];
    if (bw_partition_metadata_decode(text, len, &id) != BW_OK) return;
    size_t made = bw_partition_metadata_encode(again, &id); /* "version: 00" and a missing last newline are read too, as Kafka does */
    FUZZ_CHECK(len + 1 >= made && bw_partition_metadata_decode(again, made, &same) == BW_OK && bw_uuid_equal(&id, &same));
}

static void fuzz_checkpoint(const char *text, size_t len)
{
    bw_epoch_entry *entries, *again;
    size_t count, again_count;
    if (bw_epoch_checkpoint_decode(text, len, &entries, &count) != BW_OK) return;
    FUZZ_CHECK(count <= len / 3);
    bw_buf out = {NULL, 0, 0};
    FUZZ_CHECK(bw_epoch_checkpoint_encode(entries, count, &out) == BW_OK);
    FUZZ_CHECK(bw_epoch_checkpoint_decode((const char *)out.data, out.len, &again, &again_count) == BW_OK);
    FUZZ_CHECK(again_count == count);
    for (size_t i = 0; i < count; i++)
        FUZZ_CHECK(entries[i].epoch == again[i].epoch && entries[i].start_offset == again[i].start_offset);
    bw_buf_free(&out);
    free(entries);
    free(again);
}

static void fuzz_seal(const uint8_t *data, size_t len)
{
    bw_seal seal;
    uint8_t again[BW_SEAL_BYTES];
    if (bw_seal_decode(data, len, &seal) != BW_OK) return;
    bw_seal_encode(again, &seal);
    FUZZ_CHECK(len == BW_SEAL_BYTES && memcmp(again, data, len) == 0);
}

static void fuzz_seal_fields(const uint8_t *data, size_t len)
{
    bw_seal seal, back;
    uint8_t out[BW_SEAL_BYTES];
    bw_merkle m = {.count = 0};
    if (len < 32) return;
    for (size_t at = 0; at + 21 <= len; at += 21) bw_merkle_add(&m, data + at);
    seal = (bw_seal){bw_get_be32(data), (int64_t)bw_get_be64(data + 4), (int64_t)bw_get_be64(data + 12), m.count,
                     bw_merkle_root(&m)};
    bw_seal_encode(out, &seal);
    bool sound = seal.base_offset >= 0 && seal.next_offset >= seal.base_offset;
    FUZZ_CHECK((bw_seal_decode(out, sizeof out, &back) == BW_OK) == sound);
    if (sound) FUZZ_CHECK(back.length == seal.length && back.batches == seal.batches && back.root == seal.root);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4096) return 0;
    uint8_t mode = data[0];
    data++;
    size--;
    char *text = malloc(size + 1);
    FUZZ_CHECK(text);
    memcpy(text, data, size);
    text[size] = '\0';
    switch (mode % 6) {
    case 0:
        fuzz_text_names(text);
        break;
    case 1:
        bw_topic_name_check((const char *)data, size);
        break;
    case 2:
        fuzz_metadata((const char *)data, size);
        break;
    case 3:
        fuzz_checkpoint((const char *)data, size);
        break;
    case 4:
        fuzz_seal(data, size);
        break;
    default:
        fuzz_seal_fields(data, size);
    }
    free(text);
    return 0;
}
