/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the device's files say, in the kernel's words: programs parse them.
 *
 * Room: shim. May use: host's state.h, libc.
 */
#include "tree_text.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/sysmacros.h>

enum { UVERBS_MAJOR = 231, UVERBS_FIRST_MINOR = 192 };

static int print(char text[FX_TREE_TEXT], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int print(char text[FX_TREE_TEXT], const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(text, FX_TREE_TEXT, fmt, ap);
	va_end(ap);
	return len;
}

int say(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print(text, "%s\n", n->row->arg);
}

/* ---- the device ---- */

int say_device(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print(text, "%s\n", n->state.device->name);
}

dev_t fx_tree_rdev(const struct fx_node *n)
{
	unsigned index = 0;

	sscanf(n->state.device->dev_name, "uverbs%u", &index);
	return makedev(UVERBS_MAJOR, UVERBS_FIRST_MINOR + index);
}

int say_dev(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	dev_t dev = fx_tree_rdev(n);

	return print(text, "%u:%u\n", major(dev), minor(dev));
}

int say_version(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print(text, "%s\n", n->state.version);
}

/* Groups of 16 bits, of what is in network order. */
static int print_groups(char text[FX_TREE_TEXT], const uint8_t *bytes, size_t size)
{
	int len = 0;

	for (size_t i = 0; i < size; i += 2)
		len += snprintf(text + len, FX_TREE_TEXT - (size_t)len, "%02x%02x%c", bytes[i], bytes[i + 1],
				i + 2 < size ? ':' : '\n');
	return len;
}

int say_guid(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print_groups(text, (const uint8_t *)&n->state.limits.guid, sizeof(n->state.limits.guid));
}

int say_hw_rev(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print(text, "0x%x\n", n->state.limits.hw_ver);
}

int say_vendor(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print(text, "0x%04x\n", n->state.limits.vendor_id);
}

int say_part(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print(text, "0x%04x\n", n->state.limits.vendor_part_id);
}

/* ---- CPUs near the device: those that this process may use, since the device is everywhere ---- */

static void usable(cpu_set_t *cpus)
{
	CPU_ZERO(cpus);
	if (sched_getaffinity(0, sizeof(*cpus), cpus) < 0)
		CPU_SET(0, cpus);
}

static int last_of(const cpu_set_t *cpus)
{
	int last = 0;

	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, cpus))
			last = i;
	return last;
}

/* Words of 32 CPUs, the highest first. */
int say_cpu_mask(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	cpu_set_t cpus;
	int len = 0;

	(void)n;
	usable(&cpus);
	for (int word = last_of(&cpus) / 32; word >= 0; word--) {
		uint32_t bits = 0;

		for (int i = 0; i < 32; i++)
			bits |= (uint32_t) !!CPU_ISSET(word * 32 + i, &cpus) << i;
		len += snprintf(text + len, FX_TREE_TEXT - (size_t)len, "%08x%c", bits, word ? ',' : '\n');
	}
	return len;
}

int say_cpu_list(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	cpu_set_t cpus;
	int len = 0, last;

	(void)n;
	usable(&cpus);
	last = last_of(&cpus);
	for (int from = 0, to; from <= last; from = to + 1) {
		const char *comma = len ? "," : "";

		to = from;
		if (!CPU_ISSET(from, &cpus))
			continue;
		while (to < last && CPU_ISSET(to + 1, &cpus))
			to++;
		len += from == to
			       ? snprintf(text + len, FX_TREE_TEXT - (size_t)len, "%s%d", comma, from)
			       : snprintf(text + len, FX_TREE_TEXT - (size_t)len, "%s%d-%d", comma, from, to);
	}
	return len + snprintf(text + len, FX_TREE_TEXT - (size_t)len, "\n");
}

/* ---- the port ---- */

static const char *word(const char *const *words, size_t n, uint32_t i)
{
	return i < n && words[i] ? words[i] : "<unknown>";
}
#define WORD(words, i) word(words, sizeof(words) / sizeof(words[0]), i)

int say_state(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	static const char *const words[] = {"NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER"};
	uint32_t state = n->state.port.state;

	return print(text, "%u: %s\n", state, WORD(words, state));
}

int say_phys_state(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	static const char *const words[] = {
		NULL,	  "Sleep", "Polling", "Disabled", "PortConfigurationTraining",
		"LinkUp", NULL,	   "Phy Test"};
	uint32_t state = n->state.port.phys_state;

	return print(text, "%u: %s\n", state, WORD(words, state));
}

/* Width times speed, both as the verbs code them. */
int say_rate(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	static const struct {
		uint32_t code, tenths; /* of a Gbit/s a lane */
		const char *name;
	} speeds[] = {
		{1, 25, ""},	   {2, 50, " DDR"},   {4, 100, " QDR"},	 {8, 100, " FDR10"},
		{16, 140, " FDR"}, {32, 250, " EDR"}, {64, 500, " HDR"}, {128, 1000, " NDR"},
	};
	const uint32_t width = n->state.port.active_width;
	const uint32_t lanes = width == 1 ? 1 : width == 2 ? 4 : width == 4 ? 8 : width == 8 ? 12 : 2;

	for (size_t i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++) {
		uint32_t tenths = speeds[i].tenths * lanes;

		if (speeds[i].code != n->state.port.active_speed)
			continue;
		return tenths % 10 ? print(text, "%u.%u Gb/sec (%uX%s)\n", tenths / 10, tenths % 10, lanes,
					   speeds[i].name)
				   : print(text, "%u Gb/sec (%uX%s)\n", tenths / 10, lanes, speeds[i].name);
	}
	return -EINVAL;
}

int say_cap_mask(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	(void)n;
	return print(text, "0x%08x\n", IBV_PORT_CM_SUP | IBV_PORT_IP_BASED_GIDS);
}

int say_gid(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print_groups(text, n->state.port.gid[n->index].gid, 16);
}

int say_gid_type(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	const uint32_t type = n->state.port.gid[n->index].type;

	return type ? print(text, "%s\n", type == 2 ? "RoCE v2" : "IB/RoCE v1") : -EINVAL;
}

int say_gid_ndev(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	char name[IF_NAMESIZE];

	if (!if_indextoname(n->state.port.gid[n->index].ifindex, name))
		return -EINVAL;
	return print(text, "%s\n", name);
}

/* ---- counters ---- */

static bool find_counter(const char *name, size_t len, uint64_t *value)
{
	struct fx_counter counter[FX_TREE_COUNTERS];
	int n = fx_state_counters(counter, FX_TREE_COUNTERS);

	for (int i = 0; i < n; i++)
		if (strncmp(counter[i].name, name, len) == 0 && !counter[i].name[len]) {
			*value = counter[i].value;
			return true;
		}
	return false;
}

bool fx_text_counter(const char *name, size_t len)
{
	uint64_t value;

	return len < FX_COUNTER_NAME && !fx_text_of_port(name) && find_counter(name, len, &value);
}

static int print_counter(char text[FX_TREE_TEXT], const char *name, uint64_t unit)
{
	uint64_t value;

	if (!find_counter(name, strlen(name), &value))
		return -EINVAL;
	return print(text, "%llu\n", (unsigned long long)(value / unit));
}

int say_counter(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print_counter(text, n->row->arg, 1);
}

/* IBTA 16.1.3.5: data is counted in words of four octets. */
int say_words(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print_counter(text, n->row->arg, 4);
}

int say_named(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	return print_counter(text, strrchr(n->path, '/') + 1, 1);
}
