/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of the device's files: what is found by which path, what it says, and what directories list. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <infiniband/verbs.h>

#include "tree.h"

/* ---- a device of the test's own ---- */

static struct ibv_device device = {.name = "flexins0", .dev_name = "uverbs3"};
static int answer; /* to all questions */

int fx_state_ask(struct fx_state *s)
{
	static const uint8_t gid[16] = {[10] = 0xff, [11] = 0xff, [12] = 192, [13] = 0, [14] = 2, [15] = 7};

	*s = (struct fx_state){.device = &device, .version = "1.2.3"};
	memcpy(&s->limits.guid, "\x00\x11\x22\x33\x44\x55\x66\x77", 8);
	s->port = (struct fx_query_port_rep){
		.state = 4, .phys_state = 5, .active_width = 2, .active_speed = 32, .gid_count = 2};
	memcpy(s->port.gid[0].gid, gid, sizeof(gid));
	s->port.gid[0].type = 2;
	s->port.gid[0].ifindex = 1;
	return answer;
}

int fx_state_counters(struct fx_counter *c, uint32_t max)
{
	static const struct fx_counter have[] = {
		{"port_tx_bytes", 4001}, {"port_tx_packets", 17}, {"tx_retransmits", 5}, {"timeouts", 6}};
	const uint32_t n = sizeof(have) / sizeof(have[0]);

	assert_true(max >= n);
	memcpy(c, have, sizeof(have));
	return answer < 0 ? answer : (int)n;
}

#define SYS "/sys/class/infiniband/flexins0"
#define REAL "/sys/devices/virtual/infiniband/flexins0"

static struct fx_node find(const char *path)
{
	struct fx_node n = {0};

	if (!fx_tree_near(path) || !fx_tree_find(path, true, &n))
		fail_msg("there is no %s", path);
	return n;
}

static bool there(const char *path)
{
	struct fx_node n;

	return fx_tree_near(path) && fx_tree_find(path, true, &n);
}

static void assert_says(const char *path, const char *text)
{
	struct fx_node n = find(path);
	char got[FX_TREE_TEXT];
	int len = fx_tree_text(&n, got);

	assert_true(len >= 0);
	got[len] = '\0';
	assert_string_equal(got, text);
}

/* ---- ---- */

static void texts(void **state)
{
	(void)state;
	assert_says(SYS "/node_guid", "0011:2233:4455:6677\n");
	assert_says(SYS "/fw_ver", "1.2.3\n");
	assert_says(SYS "/node_type", "1: CA\n");
	assert_says(SYS "/ports/1/state", "4: ACTIVE\n");
	assert_says(SYS "/ports/1/phys_state", "5: LinkUp\n");
	assert_says(SYS "/ports/1/rate", "100 Gb/sec (4X EDR)\n");
	assert_says(SYS "/ports/1/gids/0", "0000:0000:0000:0000:0000:ffff:c000:0207\n");
	assert_says(SYS "/ports/1/gids/1", "0000:0000:0000:0000:0000:0000:0000:0000\n");
	assert_says(SYS "/ports/1/gid_attrs/types/0", "RoCE v2\n");
	assert_says(SYS "/ports/1/gid_attrs/ndevs/0", "lo\n");
	assert_says(SYS "/ports/1/counters/port_xmit_data", "1000\n"); /* words */
	assert_says(SYS "/ports/1/counters/port_xmit_packets", "17\n");
	assert_says(SYS "/ports/1/hw_counters/tx_retransmits", "5\n");
	assert_says("/sys/class/infiniband_verbs/uverbs3/ibdev", "flexins0\n");
	assert_says("/sys/class/infiniband_verbs/uverbs3/dev", "231:195\n");
}

static void empty_entries_have_no_type(void **state)
{
	struct fx_node n = find(SYS "/ports/1/gid_attrs/types/1");
	char text[FX_TREE_TEXT];

	(void)state;
	assert_int_equal(fx_tree_text(&n, text), -EINVAL);
	n = find(SYS "/ports/1/gid_attrs/ndevs/1");
	assert_int_equal(fx_tree_text(&n, text), -EINVAL);
}

static void links(void **state)
{
	struct fx_node n;
	char text[FX_TREE_TEXT];
	int len;

	(void)state;
	assert_true(fx_tree_find(SYS, false, &n));
	assert_int_equal(n.kind, FX_NODE_LINK);
	len = fx_tree_text(&n, text);
	assert_int_equal(len, strlen("../../devices/virtual/infiniband/flexins0"));
	assert_memory_equal(text, "../../devices/virtual/infiniband/flexins0", (size_t)len);
	n = find(SYS);
	assert_int_equal(n.kind, FX_NODE_DIR);
	assert_string_equal(n.path, REAL);
	n = find(SYS "/"); /* a directory by its name, whatever may be followed */
	assert_string_equal(n.path, REAL);
	n = find("/sys/class/infiniband_verbs/uverbs3/device/vendor");
	assert_string_equal(n.path, REAL "/device/vendor");
	n = find(SYS "/device/../ports//1/./state");
	assert_string_equal(n.path, REAL "/ports/1/state");
	n = find("/sys/class/infiniband_verbs/../infiniband/flexins0/fw_ver");
	assert_string_equal(n.path, REAL "/fw_ver");
}

static void what_is_not_there(void **state)
{
	static const char *const paths[] = {
		SYS "1",
		SYS "/nothing",
		SYS "/fw_ver/",
		SYS "/fw_ver/x",
		SYS "/ports/2",
		SYS "/ports/1/gids/2",
		SYS "/ports/1/gids/00",
		SYS "/ports/1/gids/-1",
		SYS "/ports/1/gids/+1",
		SYS "/ports/1/gids/99999999999999999999",
		SYS "/ports/1/gids/4294967296",
		SYS "/ports/1/hw_counters/none",
		SYS "/ports/1/hw_counters/timeout",
		SYS "/ports/1/hw_counters/port_tx_bytes",
		"/sys/class/infiniband/mlx5_0",
		"/sys/class/infiniband/../net",
		"/sys/class/infiniband_mad",
		"/sys/class/infiniband/%d",
		"/dev/infiniband/uverbs0",
		"/dev/infinibandx",
		"/dev/null",
		"sys/class/infiniband",
		"",
	};
	char deep[2 * FX_TREE_PATH] = SYS;

	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (there(paths[i]))
			fail_msg("there is %s", paths[i]);
	while (strlen(deep) < sizeof(deep) - 8)
		strcat(deep, "/abcdef");
	assert_false(there(deep));
	assert_false(there(NULL));
}

static void without_a_core(void **state)
{
	(void)state;
	answer = -ENOENT;
	assert_false(there(SYS));
	assert_false(there("/sys/class/infiniband"));
	answer = 0;
	assert_true(there(SYS));
}

/* The class directories may be the kernel's as well; what is below the device's name is not. */
static void what_the_kernel_may_have(void **state)
{
	(void)state;
	assert_true(find("/sys/class/infiniband").shared);
	assert_true(find("/sys/class/infiniband_verbs/abi_version").shared);
	assert_true(find("/dev/infiniband").shared);
	assert_false(find(SYS).shared);
	assert_false(find(SYS "/ports").shared);
	assert_false(find("/dev/infiniband/uverbs3").shared);
}

static void note(void *arg, const char *name, enum fx_node_kind kind)
{
	char *all = arg, one[64];

	snprintf(one, sizeof(one), " %s%s", name,
		 kind == FX_NODE_DIR	? "/"
		 : kind == FX_NODE_LINK ? "@"
					: "");
	assert_null(strstr(all, one)); /* nothing twice */
	strcat(all, one);
}

static void assert_lists(const char *path, const char *names)
{
	struct fx_node n = find(path);
	char all[2048] = "";

	fx_tree_list(&n, note, all);
	assert_string_equal(all, names);
}

static void directories(void **state)
{
	(void)state;
	assert_lists("/sys/class/infiniband", " flexins0@");
	assert_lists("/dev/infiniband", " uverbs3");
	assert_lists("/sys/class/infiniband_verbs", " uverbs3@ abi_version");
	assert_lists(SYS "/ports", " 1/");
	assert_lists(SYS "/ports/1/gids", " 0 1");
	assert_lists(SYS "/ports/1/gid_attrs", " types/ ndevs/");
	assert_lists(SYS "/ports/1/hw_counters", " tx_retransmits timeouts");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),	  cmocka_unit_test(empty_entries_have_no_type),
		cmocka_unit_test(links),	  cmocka_unit_test(what_is_not_there),
		cmocka_unit_test(without_a_core), cmocka_unit_test(what_the_kernel_may_have),
		cmocka_unit_test(directories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
