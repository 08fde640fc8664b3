/* base/uuid.h: 16-byte ids: as 32 hex digits for file names, and as Kafka's 22-character URL-safe base64 in partition.metadata. */
#ifndef BW_BASE_UUID_H
#define BW_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

typedef struct bw_uuid { uint8_t b[16]; } bw_uuid;

void bw_uuid_hex(const bw_uuid *id, char out[33]);
bool bw_uuid_from_hex(const char *text, bw_uuid *out);
void bw_uuid_base64(const bw_uuid *id, char out[23]);
bool bw_uuid_from_base64(const char *text, bw_uuid *out);
bool bw_uuid_equal(const bw_uuid *a, const bw_uuid *b);

#endif
