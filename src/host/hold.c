/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A held thread may have a lock that fork takes only after we held it: malloc's. So a thread of ours watches the one
 * that forks. If that sleeps, it is stuck; it is sent a signal whose handler keeps it where it is, the others go on for
 * a moment and are held again, and then it may try once more. So no child is made while they run.
 *
 * Room: host. May use: hold.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "host/convert.h"
#include "host/hold.h"

enum {
	LOOK_US = 100,
	STUCK_LOOKS = 10, /* in a row, at a thread that sleeps */
	GO_US = 1000,	  /* time for the others to give their locks back */
	MOST_TURNS = 200, /* then it is not the others that it waits for */
	LAST_TURN = 1 << 30,
};

static struct {
	const struct fx_piece *piece;
	uint32_t n;
	bool watching;
	pthread_t watcher;
	pid_t forker;		 /* its thread id */
	int signo;		 /* 0: none is free */
	struct sigaction action; /* what it did before */
	sigset_t mask;
	uint32_t over; /* atomic: the fork is done */
	int asked, kept,
		answered; /* atomic: the last turn in which the forking thread was asked to wait, did, may go */
} hold;

static void pause_us(long us)
{
	const struct timespec t = {.tv_nsec = us * 1000};

	syscall(SYS_nanosleep, &t, NULL);
}

static void hold_all(void)
{
	for (uint32_t i = 0; i < hold.n; i++)
		if (hold.piece[i].view)
			fx_writers_hold(hold.piece[i].addr, hold.piece[i].len);
}

static void release_all(void)
{
	for (uint32_t i = 0; i < hold.n; i++)
		if (hold.piece[i].view)
			fx_writers_release(hold.piece[i].addr, hold.piece[i].len);
}

/* ---- the thread that forks, while it is kept ---- */

static void keep_waiting(int sig)
{
	int turn = __atomic_load_n(&hold.asked, __ATOMIC_ACQUIRE), err = errno;

	(void)sig;
	__atomic_store_n(&hold.kept, turn, __ATOMIC_RELEASE);
	/* acquire: the others are held again before we go on to make a child */
	while (__atomic_load_n(&hold.answered, __ATOMIC_ACQUIRE) < turn)
		pause_us(LOOK_US / 2);
	errno = err;
}

/* A signal that the program does not use; undone by signal_back(). */
static void take_signal(void)
{
	struct sigaction mine = {.sa_handler = keep_waiting, .sa_flags = SA_RESTART};
	sigset_t set;

	sigfillset(&mine.sa_mask);
	hold.signo = 0;
	for (int s = SIGRTMAX; s >= SIGRTMIN && !hold.signo; s--)
		if (!sigaction(s, NULL, &hold.action) && !(hold.action.sa_flags & SA_SIGINFO) &&
		    hold.action.sa_handler == SIG_DFL && !sigaction(s, &mine, NULL))
			hold.signo = s;
	sigemptyset(&set);
	if (hold.signo)
		sigaddset(&set, hold.signo);
	pthread_sigmask(SIG_UNBLOCK, &set, &hold.mask);
}

static void signal_back(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	if (hold.signo) {
		sigaction(hold.signo, &ignore, NULL); /* forgets one that is still under way */
		sigaction(hold.signo, &hold.action, NULL);
	}
	pthread_sigmask(SIG_SETMASK, &hold.mask, NULL);
}

/* ---- the thread that watches ---- */

static bool over(void)
{
	return __atomic_load_n(&hold.over, __ATOMIC_ACQUIRE);
}

static bool sleeps(int stat_fd)
{
	char text[256];
	ssize_t n = pread(stat_fd, text, sizeof(text) - 1, 0);
	const char *at;

	text[n > 0 ? n : 0] = '\0';
	at = strrchr(text, ')');
	return at && at[1] == ' ' && at[2] == 'S';
}

/* False: the fork is done. */
static bool wait_until_stuck(int stat_fd)
{
	for (int looks = 0; looks < STUCK_LOOKS; pause_us(LOOK_US)) {
		if (over())
			return false;
		looks = sleeps(stat_fd) ? looks + 1 : 0;
	}
	return true;
}

static bool keep_forker(int turn)
{
	__atomic_store_n(&hold.asked, turn, __ATOMIC_RELEASE);
	if (syscall(SYS_tgkill, getpid(), hold.forker, hold.signo))
		return false;
	while (__atomic_load_n(&hold.kept, __ATOMIC_ACQUIRE) < turn) {
		if (over())
			return false;
		pause_us(LOOK_US / 2);
	}
	return true;
}

static void *watch(void *arg)
{
	char path[64];
	int fd, turn = 1;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", hold.forker);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (; wait_until_stuck(fd) && turn < MOST_TURNS && hold.signo && keep_forker(turn); turn++) {
		release_all();
		pause_us(GO_US);
		hold_all();
		/* release: they are held; see keep_waiting() */
		__atomic_store_n(&hold.answered, turn, __ATOMIC_RELEASE);
	}
	if (!over()) /* it waits for itself, or for what we do not know: better a copy of two moments than no end */
		release_all();
	__atomic_store_n(&hold.answered, LAST_TURN, __ATOMIC_RELEASE);
	if (fd >= 0)
		close(fd);
	return arg;
}

/* ---- */

void fx_hold_begin(const struct fx_piece *piece, uint32_t n)
{
	sigset_t all, old;

	hold.piece = piece;
	hold.n = n;
	hold.watching = false;
	if (!n || !fx_has_threads())
		return;
	hold.forker = (pid_t)syscall(SYS_gettid);
	hold.over = 0;
	hold.asked = hold.kept = hold.answered = 0;
	take_signal();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* before the others are held: making a thread takes locks */
	hold.watching = !pthread_create(&hold.watcher, NULL, watch, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (hold.watching)
		hold_all();
	else
		signal_back();
}

void fx_hold_forked(void)
{
	if (!hold.watching)
		return;
	/* release: orders nothing of ours, but over() reads it with acquire */
	__atomic_store_n(&hold.over, 1, __ATOMIC_RELEASE);
	pthread_join(hold.watcher, NULL);
	signal_back();
	hold_all(); /* if it had given up */
}

void fx_hold_end(void)
{
	if (hold.watching)
		release_all();
	hold.watching = false;
}

void fx_hold_child(void)
{
	if (hold.watching)
		signal_back();
	hold.watching = false;
}
