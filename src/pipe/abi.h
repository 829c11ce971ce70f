/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ABI between host and core: every structure that both sides see.
 *
 * Room: pipe. May use: C11 only. No DPDK, no sockets, no clock.
 *
 * All rings live in one arena per context: a sealed shared mapping that the core creates and whose
 * offsets the host chooses. Rings have a power-of-two number of slots; an index counts up for ever
 * and slot `i` of lap `i >> shift` is valid when its phase byte equals the parity of the lap
 * (fx_phase()). The phase is the last byte of every slot, so one DMA write delivers entry and
 * notification together, and a consumer checks every slot of a long entry (guarantee P5).
 * All integers are little-endian; imm is carried as the application gave it (network order).
 */
#ifndef FX_PIPE_ABI_H
#define FX_PIPE_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define FX_ABI_VERSION 4u /* bumped with any change to this file or to control/protocol.h */

enum {
	FX_LINE = 64, /* of the ABI, whatever the machine's cache line is */
	FX_SLOT_SIZE = 64,
	FX_CQE_SIZE = 32,
	FX_MAX_WORKERS = 16,
	FX_WORKER_BITS = 4, /* low bits of a QPN */
	FX_MAX_SGE = 16,
	FX_MAX_INLINE = 512,
	FX_MAX_SQ_SLOTS = 10, /* 31 + 8 * 63 >= FX_MAX_INLINE, and the one of XRC */
	FX_SLOT_INLINE = 31,  /* inline bytes in the first slot */
	FX_EXT_DATA = 63,     /* inline bytes in a further slot */
	FX_EXT_SGES = 3,      /* SGEs in a further slot */
	FX_RQ_SGES = 3,	      /* SGEs in a receive slot, first or further */
	FX_QPN_BITS = 24,
};

/* Send opcodes, numbered by the pipe and not by any header's enum. */
enum fx_wr_op {
	FX_WR_SEND,
	FX_WR_SEND_IMM,
	FX_WR_SEND_INV,
	FX_WR_WRITE,
	FX_WR_WRITE_IMM,
	FX_WR_READ,
	FX_WR_CMP_SWAP,
	FX_WR_FETCH_ADD,
	FX_WR_LOCAL_INV,
	FX_WR_BIND_MW,
	FX_WR_ATOMIC_WRITE, /* as WRITE, of 8 bytes that arrive at once */
	FX_WR_OFFLOAD,
	FX_WR_OPS,
	FX_WR_ARM = 0x80, /* no work request: struct fx_arm_slot */
};

enum fx_wr_flags {
	FX_WRF_SIGNALED = 1 << 0,
	FX_WRF_SOLICITED = 1 << 1,
	FX_WRF_FENCE = 1 << 2,
	FX_WRF_INLINE = 1 << 3,
};

struct fx_sge {
	uint64_t addr;
	uint32_t length;
	uint32_t lkey;
};

/* QPN in the low 24 bits, generation in the high 8 (guarantee P6). */
static inline uint32_t fx_qpn_gen(uint32_t qpn, uint8_t gen)
{
	return (qpn & 0xffffffu) | (uint32_t)gen << FX_QPN_BITS;
}

/*
 * First slot of a send entry. Up to 31 inline bytes, or the first SGE, follow the fixed part; more
 * SGEs (three a slot), more inline data (63 a slot) or two 64-bit atomic operands (compare-or-add,
 * swap: always in the second slot, after which the single SGE of the first slot is the landing)
 * sit in struct fx_ext_slot. On a QP of type XRC_SEND whatever is sent names an SRQ of the peer, in the first four bytes of
 * one more slot, the last.
 */
struct fx_sq_slot {
	uint8_t opcode; /* enum fx_wr_op */
	uint8_t flags;	/* enum fx_wr_flags */
	uint8_t nslots; /* of this entry, this slot included */
	uint8_t nsge;	/* 0 with FX_WRF_INLINE */
	uint32_t qpn_gen;
	uint32_t index; /* WQE counter of the QP's send queue; never restarts (guarantee P4) */
	uint32_t imm;	/* immediate, or the rkey to invalidate */
	union {
		struct {
			uint64_t remote_addr;
			uint32_t rkey;
			uint32_t inline_len;
		} rdma;
		struct {
			uint32_t ah;
			uint32_t remote_qpn;
			uint32_t qkey;
			uint32_t inline_len; /* same place as rdma.inline_len */
		} ud;
	};
	struct fx_sge sge; /* or inline data, 31 bytes from here */
	uint8_t tail[15];
	uint8_t phase;
};
static_assert(sizeof(struct fx_sq_slot) == FX_SLOT_SIZE, "sq slot");
static_assert(offsetof(struct fx_sq_slot, rdma) == 16, "sq slot");
static_assert(offsetof(struct fx_sq_slot, sge) == 32, "sq slot");
static_assert(offsetof(struct fx_sq_slot, phase) == 63, "sq slot");

/*
 * Arming a CQ (guarantee S1) is an entry of the send pipe: it comes in turn, kicks a worker that sleeps as any entry
 * does, and costs nothing while nobody arms. It carries how far the application knows the CQ: what it has consumed, or
 * what was there when the last event that it took was fired, whichever is more. (The latter since programs take an event,
 * arm, poll once, and rely on the next event to bring a CQE of its own.) The core alone writes CQEs, so it compares that
 * with what it has written: newer CQEs fire the arm at once, else the next one does. There is no moment at which
 * both sides look and neither sees. The sequence counts the CQ's events that the application has taken: an
 * arm of one that has fired already is passed over, so that a CQ has one event at most that nobody took, and the event
 * ring needs no more room for completions than the context can have CQs.
 */
enum fx_arm_kind { FX_ARM_NONE, FX_ARM_ANY, FX_ARM_SOLICITED }; /* solicited: errors too */
struct fx_arm_slot {
	uint8_t opcode; /* FX_WR_ARM */
	uint8_t flags;	/* 0 */
	uint8_t nslots; /* 1 */
	uint8_t rsvd;
	uint32_t cq;  /* handle */
	uint32_t arm; /* sequence << 2 | enum fx_arm_kind; the first sequence is 1 */
	uint32_t ci;  /* CQEs that the application knows of */
	uint8_t pad[47];
	uint8_t phase;
};
static_assert(sizeof(struct fx_arm_slot) == FX_SLOT_SIZE, "arm slot");
static_assert(offsetof(struct fx_arm_slot, nslots) == offsetof(struct fx_sq_slot, nslots), "arm slot");
static_assert(offsetof(struct fx_arm_slot, ci) == 12, "arm slot");

/* Binding a memory window, or type 1 only: unbinding it, with length 0. The common fields lie where a send has them. */
struct fx_bind_slot {
	uint8_t opcode; /* FX_WR_BIND_MW */
	uint8_t flags;	/* enum fx_wr_flags */
	uint8_t nslots; /* 1 */
	uint8_t rsvd;
	uint32_t qpn_gen;
	uint32_t index;
	uint32_t window; /* a key of the window, whatever its tag */
	uint64_t addr;	 /* of the first byte, as the region's keys address it */
	uint32_t rkey;	 /* from now on: as `window`, but for the tag */
	uint32_t rsvd2;
	uint64_t length;
	uint32_t lkey;	 /* of the region */
	uint32_t access; /* enum ibv_access_flags */
	uint8_t pad[15];
	uint8_t phase;
};
static_assert(sizeof(struct fx_bind_slot) == FX_SLOT_SIZE, "bind slot");
static_assert(offsetof(struct fx_bind_slot, qpn_gen) == offsetof(struct fx_sq_slot, qpn_gen), "bind slot");
static_assert(offsetof(struct fx_bind_slot, index) == offsetof(struct fx_sq_slot, index), "bind slot");
static_assert(offsetof(struct fx_bind_slot, window) == offsetof(struct fx_sq_slot, imm), "bind slot");
static_assert(offsetof(struct fx_bind_slot, addr) == offsetof(struct fx_sq_slot, rdma.remote_addr),
	      "bind slot");
static_assert(offsetof(struct fx_bind_slot, rkey) == offsetof(struct fx_sq_slot, rdma.rkey), "bind slot");
static_assert(offsetof(struct fx_bind_slot, length) == 32, "bind slot");
static_assert(offsetof(struct fx_bind_slot, access) == 44, "bind slot");
static_assert(offsetof(struct fx_bind_slot, phase) == 63, "bind slot");

struct fx_ext_slot {
	uint8_t data[FX_EXT_DATA];
	uint8_t phase;
};
static_assert(sizeof(struct fx_ext_slot) == FX_SLOT_SIZE, "ext slot");

/* Every entry of a receive queue takes the same number of slots: fx_rq_stride(max_sge). */
struct fx_rq_slot {
	uint32_t index; /* WQE counter of the queue; the same in every slot of an entry */
	uint8_t nsge;	/* of the whole entry */
	uint8_t rsvd[3];
	struct fx_sge sge[FX_RQ_SGES];
	uint8_t tail[7];
	uint8_t phase;
};
static_assert(sizeof(struct fx_rq_slot) == FX_SLOT_SIZE, "rq slot");
static_assert(offsetof(struct fx_rq_slot, phase) == 63, "rq slot");

static inline uint32_t fx_rq_stride(uint32_t max_sge)
{
	return max_sge <= FX_RQ_SGES ? 1 : (max_sge + FX_RQ_SGES - 1) / FX_RQ_SGES;
}

/* Completion statuses and opcodes, numbered as in the verbs ABI so that the host only copies them. */
enum fx_wc_status {
	FX_WC_SUCCESS = 0,
	FX_WC_LOC_LEN_ERR = 1,
	FX_WC_LOC_QP_OP_ERR = 2,
	FX_WC_LOC_PROT_ERR = 4,
	FX_WC_WR_FLUSH_ERR = 5,
	FX_WC_MW_BIND_ERR = 6,
	FX_WC_LOC_ACCESS_ERR = 8,
	FX_WC_REM_INV_REQ_ERR = 9,
	FX_WC_REM_ACCESS_ERR = 10,
	FX_WC_REM_OP_ERR = 11,
	FX_WC_RETRY_EXC_ERR = 12,
	FX_WC_RNR_RETRY_EXC_ERR = 13,
	FX_WC_FATAL_ERR = 19,
	FX_WC_GENERAL_ERR = 21,
};

enum fx_wc_opcode {
	FX_WC_SEND = 0,
	FX_WC_RDMA_WRITE = 1,
	FX_WC_RDMA_READ = 2,
	FX_WC_COMP_SWAP = 3,
	FX_WC_FETCH_ADD = 4,
	FX_WC_BIND_MW = 5,
	FX_WC_LOCAL_INV = 6,
	FX_WC_ATOMIC_WRITE = 9,
	FX_WC_RECV = 128,
	FX_WC_RECV_RDMA_WITH_IMM = 129,
};

enum fx_wc_flags {
	FX_WCF_GRH = 1 << 0,
	FX_WCF_IMM = 1 << 1,
	FX_WCF_INV = 1 << 3,
	FX_WCF_IP6 = 1 << 6,	   /* of the pipe: the GRH was an IPv6 header */
	FX_WCF_XRC = 1 << 5,	   /* of the pipe: of the SRQ whose handle is in src_qp, whoever has the QP */
	FX_WCF_SOLICITED = 1 << 7, /* of the pipe: wakes a solicited-only arm */
};

/* index retires every entry of its work queue up to and including itself (guarantee P4). */
struct fx_cqe {
	uint32_t qpn_gen; /* the local QP */
	uint32_t index;
	uint32_t byte_len;
	uint32_t imm;	 /* immediate, or the invalidated rkey */
	uint32_t src_qp; /* UD; with FX_WCF_XRC: handle of the SRQ */
	uint8_t status;	 /* enum fx_wc_status */
	uint8_t opcode;	 /* enum fx_wc_opcode; 128 and up: the receive queue's */
	uint8_t flags;	 /* enum fx_wc_flags */
	uint8_t syndrome; /* vendor_err: AETH's of a NAK, or above those an enum fx_cause (transport/cause.h) */
	uint8_t stamp[7]; /* ns, little-endian, 0 where not taken */
	uint8_t phase;
};
static inline uint32_t fx_cqe_qpn(const struct fx_cqe *c)
{
	return c->qpn_gen & ((1u << FX_QPN_BITS) - 1);
}
#define FX_STAMP_MASK ((UINT64_C(1) << 56) - 1)
enum { FX_CLOCK_KHZ = 1000000 }; /* of the clock that stamps are of */
static inline uint64_t fx_cqe_stamp(const struct fx_cqe *c)
{
	uint64_t ns = 0;

	for (unsigned i = sizeof(c->stamp); i-- > 0;)
		ns = ns << 8 | c->stamp[i];
	return ns;
}
static inline void fx_cqe_put_stamp(struct fx_cqe *c, uint64_t ns)
{
	for (unsigned i = 0; i < sizeof(c->stamp); i++, ns >>= 8)
		c->stamp[i] = (uint8_t)ns;
}
static_assert(sizeof(struct fx_cqe) == FX_CQE_SIZE, "cqe");
static_assert(offsetof(struct fx_cqe, phase) == 31, "cqe");

/* Head of a CQ in the arena, before its ring; written by the host, read by the core. */
struct fx_cq_head {
	uint32_t ci; /* CQEs consumed so far (guarantee P10) */
	uint8_t rsvd[60];
};
static_assert(sizeof(struct fx_cq_head) == FX_LINE, "cq head");

/* Head of a send pipe in the arena, before its slots; written by the core, read by the host. */
struct fx_pipe_head {
	uint32_t ci; /* slots consumed so far */
	uint8_t rsvd[60];
};
static_assert(sizeof(struct fx_pipe_head) == FX_LINE, "pipe head");

/*
 * Events of a context: completion channels and asynchronous events (guarantee S2). After each record the core writes
 * one byte into a pipe: the channel's of the record's CQ, or the context's for asynchronous events. A record that finds
 * no room is lost and counted; asynchronous ones may take half of the ring, the rest is room for every CQ's one event.
 */
struct fx_event_head { /* written by the host, read by the core */
	uint32_t ci;   /* records consumed so far */
	uint8_t rsvd[60];
};
static_assert(sizeof(struct fx_event_head) == FX_LINE, "event head");
enum fx_event_kind { FX_EV_NONE, FX_EV_CQ, FX_EV_ASYNC };
struct fx_event {
	uint8_t kind; /* enum fx_event_kind */
	uint8_t type; /* FX_EV_ASYNC: enum ibv_event_type */
	uint16_t rsvd;
	uint32_t object; /* handle of the CQ, QP, SRQ or port */
	uint64_t cookie; /* what the host gave when it created the object */
	uint32_t index;	 /* FX_EV_CQ: CQEs written so far */
	uint8_t pad[11];
	uint8_t phase;
};
static_assert(sizeof(struct fx_event) == 32, "event");

/* One page of the core's, mapped read-only by every host: who sleeps, who lives. */
struct fx_core_page {
	uint32_t magic;
	uint32_t abi;
	uint32_t alive;	      /* 0 once the core has ended on purpose */
	uint32_t shared_cpus; /* 1: an empty poll should yield (guarantee S3) */
	uint8_t rsvd[48];
	struct {
		/*
		 * 0: awake. Else a producer must kick after publishing. It is another number for each sleep, so that
		 * a producer kicks once a sleep: it remembers, when the kick is given, for which one that was.
		 */
		uint32_t sleeping;
		uint32_t rsvd[15];
	} worker[FX_MAX_WORKERS];
};
static_assert(sizeof(struct fx_core_page) == FX_LINE * (1 + FX_MAX_WORKERS), "core page");
#define FX_CORE_MAGIC 0x534e5846u /* "FXNS" */

/* Phase of slot index `i` in a ring of 1 << shift slots: 1 in the first lap, over zeroed memory. */
static inline uint8_t fx_phase(uint32_t i, unsigned shift)
{
	return (uint8_t)(((i >> shift) & 1u) ^ 1u);
}

#endif
