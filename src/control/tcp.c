/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket of a core whose clients share no memory with it: TCP, and a token that a client shows first. Where
 * to connect and the token are in a file that those may read who may use the core.
 *
 * The process that connects is known by its socket: the kernel says which user it belongs to, and the process id that a
 * client claims must have that socket open, since it is that process's memory that will be reached.
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

	if (getsockname(fd, (struct sockaddr *)&ours, &n) < 0 || getpeername(fd, (struct sockaddr *)&theirs, &k) < 0)
		return false;
	f = fopen("/proc/net/tcp", "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		unsigned la, lp, ra, rp;

		if (sscanf(line, " %*d: %8X:%4X %8X:%4X %*s %*s %*s %*s %u %*d %lu", &la, &lp, &ra, &rp, &id->uid,
			   &id->inode) == 6)
			found = la == theirs.sin_addr.s_addr && lp == ntohs(theirs.sin_port) &&
				ra == ours.sin_addr.s_addr && rp == ntohs(ours.sin_port);
	}
	if (f)
		fclose(f);
	return found;
}

static bool has_open(pid_t pid, unsigned long inode)
{
	char path[32], want[48], link[64];
	bool found = false;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	snprintf(want, sizeof(want), "socket:[%lu]", inode);
	d = opendir(path);
	while (d && !found && (e = readdir(d))) {
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

int fx_auth(struct fx_client *c)
{
	const struct fx_auth_req *req = &c->req.auth;
	struct socket_id id;

	if (!same_token(req->token, c->ctl->token)) {
		c->ctl->n.refused_token++;
		fx_log(FX_LOG_WARN, "a connection with a wrong token was refused (process %u, it says)", req->pid);
		return fx_refuse(c, -EACCES, "the token is not core %s's: read its token file again", c->ctl->name);
	}
	if (!find_peer(c->src.fd, &id) || !has_open((pid_t)req->pid, id.inode)) {
		c->ctl->n.refused_user++;
		return fx_refuse(c, -EACCES, "process %u does not have this connection open on this machine", req->pid);
	}
	c->cred = (struct ucred){.pid = (pid_t)req->pid, .uid = id.uid, .gid = (gid_t)-1};
	c->authenticated = true;
	c->rep.auth_rep.arena_size = FX_ARENA_SIZE;
	return 0;
}

/* ---- the stream ---- */

ssize_t fx_stream_receive(struct fx_client *c)
{
	const struct fx_msg_head *h = &c->req.head;
	uint32_t want;

	for (;;) {
		ssize_t n;

		want = c->have < sizeof(*h) ? (uint32_t)sizeof(*h) : h->size;
		/* the length comes from outside; what is longer than any message ends the connection */
		if (c->have >= sizeof(*h) && (want < sizeof(*h) || want > FX_MSG_BYTES || h->magic != FX_PROTO_MAGIC)) {
			c->ctl->n.bad_message++;
			return 0;
		}
		if (c->have == want && c->have >= sizeof(*h)) {
			c->have = 0;
			return (ssize_t)want;
		}
		n = recv(c->src.fd, c->req.bytes + c->have, want - c->have, MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
		if (n == 0)
			return 0;
		c->have += (uint32_t)n;
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
	int fd, err = 0;

	if (listen_at) {
		snprintf(address, sizeof(address), "%.*s", colon ? (int)(colon - listen_at) : 63, listen_at);
		if (inet_pton(AF_INET, address, &at.sin_addr) != 1 || (colon && atoi(colon + 1) > UINT16_MAX)) {
			snprintf(why, size, "%s is no IPv4 ADDRESS:PORT to listen at", listen_at);
			return -EINVAL;
		}
		at.sin_port = htons(colon ? (uint16_t)atoi(colon + 1) : 0);
	}
	if (getrandom(ctl->token, sizeof(ctl->token), 0) != sizeof(ctl->token))
		return -EIO;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		err = -errno;
	if (!err)
		err = write_ticket(ctl, ticket, mode, &at);
	if (err) {
		snprintf(why, size, "cannot listen at %s with the token in %s: %s", listen_at ? listen_at : "127.0.0.1",
			 ticket, strerror(-err));
		if (fd >= 0)
			close(fd);
		return err;
	}
	return fd;
}
