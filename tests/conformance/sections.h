/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sections, in the order in which they run (sections.c).
 *
 * Room: tests.
 */
#ifndef CONFORMANCE_SECTIONS_H
#define CONFORMANCE_SECTIONS_H

#include "conformance.h"

extern const struct section section_device, section_memory, section_cq, section_channel, section_async,
	section_length, section_sge, section_atomic, section_queue, section_order, section_modify,
	section_states, section_retry, section_wr, section_poll, section_extended, section_windows,
	section_uc, section_ud, section_multicast, section_threads, section_process, section_srq, section_xrc;
/* Their rows come from the table of errors: call errors_rows() first. */
extern struct section section_errors, section_events;
void errors_rows(void);

#endif
