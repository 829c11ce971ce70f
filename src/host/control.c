/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The connection to a core: where its socket is, the handshake, requests and replies with descriptors.
 *
 * Room: host. May use: the control protocol, libc.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"

static _Thread_local char why_text[256];
static _Thread_local bool why_new; /* of a failure that the application has not seen yet */

void fx_why(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why_text, sizeof(why_text), fmt, ap);
	va_end(ap);
	why_new = true;
}

/* FLEXINS_WHY=1: for programs that know verbs' errno only. */
static bool told(void)
{
	static int wanted = -1; /* every thread finds the same */
	int w = __atomic_load_n(&wanted, __ATOMIC_RELAXED);

	if (w < 0) {
		const char *env = getenv("FLEXINS_WHY");

		w = env && !strcmp(env, "1");
		__atomic_store_n(&wanted, w, __ATOMIC_RELAXED);
	}
	return w;
}

void fx_why_settle(void)
{
	if (!why_new)
		why_text[0] = '\0';
	else if (told())
		fprintf(stderr, "flexins: %s\n", why_text);
	why_new = false;
}

const char *flexins_why(void)
{
	return why_text;
}

bool fx_hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLRDHUP | POLLNVAL));
}

void fx_close_fds(struct fx_fds *fds)
{
	while (fds->n)
		close(fds->fd[--fds->n]);
}

/* ---- one message ---- */

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
static ssize_t receive(int fd, void *buf, size_t size, struct fx_fds *fds)
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

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Waits for something to read in short steps, so that a core that ended on purpose is noticed too. */
static int await(const struct fx_conn *c, int64_t until)
{
	for (;;) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN};
		int n = poll(&p, 1, 200);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (c->page && !__atomic_load_n(&c->page->alive, __ATOMIC_ACQUIRE))
			return -ENODEV;
		if (now_ms() > until)
			return -ETIMEDOUT;
	}
}

/* The reply to `want` into buf[FX_MSG_BYTES], NUL-padded; late replies to given-up requests are passed over. */
static int await_reply(struct fx_conn *c, const struct fx_msg_head *want, char *buf, struct fx_fds *fds)
{
	int64_t until = now_ms() + FX_CALL_MS;

	for (;;) {
		struct fx_msg_head head;
		ssize_t n;
		int err = await(c, until);

		if (err)
			return err;
		memset(buf, 0, FX_MSG_BYTES);
		n = receive(c->fd, buf, FX_MSG_BYTES, fds);
		if (n == -EAGAIN || n == -EINTR)
			continue;
		if (n <= 0)
			return n ? (int)n : -ENODEV;
		memcpy(&head, buf, sizeof(head));
		if ((size_t)n < sizeof(head) || head.magic != FX_PROTO_MAGIC || head.size != (size_t)n) {
			fx_close_fds(fds);
			return -EPROTO;
		}
		if (head.seq == want->seq && head.op == want->op)
			return (int)n;
		fx_close_fds(fds);
	}
}

/* What a refused request is worth: the core's text is kept, its errno returned. */
static int refusal(const char *buf)
{
	struct fx_msg_why why;

	memcpy(&why, buf, sizeof(why));
	why.why[FX_WHY_LEN - 1] = '\0';
	fx_why("%s", why.why[0] ? why.why : strerror(why.head.err));
	return why.head.err > 0 ? -why.head.err : -EPROTO;
}

/* Sends a request and brings its reply into buf[FX_MSG_BYTES]; -> bytes, or why the connection is of no use now */
static int exchange(struct fx_conn *c, struct fx_msg_head *req, char *buf, struct fx_fds *fds)
{
	ssize_t n;

	req->magic = FX_PROTO_MAGIC;
	req->seq = ++c->seq;
	req->err = 0;
	do
		n = send(c->fd, req, req->size, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)req->size)
		return -ENODEV;
	return await_reply(c, req, buf, fds);
}

static void lose(struct fx_conn *c, int err)
{
	fx_why("the core %s", err == -ETIMEDOUT ? "does not answer"
			      : err == -EPROTO	? "answers what cannot be understood"
						: "is gone");
	c->broken = true;
}

/* As fx_call(), but a reply of `least` bytes will do: what is missing of `rep` reads zero. */
static int call(struct fx_conn *c, void *req, size_t req_size, void *rep, size_t rep_size, size_t least,
		struct fx_fds *fds)
{
	struct fx_fds none = {0}, *got = fds ? fds : &none;
	struct fx_msg_head *head = req;
	char buf[FX_MSG_BYTES];
	int n, err;

	got->n = 0;
	head->size = (uint32_t)req_size;
	pthread_mutex_lock(&c->lock);
	n = c->broken ? -ENODEV : exchange(c, head, buf, got);
	if (n < 0) {
		lose(c, n);
		err = -ENODEV;
	} else {
		struct fx_msg_head answer;

		memcpy(&answer, buf, sizeof(answer));
		err = answer.err ? refusal(buf) : (size_t)n < least ? -EPROTO : 0;
		if (!err)
			memcpy(rep, buf, rep_size);
	}
	pthread_mutex_unlock(&c->lock);
	fx_close_fds(err ? got : &none);
	return err;
}

int fx_call(struct fx_conn *c, void *req, size_t req_size, void *rep, size_t rep_size, struct fx_fds *fds)
{
	return call(c, req, req_size, rep, rep_size, rep_size, fds);
}

/* ---- where cores are, and the handshake ---- */

/* The core must be root's or ours: anybody can make a directory in /tmp. */
static bool trusted(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
	       (cred.uid == 0 || cred.uid == geteuid() || cred.uid == getuid());
}

/* -> a connected socket or a negative errno; `named` is a path that the user gave */
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
static void let_in(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid && cred.uid == geteuid() &&
	    access("/proc/sys/kernel/yama/ptrace_scope", F_OK) == 0)
		prctl(PR_SET_PTRACER, cred.pid, 0, 0, 0); /* refused: the core says that it cannot open our memory */
}

static bool name_ok(const char *name)
{
	return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < FX_VERSION_LEN;
}

/* The directories of runtime files, the system's first; false when there is no i-th one. */
static bool runtime_dir(unsigned i, char *dir, size_t size)
{
	const char *xdg = secure_getenv("XDG_RUNTIME_DIR");
	int n = 0;

	if (i == 0)
		n = snprintf(dir, size, "%s", FX_RUNTIME_DIR);
	else if (i == 1 && xdg && xdg[0] == '/')
		n = snprintf(dir, size, "%s/flexins", xdg);
	else if (i == 1 || i == 2)
		n = snprintf(dir, size, "/tmp/flexins-%u", (unsigned)geteuid());
	return n > 0 && (size_t)n < size;
}

static int find_core(struct fx_place *where)
{
	const char *path = secure_getenv("FLEXINS_SOCKET"), *name = secure_getenv("FLEXINS_CORE");
	char dir[sizeof(where->path)];
	int err = -ENOENT;

	name = name && name[0] ? name : "default";
	if (path && path[0]) {
		snprintf(where->path, sizeof(where->path), "%s", path);
		err = connect_to(path, true);
		if (err < 0)
			fx_why("no core answers at %s (FLEXINS_SOCKET): %s", path, strerror(-err));
		return err;
	}
	if (!name_ok(name)) {
		fx_why("FLEXINS_CORE=%.40s cannot be a core's name", name);
		return -EINVAL;
	}
	for (unsigned i = 0; runtime_dir(i, dir, sizeof(dir)); i++) {
		int n = snprintf(where->path, sizeof(where->path), "%s/%s.sock", dir, name);
		int fd = n > 0 && (size_t)n < sizeof(where->path) ? connect_to(where->path, false) : -ENAMETOOLONG;

		if (fd >= 0)
			return fd;
		if (err == -ENOENT)
			err = fd; /* the first that says more than "not there" is the one to tell */
	}
	fx_why("no core called %s: %s; start flexinsd, or use flexins-run, or set FLEXINS_CORE", name, strerror(-err));
	return err;
}

static void read_comm(char *buf, size_t size)
{
	FILE *f = fopen("/proc/self/comm", "re");

	if (!f)
		return;
	if (fgets(buf, (int)size, f))
		buf[strcspn(buf, "\n")] = '\0';
	fclose(f);
}

static int hello(struct fx_conn *c, struct fx_hello_rep *rep, struct fx_fds *fds)
{
	struct fx_hello_req req = {
		.head = {.op = FX_MSG_HELLO}, .abi = FX_ABI_VERSION, .role = FX_ROLE_HOST, .version = FLEXINS_VERSION};
	int err;

	read_comm(req.program, sizeof(req.program));
	/* another version's reply has its ABI in the same place, and behind it what it likes */
	err = call(c, &req, sizeof(req), rep, sizeof(*rep), offsetof(struct fx_hello_rep, workers), fds);
	if (err)
		return err;
	if (rep->abi != FX_ABI_VERSION) {
		fx_why("the core is FlexiNS %.*s (ABI %u), this library is %s (ABI %u): install matching versions",
		       FX_VERSION_LEN, rep->version, rep->abi, FLEXINS_VERSION, FX_ABI_VERSION);
		err = -EPROTONOSUPPORT;
	} else if (rep->head.size < sizeof(*rep)) {
		fx_why("the core's handshake is cut short");
		err = -EPROTO;
	} else if (fds->n != 4 + (rep->have_uffd != 0)) {
		fx_why("the core's handshake brought %u descriptors instead of %u", fds->n, 4 + (rep->have_uffd != 0));
		err = -EPROTO;
	}
	if (err)
		fx_close_fds(fds);
	return err;
}

int fx_conn_open(struct fx_conn *c, struct fx_place *where, struct fx_hello_rep *rep, struct fx_fds *fds)
{
	int err;

	*c = (struct fx_conn){.fd = find_core(where)};
	if (c->fd < 0)
		return c->fd;
	let_in(c->fd);
	pthread_mutex_init(&c->lock, NULL);
	err = hello(c, rep, fds);
	if (err) {
		fx_conn_close(c);
		return err;
	}
	return 0;
}

void fx_conn_close(struct fx_conn *c)
{
	close(c->fd);
	c->fd = -1;
	pthread_mutex_destroy(&c->lock);
}
