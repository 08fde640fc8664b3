/* cli/doc.c: the library's JSON documents. They come from a daemon that may be newer: every member may be missing. */
#include "cli/doc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

json_t *cli_doc_parse(const cli *c, char *text)
{
    json_error_t error = {0};
    json_t *doc = text ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error) : NULL;
    if (!doc)
        cli_error(c, CLI_FAILURE, "the library's answer is not JSON: %s at byte %d", text ? error.text : "no memory",
                  error.position);
    bw_free(text);
    return doc;
}

void cli_doc_print(const json_t *doc)
{
    json_dumpf(doc, stdout, JSON_ENCODE_ANY | (isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT));
    putchar('\n');
}

int64_t cli_doc_int(const json_t *object, const char *name, int64_t otherwise)
{
    const json_t *v = json_object_get(object, name);
    if (json_is_integer(v)) return json_integer_value(v);
    if (json_is_real(v)) return (int64_t)json_real_value(v);
    return otherwise;
}

const char *cli_doc_text(const json_t *object, const char *name, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : otherwise;
}

const char *cli_doc_scalar(const json_t *value, char *out, size_t size)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_STRING:
        snprintf(out, size, "%s", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(out, size, "%" PRId64, (int64_t)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(out, size, "%.3f", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(out, size, "yes");
        break;
    case JSON_FALSE:
        snprintf(out, size, "no");
        break;
    default:
        snprintf(out, size, "%s", "");
        break;
    }
    return out;
}

json_t *cli_doc_topics(const cli *c, bw_bus *bus, const char *topic, int *exit_code)
{
    char *text = NULL;
    bw_err e = bw_topics_describe(bus, topic, &text);
    if (e != BW_OK) {
        *exit_code = cli_error_bw(c, e, topic ? "cannot describe %s" : "cannot list topics%s", topic ? topic : "");
        return NULL;
    }
    json_t *doc = cli_doc_parse(c, text);
    if (doc && !json_is_array(doc)) {
        json_decref(doc);
        doc = NULL;
        cli_error(c, CLI_FAILURE, "the daemon's list of topics is not a list");
    }
    *exit_code = doc ? CLI_OK : CLI_FAILURE;
    return doc;
}

static bool has_int(cli_table *t, size_t column, const json_t *object, const char *name, json_int_t *out)
{
    const json_t *v = json_object_get(object, name);
    bool has = json_is_integer(v);
    if (has) *out = json_integer_value(v);
    else cli_table_cell(t, column, "-");
    return has;
}

void cli_doc_cell_int(cli_table *t, size_t column, const json_t *object, const char *name)
{
    json_int_t n;
    if (has_int(t, column, object, name, &n)) cli_table_cell(t, column, "%" JSON_INTEGER_FORMAT, n);
}

void cli_doc_cell_ms(cli_table *t, size_t column, const json_t *object, const char *name)
{
    json_int_t n;
    char text[24];
    if (has_int(t, column, object, name, &n)) cli_table_cell(t, column, "%s", n < 0 ? "-" : n == 0 ? "0" : cli_human_ns(text, (double)n * 1e6));
}

void cli_doc_cell_bytes(cli_table *t, size_t column, const json_t *object, const char *name)
{
    json_int_t n;
    char text[24];
    if (has_int(t, column, object, name, &n)) cli_table_cell(t, column, "%s", cli_human_bytes(text, (double)n));
}
