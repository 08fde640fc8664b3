/* Configuration files, option values and stored topic records: any bytes. */
#include "fuzz/fuzz.h"

#include "broker/config.h"
#include "meta/record.h"


static int fuzz_input(const uint8_t *data, size_t size)
{
    bw_daemon_config c;
    bw_daemon_config_init(&c);
    if (!c.topic_defaults) return 0;
    if (!bw_daemon_config_parse(&c, "fuzz", (const char *)data, size)) {
        bw_daemon_config copy; /* what was read can be printed and read again */
        if (bw_daemon_config_copy(&copy, &c)) __builtin_trap();
        bw_daemon_config_fini(&copy);
    }
    size_t name = size ? data[0] % 32 : 0;
    if (name < size) {
        bw_topic_config t = *c.topic_defaults;
        (void)bw_topic_config_set(&t, c.topic_defaults, (const char *)data + 1, name, (const char *)data + 1 + name, size - 1 - name);
    }
    bw_daemon_config_fini(&c);
    bw_meta_topic topic;
    if (!bw_meta_topic_decode("t", 1, data, size, &topic)) bw_meta_topic_fini(&topic);
    bw_recovery_point point;
    (void)bw_meta_point_decode(data, size, &point);
    return 0;
}
