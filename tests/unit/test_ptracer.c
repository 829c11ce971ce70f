/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whom a program lets look into its memory when it connects: an ordinary user's own core, where Yama wants it. The
 * kernel's answers are this file's own: the functions here stand in front of libc's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/host.h"

static uid_t core_uid, our_uid;
static bool yama;
static unsigned long tracer; /* who may */

uid_t geteuid(void)
{
	return our_uid;
}

int access(const char *path, int mode)
{
	(void)path;
	(void)mode;
	return yama ? 0 : -1;
}

int prctl(int option, ...)
{
	va_list args;

	va_start(args, option);
	if (option == PR_SET_PTRACER)
		tracer = va_arg(args, unsigned long);
	va_end(args);
	return 0;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	struct ucred cred = {.pid = 4711, .uid = core_uid};

	(void)fd;
	assert_true(level == SOL_SOCKET && name == SO_PEERCRED && *len == sizeof(cred));
	memcpy(value, &cred, sizeof(cred));
	return 0;
}

/* -> whom a connection lets in, made under these circumstances; the core hangs up at once */
static unsigned long lets_in(uid_t core, uid_t us, bool with_yama)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct fx_hello_rep rep;
	struct fx_conn conn;
	struct fx_fds fds;

	core_uid = core;
	our_uid = us;
	yama = with_yama;
	tracer = 0;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "/tmp/ptracer.%d", getpid());
	setenv("FLEXINS_SOCKET", sun.sun_path, 1);
	assert_true(!bind(fd, (struct sockaddr *)&sun, sizeof(sun)) && !listen(fd, 1));
	if (!fork()) {
		close(accept(fd, NULL, NULL));
		_exit(0);
	}
	assert_true(fx_conn_open(&conn, &rep, &fds) < 0);
	close(fd);
	unlink(sun.sun_path);
	return tracer;
}

static void only_who_needs_it(void **state)
{
	(void)state;
	assert_int_equal(lets_in(1000, 1000, true), 4711);
	assert_int_equal(lets_in(1000, 1000, false), 0);
	assert_int_equal(lets_in(0, 1000, true), 0);
	assert_int_equal(lets_in(0, 0, true), 0);
	assert_int_equal(lets_in(1001, 1000, true), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(only_who_needs_it)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
