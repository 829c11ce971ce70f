/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * XRC domains. Contexts of several processes have one in common if they open it with the same file: the file is what gives
 * them the right to. A domain without a file has one owner. It ends when nobody has it open.
 *
 * Room: control. May use: /proc, to see which file a client's descriptor is; the client has it open, whatever it says.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/inside.h"

/* Below an index that no context has: so ids of domains and contexts differ, and those of domains come back late. */
enum { SEQS = FX_HANDLE_GENS - 1, NO_INDEX = (1 << FX_HANDLE_INDEX_BITS) - 1 };
static_assert((int)FX_LIMIT_XRCD < (int)SEQS, "every domain has an id");

static struct fx_domain *find(struct fx_control *ctl, const struct stat *st)
{
	struct fx_domain *d = ctl->domains;

	while (d && !(d->named && d->dev == st->st_dev && d->ino == st->st_ino))
		d = d->next;
	return d;
}

static uint32_t new_id(struct fx_control *ctl)
{
	struct fx_domain *d;
	uint32_t id;

	do {
		ctl->domain_seq = ctl->domain_seq % SEQS + 1;
		id = ctl->domain_seq << FX_HANDLE_INDEX_BITS | NO_INDEX;
		for (d = ctl->domains; d && d->id != id;)
			d = d->next;
	} while (d);
	return id;
}

static struct fx_domain *new_domain(struct fx_control *ctl, const struct stat *st)
{
	struct fx_wctx *w = aligned_alloc(FX_LINE, (sizeof(*w) + FX_LINE - 1) / FX_LINE * FX_LINE);
	struct fx_domain *d = calloc(1, sizeof(*d));

	if (!w || !d) {
		free(w);
		free(d);
		return NULL;
	}
	*d = (struct fx_domain){.next = ctl->domains, .id = new_id(ctl), .named = st != NULL, .w = w};
	*w = (struct fx_wctx){.id = d->id, .kick = -1, .dead = true};
	if (st) {
		d->dev = st->st_dev;
		d->ino = st->st_ino;
	}
	ctl->domains = d;
	return d;
}

static void release(struct fx_control *ctl, struct fx_domain *d)
{
	struct fx_domain **p = &ctl->domains;

	if (d->refs)
		return;
	while (*p != d)
		p = &(*p)->next;
	*p = d->next;
	free(d->w);
	free(d);
}

/* The file of the request; -1 has none. 0 or a negative errno. */
static int look(struct fx_client *c, struct stat *st)
{
	int fd = c->req.open_xrcd.fd;
	char path[48];

	if (c->req.open_xrcd.oflags & ~(uint32_t)(O_CREAT | O_EXCL))
		return fx_refuse(c, -EINVAL, "oflags %#x: an XRC domain knows O_CREAT and O_EXCL",
				 c->req.open_xrcd.oflags);
	if (fd < 0)
		return fd == -1 ? 0 : -EBADF;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)c->ctx->pid, fd);
	if (stat(path, st) < 0)
		return fx_refuse(c, errno == ENOENT ? -EBADF : -errno, "%s, the file of an XRC domain: %s",
				 path, strerror(errno));
	return 0;
}

static int get_domain(struct fx_client *c, struct fx_domain **out)
{
	const struct fx_open_xrcd_req *req = &c->req.open_xrcd;
	struct stat st = {0};
	int err = look(c, &st);

	if (err)
		return err;
	*out = req->fd >= 0 ? find(c->ctl, &st) : NULL;
	if (*out && req->oflags & O_EXCL)
		return fx_refuse(c, -EINVAL, "the file's XRC domain exists already");
	if (!*out && req->fd >= 0 && !(req->oflags & O_CREAT))
		return fx_refuse(c, -EAGAIN, "the file has no XRC domain: open it with O_CREAT");
	if (!*out)
		*out = new_domain(c->ctl, req->fd >= 0 ? &st : NULL);
	return *out ? 0 : fx_refuse(c, -ENOMEM, "cannot allocate an XRC domain");
}

int fx_open_xrcd(struct fx_client *c)
{
	struct fx_xrcdo *x = calloc(1, sizeof(*x));
	struct fx_domain *d = NULL;
	int err = x ? get_domain(c, &d) : fx_refuse(c, -ENOMEM, "cannot allocate an XRC domain");

	if (!err) {
		err = fx_obj_add(c->ctx, &x->obj, FX_OBJ_XRCD);
		if (err)
			release(c->ctl, d);
	}
	if (err) {
		free(x);
		return err;
	}
	x->d = d;
	d->refs++;
	c->rep.handle_rep.handle = x->obj.handle;
	return 0;
}

void fx_xrcd_free(struct fx_xrcdo *x)
{
	x->d->refs--;
	release(x->obj.ctx->ctl, x->d);
	fx_obj_del(&x->obj);
	free(x);
}

int fx_close_xrcd(struct fx_client *c)
{
	struct fx_xrcdo *x = fx_obj_get(c, FX_OBJ_XRCD, c->req.handle.handle);

	if (!x)
		return -EINVAL;
	if (x->obj.refs)
		return fx_refuse(c, -EBUSY, "XRC domain %#x is used by %u SRQs and QPs: destroy them first",
				 x->obj.handle, x->obj.refs);
	c->rep.handle_rep.handle = x->obj.handle;
	fx_xrcd_free(x);
	return 0;
}
