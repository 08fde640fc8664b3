/* format/record_headers.c: a record's headers, decoded on demand or all at once.
 *
 * A header is: varint name length, name, varint value length (-1 null), value. Several headers may have one name. */
#include "base/bytes.h"
#include "base/err.h"

#include <busway/record.h>

void bw_header_iter_init(bw_header_iter *it, const bw_record_view *record)
{
    it->at = record->headers_raw;
    it->end = record->headers_raw ? record->headers_raw + record->headers_len : NULL;
    it->left = record->headers_raw ? record->header_count : 0;
}

int bw_header_iter_next(bw_header_iter *it, bw_header *out)
{
    if (it->left == 0) return it->at == it->end ? 0 : -1;
    bw_cursor c = bw_cursor_over(it->at, (size_t)(it->end - it->at));
    int32_t name_len = bw_cursor_varint(&c);
    if (c.bad || name_len < 0) return -1;
    const uint8_t *name = bw_cursor_take(&c, (size_t)name_len);
    int32_t value_len = bw_cursor_varint(&c);
    if (c.bad || value_len < -1) return -1;
    const uint8_t *value = value_len < 0 ? NULL : bw_cursor_take(&c, (size_t)value_len);
    if (c.bad) return -1;
    *out = (bw_header){(const char *)name, (size_t)name_len, value, value_len < 0 ? 0 : (size_t)value_len};
    it->at = c.at;
    it->left--;
    return 1;
}

bw_err bw_record_from_view(const bw_record_view *view, bw_header *headers, size_t max, bw_record *out)
{
    bw_header_iter it;
    int got = 0;
    size_t n = 0;
    if (view->header_count > max)
        return bw_fail(BW_ERR_INVALID_RECORD, "offset %lld has %u headers; at most %zu are taken", (long long)view->offset, view->header_count, max);
    bw_header_iter_init(&it, view);
    while ((got = bw_header_iter_next(&it, &headers[n])) == 1) n++;
    if (got < 0 || n != view->header_count) return bw_fail(BW_ERR_CORRUPT, "offset %lld: its headers can't be read", (long long)view->offset);
    *out = (bw_record){view->key, view->key_len, view->value, view->value_len, headers, n, view->timestamp_ms};
    return BW_OK;
}
