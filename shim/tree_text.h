/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the device's files say.
 *
 * Room: shim, private to the tree. May use: host's state.h, libc.
 */
#ifndef FX_SHIM_TREE_TEXT_H
#define FX_SHIM_TREE_TEXT_H

#include "tree.h"

#pragma GCC visibility push(hidden)

/* -> the length, or a negative errno */
typedef int fx_tree_say(const struct fx_node *n, char text[FX_TREE_TEXT]);

struct fx_row {
	const char *path;
	enum fx_node_kind kind;
	fx_tree_say *text;
	const char *arg;
};

fx_tree_say say, say_device, say_dev, say_version, say_guid, say_hw_rev, say_vendor, say_part, say_cpu_mask,
	say_cpu_list, say_state, say_phys_state, say_rate, say_cap_mask, say_gid, say_gid_type, say_gid_ndev,
	say_words, say_counter, say_named;

/* Counters of the port have rows of their own; the others are the transport's. */
static inline bool fx_text_of_port(const char *name)
{
	return strncmp(name, "port_", 5) == 0;
}
/* Has the transport one of that name? */
bool fx_text_counter(const char *name, size_t len);

#pragma GCC visibility pop

#endif
