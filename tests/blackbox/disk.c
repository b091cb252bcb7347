/* A disk for one process, put between it and the kernel by LD_PRELOAD, as a power cut would show it:
 * what was written is kept in memory until its file is synced, so that a kill loses it.
 *
 *   DISK_FLUSH_US=n   every sync takes n microseconds longer
 *   DISK_FAIL_AFTER=n the n-th sync and all after it fail with EIO
 *
 * Only files whose names end in ".log" are looked after. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

struct write {
    struct write *next;
    int fd;
    off64_t offset;
    size_t length;
    char bytes[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct write *first, **last = &first;
static long syncs;

static long setting(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int is_ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 4 && memcmp(path + length - 4, ".log", 4) == 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    if (!is_ours(fd)) return real(fd, bytes, length, offset);
    struct write *write = malloc(sizeof *write + length);
    if (!write) { errno = ENOMEM; return -1; }
    *write = (struct write){ .fd = fd, .offset = offset, .length = length };
    memcpy(write->bytes, bytes, length);
    pthread_mutex_lock(&lock);
    *last = write;
    last = &write->next;
    pthread_mutex_unlock(&lock);
    return length;
}

static int flush(int fd, const char *name) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (!is_ours(fd)) return sync(fd);
    long fails = setting("DISK_FAIL_AFTER"), wait = setting("DISK_FLUSH_US");
    pthread_mutex_lock(&lock);
    int broken = fails && ++syncs >= fails;
    last = &first;
    while (*last) {
        struct write *write = *last;
        if (write->fd != fd) { last = &write->next; continue; }
        if (!broken && real(fd, write->bytes, write->length, write->offset) < 0) broken = 1;
        *last = write->next;
        free(write);
    }
    pthread_mutex_unlock(&lock);
    if (wait) usleep(wait);
    if (broken) { errno = EIO; return -1; }
    return sync(fd);
}

int fdatasync(int fd) { return flush(fd, "fdatasync"); }
int fsync(int fd) { return flush(fd, "fsync"); }
