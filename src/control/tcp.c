/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket of a core whose clients share no memory with it: TCP, and a token that a client shows first. Where
 * to connect and the token are in a file that those may read who may use the core.
 *
 * The process that connects is known by its socket: the kernel says which user it belongs to, and the process id that a
 * client claims must be one of that user's and have that socket open, since it is that process's memory that will be
 * reached.
 *
 * Messages follow one another in the stream. A client has one request under way, but kicks come in between.
 *
 * Room: control. May use: sockets, /proc.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "control/inside.h"

enum {
	STRANGER_MS = 5000,    /* for showing a token */
	WARN_MS = 1000,	       /* between two lines of the log about those who do not */
	MESSAGES = 16,	       /* of a client, before others are heard */
	DESCRIPTORS = 1 << 16, /* of a process that are looked through: it decides how many there are */
};

/* ---- who is it? ---- */

struct socket_id {
	unsigned long inode;
	unsigned uid;
};

/* The peer's end of our connection, in the kernel's table. */
static bool find_peer(int fd, struct socket_id *id)
{
	struct sockaddr_in ours, theirs;
	socklen_t n = sizeof(ours), k = sizeof(theirs);
	bool found = false;
	char line[256];
	FILE *f;

	if (getsockname(fd, (struct sockaddr *)&ours, &n) < 0 ||
	    getpeername(fd, (struct sockaddr *)&theirs, &k) < 0)
		return false;
	f = fopen("/proc/net/tcp", "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		unsigned la, lp, ra, rp;

		if (sscanf(line, " %*d: %8X:%4X %8X:%4X %*s %*s %*s %*s %u %*d %lu", &la, &lp, &ra, &rp,
			   &id->uid, &id->inode) == 6)
			found = la == theirs.sin_addr.s_addr && lp == ntohs(theirs.sin_port) &&
				ra == ours.sin_addr.s_addr && rp == ntohs(ours.sin_port);
	}
	if (f)
		fclose(f);
	return found;
}

/*
 * Has the process that socket, and is it its user's? The directory belongs to root while the process runs with other
 * rights than its user's: a program that was started with our socket in its hands is not whom it was opened by.
 */
static bool has_open(pid_t pid, const struct socket_id *id, gid_t *gid)
{
	char path[32], want[48], link[64];
	bool found = false;
	struct dirent *e;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	snprintf(want, sizeof(want), "socket:[%lu]", id->inode);
	d = opendir(path);
	if (d && (fstat(dirfd(d), &st) < 0 || st.st_uid != id->uid)) {
		closedir(d);
		return false;
	}
	*gid = d ? st.st_gid : 0;
	for (int i = 0; d && !found && i < DESCRIPTORS && (e = readdir(d)); i++) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = '\0';
		found = strcmp(link, want) == 0;
	}
	if (d)
		closedir(d);
	return found;
}

static bool same_token(const uint8_t *a, const uint8_t *b)
{
	uint8_t differ = 0;

	for (int i = 0; i < FX_TOKEN_LEN; i++)
		differ |= a[i] ^ b[i]; /* in the same time, wherever they differ */
	return !differ;
}

static void warn(struct fx_control *ctl, const char *what, uint32_t pid)
{
	uint64_t now = fx_now_ms();

	if (ctl->warned_ms && now - ctl->warned_ms < WARN_MS)
		return;
	ctl->warned_ms = now;
	fx_log(FX_LOG_WARN,
	       "a connection was refused: %s (of process %u, it says; 0: it says nothing); %" PRIu64
	       " so far",
	       what, pid, ctl->n.refused_token + ctl->n.refused_user);
}

int fx_auth(struct fx_client *c)
{
	const struct fx_auth_req *req = &c->req.auth;
	struct ucred cred = {.pid = (pid_t)req->pid};
	struct socket_id id;
	int err;

	if (!same_token(req->token, c->ctl->token)) {
		c->ctl->n.refused_token++;
		warn(c->ctl, "it has a wrong token", req->pid);
		return fx_refuse(c, -EACCES, "the token is not core %s's: read its token file again",
				 c->ctl->name);
	}
	if (req->pid > INT32_MAX || !find_peer(c->src.fd, &id) || !has_open(cred.pid, &id, &cred.gid)) {
		c->ctl->n.refused_user++;
		warn(c->ctl, "it is another process's", req->pid);
		return fx_refuse(c, -EACCES,
				 "process %u does not have this connection open on this machine, as its user",
				 req->pid);
	}
	cred.uid = id.uid;
	err = fx_client_known(c, &cred);
	c->rep.auth_rep.arena_size = FX_ARENA_SIZE;
	c->rep.auth_rep.pid = (uint32_t)getpid();
	return err;
}

void fx_drop_strangers(struct fx_control *ctl)
{
	uint64_t now = fx_now_ms();

	for (struct fx_client *c = ctl->clients, *next; c; c = next) {
		next = c->next;
		if (c->known || now - c->since_ms < STRANGER_MS)
			continue;
		ctl->n.refused_token++;
		warn(ctl, "it has shown no token in time", 0);
		fx_client_drop(c);
	}
}

/* ---- the stream ---- */

struct fx_stream {
	uint32_t have; /* bytes of the message that is coming */
	union fx_msg in;
};

struct fx_stream *fx_stream_new(void)
{
	return calloc(1, sizeof(struct fx_stream));
}

/* Reads on: 1, a message is whole; -EAGAIN, not yet; 0, it is over, or what comes is no message. */
static int receive(struct fx_client *c)
{
	struct fx_stream *s = c->stream;
	const struct fx_msg_head *h = &s->in.head;

	for (;;) {
		uint32_t want = s->have < sizeof(*h) ? (uint32_t)sizeof(*h) : h->size;
		ssize_t n;

		/* the length comes from outside; what is longer than any message ends the connection */
		if (want < sizeof(*h) || want > FX_MSG_BYTES ||
		    (s->have >= sizeof(*h) && h->magic != FX_PROTO_MAGIC)) {
			c->ctl->n.bad_message++;
			return 0;
		}
		if (s->have == want && s->have >= sizeof(*h))
			return 1;
		n = recv(c->src.fd, s->in.bytes + s->have, want - s->have, MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
		if (n == 0)
			return 0;
		s->have += (uint32_t)n;
	}
}

/* The message is whole. False: it comes from no client of ours. */
static bool take(struct fx_client *c)
{
	struct fx_stream *s = c->stream;
	uint32_t size = s->in.head.size;

	s->have = 0;
	if (s->in.head.op == FX_MSG_KICK && c->role == FX_ROLE_HOST) {
		c->ctl->n.kicks++;
		fx_ctx_kick(&c->ctl->mailbox[0], c->ctx->wctx);
		return true;
	}
	if (s->in.head.op == FX_MSG_KICK || c->busy) {
		c->ctl->n.out_of_order++;
		return false;
	}
	memcpy(c->req.bytes, s->in.bytes, size);
	fx_client_request(c, size);
	return true;
}

void fx_stream_ready(struct fx_source *src, uint32_t events)
{
	struct fx_client *c = (struct fx_client *)src;

	(void)events;
	for (int i = 0; i < MESSAGES && !c->gone; i++) {
		int got = receive(c);

		if (got == -EAGAIN)
			return;
		if (got <= 0 || !take(c)) {
			c->ctl->n.dropped += got > 0;
			fx_client_drop(c);
		}
	}
}

/* ---- listening ---- */

/* For those who may use the core, and nobody else: the mode is that of a socket. */
static int write_ticket(struct fx_control *ctl, const char *path, unsigned mode, const struct sockaddr_in *at)
{
	char temp[sizeof(ctl->ticket) + 4], text[256], address[INET_ADDRSTRLEN];
	int fd, err = 0, n;

	inet_ntop(AF_INET, &at->sin_addr, address, sizeof(address));
	n = snprintf(text, sizeof(text), "%s %u ", address, ntohs(at->sin_port));
	for (int i = 0; i < FX_TOKEN_LEN; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", ctl->token[i]);
	n += snprintf(text + n, sizeof(text) - (size_t)n, "\n");
	snprintf(temp, sizeof(temp), "%s.new", path);
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)n) != n || fchmod(fd, mode & 0444) < 0 || rename(temp, path) < 0)
		err = errno ? -errno : -EIO;
	close(fd);
	if (err)
		unlink(temp);
	else
		snprintf(ctl->ticket, sizeof(ctl->ticket), "%s", path);
	return err;
}

int fx_tcp_listen(struct fx_control *ctl, const char *listen_at, const char *ticket, unsigned mode, char *why,
		  size_t size)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	char address[64];
	const char *colon = listen_at ? strrchr(listen_at, ':') : NULL;
	int fd, err = 0, end = 0;
	unsigned port = 0;

	if (listen_at) {
		snprintf(address, sizeof(address), "%.*s", colon ? (int)(colon - listen_at) : 63, listen_at);
		if (colon && (sscanf(colon, ":%5u%n", &port, &end) != 1 || colon[end] || colon[1] == '-'))
			port = UINT32_MAX;
		if (inet_pton(AF_INET, address, &at.sin_addr) != 1 || port > UINT16_MAX) {
			snprintf(why, size, "%s is no IPv4 ADDRESS:PORT to listen at", listen_at);
			return -EINVAL;
		}
		at.sin_port = htons((uint16_t)port);
	}
	if (getrandom(ctl->token, sizeof(ctl->token), 0) != sizeof(ctl->token)) {
		snprintf(why, size, "cannot draw a token: %s", strerror(errno));
		return -EIO;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		err = -errno;
	if (!err)
		err = write_ticket(ctl, ticket, mode, &at);
	if (err) {
		snprintf(why, size, "cannot listen at %s with the token in %s: %s",
			 listen_at ? listen_at : "127.0.0.1", ticket, strerror(-err));
		if (fd >= 0)
			close(fd);
		return err;
	}
	return fd;
}
