/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The shim's path functions, where there is no device: every one does what libc's does, the odd corners of their
 * interfaces included.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

int __open_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __xstat(int version, const char *path, struct stat *st);

static char dir[PATH_MAX], file[PATH_MAX + 8];

static int setup(void **state)
{
	(void)state;
	setenv("FLEXINS_CORE", "no-such-core", 1);
	snprintf(dir, sizeof(dir), "%s/fxpathsXXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/file", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(dir);
}

static void ours_come_first(void **state)
{
	static const char *const names[] = {"open",  "open64",	  "openat",   "fopen",
					    "stat",  "__xstat64", "readdir",  "read",
					    "statx", "realpath",  "scandir64"};
	Dl_info info;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_true(dladdr(dlsym(RTLD_DEFAULT, names[i]), &info));
		if (!strstr(info.dli_fname, "libflexins-preload"))
			fail_msg("%s is %s's", names[i], info.dli_fname);
	}
}

/* A mode that was not passed on would be whatever is in a register. */
static void modes_of_new_files(void **state)
{
	static const mode_t modes[] = {0600, 0640, 0444, 04755};
	struct stat st;
	int fd;

	(void)state;
	umask(0);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		fd = open(file, O_CREAT | O_EXCL | O_RDWR, modes[i]);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i]);
		close(fd);
		unlink(file);
		fd = openat(AT_FDCWD, file, O_CREAT | O_EXCL | O_RDWR, modes[i]);
		assert_int_equal(stat(file, &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i]);
		close(fd);
		unlink(file);
		fd = open(dir, O_TMPFILE | O_RDWR, modes[i]);
		if (fd < 0)
			continue; /* not every file system has them */
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i]);
		close(fd);
	}
}

static void descriptors_are_relative_to(void **state)
{
	int base = open(dir, O_RDONLY | O_DIRECTORY), fd;
	struct stat st;

	(void)state;
	assert_true(base >= 0);
	fd = openat(base, "file", O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "hello", 5), 5);
	close(fd);
	assert_int_equal(fstatat(base, "file", &st, 0), 0);
	assert_int_equal(st.st_size, 5);
	assert_int_equal(fstatat(base, "", &st, AT_EMPTY_PATH), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(faccessat(base, "file", R_OK, 0), 0);
	fd = __openat_2(base, "file", O_RDONLY);
	assert_true(fd >= 0);
	close(fd);
	close(base);
}

static void offsets(void **state)
{
	char buf[8] = "";
	int fd;

	(void)state;
	fd = __open_2(file, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, 3, 1), 3);
	assert_memory_equal(buf, "ell", 3);
	assert_int_equal(lseek(fd, 0, SEEK_END), 5);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(pread(fd, buf, 8, 0), 5);
	close(fd);
	errno = 0;
	assert_int_equal(lseek(fd, 0, SEEK_SET), -1);
	assert_int_equal(errno, EBADF);
}

#define FAILS(call, err)                                                                                     \
	({                                                                                                   \
		errno = 0;                                                                                   \
		assert_true((long)(call) == -1 || (long)(call) == 0);                                        \
		assert_int_equal(errno, err);                                                                \
	})

static void errors_are_the_kernels(void **state)
{
	const char *volatile nowhere = "/sys/class/infiniband/flexins0/fw_ver", *volatile null = NULL;
	struct stat st;
	char buf[PATH_MAX];

	(void)state;
	FAILS(open(nowhere, O_RDONLY), ENOENT);
	FAILS(fopen(nowhere, "r"), ENOENT);
	FAILS(stat(nowhere, &st), ENOENT);
	FAILS(lstat("/dev/infiniband/uverbs977", &st), ENOENT);
	FAILS(access(nowhere, F_OK), ENOENT);
	FAILS(readlink(nowhere, buf, sizeof(buf)), ENOENT);
	FAILS(realpath(nowhere, buf), ENOENT);
	FAILS(opendir("/sys/class/infiniband/flexins0"), ENOENT);
	FAILS(opendir(file), ENOTDIR);
	FAILS(open(null, O_RDONLY), EFAULT);
	FAILS(stat(null, &st), EFAULT);
	FAILS(access(null, F_OK), EFAULT);
	FAILS(open("", O_RDONLY), ENOENT);
	assert_int_equal(errno = 77, 77);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(errno, 77); /* nobody looked for a device */
}

/* What programs of an older libc call. */
static void the_old_names(void **state)
{
#ifdef __x86_64__
	const int version = 1;
#else
	const int version = 0;
#endif
	struct stat st;

	(void)state;
	assert_int_equal(__xstat(version, file, &st), 0);
	assert_int_equal(st.st_size, 5);
}

static int only_files(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static void directories(void **state)
{
	struct dirent **names, *e;
	unsigned seen = 0;
	long start;
	DIR *d;

	(void)state;
	d = opendir(dir);
	assert_non_null(d);
	assert_true(dirfd(d) >= 0);
	start = telldir(d);
	while ((e = readdir(d)))
		seen += strcmp(e->d_name, "file") == 0;
	seekdir(d, start);
	while ((e = readdir(d)))
		seen += strcmp(e->d_name, "file") == 0;
	rewinddir(d);
	while ((e = readdir(d)))
		seen += strcmp(e->d_name, "file") == 0;
	assert_int_equal(seen, 3);
	assert_int_equal(closedir(d), 0);
	assert_int_equal(scandir(dir, &names, only_files, alphasort), 1);
	assert_string_equal(names[0]->d_name, "file");
	free(names[0]);
	free(names);
}

/* open() of a pipe that nobody writes to is where a thread may be cancelled. */
static void *opens(void *arg)
{
	int fd = open(arg, O_RDONLY);

	close(fd);
	return NULL;
}

static void opening_can_be_cancelled(void **state)
{
	pthread_t thread;
	void *result;

	(void)state;
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_int_equal(pthread_create(&thread, NULL, opens, file), 0);
	usleep(50000);
	assert_int_equal(pthread_cancel(thread), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, PTHREAD_CANCELED);
}

static void in_a_forked_child(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		int fd = open("/dev/null", O_RDONLY);

		_exit(fd < 0 || access("/dev/infiniband/flexins0", F_OK) == 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ours_come_first),
		cmocka_unit_test(modes_of_new_files),
		cmocka_unit_test(descriptors_are_relative_to),
		cmocka_unit_test(offsets),
		cmocka_unit_test(errors_are_the_kernels),
		cmocka_unit_test(the_old_names),
		cmocka_unit_test(directories),
		cmocka_unit_test(opening_can_be_cancelled),
		cmocka_unit_test(in_a_forked_child),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
