/* cli/doc.h: the JSON documents of the library (topics, status) for people: typed look-ups that never fail, printing. */
#ifndef BW_CLI_DOC_H
#define BW_CLI_DOC_H

#include "cli/cli.h"
#include "cli/table.h"

#include <jansson.h>

/* cli_doc_parse: takes text (freed with bw_free). NULL: the error line was printed. */
json_t *cli_doc_parse(const cli *c, char *text);
/* cli_doc_print: on stdout; indented when it is a terminal, else one line. */
void cli_doc_print(const json_t *doc);

int64_t cli_doc_int(const json_t *object, const char *name, int64_t otherwise);
const char *cli_doc_text(const json_t *object, const char *name, const char *otherwise);
/* cli_doc_scalar: any scalar as text in a caller's buffer; "" when absent, null or not a scalar. */
const char *cli_doc_scalar(const json_t *value, char *out, size_t size);

/* Cells of a table from an object's members; "-" where it is null or not there: a number; milliseconds for people; bytes for people. */
void cli_doc_cell_int(cli_table *t, size_t column, const json_t *object, const char *name);
void cli_doc_cell_ms(cli_table *t, size_t column, const json_t *object, const char *name);
void cli_doc_cell_bytes(cli_table *t, size_t column, const json_t *object, const char *name);

/* cli_doc_topics: describe one topic (NULL: all) as an array; NULL: printed, *exit_code says what to return. */
json_t *cli_doc_topics(const cli *c, bw_bus *bus, const char *topic, int *exit_code);

#endif
