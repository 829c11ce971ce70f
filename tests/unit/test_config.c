/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flexinsd's configuration file and command line: what each may say, which wins, and that everything else is refused
 * with the place and what is allowed there.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "options.h"

static char file[] = "/tmp/fxconfXXXXXX";

static int setup(void **state)
{
	(void)state;
	close(mkstemp(file));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(file);
}

static void write_file(const char *text)
{
	FILE *f = fopen(file, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* With the file and up to two more arguments. */
static int parse(struct fx_options *o, const char *a, const char *b)
{
	char *argv[] = {"flexinsd", "--config", file, (char *)(uintptr_t)a, (char *)(uintptr_t)b, NULL};

	return fx_options_parse(o, a ? b ? 5 : 4 : 3, argv);
}

static void nothing_said(void **state)
{
	struct fx_options o;

	(void)state;
	write_file("# nothing\n\n   \n[core]\n[quota]\n");
	assert_int_equal(parse(&o, NULL, NULL), FX_GO_ON);
	assert_string_equal(o.name, "default");
	assert_int_equal(o.mtu, 4096);
	assert_int_equal(o.huge, FX_HUGE_AUTO);
	assert_int_equal(o.quota.nusers, 0);
	for (int k = FX_QUOTA_NONE + 1; k < FX_QUOTA_KINDS; k++)
		assert_true(o.quota.others.limit[k] == fx_quota_info[k].normal);
	fx_options_free(&o);
}

static void everything_said(void **state)
{
	struct fx_options o;

	(void)state;
	write_file("[quota user 77]\nqps = 5 # few\nmr_bytes=2T\n"
		   "[core]\nname = other\nsocket = /tmp/x\nip = ::1\nmtu = 1024\nhuge = no\npoll = spin\n"
		   "dma = cpu\nlinger = 7\nlog = error\n"
		   "placement = emulated\nbus = latency=250,reorder=0\nlisten = 127.0.0.1:7777\n"
		   "[quota]\nqps = 3K\nsend_wrs = unlimited\n"
		   "[quota user root]\npds = 0\n");
	assert_int_equal(parse(&o, "--mtu", "512"), FX_GO_ON);
	assert_int_equal(o.mtu, 512); /* the command line wins */
	assert_string_equal(o.name, "other");
	assert_string_equal(o.socket, "/tmp/x");
	assert_string_equal(o.ip, "::1");
	assert_string_equal(o.poll, "spin");
	assert_string_equal(o.dma, "cpu");
	assert_ptr_equal(o.place, &fx_place_remote);
	assert_string_equal(o.bus_text, "latency=250,reorder=0");
	assert_true(o.bus.latency_ns == 250 && o.bus.bytes_per_us == 63000 && o.bus.reorder_permille == 0);
	assert_string_equal(o.listen, "127.0.0.1:7777");
	assert_int_equal(o.huge, FX_HUGE_NO);
	assert_int_equal(o.linger_ms, 7000);
	assert_int_equal(o.log, FX_LOG_ERROR);
	assert_true(o.quota.others.limit[FX_QUOTA_qps] == 3 * 1024);
	assert_true(o.quota.others.limit[FX_QUOTA_send_wrs] == FX_UNLIMITED);
	assert_int_equal(o.quota.nusers, 2);
	assert_int_equal(o.quota.users[0].uid, 77);
	assert_true(o.quota.users[0].quota.limit[FX_QUOTA_qps] == 5);
	assert_true(o.quota.users[0].quota.limit[FX_QUOTA_mr_bytes] == UINT64_C(2) << 40);
	/* the rest as in [quota], though that comes later */
	assert_true(o.quota.users[0].quota.limit[FX_QUOTA_send_wrs] == FX_UNLIMITED);
	assert_int_equal(o.quota.users[1].uid, 0);
	assert_true(o.quota.users[1].quota.limit[FX_QUOTA_pds] == 0);
	assert_true(o.quota.users[1].quota.limit[FX_QUOTA_qps] == 3 * 1024);
	fx_options_free(&o);
}

/* What is right by itself and wrong together. */
static void chaos_is_for_what_is_mapped(void **state)
{
	struct fx_options o;

	(void)state;
	write_file("[core]\ndma = chaos=1,2\n");
	assert_int_equal(parse(&o, NULL, NULL), FX_GO_ON);
	assert_string_equal(o.dma, "chaos=1,2");
	fx_options_free(&o);
	assert_int_equal(parse(&o, "--placement", "emulated"), FX_EXIT_USAGE);
	assert_null(o.file); /* refused: nothing is kept */
}

/* Its values are the defaults, so that they are true, but for the user whom it names. */
static void the_example(void **state)
{
	char path[512], why[512] = "";
	struct fx_options o = {0};

	(void)state;
	snprintf(path, sizeof(path), "%s/docs/flexinsd.conf.example", getenv("FX_SOURCE"));
	if (fx_config_read(&o, path, why, sizeof(why)))
		fail_msg("%s", why);
	for (int k = FX_QUOTA_NONE + 1; k < FX_QUOTA_KINDS; k++)
		if (o.quota.others.limit[k] != fx_quota_info[k].normal)
			fail_msg("[quota] %s is not the default", fx_quota_info[k].key);
	assert_string_equal(o.name, "default");
	assert_int_equal(o.mtu, 4096);
	assert_int_equal(o.quota.nusers, 1);
	assert_true(o.quota.users[0].quota.limit[FX_QUOTA_qps] == 1024);
	fx_options_free(&o);
}

/* The manual page names every key. */
static void the_manual(void **state)
{
	char path[512], key[64], *text = calloc(1, 1 << 16);
	FILE *f;

	(void)state;
	snprintf(path, sizeof(path), "%s/docs/man/flexinsd.8", getenv("FX_SOURCE"));
	f = fopen(path, "r");
	assert_true(f && text && fread(text, 1, (1 << 16) - 1, f) > 0);
	fclose(f);
	for (int k = FX_QUOTA_NONE + 1; k < FX_QUOTA_KINDS; k++) {
		snprintf(key, sizeof(key), "\n.B %s\n", fx_quota_info[k].key);
		if (!strstr(text, key))
			fail_msg("%s lacks %s", path, fx_quota_info[k].key);
	}
	free(text);
}

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

/* What the file has, and what must be in the refusal beside the file's name. */
static void refusals(void **state)
{
	static const struct {
		const char *text, *where, *allowed;
	} rows[] = {
		{"[cores]\nmtu = 1024\n", "[cores]", "[quota user NAME-or-UID]"},
		{"[core]\nmtus = 1024\n", "[core] mtus", "mtu"},
		{"[core]\nmtu = 1000\n", "[core] mtu = 1000", "1024"},
		{"[core]\nmtu = 1024x\n", "[core] mtu = 1024x", "1024"},
		{"[core]\nready-fd = 1\n", "[core] ready-fd",
		 "linger"}, /* whoever starts it knows, not the file */
		{"[core]\nname = ../x\n", "[core] name = ../x", "letters"},
		{"[core]\nhuge = maybe\n", "[core] huge = maybe", "yes or no"},
		{"[core]\nmtu = 1024\nmtu = 2048\n", "[core] mtu", "once"},
		{"[core]\nmtu = 1024\n[quota]\n[core]\n", "[core]", "once"},
		{"[core]\nmtu 1024\n", "line 2", "KEY = VALUE"},
		{"[core]\nmtu =\n", "line 2", "KEY = VALUE"},
		{"mtu = 1024\n[core]\n", "line 1", "[SECTION]"},
		{"[core\nmtu = 1024\n", "line 1", "[core]"},
		{"[quota]\nqp = 4\n", "[quota] qp = 4", "qps"},
		{"[quota]\nqps = -1\n", "[quota] qps = -1", "unlimited"},
		{"[quota]\nqps = many\n", "[quota] qps = many", "number"},
		{"[quota]\nqps = 1KB\n", "[quota] qps = 1KB", "number"},
		{"[quota]\nmr_bytes = 99999999999999999999\n", "[quota] mr_bytes", "number"},
		{"[quota]\nmr_bytes = 9999999999T\n", "[quota] mr_bytes", "number"},
		{"[quota user ]\nqps = 1\n", "[quota user]", "NAME-or-UID"},
		{"[quota user no-such-user-here]\nqps = 1\n", "[quota user no-such-user-here]", "number"},
		{"[quota user -1]\nqps = 1\n", "[quota user -1]", "number"},
		{"[quota user 4294967295]\nqps = 1\n", "[quota user 4294967295]", "number"},
		{"[quota user 0]\nqps = 1\n[quota user root]\n", "[quota user root]", "one for each"},
		{"[quota user 0]\nmtu = 1024\n", "[quota user 0] mtu", "qps"},
		{"[core]\n" X64 " = 1\n", "xxxx", "at most"},
		{"[core]\nsocket = " X64 X64 X64 X64 "\n", "socket", "at most"},
		{"[core]\nsocket = " X64 X64 X64 X64 X64 "\n", "line 2", "longer"},
		{"[" X64 "]\nmtu = 1024\n", "xxxx", "no such section"},
	};
	struct fx_options o;
	char why[512];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int err;

		write_file(rows[i].text);
		memset(&o, 0, sizeof(o));
		why[0] = '\0';
		err = fx_config_read(&o, file, why, sizeof(why));
		if (err != -EINVAL || !strstr(why, file) || !strstr(why, rows[i].where) ||
		    !strstr(why, rows[i].allowed))
			fail_msg("row %zu: %d, '%s' lacks '%s' or '%s'", i, err, why, rows[i].where,
				 rows[i].allowed);
		fx_options_free(&o);
	}
	memset(&o, 0, sizeof(o));
	assert_int_equal(fx_config_read(&o, "/nonexistent/x.conf", why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "/nonexistent/x.conf"));
}

/* A wrong line is wrong also where the command line would win; and a wrong command line beside a good file. */
static void nothing_wrong_passes(void **state)
{
	struct fx_options o;

	(void)state;
	write_file("[core]\nmtu = 7\n");
	assert_int_equal(parse(&o, "--mtu", "1024"), FX_EXIT_USAGE);
	write_file("[core]\nmtu = 1024\n");
	assert_int_equal(parse(&o, "--mtu", "7"), FX_EXIT_USAGE);
	assert_null(o.file);
	assert_int_equal(parse(&o, "--mtu", NULL), FX_EXIT_USAGE);
	assert_int_equal(parse(&o, "word", NULL), FX_EXIT_USAGE);
	assert_int_equal(parse(&o, "--version", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_said),
		cmocka_unit_test(everything_said),
		cmocka_unit_test(chaos_is_for_what_is_mapped),
		cmocka_unit_test(the_example),
		cmocka_unit_test(the_manual),
		cmocka_unit_test(refusals),
		cmocka_unit_test(nothing_wrong_passes),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
