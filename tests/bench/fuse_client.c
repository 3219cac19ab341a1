/* Client of the mount benchmarks: MODE DIR THREADS SECONDS [COUNT], prints operations a second. With COUNT it ends after
 * so many operations, all threads together. Built by fuse_bench.ts and mount_bench.ts. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *mode, *dir;
static atomic_int stop;
static atomic_long total;
static long each; /* operations of one thread; 0: until the time is over */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static int once(unsigned file, int thread, long n) {
  char path[512], buffer[4096] = {0};
  struct stat st;
  if (!strcmp(mode, "stat")) {
    snprintf(path, sizeof path, "%s/f%u", dir, file);
    return stat(path, &st);
  }
  int create = !strcmp(mode, "create");
  if (create) snprintf(path, sizeof path, "%s/w/c%d_%ld", dir, thread, n);
  else snprintf(path, sizeof path, "%s/f%u", dir, file);
  int fd = open(path, create ? O_CREAT | O_WRONLY | O_TRUNC : O_RDONLY, 0644);
  if (fd < 0) return -1;
  ssize_t moved = create ? write(fd, buffer, 4096) : read(fd, buffer, 4096);
  return close(fd) || moved != 4096 ? -1 : 0;
}

static void *work(void *arg) {
  int thread = (int)(long)arg;
  unsigned seed = thread * 7919 + 1;
  long n = 0;
  while (!stop && (!each || n < each)) {
    seed = seed * 1103515245 + 12345;
    if (once((seed >> 8) % 10000, thread, n++)) {
      perror(mode);
      exit(1);
    }
  }
  total += n;
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  mode = argv[1];
  dir = argv[2];
  int threads = atoi(argv[3]);
  if (argc > 5) each = atol(argv[5]) / threads;
  double start = now();
  if (!strcmp(mode, "readdir")) {
    DIR *d = opendir(dir);
    long n = 0;
    if (!d) return perror(dir), 1;
    while (readdir(d)) n++;
    closedir(d);
    printf("%ld\n", (long)(n / (now() - start)));
    return 0;
  }
  pthread_t *ids = calloc(threads, sizeof *ids);
  for (long i = 0; i < threads; i++) pthread_create(&ids[i], 0, work, (void *)i);
  if (!each) {
    usleep((useconds_t)(atof(argv[4]) * 1e6));
    stop = 1;
  }
  for (int i = 0; i < threads; i++) pthread_join(ids[i], 0);
  printf("%ld\n", (long)(total / (now() - start)));
  return 0;
}
