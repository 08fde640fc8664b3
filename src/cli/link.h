/* cli/link.h: links as a table, for `link list` and `status`. */
#ifndef BW_CLI_LINK_H
#define BW_CLI_LINK_H

#include <jansson.h>

void cli_links_print(const json_t *list, const char *indent);

#endif
