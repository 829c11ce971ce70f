/* SPDX-License-Identifier: BSD-3-Clause */
/* Which message is which request, what it must look like, and who may send it. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "control/inside.h"

enum { HOST = 1 << FX_ROLE_HOST, CTL = 1 << FX_ROLE_CTL };

/* One row a request: its exact size, the roles that may send it, the reply's size, what it does. */
static const struct request {
	const char *name;
	uint16_t size, reply;
	uint32_t roles;
	int (*run)(struct fx_client *c);
} requests[FX_MSG_COUNT] = {
#define HANDLE sizeof(struct fx_handle_req)
	[FX_MSG_AUTH] = {"AUTH", sizeof(struct fx_auth_req), sizeof(struct fx_auth_rep), 0, fx_auth},
	[FX_MSG_HELLO] = {"HELLO", sizeof(struct fx_hello_req), sizeof(struct fx_hello_rep), 0, fx_hello},
	[FX_MSG_ALLOC_PD] = {"ALLOC_PD", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_alloc_pd},
	[FX_MSG_DEALLOC_PD] = {"DEALLOC_PD", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_dealloc_pd},
	[FX_MSG_REG_MR] = {"REG_MR", sizeof(struct fx_reg_mr_req), sizeof(struct fx_reg_mr_rep), HOST,
			   fx_reg_mr},
	[FX_MSG_REG_MR_DONE] = {"REG_MR_DONE", sizeof(struct fx_reg_mr_done_req),
				sizeof(struct fx_reg_mr_done_rep), HOST, fx_reg_mr_done},
	[FX_MSG_DEREG_MR] = {"DEREG_MR", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_dereg_mr},
	[FX_MSG_REPLACE_MR] = {"REPLACE_MR", sizeof(struct fx_replace_mr_req), sizeof(struct fx_handle_rep),
			       HOST, fx_replace_mr},
	[FX_MSG_ALLOC_MW] = {"ALLOC_MW", sizeof(struct fx_alloc_mw_req), sizeof(struct fx_alloc_mw_rep), HOST,
			     fx_alloc_mw},
	[FX_MSG_DEALLOC_MW] = {"DEALLOC_MW", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_dealloc_mw},
	[FX_MSG_CREATE_CHANNEL] = {"CREATE_CHANNEL", HANDLE, sizeof(struct fx_handle_rep), HOST,
				   fx_create_channel},
	[FX_MSG_DESTROY_CHANNEL] = {"DESTROY_CHANNEL", HANDLE, sizeof(struct fx_handle_rep), HOST,
				    fx_destroy_channel},
	[FX_MSG_CREATE_CQ] = {"CREATE_CQ", sizeof(struct fx_create_cq_req), sizeof(struct fx_handle_rep),
			      HOST, fx_create_cq},
	[FX_MSG_DESTROY_CQ] = {"DESTROY_CQ", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_destroy_cq},
	[FX_MSG_CREATE_PIPE] = {"CREATE_PIPE", sizeof(struct fx_create_pipe_req),
				sizeof(struct fx_handle_rep), HOST, fx_create_pipe},
	[FX_MSG_DESTROY_PIPE] = {"DESTROY_PIPE", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_destroy_pipe},
	[FX_MSG_MODIFY_CQ] = {"MODIFY_CQ", sizeof(struct fx_modify_cq_req), sizeof(struct fx_handle_rep),
			      HOST, fx_modify_cq},
	[FX_MSG_RESIZE_CQ] = {"RESIZE_CQ", sizeof(struct fx_resize_cq_req), sizeof(struct fx_resize_cq_rep),
			      HOST, fx_resize_cq},
	[FX_MSG_CREATE_QP] = {"CREATE_QP", sizeof(struct fx_create_qp_req), sizeof(struct fx_create_qp_rep),
			      HOST, fx_create_qp},
	[FX_MSG_OPEN_QP] = {"OPEN_QP", sizeof(struct fx_open_qp_req), sizeof(struct fx_create_qp_rep), HOST,
			    fx_open_qp},
	[FX_MSG_MODIFY_QP] = {"MODIFY_QP", sizeof(struct fx_modify_qp_req), sizeof(struct fx_modify_qp_rep),
			      HOST, fx_modify_qp},
	[FX_MSG_QUERY_QP] = {"QUERY_QP", sizeof(struct fx_qp_req), sizeof(struct fx_query_qp_rep), HOST,
			     fx_query_qp},
	[FX_MSG_DESTROY_QP] = {"DESTROY_QP", sizeof(struct fx_qp_req), sizeof(struct fx_handle_rep), HOST,
			       fx_destroy_qp},
	[FX_MSG_CREATE_AH] = {"CREATE_AH", sizeof(struct fx_ah_req), sizeof(struct fx_ah_rep), HOST,
			      fx_create_ah},
	[FX_MSG_RESOLVE_AH] = {"RESOLVE_AH", sizeof(struct fx_ah_req), sizeof(struct fx_ah_rep), HOST,
			       fx_resolve_ah},
	[FX_MSG_DESTROY_AH] = {"DESTROY_AH", sizeof(struct fx_qp_req), sizeof(struct fx_handle_rep), HOST,
			       fx_destroy_ah},
	[FX_MSG_OPEN_XRCD] = {"OPEN_XRCD", sizeof(struct fx_open_xrcd_req), sizeof(struct fx_handle_rep),
			      HOST, fx_open_xrcd},
	[FX_MSG_CLOSE_XRCD] = {"CLOSE_XRCD", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_close_xrcd},
	[FX_MSG_CREATE_SRQ] = {"CREATE_SRQ", sizeof(struct fx_create_srq_req),
			       sizeof(struct fx_create_srq_rep), HOST, fx_create_srq},
	[FX_MSG_MODIFY_SRQ] = {"MODIFY_SRQ", sizeof(struct fx_modify_srq_req), sizeof(struct fx_srq_rep),
			       HOST, fx_modify_srq},
	[FX_MSG_QUERY_SRQ] = {"QUERY_SRQ", sizeof(struct fx_modify_srq_req), sizeof(struct fx_srq_rep), HOST,
			      fx_query_srq},
	[FX_MSG_DESTROY_SRQ] = {"DESTROY_SRQ", HANDLE, sizeof(struct fx_handle_rep), HOST, fx_destroy_srq},
	[FX_MSG_ATTACH_MCAST] = {"ATTACH_MCAST", sizeof(struct fx_mcast_req), sizeof(struct fx_msg_head),
				 HOST, fx_attach_mcast},
	[FX_MSG_DETACH_MCAST] = {"DETACH_MCAST", sizeof(struct fx_mcast_req), sizeof(struct fx_msg_head),
				 HOST, fx_detach_mcast},
	[FX_MSG_QUERY_PORT] = {"QUERY_PORT", HANDLE, sizeof(struct fx_query_port_rep), HOST | CTL,
			       fx_query_port},
	[FX_MSG_COUNTERS] = {"COUNTERS", HANDLE, sizeof(struct fx_counters_rep), HOST | CTL,
			     fx_device_counters},
	[FX_MSG_QUERY_CLOCK] = {"QUERY_CLOCK", sizeof(struct fx_msg_head), sizeof(struct fx_query_clock_rep),
				HOST, fx_query_clock},
	[FX_MSG_SHOW] = {"SHOW", HANDLE, sizeof(struct fx_handle_rep), HOST | CTL, fx_show},
#undef HANDLE
};

int fx_refuse(struct fx_client *c, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	return err;
}

/*
 * A greeting of another version may have another size: all that is sure of it is where the ABI number and the
 * version's name begin.
 */
static int check_version(struct fx_client *c, size_t len)
{
	const struct fx_hello_req *req = &c->req.hello;
	char theirs[FX_VERSION_LEN + 1] = "unknown";

	if (len < offsetof(struct fx_hello_req, role))
		return fx_refuse(c, -EBADMSG, "a greeting of %zu bytes is too short to name its version",
				 len);
	if (req->abi == FX_ABI_VERSION)
		return 0;
	if (len >= offsetof(struct fx_hello_req, program))
		memcpy(theirs, req->version, FX_VERSION_LEN);
	c->ctl->n.refused_version++;
	return fx_refuse(
		c, -EPROTONOSUPPORT,
		"the library (%.20s) speaks ABI %u, core %.20s (%s) speaks ABI %u: use one version of both",
		theirs, req->abi, c->ctl->name, FLEXINS_VERSION, FX_ABI_VERSION);
}

static int check_head(struct fx_client *c, size_t len)
{
	const struct fx_msg_head *h = &c->req.head;

	if (len < sizeof(*h))
		return fx_refuse(c, -EBADMSG, "a message of %zu bytes is shorter than its head", len);
	if (h->magic != FX_PROTO_MAGIC)
		return fx_refuse(c, -EBADMSG, "this is no FlexiNS client: magic %#x instead of %#x", h->magic,
				 FX_PROTO_MAGIC);
	if (len > FX_MSG_BYTES || h->size != len)
		return fx_refuse(c, -EBADMSG, "a message of %zu bytes says that it has %u", len, h->size);
	return 0;
}

/* AUTH for strangers, HELLO for those who are known, everything else for those who were greeted. */
static int check_stage(struct fx_client *c, uint16_t op, const char *name)
{
	const uint16_t due = c->role ? 0 : c->known ? FX_MSG_HELLO : FX_MSG_AUTH;

	if (due ? op == due : op != FX_MSG_HELLO && op != FX_MSG_AUTH)
		return 0;
	c->ctl->n.out_of_order++;
	return fx_refuse(c, -EPROTO,
			 !due		       ? "%s: the connection has been greeted already"
			 : due == FX_MSG_HELLO ? "%s before HELLO"
					       : "%s before AUTH",
			 name);
}

static int find_request(struct fx_client *c, size_t len, const struct request **out)
{
	const struct fx_msg_head *h = &c->req.head;
	const struct request *r = h->op < FX_MSG_COUNT ? &requests[h->op] : NULL;
	int err;

	if (!r || !r->run) {
		c->ctl->n.unknown_op++;
		return fx_refuse(c, -EPROTO, "request %u is unknown to this core", h->op);
	}
	err = check_stage(c, h->op, r->name);
	if (err)
		return err;
	if (len != r->size) {
		c->ctl->n.bad_message++;
		return fx_refuse(c, -EPROTO, "%s has %zu bytes instead of %u", r->name, len, r->size);
	}
	if (c->role && !(r->roles & 1u << c->role))
		return fx_refuse(c, -EPERM, "%s is not for a control connection", r->name);
	*out = r;
	return 0;
}

int fx_dispatch(struct fx_client *c, size_t len)
{
	const struct request *r = NULL;
	int err = check_head(c, len);

	if (!err && c->req.head.op == FX_MSG_HELLO && c->known && c->role == 0)
		err = check_version(c, len);
	if (err == -EBADMSG)
		c->ctl->n.bad_message++;
	if (!err)
		err = find_request(c, len, &r);
	if (err)
		return err;
	c->rep.head.size = r->reply;
	return r->run(c);
}
