/* SPDX-License-Identifier: BSD-3-Clause */
#undef _FILE_OFFSET_BITS /* it would give the functions below the names with 64 */

/*
 * Interposed functions of directories: one that has files of the device is a list made when it is opened, of these and
 * of what the kernel has there.
 *
 * Room: shim. May use: tree.h, libc. A DIR is nothing but an address to programs: ours are kept in a list, so that
 * others cost one comparison while there are none.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tree.h"

#define FNS(X)                                                                                               \
	X(opendir) X(closedir) X(readdir) X(readdir_r) X(rewinddir) X(seekdir) X(telldir) X(dirfd) X(scandir)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include "behind.h"
#pragma GCC diagnostic pop

#define EXPORT __attribute__((visibility("default")))
#define ALSO(other, name) EXPORT __typeof__(name) other __attribute__((alias(#name)))

struct list {
	struct list *next;
	size_t n, at;
	bool failed; /* an entry had no room */
	struct dirent *entry;
};
static struct list *lists; /* that are open */
static pthread_mutex_t lists_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- making one ---- */

static void add(struct list *l, const char *name, unsigned char type)
{
	struct dirent *e;

	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->entry[i].d_name, name) == 0)
			return;
	e = reallocarray(l->entry, l->n + 1, sizeof(*e));
	if (!e) {
		l->failed = true;
		return;
	}
	l->entry = e;
	e += l->n++;
	memset(e, 0, sizeof(*e));
	e->d_ino = l->n;
	e->d_off = (off_t)l->n;
	e->d_reclen = sizeof(*e);
	e->d_type = type;
	snprintf(e->d_name, sizeof(e->d_name), "%s", name);
}

static void add_node(void *list, const char *name, enum fx_node_kind kind)
{
	static const unsigned char types[] = {[FX_NODE_DIR] = DT_DIR,
					      [FX_NODE_FILE] = DT_REG,
					      [FX_NODE_LIVE] = DT_REG,
					      [FX_NODE_LINK] = DT_LNK,
					      [FX_NODE_CHAR] = DT_CHR};

	add(list, name, types[kind]);
}

static void add_real(struct list *l, const char *path)
{
	DIR *d = libc()->opendir(path);
	struct dirent *e;

	while (d && (e = libc()->readdir(d)))
		add(l, e->d_name, e->d_type);
	if (d)
		libc()->closedir(d);
}

static void free_list(struct list *l)
{
	free(l->entry);
	free(l);
}

static struct list *make_list(const struct fx_node *n)
{
	struct list *l;

	if (n->kind != FX_NODE_DIR) {
		errno = ENOTDIR;
		return NULL;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	add(l, ".", DT_DIR);
	add(l, "..", DT_DIR);
	fx_tree_list(n, add_node, l);
	if (n->shared)
		add_real(l, n->path);
	if (l->failed) {
		free_list(l);
		errno = ENOMEM;
		return NULL;
	}
	return l;
}

/* Directories that the kernel has too are lists of both. */
static inline bool ours(const char *path, struct fx_node *n)
{
	return fx_tree_near(path) && fx_shim_lists(path, n);
}

static struct list *ours_of(DIR *d)
{
	struct list *l;

	if (__builtin_expect(!__atomic_load_n(&lists, __ATOMIC_ACQUIRE), 1))
		return NULL; /* acquire: who opened it has put it there before */
	pthread_mutex_lock(&lists_lock);
	for (l = lists; l && (DIR *)l != d;)
		l = l->next;
	pthread_mutex_unlock(&lists_lock);
	return l;
}

/* ---- opendir and what follows it ---- */

EXPORT DIR *opendir(const char *path)
{
	struct fx_node n;
	struct list *l;

	if (!ours(path, &n))
		return libc()->opendir(path);
	l = make_list(&n);
	if (!l)
		return NULL;
	pthread_mutex_lock(&lists_lock);
	l->next = lists;
	__atomic_store_n(&lists, l, __ATOMIC_RELEASE); /* its entries come first */
	pthread_mutex_unlock(&lists_lock);
	return (DIR *)l;
}

EXPORT int closedir(DIR *d)
{
	struct list *l = ours_of(d);

	if (!l)
		return libc()->closedir(d);
	pthread_mutex_lock(&lists_lock);
	for (struct list **p = &lists; *p; p = &(*p)->next)
		if (*p == l) {
			__atomic_store_n(p, l->next, __ATOMIC_RELEASE);
			break;
		}
	pthread_mutex_unlock(&lists_lock);
	free_list(l);
	return 0;
}

EXPORT struct dirent *readdir(DIR *d)
{
	struct list *l = ours_of(d);

	if (!l)
		return libc()->readdir(d);
	return l->at < l->n ? &l->entry[l->at++] : NULL;
}
EXPORT struct dirent64 *readdir64(DIR *d) __attribute__((alias("readdir")));

EXPORT int readdir_r(DIR *d, struct dirent *entry, struct dirent **result)
{
	struct list *l = ours_of(d);

	if (!l)
		return libc()->readdir_r(d, entry, result);
	*result = NULL;
	if (l->at < l->n) {
		*entry = l->entry[l->at++];
		*result = entry;
	}
	return 0;
}
EXPORT int readdir64_r(DIR *d, struct dirent64 *entry, struct dirent64 **result)
	__attribute__((alias("readdir_r")));

EXPORT void rewinddir(DIR *d)
{
	struct list *l = ours_of(d);

	if (l)
		l->at = 0;
	else
		libc()->rewinddir(d);
}

EXPORT void seekdir(DIR *d, long at)
{
	struct list *l = ours_of(d);

	if (l)
		l->at = at < 0 ? l->n : (size_t)at;
	else
		libc()->seekdir(d, at);
}

EXPORT long telldir(DIR *d)
{
	struct list *l = ours_of(d);

	return l ? (long)l->at : libc()->telldir(d);
}

/* There is no descriptor behind ours, which POSIX allows. */
EXPORT int dirfd(DIR *d)
{
	if (!ours_of(d))
		return libc()->dirfd(d);
	errno = ENOTSUP;
	return -1;
}

/* ---- scandir ---- */

typedef int filter_fn(const struct dirent *e);
typedef int compare_fn(const struct dirent **a, const struct dirent **b);

static void free_names(struct dirent **names, int n)
{
	while (n > 0)
		free(names[--n]);
	free(names);
}

static int scan(const struct list *l, struct dirent ***names, filter_fn *filter, compare_fn *compare)
{
	struct dirent **found = calloc(l->n, sizeof(*found));
	int n = 0;

	for (size_t i = 0; found && i < l->n; i++) {
		if (filter && !filter(&l->entry[i]))
			continue;
		found[n] = malloc(sizeof(*found[n]));
		if (!found[n]) {
			free_names(found, n);
			return -1;
		}
		*found[n++] = l->entry[i];
	}
	if (!found)
		return -1;
	if (compare)
		qsort(found, (size_t)n, sizeof(*found), (int (*)(const void *, const void *))compare);
	*names = found;
	return n;
}

EXPORT int scandir(const char *path, struct dirent ***names, filter_fn *filter, compare_fn *compare)
{
	struct fx_node n;
	struct list *l;
	int found;

	if (!ours(path, &n))
		return libc()->scandir(path, names, filter, compare);
	l = make_list(&n);
	if (!l)
		return -1;
	found = scan(l, names, filter, compare);
	free_list(l);
	return found;
}
EXPORT int scandir64(const char *path, struct dirent64 ***names, int (*filter)(const struct dirent64 *),
		     int (*compare)(const struct dirent64 **, const struct dirent64 **))
	__attribute__((alias("scandir")));
