/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion channels: a pipe each, so that the application can wait for one channel and not for another. The core
 * keeps the write end, which never blocks it; the read end is the client's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/inside.h"

static int make_pipe(struct fx_client *c, int fd[2])
{
	int err = pipe2(fd, O_CLOEXEC) < 0 ? errno : 0;

	if (!err && fcntl(fd[1], F_SETFL, O_NONBLOCK) < 0) {
		err = errno;
		close(fd[0]);
		close(fd[1]);
	}
	return err ? fx_refuse(c, -err, "cannot make the pipe of a completion channel: %s", strerror(err)) : 0;
}

int fx_create_channel(struct fx_client *c)
{
	struct fx_channelo *ch;
	int fd[2], err = make_pipe(c, fd);

	if (err)
		return err;
	ch = calloc(1, sizeof(*ch));
	err = ch ? fx_obj_add(c->ctx, &ch->obj, FX_OBJ_CHANNEL)
		 : fx_refuse(c, -ENOMEM, "cannot allocate a completion channel");
	if (err) {
		free(ch);
		close(fd[0]);
		close(fd[1]);
		return err;
	}
	ch->wake = fd[1];
	c->rep.handle_rep.handle = ch->obj.handle;
	c->fds[0] = fd[0]; /* closed here with the reply */
	c->nfds = 1;
	return 0;
}

void fx_channel_free(struct fx_channelo *ch)
{
	close(ch->wake);
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
