/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flexinsd: the core. Puts the rooms together: options (options.c), DPDK's environment, a port, the control room on the
 * main thread, workers on threads of EAL's.
 *
 * Room: tools. May use: core, control, port, memory/window.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libgen.h>
#include <malloc.h>
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
#include "options.h"
#include "port/port.h"

enum { EXIT_NO_START = 1, WHY = 512, SPARSE = 64 << 10 };

#define DEVICE "net_ring0"

/* What is up, in the order of its making. */
struct core {
	struct fx_options o;
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

static bool is_remote(const struct core *core)
{
	return core->o.place == &fx_place_remote;
}

static const struct fx_dma_bus *bus_of(const struct core *core)
{
	return is_remote(core) ? &core->o.bus : NULL;
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
		.bus = bus_of(core) ? core->o.bus_text : NULL,
		.place = core->o.place,
		.workers = core->nworkers,
		.shared_cpus = shared,
		.linger_ms = core->o.linger_ms,
		.port = &core->port.info,
		.quota = &core->o.quota,
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
			.ahs = fx_control_ahs(core->ctl),
			.port = &core->port,
			.poll = strcmp(core->o.poll, "spin") ? FX_POLL_ADAPTIVE : FX_POLL_SPIN,
			.shared_cpus = shared,
			.dma = core->o.dma,
			.bus = bus_of(core),
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

/* The file that leads hosts to a core which shares no memory with them: beside the socket, NAME.tcp. */
static int ticket_path(const struct core *core, char *path, size_t size, char *why)
{
	size_t len = strlen(core->path), tail = strlen(".sock");

	if (len > tail && !strcmp(core->path + len - tail, ".sock"))
		len -= tail;
	if (fx_text(path, size, "%.*s.tcp", (int)len, core->path))
		return 0;
	snprintf(why, WHY, "the path of the token's file is too long: choose a shorter --socket");
	return -ENAMETOOLONG;
}

/* The name is ours once its socket is: so is what an earlier core of that name left behind. */
static int start_listening(struct core *core, char *why)
{
	unsigned mode = geteuid() == 0 ? 0666 : 0600;
	char ticket[sizeof(core->path)];
	int err = ticket_path(core, ticket, sizeof(ticket), why);

	if (!err)
		err = fx_control_listen(core->ctl, core->path, mode, why, WHY);
	if (err)
		return err;
	if (is_remote(core))
		return fx_control_listen_tcp(core->ctl, core->o.listen, ticket, mode, why, WHY);
	unlink(ticket);
	return 0;
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
		err = start_listening(core, why);
	return err;
}

static void say_ready(struct core *core)
{
	const struct fx_port_info *port = &core->port.info;
	char gid[64];

	inet_ntop(AF_INET6, port->gid, gid, sizeof(gid));
	fx_log(FX_LOG_INFO,
	       "core %s is ready, %s: %s on port %s (%s), %s hugepages, polling %s, DMA %s, socket %s",
	       core->o.name, is_remote(core) ? "emulated" : "local", gid, port->name, port->driver,
	       fx_eal_has_huge() ? "with" : "without", core->o.poll, core->o.dma, core->path);
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
	fx_options_free(&core->o);
}

/*
 * Rings that are mostly never reached are pages of their own, which cost nothing and are given back. malloc would let go
 * of that after the first of them was freed: the next, from its heap, would be cleared, and kept.
 */
static void keep_sparse(void)
{
	mallopt(M_MMAP_THRESHOLD, SPARSE);
}

int main(int argc, char **argv)
{
	struct core core = {.nworkers = 1};
	char why[WHY] = "";
	sigset_t set;
	int status = fx_options_parse(&core.o, argc, argv);

	if (status != FX_GO_ON)
		return status;
	keep_sparse();
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
