/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Grace periods as the worker keeps them: each context has its own, and ends are told in order, once.
 *
 * Room: tests. May use: cmocka, core's inside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "core/inside.h"

enum { CTXS = 3, CMDS = 4 };

static struct {
	struct fx_worker *w;
	struct fx_mailbox mailbox;
	struct fx_wctx *ctx[CTXS];
	struct fx_cmd cmd[CTXS][CMDS];
	bool over[CTXS][CMDS];
} t;

static int setup(void **state)
{
	(void)state;
	t.w = calloc(1, sizeof(*t.w)); /* a grace period needs no more of it than the mailbox */
	t.w->cfg.mailbox = &t.mailbox;
	t.mailbox.worker_fd = eventfd(0, EFD_NONBLOCK);
	t.mailbox.control_fd = eventfd(0, EFD_NONBLOCK);
	for (unsigned c = 0; c < CTXS; c++) {
		t.ctx[c] = calloc(1, sizeof(*t.ctx[c]));
		for (unsigned i = 0; i < CMDS; i++) {
			t.cmd[c][i] =
				(struct fx_cmd){.op = FX_CMD_GRACE, .ctx = t.ctx[c], .arg = &t.over[c][i]};
			t.over[c][i] = false;
		}
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned c = 0; c < CTXS; c++)
		free(t.ctx[c]);
	close(t.mailbox.worker_fd);
	close(t.mailbox.control_fd);
	free(t.w);
	return 0;
}

static void ask(unsigned c, unsigned i)
{
	fx_cmd_send(&t.mailbox, &t.cmd[c][i]);
}

/* A turn of the worker's, as far as it concerns commands. */
static void turn(void)
{
	struct fx_cmd *cmd, *next;

	fx_commands(t.w);
	if (fx_commands_waiting(t.w))
		fx_commands_settle(t.w);
	for (cmd = fx_cmd_take(&t.mailbox.done); cmd; cmd = next) {
		bool *over = cmd->arg;

		next = cmd->next;
		assert_false(*over);
		*over = true;
	}
}

static void test_nothing_under_way(void **state)
{
	(void)state;
	ask(0, 0);
	turn();
	assert_true(t.over[0][0]);
	assert_false(fx_commands_waiting(t.w));
}

static void test_waits_for_its_own(void **state)
{
	uint32_t *mine = fx_set_out(&t.ctx[0]->under_way), *later;

	(void)state;
	ask(0, 0);
	turn();
	assert_false(t.over[0][0]);
	later = fx_set_out(&t.ctx[0]->under_way); /* begun after it: looked up after it */
	--*mine;
	turn();
	assert_true(t.over[0][0]);
	--*later;
	assert_false(fx_commands_waiting(t.w));
}

/* Who asks meanwhile waits for what was begun before that as well; but all of them for one period. */
static void test_meanwhile(void **state)
{
	uint32_t *old = fx_set_out(&t.ctx[0]->under_way), *young;

	(void)state;
	ask(0, 0);
	turn();
	young = fx_set_out(&t.ctx[0]->under_way);
	ask(0, 1);
	ask(0, 2);
	turn();
	--*old;
	turn();
	turn();
	assert_true(t.over[0][0]);
	assert_false(t.over[0][1]);
	assert_true(fx_commands_waiting(t.w));
	--*young;
	turn();
	assert_true(t.over[0][1] && t.over[0][2]);
	assert_false(fx_commands_waiting(t.w));
	assert_int_equal(t.w->n.graces, 2);
}

static void test_nobody_waits_for_another(void **state)
{
	uint32_t *stalled = fx_set_out(&t.ctx[1]->under_way);

	(void)state;
	ask(0, 0);
	ask(1, 0);
	ask(2, 0);
	turn();
	assert_true(t.over[0][0] && t.over[2][0]);
	assert_false(t.over[1][0]);
	for (unsigned i = 1; i < CMDS; i++) {
		uint32_t *own = fx_set_out(&t.ctx[2]->under_way);

		ask(0, i);
		ask(1, i);
		ask(2, i);
		turn();
		assert_true(t.over[0][i]);
		assert_false(t.over[1][i] || t.over[2][i]);
		--*own;
		turn();
		assert_true(t.over[2][i]);
	}
	--*stalled;
	turn();
	turn();
	for (unsigned i = 0; i < CMDS; i++)
		assert_true(t.over[1][i]);
	assert_false(fx_commands_waiting(t.w));
}

/* The last command of a context takes the context with it. */
static void test_the_last(void **state)
{
	uint32_t *mine = fx_set_out(&t.ctx[0]->under_way), *other = fx_set_out(&t.ctx[1]->under_way);

	(void)state;
	for (unsigned c = 0; c < CTXS; c++)
		ask(c, 0);
	turn();
	assert_true(t.over[2][0]);
	free(t.ctx[2]);
	t.ctx[2] = NULL;
	--*mine;
	turn();
	assert_true(t.over[0][0]);
	free(t.ctx[0]);
	t.ctx[0] = NULL;
	--*other;
	turn();
	assert_true(t.over[1][0]);
	assert_false(fx_commands_waiting(t.w));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_under_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_waits_for_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(test_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_waits_for_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_last, setup, teardown),
	};

	return cmocka_run_group_tests_name("grace", tests, NULL, NULL);
}
