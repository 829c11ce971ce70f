/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads /proc/self/maps, and the flags of an area in /proc/self/smaps.
 *
 * Room: host. May use: areas.h, the control protocol (the memfds' name), the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/protocol.h"
#include "host/areas.h"

static const char memfd_name[] = "/memfd:" FX_MR_MEMFD " (deleted)";

static int open_file(struct fx_areas *it, const char *path)
{
	it->fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	it->have = it->at = 0;
	return it->fd < 0 ? -errno : 0;
}

int fx_areas_open(struct fx_areas *it)
{
	return open_file(it, "/proc/self/maps");
}

void fx_areas_close(struct fx_areas *it)
{
	if (it->fd >= 0)
		syscall(SYS_close, it->fd);
	it->fd = -1;
}

/* The next line, ended with a 0 in place of its newline; NULL at the end. */
static char *next_line(struct fx_areas *it)
{
	for (;;) {
		char *line = it->buf + it->at, *end = memchr(line, '\n', it->have - it->at);
		long got;

		if (end) {
			*end = '\0';
			it->at = (size_t)(end + 1 - it->buf);
			return line;
		}
		it->have -= it->at;
		memmove(it->buf, line, it->have);
		it->at = 0;
		if (it->have == sizeof(it->buf)) /* a name that long is nobody's we look for */
			it->have = 0;
		got = syscall(SYS_read, it->fd, it->buf + it->have, sizeof(it->buf) - it->have);
		if (got <= 0)
			return NULL;
		it->have += (size_t)got;
	}
}

static uintptr_t hex(char **at)
{
	uintptr_t v = 0;

	for (;; ++*at) {
		unsigned c = (unsigned char)**at;
		unsigned digit = c - '0' < 10 ? c - '0' : c - 'a' < 6 ? c - 'a' + 10 : 16;

		if (digit == 16)
			return v;
		v = v << 4 | digit;
	}
}

/* "start-end rwxp offset dev inode name"; false: another line. */
static bool parse(char *line, struct fx_area *out)
{
	size_t len = strlen(line), name = sizeof(memfd_name) - 1;
	char *at = line;

	out->start = hex(&at);
	if (at == line || *at++ != '-')
		return false;
	out->end = hex(&at);
	if (out->end <= out->start || *at++ != ' ' || strnlen(at, 4) < 4)
		return false;
	out->prot = (at[0] == 'r' ? PROT_READ : 0) | (at[1] == 'w' ? PROT_WRITE : 0) |
		    (at[2] == 'x' ? PROT_EXEC : 0);
	out->converted = at[3] == 's' && len > name && strcmp(line + len - name, memfd_name) == 0;
	return true;
}

bool fx_areas_next(struct fx_areas *it, struct fx_area *out)
{
	char *line;

	while ((line = next_line(it)))
		if (parse(line, out))
			return true;
	return false;
}

static bool find(struct fx_areas *it, uintptr_t addr, struct fx_area *out)
{
	while (fx_areas_next(it, out))
		if (out->end > addr)
			return true;
	return false;
}

bool fx_area_at(uintptr_t addr, struct fx_area *out)
{
	struct fx_areas it;
	bool found = !fx_areas_open(&it) && find(&it, addr, out);

	fx_areas_close(&it);
	return found;
}

uint32_t fx_area_wishes(uintptr_t addr)
{
	static const struct {
		char name[4];
		uint32_t wish;
	} flags[] = {
		{" lo", FX_WISH_LOCKED},  {" dd", FX_WISH_NO_DUMP}, {" hg", FX_WISH_HUGE},
		{" nh", FX_WISH_NO_HUGE}, {" dc", FX_WISH_NO_FORK}, {" wf", FX_WISH_WIPE_FORK},
	};
	struct fx_areas it;
	struct fx_area a = {0};
	uint32_t wishes = 0;
	char *line = NULL;

	if (!open_file(&it, "/proc/self/smaps") && find(&it, addr, &a) && a.start <= addr)
		while ((line = next_line(&it)) && strncmp(line, "VmFlags:", 8) != 0)
			;
	for (size_t i = 0; line && i < sizeof(flags) / sizeof(flags[0]); i++)
		if (strstr(line, flags[i].name))
			wishes |= flags[i].wish;
	fx_areas_close(&it);
	return wishes;
}
