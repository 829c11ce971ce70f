/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion channels: a pipe each, so that the application can wait for one channel and not for another. The core
 * keeps the write end, which never blocks it; the read end is the client's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

int fx_create_channel(struct fx_client *c)
{
	struct fx_channelo *ch = calloc(1, sizeof(*ch));
	int err = ch ? fx_obj_add(c->ctx, &ch->obj, FX_OBJ_CHANNEL)
		     : fx_refuse(c, -ENOMEM, "cannot allocate a completion channel");

	if (err) {
		free(ch);
		return err;
	}
	ch->wake = FX_NO_WAKE;
	err = c->ctl->cfg.place->wake_open(c->ctx, &ch->wake, ch->obj.handle);
	if (err) {
		fx_channel_free(ch);
		return fx_refuse(c, err, "cannot make the pipe of a completion channel: %s", strerror(-err));
	}
	c->rep.handle_rep.handle = ch->obj.handle;
	c->fds[0] = ch->wake.ear; /* closed here with the reply */
	c->nfds = ch->wake.ear >= 0;
	ch->wake.ear = -1;
	return 0;
}

void fx_channel_free(struct fx_channelo *ch)
{
	ch->obj.ctx->ctl->cfg.place->wake_close(&ch->wake);
	fx_obj_del(&ch->obj);
	free(ch);
}

int fx_destroy_channel(struct fx_client *c)
{
	struct fx_channelo *ch = fx_obj_get(c, FX_OBJ_CHANNEL, c->req.handle.handle);

	if (!ch)
		return -EINVAL;
	if (ch->obj.refs)
		return fx_refuse(c, -EBUSY, "completion channel %#x is used by %u CQs: destroy them first",
				 ch->obj.handle, ch->obj.refs);
	c->rep.handle_rep.handle = ch->obj.handle;
	fx_channel_free(ch);
	return 0;
}
