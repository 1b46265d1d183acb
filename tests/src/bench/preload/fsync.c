/* Counts every fsync and fdatasync of the processes that it is preloaded into, in a file that they share, and makes each take
 * longer if it is told to. Only for the benchmark: built by `bench/preload.rs` with whatever `cc` there is.
 *
 * The file has two counters of eight bytes: all of them, and those of SQLite's write-ahead logs, of which each commit syncs one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t *counters;
static struct timespec delay;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void begin(void) {
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *micros = getenv("TCC_BENCH_FSYNC_DELAY_US");
    if (micros != NULL) {
        long value = strtol(micros, NULL, 10);
        delay.tv_sec = value / 1000000;
        delay.tv_nsec = value % 1000000 * 1000;
    }
    const char *path = getenv("TCC_BENCH_FSYNC_FILE");
    if (path == NULL) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *memory = mmap(NULL, 2 * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED) counters = memory;
}

static int is_log_of_sqlite(int file) {
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    return length >= 4 && memcmp(path + length - 4, "-wal", 4) == 0;
}

static void count(int file) {
    if (counters != NULL) {
        atomic_fetch_add_explicit(&counters[0], 1, memory_order_relaxed);
        if (is_log_of_sqlite(file)) atomic_fetch_add_explicit(&counters[1], 1, memory_order_relaxed);
    }
    if (delay.tv_sec != 0 || delay.tv_nsec != 0) nanosleep(&delay, NULL);
}

int fsync(int file) {
    count(file);
    return real_fsync(file);
}

int fdatasync(int file) {
    count(file);
    return real_fdatasync(file);
}
