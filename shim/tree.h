/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's files, as the kernel would show a real one's: what is where, and what it says. Nothing of it exists but in
 * this table (tree.def.h); paths.c, files.c and dirs.c show it to programs.
 *
 * Room: shim. May use: host's state.h, libc that opens no file.
 */
#ifndef FX_SHIM_TREE_H
#define FX_SHIM_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "host/state.h"

#pragma GCC visibility push(hidden)

enum { FX_TREE_PATH = 256, FX_TREE_TEXT = 4096, FX_TREE_COUNTERS = 192 };
enum fx_node_kind {
	FX_NODE_DIR,
	FX_NODE_FILE,
	FX_NODE_LIVE,
	FX_NODE_LINK,
	FX_NODE_CHAR
}; /* LIVE: read anew */

struct fx_row;
struct fx_node {
	enum fx_node_kind kind;
	bool shared;		  /* not the device's own: if the kernel has one too, that is the one */
	const struct fx_row *row; /* NULL: a directory */
	uint32_t index;		  /* of a GID */
	char path[FX_TREE_PATH];  /* absolute, without links on the way */
	struct fx_state state;
};

/* May it be in the tree? All that other paths cost. */
static inline bool fx_tree_near(const char *path)
{
	static const char sys[] = "/sys/", dev[] = "/dev/infiniband";

	__asm__(""
		: "+r"(path)); /* libc's headers promise that it is not NULL; the kernel says EFAULT if it is */
	if (!path || path[0] != '/')
		return false;
	if (strncmp(path, sys, sizeof(sys) - 1) == 0)
		return strncmp(path + 5, "class/infiniband", 16) == 0 ||
		       strncmp(path + 5, "devices/virtual/infiniband", 26) == 0;
	return strncmp(path, dev, sizeof(dev) - 1) == 0;
}

/* Is it there? The core is asked: without one there is no device. `follow`: where a link at its end leads to. */
bool fx_tree_find(const char *path, bool follow, struct fx_node *node);
/*
 * For a thread of the program: the same, and nothing while it is in the real library. finds: nor what the kernel has as
 * well; lists: that too. errno stays.
 */
bool fx_shim_finds(const char *path, bool follow, struct fx_node *node);
bool fx_shim_lists(const char *path, struct fx_node *node);
/* What a file says, or where a link leads to; no NUL. -> its length; -EINVAL: as of an empty entry of a table */
int fx_tree_text(const struct fx_node *node, char text[FX_TREE_TEXT]);
/* The number of a character device, as the kernel numbers them. */
dev_t fx_tree_rdev(const struct fx_node *node);
/* What is in a directory, `.` and `..` left out. */
void fx_tree_list(const struct fx_node *node,
		  void (*each)(void *arg, const char *name, enum fx_node_kind kind), void *arg);

#pragma GCC visibility pop

#endif
