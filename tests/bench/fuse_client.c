/* Client of the mount benchmarks: MODE PATH THREADS SECONDS [COUNT [SOURCE]].
 *
 * stat, openread, create       without COUNT: of any of 10,000 files until SECONDS are over (fuse_bench.ts)
 * stat, openread, create, rename, unlink
 *                              with COUNT: once for each of PATH/f0 .. f(COUNT-1), or until SECONDS (if not 0) are over;
 *                              stat+, openread+: round and round until SECONDS are over
 * pread                        4 KiB at random places of the file PATH, each thread with a descriptor of its own
 * handles                      opens COUNT files, then reads 4 KiB of each while all are open: the latencies are the reads'
 * These print: operations a second, p50 and p99 of one in microseconds, operations done.
 * readdir                      prints entries a second, and 0 0 and the entries
 * write, writesync             COUNT MiB of the file SOURCE to the file PATH, for writesync with an fsync before the close;
 *                              prints seconds until the last write, the fsync and the close had returned
 * firstbyte                    prints milliseconds until the first byte of the file PATH was there, its open included */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *mode, *dir;
static int threads;
static double ends;        /* seconds of the monotonic clock; 0: never */
static long count;         /* files; 0: until the time is over */
static int again;          /* from the first file again after the last one */
static atomic_long next_file;
static pthread_barrier_t ready;
static off_t size;         /* of PATH, for pread */

/* What one thread saw. */
struct seen {
  int thread;
  long operations, room;
  float *micros;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void *allocate(void *old, size_t bytes) {
  void *got = realloc(old, bytes);
  if (!got) fail("realloc");
  return got;
}

static void took(struct seen *seen, double since) {
  if (seen->operations == seen->room) {
    seen->room = seen->room ? seen->room * 2 : 4096;
    seen->micros = allocate(seen->micros, seen->room * sizeof *seen->micros);
  }
  seen->micros[seen->operations++] = (now() - since) * 1e6;
}

static int open_read(const char *path) {
  char buffer[4096];
  int fd = open(path, O_RDONLY);
  if (fd < 0) return -1;
  ssize_t got = read(fd, buffer, sizeof buffer);
  return close(fd) || got != sizeof buffer ? -1 : 0;
}

static int create(const char *path) {
  static const char zeros[4096];
  int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd < 0) return -1;
  ssize_t put = write(fd, zeros, sizeof zeros);
  return close(fd) || put != sizeof zeros ? -1 : 0;
}

static void once(struct seen *seen, const char *path, const char *other) {
  struct stat st;
  double since = now();
  int result;
  if (!strncmp(mode, "stat", 4)) result = stat(path, &st);
  else if (!strncmp(mode, "openread", 8)) result = open_read(path);
  else if (!strcmp(mode, "create")) result = create(path);
  else if (!strcmp(mode, "unlink")) result = unlink(path);
  else {
    /* There and back: two operations that leave the folder as it was. */
    if (rename(path, other)) fail(path);
    took(seen, since);
    since = now();
    result = rename(other, path);
  }
  if (result) fail(path);
  took(seen, since);
}

static void *work(void *arg) {
  struct seen *seen = arg;
  char path[512], other[512], buffer[4096];
  unsigned seed = seen->thread * 7919 + 1;
  int fd = -1;
  if (size && (fd = open(dir, O_RDONLY)) < 0) fail(dir);
  if (size) posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  pthread_barrier_wait(&ready); /* all are there, and what ends them is known after the second */
  pthread_barrier_wait(&ready);
  for (long n = 0; !ends || now() < ends; n++) {
    seed = seed * 1103515245 + 12345;
    if (size) {
      double since = now();
      if (pread(fd, buffer, 4096, (off_t)((seed >> 4) % (size / 4096)) * 4096) != 4096) fail(dir);
      took(seen, since);
      continue;
    }
    if (count) {
      long file = atomic_fetch_add(&next_file, 1);
      if (again) file %= count;
      else if (file >= count) break;
      snprintf(path, sizeof path, "%s/f%ld", dir, file);
      snprintf(other, sizeof other, "%s/r%ld", dir, file);
    } else if (!strcmp(mode, "create")) snprintf(path, sizeof path, "%s/w/c%d_%ld", dir, seen->thread, n);
    else snprintf(path, sizeof path, "%s/f%u", dir, (seed >> 8) % 10000);
    once(seen, path, other);
  }
  if (fd >= 0) close(fd);
  return 0;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void report(struct seen *all, int number, double seconds) {
  long total = 0, at = 0;
  for (int i = 0; i < number; i++) total += all[i].operations;
  float *micros = allocate(0, (total + 1) * sizeof *micros);
  for (int i = 0; i < number; i++) {
    if (all[i].operations) memcpy(micros + at, all[i].micros, all[i].operations * sizeof *micros);
    at += all[i].operations;
  }
  qsort(micros, total, sizeof *micros, ascending);
  float p50 = total ? micros[total / 2] : 0, p99 = total ? micros[(total * 99 - 1) / 100] : 0;
  printf("%ld %.1f %.1f %ld\n", (long)(total / seconds), p50, p99, total);
}

static int list(void) {
  double start = now();
  DIR *d = opendir(dir);
  long n = 0;
  if (!d) fail(dir);
  while (readdir(d)) n++;
  closedir(d);
  printf("%ld 0 0 %ld\n", (long)(n / (now() - start)), n);
  return 0;
}

static int handles(void) {
  struct seen seen = {0};
  char path[512], buffer[4096];
  int *fds = allocate(0, count * sizeof *fds);
  double start = now();
  for (long i = 0; i < count; i++) {
    snprintf(path, sizeof path, "%s/f%ld", dir, i);
    if ((fds[i] = open(path, O_RDONLY)) < 0) fail(path);
  }
  for (long i = 0; i < count; i++) {
    double since = now();
    if (pread(fds[i], buffer, 4096, 0) != 4096) fail("pread");
    took(&seen, since);
  }
  for (long i = 0; i < count; i++) if (close(fds[i])) fail("close");
  report(&seen, 1, now() - start);
  return 0;
}

static int stream(const char *source) {
  const size_t mib = 1 << 20;
  int in = open(source, O_RDONLY);
  if (in < 0) fail(source);
  char *bytes = mmap(0, count * mib, PROT_READ, MAP_SHARED | MAP_POPULATE, in, 0);
  if (bytes == MAP_FAILED) fail("mmap");
  double start = now();
  int out = open(dir, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (out < 0) fail(dir);
  for (long i = 0; i < count; i++)
    for (size_t at = 0; at < mib;) {
      ssize_t put = write(out, bytes + i * mib + at, mib - at);
      if (put <= 0) fail(dir);
      at += put;
    }
  double written = now() - start;
  if (!strcmp(mode, "writesync") && fsync(out)) fail("fsync");
  double synced = now() - start;
  if (close(out)) fail("close");
  printf("%.6f %.6f %.6f\n", written, synced, now() - start);
  return 0;
}

static int first_byte(void) {
  char byte;
  double start = now();
  int fd = open(dir, O_RDONLY);
  if (fd < 0 || read(fd, &byte, 1) != 1) fail(dir);
  printf("%.3f\n", (now() - start) * 1e3);
  return close(fd);
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  mode = argv[1];
  dir = argv[2];
  threads = atoi(argv[3]);
  double seconds = atof(argv[4]);
  if (argc > 5) count = atol(argv[5]);
  if (!strcmp(mode, "readdir")) return list();
  if (!strcmp(mode, "handles")) return handles();
  if (!strcmp(mode, "firstbyte")) return first_byte();
  if (!strncmp(mode, "write", 5)) return argc > 6 ? stream(argv[6]) : 2;
  if (!strcmp(mode, "pread")) {
    struct stat st;
    if (stat(dir, &st)) fail(dir);
    size = st.st_size;
  }
  pthread_t *ids = calloc(threads, sizeof *ids);
  struct seen *all = calloc(threads, sizeof *all);
  again = count && mode[strlen(mode) - 1] == '+';
  pthread_barrier_init(&ready, 0, threads + 1);
  for (int i = 0; i < threads; i++) {
    all[i].thread = i;
    if (pthread_create(&ids[i], 0, work, &all[i])) fail("pthread_create");
  }
  pthread_barrier_wait(&ready);
  double start = now();
  if (seconds > 0) ends = start + seconds;
  pthread_barrier_wait(&ready);
  for (int i = 0; i < threads; i++) pthread_join(ids[i], 0);
  report(all, threads, now() - start);
  return 0;
}
