/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting (guarantee S3). Where CPUs are shared, a worker that has nothing to do spins for no longer than
 * two microseconds and then sleeps, so that the application it waits for can run; it never yields, which on a
 * machine with two CPUs costs milliseconds. Who wants it writes an eventfd: the context's kick, or the
 * mailbox's.
 *
 * CPUs are shared while more threads want to run than there are CPUs, which the kernel tells in
 * /proc/loadavg. While there is a CPU for everyone, the worker spins longer: a kick costs its producer more
 * than many a request costs the worker, which would then be asleep again before the next one came.
 *
 * The eventfds are edge-triggered and never read: the application shares its kick's file description, could
 * empty it or make it block, and so must have no way to make a read of ours wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include <rte_pause.h>

#include "core/inside.h"

enum {
	SPIN_SHARED_NS = 2000,
	SPIN_OWN_NS = 50000, /* with CPUs to spare */
	LOAD_PERIOD_NS = 1000000,
	BACKOFF_NS = 1000000,	 /* a port that cannot wake us, and helpers */
	LONGEST_NS = 1000000000, /* nothing needs it; it bounds the harm of a kick that never came */
	WAKES = 8,
	NICE = -15,
	SLICE_NS = 100000, /* the shortest that the kernel takes */
};

/* struct sched_attr of linux/sched/types.h, first version: libc has neither it nor the call. */
struct sched_attr_v0 {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/*
 * The worker needs the CPU seldom, briefly and at once. Where it is allowed a better nice value says so;
 * since Linux 6.12 a short slice does, for everybody: a waking thread preempts those with longer ones.
 */
void fx_wait_be_urgent(struct fx_worker *w)
{
	struct sched_attr_v0 a = {.size = sizeof(a), .nice = NICE, .runtime = SLICE_NS};

	if (w->cfg.poll == FX_POLL_SPIN)
		return;
	if (syscall(SYS_sched_setattr, 0, &a, 0) == 0)
		return;
	a.nice = getpriority(PRIO_PROCESS, 0);
	if (syscall(SYS_sched_setattr, 0, &a, 0) < 0)
		fx_log(FX_LOG_DEBUG, "worker %u is scheduled like anybody: %s", w->cfg.index,
		       strerror(errno));
}

/*
 * Do more threads want to run than there are CPUs? "0.20 0.18 0.12 1/80 11206": the fourth says, us included.
 */
static bool crowded(const struct fx_worker *w)
{
	char text[64];
	ssize_t n = w->load < 0 ? -1 : pread(w->load, text, sizeof(text) - 1, 0);
	unsigned running;

	if (n <= 0)
		return true;
	text[n] = '\0';
	return sscanf(text, "%*s %*s %*s %u/", &running) != 1 || running > w->cpus;
}

static uint64_t patience(struct fx_worker *w)
{
	if (w->cfg.shared_cpus && w->now >= w->load_next) {
		w->load_next = w->now + LOAD_PERIOD_NS;
		w->spin_ns = crowded(w) ? SPIN_SHARED_NS : SPIN_OWN_NS;
	}
	return w->spin_ns;
}

static void load_init(struct fx_worker *w)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	w->spin_ns = w->cfg.shared_cpus ? SPIN_SHARED_NS : SPIN_OWN_NS;
	w->cpus = online > 0 ? (uint32_t)online : 1;
	w->load = -1;
	/* confined to some CPUs, we cannot tell who wants these */
	if (sched_getaffinity(0, sizeof(set), &set) == 0 && (uint32_t)CPU_COUNT(&set) == w->cpus)
		w->load = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
}

int fx_wait_init(struct fx_worker *w)
{
	load_init(w);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll < 0)
		return -errno;
	return fx_wait_add(w, w->cfg.mailbox->worker_fd);
}

void fx_wait_fini(struct fx_worker *w)
{
	if (w->epoll >= 0)
		close(w->epoll);
	if (w->load >= 0)
		close(w->load);
	w->epoll = w->load = -1;
}

int fx_wait_add(struct fx_worker *w, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

	return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

void fx_wait_del(struct fx_worker *w, int fd)
{
	(void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static uint32_t *sleeping(const struct fx_worker *w)
{
	return &w->cfg.page->worker[w->cfg.index].sleeping;
}

void fx_wait_rouse(void *arg)
{
	struct fx_worker *w = arg;

	/* release: what the worker is to see, before the word that says so */
	atomic_store_explicit(&w->roused, true, memory_order_release);
	/* Orders that store before the load: as a producer's fence in go_to_sleep(), and for the same reason. */
	atomic_thread_fence(memory_order_seq_cst);
	if (__atomic_load_n(sleeping(w), __ATOMIC_RELAXED))
		fx_rouse(w->cfg.mailbox->worker_fd);
}

/* Is there something that only turning the loop brings forward? */
static bool must_turn(const struct fx_worker *w)
{
	if (w->ntx || fx_tp_tx_ready(w->tp) || w->dma->ops->pending(w->dma) || fx_rings_want_turns(w))
		return true;
	if (fx_dma_wants_poll(w->slow) || fx_dma_wants_poll(w->stage_slow))
		return true;
	/* copies that wait for room in an engine; those of the helper rouse us when they are done */
	if (fx_tp_dma_pending(w->tp) && !w->slow->ops->pending(w->slow))
		return true;
	if (w->stages && !w->stage_slow->ops->pending(w->stage_slow))
		return true;
	/* requests are outstanding on a port that cannot wake us */
	return !w->port->info.loopback && fx_tp_next_timer(w->tp) != UINT64_MAX;
}

/* How long until a timer wants to run, or something has to be looked at again. */
static uint64_t how_long(const struct fx_worker *w)
{
	uint64_t next = fx_tp_next_timer(w->tp), ns = LONGEST_NS;

	if (next != UINT64_MAX)
		ns = next > w->now ? next - w->now : 0;
	if (ns > LONGEST_NS)
		ns = LONGEST_NS;
	if (ns > BACKOFF_NS && (!w->port->info.loopback || fx_commands_waiting(w) || w->stages ||
				w->slow->ops->pending(w->slow) || w->mirror_dma->ops->pending(w->mirror_dma)))
		ns = BACKOFF_NS;
	return ns;
}

static int sleep_for(const struct fx_worker *w, uint64_t ns)
{
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
	struct epoll_event ev[WAKES];
	int n = epoll_pwait2(w->epoll, ev, WAKES, &t, NULL);

	if (n < 0 && errno == ENOSYS)
		n = epoll_wait(w->epoll, ev, WAKES, (int)((ns + 999999) / 1000000));
	return n;
}

static void go_to_sleep(struct fx_worker *w)
{
	uint64_t ns = how_long(w);

	if (!ns)
		return;
	w->nap += w->nap + 1 ? 1 : 2; /* never 0 */
	__atomic_store_n(sleeping(w), w->nap, __ATOMIC_RELAXED);
	/*
	 * Orders our store of `sleeping` before our loads of the slots' phases. A producer stores its slot's
	 * phase, fences, and loads `sleeping`: so either we see the slot here, or it sees that we sleep and
	 * kicks.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	if (!fx_rings_ready(w) && !atomic_load_explicit(&w->cfg.mailbox->todo, memory_order_relaxed) &&
	    !atomic_load_explicit(&w->roused, memory_order_relaxed) &&
	    !atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		w->n.sleeps++;
		if (sleep_for(w, ns) > 0)
			w->n.kicks++;
	}
	/* relaxed: seen late, it costs a producer a kick for nothing */
	__atomic_store_n(sleeping(w), 0, __ATOMIC_RELAXED);
}

void fx_wait_idle(struct fx_worker *w)
{
	if (!w->idle_since) {
		w->idle_since = w->now;
		return;
	}
	if (w->cfg.poll == FX_POLL_SPIN || w->now - w->idle_since < SPIN_SHARED_NS ||
	    w->now - w->idle_since < patience(w) || must_turn(w)) {
		rte_pause();
		return;
	}
	go_to_sleep(w);
	w->idle_since = 0;
}
