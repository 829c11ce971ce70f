/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A core on the other side of a bus: it shares no memory with this process. The connection is a TCP stream, rings and
 * core page lie in memory of this process that the core reaches by DMA, and descriptors that applications wait on are
 * pipes of our own, written by a thread that reads what the core says (contract 25).
 *
 * Room: host. May use: control.c's messages, libc. The thread holds no lock but its own and calls nobody.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"

enum { THREAD_STACK = 128 << 10, FIRST_WAKES = 16 };

struct wake {
	uint32_t handle; /* of the channel; 0: asynchronous events */
	int fd;		 /* write end, O_NONBLOCK; -1: free */
};

struct fx_remote {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t change;
	bool gone;
	bool has_reply;
	uint32_t reply_size;
	uint8_t reply[FX_MSG_BYTES];
	struct wake *wake;
	uint32_t nwake;
	pthread_mutex_t send_lock; /* messages stay whole */
	uint8_t *arena;
	uint64_t arena_size;
	struct fx_core_page *page;
};

/* ---- the thread ---- */

static bool read_all(int fd, void *buf, size_t n)
{
	uint8_t *p = buf;

	while (n) {
		ssize_t got = recv(fd, p, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

static void wake_up(struct fx_remote *r, const struct fx_wake_msg *w)
{
	pthread_mutex_lock(&r->lock);
	for (uint32_t i = 0; i < r->nwake; i++)
		for (uint32_t n = 0; r->wake[i].fd >= 0 && r->wake[i].handle == w->handle && n < w->count; n++)
			if (write(r->wake[i].fd, "", 1) < 0)
				break; /* EAGAIN: it is awake as it is */
	pthread_mutex_unlock(&r->lock);
}

static void take_reply(struct fx_remote *r, const uint8_t *msg, uint32_t size)
{
	pthread_mutex_lock(&r->lock);
	memcpy(r->reply, msg, size);
	r->reply_size = size;
	r->has_reply = true;
	pthread_cond_signal(&r->change);
	pthread_mutex_unlock(&r->lock);
}

/* The same that a core on this machine leaves behind: its page says so, and every pipe hangs up. */
static void say_gone(struct fx_remote *r)
{
	pthread_mutex_lock(&r->lock);
	r->gone = true;
	/* release: whoever sees it sees every completion that was there before */
	__atomic_store_n(&r->page->alive, 0, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < r->nwake; i++) {
		if (r->wake[i].fd >= 0)
			close(r->wake[i].fd);
		r->wake[i].fd = -1;
	}
	pthread_cond_signal(&r->change);
	pthread_mutex_unlock(&r->lock);
}

static void *listen_to_core(void *arg)
{
	struct fx_remote *r = arg;
	union {
		struct fx_msg_head head;
		struct fx_wake_msg wake;
		uint8_t bytes[FX_MSG_BYTES];
	} m;

	while (read_all(r->fd, &m.head, sizeof(m.head))) {
		if (m.head.magic != FX_PROTO_MAGIC || m.head.size < sizeof(m.head) || m.head.size > sizeof(m) ||
		    !read_all(r->fd, m.bytes + sizeof(m.head), m.head.size - sizeof(m.head)))
			break;
		if (m.head.op != FX_MSG_WAKE)
			take_reply(r, m.bytes, m.head.size);
		else if (m.head.size == sizeof(m.wake))
			wake_up(r, &m.wake);
	}
	say_gone(r);
	return NULL;
}

static int start_thread(struct fx_remote *r)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int err = pthread_attr_init(&attr);

	if (err)
		return -err;
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	/* inherited: signals are for the application's threads */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&r->thread, &attr, listen_to_core, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -err;
}

/* ---- messages ---- */

ssize_t fx_remote_send(struct fx_remote *r, const void *msg, size_t size)
{
	const uint8_t *p = msg;
	size_t left = size;

	pthread_mutex_lock(&r->send_lock);
	while (left) {
		ssize_t n = send(r->fd, p, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		p += n;
		left -= (size_t)n;
	}
	pthread_mutex_unlock(&r->send_lock);
	return left ? -1 : (ssize_t)size;
}

ssize_t fx_remote_receive(struct fx_remote *r, void *buf, size_t size, int64_t until_ms)
{
	struct timespec t = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
	ssize_t n = -ETIMEDOUT;
	int err = 0;

	pthread_mutex_lock(&r->lock);
	while (!r->has_reply && !r->gone && !err)
		err = pthread_cond_timedwait(&r->change, &r->lock, &t);
	if (r->has_reply) {
		n = r->reply_size <= size ? (ssize_t)r->reply_size : -EPROTO;
		if (n > 0)
			memcpy(buf, r->reply, (size_t)n);
		r->has_reply = false;
	} else if (r->gone) {
		n = 0;
	}
	pthread_mutex_unlock(&r->lock);
	return n;
}

void fx_remote_kick(struct fx_remote *r)
{
	struct fx_msg_head kick = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = sizeof(kick)};

	fx_remote_send(r, &kick, sizeof(kick));
}

/* ---- descriptors to wait on ---- */

int fx_remote_wake_open(struct fx_remote *r, uint32_t handle)
{
	int fd[2] = {-1, -1};
	uint32_t i = 0;

	if (pipe2(fd, O_CLOEXEC) < 0)
		return -errno;
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	pthread_mutex_lock(&r->lock);
	while (i < r->nwake && r->wake[i].fd >= 0)
		i++;
	if (i == r->nwake) {
		uint32_t n = r->nwake ? 2 * r->nwake : FIRST_WAKES;
		struct wake *more = realloc(r->wake, n * sizeof(*more));

		if (more) {
			for (r->wake = more; r->nwake < n; r->nwake++)
				r->wake[r->nwake].fd = -1;
		}
	}
	if (i == r->nwake || r->gone)
		close(fd[1]); /* it hangs up at once: there is nobody who could write */
	else
		r->wake[i] = (struct wake){.handle = handle, .fd = fd[1]};
	pthread_mutex_unlock(&r->lock);
	return fd[0];
}

void fx_remote_wake_close(struct fx_remote *r, uint32_t handle)
{
	pthread_mutex_lock(&r->lock);
	for (uint32_t i = 0; i < r->nwake; i++)
		if (r->wake[i].fd >= 0 && r->wake[i].handle == handle) {
			close(r->wake[i].fd);
			r->wake[i].fd = -1;
		}
	pthread_mutex_unlock(&r->lock);
}

/* ---- life ---- */

uint8_t *fx_remote_arena(const struct fx_remote *r)
{
	return r->arena;
}

const struct fx_core_page *fx_remote_page(struct fx_remote *r, const struct fx_hello_rep *rep)
{
	if (rep->page_off > r->arena_size - sizeof(*r->page))
		return NULL;
	r->page = (struct fx_core_page *)(r->arena + rep->page_off);
	r->page->magic = FX_CORE_MAGIC;
	r->page->abi = FX_ABI_VERSION;
	r->page->shared_cpus = rep->shared_cpus;
	pthread_mutex_lock(&r->lock);
	r->page->alive = !r->gone;
	pthread_mutex_unlock(&r->lock);
	return r->page;
}

static int connect_tcp(const char *address, const char *port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int one = 1, fd, err;

	if (inet_pton(AF_INET, address, &sin.sin_addr) != 1)
		return -EINVAL;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* "ADDRESS PORT", then the token in hexadecimal: what the core wrote for those who may use it. */
struct ticket {
	char address[INET_ADDRSTRLEN], port[8];
	uint8_t token[FX_TOKEN_LEN];
};

static int read_ticket(const char *path, bool named, struct ticket *t)
{
	char text[256], hex[2 * FX_TOKEN_LEN + 1];
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0 || fstat(fd, &st) < 0)
		err = -EPROTO;
	else if (!named && st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != getuid())
		err = -EACCES; /* anybody can make a directory in /tmp */
	close(fd);
	if (err)
		return err;
	text[n] = '\0';
	if (sscanf(text, "%15s %7s %64s", t->address, t->port, hex) != 3 || strlen(hex) != sizeof(hex) - 1)
		return -EPROTO;
	for (size_t i = 0; i < FX_TOKEN_LEN; i++)
		if (sscanf(hex + 2 * i, "%2hhx", &t->token[i]) != 1)
			return -EPROTO;
	return 0;
}

/* Before the thread runs: shows the token, learns how much memory the rings want. */
static int authenticate(int fd, const struct ticket *t, uint64_t *arena_size)
{
	struct fx_auth_req req = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_AUTH, .size = sizeof(req)}, .pid = (uint32_t)getpid()};
	struct fx_auth_rep rep;
	struct fx_msg_why why = {0};

	memcpy(req.token, t->token, sizeof(req.token));
	if (send(fd, &req, sizeof(req), MSG_NOSIGNAL) != sizeof(req) || !read_all(fd, &rep.head, sizeof(rep.head)) ||
	    rep.head.magic != FX_PROTO_MAGIC)
		return -ECONNRESET;
	if (rep.head.err) {
		if (rep.head.size == sizeof(why) && read_all(fd, why.why, sizeof(why.why)))
			fx_why("%.*s", (int)sizeof(why.why), why.why);
		return rep.head.err > 0 ? -rep.head.err : -EPROTO;
	}
	if (rep.head.size != sizeof(rep) || !read_all(fd, (uint8_t *)&rep + sizeof(rep.head), sizeof(rep) - sizeof(rep.head)))
		return -EPROTO;
	*arena_size = rep.arena_size;
	return 0;
}

/* A child of fork() finds zeroes there: it may look, and has nothing of its parent's. */
static int make_arena(struct fx_remote *r)
{
	void *p = mmap(NULL, r->arena_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	r->arena = p;
	madvise(p, r->arena_size, MADV_WIPEONFORK);
	return 0;
}

int fx_remote_open(const char *path, bool named, struct fx_remote **out)
{
	struct fx_remote *r = calloc(1, sizeof(*r));
	struct ticket t;
	int err = r ? read_ticket(path, named, &t) : -ENOMEM;

	if (err) {
		free(r);
		return err;
	}
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->send_lock, NULL);
	pthread_cond_init(&r->change, NULL);
	r->fd = connect_tcp(t.address, t.port);
	err = r->fd < 0 ? r->fd : authenticate(r->fd, &t, &r->arena_size);
	if (!err)
		err = make_arena(r);
	if (!err) {
		/* until the greeting says where it is, nobody reads it */
		r->page = (struct fx_core_page *)r->arena;
		err = start_thread(r);
	}
	if (err) {
		fx_remote_free(r);
		return err;
	}
	*out = r;
	return r->fd;
}

void fx_remote_free(struct fx_remote *r)
{
	if (r->fd >= 0)
		shutdown(r->fd, SHUT_RDWR);
	if (r->thread)
		pthread_join(r->thread, NULL);
	for (uint32_t i = 0; i < r->nwake; i++)
		if (r->wake[i].fd >= 0)
			close(r->wake[i].fd);
	if (r->fd >= 0)
		close(r->fd);
	if (r->arena)
		munmap(r->arena, r->arena_size);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->send_lock);
	pthread_cond_destroy(&r->change);
	free(r->wake);
	free(r);
}

void fx_remote_forked(struct fx_remote *r)
{
	/* or the parent's pipes would not hang up while the child lives; the lock may be held by a thread that is not here */
	for (uint32_t i = 0; i < r->nwake; i++)
		if (r->wake[i].fd >= 0) {
			close(r->wake[i].fd);
			r->wake[i].fd = -1;
		}
	close(r->fd);
	r->fd = -1;
	r->thread = 0;
}
