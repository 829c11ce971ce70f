/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sections ud and multicast: datagrams, address handles, and groups.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <arpa/inet.h>
#include <endian.h>

#include "sections.h"

enum { GRH = sizeof(struct ibv_grh), GROUP_QPN = 0xffffff, OWN_QKEY = (int)0x80000000 };

static struct ibv_ah_attr address_of(const union ibv_gid *gid)
{
	return (struct ibv_ah_attr){.is_global = 1,
				    .port_num = (uint8_t)options.port,
				    .grh = {.dgid = *gid,
					    .sgid_index = (uint8_t)options.gid,
					    .hop_limit = 64,
					    .traffic_class = 8}};
}

static struct ibv_ah *make_ah(const struct rig *r, const union ibv_gid *gid)
{
	struct ibv_ah_attr a = address_of(gid);
	struct ibv_ah *ah = ibv_create_ah(r->a.pd, &a);

	NEED(ah);
	return ah;
}

/* The port itself, where b is; the rig's to destroy. */
static struct ibv_ah *here(struct rig *r)
{
	return r->a.ah = make_ah(r, &r->gid);
}

static struct rig *ud(void)
{
	struct spec s = usual();

	s.type = IBV_QPT_UD;
	s.two_cqs = true;
	s.cap.max_inline_data = 200;
	s.cap.max_send_sge = s.cap.max_recv_sge = 3;
	return rig_make(&s);
}

/* From a's buffer at 1000. */
static struct work datagram(const struct rig *r, uint64_t wr_id, struct ibv_ah *ah, size_t len)
{
	struct work w = work(r, IBV_WR_SEND, wr_id, 1000, 0, len);

	w.wr.wr.ud.ah = ah;
	w.wr.wr.ud.remote_qpn = r->b.qp->qp_num;
	w.wr.wr.ud.remote_qkey = QKEY;
	return w;
}

static size_t mtu_of(const struct rig *r)
{
	return (size_t)128 << r->port.active_mtu;
}

/* Is it the message of a's buffer, with a's number, in e's buffer at `at`? */
static struct ibv_wc came(const struct rig *r, struct ibv_cq *cq, const struct end *e, uint64_t wr_id,
			  size_t at, size_t len, unsigned seed)
{
	struct ibv_wc wc = need_wc(cq, wr_id, IBV_WC_SUCCESS);

	NEED_EQ(wc.opcode, IBV_WC_RECV);
	NEED_EQ(wc.byte_len, len + GRH);
	NEED_EQ(wc.src_qp, r->a.qp->qp_num);
	NEED(wc.wc_flags & IBV_WC_GRH);
	NEED(filled(e->buf + at + GRH, len, seed));
	NEED(untouched(e->buf + at + GRH + len, GUARD));
	return wc;
}

/* ---- messages ---- */

static void message(const struct row *row)
{
	struct rig *r = ud();
	size_t len = row->a < 0 ? mtu_of(r) : (size_t)row->a;
	struct work w = datagram(r, 1, make_ah(r, &r->gid), len);
	struct ibv_wc wc;

	fill(r->a.buf + 1000, len, 4);
	w.wr.opcode = (enum ibv_wr_opcode)row->op;
	w.wr.imm_data = htobe32(0xabcd);
	w.wr.send_flags |= (unsigned)row->b;
	post_recv(&r->b, 2, 64, len + GRH);
	post(r->a.qp, &w);
	if (row->b & IBV_SEND_INLINE)
		memset(r->a.buf + 1000, 0, len);
	NEED_EQ(need_wc(r->a.scq, 1, IBV_WC_SUCCESS).opcode, IBV_WC_SEND);
	wc = came(r, r->b.rcq, &r->b, 2, 64, len, 4);
	NEED_EQ(!!(wc.wc_flags & IBV_WC_WITH_IMM), row->op == IBV_WR_SEND_WITH_IMM);
	NEED(row->op == IBV_WR_SEND || be32toh(wc.imm_data) == 0xabcd);
	NEED_EQ(ibv_destroy_ah(w.wr.wr.ud.ah), 0);
}

/* Whom it is from and to is in the first 40 bytes, as an IPv4 or IPv6 header. */
static void grh(const struct row *row)
{
	struct rig *r = ud();
	struct work w = datagram(r, 1, here(r), 10);
	const uint8_t *g = r->b.buf;

	(void)row;
	post_recv(&r->b, 2, 0, 100);
	post(r->a.qp, &w);
	need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	if (r->gid.raw[0] == 0 && r->gid.raw[10] == 0xff) {
		NEED_EQ(g[20], 0x45);
		NEED_EQ(g[21] & 0xfc, 8);
		NEED(!memcmp(g + 32, r->gid.raw + 12, 4) && !memcmp(g + 36, r->gid.raw + 12, 4));
	} else {
		const struct ibv_grh *h = (const struct ibv_grh *)g;

		NEED_EQ(g[0] >> 4, 6);
		NEED(!memcmp(&h->sgid, &r->gid, 16) && !memcmp(&h->dgid, &r->gid, 16));
	}
}

/* GRH and payload cut anywhere. */
static void scattered(const struct row *row)
{
	struct rig *r = ud();
	struct work w = datagram(r, 1, here(r), 300);
	struct ibv_sge to[3] = {{(uintptr_t)r->b.buf, 33, r->b.mr->lkey},
				{(uintptr_t)r->b.buf + 33, 7 + 100, r->b.mr->lkey},
				{(uintptr_t)r->b.buf + 140, 200, r->b.mr->lkey}};

	(void)row;
	fill(r->a.buf + 1000, 300, 4);
	w.sge[0].length = 1;
	w.sge[1] = (struct ibv_sge){w.sge[0].addr + 1, 298, w.sge[0].lkey};
	w.sge[2] = (struct ibv_sge){w.sge[0].addr + 299, 1, w.sge[0].lkey};
	w.wr.num_sge = 3;
	NEED_EQ(try_recv(r->b.qp, 2, to, 3), 0);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	came(r, r->b.rcq, &r->b, 2, 0, 300, 4);
}

/* The address of whoever sent it, from what came; and an answer. */
static void answer(const struct row *row)
{
	struct rig *r = ud();
	struct work w = datagram(r, 1, here(r), 10), back;
	struct ibv_wc wc;

	(void)row;
	post_recv(&r->b, 2, 0, 100);
	post_recv(&r->a, 3, 0, 100);
	post(r->a.qp, &w);
	wc = need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	back = datagram(
		r, 4, ibv_create_ah_from_wc(r->b.pd, &wc, (struct ibv_grh *)r->b.buf, (uint8_t)options.port),
		20);
	NEED(back.wr.wr.ud.ah);
	back.wr.wr.ud.remote_qpn = wc.src_qp;
	back.sge[0] = (struct ibv_sge){(uintptr_t)r->b.buf + 1000, 20, r->b.mr->lkey};
	post(r->b.qp, &back);
	wc = need_wc(r->a.rcq, 3, IBV_WC_SUCCESS);
	NEED_EQ(wc.src_qp, r->b.qp->qp_num);
	NEED_EQ(ibv_destroy_ah(back.wr.wr.ud.ah), 0);
}

/* ---- what is dropped, and what is refused ---- */

enum { NO_RECEIVE, TOO_LONG, WRONG_QKEY, NO_SUCH_QP };

static void dropped(const struct row *row)
{
	struct rig *r = ud();
	struct work w = datagram(r, 1, here(r), 100), good = w;

	fill(r->a.buf + 1000, 100, 4);
	if (row->a == TOO_LONG)
		w.sge[0].length = 101;
	if (row->a == WRONG_QKEY)
		w.wr.wr.ud.remote_qkey++;
	if (row->a == NO_SUCH_QP)
		w.wr.wr.ud.remote_qpn = 0xfffff0;
	if (row->a != NO_RECEIVE)
		post_recv(&r->b, 2, 64, GRH + 100);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	need_quiet(r->b.rcq);
	if (row->a == NO_RECEIVE)
		post_recv(&r->b, 2, 64, GRH + 100);
	post(r->a.qp, &good);
	came(r, r->b.rcq, &r->b, 2, 64, 100, 4);
	NEED_EQ(state_of(r->b.qp), IBV_QPS_RTS);
}

/* The high bit stands for the sending QP's own Q_Key. */
static void own_qkey(const struct row *row)
{
	struct rig *r = ud();
	struct work w = datagram(r, 1, here(r), 100);

	(void)row;
	fill(r->a.buf + 1000, 100, 4);
	w.wr.wr.ud.remote_qkey = (uint32_t)OWN_QKEY | 1;
	post_recv(&r->b, 2, 64, GRH + 100);
	post(r->a.qp, &w);
	came(r, r->b.rcq, &r->b, 2, 64, 100, 4);
}

static void longer_than_mtu(const struct row *row)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_SQE};
	struct rig *r = ud();
	struct work w = datagram(r, 1, here(r), mtu_of(r) + 1);

	(void)row;
	post_recv(&r->b, 2, 64, GRH + mtu_of(r) + 1);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_LOC_LEN_ERR);
	need_quiet(r->b.rcq);
	NEED_EQ(state_of(r->a.qp), IBV_QPS_SQE);
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_CUR_STATE), 0);
	w.sge[0].length = 10;
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
}

static void not_there(const struct row *row)
{
	struct rig *r = ud();
	struct work w = datagram(r, 1, here(r), 8);
	int err;

	w.wr.opcode = (enum ibv_wr_opcode)row->op;
	err = try_post(r->a.qp, &w);
	if (err)
		NEED(err == EINVAL || err == EOPNOTSUPP);
	else
		need_wc(r->a.scq, 1, IBV_WC_LOC_QP_OP_ERR);
}

/* ---- address handles ---- */

static void foreign_handle(const struct row *row)
{
	struct ibv_ah_attr a;
	struct rig *r = ud();
	struct work w;

	(void)row;
	a = address_of(&r->gid);
	w = datagram(r, 1, ibv_create_ah(r->b.pd, &a), 8);
	NEED(w.wr.wr.ud.ah);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_LOC_QP_OP_ERR);
	NEED_EQ(ibv_destroy_ah(w.wr.wr.ud.ah), 0);
}

enum { BAD_PORT, NO_GRH, BAD_INDEX };

static void bad_address(const struct row *row)
{
	struct rig *r = ud();
	struct ibv_ah_attr a = address_of(&r->gid);

	if (row->a == BAD_PORT)
		a.port_num = (uint8_t)(options.port + 1);
	if (row->a == NO_GRH)
		a.is_global = 0;
	if (row->a == BAD_INDEX)
		a.grh.sgid_index = 200;
	NEED_NULL(ibv_create_ah(r->a.pd, &a), EINVAL);
}

/* Hundreds, each of them good while datagrams are under way. */
static void many_handles(const struct row *row)
{
	static struct ibv_ah *ah[500];
	struct rig *r = ud();

	(void)row;
	for (size_t i = 0; i < COUNT(ah); i++) {
		struct work w = datagram(r, i, ah[i] = make_ah(r, &r->gid), 8);

		post_recv(&r->b, i, 64, 100);
		post(r->a.qp, &w);
		need_wc(r->b.rcq, i, IBV_WC_SUCCESS);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	}
	NEED_EQ(ibv_dealloc_pd(r->a.pd), EBUSY);
	for (size_t i = 0; i < COUNT(ah); i++)
		NEED_EQ(ibv_destroy_ah(ah[i]), 0);
}

/* What was posted before its handle goes arrives all the same. */
static void handle_goes(const struct row *row)
{
	struct rig *r = ud();

	(void)row;
	for (uint64_t i = 0; i < 50; i++) {
		struct work w = datagram(r, i, make_ah(r, &r->gid), 8);

		post_recv(&r->b, i, 64, 100);
		post(r->a.qp, &w);
		NEED_EQ(ibv_destroy_ah(w.wr.wr.ud.ah), 0);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		need_wc(r->b.rcq, i, IBV_WC_SUCCESS);
	}
}

int ibv_resolve_eth_l2_from_gid(struct ibv_context *context, struct ibv_ah_attr *attr, uint8_t mac[6],
				uint16_t *vid);

static void resolved(const struct row *row)
{
	static const uint8_t none[6];
	struct rig *r = ud();
	struct ibv_ah_attr a = address_of(&r->gid);
	uint8_t mac[6] = {0};
	uint16_t vid = 1;

	(void)row;
	NEED_EQ(ibv_resolve_eth_l2_from_gid(r->ctx, &a, mac, &vid), 0);
	NEED(memcmp(mac, none, 6) != 0 && !(mac[0] & 1));
	NEED_EQ(vid, 0xffff);
	inet_pton(AF_INET6, "::ffff:239.129.2.3", a.grh.dgid.raw);
	NEED_EQ(ibv_resolve_eth_l2_from_gid(r->ctx, &a, mac, &vid), 0);
	NEED(!memcmp(mac, ((const uint8_t[]){1, 0, 0x5e, 1, 2, 3}), 6));
	inet_pton(AF_INET6, "ff0e::1:203", a.grh.dgid.raw);
	NEED_EQ(ibv_resolve_eth_l2_from_gid(r->ctx, &a, mac, &vid), 0);
	NEED(!memcmp(mac, ((const uint8_t[]){0x33, 0x33, 0, 1, 2, 3}), 6));
}

/* ---- multicast ---- */

static union ibv_gid group(const char *text)
{
	union ibv_gid gid;

	NEED(inet_pton(AF_INET6, text, gid.raw) == 1);
	return gid;
}

static void to_group(const struct rig *r, struct ibv_ah *ah, uint64_t wr_id)
{
	struct work w = datagram(r, wr_id, ah, 500);

	w.wr.wr.ud.remote_qpn = GROUP_QPN;
	post(r->a.qp, &w);
	need_wc(r->a.scq, wr_id, IBV_WC_SUCCESS);
}

static const char *const groups[] = {"::ffff:239.7.7.7", "ff0e::7:7"};

/* Each QP of the group has its own copy, until it has left. */
static void copies(const struct row *row)
{
	union ibv_gid gid = group(groups[row->a]);
	struct spec s = usual();
	struct ibv_qp *more;
	struct ibv_ah *ah;
	struct rig *r = ud();
	struct end other = r->b;

	s.type = IBV_QPT_UD;
	other.qp = more = make_qp(r->b.pd, r->b.scq, r->b.scq, &s);
	connect_qp(r, &s, more, 0, IBV_QPS_RTS);
	ah = make_ah(r, &gid);
	fill(r->a.buf + 1000, 500, 4);
	NEED_EQ(ibv_attach_mcast(r->b.qp, &gid, 0), 0);
	NEED_EQ(ibv_attach_mcast(more, &gid, 0), 0);
	NEED_EQ(ibv_attach_mcast(more, &gid, 0), 0); /* again */
	for (int i = 0; i < 2; i++) {
		post_recv(&r->b, 10, 64, 1000);
		post_recv(&other, 11, 8000, 1000);
		to_group(r, ah, 1);
		came(r, r->b.rcq, &r->b, 10, 64, 500, 4);
		came(r, r->b.scq, &other, 11, 8000, 500, 4);
		need_quiet(r->b.scq);
	}
	NEED_EQ(ibv_detach_mcast(more, &gid, 0), 0);
	post_recv(&r->b, 10, 64, 1000);
	post_recv(&other, 11, 8000, 1000);
	to_group(r, ah, 1);
	came(r, r->b.rcq, &r->b, 10, 64, 500, 4);
	need_quiet(r->b.scq);
	NEED_EQ(ibv_destroy_qp(r->b.qp), EBUSY);
	NEED_EQ(ibv_detach_mcast(r->b.qp, &gid, 0), 0);
	NEED_EQ(ibv_detach_mcast(r->b.qp, &gid, 0), EINVAL);
	NEED_EQ(ibv_destroy_qp(more), 0);
	NEED_EQ(ibv_destroy_ah(ah), 0);
}

/* Whoever is in the group hears itself, unless it asked not to. */
static void own_voice(const struct row *row)
{
	struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_UD,
					   .cap = usual().cap,
					   .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS,
					   .create_flags = row->a ? IBV_QP_CREATE_BLOCK_SELF_MCAST_LB : 0};
	union ibv_gid gid = group(groups[0]);
	struct spec s = usual();
	struct rig *r = ud();
	struct ibv_qp *was = r->a.qp;
	struct ibv_ah *ah;

	s.type = IBV_QPT_UD;
	init.pd = r->a.pd;
	init.send_cq = r->a.scq;
	init.recv_cq = r->a.rcq;
	r->a.qp = ibv_create_qp_ex(r->ctx, &init);
	NEED(r->a.qp);
	connect_qp(r, &s, r->a.qp, 0, IBV_QPS_RTS);
	ah = make_ah(r, &gid);
	NEED_EQ(ibv_attach_mcast(r->a.qp, &gid, 0), 0);
	NEED_EQ(ibv_attach_mcast(r->b.qp, &gid, 0), 0);
	post_recv(&r->a, 3, 8000, 1000);
	post_recv(&r->b, 4, 64, 1000);
	to_group(r, ah, 1);
	need_wc(r->b.rcq, 4, IBV_WC_SUCCESS);
	if (row->a)
		need_quiet(r->a.rcq);
	else
		need_wc(r->a.rcq, 3, IBV_WC_SUCCESS);
	NEED_EQ(ibv_detach_mcast(r->a.qp, &gid, 0), 0);
	NEED_EQ(ibv_detach_mcast(r->b.qp, &gid, 0), 0);
	NEED_EQ(ibv_destroy_qp(was), 0);
	NEED_EQ(ibv_destroy_ah(ah), 0);
}

static void no_group(const struct row *row)
{
	struct rig *r = row->a ? rig() : ud();
	union ibv_gid gid = row->a ? group(groups[0]) : r->gid;

	NEED_EQ(ibv_attach_mcast(r->a.qp, &gid, 0), EINVAL);
}

static void group_limit(const struct row *row)
{
	enum { MORE = 300 };
	union ibv_gid gid = group("::ffff:239.9.9.9");
	struct ibv_qp *qp[MORE];
	struct spec s = usual();
	struct rig *r = ud();
	int n = 0, max = r->dev.max_mcast_qp_attach;

	(void)row;
	NEED(r->dev.max_mcast_grp > 0 && max > 1 && r->dev.max_total_mcast_qp_attach >= max);
	if (max >= MORE)
		row_skipped("max_mcast_qp_attach is %d", max);
	s.type = IBV_QPT_UD;
	s.cap.max_send_wr = s.cap.max_recv_wr = 1;
	for (; n <= max; n++) {
		qp[n] = make_qp(r->a.pd, r->a.scq, r->a.scq, &s);
		NEED_EQ(ibv_attach_mcast(qp[n], &gid, 0), n < max ? 0 : ENOMEM);
	}
	while (n--) {
		NEED_EQ(ibv_detach_mcast(qp[n], &gid, 0), n < max ? 0 : EINVAL);
		NEED_EQ(ibv_destroy_qp(qp[n]), 0);
	}
}

static const struct row ud_rows[] = {
	{"SEND of 0 bytes", "9.8.4", message, IBV_WR_SEND, 0},
	{"SEND of 1 byte", "9.8.4", message, IBV_WR_SEND, 1},
	{"SEND of 200 bytes, inline", "9.8.4", message, IBV_WR_SEND, 200, IBV_SEND_INLINE},
	{"SEND of 1000 bytes, with immediate", "9.8.4", message, IBV_WR_SEND_WITH_IMM, 1000},
	{"SEND as long as the MTU", "9.8.4", message, IBV_WR_SEND, -1},
	{"the GRH", "11.4.2.1, A17.4.5.1", grh},
	{"cut anywhere", "11.4.2.1", scattered},
	{"an answer to whoever sent it", "ibv_create_ah_from_wc(3)", answer},
	{"without a receive", "9.8.4", dropped, .a = NO_RECEIVE},
	{"longer than its receive", "9.9.3", dropped, .a = TOO_LONG},
	{"another Q_Key", "10.2.5", dropped, .a = WRONG_QKEY},
	{"to no QP", "9.6.1.1", dropped, .a = NO_SUCH_QP},
	{"the QP's own Q_Key", "10.2.5", own_qkey},
	{"longer than the MTU", "9.8.4", longer_than_mtu},
	{"WRITE", "9.8.4", not_there, IBV_WR_RDMA_WRITE},
	{"READ", "9.8.4", not_there, IBV_WR_RDMA_READ},
	{"fetch-and-add", "9.8.4", not_there, IBV_WR_ATOMIC_FETCH_AND_ADD},
	{"a handle of another domain", "10.2.2", foreign_handle},
	{"a handle for a port that is none", "ibv_create_ah(3)", bad_address, .a = BAD_PORT},
	{"a handle without a GRH", "ibv_create_ah(3)", bad_address, .a = NO_GRH},
	{"a handle from a GID index that is none", "ibv_create_ah(3)", bad_address, .a = BAD_INDEX},
	{"500 handles", "ibv_create_ah(3)", many_handles},
	{"a handle that goes when its datagram is posted", "ibv_destroy_ah(3)", handle_goes},
	{"where a GID leads", "A17.4", resolved},
};
const struct section section_ud = {"ud", "datagrams and address handles", ud_rows, COUNT(ud_rows)};

static const struct row multicast_rows[] = {
	{"a copy for each QP of an IPv4 group", "10.5", copies, .a = 0},
	{"a copy for each QP of an IPv6 group", "10.5", copies, .a = 1},
	{"a sender in its group", "10.5", own_voice, .a = 0},
	{"a sender that does not want to hear itself", "ibv_create_qp_ex(3)", own_voice, .a = 1},
	{"a GID that is no group's", "ibv_attach_mcast(3)", no_group, .a = 0},
	{"an RC QP", "ibv_attach_mcast(3)", no_group, .a = 1},
	{"as many QPs as a group has", "ibv_attach_mcast(3)", group_limit},
};
const struct section section_multicast = {"multicast", "multicast groups", multicast_rows,
					  COUNT(multicast_rows)};
