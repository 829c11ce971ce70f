/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A core on the other side of a bus: it shares no memory with this process. The connection is a TCP stream, rings and
 * core page lie in memory of this process that the core reaches by DMA, and descriptors that applications wait on are
 * pipes of our own, written by a thread that reads what the core says (guarantee S2).
 *
 * Room: host. May use: link.h, ticket.h, libc. The thread holds no lock but the link's own and calls nobody.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"
#include "host/ticket.h"

enum { FIRST_WAKES = 16, WAKE_CHUNK = 256 };

struct wake {
	uint32_t handle; /* of the channel; 0: asynchronous events */
	int fd;		 /* write end, O_NONBLOCK; -1: free */
};

struct remote {
	struct fx_link link;
	int fd;
	bool listening;
	bool cut; /* with the core still at the other end, perhaps: it may reach for the arena at any time */
	pthread_t thread;
	int async; /* read end of the pipe for asynchronous events, until it is handed out */
	uint8_t *arena;
	uint64_t arena_size;
	pthread_mutex_t send_lock; /* messages stay whole */
	pthread_mutex_t lock;	   /* of what follows */
	pthread_cond_t change;
	struct fx_core_page *page; /* NULL before the handshake is done */
	bool gone;		   /* the connection has ended for us */
	bool ended;		   /* ... and for the core: it has let go of our memory */
	uint32_t reply_size;	   /* 0: there is none */
	uint8_t reply[FX_MSG_BYTES];
	struct wake *wake;
	uint32_t nwake;
};

static struct remote *remote_of(struct fx_link *l)
{
	return fx_container(l, struct remote, link);
}

/* ---- the thread ---- */

static void write_bytes(int fd, uint32_t n)
{
	static const char bytes[WAKE_CHUNK];

	while (n) {
		ssize_t put = write(fd, bytes, n < sizeof(bytes) ? n : sizeof(bytes));

		if (put <= 0)
			return; /* EAGAIN: it is awake as it is */
		n -= (uint32_t)put;
	}
}

static void wake_up(struct remote *r, const struct fx_wake_msg *w)
{
	pthread_mutex_lock(&r->lock);
	for (uint32_t i = 0; i < r->nwake; i++)
		if (r->wake[i].fd >= 0 && r->wake[i].handle == w->handle)
			write_bytes(r->wake[i].fd, w->count);
	pthread_mutex_unlock(&r->lock);
}

/* False: nobody asked, since there is one request at a time. */
static bool take_reply(struct remote *r, const uint8_t *msg, uint32_t size)
{
	bool taken;

	pthread_mutex_lock(&r->lock);
	taken = !r->reply_size;
	if (taken) {
		memcpy(r->reply, msg, size);
		r->reply_size = size;
		pthread_cond_signal(&r->change);
	}
	pthread_mutex_unlock(&r->lock);
	return taken;
}

/* Holds r->lock. */
static void close_wakes(struct remote *r)
{
	for (uint32_t i = 0; i < r->nwake; i++) {
		if (r->wake[i].fd >= 0)
			close(r->wake[i].fd);
		r->wake[i].fd = -1;
	}
}

/* The same that a core on this machine leaves behind: its page says so, and every pipe hangs up. */
static void say_gone(struct remote *r)
{
	shutdown(r->fd, SHUT_WR);
	pthread_mutex_lock(&r->lock);
	r->gone = true;
	if (r->page)
		/* release: whoever sees it sees every completion that was there before */
		__atomic_store_n(&r->page->alive, 0, __ATOMIC_RELEASE);
	close_wakes(r);
	pthread_cond_signal(&r->change);
	pthread_mutex_unlock(&r->lock);
}

union from_core {
	struct fx_msg_head head;
	struct fx_wake_msg wake;
	uint8_t bytes[FX_MSG_BYTES];
};

/* False: that was the end of it, or nothing that a core would say. */
static bool take_message(struct remote *r, union from_core *m)
{
	if (!fx_read_all(r->fd, &m->head, sizeof(m->head)) || m->head.magic != FX_PROTO_MAGIC ||
	    m->head.size < sizeof(m->head) || m->head.size > sizeof(*m) ||
	    !fx_read_all(r->fd, m->bytes + sizeof(m->head), m->head.size - sizeof(m->head)))
		return false;
	if (m->head.op != FX_MSG_WAKE)
		return take_reply(r, m->bytes, m->head.size);
	if (m->head.size != sizeof(m->wake))
		return false;
	wake_up(r, &m->wake);
	return true;
}

/* The core closes its end when nothing of it touches our memory any more (docs/man/flexinsd.8). */
static void *listen_to_core(void *arg)
{
	struct remote *r = arg;
	union from_core m;

	while (take_message(r, &m))
		;
	say_gone(r);
	while (read(r->fd, &m, sizeof(m)) > 0)
		;
	pthread_mutex_lock(&r->lock);
	r->ended = true;
	pthread_cond_signal(&r->change);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static int start_thread(struct remote *r)
{
	sigset_t all, old;
	int err;

	/* inherited: signals are for the application's threads */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&r->thread, NULL, listen_to_core, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	r->listening = !err;
	return -err;
}

/* ---- messages ---- */

/* A message that cannot be sent whole, for a minute, is the end of the connection. */
static int remote_send(struct fx_link *l, const void *msg, size_t size)
{
	struct remote *r = remote_of(l);
	const uint8_t *p = msg;

	pthread_mutex_lock(&r->send_lock);
	while (size) {
		ssize_t n = send(r->fd, p, size, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		p += n;
		size -= (size_t)n;
	}
	if (size) {
		r->cut = true;
		shutdown(r->fd, SHUT_RDWR); /* the thread says the rest */
	}
	pthread_mutex_unlock(&r->send_lock);
	return size ? -ENODEV : 0;
}

static ssize_t remote_receive(struct fx_link *l, void *buf, size_t size, struct fx_fds *fds, int64_t until)
{
	struct timespec t = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
	struct remote *r = remote_of(l);
	ssize_t n = 0;
	int err = 0;

	fds->n = 0;
	pthread_mutex_lock(&r->lock);
	while (!r->reply_size && !r->gone && !err)
		err = pthread_cond_timedwait(&r->change, &r->lock, &t);
	if (r->reply_size) {
		n = r->reply_size <= size ? (ssize_t)r->reply_size : -EPROTO;
		if (n > 0)
			memcpy(buf, r->reply, (size_t)n);
		r->reply_size = 0;
	} else if (!r->gone) {
		n = -err;
	}
	pthread_mutex_unlock(&r->lock);
	return n;
}

static void remote_kick(struct fx_link *l)
{
	struct fx_msg_head kick = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = sizeof(kick)};

	remote_send(l, &kick, sizeof(kick));
}

static bool remote_hung_up(struct fx_link *l)
{
	struct remote *r = remote_of(l);
	bool gone;

	pthread_mutex_lock(&r->lock);
	gone = r->gone;
	pthread_mutex_unlock(&r->lock);
	return gone;
}

/* ---- descriptors to wait on ---- */

/* -> a free place, or NULL; holds r->lock. */
static struct wake *free_wake(struct remote *r)
{
	uint32_t i = 0, n = r->nwake ? 2 * r->nwake : FIRST_WAKES;
	struct wake *more;

	while (i < r->nwake && r->wake[i].fd >= 0)
		i++;
	if (i < r->nwake)
		return &r->wake[i];
	more = realloc(r->wake, n * sizeof(*more));
	if (!more)
		return NULL;
	for (r->wake = more; r->nwake < n; r->nwake++)
		r->wake[r->nwake].fd = -1;
	return &r->wake[i];
}

static int wake_open(struct remote *r, uint32_t handle)
{
	struct wake *w;
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return -errno;
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	pthread_mutex_lock(&r->lock);
	w = free_wake(r);
	if (w && !r->gone)
		*w = (struct wake){.handle = handle, .fd = fd[1]};
	else
		close(fd[1]); /* with the core gone it hangs up at once */
	pthread_mutex_unlock(&r->lock);
	if (w)
		return fd[0];
	close(fd[0]);
	return -ENOMEM;
}

static int remote_wake_open(struct fx_link *l, uint32_t handle, struct fx_fds *fds)
{
	(void)fds;
	return wake_open(remote_of(l), handle);
}

static void remote_wake_close(struct fx_link *l, uint32_t handle)
{
	struct remote *r = remote_of(l);

	pthread_mutex_lock(&r->lock);
	for (uint32_t i = 0; i < r->nwake; i++)
		if (r->wake[i].fd >= 0 && r->wake[i].handle == handle) {
			close(r->wake[i].fd);
			r->wake[i].fd = -1;
		}
	pthread_mutex_unlock(&r->lock);
}

/* ---- life ---- */

/* The page is ours to set up, but for `sleeping`, which the core may have written by now. */
static int remote_attach(struct fx_link *l, const struct fx_hello_rep *rep, struct fx_fds *fds,
			 struct fx_attached *a)
{
	struct remote *r = remote_of(l);
	struct fx_core_page *page;

	(void)fds;
	if (rep->arena_size != r->arena_size || rep->page_off % FX_LINE || rep->page_off > rep->heap_off ||
	    sizeof(*page) > rep->heap_off - rep->page_off)
		return -EPROTO;
	page = (struct fx_core_page *)(r->arena + rep->page_off);
	page->magic = FX_CORE_MAGIC;
	page->abi = FX_ABI_VERSION;
	page->shared_cpus = rep->shared_cpus;
	pthread_mutex_lock(&r->lock);
	page->alive = !r->gone;
	r->page = page;
	pthread_mutex_unlock(&r->lock);
	*a = (struct fx_attached){
		.page = page, .arena = r->arena, .discard = MADV_DONTNEED, .wake = r->async, .uffd = -1};
	r->async = -1;
	return 0;
}

static void init_locks(struct remote *r)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&r->send_lock, NULL);
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* fx_clock_ms() */
	pthread_cond_init(&r->change, &attr);
	pthread_condattr_destroy(&attr);
}

/*
 * The child must not touch the connection, nor keep it or the pipes open when the parent lets go of them. The list is
 * held still over the fork; whoever waits for a reply is not in the child, which begins with new locks.
 */
static void remote_fork(struct fx_link *l, enum fx_fork_time when)
{
	struct remote *r = remote_of(l);

	if (when == FX_FORK_BEFORE)
		pthread_mutex_lock(&r->lock);
	else if (when == FX_FORK_PARENT)
		pthread_mutex_unlock(&r->lock);
	if (when != FX_FORK_CHILD)
		return;
	init_locks(r);
	close_wakes(r);
	if (r->fd >= 0) /* not a grandchild's */
		close(r->fd);
	r->fd = -1;
	r->listening = false;
}

/* Until the core has let go of our memory, or has had long enough for it. */
static void hang_up(struct remote *r)
{
	struct timespec end;
	int err = 0;

	shutdown(r->fd, SHUT_WR);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += FX_CALL_MS / 1000;
	pthread_mutex_lock(&r->lock);
	while (!r->ended && !err)
		err = pthread_cond_timedwait(&r->change, &r->lock, &end);
	r->cut |= !r->ended;
	pthread_mutex_unlock(&r->lock);
	if (err)
		shutdown(r->fd, SHUT_RDWR);
	pthread_join(r->thread, NULL);
}

static void remote_close(struct fx_link *l)
{
	struct remote *r = remote_of(l);

	if (r->listening)
		hang_up(r);
	close_wakes(r);
	if (r->async >= 0)
		close(r->async);
	if (r->fd >= 0)
		close(r->fd);
	if (r->arena && !r->cut) /* if it was cut, its addresses stay taken: nothing else may lie there */
		munmap(r->arena, r->arena_size);
	pthread_mutex_destroy(&r->send_lock);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->change);
	free(r->wake);
	free(r);
}

static const struct fx_link_ops remote_ops = {
	.hello_fds = 0,
	.channel_fds = 0,
	.send = remote_send,
	.receive = remote_receive,
	.attach = remote_attach,
	.hung_up = remote_hung_up,
	.kick = remote_kick,
	.wake_open = remote_wake_open,
	.wake_close = remote_wake_close,
	.fork = remote_fork,
	.close = remote_close,
};

/* A child of fork() finds zeroes there: it may look, and has nothing of its parent's. */
static int make_arena(struct remote *r)
{
	void *p = mmap(NULL, r->arena_size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	r->arena = p;
	r->link.arena = (uintptr_t)p;
	return syscall(SYS_madvise, p, r->arena_size, MADV_WIPEONFORK) ? -errno
								       : 0; /* not the shim's madvise() */
}

static int connect_core(struct remote *r, const struct fx_ticket *t, bool *refused)
{
	struct fx_msg_why why;
	struct fx_auth_rep rep;
	int err;

	r->fd = fx_ticket_connect(t, FX_CALL_MS);
	if (r->fd < 0)
		return r->fd;
	err = fx_ticket_show(r->fd, t, &rep, &why);
	if (err && why.why[0]) {
		fx_why("%s", why.why);
		*refused = true;
	}
	if (err)
		return err;
	r->arena_size = rep.arena_size;
	if (rep.pid && rep.pid <= INT32_MAX && geteuid())
		fx_let_in((pid_t)rep.pid);
	return 0;
}

int fx_remote_open(const char *path, bool named, struct fx_link **link, bool *refused)
{
	struct fx_ticket t;
	struct remote *r;
	int err = fx_ticket_read(path, named, &t);

	if (err)
		return err;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->link.ops = &remote_ops;
	r->fd = r->async = -1;
	init_locks(r);
	err = connect_core(r, &t, refused);
	if (!err)
		err = make_arena(r);
	if (!err) {
		/* before the greeting: there may be something to tell as soon as the core knows us */
		r->async = wake_open(r, 0);
		err = r->async < 0 ? r->async : start_thread(r);
	}
	if (err)
		remote_close(&r->link);
	else
		*link = &r->link;
	return err;
}
