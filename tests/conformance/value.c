/* value.c: what the scenarios' data means: expansion, substitution, matching. */
#include "conformance/conformance.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- generate, repeat ---- */

/* A copy of v with each '#' in its texts replaced by the number. */
static json_t *numbered(const json_t *v, json_int_t number)
{
    if (json_is_string(v)) {
        const char *text = json_string_value(v), *at;
        if (!strcmp(text, "#")) return json_integer(number);
        char digits[24], *room;
        size_t marks = 0, len = 0;
        snprintf(digits, sizeof digits, "%lld", (long long)number);
        for (at = text; *at; at++) marks += *at == '#';
        room = malloc(strlen(text) + marks * sizeof digits + 1);
        for (at = text; *at; at++) {
            if (*at == '#') len += (size_t)sprintf(room + len, "%s", digits);
            else room[len++] = *at;
        }
        json_t *made = json_stringn(room, len);
        free(room);
        return made;
    }
    json_t *made = json_deep_copy(v);
    if (json_is_array(v))
        for (size_t i = 0; i < json_array_size(v); i++) json_array_set_new(made, i, numbered(json_array_get(v, i), number));
    if (json_is_object(v)) {
        const char *key;
        json_t *child;
        json_object_foreach((json_t *)(uintptr_t)v, key, child) json_object_set_new(made, key, numbered(child, number));
    }
    return made;
}

static json_t *generated(const json_t *v)
{
    json_int_t from = json_integer_value(json_object_get(v, "from")), count = json_integer_value(json_object_get(v, "generate"));
    json_t *each = value_expand(json_object_get(v, "each")), *made = json_array();
    for (json_int_t i = 0; i < count; i++) json_array_append_new(made, numbered(each, from + i));
    json_decref(each);
    return made;
}

static json_t *repeated(const json_t *v)
{
    const char *text = json_string_value(json_object_get(v, "repeat"));
    size_t len = strlen(text), times = (size_t)json_integer_value(json_object_get(v, "times"));
    char *room = malloc(len * times + 1);
    for (size_t i = 0; i < times; i++) memcpy(room + i * len, text, len);
    json_t *made = json_stringn(room, len * times);
    free(room);
    return made;
}

json_t *value_expand(const json_t *v)
{
    if (json_is_object(v) && json_object_get(v, "generate") && json_object_get(v, "each")) return generated(v);
    if (json_is_object(v) && json_object_get(v, "repeat") && json_object_get(v, "times")) return repeated(v);
    if (json_is_array(v)) {
        json_t *made = json_array();
        for (size_t i = 0; i < json_array_size(v); i++) json_array_append_new(made, value_expand(json_array_get(v, i)));
        return made;
    }
    if (json_is_object(v)) {
        json_t *made = json_object(), *child;
        const char *key;
        json_object_foreach((json_t *)(uintptr_t)v, key, child) json_object_set_new(made, key, value_expand(child));
        return made;
    }
    return json_deep_copy(v);
}

/* ---- $name ---- */

static json_t *substituted_text(const world *w, const char *text)
{
    char name[64];
    size_t len = strcspn(text + 1, "+-");
    if (len == 0 || len >= sizeof name) return json_string(text);
    snprintf(name, sizeof name, "%.*s", (int)len, text + 1);
    json_int_t sum = text[1 + len] ? strtoll(text + 1 + len, NULL, 10) : 0;
    if (!strcmp(name, "now")) return json_integer(wall_ms() + sum);
    if (!strcmp(name, "dir")) return json_string(w->dir);
    json_t *saved = json_object_get(w->vars, name);
    if (!saved) return json_string(text);
    if (json_is_integer(saved)) return json_integer(json_integer_value(saved) + sum);
    return json_deep_copy(saved);
}

json_t *value_substitute(const world *w, const json_t *v)
{
    if (json_is_string(v) && json_string_value(v)[0] == '$') return substituted_text(w, json_string_value(v));
    if (json_is_array(v)) {
        json_t *made = json_array();
        for (size_t i = 0; i < json_array_size(v); i++) json_array_append_new(made, value_substitute(w, json_array_get(v, i)));
        return made;
    }
    if (json_is_object(v)) {
        json_t *made = json_object(), *child;
        const char *key;
        json_object_foreach((json_t *)(uintptr_t)v, key, child) json_object_set_new(made, key, value_substitute(w, child));
        return made;
    }
    return json_incref((json_t *)(uintptr_t)v);
}

/* ---- matching ---- */

static bool differs(char *why, size_t room, const json_t *seen, const char *how, const json_t *wanted)
{
    char *a = seen ? json_dumps(seen, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    char *b = json_dumps(wanted, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    snprintf(why, room, ": %.300s, wanted %s%.300s", a ? a : "not there", how, b ? b : "?");
    free(a);
    free(b);
    return false;
}

/* Puts a path element in front of what a deeper level said. */
static bool deeper(char *why, size_t room, const char *element)
{
    char rest[1024];
    snprintf(rest, sizeof rest, "%s", why);
    snprintf(why, room, ".%.100s%.800s", element, rest);
    return false;
}

static bool in_list(const json_t *list, const json_t *wanted)
{
    char unused[1024];
    if (json_is_string(list) && json_is_string(wanted)) return strstr(json_string_value(list), json_string_value(wanted)) != NULL;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (value_matches(json_array_get(list, i), wanted, unused, sizeof unused)) return true;
    return false;
}

/* The same elements in any order: each wanted one takes the first that matches and is free. */
static bool is_set(const json_t *seen, const json_t *wanted)
{
    char unused[1024];
    size_t n = json_array_size(seen), found = 0;
    if (!json_is_array(seen) || n != json_array_size(wanted)) return false;
    bool *taken = calloc(n + 1, sizeof *taken);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++)
            if (!taken[k] && value_matches(json_array_get(seen, k), json_array_get(wanted, i), unused, sizeof unused)) {
                taken[k] = true;
                found++;
                break;
            }
    free(taken);
    return found == n;
}

static bool is_type(const json_t *seen, const char *type)
{
    if (!strcmp(type, "number")) return json_is_number(seen);
    if (!strcmp(type, "text")) return json_is_string(seen);
    if (!strcmp(type, "list")) return json_is_array(seen);
    if (!strcmp(type, "object")) return json_is_object(seen);
    if (!strcmp(type, "bool")) return json_is_boolean(seen);
    return !strcmp(type, "null") && (!seen || json_is_null(seen));
}

static bool operator_holds(const json_t *seen, const char *name, const json_t *x)
{
    char unused[1024];
    double a = json_number_value(seen), b = json_number_value(x);
    if (!strcmp(name, "$ge")) return json_is_number(seen) && a >= b;
    if (!strcmp(name, "$le")) return json_is_number(seen) && a <= b;
    if (!strcmp(name, "$gt")) return json_is_number(seen) && a > b;
    if (!strcmp(name, "$lt")) return json_is_number(seen) && a < b;
    if (!strcmp(name, "$not")) return !value_matches(seen, x, unused, sizeof unused);
    if (!strcmp(name, "$has")) return in_list(seen, x);
    if (!strcmp(name, "$hasnot")) return (json_is_array(seen) || json_is_string(seen)) && !in_list(seen, x);
    if (!strcmp(name, "$set")) return is_set(seen, x);
    if (!strcmp(name, "$count"))
        return (json_int_t)(json_is_object(seen) ? json_object_size(seen) : json_array_size(seen)) == json_integer_value(x) && seen;
    if (!strcmp(name, "$absent")) return !seen || json_is_null(seen);
    if (!strcmp(name, "$type")) return is_type(seen, json_string_value(x));
    if (!strcmp(name, "$any")) {
        for (size_t i = 0; i < json_array_size(x); i++)
            if (value_matches(seen, json_array_get(x, i), unused, sizeof unused)) return true;
        return false;
    }
    if (!strcmp(name, "$all")) {
        for (size_t i = 0; i < json_array_size(x); i++)
            if (!value_matches(seen, json_array_get(x, i), unused, sizeof unused)) return false;
        return true;
    }
    return false;
}

static bool object_matches(const json_t *seen, const json_t *wanted, char *why, size_t room)
{
    const char *key;
    json_t *child;
    json_object_foreach((json_t *)(uintptr_t)wanted, key, child)
    {
        if (key[0] == '$' && json_object_size(wanted) == 1)
            return operator_holds(seen, key, child) || differs(why, room, seen, "", wanted);
        if (!json_is_object(seen)) return differs(why, room, seen, "", wanted);
        json_t *there = json_object_get(seen, key);
        bool may_lack = json_is_object(child) && json_object_get(child, "$absent");
        if (!there && !may_lack) {
            differs(why, room, NULL, "", child);
            return deeper(why, room, key);
        }
        if (!value_matches(there, child, why, room)) return deeper(why, room, key);
    }
    return json_is_object(seen) || differs(why, room, seen, "", wanted);
}

bool value_matches(const json_t *seen, const json_t *wanted, char *why, size_t room)
{
    if (json_is_object(wanted)) return object_matches(seen, wanted, why, room);
    if (json_is_array(wanted)) {
        if (!json_is_array(seen) || json_array_size(seen) != json_array_size(wanted)) {
            char how[64];
            snprintf(how, sizeof how, "a list of %zu, not of %zu: ", json_array_size(wanted), json_array_size(seen));
            return differs(why, room, seen, how, wanted);
        }
        for (size_t i = 0; i < json_array_size(wanted); i++) {
            char element[24];
            snprintf(element, sizeof element, "%zu", i);
            if (!value_matches(json_array_get(seen, i), json_array_get(wanted, i), why, room)) return deeper(why, room, element);
        }
        return true;
    }
    if (json_is_number(wanted) && json_is_number(seen))
        return json_number_value(wanted) == json_number_value(seen) || differs(why, room, seen, "", wanted);
    return (seen && json_equal(seen, wanted)) || differs(why, room, seen, "", wanted);
}

json_t *value_at(json_t *v, const char *path)
{
    char element[64];
    while (v && *path) {
        size_t len = strcspn(path, ".");
        snprintf(element, sizeof element, "%.*s", (int)len, path);
        v = json_is_array(v) ? json_array_get(v, (size_t)atoll(element)) : json_object_get(v, element);
        path += len + (path[len] == '.');
    }
    return v;
}

json_t *value_bytes(const void *bytes, size_t len)
{
    if (!bytes) return json_null();
    json_t *text = json_stringn(bytes, len); /* NULL when it is not UTF-8 */
    if (text) return text;
    char *hex = malloc(2 * len + 1);
    for (size_t i = 0; i < len; i++) sprintf(hex + 2 * i, "%02x", ((const uint8_t *)bytes)[i]);
    text = json_pack("{s:s}", "hex", hex);
    free(hex);
    return text;
}
