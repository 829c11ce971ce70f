/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flexinsd: the core. Puts the rooms together: options, DPDK's environment, a port, the control room on the
 * main thread, workers on threads of EAL's.
 *
 * Room: tools. May use: core, control, port, memory/window.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <rte_launch.h>
#include <rte_lcore.h>

#include "control/control.h"
#include "control/log.h"
#include "core/eal.h"
#include "core/worker.h"
#include "greet.h"
#include "memory/window.h"
#include "port/port.h"

enum { EXIT_NO_START = 1, EXIT_USAGE = 2, WHY = 512 };

#define DEVICE "net_ring0"

static const char usage_text[] =
	"Usage: flexinsd [OPTIONS]\n"
	"The FlexiNS core: software RDMA over a DPDK port. Without options: one worker on a loopback port.\n"
	"\n"
	"  --name NAME          of this core (default: default); flexins-run --core NAME finds it\n"
	"  --socket PATH        the control socket (default: NAME.sock in the runtime directory)\n"
	"  --ip ADDR            the port's address (default: the machine's first)\n"
	"  --mtu BYTES          largest path MTU: 256, 512, 1024, 2048 or 4096 (default: 4096)\n"
	"  --huge, --no-huge    with or without hugepages (default: with, if enough are free)\n"
	"  --poll MODE          adaptive: sleep when idle (default); spin: needs a CPU of its own\n"
	"  --dma ENGINE         cpu (default), or chaos[=DELAY[,SEED]]: late and out of order, for tests\n"
	"  --linger SECONDS     end so long after the last client (default: never)\n"
	"  --ready-fd N         write one byte there when clients are accepted\n"
	"  --foreground         stay in the foreground (it always does)\n"
	"  --log LEVEL          error, warn (default), info or debug\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 after a clean end, 1 if it could not start, 2 for wrong arguments.\n";

struct options {
	const char *name, *socket, *ip, *dma, *poll;
	uint32_t mtu;
	unsigned linger_ms;
	int ready_fd;
	enum fx_huge huge;
	enum fx_log_level log;
};

/* What is up, in the order of its making. */
struct core {
	struct options o;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct fx_port port;
	struct fx_control *ctl;
	struct fx_worker *workers[FX_MAX_WORKERS];
	unsigned nworkers;
	bool eal, launched;
};

/* ---- signals ---- */

/* volatile is enough: the handler runs on the main thread only, all others block the signals. */
static struct fx_control *volatile signalled;
static volatile sig_atomic_t ending;

static void on_signal(int sig)
{
	(void)sig;
	ending = 1;
	if (signalled)
		fx_control_stop(signalled);
}

/*
 * Blocked in every thread that is started from now on; the main thread opens itself to them when it can
 * answer.
 */
static void signals_init(sigset_t *set)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* ---- options ---- */

__attribute__((format(printf, 1, 2))) static int wrong(const char *fmt, ...)
{
	va_list ap;

	fputs("flexinsd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" (see flexinsd --help)\n", stderr);
	return EXIT_USAGE;
}

static bool number(const char *text, unsigned long max, unsigned long *out)
{
	char *end;

	errno = 0;
	*out = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *out <= max;
}

enum opt {
	O_NAME = 256,
	O_SOCKET,
	O_IP,
	O_MTU,
	O_HUGE,
	O_NO_HUGE,
	O_POLL,
	O_DMA,
	O_LINGER,
	O_READY,
	O_FOREGROUND,
	O_LOG,
	O_VERSION
};

static bool is_address(const char *text)
{
	uint8_t a[16];

	return inet_pton(AF_INET, text, a) == 1 || inet_pton(AF_INET6, text, a) == 1;
}

static int set_number(struct options *o, int c, const char *text)
{
	unsigned long n;

	switch (c) {
	case O_MTU:
		if (!number(text, 4096, &n) || n < 256 || (n & (n - 1)))
			return wrong("--mtu %s: a path MTU is 256, 512, 1024, 2048 or 4096", text);
		o->mtu = (uint32_t)n;
		return 0;
	case O_LINGER:
		if (!number(text, 1000000, &n))
			return wrong("--linger %s is no number of seconds", text);
		o->linger_ms = n ? (unsigned)n * 1000 : 1;
		return 0;
	default:
		if (!number(text, 1 << 20, &n) || fcntl((int)n, F_GETFD) < 0)
			return wrong("--ready-fd %s is no open file descriptor", text);
		o->ready_fd = (int)n;
		return 0;
	}
}

static int set_log(struct options *o, const char *text)
{
	for (int i = 0; i < FX_LOG_LEVELS; i++)
		if (!strcmp(fx_log_names[i], text)) {
			o->log = (enum fx_log_level)i;
			return 0;
		}
	return wrong("--log %s: error, warn, info or debug", text);
}

static int set_option(struct options *o, int c, const char *text)
{
	switch (c) {
	case O_NAME:
		o->name = text;
		return fx_name_ok(text)
			       ? 0
			       : wrong("--name %s: letters, digits and - _ . only, at most 31", text);
	case O_SOCKET:
		o->socket = text;
		return *text ? 0 : wrong("--socket needs a path");
	case O_IP:
		o->ip = text;
		return is_address(text) ? 0 : wrong("--ip %s is no IP address", text);
	case O_HUGE:
		o->huge = FX_HUGE_YES;
		return 0;
	case O_NO_HUGE:
		o->huge = FX_HUGE_NO;
		return 0;
	case O_POLL:
		o->poll = text;
		return !strcmp(text, "adaptive") || !strcmp(text, "spin")
			       ? 0
			       : wrong("--poll %s: adaptive or spin", text);
	case O_DMA:
		o->dma = text;
		return fx_worker_knows_dma(text) ? 0 : wrong("--dma %s: cpu, or chaos[=DELAY[,SEED]]", text);
	case O_LOG:
		return set_log(o, text);
	case O_FOREGROUND:
		return 0;
	default:
		return set_number(o, c, text);
	}
}

/* -1: go on; else the exit status. */
static int parse(struct options *o, int argc, char **argv)
{
	static const struct option list[] = {
		{"name", required_argument, NULL, O_NAME},
		{"socket", required_argument, NULL, O_SOCKET},
		{"ip", required_argument, NULL, O_IP},
		{"mtu", required_argument, NULL, O_MTU},
		{"huge", no_argument, NULL, O_HUGE},
		{"no-huge", no_argument, NULL, O_NO_HUGE},
		{"poll", required_argument, NULL, O_POLL},
		{"dma", required_argument, NULL, O_DMA},
		{"linger", required_argument, NULL, O_LINGER},
		{"ready-fd", required_argument, NULL, O_READY},
		{"foreground", no_argument, NULL, O_FOREGROUND},
		{"log", required_argument, NULL, O_LOG},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, O_VERSION},
		{NULL, 0, NULL, 0},
	};
	int c, status;

	while ((c = getopt_long(argc, argv, "h", list, NULL)) != -1) {
		if (c == '?')
			return EXIT_USAGE;
		if (c == 'h' || c == O_VERSION) {
			fputs(c == 'h' ? usage_text : "flexinsd " FLEXINS_VERSION "\n", stdout);
			return 0;
		}
		status = set_option(o, c, optarg);
		if (status)
			return status;
	}
	if (optind < argc)
		return wrong("what is %s?", argv[optind]);
	return -1;
}

/* ---- putting it together ---- */

/* The socket's directory: ours, and nobody else may put sockets there. */
static int make_dir(const char *path, bool own, char *why)
{
	char copy[sizeof(((struct core *)0)->path)];
	struct stat st;
	char *dir;

	snprintf(copy, sizeof(copy), "%s", path);
	dir = dirname(copy);
	if (mkdir(dir, geteuid() == 0 ? 0755 : 0700) < 0 && errno != EEXIST) {
		int err = -errno;

		snprintf(why, WHY, "cannot make the directory %s: %s", dir, strerror(-err));
		return err;
	}
	if (!own)
		return 0;
	if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
		snprintf(why, WHY,
			 "%s is not a directory that only this user can write: remove it, or choose --socket",
			 dir);
		return -EPERM;
	}
	return 0;
}

static int find_path(struct core *core, char *why)
{
	char dir[sizeof(core->path)];
	bool fits;

	if (core->o.socket) {
		fits = fx_text(core->path, sizeof(core->path), "%s", core->o.socket);
	} else {
		fx_own_dir(dir, sizeof(dir));
		fits = fx_text(core->path, sizeof(core->path), "%s/%s.sock", dir, core->o.name);
	}
	if (!fits) {
		snprintf(why, WHY, "the socket's path is longer than %zu bytes: choose a shorter --socket",
			 sizeof(core->path) - 1);
		return -ENAMETOOLONG;
	}
	return make_dir(core->path, !core->o.socket, why);
}

static void raise_limits(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return;
	r.rlim_cur = r.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &r) < 0)
		fx_log(FX_LOG_DEBUG, "the limit of open files stays: %s", strerror(errno));
}

static int start_eal(struct core *core, char *why)
{
	struct fx_eal_cfg cfg = {
		.program = "flexinsd",
		.vdev = DEVICE,
		.workers = core->nworkers,
		.huge = core->o.huge,
		.verbose = core->o.log >= FX_LOG_DEBUG,
	};
	int err = fx_eal_start(&cfg, why, WHY);

	if (err)
		return err;
	core->eal = true;
	err = fx_window_guard();
	if (err)
		snprintf(why, WHY, "cannot guard windows against vanishing memory (SIGBUS handler): %s",
			 strerror(-err));
	return err;
}

static int start_control(struct core *core, bool shared, char *why)
{
	struct fx_port_cfg port = {
		.device = DEVICE,
		.salt = core->o.name,
		.ip = core->o.ip,
		.mtu = core->o.mtu,
		.queues = (uint16_t)core->nworkers,
	};
	struct fx_control_cfg cfg = {
		.name = core->o.name,
		.poll = core->o.poll,
		.dma = core->o.dma,
		.workers = core->nworkers,
		.shared_cpus = shared,
		.linger_ms = core->o.linger_ms,
		.port = &core->port.info,
	};
	int err = fx_port_open(&core->port, &port, why, WHY);

	if (err)
		return err;
	core->ctl = fx_control_create(&cfg, why, WHY);
	return core->ctl ? 0 : -ENOMEM;
}

static int start_workers(struct core *core, bool shared, char *why)
{
	struct rte_mempool *pools[FX_MAX_WORKERS];
	int err;

	for (uint32_t w = 0; w < core->nworkers; w++) {
		struct fx_worker_cfg cfg = {
			.index = w,
			.max_qps = FX_LIMIT_QP + 1,
			.mailbox = fx_control_mailbox(core->ctl, w),
			.page = fx_control_page(core->ctl),
			.mrs = fx_control_mrs(core->ctl),
			.port = &core->port,
			.poll = strcmp(core->o.poll, "spin") ? FX_POLL_ADAPTIVE : FX_POLL_SPIN,
			.shared_cpus = shared,
			.dma = core->o.dma,
		};

		core->workers[w] = fx_worker_create(&cfg, why, WHY);
		if (!core->workers[w])
			return -ENOMEM;
		pools[w] = fx_worker_rx_pool(core->workers[w]);
	}
	err = fx_port_start(&core->port, pools, why, WHY);
	for (uint32_t w = 0; w < core->nworkers && !err; w++)
		err = rte_eal_remote_launch(fx_worker_run, core->workers[w], w + 1);
	core->launched = !err;
	if (err && !why[0])
		snprintf(why, WHY, "cannot start a worker thread: %s", strerror(-err));
	return err;
}

static int start(struct core *core, char *why)
{
	bool shared;
	int err = find_path(core, why);

	raise_limits();
	if (!err)
		err = start_eal(core, why);
	/* few CPUs: the worker, the control thread and two applications want one each */
	shared = strcmp(core->o.poll, "spin") && fx_eal_cpus() < 2 * core->nworkers + 3;
	if (!err)
		err = start_control(core, shared, why);
	if (!err)
		err = start_workers(core, shared, why);
	if (!err)
		err = fx_control_listen(core->ctl, core->path, geteuid() == 0 ? 0666 : 0600, why, WHY);
	return err;
}

static void say_ready(struct core *core)
{
	const struct fx_port_info *port = &core->port.info;
	char gid[64];

	inet_ntop(AF_INET6, port->gid, gid, sizeof(gid));
	fx_log(FX_LOG_INFO,
	       "core %s is ready: %s on port %s (%s), %s hugepages, polling %s, DMA %s, socket %s",
	       core->o.name, gid, port->name, port->driver, fx_eal_has_huge() ? "with" : "without",
	       core->o.poll, core->o.dma, core->path);
	if (core->o.ready_fd < 0)
		return;
	if (write(core->o.ready_fd, "", 1) < 0)
		fx_log(FX_LOG_WARN, "nobody reads --ready-fd %d: %s", core->o.ready_fd, strerror(errno));
	close(core->o.ready_fd);
}

static void end(struct core *core)
{
	for (unsigned w = 0; w < core->nworkers && core->launched; w++)
		fx_worker_stop(core->workers[w]);
	if (core->launched)
		rte_eal_mp_wait_lcore();
	fx_port_stop(&core->port);
	for (unsigned w = 0; w < core->nworkers; w++)
		if (core->workers[w])
			fx_worker_destroy(core->workers[w]);
	signalled = NULL;
	if (core->ctl)
		fx_control_destroy(core->ctl);
	if (core->eal)
		fx_eal_end();
}

int main(int argc, char **argv)
{
	struct core core = {
		.o = {.name = "default",
		      .dma = "cpu",
		      .poll = "adaptive",
		      .mtu = 4096,
		      .ready_fd = -1,
		      .log = FX_LOG_WARN},
		.nworkers = 1,
	};
	char why[WHY] = "";
	sigset_t set;
	int status = parse(&core.o, argc, argv);

	if (status >= 0)
		return status;
	fx_log_setup("flexinsd", core.o.log);
	signals_init(&set);
	if (start(&core, why) < 0) {
		fx_log(FX_LOG_ERROR, "%s", why);
		end(&core);
		return EXIT_NO_START;
	}
	signalled = core.ctl;
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	say_ready(&core);
	if (!ending)
		fx_control_run(core.ctl);
	end(&core);
	return 0;
}
