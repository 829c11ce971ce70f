/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding a path among the rows of tree.def.h.
 *
 * Room: shim. May use: host's state.h, tree_text.c.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>

#include "tree.def.h"
#include "tree_text.h"

static const struct fx_row rows[] = {
#define X(path, kind, text, arg) {path, FX_NODE_##kind, text, arg},
	FX_TREE_ROWS(X)
#undef X
};
enum { NROWS = sizeof(rows) / sizeof(rows[0]) };

/* ---- one component of a path against one of a row ---- */

static size_t component(const char *p)
{
	return strcspn(p, "/");
}

static bool same(const char *a, size_t len, const char *b)
{
	return strncmp(a, b, len) == 0 && b[len] == '\0';
}

/* The kernel's way of writing numbers, and no other. */
static bool gid_index(const char *p, size_t len, const struct fx_state *s, uint32_t *index)
{
	char text[12], *end;
	unsigned long n;

	if (len >= sizeof(text) || p[0] < '0' || p[0] > '9' || (p[0] == '0' && len > 1))
		return false;
	memcpy(text, p, len);
	text[len] = '\0';
	n = strtoul(text, &end, 10);
	*index = (uint32_t)n;
	return !*end && n < s->port.gid_count;
}

static bool fits(const char *pattern, const char *p, size_t len, struct fx_node *n)
{
	size_t plen = component(pattern);

	if (plen == 2 && pattern[0] == '%')
		return same(p, len, pattern[1] == 'd' ? n->state.device->name : n->state.device->dev_name);
	if (plen == 1 && pattern[0] == '#')
		return gid_index(p, len, &n->state, &n->index);
	if (plen == 1 && pattern[0] == '*')
		return fx_text_counter(p, len);
	return plen == len && strncmp(pattern, p, len) == 0;
}

/* -> what is left of the pattern behind the path, "" if nothing; NULL: another path */
static const char *rest_of(const char *pattern, const char *path, struct fx_node *n)
{
	while (*path == '/' && *pattern == '/') {
		size_t len = component(++path);

		if (!fits(++pattern, path, len, n))
			return NULL;
		path += len;
		pattern += component(pattern);
	}
	return *path ? NULL : pattern;
}

/* Is node->path there, and what is it? */
static bool look_up(struct fx_node *n)
{
	for (const struct fx_row *row = rows; row < rows + NROWS; row++) {
		const char *rest = rest_of(row->path, n->path, n);

		if (!rest)
			continue;
		n->row = *rest ? NULL : row;
		n->kind = *rest ? FX_NODE_DIR : row->kind;
		n->shared = !memchr(row->path, '%', strlen(row->path) - strlen(rest));
		return true;
	}
	return false;
}

/* ---- paths ---- */

/* A pattern without # and * as a path. */
static void expand(const char *pattern, const struct fx_state *s, char path[FX_TREE_PATH])
{
	const char *mark = strchr(pattern, '%');

	snprintf(path, FX_TREE_PATH, "%.*s%s%s", (int)(mark - pattern), pattern,
		 mark[1] == 'd' ? s->device->name : s->device->dev_name, mark + 2);
}

static bool step(struct fx_node *n, const char *p, size_t len)
{
	size_t at = strlen(n->path);

	if (len == 0 || (len == 1 && p[0] == '.'))
		return true;
	if (len == 2 && p[0] == '.' && p[1] == '.') {
		*(at ? strrchr(n->path, '/') : n->path) = '\0';
		return true;
	}
	if (at + 1 + len >= FX_TREE_PATH)
		return false;
	n->path[at] = '/';
	memcpy(n->path + at + 1, p, len);
	n->path[at + 1 + len] = '\0';
	return true;
}

bool fx_tree_find(const char *path, bool follow, struct fx_node *n)
{
	if (fx_state_ask(&n->state) < 0)
		return false;
	n->path[0] = '\0';
	for (const char *p = path; *p == '/';) {
		size_t len = component(++p);
		bool last = p[len + strspn(p + len, "/")] == '\0';

		if (!step(n, p, len))
			return false;
		p += len;
		if (fx_tree_near(n->path) && look_up(n) && n->kind == FX_NODE_LINK && (follow || !last || *p))
			expand(n->row->arg, &n->state, n->path);
	}
	if (!fx_tree_near(n->path) || !look_up(n))
		return false;
	return n->kind == FX_NODE_DIR || path[strlen(path) - 1] != '/';
}

/* From the link's directory, as the kernel writes it. */
static int link_text(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	char to[FX_TREE_PATH];
	size_t common = 0;
	int len = 0;

	expand(n->row->arg, &n->state, to);
	for (size_t i = 0; to[i] && to[i] == n->path[i]; i++)
		if (to[i] == '/')
			common = i;
	for (const char *p = n->path + common + 1; (p = strchr(p, '/')); p++)
		len += snprintf(text + len, FX_TREE_TEXT - (size_t)len, "../");
	return len + snprintf(text + len, FX_TREE_TEXT - (size_t)len, "%s", to + common + 1);
}

int fx_tree_text(const struct fx_node *n, char text[FX_TREE_TEXT])
{
	if (n->kind == FX_NODE_LINK)
		return link_text(n, text);
	return n->row->text ? n->row->text(n, text) : -EINVAL;
}

/* ---- directories ---- */

struct listing {
	const struct fx_node *dir;
	void (*each)(void *arg, const char *name, enum fx_node_kind kind);
	void *arg;
};

/* The next component of a row behind a directory, which may stand for several names. */
static void list_names(const struct listing *l, const char *pattern, enum fx_node_kind kind)
{
	const struct fx_state *s = &l->dir->state;
	char name[FX_TREE_PATH];

	if (pattern[0] == '*') {
		struct fx_counter counter[FX_TREE_COUNTERS];
		int n = fx_state_counters(counter, FX_TREE_COUNTERS);

		for (int i = 0; i < n; i++)
			if (!fx_text_of_port(counter[i].name))
				l->each(l->arg, counter[i].name, kind);
		return;
	}
	if (pattern[0] == '#') {
		for (uint32_t i = 0; i < s->port.gid_count; i++) {
			snprintf(name, sizeof(name), "%u", i);
			l->each(l->arg, name, kind);
		}
		return;
	}
	if (pattern[0] == '%')
		snprintf(name, sizeof(name), "%s", pattern[1] == 'd' ? s->device->name : s->device->dev_name);
	else
		snprintf(name, sizeof(name), "%.*s", (int)component(pattern), pattern);
	l->each(l->arg, name, kind);
}

void fx_tree_list(const struct fx_node *node,
		  void (*each)(void *arg, const char *name, enum fx_node_kind kind), void *arg)
{
	const struct listing l = {node, each, arg};
	struct fx_node n = *node;
	const char *before = "";

	for (const struct fx_row *row = rows; row < rows + NROWS; row++) {
		const char *rest = rest_of(row->path, node->path, &n);
		size_t len;

		if (!rest || *rest != '/')
			continue;
		len = component(++rest);
		/* rows of one directory stand together */
		if (component(before) == len && strncmp(before, rest, len) == 0)
			continue;
		before = rest;
		list_names(&l, rest, rest[len] ? FX_NODE_DIR : row->kind);
	}
}
