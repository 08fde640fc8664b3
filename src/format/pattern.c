/* format/pattern.c: see pattern.h. Patterns come from people and from clients: what the C library would need unbounded time or memory for is
 * refused before it sees it. */
#include "format/pattern.h"

#include <stdio.h>
#include <string.h>

struct text {
    const char *data;
    size_t len;
};

static bw_err bad_pattern(struct text p, const char *why)
{
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "pattern \"%.*s\": %s", (int)(p.len > 100 ? 100 : p.len), p.data, why);
}

/* Repeating what may be empty takes the C library exponential time. What is known of the groups that are open, outermost first: */
typedef struct emptiness {
    bool alternative[BW_PATTERN_BYTES_MAX + 1], sequence[BW_PATTERN_BYTES_MAX + 1]; /* an earlier alternative, this one so far, may be empty */
    bool atom; /* the last part may be */
    size_t depth;
} emptiness;

static void next_atom(emptiness *m, bool may_be_empty)
{
    m->sequence[m->depth] &= m->atom;
    m->atom = may_be_empty;
}

static void enter_group(emptiness *m)
{
    next_atom(m, true);
    m->depth++;
    m->alternative[m->depth] = false;
    m->sequence[m->depth] = m->atom = true;
}

static bool leave_alternative(emptiness *m) { return m->sequence[m->depth] && m->atom; }

/* Behind the bracket expression that begins at i. */
static size_t behind_bracket(struct text p, size_t i)
{
    size_t k = i + 1;
    if (k < p.len && p.data[k] == '^') k++;
    for (size_t first = k; k < p.len; k++) {
        if (p.data[k] == ']' && k > first) return k;
        if (p.data[k] == '[' && k + 1 < p.len && strchr(".:=", p.data[k + 1])) {
            char kind = p.data[k + 1];
            for (k += 2; k + 1 < p.len && !(p.data[k] == kind && p.data[k + 1] == ']'); k++) {}
            k++;
        }
    }
    return p.len;
}

static bool repeats_what_may_be_empty(struct text p)
{
    emptiness m = {.sequence = {true}, .atom = true};
    for (size_t i = 0; i < p.len; i++) {
        switch (p.data[i]) {
        case '\\':
            i++;
            next_atom(&m, i >= p.len || strchr("bB<>`'", p.data[i]));
            break;
        case '[':
            next_atom(&m, false);
            i = behind_bracket(p, i);
            break;
        case '(': enter_group(&m); break;
        case '|':
            m.alternative[m.depth] |= leave_alternative(&m);
            m.sequence[m.depth] = m.atom = true;
            break;
        case ')': {
            bool empty = m.alternative[m.depth] || leave_alternative(&m);
            if (m.depth) m.depth--;
            m.atom = empty;
            break;
        }
        case '^':
        case '$': next_atom(&m, true); break;
        case '*':
        case '?':
        case '+':
        case '{':
            if (m.atom) return true;
            m.atom = p.data[i] == '*' || p.data[i] == '?';
            break;
        default: next_atom(&m, false);
        }
    }
    return false;
}

/* What it costs to compile: its length, times how often repetitions may repeat each other. */
static bw_err check_pattern(struct text p, size_t *cost)
{
    size_t times = 1;
    if (!p.len || p.len > BW_PATTERN_BYTES_MAX || memchr(p.data, 0, p.len)) return bad_pattern(p, "1 to 256 bytes, none of them zero");
    if (repeats_what_may_be_empty(p)) return bad_pattern(p, "it repeats what may be empty");
    for (size_t i = 0; i < p.len; i++) {
        if (p.data[i] == '\\') {
            if (i + 1 < p.len && p.data[i + 1] >= '1' && p.data[i + 1] <= '9') return bad_pattern(p, "back references are not supported");
            i++;
        } else if (p.data[i] == '+') { /* the C library compiles what is repeated twice */
            times *= 2;
            if (times > BW_PATTERN_COST_MAX) return bad_pattern(p, "it repeats too much");
        } else if (p.data[i] == '{') {
            size_t most = 1, number = 0;
            for (size_t k = i + 1; k < p.len && p.data[k] != '}'; k++) {
                bool digit = p.data[k] >= '0' && p.data[k] <= '9';
                number = digit ? number * 10 + (size_t)(p.data[k] - '0') : 0;
                if (number > BW_PATTERN_COST_MAX) return bad_pattern(p, "it repeats too much");
                if (number > most) most = number;
            }
            times *= most;
            if (times > BW_PATTERN_COST_MAX) return bad_pattern(p, "it repeats too much");
        }
    }
    *cost += times * p.len;
    return *cost <= BW_PATTERN_COST_MAX ? BW_OK : bad_pattern(p, "with its repetitions it is too long, or all patterns together are");
}

bw_err bw_pattern_compile(const char *text, size_t len, regex_t *out, size_t *cost)
{
    struct text p = {text, len};
    char whole[BW_PATTERN_BYTES_MAX + 8], why[200];
    bw_err e = check_pattern(p, cost);
    if (e) return e;
    snprintf(whole, sizeof whole, "^(%.*s)$", (int)len, text);
    int rc = regcomp(out, whole, REG_EXTENDED | REG_NOSUB);
    if (!rc) return BW_OK;
    regerror(rc, out, why, sizeof why);
    return bad_pattern(p, why);
}

bool bw_pattern_means(const regex_t *pattern, const char *name)
{
    return (name[0] != '_' || name[1] != '_') && regexec(pattern, name, 0, NULL, 0) == 0;
}
