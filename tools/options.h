/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What flexinsd is told: on its command line, and in its configuration file, which the command line overrules.
 *
 * Room: tools. May use: control's and core's headers, librte_cfgfile.
 */
#ifndef FX_TOOLS_OPTIONS_H
#define FX_TOOLS_OPTIONS_H

#include <stddef.h>

#include "control/log.h"
#include "control/quota.h"
#include "control/control.h"
#include "core/eal.h"
#include "memory/engine.h"

#define FX_CONFIG_FILE "/etc/flexins/flexinsd.conf"

struct rte_cfgfile;

struct fx_options {
	const char *name, *socket, *ip, *dma, *poll, *config, *listen, *bus_text;
	const struct fx_place_ops *place;
	struct fx_dma_bus bus;
	uint32_t mtu;
	unsigned linger_ms;
	int ready_fd;
	enum fx_huge huge;
	enum fx_log_level log;
	struct fx_quota_cfg quota;
	struct rte_cfgfile *file; /* texts above may lie in it */
};

enum { FX_GO_ON = -1, FX_EXIT_USAGE = 2 };

/* Command line and file into *o, for fx_options_free(): FX_GO_ON; or the exit status after something was said, and
 * nothing is kept. */
int fx_options_parse(struct fx_options *o, int argc, char **argv);
void fx_options_free(struct fx_options *o);

/* ---- options.c, for config.c ---- */
/* Sets one option of the file's section [core]: NULL, or what is allowed for it. */
const char *fx_option_set(struct fx_options *o, const char *key, const char *value);

/* ---- config.c ---- */
/* Reads the file `path` into *o: 0, or a negative errno with `why`. */
int fx_config_read(struct fx_options *o, const char *path, char *why, size_t size);

#endif
