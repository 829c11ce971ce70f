/* SPDX-License-Identifier: BSD-3-Clause */
/* The options of flexinsd: one table for the command line and the file's section [core]. See options.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>

#include <rte_cfgfile.h>

#include "core/worker.h"
#include "greet.h"
#include "options.h"

enum { WHY = 512 };

static const char usage_text[] =
	"Usage: flexinsd [OPTIONS]\n"
	"The FlexiNS core: software RDMA over a DPDK port. Without options: one worker on a loopback port.\n"
	"\n"
	"  --config FILE        settings and quotas; the command line wins (default for root:\n"
	"                       " FX_CONFIG_FILE ", if it exists)\n"
	"  --name NAME          of this core (default: default); flexins-run --core NAME finds it\n"
	"  --socket PATH        the control socket (default: NAME.sock in the runtime directory)\n"
	"  --ip ADDR            the port's address (default: the machine's first)\n"
	"  --mtu BYTES          largest path MTU: 256, 512, 1024, 2048 or 4096 (default: 4096)\n"
	"  --huge, --no-huge    with or without hugepages (default: with, if enough are free)\n"
	"  --placement WHERE    local: on its hosts' machine (default); emulated: as if behind a bus, sharing no\n"
	"                       memory with them: rings and windows by DMA, control over TCP with a token\n"
	"  --bus SPEC           of that placement: latency=NS,width=GB/s,reorder=PERMILLE,seed=N\n"
	"                       (default: latency=1000,width=63,reorder=50,seed=1)\n"
	"  --listen ADDR[:PORT] of that placement (default: any port of 127.0.0.1)\n"
	"  --poll MODE          adaptive: sleep when idle (default); spin: needs a CPU of its own\n"
	"  --dma ENGINE         cpu (default), or chaos[=DELAY[,SEED]]: late and out of order, for tests\n"
	"  --linger SECONDS     end so long after the last client (default: never)\n"
	"  --ready-fd N         write one byte there when clients are accepted\n"
	"  --foreground         stay in the foreground (it always does)\n"
	"  --log LEVEL          error, warn (default), info or debug\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 after a clean end, 1 if it could not start, 2 for wrong arguments or a wrong FILE.\n";

__attribute__((format(printf, 1, 2))) static int wrong(const char *fmt, ...)
{
	va_list ap;

	fputs("flexinsd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" (see flexinsd --help)\n", stderr);
	return FX_EXIT_USAGE;
}

static bool number(const char *text, unsigned long max, unsigned long *out)
{
	char *end;

	errno = 0;
	*out = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *out <= max;
}

/* ---- one function an option: NULL, or what is allowed ---- */

static const char *set_config(struct fx_options *o, const char *text)
{
	o->config = text;
	return *text ? NULL : "the path of a file";
}

static const char *set_name(struct fx_options *o, const char *text)
{
	o->name = text;
	return fx_name_ok(text) ? NULL : "letters, digits and - _ . only, at most 31";
}

static const char *set_socket(struct fx_options *o, const char *text)
{
	o->socket = text;
	return *text ? NULL : "the path of a socket";
}

static const char *set_ip(struct fx_options *o, const char *text)
{
	uint8_t a[16];

	o->ip = text;
	return inet_pton(AF_INET, text, a) == 1 || inet_pton(AF_INET6, text, a) == 1
		       ? NULL
		       : "an IPv4 or IPv6 address";
}

static const char *set_mtu(struct fx_options *o, const char *text)
{
	unsigned long n;

	if (!number(text, 4096, &n) || n < 256 || (n & (n - 1)))
		return "a path MTU is 256, 512, 1024, 2048 or 4096";
	o->mtu = (uint32_t)n;
	return NULL;
}

static const char *set_huge(struct fx_options *o, const char *text)
{
	bool no = text && !strcmp(text, "no");

	o->huge = no ? FX_HUGE_NO : FX_HUGE_YES;
	return !text || no || !strcmp(text, "yes") ? NULL : "yes or no";
}

static const char *set_no_huge(struct fx_options *o, const char *text)
{
	(void)text;
	return set_huge(o, "no");
}

static const char *set_poll(struct fx_options *o, const char *text)
{
	o->poll = text;
	return !strcmp(text, "adaptive") || !strcmp(text, "spin") ? NULL : "adaptive or spin";
}

static const char *set_dma(struct fx_options *o, const char *text)
{
	o->dma = text;
	return fx_worker_knows_dma(text) ? NULL : "cpu, or chaos[=DELAY[,SEED]]";
}

static const char *set_placement(struct fx_options *o, const char *text)
{
	o->place = strcmp(text, "emulated") ? &fx_place_shared : &fx_place_remote;
	return !strcmp(text, "emulated") || !strcmp(text, "local") ? NULL : "local or emulated";
}

static const char *set_bus(struct fx_options *o, const char *text)
{
	o->bus_text = text;
	return fx_dma_bus_parse(&o->bus, text);
}

static const char *set_listen(struct fx_options *o, const char *text)
{
	o->listen = text;
	return *text ? NULL : "an IPv4 address, with :PORT or without";
}

static const char *set_linger(struct fx_options *o, const char *text)
{
	unsigned long n;

	if (!number(text, 1000000, &n))
		return "a number of seconds up to 1000000";
	o->linger_ms = n ? (unsigned)n * 1000 : 1;
	return NULL;
}

static const char *set_ready_fd(struct fx_options *o, const char *text)
{
	unsigned long n;

	if (!number(text, 1 << 20, &n) || fcntl((int)n, F_GETFD) < 0)
		return "the number of an open file descriptor";
	o->ready_fd = (int)n;
	return NULL;
}

static const char *set_foreground(struct fx_options *o, const char *text)
{
	(void)o;
	(void)text;
	return NULL;
}

static const char *set_log(struct fx_options *o, const char *text)
{
	for (int i = 0; i < FX_LOG_LEVELS; i++)
		if (!strcmp(fx_log_names[i], text)) {
			o->log = (enum fx_log_level)i;
			return NULL;
		}
	return "error, warn, info or debug";
}

/* `in_file`: the file may set it too; not what only whoever starts this process knows. */
static const struct {
	const char *name;
	bool value, in_file;
	const char *(*set)(struct fx_options *o, const char *text);
} table[] = {
	{"config", true, false, set_config},
	{"name", true, true, set_name},
	{"socket", true, true, set_socket},
	{"ip", true, true, set_ip},
	{"mtu", true, true, set_mtu},
	{"huge", false, true, set_huge},
	{"no-huge", false, false, set_no_huge},
	{"poll", true, true, set_poll},
	{"dma", true, true, set_dma},
	{"placement", true, true, set_placement},
	{"bus", true, true, set_bus},
	{"listen", true, true, set_listen},
	{"linger", true, true, set_linger},
	{"ready-fd", true, false, set_ready_fd},
	{"foreground", false, false, set_foreground},
	{"log", true, true, set_log},
};
enum { OPTIONS = sizeof(table) / sizeof(table[0]) };

const char *fx_option_set(struct fx_options *o, const char *key, const char *value)
{
	static char keys[WHY];

	for (int i = 0; i < OPTIONS; i++)
		if (table[i].in_file && !strcmp(table[i].name, key))
			return table[i].set(o, value);
	snprintf(keys, sizeof(keys), "there is no such key, but");
	for (int i = 0; i < OPTIONS; i++)
		if (table[i].in_file)
			snprintf(keys + strlen(keys), sizeof(keys) - strlen(keys), " %s", table[i].name);
	return keys;
}

/* ---- all of them ---- */

static int parse_line(struct fx_options *o, int argc, char **argv)
{
	struct option list[OPTIONS + 3] = {{"help", no_argument, NULL, 'h'},
					   {"version", no_argument, NULL, 'v'}};
	const char *allowed;
	int c, which;

	for (int i = 0; i < OPTIONS; i++)
		list[i + 2] = (struct option){table[i].name, table[i].value, NULL, 0};
	optind = 0; /* glibc: from the start */
	while ((c = getopt_long(argc, argv, "h", list, &which)) != -1) {
		if (c == '?')
			return FX_EXIT_USAGE;
		if (c) {
			fputs(c == 'h' ? usage_text : "flexinsd " FLEXINS_VERSION "\n", stdout);
			return 0;
		}
		allowed = table[which - 2].set(o, optarg);
		if (allowed)
			return wrong("--%s %s: %s", table[which - 2].name, optarg, allowed);
	}
	if (optind < argc)
		return wrong("what is %s?", argv[optind]);
	return FX_GO_ON;
}

static void defaults(struct fx_options *o)
{
	*o = (struct fx_options){.name = "default",
				 .dma = "cpu",
				 .poll = "adaptive",
				 .mtu = 4096,
				 .ready_fd = -1,
				 .log = FX_LOG_WARN};
	set_placement(o, "local");
	set_bus(o, "latency=1000,width=63,reorder=50,seed=1");
	fx_quota_normal(&o->quota.others);
}

/* What is right by itself and wrong together. */
static int together(const struct fx_options *o)
{
	if (o->place == &fx_place_remote && strcmp(o->dma, "cpu"))
		return wrong(
			"--dma %s is for memory that the core maps, and --placement emulated maps none: --bus "
			"latency=NS,reorder=PERMILLE delays and reorders there",
			o->dma);
	return FX_GO_ON;
}

/* Over the defaults, then: what the file says, and what the line says. */
static int file_then_line(struct fx_options *o, const char *config, int argc, char **argv)
{
	char why[WHY];
	int status;

	defaults(o);
	if (config && fx_config_read(o, config, why, sizeof(why)) < 0) {
		fprintf(stderr, "flexinsd: %s\n", why);
		return FX_EXIT_USAGE;
	}
	status = parse_line(o, argc, argv);
	return status == FX_GO_ON ? together(o) : status;
}

/* The line is read twice: first for the file's name, then over what the file says. */
int fx_options_parse(struct fx_options *o, int argc, char **argv)
{
	const char *config = geteuid() == 0 && access(FX_CONFIG_FILE, F_OK) == 0 ? FX_CONFIG_FILE : NULL;
	int status;

	defaults(o);
	status = parse_line(o, argc, argv);
	if (status != FX_GO_ON)
		return status;
	status = file_then_line(o, o->config ? o->config : config, argc, argv);
	if (status != FX_GO_ON)
		fx_options_free(o);
	return status;
}

void fx_options_free(struct fx_options *o)
{
	free(o->quota.users);
	o->quota.users = NULL;
	if (o->file)
		rte_cfgfile_close(o->file);
	o->file = NULL;
}
