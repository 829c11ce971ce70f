/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flexins-run: runs a program over a FlexiNS core, unchanged, and starts the core when there is none.
 *
 * Room: tools. May use: libc, control/protocol.h, host/ticket.h. It greets the core as flexinsctl does, sets LD_PRELOAD and
 * FLEXINS_* and executes the program in its own place; what the program then says about the device comes from
 * the preloaded library. The core it starts is nobody's child and outlives it for as long as it has clients.
 */
#include <ctype.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "greet.h"
#include "host/ticket.h"
#include "reach.h"

#ifndef FLEXINS_LIBDIR
#define FLEXINS_LIBDIR "/usr/local/lib"
#endif
#ifndef FLEXINS_SBINDIR
#define FLEXINS_SBINDIR "/usr/local/sbin"
#endif

/* Exit statuses of a wrapper, as env(1) has them. */
enum { EXIT_OURS = 125, EXIT_NOT_RUN = 126, EXIT_NOT_FOUND = 127 };

enum {
	READY_MS = 10000, /* a core starts within a second; a machine may be busy */
	FIXED_ARGS = 7,
	PLACE_ARGS = 4, /* --placement and --bus, with a word each */
	CORE_ARGS = 64,
	BUSY_TRIES = 50, /* a core whose queue of new connections is full */
};

#define LINGER_S "5" /* how long a core of ours outlives its last client */

struct options {
	const char *core;
	const char *place_args[PLACE_ARGS + 1]; /* ends with NULL */
	const char *core_args;
	bool strict;
	char **command;
};

static const char usage_text[] =
	"Usage: flexins-run [OPTIONS] [--] COMMAND [ARGS]\n"
	"Runs COMMAND, unchanged, with the RDMA device flexins0.\n"
	"\n"
	"  --core NAME         the core to use (default: default); started when there is none\n"
	"  --placement WHERE   of a core that is started: local, or emulated: shares no memory with COMMAND\n"
	"  --bus SPEC          between the two, in the emulated placement (see flexinsd(8))\n"
	"  --core-args \"ARGS\"  with what other options flexinsd is started, if it is (see flexinsd(8))\n"
	"  --strict            fail where COMMAND would otherwise run without the device\n"
	"  --help, --version\n"
	"\n"
	"A core that flexins-run started ends by itself some seconds after its last client.\n"
	"Exit status: COMMAND's; 125 when flexins-run fails, 126 or 127 when COMMAND cannot be run.\n";

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	va_list ap;

	fputs("flexins-run: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* The directory of this binary. */
static void own_bindir(char *dir, size_t size)
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

	own_bindir(dir, sizeof(dir));
	if (fx_text(path, size, "%s/flexinsd", dir) && access(path, X_OK) == 0)
		return true;
	if (fx_text(path, size, "%s/../sbin/flexinsd", dir) && access(path, X_OK) == 0)
		return true;
	fx_text(path, size, "%s/flexinsd", FLEXINS_SBINDIR);
	return access(path, X_OK) == 0 || fx_which("flexinsd", path, size);
}

static bool find_preload(char *path, size_t size)
{
	char dir[PATH_MAX];

	own_bindir(dir, sizeof(dir));
	if (fx_text(path, size, "%s/../shim/libflexins-preload.so", dir) && access(path, R_OK) == 0) {
		char *real = realpath(path, NULL);

		if (real)
			fx_text(path, size, "%s", real);
		free(real);
		return true;
	}
	fx_text(path, size, "%s/libflexins-preload.so", FLEXINS_LIBDIR);
	return access(path, R_OK) == 0;
}

/* Makes the directory where own cores have their sockets; it must be ours alone to write in. */
static int make_own_dir(char *dir, size_t size)
{
	struct stat st;

	if (!fx_own_dir(dir, size))
		return -1;
	if (mkdir(dir, geteuid() == 0 ? 0755 : 0700) < 0 && errno != EEXIST) {
		say("cannot make %s: %s", dir, strerror(errno));
		return -1;
	}
	if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
		say("%s is not a directory that only this user can write: remove it, or set XDG_RUNTIME_DIR",
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

/* Splits as a shell would, with "..", '..' and backslashes, in place; -1: too many words or an open quote. */
static int split_args(char *text, char **argv, int max)
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
_Noreturn static void become_core(const char *binary, const struct options *o, char *args, int ready, int log)
{
	const char *fixed[] = {binary, "--name", o->core, "--linger", LINGER_S, "--ready-fd", "3"};
	char *argv[FIXED_ARGS + PLACE_ARGS + CORE_ARGS + 1];
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
	more = split_args(args, argv + n, CORE_ARGS);
	argv[n + (more > 0 ? more : 0)] = NULL;
	unsetenv("LD_PRELOAD"); /* the application's, not the core's */
	if (chdir("/") == 0)
		execv(binary, argv);
	dprintf(2, "cannot run %s: %s\n", binary, strerror(errno));
	_exit(EXIT_NOT_RUN);
}

/* -> its process id: a grandchild, so that COMMAND will not find a child that it never had. */
static pid_t spawn_core(const char *binary, const struct options *o, char *args, int ready, int log)
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

static int start_core(const struct options *o)
{
	char binary[PATH_MAX], *args = strdup(o->core_args);
	int ready[2], err, log = memfd_create("flexinsd.log", MFD_CLOEXEC);
	pid_t core;

	if (!find_core_binary(binary, sizeof(binary))) {
		say("there is no core called %s, and no flexinsd to start one with: it is neither beside "
		    "flexins-run nor in %s nor on the PATH",
		    o->core, FLEXINS_SBINDIR);
		return -1;
	}
	if (!args || log < 0 || fcntl(log, F_SETFL, O_APPEND) < 0 || pipe2(ready, O_CLOEXEC) < 0) {
		say("cannot start a core: %s", strerror(errno));
		return -1;
	}
	core = spawn_core(binary, o, args, ready[1], log);
	close(ready[1]);
	err = core > 0 ? wait_ready(ready[0]) : -errno;
	if (err) {
		say("the core %s did not start%s. It said:", o->core,
		    err == -ETIMEDOUT ? " within 10 seconds" : "");
		show_log(log);
		say("try it alone: %s --name %s %s", binary, o->core, o->core_args);
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
		uint64_t size;
		int fd;

		fx_text(path, sizeof(path), "%s/%s.tcp", dir, name);
		if (fx_ticket_read(path, false, &t) < 0)
			continue;
		fd = fx_ticket_connect(&t, FX_GREET_MS);
		answers = fd >= 0 && fx_ticket_show(fd, &t, &size, &why) == 0;
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
		say("cannot connect to %s: %s", info.sock, strerror(-fd));
		return -1;
	}
	err = fx_greet(fd, "flexins-run", &info);
	close(fd);
	if (err == 0)
		return 1;
	if (err == -ECONNRESET || err == -EPIPE)
		return 0; /* it was just ending */
	if (info.why[0])
		say("the core %s at %s refused: %s", name, info.sock, info.why);
	else
		say("the core %s at %s does not answer: %s", name, info.sock, strerror(-err));
	return -1;
}

/* 0: there is a core called so, perhaps only since now. */
static int ensure_core(const struct options *o)
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
		say("cannot lock %s: %s", lock, strerror(errno));
		return -1;
	}
	there = core_answers(o->core); /* another one may have started it meanwhile */
	if (there == 0)
		there = start_core(o) == 0 ? 1 : -1;
	drop_lock(fd, lock);
	return there > 0 ? 0 : -1;
}

/* Ours first, then what was there; once, also when flexins-run runs flexins-run. */
static int set_preload(const char *library)
{
	const char *old = getenv("LD_PRELOAD");
	size_t len = strlen(library);
	char *value;
	int ok;

	if (strpbrk(library, " :")) {
		say("%s: a path with spaces or colons cannot be preloaded; install FlexiNS elsewhere",
		    library);
		return -1;
	}
	if (!old || !*old)
		return setenv("LD_PRELOAD", library, 1);
	if (strncmp(old, library, len) == 0 && (!old[len] || strchr(" :", old[len])))
		return 0;
	if (asprintf(&value, "%s:%s", library, old) < 0)
		return -1;
	ok = setenv("LD_PRELOAD", value, 1);
	free(value);
	return ok;
}

static int prepare(const struct options *o)
{
	char library[PATH_MAX], path[PATH_MAX];
	const char *why;

	if (!fx_which(o->command[0], path, sizeof(path)))
		return 0; /* executing it will fail and say so */
	why = fx_unreachable(o->command[0], path, sizeof(path));
	if (why) {
		say("%s %s: no preloaded library can reach it, so it would not see flexins0", path, why);
		if (o->strict)
			return -1;
	}
	if (!find_preload(library, sizeof(library))) {
		say("libflexins-preload.so is neither in the build tree beside flexins-run nor in %s",
		    FLEXINS_LIBDIR);
		return -1;
	}
	if (ensure_core(o) < 0) {
		if (o->strict)
			return -1;
		say("going on without flexins0 (--strict would stop here)");
	}
	if (set_preload(library) < 0)
		return -1;
	unsetenv("FLEXINS_SOCKET"); /* it would win */
	setenv("FLEXINS_CORE", o->core, 1);
	setenv("FLEXINS_BANNER", "1", 1);
	if (o->strict)
		setenv("FLEXINS_STRICT", "1", 1);
	return 0;
}

/* An option of flexinsd that is passed on; the last one counts. */
static void set_place(struct options *o, const char *option, const char *value)
{
	const char **p = o->place_args;

	while (*p && strcmp(*p, option) != 0)
		p += 2;
	p[0] = option;
	p[1] = value;
}

/* -> an exit status, or -1 to go on */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option list[] = {
		{"core", required_argument, NULL, 'c'}, {"core-args", required_argument, NULL, 'a'},
		{"placement", required_argument, NULL, 'p'}, {"bus", required_argument, NULL, 'b'},
		{"strict", no_argument, NULL, 's'},	{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},	{NULL, 0, NULL, 0},
	};
	char *words, *scratch[CORE_ARGS];
	int c, n;

	while ((c = getopt_long(argc, argv, "+h", list, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->core = optarg;
			break;
		case 'a':
			o->core_args = optarg;
			break;
		case 'p':
			set_place(o, "--placement", optarg);
			break;
		case 'b':
			set_place(o, "--bus", optarg);
			break;
		case 's':
			o->strict = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		case 'v':
			puts("flexins-run " FLEXINS_VERSION);
			return 0;
		default:
			fputs("Try: flexins-run --help\n", stderr);
			return EXIT_OURS;
		}
	}
	o->command = argv + optind;
	words = strdup(o->core_args);
	n = words ? split_args(words, scratch, CORE_ARGS) : -1;
	free(words);
	if (n < 0)
		say("--core-args: an open quote, or more than %d words", CORE_ARGS);
	else if (!fx_name_ok(o->core))
		say("--core %s: a core's name has letters, digits and - _ . and at most %d of them", o->core,
		    FX_VERSION_LEN - 1);
	else if (!o->command[0])
		say("what shall it run? flexins-run --help tells");
	else
		return -1;
	return EXIT_OURS;
}

int main(int argc, char **argv)
{
	struct options o = {.core = "default", .core_args = ""};
	int status = parse(argc, argv, &o), fd;

	if (status >= 0)
		return status;
	do /* nothing of ours gets a standard stream's number */
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= 2);
	close(fd);
	if (prepare(&o) < 0)
		return EXIT_OURS;
	execvp(o.command[0], o.command);
	status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUN;
	say("cannot run %s: %s", o.command[0], strerror(errno));
	return status;
}
