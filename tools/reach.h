/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Can a preloaded library reach a program? Setuid programs ignore LD_PRELOAD, static ones have no loader that
 * would read it, and those of another architecture cannot load ours.
 *
 * Room: tools. May use: libc.
 */
#ifndef FX_TOOLS_REACH_H
#define FX_TOOLS_REACH_H

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { FX_REACH_SCRIPTS = 4 }; /* a script's interpreter may be a script, as deep as the kernel goes */

/* What execvp() would run; false: nothing of that name. */
static inline bool fx_which(const char *command, char *path, size_t size)
{
	const char *dirs = getenv("PATH");

	if (strchr(command, '/')) {
		snprintf(path, size, "%s", command);
		return access(path, F_OK) == 0;
	}
	for (const char *d = dirs ? dirs : "/bin:/usr/bin"; d;) {
		size_t len = strcspn(d, ":");
		struct stat st;

		snprintf(path, size, "%.*s%s%s", (int)len, d, len ? "/" : "", command);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0)
			return true;
		d = d[len] ? d + len + 1 : NULL;
	}
	return false;
}

/* Executing this gives other rights than ours: the loader then ignores LD_PRELOAD. */
static inline bool fx_gains_rights(const char *path)
{
	struct statvfs vfs;
	struct stat st;

	if (stat(path, &st) < 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
		return false;
	if (statvfs(path, &vfs) == 0 && (vfs.f_flag & ST_NOSUID))
		return false;
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		return true;
	if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
		return true;
	return getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* NULL: a program of our own architecture with a loader. */
static inline const char *fx_elf_obstacle(int fd, const Elf64_Ehdr *eh)
{
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	Elf64_Ehdr our = {0};
	Elf64_Phdr ph;

	if (self >= 0) {
		if (pread(self, &our, sizeof(our), 0) != (ssize_t)sizeof(our))
			our.e_ident[EI_CLASS] = 0;
		close(self);
	}
	if (our.e_ident[EI_CLASS] != ELFCLASS64)
		return NULL; /* nothing to compare with */
	if (eh->e_ident[EI_CLASS] != our.e_ident[EI_CLASS] || eh->e_machine != our.e_machine)
		return "is built for another architecture than FlexiNS";
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		off_t at = (off_t)(eh->e_phoff + (Elf64_Off)i * eh->e_phentsize);

		if (pread(fd, &ph, sizeof(ph), at) != (ssize_t)sizeof(ph))
			return NULL;
		if (ph.p_type == PT_INTERP)
			return NULL;
	}
	return "is statically linked";
}

/* "#!interpreter args" -> interpreter */
static inline bool fx_interpreter(const char *head, char *path, size_t size)
{
	const char *p = head + 2;
	size_t len;

	p += strspn(p, " \t");
	len = strcspn(p, " \t\r\n");
	if (len == 0 || len >= size)
		return false;
	memcpy(path, p, len);
	path[len] = '\0';
	return true;
}

/* NULL: a preload reaches what execvp(command) runs, or nobody can tell. Otherwise why not; `path`: who. */
static inline const char *fx_unreachable(const char *command, char *path, size_t size)
{
	if (!fx_which(command, path, size))
		return NULL;
	for (int depth = 0; depth < FX_REACH_SCRIPTS; depth++) {
		char head[PATH_MAX] = {0};
		const char *why = NULL;
		bool script = false;
		Elf64_Ehdr eh;
		ssize_t got;
		int fd;

		if (fx_gains_rights(path))
			return "is setuid, setgid or has capabilities";
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return NULL;
		got = pread(fd, head, sizeof(head) - 1, 0);
		memcpy(&eh, head, sizeof(eh));
		if (got >= (ssize_t)sizeof(eh) && memcmp(head, ELFMAG, SELFMAG) == 0)
			why = fx_elf_obstacle(fd, &eh);
		else
			script = got > 2 && head[0] == '#' && head[1] == '!';
		close(fd);
		if (!script || !fx_interpreter(head, path, size))
			return why;
	}
	return NULL;
}

#endif
