/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flexinsctl: what a core holds and has counted, for people (tables) and for programs (--json).
 *
 * Room: tools. May use: jansson, control/protocol.h. The core makes the document; this program knows only
 * JSON's shapes, so whatever a core adds is shown: objects as keys and values, arrays of objects as tables.
 */
#include <getopt.h>
#include <jansson.h>
#include <sys/mman.h>

#include "greet.h"

enum { EXIT_NO_CORE = 1, EXIT_USAGE = 2 };
enum { MAX_COLUMNS = 64, MAX_TEXT = 256, TURN_COLUMNS = 12, TURN_ROWS = 4 };

static const char usage_text[] = "Usage: flexinsctl [OPTIONS] show [SECTION]\n"
				 "Shows a running core: all of it, or one section.\n"
				 "\n"
				 "  SECTION       device, users, contexts, qps, mrs, ports or counters\n"
				 "  --core NAME   which core (default: default)\n"
				 "  --json        the core's document, for programs\n"
				 "  --help, --version\n"
				 "\n"
				 "Exit status: 0; 1 when no core answers; 2 for a wrong command line.\n";

struct options {
	const char *core;
	const char *section;
	bool json;
};

/* A value in one cell: what is deeper than a list of plain values stays JSON. */
static void cell(json_t *value, char *text, size_t size)
{
	char *dump;

	if (!value || json_is_null(value)) {
		fx_text(text, size, "-");
	} else if (json_is_string(value)) {
		fx_text(text, size, "%s", json_string_value(value));
	} else if (json_is_integer(value)) {
		fx_text(text, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	} else if (json_is_real(value)) {
		fx_text(text, size, "%g", json_real_value(value));
	} else if (json_is_boolean(value)) {
		fx_text(text, size, "%s", json_is_true(value) ? "yes" : "no");
	} else {
		dump = json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
		fx_text(text, size, "%s", dump ? dump : "?");
		free(dump);
	}
	for (char *p = text; *p;
	     p++) /* a program's name is its own choice: nothing reaches the terminal raw */
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
}

/* Display columns of UTF-8 text: its bytes less the continuation bytes. */
static int columns(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

static void pad(const char *text, int width, bool right)
{
	int gap = width - columns(text);

	printf("%*s%s%*s", right && gap > 0 ? gap : 0, "", text, !right && gap > 0 ? gap : 0, "");
}

static bool is_table(json_t *value)
{
	size_t i;
	json_t *row;

	if (!json_is_array(value) || json_array_size(value) == 0)
		return false;
	json_array_foreach(value, i, row) if (!json_is_object(row)) return false;
	return true;
}

/* {"a": {"b": 1}, "c": [{"d": 2}]} becomes {"a.b": 1, "c[0].d": 2}. */
static void flatten(json_t *to, const char *prefix, json_t *from)
{
	char name[MAX_TEXT];
	const char *key;
	json_t *value, *part;
	size_t i;

	json_object_foreach(from, key, value)
	{
		fx_text(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
		if (json_is_object(value)) {
			flatten(to, name, value);
		} else if (is_table(value)) {
			json_array_foreach(value, i, part)
			{
				char one[MAX_TEXT + 24];

				fx_text(one, sizeof(one), "%s[%zu]", name, i);
				flatten(to, one, part);
			}
		} else {
			json_object_set(to, name, value);
		}
	}
}

struct table {
	const char *key[MAX_COLUMNS];
	int width[MAX_COLUMNS];
	bool right[MAX_COLUMNS];
	int columns;
};

/* The columns are the rows' keys, in the order in which they first appear. */
static void measure(json_t *rows, struct table *t)
{
	char text[MAX_TEXT];
	const char *key;
	json_t *row, *value;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		json_object_foreach(row, key, value)
		{
			int c = 0;

			while (c < t->columns && strcmp(t->key[c], key) != 0)
				c++;
			if (c == MAX_COLUMNS)
				continue;
			if (c == t->columns) {
				t->columns++;
				t->key[c] = key;
				t->width[c] = columns(key);
				t->right[c] = true;
			}
			cell(value, text, sizeof(text));
			t->width[c] = columns(text) > t->width[c] ? columns(text) : t->width[c];
			t->right[c] = t->right[c] && (json_is_number(value) || json_is_null(value));
		}
	}
}

static void print_rows(json_t *rows, const struct table *t, int indent)
{
	char text[MAX_TEXT];
	json_t *row;
	size_t i;

	printf("%*s", indent, "");
	for (int c = 0; c < t->columns; c++) {
		pad(t->key[c], c + 1 < t->columns || t->right[c] ? t->width[c] : 0, t->right[c]);
		printf("%s", c + 1 < t->columns ? "  " : "\n");
	}
	json_array_foreach(rows, i, row)
	{
		printf("%*s", indent, "");
		for (int c = 0; c < t->columns; c++) {
			cell(json_object_get(row, t->key[c]), text, sizeof(text));
			pad(text, c + 1 < t->columns || t->right[c] ? t->width[c] : 0, t->right[c]);
			printf("%s", c + 1 < t->columns ? "  " : "\n");
		}
	}
}

/* Few rows of many columns: a line for every column. */
static void print_turned(json_t *rows, const struct table *t, int indent)
{
	int width[TURN_ROWS] = {0}, keys = 0;
	char text[MAX_TEXT];
	json_t *row;
	size_t i;

	for (int c = 0; c < t->columns; c++) {
		keys = columns(t->key[c]) > keys ? columns(t->key[c]) : keys;
		json_array_foreach(rows, i, row)
		{
			cell(json_object_get(row, t->key[c]), text, sizeof(text));
			width[i] = columns(text) > width[i] ? columns(text) : width[i];
		}
	}
	for (int c = 0; c < t->columns; c++) {
		printf("%*s", indent, "");
		pad(t->key[c], keys, false);
		json_array_foreach(rows, i, row)
		{
			cell(json_object_get(row, t->key[c]), text, sizeof(text));
			printf("  ");
			pad(text, i + 1 < json_array_size(rows) ? width[i] : 0, false);
		}
		putchar('\n');
	}
}

static void print_table(json_t *deep, int indent)
{
	json_t *rows = json_array(), *row;
	struct table t = {0};
	size_t i;

	json_array_foreach(deep, i, row)
	{
		json_t *flat = json_object();

		flatten(flat, "", row);
		json_array_append_new(rows, flat);
	}
	measure(rows, &t);
	if (t.columns > TURN_COLUMNS && json_array_size(rows) <= TURN_ROWS)
		print_turned(rows, &t, indent);
	else
		print_rows(rows, &t, indent);
	json_decref(rows);
}

static void print_value(json_t *value, int indent);

/* Plain members first, aligned, then the deeper ones under their names. */
static void print_object(json_t *object, int indent)
{
	bool numbers = true;
	char text[MAX_TEXT];
	const char *key;
	json_t *value;
	int width = 0, wide = 0;

	json_object_foreach(object, key, value)
	{
		if (json_is_object(value) || is_table(value))
			continue;
		cell(value, text, sizeof(text));
		width = columns(key) > width ? columns(key) : width;
		wide = columns(text) > wide ? columns(text) : wide;
		numbers = numbers && json_is_number(value);
	}
	json_object_foreach(object, key, value)
	{
		if (json_is_object(value) || is_table(value))
			continue;
		cell(value, text, sizeof(text));
		printf("%*s", indent, "");
		pad(key, width, false);
		printf("  ");
		pad(text, numbers ? wide : 0, numbers);
		putchar('\n');
	}
	json_object_foreach(object, key, value)
	{
		if (!json_is_object(value) && !is_table(value))
			continue;
		printf("%*s%s\n", indent, "", key);
		print_value(value, indent + 2);
	}
}

static void print_value(json_t *value, int indent)
{
	char text[MAX_TEXT];

	if (is_table(value)) {
		print_table(value, indent);
	} else if (json_is_object(value) && json_object_size(value)) {
		print_object(value, indent);
	} else if ((json_is_array(value) || json_is_object(value)) && json_dumpb(value, NULL, 0, 0) <= 2) {
		printf("%*snone\n", indent, "");
	} else {
		cell(value, text, sizeof(text));
		printf("%*s%s\n", indent, "", text);
	}
}

static void print_document(json_t *doc, const char *section)
{
	const char *key;
	json_t *value;
	bool plain = false, first = true;

	if (section) {
		print_value(json_object_get(doc, section), 0);
		return;
	}
	json_object_foreach(doc, key, value)
	{
		char text[MAX_TEXT];

		if (json_is_object(value) || json_is_array(value))
			continue;
		cell(value, text, sizeof(text));
		printf("%s%s %s", plain ? ", " : "", key, text);
		plain = true;
	}
	if (plain)
		putchar('\n');
	json_object_foreach(doc, key, value)
	{
		if (!json_is_object(value) && !json_is_array(value))
			continue;
		printf("%s%s\n", first && !plain ? "" : "\n", key);
		first = false;
		print_value(value, 2);
	}
}

/* -> a connection whose greeting was accepted, or -1 with the reason said */
static int reach_core(const char *name)
{
	struct fx_core_info info = {0};
	int fd = fx_connect(name, &info), err;

	if (fx_nobody(fd)) {
		fprintf(stderr,
			"flexinsctl: no core called %s is running (no answer at %s); flexinsd --name %s starts one\n",
			name, info.sock, name);
		return -1;
	}
	if (fd < 0) {
		fprintf(stderr, "flexinsctl: cannot connect to %s: %s\n", info.sock, strerror(-fd));
		return -1;
	}
	err = fx_greet(fd, "flexinsctl", &info);
	if (err == 0)
		return fd;
	if (info.why[0])
		fprintf(stderr, "flexinsctl: the core %s refused: %s\n", name, info.why);
	else
		fprintf(stderr,
			"flexinsctl: the core at %s does not answer as flexinsctl %s expects (%s): "
			"is it of another version?\n",
			info.sock, FLEXINS_VERSION, strerror(-err));
	close(fd);
	return -1;
}

/* -> the document, or NULL with the reason said */
static char *fetch(int fd, size_t *size)
{
	struct fx_handle_req req = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_SHOW, .seq = 1, .size = sizeof(req)}};
	struct fx_handle_rep rep = {0};
	struct fx_core_info info = {0};
	struct stat st;
	char *text = NULL;
	int doc = -1, err = fx_call(fd, &req, &rep, sizeof(rep), &doc, &info);

	if (!err && (doc < 0 || fstat(doc, &st) < 0))
		err = -EPROTO;
	if (!err) {
		*size = (size_t)st.st_size;
		text = calloc(1, *size + 1);
		if (!text || pread(doc, text, *size, 0) != st.st_size)
			err = -EIO;
	}
	if (doc >= 0)
		close(doc);
	if (!err)
		return text;
	fprintf(stderr, "flexinsctl: the core would not show itself: %s\n",
		info.why[0] ? info.why : strerror(-err));
	free(text);
	return NULL;
}

static int dump(json_t *doc, const char *section)
{
	json_t *part = section ? json_object_get(doc, section) : doc;
	int err = json_dumpf(part, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);

	putchar('\n');
	return err;
}

static int show(const struct options *o)
{
	int fd = reach_core(o->core), status = EXIT_NO_CORE;
	json_error_t error;
	json_t *doc;
	char *text;
	size_t size;

	if (fd < 0)
		return EXIT_NO_CORE;
	text = fetch(fd, &size);
	close(fd);
	if (!text)
		return EXIT_NO_CORE;
	doc = json_loadb(text, strnlen(text, size), 0, &error);
	free(text);
	if (!json_is_object(doc)) {
		fprintf(stderr, "flexinsctl: the core's answer is not a JSON document: %s\n", error.text);
	} else if (o->section && !json_object_get(doc, o->section)) {
		fprintf(stderr, "flexinsctl: this core shows no %s; it has:", o->section);
		for (void *i = json_object_iter(doc); i; i = json_object_iter_next(doc, i))
			fprintf(stderr, " %s", json_object_iter_key(i));
		fputc('\n', stderr);
		status = EXIT_USAGE;
	} else if (o->json) {
		status = dump(doc, o->section) ? EXIT_NO_CORE : 0;
	} else {
		print_document(doc, o->section);
		status = 0;
	}
	json_decref(doc);
	return fflush(stdout) ? EXIT_NO_CORE : status;
}

/* -> an exit status, or -1 to go on; options may stand before and after `show`. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option list[] = {
		{"core", required_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "hj", list, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->core = optarg;
			break;
		case 'j':
			o->json = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		case 'v':
			puts("flexinsctl " FLEXINS_VERSION);
			return 0;
		default:
			return EXIT_USAGE;
		}
	}
	if (!fx_name_ok(o->core)) {
		fprintf(stderr, "flexinsctl: %s is no name for a core\n", o->core);
		return EXIT_USAGE;
	}
	if (optind == argc || strcmp(argv[optind], "show") != 0 || argc - optind > 2) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	o->section = argv[optind + 1];
	return -1;
}

int main(int argc, char **argv)
{
	const char *core = getenv("FLEXINS_CORE");
	struct options o = {.core = core && *core ? core : "default"};
	int status = parse(argc, argv, &o);

	return status >= 0 ? status : show(&o);
}
