/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control room against everything that a socket can bring: other versions, garbage, requests out of
 * order, clients that do not read, cores that are there already. After each, a decent client must be served.
 */
#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

#include "test_control_play.h"

static void a_client_is_served(struct play *p)
{
	struct client c = join(p);
	uint32_t pd;

	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, &pd), 0);
	assert_int_equal(simple(&c, FX_MSG_DEALLOC_PD, pd, NULL), 0);
	leave(&c);
	await_empty(p, 0);
}

static void greeting(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	const struct fx_hello_rep *h = &c.hello;
	const struct fx_core_page *page;

	assert_int_equal(h->abi, FX_ABI_VERSION);
	assert_string_equal(h->core, "play");
	assert_int_equal(c.nfds, 4 + (h->have_uffd != 0));
	assert_true(h->heap_off > h->event_off && h->event_off > h->pipe_off && h->heap_off < h->arena_size);
	page = mmap(NULL, sizeof(*page), PROT_READ, MAP_SHARED, c.fds[0], 0);
	assert_ptr_not_equal(page, MAP_FAILED);
	assert_int_equal(page->magic, FX_CORE_MAGIC);
	assert_int_equal(page->alive, 1);
	munmap((void *)(uintptr_t)page, sizeof(*page));
	/* a client must not be able to write it, nor resize its own arena */
	assert_ptr_equal(mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, c.fds[0], 0),
			 MAP_FAILED);
	assert_true(ftruncate(c.fds[1], 0) < 0);
	assert_true(ftruncate(c.fds[1], (off_t)h->arena_size * 2) < 0);
	/* the wake comes without the right to ring it */
	assert_true(write(c.fds[3], "", 1) < 0);
	assert_int_equal(hello(&c, FX_ROLE_HOST), -EPROTO); /* once only */
	leave(&c);
	await_empty(p, 0);
}

static void other_versions_are_refused_by_name(void **state)
{
	struct play *p = *state;
	struct fx_hello_req req = {.abi = FX_ABI_VERSION + 41, .role = FX_ROLE_HOST, .version = "9.9.9"};
	struct {
		struct fx_hello_req req;
		char more[100];
	} longer = {.req = req};
	struct client c;
	char text[32];

	for (int i = 0; i < 2; i++) { /* also one whose greeting has grown */
		c = (struct client){.fd = client_socket(p)};
		assert_int_equal(i ? ask(&c, &longer, sizeof(longer), FX_MSG_HELLO, NULL, 0)
				   : ask(&c, &req, sizeof(req), FX_MSG_HELLO, NULL, 0),
				 -EPROTONOSUPPORT);
		assert_non_null(strstr(c.why, "9.9.9"));
		snprintf(text, sizeof(text), "ABI %u,", FX_ABI_VERSION + 41);
		assert_non_null(strstr(c.why, text));
		snprintf(text, sizeof(text), "ABI %u:", FX_ABI_VERSION);
		assert_non_null(strstr(c.why, text));
		assert_non_null(strstr(c.why, FLEXINS_VERSION));
		assert_int_equal(recv(c.fd, text, sizeof(text), 0), 0); /* and hung up on */
		leave(&c);
	}
	assert_int_equal(fx_control_counters(p->ctl)->refused_version, 2);
	c = (struct client){.fd = client_socket(p)};
	assert_int_equal(hello(&c, 99), -EPROTO);
	leave(&c);
	a_client_is_served(p);
}

static void wrong_magic(void **state)
{
	struct play *p = *state;
	struct fx_msg_head req = {.magic = 0x12345678, .op = FX_MSG_HELLO, .size = sizeof(req)};
	struct client c = {.fd = client_socket(p)};
	struct fx_msg_why rep;

	assert_int_equal(send(c.fd, &req, sizeof(req), 0), sizeof(req));
	assert_int_equal(client_recv(&c, &rep, sizeof(rep)), sizeof(rep));
	assert_int_equal(rep.head.err, EBADMSG);
	assert_int_equal(client_recv(&c, &rep, sizeof(rep)), 0);
	assert_int_equal(fx_control_counters(p->ctl)->bad_message, 1);
	leave(&c);
	a_client_is_served(p);
}

/* Random bytes, and random bytes behind a head that is right as far as it goes. */
static void garbage_of_every_length(void **state)
{
	struct play *p = *state;
	uint8_t buf[FX_MSG_BYTES + 64];

	srand(1);
	for (size_t len = 1; len <= sizeof(buf); len++)
		for (int headed = 0; headed < 2; headed++) {
			struct client c = {.fd = client_socket(p)};
			struct fx_msg_head head = {
				.magic = FX_PROTO_MAGIC, .op = (uint16_t)(len % 20), .size = (uint32_t)len};
			char rep[FX_MSG_BYTES];

			for (size_t i = 0; i < len; i++)
				buf[i] = (uint8_t)rand();
			if (headed)
				memcpy(buf, &head, len < sizeof(head) ? len : sizeof(head));
			assert_int_equal(send(c.fd, buf, len, MSG_NOSIGNAL), len);
			assert_true(client_recv(&c, rep, sizeof(rep)) > 0); /* told why */
			assert_int_equal(client_recv(&c, rep, sizeof(rep)), 0);
			leave(&c);
		}
	assert_int_equal(fx_control_counters(p->ctl)->dropped, 2 * sizeof(buf));
	a_client_is_served(p);
}

/* The same from a client that was greeted: its requests fail one by one. */
static void garbage_after_the_greeting(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	union {
		struct fx_msg_head head;
		uint8_t bytes[FX_MSG_BYTES];
	} req;

	srand(2);
	for (size_t len = sizeof(req.head); len <= sizeof(req); len++) {
		unsigned op = 1 + (unsigned)rand() % (FX_MSG_COUNT + 3);
		int err;

		for (size_t i = sizeof(req.head); i < len; i++)
			req.bytes[i] = (uint8_t)rand();
		err = ask(&c, &req, len, op, NULL, 0);
		while (c.nfds > 4 + c.hello.have_uffd)
			close(c.fds[--c.nfds]);
		assert_true(err < 0 || op == FX_MSG_ALLOC_PD || op == FX_MSG_SHOW || op == FX_MSG_COUNTERS ||
			    op == FX_MSG_CREATE_CHANNEL);
		assert_int_not_equal(err, -EPIPE);
	}
	assert_true(fx_control_counters(p->ctl)->unknown_op > 0);
	leave(&c);
	a_client_is_served(p);
}

static void unknown_requests(void **state)
{
	static const uint16_t ops[] = {0, FX_MSG_COUNT, FX_MSG_COUNT + 1, 999, 0xffff};
	struct play *p = *state;
	struct client c = join(p);
	struct fx_msg_head req;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		assert_int_equal(ask(&c, &req, sizeof(req), ops[i], NULL, 0), -EPROTO);
	assert_int_equal(fx_control_counters(p->ctl)->unknown_op, sizeof(ops) / sizeof(ops[0]));
	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, NULL), 0); /* no harm done */
	leave(&c);
	await_empty(p, 0);
}

static void requests_of_the_wrong_size(void **state)
{
	static const uint16_t sizes[FX_MSG_COUNT] = {
		[FX_MSG_ALLOC_PD] = sizeof(struct fx_handle_req),
		[FX_MSG_DEALLOC_PD] = sizeof(struct fx_handle_req),
		[FX_MSG_REG_MR] = sizeof(struct fx_reg_mr_req),
		[FX_MSG_REG_MR_DONE] = sizeof(struct fx_reg_mr_done_req),
		[FX_MSG_DEREG_MR] = sizeof(struct fx_handle_req),
		[FX_MSG_REPLACE_MR] = sizeof(struct fx_replace_mr_req),
		[FX_MSG_ALLOC_MW] = sizeof(struct fx_alloc_mw_req),
		[FX_MSG_DEALLOC_MW] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_CHANNEL] = sizeof(struct fx_handle_req),
		[FX_MSG_DESTROY_CHANNEL] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_CQ] = sizeof(struct fx_create_cq_req),
		[FX_MSG_DESTROY_CQ] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_QP] = sizeof(struct fx_create_qp_req),
		[FX_MSG_MODIFY_QP] = sizeof(struct fx_modify_qp_req),
		[FX_MSG_QUERY_QP] = sizeof(struct fx_qp_req),
		[FX_MSG_DESTROY_QP] = sizeof(struct fx_qp_req),
		[FX_MSG_QUERY_PORT] = sizeof(struct fx_handle_req),
		[FX_MSG_COUNTERS] = sizeof(struct fx_handle_req),
		[FX_MSG_SHOW] = sizeof(struct fx_handle_req),
	};
	struct play *p = *state;
	struct client c = join(p);
	union {
		struct fx_msg_head head;
		uint8_t bytes[FX_MSG_BYTES];
	} req = {0};

	for (unsigned op = FX_MSG_HELLO + 1; op < FX_MSG_COUNT; op++) {
		if (!sizes[op])
			continue; /* for other connections than this one */
		assert_int_equal(ask(&c, &req, sizes[op] - 1u, op, NULL, 0), -EPROTO);
		assert_int_equal(ask(&c, &req, sizes[op] + 1u, op, NULL, 0), -EPROTO);
		assert_int_equal(ask(&c, &req, sizeof(req), op, NULL, 0), -EPROTO);
	}
	leave(&c);
	a_client_is_served(p);
}

static void nothing_before_the_greeting(void **state)
{
	struct play *p = *state;

	for (unsigned op = FX_MSG_HELLO + 1; op < FX_MSG_COUNT; op++) {
		struct client c = {.fd = client_socket(p)};
		struct fx_handle_req req = {.handle = 1};

		if (op == FX_MSG_KICK || op == FX_MSG_WAKE) { /* no requests */
			leave(&c);
			continue;
		}
		assert_int_equal(ask(&c, &req, sizeof(req), op, NULL, 0), -EPROTO);
		assert_non_null(strstr(c.why, "before HELLO"));
		assert_int_equal(client_recv(&c, &req, sizeof(req)), 0);
		leave(&c);
	}
	assert_int_equal(fx_control_counters(p->ctl)->out_of_order, FX_MSG_COUNT - FX_MSG_HELLO - 3);
	a_client_is_served(p);
}

static void control_connections_only_look(void **state)
{
	struct play *p = *state;
	struct client c = {.fd = client_socket(p)};
	uint32_t size = 0;
	char text[4096] = "";

	assert_int_equal(hello(&c, FX_ROLE_CTL), 0);
	assert_int_equal(c.nfds, 0);
	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, NULL), -EPERM);
	assert_int_equal(simple(&c, FX_MSG_QUERY_PORT, 1, NULL), 0);
	assert_int_equal(simple(&c, FX_MSG_QUERY_PORT, 2, NULL), -EINVAL);
	assert_int_equal(simple(&c, FX_MSG_SHOW, 0, &size), 0);
	assert_int_equal(c.nfds, 1);
	assert_int_equal(lseek(c.fds[0], 0, SEEK_END), size);
	assert_true(pread(c.fds[0], text, sizeof(text) - 1, 0) > 0);
	assert_non_null(strstr(text, "\"name\":\"play\""));
	leave(&c);
	await_empty(p, 0);
}

/* Pages of names and values, each counter once. */
static void counters_by_name(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	struct fx_handle_req req = {.handle = 0};
	struct fx_counters_rep rep;
	uint32_t seen = 0, bytes = 0;

	do {
		req.handle = seen;
		assert_int_equal(ask(&c, &req, sizeof(req), FX_MSG_COUNTERS, &rep, sizeof(rep)), 0);
		assert_int_equal(rep.n,
				 rep.total - seen < FX_COUNTERS_PAGE ? rep.total - seen : FX_COUNTERS_PAGE);
		for (uint32_t i = 0; i < rep.n; i++) {
			assert_true(rep.counter[i].name[0] &&
				    memchr(rep.counter[i].name, 0, FX_COUNTER_NAME));
			bytes += strcmp(rep.counter[i].name, "port_tx_bytes") == 0;
			bytes += strcmp(rep.counter[i].name, "tx_retransmits") == 0;
			bytes += strcmp(rep.counter[i].name, "rx_drop_bad_icrc") == 0;
		}
		seen += rep.n;
	} while (seen < rep.total);
	assert_int_equal(bytes, 3);
	req.handle = UINT32_MAX;
	assert_int_equal(ask(&c, &req, sizeof(req), FX_MSG_COUNTERS, &rep, sizeof(rep)), 0);
	assert_int_equal(rep.n, 0);
	leave(&c);
}

/* It sends and sends and never reads: it is dropped, and meanwhile others are served. */
static void a_client_that_does_not_read(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	struct fx_handle_req req = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_QUERY_PORT, .size = sizeof(req)}, .handle = 1};
	int sent = 0;

	while (sent < 100000 && send(c.fd, &req, sizeof(req), MSG_NOSIGNAL) > 0)
		sent++;
	assert_true(sent < 100000);
	leave(&c);
	assert_int_equal(fx_control_counters(p->ctl)->slow_readers, 1);
	a_client_is_served(p);
}

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Descriptors that nobody asked for do not pile up in the core. */
static void unwanted_descriptors(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	struct fx_handle_req req = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_QUERY_PORT, .size = sizeof(req)}, .handle = 1};
	struct iovec iov = {.iov_base = &req, .iov_len = sizeof(req)};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {
		.h = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct fx_query_port_rep rep;
	unsigned before;
	int pipes[2];

	/* one request later the core has closed all that the greeting opened */
	assert_int_equal(simple(&c, FX_MSG_QUERY_PORT, 1, NULL), 0);
	before = open_files();
	assert_int_equal(pipe(pipes), 0);
	memcpy(CMSG_DATA(&control.h), &pipes[1], sizeof(int));
	for (int i = 0; i < 50; i++) {
		assert_int_equal(sendmsg(c.fd, &msg, 0), sizeof(req));
		assert_int_equal(client_recv(&c, &rep, sizeof(rep)), sizeof(rep));
		assert_int_equal(rep.head.err, 0);
	}
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(open_files(), before); /* test and core are one process */
	leave(&c);
	await_empty(p, 0);
}

/* The process ends, but a child that it forked still has the socket: the context goes all the same. */
static void a_child_keeps_the_socket(void **state)
{
	struct play *p = *state;
	int pipes[2];
	pid_t parent, child = 0;

	assert_int_equal(pipe(pipes), 0);
	parent = fork();
	if (parent == 0) {
		struct client c = join(p);

		assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, NULL), 0);
		child = fork();
		if (child == 0) {
			pause();
			_exit(0);
		}
		_exit(write(pipes[1], &child, sizeof(child)) != sizeof(child));
	}
	assert_int_equal(read(pipes[0], &child, sizeof(child)), sizeof(child));
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	await_empty(p, 0);
	kill(child, SIGKILL);
	close(pipes[0]);
	close(pipes[1]);
}

static void one_core_a_name(void **state)
{
	struct play *p = *state;
	struct fx_control_cfg cfg = {.name = "second", .workers = 1, .port = &p->port, .poll = "", .dma = ""};
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	char why[512] = "", stale[128];
	struct fx_control *second = fx_control_create(&cfg, why, sizeof(why));
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	assert_non_null(second);
	assert_int_equal(fx_control_listen(second, p->path, 0600, why, sizeof(why)), -EADDRINUSE);
	assert_non_null(strstr(why, p->path));
	/* a socket whose core has died is no obstacle; a file that is no socket is left alone */
	snprintf(stale, sizeof(stale), "%s/stale.sock", p->dir);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/stale.sock", p->dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	close(fd);
	assert_int_equal(fx_control_listen(second, stale, 0600, why, sizeof(why)), 0);
	fx_control_destroy(second);
	assert_true(access(stale, F_OK) < 0);
	second = fx_control_create(&cfg, why, sizeof(why));
	close(open(stale, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(fx_control_listen(second, stale, 0600, why, sizeof(why)), -EEXIST);
	fx_control_destroy(second);
	assert_int_equal(access(stale, F_OK), 0);
	unlink(stale);
	a_client_is_served(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_start, play_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(greeting),
		TEST(other_versions_are_refused_by_name),
		TEST(wrong_magic),
		TEST(garbage_of_every_length),
		TEST(garbage_after_the_greeting),
		TEST(unknown_requests),
		TEST(requests_of_the_wrong_size),
		TEST(nothing_before_the_greeting),
		TEST(control_connections_only_look),
		TEST(counters_by_name),
		TEST(a_client_that_does_not_read),
		TEST(unwanted_descriptors),
		TEST(a_child_keeps_the_socket),
		TEST(one_core_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
