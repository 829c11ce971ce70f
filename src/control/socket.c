/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket's name in the file system: one core a name, and a dead core's socket is no obstacle.
 *
 * Room: control. May use: sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "control/inside.h"

enum { BACKLOG = 128, LOCK_TRIES = 200, LOCK_PAUSE_MS = 10 };

static int address(struct sockaddr_un *sun, const char *path)
{
	*sun = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(sun->sun_path))
		return -ENAMETOOLONG;
	memcpy(sun->sun_path, path, strlen(path) + 1);
	return 0;
}

/*
 * Is there a core behind the name? Returns its process id, 0 if nobody answers, -1 if there is someone whose
 * process cannot be told.
 */
static pid_t who_answers(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct ucred cred = {.pid = -1};
	socklen_t len = sizeof(cred);
	pid_t pid = 0;

	if (fd < 0)
		return -1;
	if (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0)
		pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid ? cred.pid : -1;
	else if (errno != ECONNREFUSED && errno != ENOENT)
		pid = -1; /* a full backlog, or no right to ask: it is alive */
	close(fd);
	return pid;
}

/* The directory is the lock between cores that start at the same moment: nothing to leave behind. */
static int lock_directory(const char *path)
{
	struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	int fd;

	memcpy(dir, path, len);
	dir[len] = '\0';
	fd = open(slash ? (len ? dir : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		nanosleep(&pause, NULL);
	}
	close(fd);
	return -EBUSY;
}

static int bind_here(int fd, const struct sockaddr_un *sun, unsigned mode, char *why, size_t size)
{
	const char *path = sun->sun_path;
	struct stat st;
	pid_t pid;
	int err;

	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode)) {
			snprintf(why, size,
				 "%s exists and is no socket: remove it, or choose another --socket", path);
			return -EEXIST;
		}
		pid = who_answers(sun);
		if (pid) {
			snprintf(why, size,
				 "a core answers on %s already (process %d): stop it, or choose another name",
				 path, (int)pid);
			return -EADDRINUSE;
		}
		fx_log(FX_LOG_INFO, "%s is left over from a core that has ended: replaced", path);
		if (unlink(path) < 0)
			goto failed;
	}
	if (bind(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0 || chmod(path, mode) < 0 ||
	    listen(fd, BACKLOG) < 0)
		goto failed;
	return 0;
failed:
	err = -errno;
	snprintf(why, size, "cannot make the control socket %s: %s", path, strerror(-err));
	return err;
}

int fx_socket_listen(const char *path, unsigned mode, char *why, size_t size)
{
	struct sockaddr_un sun;
	int fd, err, lock;

	err = address(&sun, path);
	if (err) {
		snprintf(why, size,
			 "the socket's path %s is longer than %zu bytes: choose a shorter --socket", path,
			 sizeof(sun.sun_path) - 1);
		return err;
	}
	lock = lock_directory(path);
	if (lock < 0) {
		snprintf(why, size, "cannot lock the directory of %s: %s", path, strerror(-lock));
		return lock;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		err = -errno;
		snprintf(why, size, "cannot make a socket: %s", strerror(errno));
	} else {
		err = bind_here(fd, &sun, mode, why, size);
	}
	close(lock);
	if (err == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return err;
}
