/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The door for hosts that share no memory: who gets in by which token, and everything that a stream can bring. After each,
 * a decent host must be served.
 */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "test_control_play.h"

#define FAR_NEED(ok) assert_true(ok)
#include "far_host.h"

static int start(void **state)
{
	play_place = &fx_place_remote;
	return play_start(state);
}

static void a_host_is_served(struct play *p)
{
	struct far_host h;
	uint32_t pd;

	far_open(&h, p->ticket);
	assert_int_equal(far_simple(&h, FX_MSG_ALLOC_PD, 0, &pd), 0);
	assert_int_equal(far_simple(&h, FX_MSG_DEALLOC_PD, pd, NULL), 0);
	far_close(&h);
	await_empty(p, 0);
}

/* Connected, and nothing else. */
static struct far_host stranger(struct play *p)
{
	struct far_host h = {0};

	far_ticket(&h, p->ticket);
	far_connect(&h);
	return h;
}

static void must_hang_up(struct far_host *h)
{
	char buf[FX_MSG_BYTES];

	assert_int_equal(far_recv(h, buf), 0);
	close(h->fd);
}

static void the_ticket(void **state)
{
	struct play *p = *state;
	struct far_host h = {0};
	struct stat st;

	assert_int_equal(stat(p->ticket, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0400); /* as the socket: for its user */
	far_ticket(&h, p->ticket);
	assert_string_equal(h.address, "127.0.0.1");
	a_host_is_served(p);
}

static void places_to_listen_at(void **state)
{
	static const char *const wrong[] = {"",
					    "localhost",
					    "127.0.0.1:",
					    "127.0.0.1:x",
					    "127.0.0.1:-1",
					    "127.0.0.1:65536",
					    "127.0.0.1:80 ",
					    "127.0.0.1:99999999",
					    "::1",
					    "300.0.0.1:80"};
	struct play *p = *state;
	struct fx_control_cfg cfg = {.name = "second", .workers = 1, .port = &p->port, .poll = "", .dma = ""};
	char why[512] = "", path[128];
	struct fx_control *second = fx_control_create(&cfg, why, sizeof(why));
	struct far_host h = {0};

	assert_non_null(second);
	snprintf(path, sizeof(path), "%s/second.tcp", p->dir);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(fx_control_listen_tcp(second, wrong[i], path, 0600, why, sizeof(why)),
				 -EINVAL);
		assert_non_null(strstr(why, "ADDRESS:PORT"));
	}
	assert_true(fx_control_listen_tcp(second, "192.0.2.99:80", path, 0600, why, sizeof(why)) <
		    0); /* not ours */
	assert_non_null(strstr(why, "192.0.2.99"));
	assert_true(access(path, F_OK) < 0);
	assert_int_equal(fx_control_listen_tcp(second, "127.0.0.2", path, 0644, why, sizeof(why)), 0);
	far_ticket(&h, path);
	assert_string_equal(h.address, "127.0.0.2");
	fx_control_destroy(second);
	assert_true(access(path, F_OK) < 0);
	a_host_is_served(p);
}

/* Hosts are led to the token's file, flexinsctl stays; and the other way round. */
static void each_role_has_its_door(void **state)
{
	struct play *p = *state;
	struct client c = {.fd = client_socket(p)};
	struct far_host h = stranger(p);
	struct fx_hello_req req = {.abi = FX_ABI_VERSION, .role = FX_ROLE_CTL};

	assert_int_equal(hello(&c, FX_ROLE_HOST), -EREMOTE);
	assert_non_null(strstr(c.why, p->ticket));
	leave(&c);
	c = (struct client){.fd = client_socket(p)};
	assert_int_equal(hello(&c, FX_ROLE_CTL), 0);
	assert_int_equal(simple(&c, FX_MSG_SHOW, 0, NULL), 0);
	leave(&c);
	assert_int_equal(far_auth(&h, getpid()), 0);
	assert_int_equal(FAR_ASK(&h, FX_MSG_HELLO, &req, &h.hello), -EPERM);
	assert_non_null(strstr(h.why, p->path));
	must_hang_up(&h);
	far_open(&h, p->ticket);
	assert_int_equal(far_simple(&h, FX_MSG_SHOW, 0, NULL), -EOPNOTSUPP);
	far_close(&h);
	a_host_is_served(p);
}

static void wrong_tokens(void **state)
{
	struct play *p = *state;

	for (int i = 0; i < FX_TOKEN_LEN; i++) {
		struct far_host h = stranger(p);

		h.token[i] ^= 1; /* one bit, anywhere */
		assert_int_equal(far_auth(&h, getpid()), -EACCES);
		assert_non_null(strstr(h.why, "token"));
		must_hang_up(&h);
	}
	assert_int_equal(fx_control_counters(p->ctl)->refused_token, FX_TOKEN_LEN);
	a_host_is_served(p);
}

/* No request is served, nor even the greeting looked at, before the token. */
static void nothing_before_the_token(void **state)
{
	struct play *p = *state;

	for (unsigned op = FX_MSG_HELLO; op < FX_MSG_COUNT; op++) {
		struct far_host h = stranger(p);
		struct fx_handle_req req = {.handle = 1};

		if (op == FX_MSG_AUTH || op == FX_MSG_WAKE) {
			close(h.fd);
			continue;
		}
		if (op == FX_MSG_KICK) { /* which has no answer */
			req.head = (struct fx_msg_head){
				.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = sizeof(req)};
			assert_int_equal(send(h.fd, &req, sizeof(req), 0), sizeof(req));
		} else {
			assert_int_equal(far_ask(&h, &req, sizeof(req), op, NULL, 0), -EPROTO);
			assert_non_null(strstr(h.why, "before AUTH"));
		}
		must_hang_up(&h);
	}
	a_host_is_served(p);
}

/* The core reaches the memory of the process that it is told: it must be the one which has the connection. */
static void somebody_elses_memory(void **state)
{
	const pid_t pids[] = {getppid(), 1, 0, -1, 0x7fffffff};
	struct play *p = *state;
	uint64_t refused = fx_control_counters(p->ctl)->refused_user;

	for (size_t i = 0; i < sizeof(pids) / sizeof(pids[0]); i++) {
		struct far_host h = stranger(p);

		assert_int_equal(far_auth(&h, pids[i]), -EACCES);
		must_hang_up(&h);
	}
	assert_int_equal(fx_control_counters(p->ctl)->refused_user - refused, sizeof(pids) / sizeof(pids[0]));
	a_host_is_served(p);
}

/* A program that runs with other rights than whoever opened the socket is not its owner, though it has it open. */
static void a_program_with_other_rights(void **state)
{
	struct play *p = *state;
	struct far_host h;
	int pipes[2];
	pid_t child;
	char c;

	if (geteuid())
		skip();
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		if (seteuid(12345) < 0)
			_exit(1);
		h = (struct far_host){0};
		if (seteuid(0) < 0)
			_exit(1);
		far_ticket(&h, p->ticket);
		if (setegid(12345) < 0 || seteuid(12345) < 0)
			_exit(1);
		far_connect(&h); /* a socket of user 12345's */
		if (seteuid(0) < 0)
			_exit(1);
		_exit(far_auth(&h, getpid()) == -EACCES ? 0 : 1); /* but root's process */
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &c, 1), 0);
	close(pipes[0]);
	{
		int status;

		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	a_host_is_served(p);
}

static void garbage(void **state)
{
	struct play *p = *state;
	uint8_t buf[FX_MSG_BYTES];

	srand(3);
	for (int i = 0; i < 300; i++) {
		size_t len = sizeof(struct fx_msg_head) +
			     (size_t)rand() % (sizeof(buf) - sizeof(struct fx_msg_head));
		struct far_host h = stranger(p);
		struct fx_msg_head head = {
			.magic = FX_PROTO_MAGIC, .op = (uint16_t)(rand() % 25), .size = (uint32_t)len};
		bool known = i % 3 == 2;

		for (size_t k = 0; k < len; k++)
			buf[k] = (uint8_t)rand();
		if (i % 3)
			memcpy(buf, &head, sizeof(head));
		if (i % 6 == 1) /* a length that cannot be */
			((struct fx_msg_head *)(void *)buf)->size =
				(uint32_t[]){0, 15, FX_MSG_BYTES + 1, UINT32_MAX}[i / 6 % 4];
		if (known)
			assert_int_equal(far_auth(&h, getpid()), 0);
		assert_true(send(h.fd, buf, len, MSG_NOSIGNAL) > 0);
		shutdown(h.fd, SHUT_WR);
		while (recv(h.fd, buf, sizeof(buf), 0) > 0)
			;
		close(h.fd);
	}
	assert_true(fx_control_counters(p->ctl)->bad_message > 0);
	a_host_is_served(p);
}

/* A message in pieces of every size, and several in one piece. */
static void pieces(void **state)
{
	struct play *p = *state;
	struct far_host h = stranger(p);
	struct {
		struct fx_auth_req auth;
		struct fx_hello_req hello;
		struct fx_handle_req pd;
	} all = {
		.auth = {.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_AUTH, .size = sizeof(all.auth)},
			 .pid = (uint32_t)getpid()},
	};
	char buf[FX_MSG_BYTES];
	uint32_t sizes[2];

	memcpy(all.auth.token, h.token, FX_TOKEN_LEN);
	for (size_t off = 0; off < sizeof(all.auth); off++) {
		assert_int_equal(send(h.fd, (char *)&all.auth + off, 1, 0), 1);
		if (off % 8 == 0)
			play_pause();
	}
	assert_int_equal(far_recv(&h, buf), sizeof(struct fx_auth_rep));
	close(h.fd);
	far_open(&h, p->ticket);
	for (uint32_t i = 0; i < 2; i++) {
		struct fx_handle_req req[2] = {
			{.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_QUERY_PORT, .size = sizeof(req[0])},
			 .handle = 1},
			{.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_ALLOC_PD, .size = sizeof(req[0])}},
		};

		assert_int_equal(send(h.fd, req, sizeof(req), 0), sizeof(req));
		for (int k = 0; k < 2; k++)
			sizes[k] = (uint32_t)far_recv(&h, buf);
		assert_int_equal(sizes[0], sizeof(struct fx_query_port_rep));
		assert_int_equal(sizes[1], sizeof(struct fx_handle_rep));
	}
	far_close(&h);
	a_host_is_served(p);
}

/* Kicks are taken while a request waits for its worker; a second request is not. */
static void one_request_at_a_time(void **state)
{
	struct play *p = *state;
	struct far_host h;
	struct fx_msg_head kick = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = sizeof(kick)};
	struct fx_create_cq_req cq = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_CREATE_CQ, .size = sizeof(cq)}, .shift = 2};
	char buf[FX_MSG_BYTES];

	far_open(&h, p->ticket);
	cq.off = h.hello.heap_off;
	p->hold = true;
	assert_int_equal(send(h.fd, &cq, sizeof(cq), 0), sizeof(cq));
	for (int i = 0; i < 5; i++)
		assert_int_equal(send(h.fd, &kick, sizeof(kick), 0), sizeof(kick));
	for (int i = 0; i < PLAY_WAIT_MS && fx_control_counters(p->ctl)->kicks < 5; i++)
		play_pause();
	assert_int_equal(fx_control_counters(p->ctl)->kicks, 5);
	p->hold = false;
	assert_int_equal(far_recv(&h, buf), sizeof(struct fx_handle_rep));
	p->hold = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(send(h.fd, &cq, sizeof(cq), 0), sizeof(cq));
	for (int i = 0; i < PLAY_WAIT_MS && !fx_control_counters(p->ctl)->out_of_order; i++)
		play_pause();
	assert_int_equal(fx_control_counters(p->ctl)->out_of_order, 1);
	p->hold = false; /* the connection ends when the worker knows nothing of it any more */
	must_hang_up(&h);
	munmap(h.arena, h.arena_size);
	a_host_is_served(p);
}

static void a_host_that_does_not_read(void **state)
{
	struct play *p = *state;
	struct far_host h;
	struct fx_handle_req req = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_QUERY_PORT, .size = sizeof(req)}, .handle = 1};
	int sent = 0;

	far_open(&h, p->ticket);
	while (sent < 1000000 && send(h.fd, &req, sizeof(req), MSG_NOSIGNAL) > 0)
		sent++;
	assert_true(sent < 1000000);
	far_close(&h);
	assert_int_equal(fx_control_counters(p->ctl)->slow_readers, 1);
	a_host_is_served(p);
}

/* Connections that say nothing: so many and no more, and not for ever; those who are known are not touched. */
static void strangers(void **state)
{
	enum { MANY = 100, LIMIT = 64 };
	struct play *p = *state;
	struct far_host h, silent[MANY];
	struct fx_control_usage u = {0};

	far_open(&h, p->ticket);
	for (int i = 0; i < MANY; i++)
		silent[i] = stranger(p);
	for (int i = 0; i < PLAY_WAIT_MS && fx_control_counters(p->ctl)->refused_full < MANY - LIMIT; i++)
		play_pause();
	assert_int_equal(fx_control_counters(p->ctl)->refused_full, MANY - LIMIT);
	fx_control_usage(p->ctl, &u);
	assert_int_equal(u.strangers, LIMIT);
	for (int i = 0; i < 8000 && u.strangers; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		fx_control_usage(p->ctl, &u);
	}
	assert_int_equal(u.strangers, 0);
	assert_int_equal(fx_control_counters(p->ctl)->refused_token, LIMIT);
	for (int i = 0; i < MANY; i++)
		must_hang_up(&silent[i]);
	assert_int_equal(far_simple(&h, FX_MSG_ALLOC_PD, 0, NULL), 0);
	far_close(&h);
	a_host_is_served(p);
}

/* Rings where there is no memory, or too little, or none that could be written. */
static void arenas_that_cannot_be(void **state)
{
	const size_t size = (size_t)1 << 30;
	struct play *p = *state;
	uint8_t *small = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	const uint64_t at[] = {0, (uintptr_t)small, (uintptr_t)small + 1, (uint64_t)4096, UINT64_MAX - 4095};

	assert_ptr_not_equal(small, MAP_FAILED);
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		struct far_host h = stranger(p);

		assert_int_equal(far_auth(&h, getpid()), 0);
		assert_int_equal(h.arena_size, size);
		assert_true(far_hello(&h, at[i]) < 0);
		assert_non_null(strstr(h.why, "memory for rings"));
		must_hang_up(&h);
	}
	munmap(small, size);
	a_host_is_served(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, play_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_ticket),
		TEST(places_to_listen_at),
		TEST(each_role_has_its_door),
		TEST(wrong_tokens),
		TEST(nothing_before_the_token),
		TEST(somebody_elses_memory),
		TEST(a_program_with_other_rights),
		TEST(garbage),
		TEST(pieces),
		TEST(one_request_at_a_time),
		TEST(a_host_that_does_not_read),
		TEST(strangers),
		TEST(arenas_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
