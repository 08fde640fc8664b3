/* main.c: runs the scenarios on one bus.
 *
 *     conformance [--transport direct|ipc|auto] [--only REGEX] [--scenarios FOLDER] [--jobs N] [--verbose] [URL]
 *
 * Ends with "N passed, N failed, N skipped"; what failed is named with its step and what was seen. */
#include "conformance/conformance.h"

#include <dirent.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool verbose;

static verb_fn verb_named(const char *name)
{
    static const verb *const tables[] = {bus_verbs, producer_verbs, consumer_verbs, group_verbs, queue_verbs, state_verbs};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const verb *v = tables[t]; v->name; v++)
            if (!strcmp(v->name, name)) return v->run;
    return NULL;
}

static bool can(const world *w, const char *capability)
{
    if (capability[0] == '!') return !can(w, capability + 1);
    return json_is_true(json_object_get(w->can, capability));
}

/* ---- one step ---- */

static bool error_is_wanted(json_t *wanted, bw_err e)
{
    const char *name = e ? bw_err_name(e) : "OK";
    if (!wanted) return e == BW_OK;
    if (json_is_string(wanted)) return !strcmp(json_string_value(wanted), name);
    for (size_t i = 0; i < json_array_size(wanted); i++)
        if (!strcmp(json_string_value(json_array_get(wanted, i)), name)) return true;
    return false;
}

static bool class_is(json_t *step, const char *what, bool is, char *why, size_t room)
{
    json_t *wanted = json_object_get(step, what);
    if (!wanted || json_is_true(wanted) == is) return true;
    snprintf(why, room, "the error is %s%s", is ? "" : "not ", what);
    return false;
}

/* Whether the outcome is what the step says; else why not. */
static bool outcome_is_right(json_t *step, bw_err e, const char *message, json_t *result, char *why, size_t room)
{
    json_t *wanted = json_object_get(step, "error"), *see = json_object_get(step, "see");
    if (!error_is_wanted(wanted, e)) {
        char *names = wanted ? json_dumps(wanted, JSON_ENCODE_ANY) : NULL;
        snprintf(why, room, "%s%s%.600s, wanted %.200s", e ? bw_err_name(e) : "it succeeded", e ? ": " : "", e ? message : "", names ? names : "OK");
        free(names);
        return false;
    }
    if (e) {
        const char *text = arg_text_or(step, "message", NULL);
        if (text && !strstr(message, text)) {
            snprintf(why, room, "the message \"%.600s\" does not contain \"%s\"", message, text);
            return false;
        }
        return class_is(step, "retriable", bw_err_is_retriable(e), why, room) && class_is(step, "fatal", bw_err_is_fatal(e), why, room);
    }
    if (!see) return true;
    char path[1400] = "";
    if (value_matches(result, see, path, sizeof path)) return true;
    snprintf(why, room, "seen%s", path);
    return false;
}

static void save(world *w, json_t *step, json_t *result)
{
    const char *name;
    json_t *path;
    json_object_foreach(json_object_get(step, "save"), name, path)
    {
        json_t *v = value_at(result, json_string_value(path));
        if (!v) broken(w, "nothing is at %s of the result", json_string_value(path));
        else json_object_set(w->vars, name, v);
    }
}

/* Once. True: as it should be. */
static bool try_step(world *w, const json_t *given, char *why, size_t room)
{
    char message[1024] = "";
    json_t *step = value_substitute(w, given), *result = NULL;
    verb_fn fn = verb_named(arg_text(w, step, "do"));
    bool right = false;
    if (!fn) {
        broken(w, "there is no such verb");
    } else {
        bw_err e = fn(w, step, &result);
        if (e) snprintf(message, sizeof message, "%s", bw_error_message());
        right = !w->is_broken && outcome_is_right(step, e, message, result, why, room);
        if (right && !e) save(w, step, result);
    }
    if (w->is_broken) snprintf(why, room, "%s", w->why);
    scratch_free(w);
    if (verbose) {
        char *text = result ? json_dumps(result, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        printf("    %s -> %.300s %s\n", arg_text_or(step, "do", "?"), text ? text : "-", message);
        free(text);
    }
    json_decref(step);
    json_decref(result);
    return right && !w->is_broken;
}

static bool run_step(world *w, const json_t *step, char *why, size_t room)
{
    const char *only_if = arg_text_or((json_t *)(uintptr_t)step, "if", NULL);
    if (only_if && !can(w, only_if)) return true;
    int64_t end = clock_ms() + arg_int((json_t *)(uintptr_t)step, "within_ms", 0);
    while (!try_step(w, step, why, room)) {
        if (w->is_broken || clock_ms() >= end) return false;
        usleep(20000);
    }
    return true;
}

/* ---- one scenario ---- */

static json_t *load(const char *path, bool prefixed)
{
    static unsigned number;
    char prefix[32];
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = NULL;
    size_t len = 0, room = 0;
    snprintf(prefix, sizeof prefix, "cf%08x%02x-", (unsigned)(wall_ms() * 1000003 + getpid()), number++ & 255);
    for (int c; (c = getc(f)) != EOF;) {
        if (len + sizeof prefix >= room) text = realloc(text, room = 2 * room + 4096);
        if (c == '@' && prefixed) len += (size_t)sprintf(text + len, "%s", prefix);
        else text[len++] = (char)c;
    }
    fclose(f);
    json_error_t why;
    json_t *v = json_loadb(text ? text : "", len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);
    if (!v) fprintf(stderr, "%s:%d: %s\n", path, why.line, why.text);
    free(text);
    if (!v) return NULL;
    json_t *made = value_expand(v);
    json_decref(v);
    return made;
}

static const char *missing(const world *w, json_t *scenario)
{
    json_t *list = json_object_get(scenario, "requires");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!can(w, json_string_value(json_array_get(list, i)))) return json_string_value(json_array_get(list, i));
    return NULL;
}

typedef enum outcome { PASSED, FAILED, SKIPPED } outcome;

static outcome run_scenario(world *w, json_t *scenario, char *why, size_t room)
{
    const char *lacks = missing(w, scenario);
    json_t *steps = json_object_get(scenario, lacks ? "otherwise" : "steps"), *topics = json_object_get(scenario, "topics");
    char reason[1800];
    if (lacks && !steps) {
        snprintf(why, room, "SKIP: this bus can't do: %s", lacks);
        return SKIPPED;
    }
    w->vars = json_object();
    w->is_broken = false;
    json_t *open = json_pack("{s:s}", "do", "bus.open");
    bool right = run_step(w, open, reason, sizeof reason);
    json_decref(open);
    if (!right) snprintf(why, room, "opening the bus: %s", reason);
    for (size_t i = 0; right && !lacks && i < json_array_size(topics); i++) {
        json_t *make = json_deep_copy(json_array_get(topics, i));
        json_object_set_new(make, "do", json_string("topic.create"));
        right = run_step(w, make, reason, sizeof reason);
        if (!right) snprintf(why, room, "making topic %zu: %s", i, reason);
        json_decref(make);
    }
    for (size_t i = 0; right && i < json_array_size(steps); i++) {
        json_t *step = json_array_get(steps, i);
        right = run_step(w, step, reason, sizeof reason);
        if (!right) snprintf(why, room, "step %zu, %s: %s", i + 1, arg_text_or(step, "do", "?"), reason);
    }
    while (w->handles) handle_close(w, w->handles, NULL);
    scratch_free(w);
    json_decref(w->vars);
    return right ? PASSED : FAILED;
}

/* ---- all ---- */

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void run_file(world *w, const char *folder, const char *file, int counts[3])
{
    static const char *const words[] = {"ok", "FAIL", "skip"};
    char path[1024], why[2400] = "";
    snprintf(path, sizeof path, "%s/%s", folder, file);
    int64_t begun = clock_ms();
    json_t *scenario = load(path, true);
    if (verbose) printf("%s\n", file);
    outcome o = FAILED;
    if (scenario) o = run_scenario(w, scenario, why, sizeof why);
    else snprintf(why, sizeof why, "can't be read");
    counts[o]++;
    printf("%-5s %-40.*s %lld ms%s%s\n", words[o], (int)(strlen(file) - 5), file, (long long)(clock_ms() - begun), *why ? ": " : "", why);
    fflush(stdout);
    json_decref(scenario);
}

static void learn_capabilities(world *w, const char *folder)
{
    char path[1024], scheme[32];
    snprintf(path, sizeof path, "%s/../capabilities.json", folder);
    json_t *all = load(path, false);
    snprintf(scheme, sizeof scheme, "%.*s", (int)strcspn(w->url, ":"), w->url);
    if (!strcmp(scheme, "tls+tcp")) snprintf(scheme, sizeof scheme, "tcp");
    json_t *list = json_object_get(all, scheme);
    if (!list) {
        fprintf(stderr, "conformance: %s says nothing of %s:\n", path, scheme);
        exit(2);
    }
    w->can = json_object();
    for (size_t i = 0; i < json_array_size(list); i++) json_object_set_new(w->can, json_string_value(json_array_get(list, i)), json_true());
    json_object_set_new(w->can, strcmp(scheme, "ipc") ? scheme : "daemon", json_true());
    if (w->transport == BW_TRANSPORT_DIRECT) json_object_set_new(w->can, "direct", json_true());
    if (w->transport == BW_TRANSPORT_IPC) json_object_set_new(w->can, "ipc", json_true());
    json_decref(all);
}

/* The folder of our own making: its daemon is ended, and it is removed. */
static void remove_folder(world *w)
{
    char command[600], *text = NULL;
    bw_bus *bus = NULL;
    json_t *status = NULL;
    if (bw_bus_open(w->url, NULL, &bus) == BW_OK && bw_status(bus, &text) == BW_OK) status = json_loads(text, 0, NULL);
    pid_t pid = (pid_t)json_integer_value(json_object_get(status, "pid"));
    if (pid > 1) kill(pid, SIGTERM);
    bw_free(text);
    bw_bus_close(bus);
    json_decref(status);
    for (int i = 0; i < 200 && pid > 1 && kill(pid, 0) == 0; i++) usleep(10000);
    snprintf(command, sizeof command, "rm -rf '%s'", w->dir);
    if (system(command) != 0) fprintf(stderr, "conformance: can't remove %s\n", w->dir);
}

static int usage(void)
{
    fprintf(stderr, "usage: conformance [--transport direct|ipc|auto] [--only REGEX] [--scenarios FOLDER] [--jobs N] [--verbose] [URL]\n");
    return 2;
}

/* Every jobs-th file from the one given on. */
static void run_share(world *w, const char *folder, struct dirent **files, int n, int first, int jobs, int counts[3])
{
    for (int i = first; i < n; i += jobs) run_file(w, folder, files[i]->d_name, counts);
}

/* Each share in a process of its own (scenarios wait much and share nothing but the bus). False: a process died. */
static bool run_shares(world *w, const char *folder, struct dirent **files, int n, int jobs, int counts[3])
{
    bool all = true;
    int ends[2], status;
    if (pipe(ends)) return false;
    fflush(stdout);
    for (int k = 0; k < jobs; k++) {
        pid_t pid = fork();
        if (pid < 0) return false;
        if (pid > 0) continue;
        int own[3] = {0};
        run_share(w, folder, files, n, k, jobs, own);
        fflush(stdout);
        _exit(write(ends[1], own, sizeof own) != sizeof own);
    }
    close(ends[1]);
    for (int own[3]; read(ends[0], own, sizeof own) == sizeof own;)
        for (int o = 0; o < 3; o++) counts[o] += own[o];
    close(ends[0]);
    while (wait(&status) > 0) all &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return all;
}

static int choose_files(const char *folder, const char *only, struct dirent ***files)
{
    regex_t pattern;
    int n = scandir(folder, files, NULL, by_name), kept = 0;
    if (regcomp(&pattern, only, REG_EXTENDED | REG_NOSUB)) exit(usage());
    for (int i = 0; i < n; i++) {
        struct dirent *f = (*files)[i];
        size_t len = strlen(f->d_name);
        if (len > 5 && !strcmp(f->d_name + len - 5, ".json") && regexec(&pattern, f->d_name, 0, NULL, 0) == 0) (*files)[kept++] = f;
        else free(f);
    }
    regfree(&pattern);
    return kept;
}

/* The bus that is given, or a folder of our own. True: it is ours. */
static bool choose_bus(world *w, const char *transport)
{
    static char own_url[600];
    if (!w->url && !transport) transport = "direct";
    w->transport = transport_named(transport);
    if (w->url) {
        if (!strncmp(w->url, "dir:", 4)) snprintf(w->dir, sizeof w->dir, "%.*s", (int)strcspn(w->url + 4, "?"), w->url + 4);
        return false;
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(w->dir, sizeof w->dir, "%s/bwconf.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(w->dir)) {
        perror(w->dir);
        exit(2);
    }
    snprintf(own_url, sizeof own_url, "dir:%s", w->dir);
    w->url = own_url;
    return true;
}

int main(int argc, char **argv)
{
    world w = {.url = getenv("BUSWAY_TEST_URL")};
    const char *folder = "tests/conformance/scenarios", *only = "", *transport = getenv("BUSWAY_TEST_TRANSPORT");
    int jobs = 1;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--transport") && i + 1 < argc) transport = argv[++i];
        else if (!strcmp(argv[i], "--only") && i + 1 < argc) only = argv[++i];
        else if (!strcmp(argv[i], "--scenarios") && i + 1 < argc) folder = argv[++i];
        else if (!strcmp(argv[i], "--jobs") && i + 1 < argc) jobs = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--verbose")) verbose = true;
        else if (argv[i][0] == '-') return usage();
        else w.url = argv[i];
    }
    if (w.url && !*w.url) w.url = NULL;
    if (jobs < 1 || jobs > 64) return usage();
    bool own = choose_bus(&w, transport), all = true;
    learn_capabilities(&w, folder);
    struct dirent **files = NULL;
    int counts[3] = {0}, n = choose_files(folder, only, &files);
    if (jobs == 1) run_share(&w, folder, files, n, 0, 1, counts);
    else all = run_shares(&w, folder, files, n, jobs, counts);
    for (int i = 0; i < n; i++) free(files[i]);
    free(files);
    if (own) remove_folder(&w);
    json_decref(w.can);
    free(w.scratch);
    if (!all) printf("a process of the runner died\n");
    if (!all || n == 0) counts[FAILED]++;
    printf("%d passed, %d failed, %d skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    return counts[FAILED] != 0;
}
