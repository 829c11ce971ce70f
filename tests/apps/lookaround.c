/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looks at the device by every function that takes a path, as programs and libraries do, and compares what it finds
 * with what the verbs say.
 */
#include <dirent.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "need.h"

int __open_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
char *__realpath_chk(const char *path, char *buf, size_t room);

static char sysfs[PATH_MAX]; /* the device's directory */

/* In one static buffer a call, of a few. */
static const char *at(const char *name)
{
	static char paths[4][PATH_MAX + 520];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", sysfs, name);
	return path;
}

/* All of a descriptor, by read(); it is closed. */
static const char *text_of(int fd)
{
	static char buf[4097];
	ssize_t n;

	NEED(fd >= 0);
	n = read(fd, buf, sizeof(buf) - 1);
	NEED(n > 0);
	buf[n] = '\0';
	NEED(lseek(fd, 0, SEEK_CUR) == n && read(fd, buf + n, 1) == 0);
	close(fd);
	return buf;
}

static void by_every_way_of_opening(void)
{
	const char *path = at("node_type");
	char line[64], link[64];
	struct stat st;
	FILE *f;
	int fd;

	NEED(strcmp(text_of(open(path, O_RDONLY)), "1: CA\n") == 0);
	NEED(strcmp(text_of(open(path, O_RDONLY | O_CLOEXEC)), "1: CA\n") == 0);
	NEED(strcmp(text_of(openat(AT_FDCWD, path, O_RDONLY)), "1: CA\n") == 0);
	NEED(strcmp(text_of(__open_2(path, O_RDONLY)), "1: CA\n") == 0);
	NEED(strcmp(text_of(__openat_2(AT_FDCWD, path, O_RDONLY)), "1: CA\n") == 0);
	f = fopen(path, "re");
	NEED(f && fgets(line, sizeof(line), f) && strcmp(line, "1: CA\n") == 0 && !fgets(line, 2, f));
	NEED(fseek(f, 0, SEEK_SET) == 0 && fgets(line, sizeof(line), f) && strcmp(line, "1: CA\n") == 0);
	NEED(fclose(f) == 0);

	fd = open(path, O_RDONLY | O_CLOEXEC);
	NEED(fcntl(fd, F_GETFD) == FD_CLOEXEC);
	NEED(fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 6);
	NEED(pread(fd, line, 2, 3) == 2 && memcmp(line, "CA", 2) == 0);
	NEED(write(fd, "x", 1) < 0);
	close(fd);
	fd = open(path, O_RDONLY);
	NEED(fcntl(fd, F_GETFD) == 0);
	close(fd);

	errno = 0;
	NEED(open(path, O_WRONLY) < 0 && errno == EACCES);
	NEED(open(path, O_RDWR) < 0 && errno == EACCES);
	NEED(!fopen(path, "w") && errno == EACCES);
	NEED(open(path, O_RDONLY | O_DIRECTORY) < 0 && errno == ENOTDIR);
	NEED(open(path, O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
	NEED(open(at("nothing"), O_RDONLY) < 0 && errno == ENOENT);
	NEED(open(sysfs, O_RDONLY | O_NOFOLLOW) < 0 && errno == ELOOP);
	NEED(readlink(path, link, sizeof(link)) < 0 && errno == EINVAL);
}

static void by_every_way_of_asking(const struct ibv_device *device)
{
	char dev[PATH_MAX], buf[PATH_MAX], to[PATH_MAX] = "";
	struct statx sx;
	struct stat st;
	char *real;

	snprintf(dev, sizeof(dev), "/dev/infiniband/%s", device->dev_name);
	NEED(stat(dev, &st) == 0 && S_ISCHR(st.st_mode) && major(st.st_rdev) == 231);
	NEED(access(dev, R_OK | W_OK) == 0 && faccessat(AT_FDCWD, dev, R_OK | W_OK, AT_EACCESS) == 0);
	NEED(statx(AT_FDCWD, dev, 0, STATX_BASIC_STATS, &sx) == 0 && S_ISCHR(sx.stx_mode));
	NEED(sx.stx_rdev_major == 231 && sx.stx_rdev_minor == minor(st.st_rdev));
	NEED(stat(sysfs, &st) == 0 && S_ISDIR(st.st_mode));
	NEED(lstat(sysfs, &st) == 0 && S_ISLNK(st.st_mode));
	NEED(fstatat(AT_FDCWD, sysfs, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode));
	NEED(fstatat(AT_FDCWD, sysfs, &st, 0) == 0 && S_ISDIR(st.st_mode));
	NEED(stat(at("fw_ver"), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 4096);
	NEED(access(at("fw_ver"), R_OK) == 0 && access(at("ports/1"), R_OK | X_OK) == 0);
	NEED(access(at("fw_ver"), W_OK) < 0 && errno == EACCES);
	NEED(access(at("ports/2"), F_OK) < 0 && errno == ENOENT);
	NEED(readlink(sysfs, to, sizeof(to)) > 0 && strncmp(to, "../../devices/", 14) == 0);
	NEED(readlink(sysfs, buf, 5) == 5 && memcmp(to, buf, 5) == 0);
	NEED(readlinkat(AT_FDCWD, sysfs, buf, sizeof(buf)) == (ssize_t)strlen(to));
	NEED(realpath(sysfs, buf) == buf && strncmp(buf, "/sys/devices/", 13) == 0);
	real = realpath(sysfs, NULL);
	NEED(real && strcmp(real, buf) == 0);
	free(real);
	NEED(__realpath_chk(sysfs, to, sizeof(to)) == to && strcmp(to, buf) == 0);
	NEED(open(dev, O_RDWR) < 0 && errno == ENXIO); /* there is no kernel behind it */
}

static int named(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static void by_listing(const struct ibv_device *device)
{
	struct dirent **names, *e, copy;
	unsigned ours = 0, dots = 0;
	DIR *d = opendir("/sys/class/infiniband");
	long second;
	int n;

	NEED(d);
	while ((e = readdir(d))) {
		ours += strcmp(e->d_name, device->name) == 0 && e->d_type == DT_LNK;
		dots += strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	}
	NEED(ours == 1 && dots == 2 && !readdir(d));
	rewinddir(d);
	NEED(readdir(d));
	second = telldir(d);
	e = readdir(d);
	NEED(e);
	copy = *e;
	seekdir(d, second);
	e = readdir(d);
	NEED(e && strcmp(e->d_name, copy.d_name) == 0);
	NEED(closedir(d) == 0);

	n = scandir(at("ports"), &names, named, alphasort);
	NEED(n == 1 && strcmp(names[0]->d_name, "1") == 0 && names[0]->d_type == DT_DIR);
	free(names[0]);
	free(names);
	n = scandir(at("ports/1/hw_counters"), &names, named, alphasort);
	NEED(n > 20);
	for (int i = 0; i < n; i++) {
		char path[512];

		NEED(i == 0 || strcmp(names[i - 1]->d_name, names[i]->d_name) < 0);
		snprintf(path, sizeof(path), "ports/1/hw_counters/%s", names[i]->d_name);
		NEED(strspn(text_of(open(at(path), O_RDONLY)), "0123456789\n") > 1);
		free(names[i]);
	}
	free(names);
	NEED(!opendir(at("fw_ver")) && errno == ENOTDIR);
}

/* Files and verbs tell the same. */
static void against_verbs(struct ibv_context *ctx)
{
	struct ibv_device_attr a;
	struct ibv_port_attr p;
	union ibv_gid gid;
	char want[128], name[64];
	const uint8_t *g = (const uint8_t *)&a.node_guid;

	NEED(ibv_query_device(ctx, &a) == 0 && ibv_query_port(ctx, 1, &p) == 0);
	snprintf(want, sizeof(want), "%02x%02x:%02x%02x:%02x%02x:%02x%02x\n", g[0], g[1], g[2], g[3], g[4],
		 g[5], g[6], g[7]);
	NEED(strcmp(text_of(open(at("node_guid"), O_RDONLY)), want) == 0);
	snprintf(want, sizeof(want), "%s\n", a.fw_ver);
	NEED(strcmp(text_of(open(at("fw_ver"), O_RDONLY)), want) == 0);
	NEED(atoi(text_of(open(at("ports/1/state"), O_RDONLY))) == (int)p.state);
	NEED(atoi(text_of(open(at("ports/1/phys_state"), O_RDONLY))) == p.phys_state);
	for (int i = 0; i < p.gid_tbl_len; i++) {
		NEED(ibv_query_gid(ctx, 1, i, &gid) == 0);
		for (int j = 0, len = 0; j < 16; j += 2)
			len += snprintf(want + len, sizeof(want) - (size_t)len, "%02x%02x%c", gid.raw[j],
					gid.raw[j + 1], j < 14 ? ':' : '\n');
		snprintf(name, sizeof(name), "ports/1/gids/%d", i);
		NEED(strcmp(text_of(open(at(name), O_RDONLY)), want) == 0);
	}
	snprintf(name, sizeof(name), "ports/1/gids/%d", p.gid_tbl_len);
	NEED(open(at(name), O_RDONLY) < 0);
}

/* Libraries look around in constructors, in threads and in forked children. */
static void *in_a_thread(void *arg)
{
	for (int i = 0; i < 50; i++) {
		DIR *d = opendir("/sys/class/infiniband");

		NEED(d && readdir(d));
		closedir(d);
		NEED(access(at("ports/1/state"), R_OK) == 0);
	}
	return arg;
}

/* open() is where a thread may be cancelled: whatever it held, the others can still look. */
static void *looks_for_ever(void *arg)
{
	for (;;) {
		int fd = open(arg, O_RDONLY);

		NEED(fd >= 0);
		close(fd);
	}
	return NULL;
}

static void cancelled(void)
{
	char path[PATH_MAX + 520];
	pthread_t thread;

	snprintf(path, sizeof(path), "%s", at("ports/1/counters/port_xmit_data"));
	for (int i = 0; i < 20; i++) {
		NEED(pthread_create(&thread, NULL, looks_for_ever, path) == 0);
		usleep(1000 + (unsigned)i * 200);
		NEED(pthread_cancel(thread) == 0 && pthread_join(thread, NULL) == 0);
		NEED(access(path, R_OK) == 0);
	}
}

static void everywhere(void)
{
	pthread_t thread[4];
	int status;
	pid_t pid;

	for (int i = 0; i < 4; i++)
		NEED(pthread_create(&thread[i], NULL, in_a_thread, NULL) == 0);
	for (int i = 0; i < 4; i++)
		NEED(pthread_join(thread[i], NULL) == 0);
	pid = fork();
	if (pid == 0) {
		NEED(strcmp(text_of(open(at("node_type"), O_RDONLY)), "1: CA\n") == 0);
		_exit(0);
	}
	NEED(waitpid(pid, &status, 0) == pid && status == 0);
}

static bool early;
__attribute__((constructor)) static void look_early(void)
{
	early = access("/sys/class/infiniband/flexins0/node_guid", R_OK) == 0;
}

int main(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_device *device = list ? list[0] : NULL;
	struct ibv_context *ctx;

	NEED(device && early);
	snprintf(sysfs, sizeof(sysfs), "%s", device->ibdev_path);
	/* without a context, then with one */
	by_every_way_of_opening();
	by_every_way_of_asking(device);
	by_listing(device);
	everywhere();
	cancelled();
	ctx = ibv_open_device(device);
	NEED(ctx);
	by_every_way_of_opening();
	by_every_way_of_asking(device);
	by_listing(device);
	against_verbs(ctx);
	everywhere();
	cancelled();
	ibv_close_device(ctx);
	ibv_free_device_list(list);
	puts("passed");
	return 0;
}
