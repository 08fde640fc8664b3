/* link/spec.c: see spec.h. One table of options: how each is read, printed and checked. */
#include "link/spec.h"

#include "format/codec.h"
#include "format/names.h"
#include "format/pattern.h"

#include <stdio.h>
#include <stdlib.h>

enum { PATTERNS_MAX = 256, OPTIONS_MAX = 256, EXTRA_MAX = 128 };

typedef enum kind { TEXT, WORD, BOOL, BYTES, PATTERNS, HEADER } kind;

typedef struct option {
    const char *name;
    kind kind;
    size_t at;
    const char *words; /* WORD: name of 0, 1, … separated by '|' */
    size_t size;       /* WORD: of the field */
} option;

#define AT(member) offsetof(bw_link_spec, member)
static const option options[] = {
    {"url", TEXT, AT(url), NULL, 0},
    {"direction", WORD, AT(push), "pull|push", sizeof(bool)},
    {"mode", WORD, AT(mode), "mirror|merge", sizeof(bw_link_mode)},
    {"topics", PATTERNS, AT(topics), NULL, 0},
    {"prefix", TEXT, AT(prefix), NULL, 0},
    {"rename", TEXT, AT(rename), NULL, 0},
    {"key-prefix", TEXT, AT(key_prefix), NULL, 0},
    {"header", HEADER, AT(header), NULL, 0},
    {"rate", BYTES, AT(rate), NULL, 0},
    {"compression", WORD, AT(codec), "none|gzip|snappy|lz4|zstd", sizeof(bw_codec)},
    {"configs", BOOL, AT(topic_configs), NULL, 0},
    {"groups", PATTERNS, AT(groups), NULL, 0},
    {"log-start", WORD, AT(follow_start), "keep|follow", sizeof(bool)},
    {"durable", BOOL, AT(durable), NULL, 0},
    {"paused", BOOL, AT(paused), NULL, 0},
};
enum { OPTION_COUNT = sizeof options / sizeof options[0] };

static void *field(bw_link_spec *s, const option *o) { return (char *)s + o->at; }

/* ---- patterns ---- */

static void patterns_free(bw_patterns *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->items[i].text);
        if (!p->items[i].regex) continue;
        regfree(p->items[i].regex);
        free(p->items[i].regex);
    }
    free(p->items);
    *p = (bw_patterns){0};
}

static bw_err compile(bw_pattern *p, size_t *cost)
{
    regex_t *r = calloc(1, sizeof *r);
    if (!r) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    bw_err e = bw_pattern_compile(p->text + 1, strlen(p->text + 1), r, cost);
    if (e) free(r);
    else p->regex = r;
    return e;
}

static bw_err pattern_take(const char *from, size_t len, bw_pattern *out, size_t *cost)
{
    *out = (bw_pattern){0};
    const char *colon = NULL;
    for (size_t i = 0; i < len; i++)
        if (from[i] == ':') colon = from + i;
    if (colon) {
        char number[16] = {0}, *end;
        size_t n = (size_t)(from + len - colon - 1);
        if (n == 0 || n >= sizeof number) return bw_fail(BW_ERR_INVALID_ARGUMENT, "'%.*s': a priority is a number, 0 to 1000", (int)len, from);
        memcpy(number, colon + 1, n);
        long v = strtol(number, &end, 10);
        if (*end || v < 0 || v > 1000) return bw_fail(BW_ERR_INVALID_ARGUMENT, "'%.*s': a priority is a number, 0 to 1000", (int)len, from);
        out->priority = (int32_t)v;
        len = (size_t)(colon - from);
    }
    if (!len || len > BW_LINK_TEXT_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a name is empty");
    if (!(out->text = bw_text_copy(from, len))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    return out->text[0] == '^' ? compile(out, cost) : BW_OK;
}

static bw_err patterns_parse(const char *value, size_t len, bw_patterns *out)
{
    bw_patterns p = {0};
    bw_err e = BW_OK;
    size_t cost = 0;
    if (len && !(p.items = calloc(PATTERNS_MAX, sizeof *p.items))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    for (size_t at = 0; !e && at < len;) {
        const char *comma = memchr(value + at, ',', len - at);
        size_t n = comma ? (size_t)(comma - value) - at : len - at;
        if (p.count == PATTERNS_MAX) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "more than %d names", PATTERNS_MAX);
        else {
            e = pattern_take(value + at, n, &p.items[p.count], &cost);
            p.count++;
        }
        at += n + 1;
    }
    if (e) patterns_free(&p);
    else {
        patterns_free(out);
        *out = p;
    }
    return e;
}

bool bw_patterns_match(const bw_patterns *p, const char *name, int32_t *priority)
{
    for (size_t i = 0; i < p->count; i++) {
        const bw_pattern *x = &p->items[i];
        bool hit = x->regex ? bw_pattern_means(x->regex, name) : !strcmp(x->text, name);
        if (!hit) continue;
        if (priority) *priority = x->priority;
        return true;
    }
    return false;
}

/* ---- options ---- */

static const option *find(const char *name, size_t len)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strlen(options[i].name) == len && !memcmp(options[i].name, name, len)) return &options[i];
    return NULL;
}

static bw_err text_set(char **at, const char *value, size_t len)
{
    char *copy = NULL;
    if (value && len && !(copy = bw_text_copy(value, len))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    free(*at);
    *at = copy;
    return BW_OK;
}

static bw_err word_parse(const option *o, const char *value, size_t len, int *out)
{
    const char *w = o->words;
    for (int n = 0;; n++) {
        size_t k = strcspn(w, "|");
        if (k == len && !memcmp(w, value, len)) {
            *out = n;
            return BW_OK;
        }
        if (!w[k]) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s = %.*s; allowed: %s", o->name, (int)(len < 60 ? len : 60), value, o->words);
        w += k + 1;
    }
}

static bw_err bytes_parse(const option *o, const char *value, size_t len, int64_t *out)
{
    char text[32] = {0}, *end = text;
    if (len < sizeof text) memcpy(text, value, len);
    double v = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : -1;
    double unit = *end == 'K' || *end == 'k' ? 1024 : *end == 'M' ? 1048576 : *end == 'G' ? 1073741824 : 1;
    if (v < 0 || end == text || (unit > 1 && end[1]) || (unit <= 1 && *end) || v * unit > 1e15)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s = %.*s: bytes a second, with K, M or G behind it if you like; 0: no limit", o->name,
                       (int)(len < 60 ? len : 60), value);
    *out = (int64_t)(v * unit);
    return BW_OK;
}

static bw_err header_parse(bw_link_spec *s, const char *value, size_t len)
{
    const char *equals = len ? memchr(value, '=', len) : NULL;
    size_t n = equals ? (size_t)(equals - value) : len;
    if (len && !n) return bw_fail(BW_ERR_INVALID_ARGUMENT, "header = %.*s: NAME or NAME=VALUE", (int)(len < 60 ? len : 60), value);
    bw_err e = text_set(&s->header, value, n);
    return e ? e : text_set(&s->header_value, equals ? equals + 1 : NULL, equals ? len - n - 1 : 0);
}

/* Options of other endpoints are kept as given, in one block each: name, NUL, value, NUL. */
static bw_err extra_set(bw_link_spec *s, const char *name, size_t name_len, const char *value, size_t len)
{
    size_t i = 0;
    while (i < s->extra_count && !(s->extra[i].name.len == name_len && !memcmp(s->extra[i].name.data, name, name_len))) i++;
    if (i < s->extra_count) {
        free((char *)(uintptr_t)s->extra[i].name.data);
        memmove(&s->extra[i], &s->extra[i + 1], (s->extra_count - i - 1) * sizeof *s->extra);
        s->extra_count--;
    }
    if (!value) return BW_OK;
    if (s->extra_count == EXTRA_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "more than %d options of one kind", EXTRA_MAX);
    bw_config_pair *grown = realloc(s->extra, (s->extra_count + 1) * sizeof *grown);
    if (grown) s->extra = grown;
    char *block = grown ? malloc(name_len + len + 2) : NULL;
    if (!block) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    memcpy(block, name, name_len);
    block[name_len] = 0;
    memcpy(block + name_len + 1, value, len);
    block[name_len + 1 + len] = 0;
    s->extra[s->extra_count++] = (bw_config_pair){{block, name_len}, {block + name_len + 1, len}, true};
    return BW_OK;
}

bw_err bw_link_spec_set(bw_link_spec *s, const char *name, size_t name_len, const char *value, size_t value_len)
{
    const option *o = find(name, name_len);
    bw_err e = BW_OK;
    int word = 0;
    if (value_len > BW_LINK_TEXT_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%.*s is longer than %u bytes",
                                                     (int)(name_len < 60 ? name_len : 60), name, BW_LINK_TEXT_MAX);
    if (value && value_len && memchr(value, 0, value_len)) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%.*s has a NUL byte",
                                                                          (int)(name_len < 60 ? name_len : 60), name);
    if (!o && name_len > 6 && name_len <= 200 && !memcmp(name, "kafka.", 6)) return extra_set(s, name, name_len, value, value_len);
    if (!o)
        return bw_fail(BW_ERR_INVALID_ARGUMENT,
                       "unknown option '%.*s' of a link; there are url, direction, mode, topics, prefix, rename, key-prefix, header, rate, "
                       "compression, configs, groups, log-start, durable, paused, kafka.…",
                       (int)(name_len < 60 ? name_len : 60), name);
    switch (o->kind) {
    case TEXT: return text_set(field(s, o), value, value_len);
    case HEADER: return header_parse(s, value ? value : "", value ? value_len : 0);
    case PATTERNS:
        e = patterns_parse(value ? value : "", value ? value_len : 0, field(s, o));
        return e ? bw_error_context(e, "%s", o->name) : BW_OK;
    case BYTES:
        if (!value) *(int64_t *)field(s, o) = 0;
        return value ? bytes_parse(o, value, value_len, field(s, o)) : BW_OK;
    case BOOL:
        e = value ? word_parse(&(option){o->name, WORD, 0, "false|true", 0}, value, value_len, &word) : BW_OK;
        if (!e) *(bool *)field(s, o) = word != 0;
        return e;
    case WORD:
        e = value ? word_parse(o, value, value_len, &word) : BW_OK;
        if (!e && o->size == sizeof(bool)) *(bool *)field(s, o) = word != 0;
        else if (!e) memcpy(field(s, o), &word, sizeof word);
        return e;
    }
    return BW_OK;
}

static const char *word_of(const option *o, int n, char *out, size_t size)
{
    const char *w = o->words;
    while (n-- > 0) w += strcspn(w, "|") + 1;
    snprintf(out, size, "%.*s", (int)strcspn(w, "|"), w);
    return out;
}

static bw_err patterns_print(const bw_patterns *p, bw_buf *out)
{
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < p->count; i++) {
        char priority[16] = "";
        if (p->items[i].priority) snprintf(priority, sizeof priority, ":%d", p->items[i].priority);
        if (i) e = bw_buf_append(out, ",", 1);
        if (!e) e = bw_buf_append(out, p->items[i].text, strlen(p->items[i].text));
        if (!e) e = bw_buf_append(out, priority, strlen(priority));
    }
    return e ? e : bw_buf_append(out, "", 1);
}

/* NULL: the default, or no memory. */
static const char *print(const bw_link_spec *s, const option *o, bw_buf *out, bw_err *e)
{
    const void *at = (const char *)s + o->at;
    char text[64] = "";
    int word;
    out->len = 0;
    switch (o->kind) {
    case TEXT: return *(char *const *)at;
    case HEADER:
        if (!s->header) return NULL;
        *e = bw_buf_append(out, s->header, strlen(s->header));
        if (!*e && s->header_value) *e = bw_buf_append(out, "=", 1);
        if (!*e && s->header_value) *e = bw_buf_append(out, s->header_value, strlen(s->header_value));
        if (!*e) *e = bw_buf_append(out, "", 1);
        return *e ? NULL : (const char *)out->data;
    case PATTERNS:
        if (!((const bw_patterns *)at)->count) return NULL;
        *e = patterns_print(at, out);
        return *e ? NULL : (const char *)out->data;
    case BYTES: snprintf(text, sizeof text, "%lld", (long long)*(const int64_t *)at); break;
    case BOOL: snprintf(text, sizeof text, "%s", *(const bool *)at ? "true" : "false"); break;
    case WORD:
        if (o->size == sizeof(bool)) word = *(const bool *)at;
        else memcpy(&word, at, sizeof word);
        word_of(o, word, text, sizeof text);
        break;
    }
    bool is_default = o->kind == BYTES ? !strcmp(text, "0") : o->kind == BOOL ? !strcmp(text, "false") : !strncmp(o->words, text, strlen(text));
    if (is_default) return NULL;
    *e = bw_buf_append(out, text, strlen(text) + 1);
    return *e ? NULL : (const char *)out->data;
}

void bw_link_spec_each(const bw_link_spec *s, void (*fn)(void *opaque, const char *name, const char *value), void *opaque)
{
    bw_buf text = {0};
    bw_err e = BW_OK;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *value = print(s, &options[i], &text, &e);
        if (value) fn(opaque, options[i].name, value);
    }
    for (size_t i = 0; i < s->extra_count; i++) fn(opaque, s->extra[i].name.data, s->extra[i].value.data);
    bw_buf_free(&text);
}

bool bw_link_spec_is_cluster(const bw_link_spec *s) { return s->url && !strncmp(s->url, "kafka://", 8); }

bw_err bw_link_spec_check(const bw_link_spec *s)
{
    if (!s->url) return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s' has no url: where is the peer?", s->name);
    if (!s->topics.count) return bw_fail(BW_ERR_INVALID_ARGUMENT,
                                         "link '%s' has no topics: names, or '^' and a pattern, separated by commas", s->name);
    if (s->rename && (s->topics.count != 1 || s->topics.items[0].regex))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s': rename needs exactly one topic, by its name", s->name);
    if (s->rename && s->prefix) return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s': rename or prefix, not both", s->name);
    if (s->groups.count && s->mode == BW_LINK_MERGE)
        return bw_fail(BW_ERR_INVALID_ARGUMENT,
                       "link '%s': the offsets of a merge are its own: groups' committed offsets travel with mirrors only", s->name);
    if (s->follow_start && (s->mode == BW_LINK_MERGE || bw_link_spec_is_cluster(s)))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s': log-start=follow is for mirrors of another daemon", s->name);
    if (bw_link_spec_is_cluster(s) && s->push && s->mode == BW_LINK_MIRROR)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s': a Kafka cluster gives records offsets of its own: mode=merge", s->name);
    if (bw_link_spec_is_cluster(s) && s->groups.count)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "link '%s': groups' offsets do not travel from or to a Kafka cluster; busway migrate copies them",
                       s->name);
    const char *name = s->rename ? s->rename : s->prefix;
    if (name && s->rename && bw_topic_name_check(name, strlen(name)) != BW_OK) return bw_error_context(BW_ERR_INVALID_TOPIC,
                                                                                                       "link '%s': rename", s->name);
    return BW_OK;
}

bw_err bw_link_spec_init(bw_link_spec *s, bw_str name)
{
    *s = (bw_link_spec){0};
    if (!name.len || name.len > BW_LINK_NAME_MAX || bw_topic_name_check(name.data, name.len) != BW_OK)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a link's name has 1 to %u letters, digits, '.', '_' or '-'", BW_LINK_NAME_MAX);
    memcpy(s->name, name.data, name.len);
    return BW_OK;
}

void bw_link_spec_fini(bw_link_spec *s)
{
    char **texts[] = {&s->url, &s->prefix, &s->rename, &s->key_prefix, &s->header, &s->header_value};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) free(*texts[i]);
    patterns_free(&s->topics);
    patterns_free(&s->groups);
    for (size_t i = 0; i < s->extra_count; i++) free((char *)(uintptr_t)s->extra[i].name.data);
    free(s->extra);
    bw_buf_free(&s->text);
    *s = (bw_link_spec){0};
}

/* ---- the record ---- */

struct encoding {
    bw_buf *out;
    uint32_t count;
    bw_err error;
};

static void encode_one(void *opaque, const char *name, const char *value)
{
    struct encoding *x = opaque;
    uint8_t n[4];
    x->count++;
    bw_put_be16(n, (uint16_t)strlen(name));
    if (!x->error) x->error = bw_buf_append(x->out, n, 2);
    if (!x->error) x->error = bw_buf_append(x->out, name, strlen(name));
    bw_put_be32(n, (uint32_t)strlen(value));
    if (!x->error) x->error = bw_buf_append(x->out, n, 4);
    if (!x->error) x->error = bw_buf_append(x->out, value, strlen(value));
}

bw_err bw_link_spec_encode(const bw_link_spec *s, bw_buf *out)
{
    uint8_t head[3] = {BW_LINK_RECORD_VERSION};
    size_t at = out->len;
    struct encoding x = {out, 0, bw_buf_append(out, head, sizeof head)};
    bw_link_spec_each(s, encode_one, &x);
    if (!x.error) bw_put_be16(out->data + at + 1, (uint16_t)x.count);
    return x.error;
}

bw_err bw_link_spec_decode(bw_str name, const void *data, size_t len, bw_link_spec *out)
{
    bw_cursor c = bw_cursor_over(data, len);
    bw_err e = bw_link_spec_init(out, name);
    if (e) return e;
    uint8_t version = bw_cursor_u8(&c);
    if (!c.bad && version > BW_LINK_RECORD_VERSION)
        return bw_fail(BW_ERR_NEWER_FORMAT, "link '%s' was written by a newer release (layout %u)", out->name, version);
    uint32_t count = bw_cursor_be16(&c);
    if (version != BW_LINK_RECORD_VERSION || count > OPTIONS_MAX) c.bad = true;
    for (uint32_t i = 0; !e && !c.bad && i < count; i++) {
        size_t n = bw_cursor_be16(&c);
        const uint8_t *key = bw_cursor_take(&c, n);
        size_t m = bw_cursor_be32(&c);
        const uint8_t *value = bw_cursor_take(&c, m);
        if (!c.bad) e = bw_link_spec_set(out, (const char *)key, n, m ? (const char *)value : "", m);
    }
    if (!e && (c.bad || bw_cursor_left(&c))) e = BW_ERR_CORRUPT;
    if (!e) return BW_OK;
    bw_link_spec_fini(out);
    return bw_fail(BW_ERR_CORRUPT, "the record of link '%.*s' can't be read", (int)name.len, name.data);
}

bw_err bw_link_spec_target(const bw_link_spec *s, const char *topic, char *out, size_t size)
{
    int n = snprintf(out, size, "%s%s", s->prefix ? s->prefix : "", s->rename ? s->rename : topic);
    if (n < 0 || (size_t)n >= size || (size_t)n > BW_TOPIC_NAME_MAX)
        return bw_fail(BW_ERR_INVALID_TOPIC, "link '%s': the name of topic '%s' gets too long with its prefix", s->name, topic);
    return bw_topic_name_check(out, (size_t)n);
}

/* ---- two of them ---- */

static bool same_text(const char *a, const char *b) { return !strcmp(a ? a : "", b ? b : ""); }

/* Is `target` what s makes of a topic? */
static bool may_target(const bw_link_spec *s, const char *target)
{
    size_t n = s->prefix ? strlen(s->prefix) : 0;
    if (s->rename) return !strcmp(s->rename, target);
    return strncmp(target, s->prefix ? s->prefix : "", n) == 0 && bw_patterns_match(&s->topics, target + n, NULL);
}

static const char *shared_target(const bw_link_spec *a, const bw_link_spec *b, char *out, size_t size)
{
    for (size_t i = 0; i < a->topics.count; i++)
        if (!a->topics.items[i].regex && bw_link_spec_target(a, a->topics.items[i].text, out, size) == BW_OK && may_target(b, out)) return out;
    return NULL;
}

const char *bw_link_specs_mix(const bw_link_spec *a, const bw_link_spec *b, char *out, size_t size)
{
    bool one_place = a->push == b->push && (!a->push || same_text(a->url, b->url));
    bool alike = same_text(a->key_prefix, b->key_prefix) && same_text(a->header, b->header) && same_text(a->header_value, b->header_value);
    if (a->mode != BW_LINK_MERGE || b->mode != BW_LINK_MERGE || !one_place || alike) return NULL;
    return shared_target(a, b, out, size) ? out : shared_target(b, a, out, size);
}
