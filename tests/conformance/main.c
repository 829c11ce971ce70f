/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs rows, each in a process of its own with a time limit: see usage().
 *
 * Room: tests. May use: verbs and libc.
 */
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "report.h"
#include "sections.h"

enum { ROW_SECONDS = 30, MAX_ROWS = 1000, MAX_ONLY = 64 };

struct options options = {.port = 1};

static const char *only[MAX_ONLY];
static size_t nonly;
static struct outcome *shared; /* of the row that runs: its process writes, we read */

static void usage(FILE *out)
{
	fputs("Usage: conformance [OPTION]...\n"
	      "Checks an RDMA device against what the verbs manual promises of connections and datagrams.\n"
	      "\n"
	      "  --device NAME          the device (default: the first there is)\n"
	      "  --port N, --gid N      its port and GID index (default: 1 and 0)\n"
	      "  --only SECTION[/ROW]   these rows only; may be given several times\n"
	      "  --list                 name the rows and run none\n"
	      "  --json                 print JSON instead of a table\n"
	      "  --markdown FILE        write the sections of docs/conformance.md as well\n"
	      "  --errors-markdown      print docs/errors.md and run nothing\n"
	      "  --self-test            try the program itself, on rows that fail, crash and hang\n"
	      "  --expected FILE        SECTION/ROW, a tab and a reason, one a line: rows that fail as yet, and must\n"
	      "  --daemon PROGRAM       for section process: a program that brings a device, called with --name NAME,\n"
	      "                         which $FLEXINS_CORE then selects; the rows kill it\n"
	      "\n"
	      "The exit status is 0 if every row passed, was skipped, or failed as expected; 1 if not; 2 for errors.\n",
	      out);
}

/* ---- in the row's process ---- */

static _Noreturn void row_ends(enum result result)
{
	shared->result = result;
	if (result == ROW_PASS)
		shared->why[0] = '\0';
	_exit(0);
}

void row_failed(const char *file, int line, const char *format, ...)
{
	const char *base = strrchr(file, '/');
	va_list args;
	int n = snprintf(shared->why, sizeof(shared->why), "%s:%d: ", base ? base + 1 : file, line);

	va_start(args, format);
	vsnprintf(shared->why + n, sizeof(shared->why) - (size_t)n, format, args);
	va_end(args);
	row_ends(ROW_FAIL);
}

void row_skipped(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(shared->why, sizeof(shared->why), format, args);
	va_end(args);
	row_ends(ROW_SKIP);
}

void row_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(shared->note, sizeof(shared->note), format, args);
	va_end(args);
}

/* ---- around it ---- */

/* Its status, or -1 if it had to be killed. */
static int wait_row(pid_t pid, unsigned seconds)
{
	struct timespec left = {.tv_sec = seconds};
	int status = -1;
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	/* a signal that is left over from the row before costs one turn of the full limit, and no more */
	for (int turn = 0; turn < 2; turn++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		sigtimedwait(&child, NULL, &left);
	}
	if (waitpid(pid, &status, WNOHANG) == pid)
		return status;
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

static struct outcome run_row(const struct section *s, const struct row *row)
{
	unsigned limit = row->seconds ? row->seconds : ROW_SECONDS;
	uint64_t start = now_ms();
	int status;
	pid_t pid;

	*shared = (struct outcome){
		.section = s, .row = row, .result = ROW_FAIL, .why = "it ended without a result"};
	shared->expected = expected_reason(s, row);
	pid = fork();
	if (pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		row->run(row);
		rigs_close();
		row_ends(ROW_PASS);
	}
	status = pid < 0 ? -1 : wait_row(pid, limit);
	shared->ms = (unsigned)(now_ms() - start);
	if (status == 0)
		return *shared;
	shared->result = ROW_FAIL;
	if (status < 0)
		snprintf(shared->why, sizeof(shared->why), "still running after %u s", limit);
	else if (WIFSIGNALED(status))
		snprintf(shared->why, sizeof(shared->why), "it died of %s", strsignal(WTERMSIG(status)));
	else
		snprintf(shared->why, sizeof(shared->why), "it ended with status %d", WEXITSTATUS(status));
	return *shared;
}

static bool wanted(const struct section *s, const struct row *row)
{
	size_t n = strlen(s->name);

	for (size_t i = 0; i < nonly; i++)
		if (!strncmp(only[i], s->name, n) &&
		    (!only[i][n] || (only[i][n] == '/' && !strcmp(only[i] + n + 1, row->name))))
			return true;
	return !nonly;
}

static size_t run_all(struct outcome *o, bool quiet, bool list)
{
	size_t n = 0;

	for (const struct section *const *s = sections; *s; s++)
		for (size_t i = 0; i < (*s)->count; i++) {
			if (!wanted(*s, &(*s)->rows[i]))
				continue;
			if (n == MAX_ROWS) {
				fputs("conformance: MAX_ROWS is too small\n", stderr);
				exit(2);
			}
			if (list)
				printf("%s/%s\n", (*s)->name, (*s)->rows[i].name);
			else
				o[n] = run_row(*s, &(*s)->rows[i]);
			if (!list && !quiet)
				report_line(stdout, &o[n]);
			n++;
		}
	return n;
}

static void write_markdown(const char *path, const struct outcome *o, size_t n)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		exit(2);
	}
	report_markdown(f, o, n);
	fclose(f);
}

/* ---- the command line ---- */

enum {
	OPT_DEVICE = 256,
	OPT_PORT,
	OPT_GID,
	OPT_ONLY,
	OPT_LIST,
	OPT_JSON,
	OPT_MARKDOWN,
	OPT_ERRORS,
	OPT_EXPECTED,
	OPT_DAEMON,
	OPT_SELF_TEST,
	OPT_HELP
};

static const struct option long_options[] = {
	{"device", required_argument, NULL, OPT_DEVICE},
	{"port", required_argument, NULL, OPT_PORT},
	{"gid", required_argument, NULL, OPT_GID},
	{"only", required_argument, NULL, OPT_ONLY},
	{"list", no_argument, NULL, OPT_LIST},
	{"json", no_argument, NULL, OPT_JSON},
	{"markdown", required_argument, NULL, OPT_MARKDOWN},
	{"errors-markdown", no_argument, NULL, OPT_ERRORS},
	{"expected", required_argument, NULL, OPT_EXPECTED},
	{"daemon", required_argument, NULL, OPT_DAEMON},
	{"self-test", no_argument, NULL, OPT_SELF_TEST},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

static struct {
	bool list, json, self_test;
	const char *markdown;
} how;

static int number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || end == text || n < 0 || n > 65535) {
		fprintf(stderr, "conformance: %s is no number that fits\n", text);
		exit(2);
	}
	return (int)n;
}

static void take_option(int c)
{
	switch (c) {
	case OPT_DEVICE:
		options.device = optarg;
		break;
	case OPT_PORT:
		options.port = number(optarg);
		break;
	case OPT_GID:
		options.gid = number(optarg);
		break;
	case OPT_DAEMON:
		options.daemon = optarg;
		break;
	case OPT_ONLY:
		if (nonly < MAX_ONLY)
			only[nonly++] = optarg;
		break;
	case OPT_LIST:
		how.list = true;
		break;
	case OPT_JSON:
		how.json = true;
		break;
	case OPT_MARKDOWN:
		how.markdown = optarg;
		break;
	case OPT_EXPECTED:
		expected_read(optarg);
		break;
	case OPT_ERRORS:
		errors_markdown(stdout);
		exit(0);
	case OPT_SELF_TEST:
		how.self_test = true;
		break;
	case OPT_HELP:
		usage(stdout);
		exit(0);
	default:
		usage(stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static struct outcome outcomes[MAX_ROWS];
	sigset_t child;
	size_t n, bad = 0;
	int c;

	errors_rows();
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(c);
	if (optind != argc) {
		usage(stderr);
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("conformance");
		return 2;
	}
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	if (how.self_test)
		return self_test(run_row);
	n = run_all(outcomes, how.json, how.list);
	if (!n)
		fputs("conformance: no such row\n", stderr);
	if (!n || how.list)
		return n ? 0 : 2;
	if (how.json)
		report_json(stdout, outcomes, n);
	else
		report_summary(stdout, outcomes, n);
	if (how.markdown)
		write_markdown(how.markdown, outcomes, n);
	for (size_t i = 0; i < n; i++)
		bad += outcome_bad(&outcomes[i]);
	return bad != 0;
}
