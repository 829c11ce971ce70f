/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of cause.h.
 *
 * Room: transport.
 */
#include "transport/cause.h"

static const struct {
	const char *word, *text;
	enum fx_async async;
} causes[] = {{"none", "nothing", FX_ASYNC_NONE},
#define X(name, word, async, text) {word, text, FX_ASYNC_##async},
	      FX_CAUSE_LIST(X)
#undef X
};

static unsigned row(enum fx_cause cause)
{
	return cause > FX_CAUSE_BASE && cause < FX_CAUSE_END ? (unsigned)cause - FX_CAUSE_BASE : 0;
}

const char *fx_cause_text(enum fx_cause cause)
{
	return causes[row(cause)].text;
}

const char *fx_cause_word(enum fx_cause cause)
{
	return causes[row(cause)].word;
}

enum fx_async fx_cause_async(enum fx_cause cause)
{
	return causes[row(cause)].async;
}
