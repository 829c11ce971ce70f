/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where cores are: by the environment, or in the directories of runtime files, where NAME.tcp is the ticket of a core
 * across a bus and NAME.sock the socket of one on this machine. A core of the first kind may have both; the ticket goes
 * first. One that leads nowhere was left behind.
 *
 * Room: host. May use: link.h, libc.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/host.h"

enum { PATH_ROOM = 108 }; /* of a socket's */

static bool is_ticket(const char *path)
{
	size_t n = strlen(path);

	return n > 4 && !strcmp(path + n - 4, ".tcp");
}

static bool name_ok(const char *name)
{
	return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < FX_VERSION_LEN;
}

/* The directories of runtime files, the system's first; false when there is no i-th one. */
static bool runtime_dir(unsigned i, char *dir, size_t size)
{
	const char *xdg = secure_getenv("XDG_RUNTIME_DIR");
	int n = 0;

	if (i == 0)
		n = snprintf(dir, size, "%s", FX_RUNTIME_DIR);
	else if (i == 1 && xdg && xdg[0] == '/')
		n = snprintf(dir, size, "%s/flexins", xdg);
	else if (i == 1 || i == 2)
		n = snprintf(dir, size, "/tmp/flexins-%u", (unsigned)geteuid());
	return n > 0 && (size_t)n < size;
}

static int open_path(const char *path, bool named, struct fx_link **link, bool *refused)
{
	return is_ticket(path) ? fx_remote_open(path, named, link, refused)
			       : fx_local_open(path, named, link);
}

static int find_path(const char *path, struct fx_link **link)
{
	bool refused = false;
	int err = open_path(path, true, link, &refused);

	if (err && !refused)
		fx_why("no core answers at %s (FLEXINS_SOCKET): %s", path, strerror(-err));
	return err;
}

static int find_name(const char *name, struct fx_link **link)
{
	static const char *const kinds[] = {"tcp", "sock"};
	char dir[PATH_ROOM], path[PATH_ROOM];
	bool refused = false;
	int err = -ENOENT;

	for (unsigned i = 0; runtime_dir(i / 2, dir, sizeof(dir)); i++) {
		int n = snprintf(path, sizeof(path), "%s/%s.%s", dir, name, kinds[i % 2]);
		int now = n > 0 && (size_t)n < sizeof(path) ? open_path(path, false, link, &refused)
							    : -ENAMETOOLONG;

		if (!now || refused)
			return now; /* what a core says itself is what to tell */
		if (err == -ENOENT)
			err = now; /* the first that says more than "not there" is the one to tell */
	}
	fx_why("no core called %s: %s; start flexinsd, or use flexins-run, or set FLEXINS_CORE", name,
	       strerror(-err));
	return err;
}

int fx_find_core(struct fx_link **link)
{
	const char *path = secure_getenv("FLEXINS_SOCKET"), *name = secure_getenv("FLEXINS_CORE");

	name = name && name[0] ? name : "default";
	if (path && path[0])
		return find_path(path, link);
	if (!name_ok(name)) {
		fx_why("FLEXINS_CORE=%.40s cannot be a core's name", name);
		return -EINVAL;
	}
	return find_name(name, link);
}
