/*
 * Counts what a process writes and syncs, for every database library in the same way.
 *
 * Preloaded into the measured process (LD_PRELOAD, Linux). It stands in front of libc's open,
 * close, write and sync calls and adds up into a file that the harness reads: BENCH_IO_COUNTERS
 * names it. A descriptor counts when the name that it was opened by ends in -wal (a WAL) or in .db
 * (a database).
 *
 *   word  counts
 *   0     syncs: fsync, fdatasync, sync_file_range of any descriptor
 *   1     syncs of a WAL
 *   2     writes to a WAL
 *   3     bytes written to a WAL
 *   4     bytes written to a database
 *
 * Words are 64 bits in the machine's byte order and only grow.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum { SYNCS, WAL_SYNCS, WAL_WRITES, WAL_BYTES, DB_BYTES, WORDS };
enum { OTHER, WAL, DATABASE };
enum { MAX_FD = 65536 };

static uint64_t discarded[WORDS];
static uint64_t *words = discarded;
static unsigned char kinds[MAX_FD];

static void add(int word, uint64_t amount) { __atomic_fetch_add(&words[word], amount, __ATOMIC_RELAXED); }

static int kind_of(int fd) {
    return fd >= 0 && fd < MAX_FD ? __atomic_load_n(&kinds[fd], __ATOMIC_RELAXED) : OTHER;
}

static void set_kind(int fd, int kind) {
    if (fd >= 0 && fd < MAX_FD) __atomic_store_n(&kinds[fd], kind, __ATOMIC_RELAXED);
}

static int ends_in(const char *name, const char *ending) {
    size_t length = strlen(name), tail = strlen(ending);
    return length >= tail && memcmp(name + length - tail, ending, tail) == 0;
}

static int opened(int fd, const char *name) {
    set_kind(fd, ends_in(name, "-wal") ? WAL : ends_in(name, ".db") ? DATABASE : OTHER);
    return fd;
}

static void written(int fd, ssize_t bytes) {
    int kind = kind_of(fd);
    if (bytes <= 0 || kind == OTHER) return;
    if (kind == WAL) add(WAL_WRITES, 1);
    add(kind == WAL ? WAL_BYTES : DB_BYTES, (uint64_t)bytes);
}

static void synced(int fd) {
    add(SYNCS, 1);
    if (kind_of(fd) == WAL) add(WAL_SYNCS, 1);
}

/* The next definition of a symbol, looked up at its first call. */
#define NEXT(type, name)                                                                                               \
    static type next;                                                                                                  \
    type call = __atomic_load_n(&next, __ATOMIC_RELAXED);                                                              \
    if (!call) {                                                                                                       \
        call = (type)dlsym(RTLD_NEXT, name);                                                                           \
        __atomic_store_n(&next, call, __ATOMIC_RELAXED);                                                               \
    }

#define MODE(flags, last)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list arguments;                                                                                             \
        va_start(arguments, last);                                                                                     \
        mode = va_arg(arguments, mode_t);                                                                              \
        va_end(arguments);                                                                                             \
    }

typedef int (*open_call)(const char *, int, ...);
typedef int (*openat_call)(int, const char *, int, ...);
typedef ssize_t (*write_call)(int, const void *, size_t);
typedef ssize_t (*pwrite_call)(int, const void *, size_t, off_t);
typedef ssize_t (*pwrite64_call)(int, const void *, size_t, off64_t);
typedef int (*sync_call)(int);
typedef int (*sync_range_call)(int, off64_t, off64_t, unsigned);

int open(const char *name, int flags, ...) {
    NEXT(open_call, "open")
    MODE(flags, flags)
    return opened(call(name, flags, mode), name);
}

int open64(const char *name, int flags, ...) {
    NEXT(open_call, "open64")
    MODE(flags, flags)
    return opened(call(name, flags, mode), name);
}

int openat(int folder, const char *name, int flags, ...) {
    NEXT(openat_call, "openat")
    MODE(flags, flags)
    return opened(call(folder, name, flags, mode), name);
}

int openat64(int folder, const char *name, int flags, ...) {
    NEXT(openat_call, "openat64")
    MODE(flags, flags)
    return opened(call(folder, name, flags, mode), name);
}

int close(int fd) {
    NEXT(sync_call, "close")
    set_kind(fd, OTHER);
    return call(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write_call, "write")
    ssize_t bytes = call(fd, data, size);
    written(fd, bytes);
    return bytes;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    NEXT(pwrite_call, "pwrite")
    ssize_t bytes = call(fd, data, size, offset);
    written(fd, bytes);
    return bytes;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    NEXT(pwrite64_call, "pwrite64")
    ssize_t bytes = call(fd, data, size, offset);
    written(fd, bytes);
    return bytes;
}

int fsync(int fd) {
    NEXT(sync_call, "fsync")
    synced(fd);
    return call(fd);
}

int fdatasync(int fd) {
    NEXT(sync_call, "fdatasync")
    synced(fd);
    return call(fd);
}

int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) {
    NEXT(sync_range_call, "sync_file_range")
    synced(fd);
    return call(fd, offset, size, flags);
}

__attribute__((constructor)) static void map_counters(void) {
    const char *name = getenv("BENCH_IO_COUNTERS");
    if (!name) return;
    int fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof discarded, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) words = map;
}
