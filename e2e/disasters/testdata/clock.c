// SPDX-License-Identifier: Apache-2.0
//
// A wall clock that a test can set: PostgreSQL stamps what it writes with
// gettimeofday. The file that KBTEST_CLOCK names holds microseconds to add; where it
// cannot be had the clock is the machine's.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

static volatile const int64_t *offset;
static int (*real)(struct timeval *, void *);

__attribute__((constructor)) static void begin(void)
{
	const char *name = getenv("KBTEST_CLOCK");
	int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;

	real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
	if (fd < 0)
		return;
	void *p = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED)
		offset = p;
	close(fd);
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	int r = real(tv, tz);

	if (r == 0 && offset != NULL) {
		int64_t us = (int64_t)tv->tv_sec * 1000000 + tv->tv_usec + *offset;
		tv->tv_sec = us / 1000000;
		tv->tv_usec = us % 1000000;
	}
	return r;
}
