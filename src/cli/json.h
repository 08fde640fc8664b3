/* cli/json.h: records as JSON lines, in kcat's envelope, and JSON strings.
 *
 * JSON text is UTF-8; keys, values and headers are any bytes. kcat copies such bytes raw into the line, which is then no JSON.
 * Here the line is always valid and nothing is lost: text goes as it is; in a string that is not UTF-8 each wrong byte shows as
 * U+FFFD, and a member with the same name and "_base64" behind it ("payload_base64", "key_base64", "headers_base64") holds the
 * exact bytes. A null key, value or header value is JSON null; an empty one is "". */
#ifndef BW_CLI_JSON_H
#define BW_CLI_JSON_H

#include "cli/out.h"

#include <busway/record.h>

/* cli_json_string: quoted and escaped. Returns false when data is not UTF-8 (the line shows U+FFFD in the wrong places). */
bool cli_json_string(cli_out *o, const void *data, size_t len);
void cli_json_base64(cli_out *o, const void *data, size_t len);
/* cli_json_fields: ,"headers":[…],"key":…,"payload":… and the _base64 members that are needed. */
void cli_json_fields(cli_out *o, const bw_record_view *record);
/* cli_json_envelope: the whole object, without a newline. */
void cli_json_envelope(cli_out *o, const char *topic, int32_t partition, bw_timestamp_type type, const bw_record_view *record);

#endif
