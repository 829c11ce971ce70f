/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CQs that are polled one completion at a time, each read field by field: ibv_start_poll() to ibv_end_poll().
 *
 * Room: host, its hot path. May use: cq.c, clock.c. A poll has a lock of its own from start to end: meanwhile the CQ may
 * be armed, polled by ibv_poll_cq() and its QPs made and destroyed, as at any time.
 */
#include "host/host.h"

static inline struct fx_vcq *cq_of(struct ibv_cq_ex *ex)
{
	return fx_container(ex, struct fx_vcq, ex);
}

/* ---- polling ---- */

static int next_poll(struct ibv_cq_ex *ex)
{
	struct fx_vcq *cq = cq_of(ex);

	if (!fx_cq_next(cq, &cq->now))
		return ENOENT;
	ex->wr_id = cq->now.wr_id;
	ex->status = cq->now.c.status;
	return 0;
}

static void end_poll(struct ibv_cq_ex *ex)
{
	struct fx_vcq *cq = cq_of(ex);

	if (!cq->single)
		fx_unlock(&cq->poll_lock);
}

/* An error ends the poll, too. */
static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
	struct fx_vcq *cq = cq_of(ex);
	int err;

	if (attr->comp_mask)
		return EINVAL;
	if (!cq->single)
		fx_lock(&cq->poll_lock);
	err = next_poll(ex);
	if (err)
		end_poll(ex);
	return err;
}

/* ---- fields ---- */

#define READ(ret, name, value)                                                                               \
	static ret read_##name(struct ibv_cq_ex *ex)                                                         \
	{                                                                                                    \
		const struct fx_taken *t = &cq_of(ex)->now;                                                  \
                                                                                                             \
		return value;                                                                                \
	}
READ(enum ibv_wc_opcode, opcode, t->c.opcode)
READ(uint32_t, vendor_err, t->c.syndrome)
READ(uint32_t, byte_len, t->c.byte_len)
READ(__be32, imm_data, t->c.imm)
READ(uint32_t, qp_num, fx_cqe_qpn(&t->c))
READ(uint32_t, src_qp, t->c.src_qp)
READ(unsigned int, wc_flags, t->c.flags &FX_WC_FLAGS)
READ(uint8_t, sl, fx_taken_sl(t))
READ(uint64_t, completion_ts, fx_cqe_stamp(&t->c))
#undef READ

/* RoCE has neither. */
static uint32_t read_slid(struct ibv_cq_ex *ex)
{
	(void)ex;
	return 0;
}
static uint8_t read_dlid_path_bits(struct ibv_cq_ex *ex)
{
	(void)ex;
	return 0;
}

static uint64_t read_wallclock_ns(struct ibv_cq_ex *ex)
{
	return fx_clock_wall(cq_of(ex)->ctx, read_completion_ts(ex));
}

/* ---- life ---- */

enum {
	STAMPS = IBV_WC_EX_WITH_COMPLETION_TIMESTAMP | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
	FIELDS = IBV_WC_STANDARD_FLAGS |
		 STAMPS, /* which can be read whether asked for or not, but for stamps */
	ATTRS = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD,
	FLAGS = IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN,
};

static int check(const struct ibv_cq_init_attr_ex *a, uint32_t flags)
{
	if (a->comp_mask & ~(uint32_t)ATTRS)
		fx_why("ibv_create_cq_ex: comp_mask %#x: this device knows %#x", a->comp_mask, ATTRS);
	else if (flags & ~(uint32_t)FLAGS)
		fx_why("ibv_create_cq_ex: flags %#x: this device knows %#x", flags, FLAGS);
	else if (a->wc_flags & ~(uint64_t)FIELDS)
		fx_why("ibv_create_cq_ex: wc_flags %#llx: this device has %#x",
		       (unsigned long long)a->wc_flags, FIELDS);
	else if (a->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD &&
		 (!a->parent_domain || fx_pd_of(a->parent_domain)->root == fx_pd_of(a->parent_domain)))
		return EINVAL;
	else
		return 0;
	return EOPNOTSUPP;
}

static void set_functions(struct ibv_cq_ex *ex)
{
	ex->start_poll = start_poll;
	ex->next_poll = next_poll;
	ex->end_poll = end_poll;
	ex->read_opcode = read_opcode;
	ex->read_vendor_err = read_vendor_err;
	ex->read_byte_len = read_byte_len;
	ex->read_imm_data = read_imm_data;
	ex->read_qp_num = read_qp_num;
	ex->read_src_qp = read_src_qp;
	ex->read_wc_flags = read_wc_flags;
	ex->read_slid = read_slid;
	ex->read_sl = read_sl;
	ex->read_dlid_path_bits = read_dlid_path_bits;
	ex->read_completion_ts = read_completion_ts;
	ex->read_completion_wallclock_ns = read_wallclock_ns;
}

struct ibv_cq_ex *flexins_create_cq_ex(struct ibv_context *c, struct ibv_cq_init_attr_ex *a)
{
	uint32_t flags = a->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS ? a->flags : 0;
	int err = check(a, flags);
	struct fx_vcq *cq;

	if (err)
		return fx_null(err);
	cq = fx_cq_make(c, a,
			(a->wc_flags & STAMPS ? FX_CQF_STAMPED : 0) |
				(flags & IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN ? FX_CQF_LOSSY : 0));
	if (!cq)
		return NULL;
	cq->single = flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
	if (a->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) {
		cq->parent = fx_pd_of(a->parent_domain);
		__atomic_fetch_add(&cq->parent->users, 1, __ATOMIC_RELAXED);
	}
	set_functions(&cq->ex);
	return &cq->ex;
}
