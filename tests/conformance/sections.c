/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The list of sections.
 *
 * Room: tests.
 */
#include "sections.h"

/* clang-format off */
const struct section *const sections[] = {
	&section_device,
	&section_memory,
	&section_cq,
	&section_poll,
	&section_channel,
	&section_async,
	&section_length,
	&section_sge,
	&section_atomic,
	&section_queue,
	&section_wr,
	&section_srq,
	&section_xrc,
	&section_order,
	&section_modify,
	&section_states,
	&section_retry,
	&section_errors,
	&section_events,
	&section_windows,
	&section_extended,
	&section_uc,
	&section_ud,
	&section_multicast,
	&section_threads,
	&section_process,
	NULL,
};
