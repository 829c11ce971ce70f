/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section device: the list of devices, what device, port and tables say of themselves, protection domains.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "sections.h"

static struct ibv_device_attr device_attr(struct ibv_context *ctx)
{
	struct ibv_device_attr a;

	memset(&a, 0xff, sizeof(a));
	NEED_EQ(ibv_query_device(ctx, &a), 0);
	return a;
}

static void list_of_devices(const struct row *row)
{
	struct ibv_device **list;
	int n = -1, seen = 0;

	(void)row;
	list = ibv_get_device_list(&n);
	NEED(list && n >= 1);
	while (list[seen])
		seen++;
	NEED_EQ(seen, n);
	NEED(ibv_get_device_name(list[0])[0]);
	ibv_free_device_list(list);
}

static void open_after_list(const struct row *row)
{
	struct ibv_context *ctx = open_device(), *again = open_device();

	(void)row;
	/* the list is freed by now: an open device keeps what it needs of it */
	NEED(ibv_get_device_name(ctx->device)[0] && again->device == ctx->device);
	NEED(ctx != again && ctx->async_fd >= 0 && ctx->num_comp_vectors >= 1);
	NEED_EQ(ibv_close_device(again), 0);
	device_attr(ctx);
	NEED_EQ(ibv_close_device(ctx), 0);
}

static void device_limits(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	struct ibv_device_attr a = device_attr(ctx);

	(void)row;
	NEED(a.max_qp > 0 && a.max_qp_wr > 0 && a.max_sge > 0 && a.max_sge_rd > 0);
	NEED(a.max_cq > 0 && a.max_cqe > 0 && a.max_mr > 0 && a.max_pd > 0 && a.max_mr_size > 0);
	NEED(a.max_qp_rd_atom >= 1 && a.max_qp_init_rd_atom >= 1 && a.max_res_rd_atom >= a.max_qp_rd_atom);
	NEED(a.phys_port_cnt >= options.port && a.max_pkeys >= 1);
	NEED(a.page_size_cap & 4096);
	NEED(memchr(a.fw_ver, 0, sizeof(a.fw_ver)));
	NEED(a.node_guid == ibv_get_device_guid(ctx->device));
}

static void device_ex(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	struct ibv_device_attr a = device_attr(ctx);
	struct ibv_device_attr_ex ex;

	(void)row;
	memset(&ex, 0xff, sizeof(ex));
	NEED_EQ(ibv_query_device_ex(ctx, NULL, &ex), 0);
	NEED_EQ(ex.orig_attr.max_qp, a.max_qp);
	NEED_EQ(ex.orig_attr.max_sge, a.max_sge);
	NEED(ex.orig_attr.node_guid == a.node_guid);
	NEED_EQ(ex.comp_mask, 0);
	NEED_EQ(ex.odp_caps.general_caps & ~(uint64_t)(IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT), 0);
}

static void device_ex_input(const struct row *row)
{
	struct ibv_query_device_ex_input input = {.comp_mask = 1u << 31};
	struct ibv_context *ctx = open_device();
	struct ibv_device_attr_ex ex;

	(void)row;
	NEED_EQ(ibv_query_device_ex(ctx, &input, &ex), EINVAL);
}

static void port_values(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	struct ibv_port_attr p;

	(void)row;
	memset(&p, 0xff, sizeof(p));
	NEED_EQ(ibv_query_port(ctx, (uint8_t)options.port, &p), 0);
	NEED_EQ(p.state, IBV_PORT_ACTIVE);
	NEED(p.active_mtu >= IBV_MTU_256 && p.active_mtu <= p.max_mtu && p.max_mtu <= IBV_MTU_4096);
	NEED(p.gid_tbl_len > options.gid && p.pkey_tbl_len >= 1);
	NEED(p.max_msg_sz >= 1u << 30);
	NEED(p.link_layer == IBV_LINK_LAYER_ETHERNET || p.lid != 0);
	NEED(p.active_width && p.active_speed);
}

static void port_unknown(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	struct ibv_port_attr p;

	(void)row;
	NEED_EQ(ibv_query_port(ctx, (uint8_t)(device_attr(ctx).phys_port_cnt + 1), &p), EINVAL);
	NEED_EQ(ibv_query_port(ctx, 0, &p), EINVAL);
}

static void gids(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	union ibv_gid gid, again, zero = {0};
	struct ibv_gid_entry e;

	(void)row;
	NEED_EQ(ibv_query_gid(ctx, (uint8_t)options.port, options.gid, &gid), 0);
	NEED(memcmp(&gid, &zero, sizeof(gid)) != 0);
	NEED_EQ(ibv_query_gid(ctx, (uint8_t)options.port, options.gid, &again), 0);
	NEED(!memcmp(&gid, &again, sizeof(gid)));
	NEED_EQ(ibv_query_gid_ex(ctx, (uint32_t)options.port, (uint32_t)options.gid, &e, 0), 0);
	NEED(!memcmp(&gid, &e.gid, sizeof(gid)));
	NEED_EQ(e.gid_index, options.gid);
	NEED_EQ(e.port_num, options.port);
}

static void gid_table(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	struct ibv_gid_entry e[256];
	ssize_t n = ibv_query_gid_table(ctx, e, COUNT(e), 0);
	union ibv_gid gid;

	(void)row;
	NEED(n >= 1);
	for (ssize_t i = 0; i < n; i++) {
		NEED_EQ(ibv_query_gid(ctx, (uint8_t)e[i].port_num, (int)e[i].gid_index, &gid), 0);
		NEED(!memcmp(&gid, &e[i].gid, sizeof(gid)));
	}
}

static void gid_beyond(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	union ibv_gid gid;

	(void)row;
	NEED_EQ(ibv_query_gid(ctx, (uint8_t)options.port, 1 << 20, &gid), -1);
	NEED_EQ(ibv_query_gid(ctx, (uint8_t)options.port, -1, &gid), -1);
	NEED_EQ(ibv_query_gid(ctx, 77, 0, &gid), -1);
}

static void pkeys(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	uint16_t pkey = 0;

	(void)row;
	NEED_EQ(ibv_query_pkey(ctx, (uint8_t)options.port, 0, &pkey), 0);
	NEED_EQ(pkey & 0x7f7f,
		0x7f7f); /* the default partition, in either byte order but for the membership bit */
	NEED_EQ(ibv_get_pkey_index(ctx, (uint8_t)options.port, pkey), 0);
	NEED_EQ(ibv_query_pkey(ctx, (uint8_t)options.port, 1 << 20, &pkey), -1);
	NEED_EQ(ibv_get_pkey_index(ctx, (uint8_t)options.port, 0x1234), -1);
}

static void pd_life(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	struct ibv_pd *pd[100];

	(void)row;
	for (size_t i = 0; i < COUNT(pd); i++) {
		pd[i] = ibv_alloc_pd(ctx);
		NEED(pd[i] && pd[i]->context == ctx);
	}
	for (size_t i = 0; i < COUNT(pd); i++)
		NEED_EQ(ibv_dealloc_pd(pd[i]), 0);
}

static void pd_busy(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	NEED_EQ(ibv_dealloc_pd(r->a.pd), EBUSY);
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	NEED_EQ(ibv_dealloc_pd(r->a.pd), EBUSY);
	NEED_EQ(ibv_dereg_mr(r->a.mr), 0);
	NEED_EQ(ibv_dealloc_pd(r->a.pd), 0);
	r->a.qp = NULL;
	r->a.mr = NULL;
	r->a.pd = NULL;
}

static void *opens(void *arg)
{
	(void)arg;
	for (int i = 0; i < 10; i++) {
		struct ibv_context *ctx = open_device();

		device_attr(ctx);
		NEED_EQ(ibv_close_device(ctx), 0);
	}
	return NULL;
}

static void open_in_threads(const struct row *row)
{
	pthread_t t[8];

	(void)row;
	for (size_t i = 0; i < COUNT(t); i++)
		NEED_EQ(pthread_create(&t[i], NULL, opens, NULL), 0);
	for (size_t i = 0; i < COUNT(t); i++)
		pthread_join(t[i], NULL);
}

static void close_with_objects(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 1, 8, 64, IBV_SEND_SIGNALED);
	/* what is left goes with it (the manual warns of leaks in the process) */
	NEED_EQ(ibv_close_device(r->ctx), 0);
	memset(r, 0, offsetof(struct rig, next));
	r = rig();
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 64, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

/* Another part of the process, which knows a descriptor and handles: what it gets works, and lives until both close. */
static void import_all(const struct row *row)
{
	struct ibv_context *ctx = open_device(), *again;
	struct ibv_pd *pd = ibv_alloc_pd(ctx), *other = ibv_alloc_pd(ctx), *same;
	static char buf[4096];
	struct ibv_mr *mr, *seen;

	(void)row;
	NEED(pd && other);
	mr = ibv_reg_mr(pd, buf, sizeof(buf), IBV_ACCESS_LOCAL_WRITE);
	NEED(mr && ctx->cmd_fd >= 0);
	again = ibv_import_device(dup(ctx->cmd_fd));
	NEED(again);
	same = ibv_import_pd(again, pd->handle);
	NEED(same && same->handle == pd->handle && !ibv_import_pd(again, 0xfffffff0) && errno == EINVAL);
	seen = ibv_import_mr(same, mr->handle);
	NEED(seen && seen->lkey == mr->lkey && seen->rkey == mr->rkey);
	NEED(!ibv_import_mr(other, mr->handle) && errno == EINVAL); /* of another domain */
	ibv_unimport_mr(seen);
	ibv_unimport_pd(same);
	NEED_EQ(ibv_close_device(ctx), 0);
	device_attr(again); /* it is still open */
	NEED_EQ(ibv_dereg_mr(mr), 0);
	NEED_EQ(ibv_dealloc_pd(pd), 0);
	NEED_EQ(ibv_dealloc_pd(other), 0);
	NEED_EQ(ibv_close_device(again), 0);
}

static void import_nothing(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	int fd = dup(ctx->cmd_fd), null = open("/dev/null", O_RDWR);

	(void)row;
	NEED_EQ(ibv_close_device(ctx), 0);
	NEED(!ibv_import_device(fd));	/* of a context that is closed */
	NEED(!ibv_import_device(null)); /* of none */
	NEED(!ibv_import_device(-1));
	close(fd);
	close(null);
}

static const struct row rows[] = {
	{"list", "ibv_get_device_list(3)", list_of_devices},
	{"open after the list is freed, and twice", "ibv_open_device(3)", open_after_list},
	{"open in many threads", "ibv_open_device(3)", open_in_threads},
	{"close with objects left", "ibv_close_device(3)", close_with_objects},
	{"limits", "ibv_query_device(3)", device_limits},
	{"extended query agrees", "ibv_query_device_ex(3)", device_ex},
	{"extended query, unknown input", "ibv_query_device_ex(3)", device_ex_input},
	{"port", "ibv_query_port(3)", port_values},
	{"port that is not there", "ibv_query_port(3)", port_unknown},
	{"GID", "ibv_query_gid(3)", gids},
	{"GID table", "ibv_query_gid_table(3)", gid_table},
	{"GID that is not there", "ibv_query_gid(3)", gid_beyond},
	{"P_Key", "ibv_query_pkey(3)", pkeys},
	{"PD, a hundred", "ibv_alloc_pd(3)", pd_life},
	{"PD in use", "ibv_alloc_pd(3)", pd_busy},
	{"import of a device, a PD and an MR", "ibv_import_device(3), ibv_import_pd(3)", import_all},
	{"import of what is not there", "ibv_import_device(3)", import_nothing},
};

const struct section section_device = {"device", "device, port, tables, protection domains", rows,
				       COUNT(rows)};
