/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DPDK's environment: see eal.h. With hugepages nothing needs to be in the file system (--in-memory); without
 * them EAL insists on a runtime directory, which is removed at the end.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>

#include "core/eal.h"

#define PREFIX "flexins"

enum {
	HUGE_MB = 32,  /* grows on demand */
	SMALL_MB = 64, /* address space: pages are taken on first use */
	ARGS = 16,
	ARG_LEN = 2048,
};

static int cpu_set(cpu_set_t *set)
{
	CPU_ZERO(set);
	return sched_getaffinity(0, sizeof(*set), set) < 0 ? -errno : 0;
}

unsigned fx_eal_cpus(void)
{
	cpu_set_t set;

	return cpu_set(&set) < 0 ? 1 : (unsigned)CPU_COUNT(&set);
}

bool fx_eal_has_huge(void)
{
	return rte_eal_has_hugepages();
}

/* Free 2 MiB pages, in MiB. */
static unsigned long huge_free(void)
{
	FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
	unsigned long n = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%lu", &n) != 1)
		n = 0;
	fclose(f);
	return n * 2;
}

/* "0@(0-1,4),1@(0-1,4)": every lcore floats over the CPUs that we were given. */
static int lcores(char *out, size_t size, unsigned workers)
{
	char cpus[ARG_LEN / 4] = "";
	size_t len = 0;
	cpu_set_t set;
	int err = cpu_set(&set);

	for (int i = 0; i < CPU_SETSIZE && !err; i++) {
		int from = i;

		if (!CPU_ISSET(i, &set))
			continue;
		while (i + 1 < CPU_SETSIZE && CPU_ISSET(i + 1, &set))
			i++;
		len += (size_t)snprintf(cpus + len, sizeof(cpus) - len, "%s%d-%d", len ? "," : "", from, i);
		if (len >= sizeof(cpus))
			return -E2BIG;
	}
	len = 0;
	for (unsigned w = 0; w <= workers && !err; w++) {
		len += (size_t)snprintf(out + len, size - len, "%s%u@(%s)", w ? "," : "", w, cpus);
		if (len >= size)
			return -E2BIG;
	}
	return err;
}

struct args {
	char text[ARGS][ARG_LEN];
	char *argv[ARGS + 1];
	int argc;
};

static void add(struct args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct args *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->text[a->argc], ARG_LEN, fmt, ap);
	va_end(ap);
	a->argv[a->argc] = a->text[a->argc];
	a->argv[++a->argc] = NULL;
}

static struct args *kept; /* EAL is one a process, and keeps pointers to its arguments until its end */

static int make_args(struct args *a, const struct fx_eal_cfg *cfg, bool huge)
{
	char map[ARG_LEN];
	int err = lcores(map, sizeof(map), cfg->workers);

	if (err)
		return err;
	a->argc = 0;
	add(a, "%s", cfg->program);
	add(a, "--lcores=%s", map);
	add(a, "--no-pci");
	add(a, "--iova-mode=va");
	add(a, huge ? "--in-memory" : "--no-huge");
	if (!huge)
		add(a, "--no-shconf");
	add(a, "-m");
	add(a, "%d", huge ? HUGE_MB : SMALL_MB);
	add(a, "--file-prefix=" PREFIX "%d", (int)getpid());
	add(a, "--no-telemetry");
	add(a, "--log-level=%d", cfg->verbose ? 7 : 3);
	if (cfg->vdev)
		add(a, "--vdev=%s", cfg->vdev);
	return 0;
}

static void remove_dir(const char *dir);

/*
 * What cores that were killed have left: as many KiB in memory each. Theirs is the process id behind the
 * prefix.
 */
static void sweep(void)
{
	char parent[PATH_MAX], path[PATH_MAX];
	const char *runtime = rte_eal_get_runtime_dir();
	struct dirent *e;
	char *slash;
	DIR *d;

	snprintf(parent, sizeof(parent), "%s", runtime ? runtime : "");
	slash = strrchr(parent, '/');
	if (!slash)
		return;
	*slash = '\0';
	d = opendir(parent);
	while (d && (e = readdir(d))) {
		int pid, end = 0;

		if (sscanf(e->d_name, PREFIX "%d%n", &pid, &end) != 1 || e->d_name[end] || pid <= 0)
			continue;
		if (kill(pid, 0) == 0 || errno != ESRCH)
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", parent, e->d_name) < sizeof(path))
			remove_dir(path);
	}
	if (d)
		closedir(d);
}

int fx_eal_start(const struct fx_eal_cfg *cfg, char *why, size_t size)
{
	bool huge = cfg->huge == FX_HUGE_YES || (cfg->huge == FX_HUGE_AUTO && huge_free() >= 2 * HUGE_MB);
	struct args *a = malloc(sizeof(*a));
	int err = a ? make_args(a, cfg, huge) : -ENOMEM;

	if (err) {
		snprintf(why, size, "cannot make DPDK's arguments: %s", strerror(-err));
		free(a);
		return err;
	}
	kept = a;
	if (rte_eal_init(a->argc, a->argv) >= 0) {
		sweep();
		return 0;
	}
	snprintf(why, size, "DPDK does not start %s hugepages: %s%s", huge ? "with" : "without",
		 rte_strerror(rte_errno),
		 huge ? "; try --no-huge, or reserve more with vm.nr_hugepages"
		      : "; --log debug shows what it says");
	err = rte_errno > 0 ? -rte_errno : -EIO;
	fx_eal_end();
	return err;
}

/* Nothing but EAL's own files is in there. */
static void remove_dir(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[PATH_MAX];
	char *slash;

	if (!d)
		return;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < sizeof(path))
			unlink(path);
	}
	closedir(d);
	rmdir(dir);
	/* and the directory of all DPDK programs, if we were the last */
	snprintf(path, sizeof(path), "%s", dir);
	slash = strrchr(path, '/');
	if (slash && slash != path) {
		*slash = '\0';
		rmdir(path);
	}
}

void fx_eal_end(void)
{
	char dir[PATH_MAX];
	const char *runtime = rte_eal_get_runtime_dir();

	snprintf(dir, sizeof(dir), "%s", runtime ? runtime : "");
	rte_eal_cleanup();
	free(kept);
	kept = NULL;
	/* only what carries our own prefix */
	if (strstr(dir, "/" PREFIX))
		remove_dir(dir);
}
