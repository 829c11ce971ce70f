/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bringing a core up, if there is none of that name.
 *
 * Room: tools. May use: libc, control/protocol.h, host/ticket.h. It asks as flexinsctl does whether a core is there; one
 * user starts one at a time. The core that is started is nobody's child and outlives its starter for as long as it has
 * clients.
 */
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "greet.h"
#include "host/ticket.h"
#include "reach.h"
#include "starter.h"

#ifndef FLEXINS_SBINDIR
#define FLEXINS_SBINDIR "/usr/local/sbin"
#endif

enum {
	READY_MS = 10000, /* a core starts within a second; a machine may be busy */
	FIXED_ARGS = 7,
	BUSY_TRIES = 50, /* a core whose queue of new connections is full */
};

#define LINGER_S "5" /* how long a core of ours outlives its last client */

void fx_say(const char *fmt, ...)
{
	va_list ap;

	fputs("flexins-run: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void fx_own_bindir(char *dir, size_t size)
{
	ssize_t len = readlink("/proc/self/exe", dir, size - 1);
	char *slash;

	dir[len > 0 ? len : 0] = '\0';
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
}

/* The first that exists: beside this binary, installed with it, on the PATH. */
static bool find_core_binary(char *path, size_t size)
{
	char dir[PATH_MAX];

	fx_own_bindir(dir, sizeof(dir));
	if (fx_text(path, size, "%s/flexinsd", dir) && access(path, X_OK) == 0)
		return true;
	if (fx_text(path, size, "%s/../sbin/flexinsd", dir) && access(path, X_OK) == 0)
		return true;
	fx_text(path, size, "%s/flexinsd", FLEXINS_SBINDIR);
	return access(path, X_OK) == 0 || fx_which("flexinsd", path, size);
}

/* Makes the directory where own cores have their sockets; it must be ours alone to write in. */
static int make_own_dir(char *dir, size_t size)
{
	struct stat st;

	if (!fx_own_dir(dir, size))
		return -1;
	if (mkdir(dir, geteuid() == 0 ? 0755 : 0700) < 0 && errno != EEXIST) {
		fx_say("cannot make %s: %s", dir, strerror(errno));
		return -1;
	}
	if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
		fx_say("%s is not a directory that only this user can write: remove it, or set XDG_RUNTIME_DIR",
		       dir);
		return -1;
	}
	return 0;
}

/*
 * One starter at a time. The lock file goes away with its holder, so a lock that was waited for may be on a
 * file that no longer has a name: then try again.
 */
static int take_lock(const char *path)
{
	for (;;) {
		struct stat mine, named;
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

		if (fd < 0)
			return -1;
		while (flock(fd, LOCK_EX) < 0) {
			if (errno == EINTR)
				continue;
			close(fd);
			return -1;
		}
		if (fstat(fd, &mine) == 0 && stat(path, &named) == 0 && mine.st_ino == named.st_ino &&
		    mine.st_dev == named.st_dev)
			return fd;
		close(fd);
	}
}

static void drop_lock(int fd, const char *path)
{
	unlink(path);
	close(fd);
}

int fx_split_args(char *text, char **argv, int max)
{
	char *out = text;
	int argc = 0;

	for (char *p = text;;) {
		char quote = 0;

		while (isspace((unsigned char)*p))
			p++;
		if (!*p)
			return argc;
		if (argc == max)
			return -1;
		argv[argc++] = out;
		for (; *p && (quote || !isspace((unsigned char)*p)); p++) {
			if (quote ? *p == quote : (*p == '"' || *p == '\''))
				quote = quote ? 0 : *p;
			else if (*p == '\\' && quote != '\'' && p[1])
				*out++ = *++p;
			else
				*out++ = *p;
		}
		if (quote)
			return -1;
		p += *p != '\0';
		*out++ = '\0';
	}
}

/* In the child: becomes the core. What it says until it is ready goes to `log`. */
_Noreturn static void become_core(const char *binary, const struct fx_start *o, char *args, int ready,
				  int log)
{
	const char *fixed[] = {binary, "--name", o->core, "--linger", LINGER_S, "--ready-fd", "3"};
	char *argv[FIXED_ARGS + FX_PLACE_ARGS + FX_CORE_ARGS + 1];
	int null = open("/dev/null", O_RDWR), n = FIXED_ARGS, more;
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	ready = fcntl(ready, F_DUPFD, 10); /* it may be number 3 already, to be closed on execution */
	dup2(null, 0);
	dup2(null, 1);
	dup2(log, 2);
	dup2(ready, 3);
	close_range(4, ~0u, 0);
	memcpy(argv, fixed, sizeof(fixed)); /* execv() takes them without const, and changes nothing */
	memcpy(argv + n, o->place_args, sizeof(o->place_args));
	while (argv[n])
		n++;
	more = fx_split_args(args, argv + n, FX_CORE_ARGS);
	argv[n + (more > 0 ? more : 0)] = NULL;
	unsetenv("LD_PRELOAD"); /* the application's, not the core's */
	if (chdir("/") == 0)
		execv(binary, argv);
	dprintf(2, "cannot run %s: %s\n", binary, strerror(errno));
	_exit(EXIT_FAILURE);
}

/* -> its process id: a grandchild, so that COMMAND will not find a child that it never had. */
static pid_t spawn_core(const char *binary, const struct fx_start *o, char *args, int ready, int log)
{
	int report[2];
	pid_t child, core = -1;

	if (pipe2(report, O_CLOEXEC) < 0)
		return -1;
	child = fork();
	if (child == 0) {
		setsid();
		core = fork();
		if (core == 0)
			become_core(binary, o, args, ready, log);
		_exit(write(report[1], &core, sizeof(core)) != (ssize_t)sizeof(core));
	}
	close(report[1]);
	if (child > 0) {
		if (read(report[0], &core, sizeof(core)) != (ssize_t)sizeof(core))
			core = -1;
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close(report[0]);
	return core;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 0: the core said that it is ready; -EPIPE: it ended before that; -ETIMEDOUT. */
static int wait_ready(int fd)
{
	int64_t end = now_ms() + READY_MS;

	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		int64_t left = end - now_ms();
		ssize_t got;
		char byte;

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, (int)left) <= 0)
			continue;
		got = read(fd, &byte, 1);
		if (got >= 0)
			return got == 1 ? 0 : -EPIPE;
		if (errno != EINTR)
			return -errno;
	}
}

/* What the core wrote to stderr, indented. */
static void show_log(int log)
{
	char buf[4096];
	off_t at = 0;
	ssize_t got;
	bool start = true;

	while ((got = pread(log, buf, sizeof(buf), at)) > 0) {
		for (ssize_t i = 0; i < got; i++) {
			if (start)
				fputs("  ", stderr);
			fputc(buf[i], stderr);
			start = buf[i] == '\n';
		}
		at += got;
	}
	if (!start)
		fputc('\n', stderr);
}

static int start_core(const struct fx_start *o)
{
	char binary[PATH_MAX], *args = strdup(o->core_args);
	int ready[2], err, log = memfd_create("flexinsd.log", MFD_CLOEXEC);
	pid_t core;

	if (!find_core_binary(binary, sizeof(binary))) {
		fx_say("there is no core called %s, and no flexinsd to start one with: it is neither beside "
		       "flexins-run nor in %s nor on the PATH",
		       o->core, FLEXINS_SBINDIR);
		return -1;
	}
	if (!args || log < 0 || fcntl(log, F_SETFL, O_APPEND) < 0 || pipe2(ready, O_CLOEXEC) < 0) {
		fx_say("cannot start a core: %s", strerror(errno));
		return -1;
	}
	core = spawn_core(binary, o, args, ready[1], log);
	close(ready[1]);
	err = core > 0 ? wait_ready(ready[0]) : -errno;
	if (err) {
		fx_say("the core %s did not start%s. It said:", o->core,
		       err == -ETIMEDOUT ? " within 10 seconds" : "");
		show_log(log);
		fx_say("try it alone: %s --name %s %s", binary, o->core, o->core_args);
		if (core > 0 && err == -ETIMEDOUT)
			kill(core, SIGKILL);
	}
	close(ready[0]);
	close(log);
	free(args);
	return err ? -1 : 0;
}

/* Does a core answer whoever shows its ticket? It may have no socket, or one that we may not use. */
static bool ticket_answers(const char *name)
{
	char dir[PATH_MAX], path[PATH_MAX + FX_VERSION_LEN + 8];
	bool answers = false;

	for (unsigned i = 0; !answers && fx_dir(i, dir, sizeof(dir)); i++) {
		struct fx_msg_why why;
		struct fx_ticket t;
		struct fx_auth_rep rep;
		int fd;

		fx_text(path, sizeof(path), "%s/%s.tcp", dir, name);
		if (fx_ticket_read(path, false, &t) < 0)
			continue;
		fd = fx_ticket_connect(&t, FX_GREET_MS);
		answers = fd >= 0 && fx_ticket_show(fd, &t, &rep, &why) == 0;
		if (fd >= 0)
			close(fd);
	}
	return answers;
}

/* 1: a core answers; 0: there is none; -1: there is one, and it will not do. */
static int core_answers(const char *name)
{
	struct fx_core_info info = {0};
	int fd, err, tries = 0;

	do {
		fd = fx_connect(name, &info);
	} while (fd == -EAGAIN && tries++ < BUSY_TRIES && usleep(20000) == 0);
	if (fx_nobody(fd) || (fd == -EACCES && geteuid() != 0))
		return ticket_answers(name);
	if (fd < 0) {
		fx_say("cannot connect to %s: %s", info.sock, strerror(-fd));
		return -1;
	}
	err = fx_greet(fd, "flexins-run", &info);
	close(fd);
	if (err == 0)
		return 1;
	if (err == -ECONNRESET || err == -EPIPE)
		return 0; /* it was just ending */
	if (info.why[0])
		fx_say("the core %s at %s refused: %s", name, info.sock, info.why);
	else
		fx_say("the core %s at %s does not answer: %s", name, info.sock, strerror(-err));
	return -1;
}

int fx_start(const struct fx_start *o)
{
	char dir[PATH_MAX], lock[PATH_MAX + FX_VERSION_LEN + 8];
	int fd, there = core_answers(o->core);

	if (there)
		return there > 0 ? 0 : -1;
	if (make_own_dir(dir, sizeof(dir)) < 0)
		return -1;
	fx_text(lock, sizeof(lock), "%s/%s.start", dir, o->core);
	fd = take_lock(lock);
	if (fd < 0) {
		fx_say("cannot lock %s: %s", lock, strerror(errno));
		return -1;
	}
	there = core_answers(o->core); /* another one may have started it meanwhile */
	if (there == 0)
		there = start_core(o) == 0 ? 1 : -1;
	drop_lock(fd, lock);
	return there > 0 ? 0 : -1;
}
