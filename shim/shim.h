/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the shim know of one another.
 *
 * Room: shim. May use: host's public header, libc.
 *
 *	preload.c	exported ibv_* functions: FlexiNS's objects to libflexins, others to the real library
 *	memory.c	exported madvise and mremap
 *	resolve.c	exported dlsym and dlvsym, and how to find the real functions behind ours
 *	verbs.def.h	the functions, a row each
 *	paths.c		exported functions of paths: stat, access, readlink, ...
 *	files.c		exported functions that open files: open, fopen, ...
 *	dirs.c		exported functions of directories: opendir, scandir, ...
 *	tree.h		the device's files, which these three show: tree.c, tree_text.c, tree.def.h
 */
#ifndef FX_SHIM_SHIM_H
#define FX_SHIM_SHIM_H

#pragma GCC visibility push(hidden)

/*
 * The next definition of `name` behind ours, from libibverbs wherever it is loaded; NULL: there is none. It is kept
 * in *slot (which may be NULL), so that the search is done once.
 */
void *fx_shim_real(const char *name, void **slot);

/*
 * The first default definition behind this library, in the order of loading; NULL: there is none. Asks no function of
 * libc, so that it works in a constructor, and in malloc().
 */
void *fx_shim_behind(const char *name);

/* While a thread is in the real libibverbs, it looks at the real devices only: counted. */
extern __thread unsigned fx_shim_real_only __attribute__((tls_model("initial-exec")));

/* Our definition of an exported verbs function; NULL: we have none of that name. */
void *fx_shim_ours(const char *name);

/* Ends the program as the dynamic linker would: it called what does not exist. */
_Noreturn void fx_shim_missing(const char *name);

/* Asked by the trampolines in resolve.c. */
void *fx_shim_dlsym(void *handle, const char *name);
void *fx_shim_dlvsym(void *handle, const char *name, const char *version, const void *caller);
extern void *fx_shim_real_dlsym, *fx_shim_real_dlvsym;

#pragma GCC visibility pop

#endif
