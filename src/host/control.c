/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The connection to a core: the handshake, requests and replies with descriptors.
 *
 * Room: host. May use: link.h, the control protocol, libc.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

void fx_close_fds(struct fx_fds *fds)
{
	while (fds->n)
		close(fds->fd[--fds->n]);
}

/* ---- one message ---- */

int64_t fx_clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* The reply to `want` into buf[FX_MSG_BYTES], NUL-padded; late replies to given-up requests are passed over. */
static int await_reply(struct fx_conn *c, const struct fx_msg_head *want, char *buf, struct fx_fds *fds)
{
	int64_t until = fx_clock_ms() + FX_CALL_MS;

	for (;;) {
		struct fx_msg_head head;
		ssize_t n;

		memset(buf, 0, FX_MSG_BYTES);
		n = c->link->ops->receive(c->link, buf, FX_MSG_BYTES, fds, until);
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
	int err;

	req->magic = FX_PROTO_MAGIC;
	req->seq = ++c->seq;
	req->err = 0;
	err = c->link->ops->send(c->link, req, req->size);
	if (err)
		return err;
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

/* ---- the handshake ---- */

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
	struct fx_hello_req req = {.head = {.op = FX_MSG_HELLO},
				   .abi = FX_ABI_VERSION,
				   .role = FX_ROLE_HOST,
				   .version = FLEXINS_VERSION,
				   .arena = c->link->arena};
	unsigned want;
	int err;

	read_comm(req.program, sizeof(req.program));
	/* another version's reply has its ABI in the same place, and behind it what it likes */
	err = call(c, &req, sizeof(req), rep, sizeof(*rep), offsetof(struct fx_hello_rep, workers), fds);
	if (err)
		return err;
	want = c->link->ops->hello_fds + (rep->have_uffd != 0);
	if (rep->abi != FX_ABI_VERSION) {
		fx_why("the core is FlexiNS %.*s (ABI %u), this library is %s (ABI %u): install matching versions",
		       FX_VERSION_LEN, rep->version, rep->abi, FLEXINS_VERSION, FX_ABI_VERSION);
		err = -EPROTONOSUPPORT;
	} else if (rep->head.size < sizeof(*rep)) {
		fx_why("the core's handshake is cut short");
		err = -EPROTO;
	} else if (fds->n != want) {
		fx_why("the core's handshake brought %u descriptors instead of %u", fds->n, want);
		err = -EPROTO;
	}
	if (err)
		fx_close_fds(fds);
	return err;
}

int fx_conn_open(struct fx_conn *c, struct fx_hello_rep *rep, struct fx_fds *fds)
{
	int err;

	*c = (struct fx_conn){0};
	err = fx_find_core(&c->link);
	if (err)
		return err;
	pthread_mutex_init(&c->lock, NULL);
	err = hello(c, rep, fds);
	if (err)
		fx_conn_close(c);
	return err;
}

void fx_conn_close(struct fx_conn *c)
{
	c->link->ops->close(c->link);
	pthread_mutex_destroy(&c->lock);
}
