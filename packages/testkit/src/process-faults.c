/*
 * Preloaded into a server under test. Makes its disk and its wall clock wrong on demand, for files whose path contains a given text.
 *
 * CONCLAVE_FAULTS names a file of 4096 bytes that is mapped into memory: lines of rules from its start, and at 4088 the number of calls that a
 * rule has changed. Rules are read anew at every call, so that a change of the file takes effect at once, in all threads.
 *
 *   sync  <path-part> errno <number> | delay <ms> | skip
 *   write <path-part> errno <number> | delay <ms>
 *   space <path-part> errno <number>
 *   clock * offset <ms>
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *rules;
static uint64_t *hits;

__attribute__((constructor)) static void map_rules(void) {
  const char *path = getenv("CONCLAVE_FAULTS");
  int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (page == MAP_FAILED) abort();
  hits = (uint64_t *)(page + 4088);
  rules = page;
}

/* The rule for this operation: its action, and the number given with it. Calls on files that no rule names must stay cheap. */
static int find_rule(const char *operation, int fd, char *action, long *number) {
  if (rules == NULL || rules[0] == 0) return 0;
  char path[1024] = "";
  const char *line = rules;
  for (const char *end; line < rules + 4000 && (end = memchr(line, '\n', 4000 - (line - rules))) != NULL; line = end + 1) {
    char op[16], part[512];
    *number = 0;
    if (sscanf(line, "%15s %511s %15s %ld", op, part, action, number) < 3 || strcmp(op, operation) != 0) continue;
    if (fd < 0) return 1;
    if (path[0] == 0) {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
      ssize_t length = readlink(link, path, sizeof path - 1);
      if (length < 0) return 0;
      path[length] = 0;
    }
    if (strstr(path, part) != NULL) return 1;
  }
  return 0;
}

/* True: the call is over, with `*result`. */
static int is_faulty(const char *operation, int fd, ssize_t *result) {
  char action[16];
  long number;
  int saved = errno;
  if (!find_rule(operation, fd, action, &number)) {
    errno = saved;
    return 0;
  }
  __atomic_add_fetch(hits, 1, __ATOMIC_SEQ_CST);
  errno = saved;
  if (strcmp(action, "delay") == 0) {
    struct timespec wait = {number / 1000, number % 1000 * 1000000};
    nanosleep(&wait, NULL);
    return 0;
  }
  *result = strcmp(action, "skip") == 0 ? 0 : -1;
  if (*result < 0) errno = (int)number;
  return 1;
}

#define WRAP(operation, fd, result_type, name, parameters, arguments) \
  result_type name parameters { \
    static result_type(*next) parameters; \
    ssize_t result; \
    if (is_faulty(operation, fd, &result)) return (result_type)result; \
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, #name); \
    return next arguments; \
  }

WRAP("sync", fd, int, fsync, (int fd), (fd))
WRAP("sync", fd, int, fdatasync, (int fd), (fd))
WRAP("write", fd, ssize_t, write, (int fd, const void *bytes, size_t size), (fd, bytes, size))
WRAP("write", fd, ssize_t, pwrite, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
WRAP("write", fd, ssize_t, pwrite64, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
WRAP("write", fd, ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
WRAP("write", fd, ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
WRAP("write", fd, ssize_t, pwritev64, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
WRAP("space", fd, int, ftruncate, (int fd, off_t size), (fd, size))
WRAP("space", fd, int, ftruncate64, (int fd, off_t size), (fd, size))
WRAP("space", fd, int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
WRAP("space", fd, int, fallocate64, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))

static void shift(struct timespec *now) {
  char action[16];
  long ms;
  int saved = errno;
  if (find_rule("clock", -1, action, &ms)) {
    int64_t nanoseconds = now->tv_nsec + (int64_t)(ms % 1000) * 1000000;
    now->tv_sec += ms / 1000 + (nanoseconds < 0 ? -1 : nanoseconds / 1000000000);
    now->tv_nsec = (nanoseconds + 1000000000) % 1000000000;
    __atomic_add_fetch(hits, 1, __ATOMIC_SEQ_CST);
  }
  errno = saved;
}

/* Only the wall clock: the monotonic ones are what no server may be led astray by. */
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*next)(clockid_t, struct timespec *);
  if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "clock_gettime");
  int result = next == NULL ? (int)syscall(SYS_clock_gettime, clock, now) : next(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) shift(now);
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  int result = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return result;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != NULL) *out = now.tv_sec;
  return now.tv_sec;
}
