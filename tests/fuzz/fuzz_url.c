/* Bus URLs: whatever is taken has an absolute, bounded path, and what is printed of it is taken again as the same. */
#include "fuzz/fuzz.h"

#include "client/url.h"

static bw_url first, second;

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size > 3 * PATH_MAX) return 0;
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    bw_err e = bw_url_parse(text, &first);
    if (e) {
        FUZZ_CHECK(e == BW_ERR_INVALID_ARGUMENT || e == BW_ERR_UNSUPPORTED);
        FUZZ_CHECK(bw_error_message()[0]);
    } else {
        bool folder = !first.remote && !first.kafka;
        FUZZ_CHECK((!folder || first.path[0] == '/') && strlen(first.path) < PATH_MAX);
        FUZZ_CHECK((!folder || strstr(first.path, "//") == NULL) && strlen(first.idle_exit) < sizeof first.idle_exit);
        static char printed[3 * PATH_MAX + 64];
        bw_url_print(&first, printed, sizeof printed);
        FUZZ_CHECK(bw_url_parse(printed, &second) == BW_OK);
        FUZZ_CHECK(second.embedded == first.embedded && second.remote == first.remote && second.at.tls == first.at.tls);
        FUZZ_CHECK(first.kafka || strcmp(second.path, first.path) == 0); /* what a cluster's options say is not printed */
    }
    free(text);
    return 0;
}
