/* tests/battery/block.c: power loss at the level of blocks; block.h says how.
 *
 *   block run SEED IMAGES SECONDS [PROGRESS]   record and try, until so many images were tried or the time is over; PROGRESS is a
 *                                              file that keeps the tally and the next seed, so that a later run goes on
 *   block again FILE SEED IMAGES IMAGE         one image of a recording that was kept (BATTERY_KEEP)
 *
 * $BUSWAYD, BATTERY_KEEP (a folder), BATTERY_WORKERS (4). Exit code 77 and a line "SKIP: …" where the machine cannot. */
#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IMAGES_A_SCENE = 250, SCENE_MS = 2500 };

typedef struct progress {
    uint64_t seed, bytes;
    block_tally t;
} progress;

static bool load_progress(const char *path, uint64_t *seed, block_tally *t)
{
    progress g;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    bool good = fd >= 0 && read(fd, &g, sizeof g) == (ssize_t)sizeof g && g.bytes == sizeof g;
    if (fd >= 0) close(fd);
    if (!good) return false;
    memcpy(t, &g.t, sizeof *t);
    *seed = g.seed;
    return true;
}

static void save_progress(const char *path, uint64_t seed, const block_tally *t)
{
    char fresh[256];
    progress g = {.seed = seed, .bytes = sizeof g};
    if (!path) return;
    memcpy(&g.t, t, sizeof g.t);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, &g, sizeof g) != (ssize_t)sizeof g || rename(fresh, path)) perror(path);
    if (fd >= 0) close(fd);
}

static int skip(const char *why)
{
    printf("SKIP: block-level power loss: %s\n", why);
    return 77;
}

/* A private mount namespace, and a disk that can be served and attached. NULL: it can. */
static const char *try_machine(const char *root)
{
    static char text[200];
    char folder[128];
    const char *why;
    if (geteuid() != 0) return "needs root: it mounts file systems";
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) return "no mount namespace of its own";
    if (access("/dev/loop-control", R_OK | W_OK)) return "/dev/loop-control is not there";
    if (access("/sbin/mkfs.ext4", X_OK) && access("/usr/sbin/mkfs.ext4", X_OK)) return "mkfs.ext4 is not there";
    block_disk d = {.log = block_shared_memory(sizeof *d.log),
                    .bytes = block_shared_memory(BLOCK_DISK_BYTES),
                    .touched = block_shared_memory(BLOCK_PAGES)};
    snprintf(folder, sizeof folder, "%s/fuse", root);
    if (mkdir(folder, 0700) && errno != EEXIST) return "no temporary folder";
    if (block_disk_start(&d, folder, &why))
        block_disk_stop(&d);
    else
        snprintf(text, sizeof text, "%s (%s)", why, strerror(errno));
    return text[0] ? text : NULL;
}

static bool run_workers(trial_options *o)
{
    pid_t pids[16];
    bool good = true;
    fflush(NULL);
    for (int i = 0; i < o->workers; i++) {
        pids[i] = fork();
        if (pids[i] < 0) abort();
        if (pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            o->worker = i;
            _exit(trial_run(o) ? 0 : 1);
        }
    }
    for (int i = 0; i < o->workers; i++) {
        int status;
        waitpid(pids[i], &status, 0);
        good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    return good;
}

static void count_scene(block_tally *t, const recording *r)
{
    t->scenes++;
    t->kills += r->kills;
    t->stops += r->stops;
    t->cold += r->cold;
    for (uint64_t i = 0; i < r->log.count; i++)
        if (r->log.writes[i].len)
            t->writes++;
        else
            t->flushes++;
}

static bool one_scene(trial_options *o, uint64_t seed, uint64_t images)
{
    scene_options s = {.buswayd = o->buswayd, .root = o->root, .seed = seed, .duration_ms = SCENE_MS};
    recording *r = block_shared_memory(sizeof *r);
    int64_t begun = block_now_ms();
    bool good = scene_record(r, &s);
    int64_t recorded = block_now_ms();
    o->recording = r;
    o->seed = seed;
    o->images = images;
    o->only = -1;
    count_scene(o->tally, r);
    uint64_t before = o->tally->images;
    if (good) good = run_workers(o);
    printf("%s seed %llu: %s; %llu writes and flushes, %llu events, %u kills, %u stops, %u recoveries of all; %llu images; %.1f "
           "s and %.1f s\n",
           good ? "ok  " : "FAIL", (unsigned long long)seed, r->file_system, (unsigned long long)r->log.count,
           (unsigned long long)r->event_count, r->kills, r->stops, r->cold, (unsigned long long)(o->tally->images - before),
           (double)(recorded - begun) / 1000, (double)(block_now_ms() - recorded) / 1000);
    fflush(stdout);
    munmap(r, sizeof *r);
    return good;
}

static int run(trial_options *o, uint64_t seed, uint64_t images, int64_t seconds, const char *kept)
{
    int64_t begun = block_now_ms();
    bool good = true;
    block_tally *t = o->tally;
    o->until_ms = begun + seconds * 1000;
    if (load_progress(kept, &seed, t))
        printf("going on from %s: %llu images so far, seed %llu\n", kept, (unsigned long long)t->images,
               (unsigned long long)seed);
    while (good && t->images < images && block_now_ms() < o->until_ms) {
        uint64_t left = images - t->images;
        good = one_scene(o, seed, left < IMAGES_A_SCENE ? left : IMAGES_A_SCENE);
        if (good) save_progress(kept, ++seed, t);
    }
    printf("block: %llu images of %llu scenes (%llu writes, %llu flushes; %llu kills, %llu clean stops, %llu recoveries of all)\n"
           "block: %llu writes dropped, %llu torn; %llu cut again in their recovery, %llu appended to and recovered again, %llu "
           "read through buswayd, "
           "%llu verified\nblock: %llu records read, %llu of them had to be there; %llu lost as they may be; %llu topics looked "
           "at; %.1f s\n",
           (unsigned long long)t->images, (unsigned long long)t->scenes, (unsigned long long)t->writes,
           (unsigned long long)t->flushes, (unsigned long long)t->kills, (unsigned long long)t->stops,
           (unsigned long long)t->cold, (unsigned long long)t->writes_dropped, (unsigned long long)t->torn,
           (unsigned long long)t->cut_recoveries, (unsigned long long)t->appended, (unsigned long long)t->programs,
           (unsigned long long)t->verified, (unsigned long long)t->oracle.records, (unsigned long long)t->oracle.durable,
           (unsigned long long)t->oracle.lost, (unsigned long long)t->oracle.topics, (double)(block_now_ms() - begun) / 1000);
    good = good && t->failures == 0 && t->images > 0;
    printf("%d passed, %d failed\n", good, !good);
    return good ? 0 : 1;
}

static int again(trial_options *o, char **argv)
{
    recording *r = block_shared_memory(sizeof *r);
    uint64_t head[3];
    FILE *f = fopen(argv[0], "r");
    bool good = f && fread(head, sizeof head, 1, f) == 1 && head[0] <= BLOCK_WRITES_MAX && head[1] <= BLOCK_LOG_BYTES &&
                head[2] <= BLOCK_EVENTS_MAX;
    good = good && fread(r->log.writes, sizeof r->log.writes[0], head[0], f) == head[0] &&
           fread(r->log.data, 1, head[1], f) == head[1] && fread(r->first, 1, BLOCK_DISK_BYTES, f) == BLOCK_DISK_BYTES &&
           fread(r->events, sizeof r->events[0], head[2], f) == head[2] &&
           fread(r->file_system, 1, sizeof r->file_system, f) > 0 && fread(r->mount_options, 1, sizeof r->mount_options, f) > 0;
    if (f) fclose(f);
    if (!good) {
        fprintf(stderr, "block: %s is no recording of this build\n", argv[0]);
        return 2;
    }
    r->log.count = head[0];
    r->log.bytes = head[1];
    r->event_count = head[2];
    o->recording = r;
    o->seed = strtoull(argv[1], NULL, 10);
    o->images = strtoull(argv[2], NULL, 10);
    o->only = strtoll(argv[3], NULL, 10);
    o->workers = 1;
    o->until_ms = INT64_MAX;
    good = run_workers(o);
    printf("image %lld: %s\n", (long long)o->only, good ? "nothing wrong" : "wrong");
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    bool is_run = argc >= 5 && strcmp(argv[1], "run") == 0, is_again = argc == 6 && strcmp(argv[1], "again") == 0;
    const char *buswayd = getenv("BUSWAYD"), *workers = getenv("BATTERY_WORKERS");
    if ((!is_run && !is_again) || !buswayd) {
        fprintf(stderr, "usage: BUSWAYD=… block run SEED IMAGES SECONDS [PROGRESS] | again FILE SEED IMAGES IMAGE\n");
        return 2;
    }
    char root[] = "/dev/shm/bw-block-XXXXXX", command[64], mounts[64];
    if (!mkdtemp(root)) return skip("/dev/shm is not there");
    snprintf(mounts, sizeof mounts, "%s/mount", root);
    (void)mkdir(mounts, 0700);
    trial_options o = {.buswayd = buswayd,
                       .root = root,
                       .keep = getenv("BATTERY_KEEP"),
                       .tally = block_shared_memory(sizeof(block_tally)),
                       .workers = workers ? atoi(workers) : 4,
                       .only = -1};
    if (o.workers < 1 || o.workers > 16) o.workers = 1;
    const char *why = try_machine(root);
    int rc = why        ? skip(why)
             : is_again ? again(&o, argv + 2)
                        : run(&o, strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), strtoll(argv[4], NULL, 10),
                              argc > 5 ? argv[5] : NULL);
    snprintf(command, sizeof command, "rm -rf %s", root);
    if (rc == 0 || rc == 77 || !o.keep)
        (void)!system(command);
    else
        printf("kept: %s\n", root);
    return rc;
}
