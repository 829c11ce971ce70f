/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and writing an application's memory through /proc/PID/mem.
 *
 * Room: memory. May use: memory/space.h. Called on the helper threads of engine_slow.c only: any call may take as long
 * as the application pleases.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memory/engine.h"
#include "memory/space.h"

enum { FX_TRIES = 200, UNIT = 32 /* of what is written: CQEs and events */ };

/*
 * Should a transfer that failed be tried again? Where userfaultfd holds a page back, this access fails at once
 * instead of waiting as the application's own would: so it does while the page is being converted.
 */
static bool try_again(const struct fx_space *s, int *tries)
{
	const struct timespec pause = {.tv_nsec = 500000};

	if (errno == EINTR)
		return true;
	if (errno != EIO || ++*tries > FX_TRIES || atomic_load(&s->closing))
		return false;
	nanosleep(&pause, NULL);
	return true;
}

/* One piece of a transfer in the system call. */
int fx_space_transfer(const struct fx_space *s, uint8_t *bounce, uint64_t addr, size_t len, bool to_window)
{
	int tries = 0;

	while (len) {
		ssize_t n = to_window ? pwrite(s->mem, bounce, len, (off_t)addr)
				      : pread(s->mem, bounce, len, (off_t)addr);

		if (n < 0 && try_again(s, &tries))
			continue;
		if (n <= 0)
			return n ? -EFAULT : -ESRCH; /* 0: the address space is no more */
		bounce += n;
		addr += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/*
 * Ring entries, which have to come and go whole (struct fx_dma, lines), by a system call that copies bytes in any order.
 * Reading twice the same is enough: an entry's phase is stored after the rest of it, so a copy that holds a new phase
 * and old bytes differs from the next one.
 */
static int read_lines(const struct fx_space *s, uint8_t *bounce, uint64_t addr, size_t len)
{
	uint8_t again[FX_LINES_MAX];
	int err = fx_space_transfer(s, bounce, addr, len, false);

	while (!err) {
		err = fx_space_transfer(s, again, addr, len, false);
		if (err || !memcmp(bounce, again, len))
			break;
		memcpy(bounce, again, len);
		if (atomic_load(&s->closing))
			return -ESRCH; /* who writes there for ever has left */
	}
	return err;
}

/* The last byte of a unit is its phase: first everything with phases that are not valid yet, then as it should be. */
static int write_lines(const struct fx_space *s, uint8_t *bounce, uint64_t addr, size_t len)
{
	int err = 0;

	for (size_t i = UNIT; i <= len; i += UNIT)
		bounce[i - 1] ^= 1;
	if (len >= UNIT)
		err = fx_space_transfer(s, bounce, addr, len, true);
	for (size_t i = UNIT; i <= len; i += UNIT)
		bounce[i - 1] ^= 1;
	return err ? err : fx_space_transfer(s, bounce, addr, len, true);
}

int fx_space_lines(const struct fx_space *s, uint8_t *bounce, uint64_t addr, size_t len, bool to_window)
{
	if (len > FX_LINES_MAX)
		return -EFAULT;
	return to_window ? write_lines(s, bounce, addr, len) : read_lines(s, bounce, addr, len);
}

int fx_space_atomic(const struct fx_space *s, uint64_t addr, uint8_t op, struct fx_dma_atomic *a)
{
	uint64_t word = a->swap_add;
	int err;

	if (op == FX_DMA_STORE)
		return fx_space_transfer(s, (uint8_t *)&word, addr, sizeof(word), true);
	err = fx_space_transfer(s, (uint8_t *)&word, addr, sizeof(word), false);
	if (err)
		return err;
	a->original = word;
	if (op == FX_DMA_COMPARE_SWAP && word != a->compare)
		return 0;
	word = op == FX_DMA_COMPARE_SWAP ? a->swap_add : word + a->swap_add;
	return fx_space_transfer(s, (uint8_t *)&word, addr, sizeof(word), true);
}
