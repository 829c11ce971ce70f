/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flexins-run: runs a program over a FlexiNS core, unchanged.
 *
 * Room: tools. May use: libc, starter.h, reach.h. It sees to it that there is a core, sets LD_PRELOAD and FLEXINS_* and
 * executes the program in its own place; what the program then says about the device comes from the preloaded library.
 */
#include <fcntl.h>
#include <getopt.h>

#include "greet.h"
#include "reach.h"
#include "starter.h"

#ifndef FLEXINS_LIBDIR
#define FLEXINS_LIBDIR "/usr/local/lib"
#endif

/* Exit statuses of a wrapper, as env(1) has them. */
enum { EXIT_OURS = 125, EXIT_NOT_RUN = 126, EXIT_NOT_FOUND = 127 };

struct options {
	struct fx_start start;
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

static bool find_preload(char *path, size_t size)
{
	char dir[PATH_MAX];

	fx_own_bindir(dir, sizeof(dir));
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

/* Ours first, then what was there; once, also when flexins-run runs flexins-run. */
static int set_preload(const char *library)
{
	const char *old = getenv("LD_PRELOAD");
	size_t len = strlen(library);
	char *value;
	int ok;

	if (strpbrk(library, " :")) {
		fx_say("%s: a path with spaces or colons cannot be preloaded; install FlexiNS elsewhere",
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
		fx_say("%s %s: no preloaded library can reach it, so it would not see flexins0", path, why);
		if (o->strict)
			return -1;
	}
	if (!find_preload(library, sizeof(library))) {
		fx_say("libflexins-preload.so is neither in the build tree beside flexins-run nor in %s",
		       FLEXINS_LIBDIR);
		return -1;
	}
	if (fx_start(&o->start) < 0) {
		if (o->strict)
			return -1;
		fx_say("going on without flexins0 (--strict would stop here)");
	}
	if (set_preload(library) < 0)
		return -1;
	unsetenv("FLEXINS_SOCKET"); /* it would win */
	setenv("FLEXINS_CORE", o->start.core, 1);
	setenv("FLEXINS_BANNER", "1", 1);
	if (o->strict)
		setenv("FLEXINS_STRICT", "1", 1);
	return 0;
}

/* An option of flexinsd that is passed on; the last one counts. */
static void set_place(struct options *o, const char *option, const char *value)
{
	const char **p = o->start.place_args;

	while (*p && strcmp(*p, option) != 0)
		p += 2;
	p[0] = option;
	p[1] = value;
}

/* -> an exit status, or -1 to go on */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option list[] = {
		{"core", required_argument, NULL, 'c'},	     {"core-args", required_argument, NULL, 'a'},
		{"placement", required_argument, NULL, 'p'}, {"bus", required_argument, NULL, 'b'},
		{"strict", no_argument, NULL, 's'},	     {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},	     {NULL, 0, NULL, 0},
	};
	char *words, *scratch[FX_CORE_ARGS];
	int c, n;

	while ((c = getopt_long(argc, argv, "+h", list, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->start.core = optarg;
			break;
		case 'a':
			o->start.core_args = optarg;
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
	words = strdup(o->start.core_args);
	n = words ? fx_split_args(words, scratch, FX_CORE_ARGS) : -1;
	free(words);
	if (n < 0)
		fx_say("--core-args: an open quote, or more than %d words", FX_CORE_ARGS);
	else if (!fx_name_ok(o->start.core))
		fx_say("--core %s: a core's name has letters, digits and - _ . and at most %d of them",
		       o->start.core, FX_VERSION_LEN - 1);
	else if (!o->command[0])
		fx_say("what shall it run? flexins-run --help tells");
	else
		return -1;
	return EXIT_OURS;
}

int main(int argc, char **argv)
{
	struct options o = {.start = {.core = "default", .core_args = ""}};
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
	fx_say("cannot run %s: %s", o.command[0], strerror(errno));
	return status;
}
