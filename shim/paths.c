/* SPDX-License-Identifier: BSD-3-Clause */
#undef _FILE_OFFSET_BITS /* it would give the functions below the names with 64 */

/*
 * Interposed functions that ask about paths: those of the device's files are answered, all others go on to libc.
 *
 * Room: shim. May use: tree.h, libc. A path of another place costs two comparisons. Only absolute paths are looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tree.h"

/* libc has declarations of the checked and the old names no more. */
ssize_t __readlink_chk(const char *path, char *buf, size_t len, size_t room);
ssize_t __readlinkat_chk(int dir, const char *path, char *buf, size_t len, size_t room);
char *__realpath_chk(const char *path, char *buf, size_t room);
int __xstat(int version, const char *path, struct stat *st);
int __lxstat(int version, const char *path, struct stat *st);
int __fxstatat(int version, int dir, const char *path, struct stat *st, int flags);

/* clang-format off */
#define FNS(X) \
	X(access) X(faccessat) X(euidaccess) X(getxattr) X(lgetxattr) X(readlink) X(readlinkat) X(realpath) X(statx) \
	X(stat) X(lstat) X(fstatat) X(__xstat) X(__lxstat) X(__fxstatat) \
	X(__readlink_chk) X(__readlinkat_chk) X(__realpath_chk)
/* clang-format on */
#include "behind.h"

#define EXPORT __attribute__((visibility("default")))
/* Where off_t has 64 bits, the names with 64 are the same functions. */
#define ALSO(other, name) EXPORT __typeof__(name) other __attribute__((alias(#name)))
#define ALSO64(name, ...) EXPORT int name##64(__VA_ARGS__) __attribute__((nothrow, leaf, alias(#name)))

enum { TREE_DEVICE = 0xf1 };

__thread unsigned fx_shim_real_only;

bool fx_shim_lists(const char *path, struct fx_node *n)
{
	int saved = errno;
	bool found = !fx_shim_real_only && fx_tree_find(path, true, n);

	errno = saved;
	return found;
}

bool fx_shim_finds(const char *path, bool follow, struct fx_node *n)
{
	int saved = errno;
	bool found = !fx_shim_real_only && fx_tree_find(path, follow, n) &&
		     !(n->shared && libc()->access(n->path, F_OK) == 0);

	errno = saved;
	return found;
}

/* Ours to answer? The device's own files are; directories that the kernel has too are the kernel's. */
static inline bool ours(const char *path, bool follow, struct fx_node *n)
{
	return fx_tree_near(path) && fx_shim_finds(path, follow, n);
}

static int fail(int err)
{
	errno = err;
	return -1;
}

/* ---- stat ---- */

static const struct {
	mode_t mode;
	nlink_t nlink;
	off_t size;
} looks[] = {
	[FX_NODE_DIR] = {S_IFDIR | 0755, 2, 0},	    [FX_NODE_FILE] = {S_IFREG | 0444, 1, 4096},
	[FX_NODE_LIVE] = {S_IFREG | 0444, 1, 4096}, [FX_NODE_LINK] = {S_IFLNK | 0777, 1, 0},
	[FX_NODE_CHAR] = {S_IFCHR | 0666, 1, 0},
};

/* The same for the same path, and for others most likely another. */
static uint64_t inode(const char *path)
{
	uint64_t hash = 14695981039346656037u;

	while (*path)
		hash = (hash ^ (uint8_t)*path++) * 1099511628211u;
	return hash >> 16;
}

static int fill(const struct fx_node *n, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_dev = makedev(0, TREE_DEVICE);
	st->st_ino = inode(n->path);
	st->st_mode = looks[n->kind].mode;
	st->st_nlink = looks[n->kind].nlink;
	st->st_size = looks[n->kind].size;
	st->st_blksize = 4096;
	if (n->kind == FX_NODE_CHAR)
		st->st_rdev = fx_tree_rdev(n);
	return 0;
}

EXPORT int stat(const char *path, struct stat *st)
{
	struct fx_node n;

	return ours(path, true, &n) ? fill(&n, st) : libc()->stat(path, st);
}
ALSO64(stat, const char *path, struct stat64 *st);

EXPORT int lstat(const char *path, struct stat *st)
{
	struct fx_node n;

	return ours(path, false, &n) ? fill(&n, st) : libc()->lstat(path, st);
}
ALSO64(lstat, const char *path, struct stat64 *st);

EXPORT int fstatat(int dir, const char *path, struct stat *st, int flags)
{
	struct fx_node n;

	return ours(path, !(flags & AT_SYMLINK_NOFOLLOW), &n) ? fill(&n, st)
							      : libc()->fstatat(dir, path, st, flags);
}
ALSO64(fstatat, int dir, const char *path, struct stat64 *st, int flags);

/* What programs built against an older libc call. */
EXPORT int __xstat(int version, const char *path, struct stat *st)
{
	struct fx_node n;

	return ours(path, true, &n) ? fill(&n, st) : libc()->__xstat(version, path, st);
}
ALSO(__xstat64, __xstat);

EXPORT int __lxstat(int version, const char *path, struct stat *st)
{
	struct fx_node n;

	return ours(path, false, &n) ? fill(&n, st) : libc()->__lxstat(version, path, st);
}
ALSO(__lxstat64, __lxstat);

EXPORT int __fxstatat(int version, int dir, const char *path, struct stat *st, int flags)
{
	struct fx_node n;

	return ours(path, !(flags & AT_SYMLINK_NOFOLLOW), &n)
		       ? fill(&n, st)
		       : libc()->__fxstatat(version, dir, path, st, flags);
}
ALSO(__fxstatat64, __fxstatat);

EXPORT int statx(int dir, const char *path, int flags, unsigned int mask, struct statx *sx)
{
	struct fx_node n;
	struct stat st;

	if (!ours(path, !(flags & AT_SYMLINK_NOFOLLOW), &n))
		return libc()->statx(dir, path, flags, mask, sx);
	fill(&n, &st);
	memset(sx, 0, sizeof(*sx));
	sx->stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID | STATX_INO | STATX_SIZE;
	sx->stx_blksize = (uint32_t)st.st_blksize;
	sx->stx_nlink = (uint32_t)st.st_nlink;
	sx->stx_mode = (uint16_t)st.st_mode;
	sx->stx_ino = st.st_ino;
	sx->stx_size = (uint64_t)st.st_size;
	sx->stx_rdev_major = major(st.st_rdev);
	sx->stx_rdev_minor = minor(st.st_rdev);
	sx->stx_dev_minor = TREE_DEVICE;
	return 0;
}

/* ---- access ---- */

/* Nobody may change what the device says of itself, root neither. */
static int allowed(const struct fx_node *n, int mode)
{
	mode_t bits = looks[n->kind].mode;

	if (mode & ~(R_OK | W_OK | X_OK))
		return fail(EINVAL);
	if ((mode & W_OK && n->kind != FX_NODE_CHAR) || (mode & X_OK && !(bits & S_IXOTH)))
		return fail(EACCES);
	return 0;
}

EXPORT int access(const char *path, int mode)
{
	struct fx_node n;

	return ours(path, true, &n) ? allowed(&n, mode) : libc()->access(path, mode);
}

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
	struct fx_node n;

	return ours(path, !(flags & AT_SYMLINK_NOFOLLOW), &n) ? allowed(&n, mode)
							      : libc()->faccessat(dir, path, mode, flags);
}

EXPORT int euidaccess(const char *path, int mode)
{
	struct fx_node n;

	return ours(path, true, &n) ? allowed(&n, mode) : libc()->euidaccess(path, mode);
}
ALSO(eaccess, euidaccess);

/* What ls -l asks for. */
EXPORT ssize_t getxattr(const char *path, const char *name, void *value, size_t size)
{
	struct fx_node n;

	return ours(path, true, &n) ? fail(ENODATA) : libc()->getxattr(path, name, value, size);
}

EXPORT ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size)
{
	struct fx_node n;

	return ours(path, false, &n) ? fail(ENODATA) : libc()->lgetxattr(path, name, value, size);
}

/* ---- links ---- */

static ssize_t read_link(const struct fx_node *n, char *buf, size_t len)
{
	char text[FX_TREE_TEXT];
	size_t size;

	if (n->kind != FX_NODE_LINK)
		return fail(EINVAL);
	size = (size_t)fx_tree_text(n, text);
	size = size < len ? size : len;
	memcpy(buf, text, size);
	return (ssize_t)size;
}

EXPORT ssize_t readlink(const char *path, char *buf, size_t len)
{
	struct fx_node n;

	return ours(path, false, &n) ? read_link(&n, buf, len) : libc()->readlink(path, buf, len);
}

EXPORT ssize_t readlinkat(int dir, const char *path, char *buf, size_t len)
{
	struct fx_node n;

	return ours(path, false, &n) ? read_link(&n, buf, len) : libc()->readlinkat(dir, path, buf, len);
}

/* Of a program compiled to have its buffers' sizes checked; libc ends it when they are too small. */
EXPORT ssize_t __readlink_chk(const char *path, char *buf, size_t len, size_t room)
{
	struct fx_node n;

	return len <= room && ours(path, false, &n) ? read_link(&n, buf, len)
						    : libc()->__readlink_chk(path, buf, len, room);
}

EXPORT ssize_t __readlinkat_chk(int dir, const char *path, char *buf, size_t len, size_t room)
{
	struct fx_node n;

	return len <= room && ours(path, false, &n) ? read_link(&n, buf, len)
						    : libc()->__readlinkat_chk(dir, path, buf, len, room);
}

/* `buf` has room for PATH_MAX bytes, or is NULL: the caller frees what is returned. */
static char *real_path(const struct fx_node *n, char *buf)
{
	return buf ? strcpy(buf, n->path) : strdup(n->path);
}

EXPORT char *realpath(const char *path, char *buf)
{
	struct fx_node n;

	return ours(path, true, &n) ? real_path(&n, buf) : libc()->realpath(path, buf);
}

EXPORT char *__realpath_chk(const char *path, char *buf, size_t room)
{
	struct fx_node n;

	return room >= PATH_MAX && ours(path, true, &n) ? real_path(&n, buf)
							: libc()->__realpath_chk(path, buf, room);
}

EXPORT char *canonicalize_file_name(const char *path)
{
	return realpath(path, NULL);
}
