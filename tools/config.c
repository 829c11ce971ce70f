/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flexinsd's configuration file: sections [core], [quota] and [quota user NAME-or-UID] of KEY = VALUE lines, and
 * comments after #. See flexinsd.conf.example.
 *
 * Room: tools. May use: librte_cfgfile, control/quota.h. DPDK ends here: control is handed plain structures. A name
 * of a user is looked up once, before the core serves anybody.
 */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cfgfile.h>
#include <rte_log.h>

#include "greet.h"
#include "options.h"

enum {
	MAX_USERS = 4096,
	MAX_ENTRIES = 64,
	MAX_LINE = CFG_NAME_LEN + CFG_VALUE_LEN, /* the library's, but for three */
};

#define QUOTA_USER "quota user "
#define SECTIONS "[core], [quota] and [quota user NAME-or-UID]"

/* Where something is wrong, and where to say it. */
struct place {
	const char *path, *section;
	char *why;
	size_t size;
	bool seen[2]; /* [core], [quota] */
};

/* `e`: the line, if it is one. */
__attribute__((format(printf, 3, 4))) static int refuse(const struct place *p,
							const struct rte_cfgfile_entry *e, const char *fmt,
							...)
{
	int at = snprintf(p->why, p->size, "%.200s: ", p->path);
	va_list ap;

	if (p->section)
		at += snprintf(p->why + at, p->size - (size_t)at, "[%s]", p->section);
	if (e)
		at += snprintf(p->why + at, p->size - (size_t)at, " %s = %.64s", e->name, e->value);
	at += snprintf(p->why + at, p->size - (size_t)at, "%s", p->section ? ": " : "");
	va_start(ap, fmt);
	vsnprintf(p->why + at, p->size - (size_t)at, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ---- quotas ---- */

/* A number with K, M, G or T for powers of 1024, or `unlimited`. */
static bool amount(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	unsigned long long n;
	const char *unit;
	unsigned shift = 0;
	char *end;

	*out = FX_UNLIMITED;
	if (!strcmp(text, "unlimited"))
		return true;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || errno)
		return false;
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (*end || n > UINT64_MAX >> 1 >> shift)
		return false;
	*out = n << shift;
	return true;
}

static int set_quota(const struct place *p, struct fx_quota *q, const struct rte_cfgfile_entry *e)
{
	char keys[256] = "";

	for (int k = FX_QUOTA_NONE + 1; k < FX_QUOTA_KINDS; k++) {
		const char *key = fx_quota_info[k].key;

		if (!strcmp(key, e->name))
			return amount(e->value, &q->limit[k])
				       ? 0
				       : refuse(p, e,
						"a number, perhaps with K, M, G or T for powers of 1024, or "
						"unlimited");
		snprintf(keys + strlen(keys), sizeof(keys) - strlen(keys), " %s", key);
	}
	return refuse(p, e, "there is no such key, but%s", keys);
}

static int find_uid(const struct place *p, const char *user, uid_t *uid)
{
	const struct passwd *pw = getpwnam(user);
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(user, &end, 10);
	if (pw)
		*uid = pw->pw_uid;
	else if (*user >= '0' && *user <= '9' && !*end && !errno && n < (uid_t)-1)
		*uid = (uid_t)n;
	else
		return refuse(p, NULL, "there is no user %.64s: the name of one, or a number", user);
	return 0;
}

/* -> the quota of the section's user, which starts as everybody's; NULL: refused */
static struct fx_quota *add_user(const struct place *p, struct fx_quota_cfg *cfg, const char *user)
{
	struct fx_quota_user *more;
	uid_t uid = 0;

	if (find_uid(p, user, &uid) < 0)
		return NULL;
	for (uint32_t i = 0; i < cfg->nusers; i++)
		if (cfg->users[i].uid == uid) {
			refuse(p, NULL, "user %u has a section already: one for each", (unsigned)uid);
			return NULL;
		}
	more = cfg->nusers < MAX_USERS ? realloc(cfg->users, (cfg->nusers + 1) * sizeof(*more)) : NULL;
	if (!more) {
		refuse(p, NULL, "too many users: at most %d", MAX_USERS);
		return NULL;
	}
	cfg->users = more;
	more[cfg->nusers] = (struct fx_quota_user){.uid = uid, .quota = cfg->others};
	return &more[cfg->nusers++].quota;
}

/* ---- sections ---- */

static int check_entries(const struct place *p, const struct rte_cfgfile_entry *e, int n)
{
	for (int i = 0; i < n; i++) {
		if (strlen(e[i].name) >= CFG_NAME_LEN - 1 || strlen(e[i].value) >= CFG_VALUE_LEN - 1)
			return refuse(p, &e[i], "too long: a key has at most %d characters, a value %d",
				      CFG_NAME_LEN - 2, CFG_VALUE_LEN - 2);
		for (int k = 0; k < i; k++)
			if (!strcmp(e[k].name, e[i].name))
				return refuse(p, &e[i], "it is there twice, once is allowed");
	}
	return 0;
}

static int set_core(const struct place *p, struct fx_options *o, const struct rte_cfgfile_entry *e)
{
	/* the library's own copy stays as long as the options do */
	const char *allowed = fx_option_set(o, e->name, rte_cfgfile_get_entry(o->file, "core", e->name));

	return allowed ? refuse(p, e, "%s", allowed) : 0;
}

/* Users' sections start from [quota], wherever that one stands: so they are read in a pass of their own. */
enum pass { FOR_ALL, FOR_USERS };

static int read_section(struct place *p, struct fx_options *o, int index, enum pass pass)
{
	struct rte_cfgfile_entry e[MAX_ENTRIES];
	struct fx_quota *q = &o->quota.others;
	char name[CFG_NAME_LEN];
	int n = rte_cfgfile_section_num_entries_by_index(o->file, name, index), err;
	bool of_user = !strncmp(name, QUOTA_USER, strlen(QUOTA_USER));

	if (of_user != (pass == FOR_USERS))
		return 0;
	p->section = name;
	if (!of_user && strcmp(name, "core") && strcmp(name, "quota"))
		return refuse(p, NULL, "there is no such section, but " SECTIONS);
	if (!of_user && p->seen[*name == 'q'])
		return refuse(p, NULL, "it is there twice, once is allowed");
	p->seen[*name == 'q'] |= !of_user;
	if (n > MAX_ENTRIES)
		return refuse(p, NULL, "it has %d lines: at most %d are allowed", n, MAX_ENTRIES);
	n = rte_cfgfile_section_entries_by_index(o->file, index, name, e, MAX_ENTRIES);
	err = check_entries(p, e, n);
	if (!err && of_user) {
		q = add_user(p, &o->quota, name + strlen(QUOTA_USER));
		err = q ? 0 : -EINVAL;
	}
	for (int i = 0; i < n && !err; i++)
		err = strcmp(name, "core") ? set_quota(p, q, &e[i]) : set_core(p, o, &e[i]);
	return err;
}

/* ---- the file ---- */

/* The library passes over lines that it does not understand: these are refused here, and those too long for it. */
static int check_lines(const struct place *p, FILE *f)
{
	char line[MAX_LINE + 2];
	bool section = false;

	for (unsigned n = 1; fgets(line, sizeof(line), f); n++) {
		const char *at = line + strspn(line, " \t\r\n");

		if (strlen(line) > MAX_LINE)
			return refuse(p, NULL, "line %u is longer than %d characters", n, MAX_LINE);
		if (!*at || *at == '#')
			continue;
		section |= *at == '[';
		if (*at != '[' && (!section || !strchr(at, '=')))
			return refuse(p, NULL,
				      "line %u is no [SECTION], no KEY = VALUE behind one, and no # comment",
				      n);
	}
	return ferror(f) ? refuse(p, NULL, "cannot be read: %s", strerror(errno)) : 0;
}

/* What the library says of a file that it cannot parse goes into `why`. */
static int load(const struct place *p, struct fx_options *o)
{
	const struct rte_cfgfile_parameters comment = {.comment_character = '#'};
	char said[256] = "";
	FILE *log = fmemopen(said, sizeof(said), "w");

	if (log)
		rte_openlog_stream(log);
	o->file = rte_cfgfile_load_with_params(p->path, 0, &comment);
	rte_openlog_stream(NULL);
	if (log)
		fclose(log);
	said[strcspn(said, "\n")] = '\0';
	return o->file ? 0 : refuse(p, NULL, "it has to have " SECTIONS " with lines KEY = VALUE (%s)", said);
}

int fx_config_read(struct fx_options *o, const char *path, char *why, size_t size)
{
	struct place p = {.path = path, .why = why, .size = size};
	FILE *f = fopen(path, "re");
	int err, n;

	if (!f)
		return refuse(&p, NULL, "cannot be opened: %s", strerror(errno));
	err = check_lines(&p, f);
	fclose(f);
	if (!err)
		err = load(&p, o);
	n = err ? 0 : rte_cfgfile_num_sections(o->file, NULL, 0);
	for (int pass = FOR_ALL; pass <= FOR_USERS; pass++)
		for (int i = 0; i < n && !err; i++)
			err = read_section(&p, o, i, (enum pass)pass);
	return err;
}
