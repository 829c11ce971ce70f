/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the device is at this moment, for programs that look at it without opening it.
 *
 * Room: host, and the shim's inner header. May use: the control protocol.
 */
#ifndef FX_HOST_STATE_H
#define FX_HOST_STATE_H

#include <stdint.h>

#include "control/protocol.h"

struct fx_state {
	const struct ibv_device *device; /* its names */
	struct fx_device_limits limits;
	struct fx_query_port_rep port;
	char version[FX_VERSION_LEN + 1]; /* the core's */
};

/*
 * Asks the core, by an open context of this process or by a connection for this purpose only. 0, or a negative errno:
 * there is no device. From any thread.
 */
int fx_state_ask(struct fx_state *s);

struct fx_counter {
	char name[FX_COUNTER_NAME];
	uint64_t value;
};
/* The same for the counters. -> how many there are, of which c[max] has the first; a negative errno. */
int fx_state_counters(struct fx_counter *c, uint32_t max);

#endif
