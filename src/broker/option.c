/* broker/option.c: texts to values and back, with messages that say what is allowed. */
#include "broker/option.h"

#include <busway/bus.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

typedef struct unit {
    const char *name;
    int64_t factor;
} unit;

static const unit size_units[] = {
    {"", 1}, {"B", 1}, {"K", 1024}, {"KiB", 1024}, {"M", 1 << 20}, {"MiB", 1 << 20}, {"G", 1 << 30}, {"GiB", 1 << 30},
    {"T", INT64_C(1) << 40}, {"TiB", INT64_C(1) << 40}, {"kB", 1000}, {"MB", 1000000}, {"GB", 1000000000},
    {"TB", INT64_C(1000000000000)}, {NULL, 0},
};
static const unit duration_units[] = {
    {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0},
};
static const unit no_units[] = {{"", 1}, {NULL, 0}};
static const struct {
    const char *name;
    bw_log_level level;
} levels[] = {{"error", BW_LOG_ERROR}, {"warn", BW_LOG_WARN}, {"info", BW_LOG_INFO}, {"debug", BW_LOG_DEBUG}};

const bw_option *bw_option_find(const bw_option *table, size_t count, const char *name, size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == len && !memcmp(table[i].name, name, len)) return &table[i];
    return NULL;
}

static const unit *units_of(bw_option_kind kind)
{
    return kind == BW_OPTION_SIZE ? size_units : kind == BW_OPTION_DURATION ? duration_units : no_units;
}

void bw_option_allowed(const bw_option *o, char *out, size_t size)
{
    const char *range = o->min < 0 ? "-1 (no limit), or from 0" : "from ";
    char low[24] = "";
    if (o->min >= 0) snprintf(low, sizeof low, "%lld", (long long)o->min);
    char high[32] = "";
    if (o->max != INT64_MAX) snprintf(high, sizeof high, " to %lld", (long long)o->max);
    switch (o->kind) {
    case BW_OPTION_TEXT: snprintf(out, size, "%s", o->choices ? o->choices : "text"); break;
    case BW_OPTION_LIST: snprintf(out, size, "%s", o->choices ? o->choices : "a list, separated by commas"); break;
    case BW_OPTION_BOOL: snprintf(out, size, "true or false"); break;
    case BW_OPTION_NUMBER: snprintf(out, size, "a number: %s%s%s", range, low, high); break;
    case BW_OPTION_SIZE: snprintf(out, size, "a size in bytes or with K, KiB, M, MiB, G, GiB: %s%s%s", range, low, high); break;
    case BW_OPTION_DURATION: snprintf(out, size, "a duration in ms or with ms, s, min, h, d: %s%s%s", range, low, high); break;
    case BW_OPTION_CHOICE: snprintf(out, size, "one of %s", o->choices); break;
    case BW_OPTION_RATIO: snprintf(out, size, "a number from 0 to 1"); break;
    case BW_OPTION_LEVEL: snprintf(out, size, "one of error, warn, info, debug"); break;
    }
}

static bw_err refuse(const bw_option *o, const char *value, size_t len)
{
    char allowed[256];
    bw_option_allowed(o, allowed, sizeof allowed);
    return bw_fail(BW_ERR_INVALID_CONFIG, "%s = '%.*s' is not valid; allowed: %s", o->name, (int)(len > 100 ? 100 : len), value, allowed);
}

/* "[-]digits[.digits] unit": false when it is no such thing or does not fit. */
static bool parse_quantity(const char *text, const unit *units, int64_t *out)
{
    bool negative = *text == '-';
    const char *p = text + negative;
    if (!isdigit((unsigned char)*p)) return false;
    int64_t whole = 0;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(whole, 10, &whole) || __builtin_add_overflow(whole, *p - '0', &whole)) return false;
    int64_t tenths = 0, scale = 1;
    bool fraction = *p == '.';
    if (fraction) {
        p++;
        if (!isdigit((unsigned char)*p)) return false;
        for (; isdigit((unsigned char)*p); p++) {
            if (scale >= 1000000) return false;
            tenths = tenths * 10 + (*p - '0');
            scale *= 10;
        }
    }
    while (*p == ' ') p++;
    if (negative && (*p || fraction)) return false;
    for (; units->name; units++) {
        if (strcmp(p, units->name)) continue;
        if (fraction && units->factor == 1) return false;
        int64_t part, rest;
        if (__builtin_mul_overflow(whole, units->factor, &whole) || __builtin_mul_overflow(tenths, units->factor, &part)) return false;
        rest = part / scale;
        if (__builtin_add_overflow(whole, rest, &whole)) return false;
        *out = negative ? -whole : whole;
        return true;
    }
    return false;
}

static void store_number(const bw_option *o, void *field, int64_t v)
{
    if (o->width == 8) memcpy(field, &v, 8);
    else {
        uint32_t v32 = (uint32_t)v;
        memcpy(field, &v32, 4);
    }
}

static bool parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (!strcasecmp(text, yes[i])) return *out = true, true;
        if (!strcasecmp(text, no[i])) return *out = false, true;
    }
    return false;
}

/* "digits[.digits]", 0 to 1, whatever the locale. */
static bool parse_ratio(const char *text, double *out)
{
    double value = 0, scale = 1;
    const char *p = text;
    if (!isdigit((unsigned char)*p)) return false;
    for (; isdigit((unsigned char)*p); p++) value = value * 10 + (*p - '0');
    if (*p == '.') {
        if (!isdigit((unsigned char)*++p)) return false;
        for (; isdigit((unsigned char)*p); p++) value += (*p - '0') * (scale /= 10);
    }
    *out = value;
    return !*p && value <= 1;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *p = choices; len; p += strcspn(p, "|") + 1) {
        if (strcspn(p, "|") == len && !memcmp(p, text, len)) return true;
        if (!p[strcspn(p, "|")]) break;
    }
    return false;
}

static bw_err parse_list(bw_option_list *list, char *text)
{
    char *save = NULL;
    for (char *item = strtok_r(text, ", \t", &save); item; item = strtok_r(NULL, ", \t", &save)) {
        char **grown = realloc(list->items, (list->count + 1) * sizeof *grown);
        if (grown) list->items = grown;
        if (!grown || !(grown[list->count] = strdup(item))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
        list->count++;
    }
    return BW_OK;
}

static bw_err parse_text(const bw_option *o, char *field, const char *text)
{
    char *copy = *text ? strdup(text) : NULL;
    if (*text && !copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    bw_option_clear(o, field - o->offset);
    memcpy(field, &copy, sizeof copy);
    return BW_OK;
}

bw_err bw_option_parse(const bw_option *o, void *config, const char *value, size_t len)
{
    char text[4096];
    char *field = (char *)config + o->offset;
    if (len >= sizeof text || memchr(value, 0, len)) return refuse(o, value, len < 100 ? strnlen(value, len) : 100);
    memcpy(text, value, len);
    text[len] = 0;
    int64_t number;
    bool flag;
    double ratio;
    switch (o->kind) {
    case BW_OPTION_TEXT: return parse_text(o, field, text);
    case BW_OPTION_LIST:
        bw_option_clear(o, config);
        return parse_list((bw_option_list *)(void *)field, text);
    case BW_OPTION_BOOL:
        if (!parse_bool(text, &flag)) return refuse(o, value, len);
        memcpy(field, &flag, sizeof flag);
        return BW_OK;
    case BW_OPTION_NUMBER:
    case BW_OPTION_SIZE:
    case BW_OPTION_DURATION:
        if (!parse_quantity(text, units_of(o->kind), &number) || number < o->min || number > o->max) return refuse(o, value, len);
        store_number(o, field, number);
        return BW_OK;
    case BW_OPTION_CHOICE:
        if (!is_choice(o->choices, text) || len >= o->width) return refuse(o, value, len);
        memcpy(field, text, len + 1);
        return BW_OK;
    case BW_OPTION_RATIO:
        if (!parse_ratio(text, &ratio)) return refuse(o, value, len);
        memcpy(field, &ratio, sizeof ratio);
        return BW_OK;
    case BW_OPTION_LEVEL:
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
            if (strcasecmp(text, levels[i].name)) continue;
            memcpy(field, &levels[i].level, sizeof levels[i].level);
            return BW_OK;
        }
        return refuse(o, value, len);
    }
    return bw_fail(BW_ERR_INTERNAL, "option %s has no kind", o->name);
}

static void print_list(const bw_option_list *list, char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < list->count && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? "," : "", list->items[i]);
}

void bw_option_print(const bw_option *o, const void *config, char *out, size_t size)
{
    const char *field = (const char *)config + o->offset;
    const char *text = NULL;
    bool flag;
    double ratio;
    bw_log_level level;
    int64_t number;
    int32_t number32;
    switch (o->kind) {
    case BW_OPTION_TEXT:
        memcpy(&text, field, sizeof text);
        snprintf(out, size, "%s", text ? text : "");
        break;
    case BW_OPTION_LIST: print_list((const bw_option_list *)(const void *)field, out, size); break;
    case BW_OPTION_BOOL:
        memcpy(&flag, field, sizeof flag);
        snprintf(out, size, "%s", flag ? "true" : "false");
        break;
    case BW_OPTION_NUMBER:
    case BW_OPTION_SIZE:
    case BW_OPTION_DURATION:
        if (o->width == 8) memcpy(&number, field, 8);
        else {
            memcpy(&number32, field, 4);
            number = o->min < 0 ? number32 : (int64_t)(uint32_t)number32;
        }
        snprintf(out, size, "%lld", (long long)number);
        break;
    case BW_OPTION_CHOICE: snprintf(out, size, "%s", field); break;
    case BW_OPTION_RATIO: /* a millionth is enough; no locale's comma */
        memcpy(&ratio, field, sizeof ratio);
        number32 = (int32_t)(ratio * 1000000 + 0.5);
        snprintf(out, size, "%d.%06d", number32 / 1000000, number32 % 1000000);
        for (size_t n = strlen(out); n > 1 && out[n - 1] == '0' && out[n - 2] != '.'; n--) out[n - 1] = 0;
        break;
    case BW_OPTION_LEVEL:
        memcpy(&level, field, sizeof level);
        out[0] = 0;
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
            if (levels[i].level == level) snprintf(out, size, "%s", levels[i].name);
        break;
    }
}

void bw_option_clear(const bw_option *o, void *config)
{
    char *field = (char *)config + o->offset;
    if (o->kind == BW_OPTION_TEXT) {
        char *old;
        memcpy(&old, field, sizeof old);
        free(old);
        old = NULL;
        memcpy(field, &old, sizeof old);
    } else if (o->kind == BW_OPTION_LIST) {
        bw_option_list *list = (bw_option_list *)(void *)field;
        for (size_t i = 0; i < list->count; i++) free(list->items[i]);
        free(list->items);
        *list = (bw_option_list){0};
    }
}
