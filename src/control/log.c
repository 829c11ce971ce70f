/* SPDX-License-Identifier: BSD-3-Clause */
/* The core's log: see log.h. */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "control/log.h"

const char *const fx_log_names[FX_LOG_LEVELS] = {"error", "warn", "info", "debug"};

static const char *log_program = "flexinsd";
static enum fx_log_level log_level = FX_LOG_WARN;

void fx_log_setup(const char *program, enum fx_log_level level)
{
	log_program = program;
	log_level = level;
}

/* One write a line, so that lines of several threads do not mix. */
void fx_log(enum fx_log_level level, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n, m;

	if (level > log_level)
		return;
	n = snprintf(line, sizeof(line), "%s: %s", log_program, level <= FX_LOG_WARN ? "" : "[");
	if (level > FX_LOG_WARN)
		n += snprintf(line + n, sizeof(line) - (size_t)n, "%s] ", fx_log_names[level]);
	va_start(ap, fmt);
	m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n += m < 0 ? 0 : m;
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nobody listens */
}
