/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host library and a core across a bus: how it is found and believed, that nothing is shared with it, descriptors to
 * wait on, forked children. What else is the same with a core on this machine is in test_host_end.c, for both; what a
 * core should not say in test_host_nonsense.c.
 *
 * May use: host's insides.
 */
#include "host_rig.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "host/host.h"

static const struct ibv_qp_cap usual = {
	.max_send_wr = 8, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1};

/* ---- nothing is shared ---- */

/* Mappings that another process could have, too: shared ones. Which file private ones are of does not matter. */
static unsigned shared_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], perms[8];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += sscanf(line, "%*s %7s", perms) == 1 && perms[3] == 's';
	fclose(f);
	return n;
}

static void nothing_is_mapped_that_a_core_could_share(void **state)
{
	struct core *c = core_start(6, CORE_POLITE);
	unsigned before = shared_mappings();
	struct ibv_context *ctx = rig_open();
	struct ibv_pd *pd = flexins_alloc_pd(ctx);
	void *mem = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ibv_mr *mr = flexins_reg_mr(pd, mem, 1 << 20, IBV_ACCESS_LOCAL_WRITE);

	(void)state;
	assert_non_null(mr);
	assert_int_equal(shared_mappings(), before);
	assert_true(c->registered.flags & FX_REG_NO_CONVERT);
	assert_string_equal(fx_windows_kind(fx_context_of(ctx)), "windows by DMA");
	assert_int_equal(c->seen[FX_MSG_AUTH], 2); /* the list, and the context */
	assert_int_equal(flexins_dereg_mr(mr), 0);
	munmap(mem, 1 << 20);
	assert_int_equal(flexins_dealloc_pd(pd), 0);
	assert_int_equal(flexins_close_device(ctx), 0);
	core_end(c);
}

/* Slow memory is a matter of cores with a helper thread: here it is all the same. */
static void nothing_bounces(void **state)
{
	struct rig r = rig_start(6, &usual);
	char mem[8192];
	struct ibv_mr *mr;

	(void)state;
	r.core->nslow = 1;
	r.core->slow[0] = (struct fx_slow_run){.length = sizeof(mem)};
	mr = flexins_reg_mr(r.pd, mem, sizeof(mem), IBV_ACCESS_LOCAL_WRITE);
	assert_non_null(mr);
	assert_int_equal(r.core->nmr, 1); /* no pool */
	assert_int_equal(r.core->made[0].max_inline, usual.max_inline_data);
	assert_int_equal(flexins_dereg_mr(mr), 0);
	rig_end(&r);
}

/* A ring begins zeroed, wherever one has been before. */
static void rings_begin_zeroed(void **state)
{
	struct rig r = rig_start(6, &usual);

	(void)state;
	for (int turn = 0; turn < 6; turn++) {
		struct ibv_cq *cq = flexins_create_cq(r.ctx, 1000, NULL, NULL, 0);
		struct fx_cq *at = &r.core->cq[1 + turn];
		uint8_t *bytes = (uint8_t *)at->head;
		size_t size = FX_LINE + ((size_t)FX_CQE_SIZE << at->shift);

		assert_non_null(cq);
		for (size_t i = 0; i < size; i++)
			assert_int_equal(bytes[i], 0);
		memset(bytes, 0xff, size);
		assert_int_equal(flexins_destroy_cq(cq), 0);
	}
	rig_end(&r);
}

/* ---- tickets ---- */

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void a_wrong_token_is_refused(void **state)
{
	struct core *c = core_start(6, CORE_POLITE);

	(void)state;
	assert_int_equal(rig_list_errno(), 0);
	c->token[31] ^= 1;
	assert_int_equal(rig_list_errno(), EACCES);
	assert_string_equal(flexins_why(), "play: that token is not mine");
	core_end(c);
}

static void tickets_that_are_none(void **state)
{
	static const char *const texts[] = {
		"",
		"127.0.0.1",
		"127.0.0.1 5",
		"127.0.0.1 5 00",
		"127.0.0.1 70000 0000000000000000000000000000000000000000000000000000000000000000",
		"localhost 5 0000000000000000000000000000000000000000000000000000000000000000",
		"127.0.0.1 5 000000000000000000000000000000000000000000000000000000000000000x",
		"127.0.0.1 5 000000000000000000000000000000000000000000000000000000000000000",
	};
	struct core *c = core_start(6, CORE_POLITE);

	(void)state;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		write_text(c->path, texts[i]);
		assert_int_equal(rig_list_errno(), EPROTO);
		assert_non_null(strstr(flexins_why(), c->path));
	}
	assert_int_equal(unlink(c->path), 0);
	assert_int_equal(rig_list_errno(), ENOENT);
	assert_int_equal(mkfifo(c->path, 0600), 0); /* is not waited for */
	assert_int_equal(rig_list_errno(), EPROTO);
	core_end(c);
}

/* By name, in a directory of this test's. */
struct by_name {
	char base[64], link[80];
};

static struct by_name by_name_start(const struct core *c)
{
	struct by_name b = {.base = "/tmp/fxnameXXXXXX"};

	assert_non_null(mkdtemp(b.base));
	snprintf(b.link, sizeof(b.link), "%s/flexins", b.base);
	assert_int_equal(symlink(c->dir, b.link), 0);
	setenv("XDG_RUNTIME_DIR", b.base, 1);
	setenv("FLEXINS_CORE", "play", 1);
	unsetenv("FLEXINS_SOCKET");
	return b;
}

static void by_name_end(const struct by_name *b)
{
	unlink(b->link);
	rmdir(b->base);
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("FLEXINS_CORE");
}

static void the_ticket_goes_before_the_socket(void **state)
{
	struct core *c = core_start(6, CORE_POLITE);
	struct by_name b = by_name_start(c);
	char sock[120];

	(void)state;
	snprintf(sock, sizeof(sock), "%s/play.sock", c->dir);
	write_text(sock, "no socket");
	assert_int_equal(rig_list_errno(), 0);
	assert_int_equal(c->seen[FX_MSG_AUTH], 1);
	c->token[0] ^= 1; /* what the core says goes before what may be said of the socket */
	assert_int_equal(rig_list_errno(), EACCES);
	assert_string_equal(flexins_why(), "play: that token is not mine");
	c->token[0] ^= 1;
	if (geteuid() == 0) {
		assert_int_equal(chown(c->path, 65534, 65534), 0);
		assert_int_equal(rig_list_errno(), EACCES); /* somebody else's */
		assert_int_equal(c->seen[FX_MSG_AUTH], 2);
	}
	unlink(sock);
	by_name_end(&b);
	core_end(c);
}

/* What a core that was killed leaves behind does not hide the one that came after it, on this machine. */
static void a_stale_ticket_is_passed_over(void **state)
{
	struct core *c;
	struct by_name b;
	uint16_t port;
	char path[120];

	(void)state;
	c = core_start(6, CORE_POLITE);
	port = c->port;
	core_end(c);
	core_remote = false;
	c = core_start(6, CORE_POLITE);
	core_remote = true;
	b = by_name_start(c);
	snprintf(path, sizeof(path), "%s/play.tcp", c->dir);
	core_write_ticket(c, path, port);
	assert_int_equal(rig_list_errno(), 0);
	assert_int_equal(c->seen[FX_MSG_HELLO], 1);
	assert_int_equal(unlink(c->path), 0);
	assert_int_equal(rig_list_errno(), ECONNREFUSED);
	unlink(path);
	by_name_end(&b);
	core_end(c);
}

/* ---- descriptors to wait on ---- */

static bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1 && (p.revents & POLLIN);
}

static bool hangs_up(int fd)
{
	struct pollfd p = {.fd = fd};

	return poll(&p, 1, RIG_WAIT_MS) == 1 && (p.revents & POLLHUP);
}

struct two {
	struct core *c;
	struct ibv_context *ctx;
	struct ibv_comp_channel *ch[2];
	struct ibv_cq *cq[2];
	struct fx_event_tx events;
};

static struct two two_start(void)
{
	struct two t = {.c = core_start(6, CORE_POLITE)};

	t.ctx = rig_open();
	for (int i = 0; i < 2; i++) {
		t.ch[i] = flexins_create_comp_channel(t.ctx);
		assert_non_null(t.ch[i]);
		t.cq[i] = flexins_create_cq(t.ctx, 4, NULL, t.ch[i], 0);
		assert_non_null(t.cq[i]);
	}
	t.events = (struct fx_event_tx){.head = (struct fx_event_head *)(t.c->arena + CORE_EVENTS),
					.ring = (struct fx_event *)(t.c->arena + CORE_EVENTS + FX_LINE),
					.shift = CORE_EVENT_SHIFT};
	return t;
}

static void two_end(struct two *t)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(flexins_destroy_cq(t->cq[i]), 0);
		assert_int_equal(flexins_destroy_comp_channel(t->ch[i]), 0);
	}
	assert_int_equal(flexins_close_device(t->ctx), 0);
	core_end(t->c);
}

/* The core fires the event of a CQ, armed by its owner. */
static void fire(struct two *t, int i)
{
	struct fx_event e = {
		.kind = FX_EV_CQ, .object = (uint32_t)i + 1, .cookie = fx_cq_of(t->cq[i])->subject.cookie};

	assert_int_equal(flexins_req_notify_cq(t->cq[i], 0), 0);
	assert_true(fx_event_put(&t->events, &e, 1u << CORE_EVENT_SHIFT));
	core_wake(t->c, (uint32_t)i + 1, 1);
}

static void each_channel_has_its_wakes(void **state)
{
	struct two t = two_start();
	struct fx_event fatal = {.kind = FX_EV_ASYNC, .type = IBV_EVENT_PORT_ERR, .object = 1};
	struct ibv_async_event async;
	struct ibv_cq *cq;
	void *arg;

	(void)state;
	fire(&t, 1);
	assert_true(readable(t.ch[1]->fd, RIG_WAIT_MS));
	assert_false(readable(t.ch[0]->fd, 50) || readable(t.ctx->async_fd, 0));
	assert_int_equal(flexins_get_cq_event(t.ch[1], &cq, &arg), 0);
	assert_ptr_equal(cq, t.cq[1]);
	flexins_ack_cq_events(cq, 1);
	assert_false(readable(t.ch[1]->fd, 0));
	fire(&t, 0);
	assert_int_equal(flexins_get_cq_event(t.ch[0], &cq, &arg), 0); /* waits for the byte */
	assert_ptr_equal(cq, t.cq[0]);
	flexins_ack_cq_events(cq, 1);
	assert_true(fx_event_put(&t.events, &fatal, 1u << CORE_EVENT_SHIFT));
	core_wake(t.c, 0, 1);
	assert_int_equal(flexins_get_async_event(t.ctx, &async), 0);
	assert_int_equal(async.event_type, IBV_EVENT_PORT_ERR);
	two_end(&t);
}

/* Nor for one that is gone, nor more than a pipe can hold. */
static void wakes_for_nobody(void **state)
{
	struct two t = two_start();
	struct ibv_port_attr port;

	(void)state;
	core_wake(t.c, 77, 1);
	core_wake(t.c, 0, UINT32_MAX);
	core_wake(t.c, 1, UINT32_MAX);
	assert_int_equal(flexins_query_port(t.ctx, 1, &port, sizeof(port)), 0);
	assert_true(readable(t.ctx->async_fd, RIG_WAIT_MS));
	two_end(&t);
}

/* ---- the end of the core ---- */

static void everything_hangs_up(void **state)
{
	struct two t = two_start();
	struct ibv_async_event async;
	struct ibv_comp_channel *ch;
	struct ibv_cq *cq;
	void *arg;

	(void)state;
	assert_int_equal(flexins_req_notify_cq(t.cq[0], 0), 0);
	t.c->rude_at = FX_MSG_ALLOC_PD;
	t.c->rude = RUDE_GONE;
	assert_null(flexins_alloc_pd(t.ctx)); /* in the middle of a call */
	assert_int_equal(errno, ENODEV);
	assert_true(hangs_up(t.ch[0]->fd) && hangs_up(t.ch[1]->fd) && hangs_up(t.ctx->async_fd));
	assert_int_equal(flexins_get_async_event(t.ctx, &async), 0);
	assert_int_equal(async.event_type, IBV_EVENT_DEVICE_FATAL);
	assert_int_equal(flexins_get_async_event(t.ctx, &async), -1);
	assert_int_equal(flexins_get_cq_event(t.ch[0], &cq, &arg), 0); /* armed: one last event */
	assert_ptr_equal(cq, t.cq[0]);
	flexins_ack_cq_events(cq, 1);
	assert_int_equal(flexins_get_cq_event(t.ch[0], &cq, &arg), -1);
	assert_int_equal(flexins_get_cq_event(t.ch[1], &cq, &arg), -1);
	assert_int_equal(errno, EIO);
	ch = flexins_create_comp_channel(t.ctx);
	assert_null(ch);
	assert_int_equal(errno, ENODEV);
	two_end(&t);
}

/* ---- a forked child ---- */

static void *ask_late(void *arg)
{
	struct ibv_pd *pd = flexins_alloc_pd(arg);

	assert_non_null(pd);
	return pd;
}

/*
 * The child has nothing of the connection: it ends without waiting for anything, the parent's goes on, and when the
 * core goes the parent's descriptors hang up though the child lives. One of the parent's threads waits meanwhile.
 */
static void a_child_leaves_the_connection_alone(void **state)
{
	struct two t = two_start();
	int go[2], status;
	char byte;
	void *pd;
	pthread_t thread;
	pid_t child, other;

	(void)state;
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	t.c->rude_at = FX_MSG_ALLOC_PD;
	t.c->rude = RUDE_LATE;
	assert_int_equal(pthread_create(&thread, NULL, ask_late, t.ctx), 0);
	usleep(RUDE_LATE_MS * 200);
	child = fork();
	if (child == 0) {
		alarm(20);
		close(go[1]);
		if (flexins_alloc_pd(t.ctx) || errno != ENODEV || flexins_destroy_cq(t.cq[0]) ||
		    flexins_destroy_comp_channel(t.ch[0]) || flexins_close_device(t.ctx))
			_exit(1);
		_exit(0);
	}
	other = fork();
	if (other == 0) {
		alarm(20);
		close(go[1]);
		_exit(read(go[0], &byte, 1) < 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	pthread_join(thread, &pd);
	assert_int_equal(flexins_dealloc_pd(pd), 0);
	fire(&t, 0);
	assert_true(readable(t.ch[0]->fd, RIG_WAIT_MS));
	core_cut(t.c);
	assert_true(hangs_up(t.ch[1]->fd) && hangs_up(t.ctx->async_fd));
	close(go[1]);
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_int_equal(status, 0);
	close(go[0]);
	two_end(&t);
}

/* The core may reach for the rings until it closes its end: before that they are no one else's memory. */
static void the_arena_lasts_until_the_core_has_let_go(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct core *c = r.core;

	(void)state;
	c->lingers = 20;
	c->let_go = false;
	rig_leave(&r);
	assert_true(c->let_go);
	core_end(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_mapped_that_a_core_could_share),
		cmocka_unit_test(nothing_bounces),
		cmocka_unit_test(rings_begin_zeroed),
		cmocka_unit_test(a_wrong_token_is_refused),
		cmocka_unit_test(tickets_that_are_none),
		cmocka_unit_test(the_ticket_goes_before_the_socket),
		cmocka_unit_test(a_stale_ticket_is_passed_over),
		cmocka_unit_test(each_channel_has_its_wakes),
		cmocka_unit_test(wakes_for_nobody),
		cmocka_unit_test(everything_hangs_up),
		cmocka_unit_test(the_arena_lasts_until_the_core_has_let_go),
		cmocka_unit_test(a_child_leaves_the_connection_alone),
	};

	core_remote = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
