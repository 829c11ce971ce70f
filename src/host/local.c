/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A core on this machine: a Unix socket, over which it passes the core page, the arena and the descriptors that wake.
 *
 * Room: host. May use: link.h, libc.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/host.h"

enum { LOOK_MS = 200 };

struct local {
	struct fx_link link;
	int fd, kick;
	const struct fx_core_page *page; /* NULL before the handshake is done */
	uint8_t *arena;
	uint64_t arena_size;
};

static struct local *local_of(struct fx_link *l)
{
	return fx_container(l, struct local, link);
}

/* ---- messages: a datagram each ---- */

static int local_send(struct fx_link *l, const void *msg, size_t size)
{
	ssize_t n;

	do
		n = send(local_of(l)->fd, msg, size, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)size ? 0 : -ENODEV;
}

static void take_fds(struct msghdr *msg, struct fx_fds *fds)
{
	fds->n = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || n > FX_MSG_FDS - fds->n)
			continue;
		memcpy(fds->fd + fds->n, CMSG_DATA(c), n * sizeof(int));
		fds->n += (unsigned)n;
	}
}

/* -> bytes, 0 when the core has hung up, or a negative errno; never blocks */
static ssize_t take(int fd, void *buf, size_t size, struct fx_fds *fds)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n;

	fds->n = 0;
	n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	take_fds(&msg, fds);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		fx_close_fds(fds);
		return -EPROTO;
	}
	return n;
}

/* Waits for something to read in short steps, so that a core that ended on purpose is noticed too. */
static int await(const struct local *c, int64_t until)
{
	for (;;) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN};
		int n = poll(&p, 1, LOOK_MS);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (c->page && !__atomic_load_n(&c->page->alive, __ATOMIC_ACQUIRE))
			return -ENODEV;
		if (fx_clock_ms() > until)
			return -ETIMEDOUT;
	}
}

static ssize_t local_receive(struct fx_link *l, void *buf, size_t size, struct fx_fds *fds, int64_t until)
{
	struct local *c = local_of(l);
	ssize_t n;

	do {
		n = await(c, until);
		if (!n)
			n = take(c->fd, buf, size, fds);
	} while (n == -EAGAIN || n == -EINTR);
	return n;
}

/* ---- what came with the handshake ---- */

static const struct fx_core_page *map_page(int fd)
{
	const struct fx_core_page *page;

	page = mmap(NULL, sizeof(*page), PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return NULL;
	if (page->magic == FX_CORE_MAGIC && page->abi == FX_ABI_VERSION)
		return page;
	munmap((void *)(uintptr_t)page, sizeof(*page));
	return NULL;
}

/* Core page, arena, kick, event wake, userfaultfd device or none. */
static int local_attach(struct fx_link *l, const struct fx_hello_rep *rep, struct fx_fds *fds,
			struct fx_attached *a)
{
	struct local *c = local_of(l);
	void *arena = mmap(NULL, rep->arena_size, PROT_READ | PROT_WRITE, MAP_SHARED, fds->fd[1], 0);

	if (arena == MAP_FAILED)
		return -errno;
	c->arena = arena;
	c->arena_size = rep->arena_size;
	c->page = map_page(fds->fd[0]);
	if (!c->page)
		return -EPROTO; /* closing unmaps the arena */
	close(fds->fd[0]);
	close(fds->fd[1]);
	c->kick = fds->fd[2];
	*a = (struct fx_attached){.page = c->page,
				  .arena = c->arena,
				  .discard = MADV_REMOVE,
				  .wake = fds->fd[3],
				  .uffd = fds->n > 4 ? fds->fd[4] : -1};
	fds->n = 0;
	return 0;
}

static bool local_hung_up(struct fx_link *l)
{
	struct pollfd p = {.fd = local_of(l)->fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLRDHUP | POLLNVAL));
}

static void local_kick(struct fx_link *l)
{
	uint64_t one = 1;
	ssize_t n = write(local_of(l)->kick, &one, sizeof(one));

	(void)n; /* EAGAIN: it is kicked already */
}

static int local_wake_open(struct fx_link *l, uint32_t handle, struct fx_fds *fds)
{
	(void)l;
	(void)handle;
	return fds->fd[--fds->n];
}

/* The write end is the core's. */
static void local_wake_close(struct fx_link *l, uint32_t handle)
{
	(void)l;
	(void)handle;
}

/* ---- life ---- */

/* The child shares all of it, and the core watches the process and not its socket. */
static void local_fork(struct fx_link *l, enum fx_fork_time when)
{
	(void)l;
	(void)when;
}

static void local_close(struct fx_link *l)
{
	struct local *c = local_of(l);

	if (c->page)
		munmap((void *)(uintptr_t)c->page, sizeof(*c->page));
	if (c->arena)
		munmap(c->arena, c->arena_size);
	if (c->kick >= 0)
		close(c->kick);
	close(c->fd);
	free(c);
}

static const struct fx_link_ops local_ops = {
	.hello_fds = 4,
	.channel_fds = 1,
	.send = local_send,
	.receive = local_receive,
	.attach = local_attach,
	.hung_up = local_hung_up,
	.kick = local_kick,
	.wake_open = local_wake_open,
	.wake_close = local_wake_close,
	.fork = local_fork,
	.close = local_close,
};

/* The core must be root's or ours: anybody can make a directory in /tmp. */
static bool trusted(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
	       (cred.uid == 0 || cred.uid == geteuid() || cred.uid == getuid());
}

/* -> a connected socket or a negative errno */
static int connect_to(const char *path, bool named)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd, err = 0;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	strcpy(sun.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
		err = -errno;
	else if (!named && !trusted(fd))
		err = -EACCES;
	if (err)
		close(fd);
	return err ? err : fd;
}

/*
 * Where Yama only lets parents look into a process, the core of an ordinary user needs this one's leave; root does not.
 * There is one such leave in a process: a debugger that got it before has it no more.
 */
void fx_let_in(pid_t core)
{
	if (access("/proc/sys/kernel/yama/ptrace_scope", F_OK) == 0)
		prctl(PR_SET_PTRACER, core, 0, 0,
		      0); /* refused: the core says that it cannot open our memory */
}

static void let_in(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid && cred.uid == geteuid())
		fx_let_in(cred.pid);
}

int fx_local_open(const char *path, bool named, struct fx_link **link)
{
	int fd = connect_to(path, named);
	struct local *c;

	if (fd < 0)
		return fd;
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	*c = (struct local){.link = {.ops = &local_ops}, .fd = fd, .kick = -1};
	let_in(fd);
	*link = &c->link;
	return 0;
}
