/* Gives the processes that it is preloaded into the same random bytes at each start, by a seed in their environment, and clocks that stand
 * still: what the standard library, the runtime and other libraries draw or measure by themselves is then the same whenever a seed is run.
 * Only for the simulation: built by `preload.rs` with whatever `cc` there is. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>

static uint64_t state;

__attribute__((constructor)) static void begin(void) {
    const char *seed = getenv("TCC_SIMULATION_SEED");
    state = seed == NULL ? 0 : strtoull(seed, NULL, 10);
}

/* SplitMix64. */
static uint64_t next(void) {
    uint64_t mixed = (state += 0x9e3779b97f4a7c15ULL);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
}

ssize_t getrandom(void *bytes, size_t length, unsigned int flags) {
    (void)flags;
    unsigned char *to = bytes;
    for (size_t at = 0; at < length; at++) to[at] = (unsigned char)(next() >> 32);
    return (ssize_t)length;
}

int getentropy(void *bytes, size_t length) {
    getrandom(bytes, length, 0);
    return 0;
}

/* 2026-01-01T00:00:00Z, whichever clock is read. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    now->tv_sec = 1767225600;
    now->tv_nsec = 0;
    return 0;
}
