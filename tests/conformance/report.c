/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table: lines for people, JSON for programs, Markdown for docs/conformance.md. The last has no times and no measured
 * values, so that every run over the same device prints the same.
 *
 * Room: tests. May use: libc.
 */
#include <stdlib.h>

#include "report.h"

/* ---- rows that are known to fail ---- */

enum { MAX_EXPECTED = 100, LINE = 300, NAME = 100 };

static struct expected {
	char name[LINE];
	char why[LINE];
} expected[MAX_EXPECTED];
static size_t nexpected;

static bool known(const char *name)
{
	char full[NAME];

	for (const struct section *const *s = sections; *s; s++)
		for (size_t i = 0; i < (*s)->count; i++) {
			snprintf(full, sizeof(full), "%s/%s", (*s)->name, (*s)->rows[i].name);
			if (!strcmp(full, name))
				return true;
		}
	return false;
}

static void expected_line(const char *path, char *line)
{
	struct expected *e = &expected[nexpected];
	char *why;

	line[strcspn(line, "\n")] = '\0';
	if (!line[0] || line[0] == '#')
		return;
	why = strchr(line, '\t');
	if (why)
		*why++ = '\0';
	if (!why || !known(line) || nexpected == MAX_EXPECTED) {
		fprintf(stderr, "conformance: %s: %s: %s\n", path, line, why ? "no such row" : "no reason");
		exit(2);
	}
	snprintf(e->name, sizeof(e->name), "%s", line);
	snprintf(e->why, sizeof(e->why), "%s", why);
	nexpected++;
}

void expected_read(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[LINE];

	if (!f) {
		perror(path);
		exit(2);
	}
	while (fgets(line, sizeof(line), f))
		expected_line(path, line);
	fclose(f);
}

const char *expected_reason(const struct section *s, const struct row *row)
{
	char full[NAME];

	snprintf(full, sizeof(full), "%s/%s", s->name, row->name);
	for (size_t i = 0; i < nexpected; i++)
		if (!strcmp(expected[i].name, full))
			return expected[i].why;
	return NULL;
}

/* ---- words ---- */

bool outcome_bad(const struct outcome *o)
{
	return o->expected ? o->result != ROW_FAIL : o->result == ROW_FAIL;
}

static const char *word(const struct outcome *o)
{
	static const char *const words[] = {[ROW_PASS] = "pass", [ROW_FAIL] = "FAIL", [ROW_SKIP] = "skip"};

	if (o->expected)
		return o->result == ROW_FAIL ? "not yet" : "UNEXPECTED";
	return words[o->result];
}

static const char *remark(const struct outcome *o)
{
	if (o->expected && o->result != ROW_FAIL)
		return "it is listed as failing: take it off the list";
	return o->why[0] ? o->why : o->note;
}

void report_line(FILE *out, const struct outcome *o)
{
	fprintf(out, "%-11s %-40s %-10s %5u ms  %s\n", o->section->name, o->row->name, word(o), o->ms,
		remark(o));
	if (o->expected)
		fprintf(out, "%-11s %-40s %-10s %8s  expected: %s\n", "", "", "", "", o->expected);
	fflush(out);
}

struct counts {
	size_t pass, skip, not_yet, bad;
};

static struct counts count(const struct outcome *o, size_t n)
{
	struct counts c = {0};

	for (size_t i = 0; i < n; i++) {
		c.bad += outcome_bad(&o[i]);
		c.not_yet += o[i].expected && !outcome_bad(&o[i]);
		c.pass += !o[i].expected && o[i].result == ROW_PASS;
		c.skip += !o[i].expected && o[i].result == ROW_SKIP;
	}
	return c;
}

void report_summary(FILE *out, const struct outcome *o, size_t n)
{
	struct counts c = count(o, n);

	fprintf(out, "%zu rows: %zu pass, %zu skip, %zu not yet, %zu wrong\n", n, c.pass, c.skip, c.not_yet,
		c.bad);
}

/* ---- JSON ---- */

static void json_string(FILE *out, const char *s)
{
	fputc('"', out);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', out);
		fputc((unsigned char)*s < ' ' ? ' ' : *s, out);
	}
	fputc('"', out);
}

static void json_field(FILE *out, const char *name, const char *value)
{
	fprintf(out, "\"%s\": ", name);
	json_string(out, value);
	fputs(", ", out);
}

void report_json(FILE *out, const struct outcome *o, size_t n)
{
	fputs("[", out);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? ",\n {" : "\n {", out);
		json_field(out, "section", o[i].section->name);
		json_field(out, "row", o[i].row->name);
		json_field(out, "clause", o[i].row->clause);
		json_field(out, "result", word(&o[i]));
		json_field(out, "why", o[i].why);
		json_field(out, "note", o[i].note);
		fprintf(out, "\"ms\": %u}", o[i].ms);
	}
	fputs("\n]\n", out);
}

/* ---- Markdown ---- */

void report_markdown(FILE *out, const struct outcome *o, size_t n)
{
	const struct section *last = NULL;

	for (size_t i = 0; i < n; i++) {
		const char *why = o[i].expected ? o[i].expected : o[i].result == ROW_SKIP ? o[i].why : "";

		if (o[i].section != last) {
			last = o[i].section;
			fprintf(out, "\n## %s: %s\n\n| row | clause | result | |\n|---|---|---|---|\n",
				last->name, last->title);
		}
		fprintf(out, "| %s | %s | %s | %s |\n", o[i].row->name, o[i].row->clause, word(&o[i]), why);
	}
}
