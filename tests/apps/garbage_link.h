/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a hostile client speaks with a core: over its Unix socket, or, if it was given a ticket (NAME.tcp), over TCP as a
 * host that shares no memory with it.
 *
 * Room: tests. May use: libc, the control protocol.
 */
#ifndef FX_GARBAGE_LINK_H
#define FX_GARBAGE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/protocol.h"

/* One connection. */
struct link {
	bool far;
	int fd;
	int kick; /* of a core beside us; -1 */
	struct fx_hello_rep hello;
	char *arena; /* once greeted; NULL */
	size_t arena_size;
};

/* The program's dice. */
uint32_t rnd(void);

/* Ends the program if the core is gone. `shown`: what has to be shown first, is. */
struct link dial(const char *path, bool shown);
void hang_up(struct link *l);
/* A proper greeting as an application's library; true: there are rings. */
bool greet(struct link *l);
/* -> bytes of the answer, 0: hung up or silent. Descriptors that came along are closed. */
size_t answer(struct link *l, void *buf, size_t size);
/* Sends, where it can be sometimes with descriptors that nobody asked for. */
bool tell(struct link *l, const void *buf, size_t size);
/* The same without them. */
bool say(struct link *l, const void *buf, size_t size);
/* Wakes a worker that sleeps. */
bool kick(struct link *l);

#endif
