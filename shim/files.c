/* SPDX-License-Identifier: BSD-3-Clause */
#undef _FILE_OFFSET_BITS /* it would give the functions below the names with 64 */

/*
 * Interposed functions that open files. One of the device's is a memfd with what it says, so that reading, seeking and
 * fstat() need nobody's help. A live one, which says something new each time, is written anew when it is read from its
 * beginning, as with the kernel's: programs keep counters open.
 *
 * Room: shim. May use: tree.h, libc. A path of another place costs two comparisons, and a read one, plus one for each
 * live file.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree.h"

int __open_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t len, off_t off, size_t room);

#define FNS(X)                                                                                               \
	X(open) X(openat) X(__open_2) X(__openat_2) X(fopen) X(read) X(__read_chk) X(pread) X(__pread_chk)
#include "behind.h"

#define EXPORT __attribute__((visibility("default")))
#define ALSO(other, name) EXPORT __typeof__(name) other __attribute__((alias(#name)))

/* ---- live files ---- */

/* Never freed, but used again: readers walk the list without a lock. */
struct live {
	struct live *next;
	int fd;	   /* atomic; -1: none any more */
	ino_t ino; /* the program may have closed it: another file of that number is another */
	dev_t dev;
	char path[FX_TREE_PATH];
};
static struct live *lives;
static pthread_mutex_t lives_lock = PTHREAD_MUTEX_INITIALIZER;

/* -> which it may be, by its number */
static inline struct live *live_of(int fd)
{
	/* acquire: whoever sees an entry sees it whole */
	for (struct live *l = __atomic_load_n(&lives, __ATOMIC_ACQUIRE); l; l = l->next)
		if (__atomic_load_n(&l->fd, __ATOMIC_RELAXED) == fd)
			return l;
	return NULL;
}

/* Holds the lock. */
static bool still(struct live *l)
{
	struct stat st;

	if (l->fd >= 0 && fstat(l->fd, &st) == 0 && st.st_ino == l->ino && st.st_dev == l->dev)
		return true;
	__atomic_store_n(&l->fd, -1, __ATOMIC_RELAXED);
	return false;
}

static void live_add(int fd, const char *path)
{
	struct stat st;
	struct live *l;

	if (fstat(fd, &st) < 0)
		return;
	pthread_mutex_lock(&lives_lock);
	for (l = lives; l && still(l);)
		l = l->next;
	if (!l && (l = calloc(1, sizeof(*l)))) {
		l->fd = -1;
		l->next = lives;
		__atomic_store_n(&lives, l, __ATOMIC_RELEASE);
	}
	if (l) {
		l->ino = st.st_ino;
		l->dev = st.st_dev;
		memcpy(l->path, path, sizeof(l->path));
		__atomic_store_n(&l->fd, fd, __ATOMIC_RELAXED); /* the rest is read under the lock */
	}
	pthread_mutex_unlock(&lives_lock);
}

static bool write_text(int fd, const char *text, int len)
{
	return pwrite(fd, text, (size_t)len, 0) == len && ftruncate(fd, len) == 0;
}

/* Read from its beginning, it says what is true now. */
static void live_again(struct live *l, int fd)
{
	char path[FX_TREE_PATH] = "", text[FX_TREE_TEXT];
	int saved = errno, len;
	struct fx_node n;

	pthread_mutex_lock(&lives_lock);
	if (l->fd == fd && still(l))
		memcpy(path, l->path, sizeof(path));
	pthread_mutex_unlock(&lives_lock);
	if (path[0] && fx_shim_finds(path, true, &n) && (len = fx_tree_text(&n, text)) >= 0)
		write_text(fd, text, len);
	errno = saved;
}

static inline void look_again(int fd, bool here, off_t off)
{
	struct live *l = live_of(fd);

	if (__builtin_expect(!!l, 0) && (here ? lseek(fd, 0, SEEK_CUR) : off) == 0)
		live_again(l, fd);
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	look_again(fd, true, 0);
	return libc()->read(fd, buf, len);
}

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	look_again(fd, true, 0);
	return libc()->__read_chk(fd, buf, len, room);
}

EXPORT ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	look_again(fd, false, off);
	return libc()->pread(fd, buf, len, off);
}
ALSO(pread64, pread);

EXPORT ssize_t __pread_chk(int fd, void *buf, size_t len, off_t off, size_t room)
{
	look_again(fd, false, off);
	return libc()->__pread_chk(fd, buf, len, off, room);
}
ALSO(__pread64_chk, __pread_chk);

/* ---- opening ---- */

/* To be opened as it is; otherwise 0 or why not. A directory is not: whatever the kernel has there. */
static inline bool ours(const char *path, int flags, struct fx_node *n)
{
	return fx_tree_near(path) && fx_shim_finds(path, !(flags & O_NOFOLLOW), n) && n->kind != FX_NODE_DIR;
}

/* As sysfs: what has no way of writing is not writable for root either. A device of ours has no kernel behind it. */
static int refusal(const struct fx_node *n, int flags)
{
	if (n->kind == FX_NODE_LINK)
		return ELOOP;
	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		return EEXIST;
	if (flags & O_DIRECTORY)
		return ENOTDIR;
	if (n->kind == FX_NODE_CHAR)
		return ENXIO;
	return (flags & O_ACCMODE) == O_RDONLY ? 0 : EACCES;
}

static int open_node(const struct fx_node *n, int flags)
{
	const bool live = n->kind == FX_NODE_LIVE;
	char text[FX_TREE_TEXT];
	int err = refusal(n, flags), len = err ? 0 : fx_tree_text(n, text), fd;

	if (err || len < 0) {
		errno = err ? err : -len;
		return -1;
	}
	fd = memfd_create("flexins-sysfs", MFD_ALLOW_SEALING | (flags & O_CLOEXEC ? MFD_CLOEXEC : 0));
	if (fd < 0)
		return -1;
	if (!write_text(fd, text, len) ||
	    (!live && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)) {
		close(fd);
		errno = EIO;
		return -1;
	}
	if (live)
		live_add(fd, n->path);
	return fd;
}

/* Only then is there a mode, and only then may it be looked for. */
#define MODE(flags)                                                                                          \
	({                                                                                                   \
		mode_t mode_ = 0;                                                                            \
		if ((flags)&O_CREAT || ((flags)&O_TMPFILE) == O_TMPFILE) {                                   \
			va_list ap_;                                                                         \
			va_start(ap_, flags);                                                                \
			mode_ = va_arg(ap_, mode_t);                                                         \
			va_end(ap_);                                                                         \
		}                                                                                            \
		mode_;                                                                                       \
	})

EXPORT int open(const char *path, int flags, ...)
{
	struct fx_node n;

	return ours(path, flags, &n) ? open_node(&n, flags) : libc()->open(path, flags, MODE(flags));
}
ALSO(open64, open);
ALSO(__open, open);
ALSO(__open64, open);

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	struct fx_node n;

	return ours(path, flags, &n) ? open_node(&n, flags) : libc()->openat(dir, path, flags, MODE(flags));
}
ALSO(openat64, openat);

/* Compiled to have it checked that flags without a mode need none: libc ends the program if they do. */
EXPORT int __open_2(const char *path, int flags)
{
	struct fx_node n;

	return ours(path, flags, &n) ? open_node(&n, flags) : libc()->__open_2(path, flags);
}
ALSO(__open64_2, __open_2);

EXPORT int __openat_2(int dir, const char *path, int flags)
{
	struct fx_node n;

	return ours(path, flags, &n) ? open_node(&n, flags) : libc()->__openat_2(dir, path, flags);
}
ALSO(__openat64_2, __openat_2);

EXPORT FILE *fopen(const char *path, const char *mode)
{
	const bool reads = mode[0] == 'r' && !strchr(mode, '+');
	struct fx_node n;
	FILE *f;
	int fd;

	if (!ours(path, 0, &n))
		return libc()->fopen(path, mode);
	fd = open_node(&n, (reads ? O_RDONLY : O_RDWR) | (strchr(mode, 'e') ? O_CLOEXEC : 0));
	if (fd < 0)
		return NULL;
	f = fdopen(fd, mode);
	if (!f)
		close(fd);
	return f;
}
ALSO(fopen64, fopen);
