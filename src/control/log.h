/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core's log: one line on stderr an event, for the person who runs it. Never called on the data path,
 * never with more than one line for one client's misbehaviour (counters take the rest).
 *
 * Room: control. May use: libc.
 */
#ifndef FX_CONTROL_LOG_H
#define FX_CONTROL_LOG_H

enum fx_log_level { FX_LOG_ERROR, FX_LOG_WARN, FX_LOG_INFO, FX_LOG_DEBUG, FX_LOG_LEVELS };

extern const char *const fx_log_names[FX_LOG_LEVELS];

/* Set once, before threads start. */
void fx_log_setup(const char *program, enum fx_log_level level);
void fx_log(enum fx_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
