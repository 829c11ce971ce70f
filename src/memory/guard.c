/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guard under the windows: memory whose backing the application took away must not end the core.
 *
 * Room: memory. May use: memory/space.h, signals. The handler runs on whichever thread touched the window; it
 * looks the address up under a spin lock that is never held by anybody who touches a window, so it cannot
 * wait for itself.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory/space.h"

_Atomic uint32_t fx_poison_count;

static atomic_flag lock = ATOMIC_FLAG_INIT;
static struct fx_window *windows;
static struct sigaction before;

static void take(void)
{
	/* acquire: the list as the last holder left it */
	while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
		;
}

static void release(void)
{
	/* release: the list, before the next holder reads it */
	atomic_flag_clear_explicit(&lock, memory_order_release);
}

/*
 * All signals are blocked while the lock is held: a handler must not find it held by the thread that it
 * interrupts.
 */
void fx_guard_add(struct fx_window *w)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	take();
	w->next = windows;
	w->link = &windows;
	if (w->next)
		w->next->link = &w->next;
	windows = w;
	release();
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void fx_guard_del(struct fx_window *w)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	take();
	*w->link = w->next;
	if (w->next)
		w->next->link = w->link;
	release();
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static bool contains(const struct fx_window *w, uintptr_t at)
{
	return w->map && at >= (uintptr_t)w->map && at - (uintptr_t)w->map < w->maplen;
}

/* Zeroes over the whole window: what is left of it would only fault again, a page at a time. */
static bool poison(uintptr_t at)
{
	struct fx_window *w;
	bool done = false;

	take();
	for (w = windows; w && !contains(w, at); w = w->next)
		;
	if (w && mmap(w->map, w->maplen, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
		atomic_store_explicit(&w->poisoned, 1, memory_order_relaxed);
		/* relaxed: see fx_poisoned_any() */
		atomic_fetch_add_explicit(&fx_poison_count, 1, memory_order_relaxed);
		done = true;
	}
	release();
	return done;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int err = errno;

	if (info->si_code > 0 && poison((uintptr_t)info->si_addr)) {
		errno = err;
		return;
	}
	if ((before.sa_flags & SA_SIGINFO) && before.sa_sigaction) {
		before.sa_sigaction(sig, info, context);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
	} else {
		signal(sig, SIG_DFL);
		raise(sig);
	}
	errno = err;
}

int fx_window_guard(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO}, old;

	sigfillset(&sa.sa_mask);
	if (sigaction(SIGBUS, &sa, &old))
		return -errno;
	if (old.sa_sigaction != on_sigbus)
		before = old;
	return 0;
}

bool fx_mr_poisoned(const struct fx_mr *mr)
{
	const struct fx_window *w = mr ? mr->slow : NULL;

	/* relaxed: it only ever goes up, and a later copy would see it too */
	return w && atomic_load_explicit(&w->poisoned, memory_order_relaxed);
}
