/* What the system tells and is told of processes and files: CPU times, pinning, the page cache. */
#ifndef LEAN_PROCESS_H
#define LEAN_PROCESS_H

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include "lean_nbd.h"

#define FAMILY_MAX 256

struct cpu_times { double servers_us, client_us; };

static double clock_us(clockid_t clock) {
  struct timespec at;
  if (clock_gettime(clock, &at) != 0) return 0; /* the process has ended */
  return (double)at.tv_sec * 1e6 + (double)at.tv_nsec / 1e3;
}

/* Adds a process and all that descend from it, for a server may fork for each client. */
static int add_family(int pid, int *family, int count) {
  if (count == FAMILY_MAX) return count;
  family[count++] = pid;
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
  FILE *file = fopen(path, "re");
  if (file == NULL) return count;
  for (int child; fscanf(file, "%d", &child) == 1;) count = add_family(child, family, count);
  fclose(file);
  return count;
}

/*
 * CPU time of the servers, user and system, all threads, those that have ended among them: the clock of the process
 * (clock_getcpuclockid), in nanoseconds, where /proc/PID/stat has ticks of 10 ms.
 */
static struct cpu_times cpu_times(const int *servers, int count) {
  int family[FAMILY_MAX], members = 0;
  struct cpu_times times = {.client_us = clock_us(CLOCK_PROCESS_CPUTIME_ID)};
  for (int i = 0; i < count; i++) members = add_family(servers[i], family, members);
  for (int i = 0; i < members; i++) {
    clockid_t clock;
    if (clock_getcpuclockid(family[i], &clock) == 0) times.servers_us += clock_us(clock);
  }
  return times;
}

static void sleep_until(uint64_t ns) {
  struct timespec at = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {}
}

static void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) fail("cannot run on CPU %d: %s", cpu, strerror(errno));
}

/* Bytes of a file that are in the page cache. The mapping touches no page: mincore asks for the cache, not for it. */
static uint64_t cached_bytes(int fd, uint64_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page;
  if (pages == 0) return 0;
  void *at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
  unsigned char *state = malloc(pages);
  if (at == MAP_FAILED || mincore(at, bytes, state) != 0) fail("mincore: %s", strerror(errno));
  uint64_t count = 0;
  for (size_t i = 0; i < pages; i++) count += state[i] & 1;
  munmap(at, bytes);
  free(state);
  return count * page;
}

/*
 * Prints how much of the files is cached; writes them back and drops their pages before, if that is wanted. It needs
 * no root. Pages that a process has mapped stay, so a server that maps must be restarted first.
 */
static int print_cached(char **paths, bool is_drop) {
  uint64_t cached = 0, size = 0;
  for (; *paths != NULL; paths++) {
    int fd = open(*paths, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) != 0) fail("%s: %s", *paths, strerror(errno));
    if (is_drop) {
      /* Dirty pages are not dropped. */
      if (fdatasync(fd) != 0) fail("fdatasync %s: %s", *paths, strerror(errno));
      posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    cached += cached_bytes(fd, (uint64_t)stat.st_size);
    size += (uint64_t)stat.st_size;
    close(fd);
  }
  printf("{\"cached_bytes\":%lu,\"size_bytes\":%lu}\n", cached, size);
  return 0;
}

#endif
