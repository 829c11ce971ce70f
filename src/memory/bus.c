/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a bus is like, in words: the values of engine_bus.c's model.
 *
 * Room: memory. May use: memory/engine.h.
 */
#include <stdlib.h>
#include <string.h>

#include "memory/engine.h"

enum {
	MAX_LATENCY_NS = 1000000,
	MAX_WIDTH = 1000,
	MAX_PERMILLE = 1000,
	MB = 1000 /* bytes a us in 1 GB/s */
};

static const struct {
	const char *name;
	uint64_t max;
} keys[] = {{"latency=", MAX_LATENCY_NS},
	    {"width=", MAX_WIDTH},
	    {"reorder=", MAX_PERMILLE},
	    {"seed=", UINT64_MAX}};
enum { LATENCY, WIDTH, REORDER, SEED, KEYS };

/* One "key=number" at *text, which moves behind it. */
static bool take(const char **text, uint64_t *value)
{
	for (int k = 0; k < KEYS; k++) {
		size_t len = strlen(keys[k].name);
		const char *digits = *text + len;
		char *end;

		if (strncmp(*text, keys[k].name, len))
			continue;
		errno = 0;
		value[k] = strtoull(digits, &end, 10);
		if (*digits < '0' || *digits > '9' || errno || value[k] > keys[k].max ||
		    (*end && *end != ','))
			return false;
		*text = *end ? end + 1 : end;
		return true;
	}
	return false;
}

const char *fx_dma_bus_parse(struct fx_dma_bus *bus, const char *text)
{
	uint64_t value[KEYS] = {[LATENCY] = 1000, [WIDTH] = 63, [REORDER] = 50, [SEED] = 1};

	while (*text)
		if (!take(&text, value))
			return "latency=NS up to 1000000, width=GB/s up to 1000 (0: no limit), reorder=PERMILLE up to 1000, "
			       "seed=N, with commas between them";
	*bus = (struct fx_dma_bus){
		.latency_ns = value[LATENCY],
		.bytes_per_us = value[WIDTH] * MB,
		.reorder_permille = (uint32_t)value[REORDER],
		.seed = value[SEED],
	};
	return NULL;
}
