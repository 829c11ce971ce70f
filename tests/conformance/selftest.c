/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tries the program itself: rows that end in every way there is, and what is made of them.
 *
 * Room: tests. May use: libc.
 */
#include <signal.h>
#include <unistd.h>

#include "report.h"

static void passes(const struct row *row)
{
	(void)row;
	row_note("a note");
}

static void fails(const struct row *row)
{
	NEED_EQ(row->a, 1);
}

static void skips(const struct row *row)
{
	(void)row;
	row_skipped("there is no moon");
}

static void crashes(const struct row *row)
{
	raise((int)row->a);
}

static void hangs(const struct row *row)
{
	(void)row;
	for (;;)
		pause();
}

static void leaves(const struct row *row)
{
	_exit((int)row->a);
}

static const struct {
	struct row row;
	enum result result;
	const char *why;
} tries[] = {
	{{"passes", "", passes}, ROW_PASS, ""},
	{{"fails", "", fails, .a = 2}, ROW_FAIL, "row->a is 2 where 1 belongs"},
	{{"skips", "", skips}, ROW_SKIP, "there is no moon"},
	{{"crashes", "", crashes, .a = SIGSEGV}, ROW_FAIL, "it died of Segmentation fault"},
	{{"aborts", "", crashes, .a = SIGABRT}, ROW_FAIL, "it died of Aborted"},
	{{"hangs", "", hangs, .seconds = 1}, ROW_FAIL, "still running after 1 s"},
	{{"ends", "", leaves, .a = 3}, ROW_FAIL, "it ended with status 3"},
	{{"ends as if all were well", "", leaves, .a = 0}, ROW_FAIL, "it ended without a result"},
	{{"passes after all that", "", passes}, ROW_PASS, ""},
};

/* What an outcome is worth, by whether it is on the list of those that fail. */
static bool judged_right(struct outcome o)
{
	o.expected = NULL;
	if (outcome_bad(&o) != (o.result == ROW_FAIL))
		return false;
	o.expected = "known";
	return outcome_bad(&o) == (o.result != ROW_FAIL);
}

int self_test(struct outcome (*run)(const struct section *s, const struct row *row))
{
	static const struct section section = {"self", "the program itself", NULL, 0};
	int bad = 0;

	for (size_t i = 0; i < COUNT(tries); i++) {
		struct outcome o = run(&section, &tries[i].row);

		if (o.result == tries[i].result && strstr(o.why, tries[i].why) && judged_right(o))
			continue;
		printf("%s: result %d, %s\n", tries[i].row.name, (int)o.result, o.why);
		bad = 1;
	}
	return bad;
}
