/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance program: what the verbs manual and the InfiniBand Architecture specification (IBTA, volume 1) promise of
 * connections and datagrams, one row a promise. An ordinary verbs program: it runs on any device.
 *
 * A row is a function that returns if the device keeps the promise, and otherwise ends through row_failed() or
 * row_skipped(). Each runs in a process of its own, so it may leave things behind, crash or hang.
 *
 * Room: tests. May use: verbs and libc.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- rows ---- */

struct row {
	const char *name;
	const char *clause; /* of the IBTA specification, or the manual page */
	void (*run)(const struct row *row);
	int op;		  /* enum ibv_wr_opcode, where the function serves several */
	long a, b;	  /* whatever else it serves */
	unsigned seconds; /* time limit; 0: the usual one */
};

struct section {
	const char *name, *title;
	const struct row *rows;
	size_t count;
};

extern const struct section *const sections[]; /* NULL at the end */

enum result { ROW_PASS, ROW_FAIL, ROW_SKIP };

_Noreturn void row_failed(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void row_skipped(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A measured value, to be read by people. */
void row_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define NEED(ok) ((ok) ? (void)0 : row_failed(__FILE__, __LINE__, "%s", #ok))
#define NEED_EQ(got, want)                                                                                   \
	do {                                                                                                 \
		long long got_ = (long long)(got), want_ = (long long)(want);                                \
                                                                                                             \
		if (got_ != want_)                                                                           \
			row_failed(__FILE__, __LINE__, "%s is %lld where %lld belongs", #got, got_, want_);  \
	} while (0)
/* A call that returns a pointer is refused with this errno. */
#define NEED_NULL(call, err)                                                                                 \
	do {                                                                                                 \
		errno = 0;                                                                                   \
		NEED(!(call));                                                                               \
		NEED_EQ(errno, err);                                                                         \
	} while (0)

/* ---- what the command line says ---- */

struct options {
	const char *device; /* NULL: the first there is */
	int port, gid;
	const char *daemon; /* a program that brings a device, for the rows that take it away; or NULL */
};
extern struct options options;

/* ---- the rig: two ends of a connection in one process ---- */

struct end {
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel; /* NULL unless asked for */
	struct ibv_cq *scq, *rcq;	  /* one CQ, unless asked for two */
	struct ibv_qp *qp;
	struct ibv_ah *ah; /* NULL, or one of the row's */
	struct ibv_mr *mr; /* of `size` bytes at `buf` */
	uint8_t *buf;
	size_t size;
};

struct rig {
	struct ibv_context *ctx;
	struct ibv_device_attr dev;
	struct ibv_port_attr port;
	union ibv_gid gid;
	struct end a, b; /* requester, responder */
	struct rig *next;
};

/* What a rig is made of. Begin with usual(). */
struct spec {
	enum ibv_qp_type type;
	size_t size; /* of each buffer */
	struct ibv_qp_cap cap;
	int cqe;
	bool two_cqs, channels, sig_all;
	enum ibv_mtu mtu;
	uint8_t rd_atomic, dest_rd_atomic;
	uint8_t timeout, retry_cnt, rnr_retry, min_rnr_timer;
	uint32_t sq_psn, rq_psn;
	int mr_access, qp_access;
	enum ibv_qp_state state; /* how far the QPs are taken: RESET, INIT, RTR or RTS */
	bool loop;		 /* a's QP is its own peer */
};

enum {
	ALL_ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
		     IBV_ACCESS_REMOTE_ATOMIC,
	BUFFER = 64 * 1024,
	PATIENCE_MS = 10000, /* for what has to come */
	QUIET_MS = 30,	     /* for what must not come */
};

enum { QKEY = 0x12345678 }; /* of UD QPs */
#define INIT_MASK (IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)
#define RTR_MASK                                                                                             \
	(IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |                      \
	 IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER)
#define RTS_MASK                                                                                             \
	(IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |               \
	 IBV_QP_MAX_QP_RD_ATOMIC)

struct spec usual(void);
struct ibv_context *open_device(void);
struct rig *rig_make(const struct spec *s);
/* With usual(). */
struct rig *rig(void);
/* Destroys every rig there is; each step has to succeed. What a row destroyed itself is NULL by then. */
void rigs_close(void);

struct ibv_qp *make_qp(struct ibv_pd *pd, struct ibv_cq *scq, struct ibv_cq *rcq, const struct spec *s);
/* The attributes that connect a QP to number `peer`, for the masks above. */
struct ibv_qp_attr attr_of(const struct rig *r, const struct spec *s, uint32_t peer);
/* Takes the QP from where it is up to `to` */
void connect_qp(const struct rig *r, const struct spec *s, struct ibv_qp *qp, uint32_t peer,
		enum ibv_qp_state to);
/* Both QPs of the rig through RESET to RTS again, with these numbers. */
void reconnect(struct rig *r, const struct spec *s);
void to_state(struct ibv_qp *qp, enum ibv_qp_state state);
enum ibv_qp_state state_of(struct ibv_qp *qp);
/* Waits until it is there. */
void need_state(struct ibv_qp *qp, enum ibv_qp_state state);
void *pages(size_t size);
struct ibv_mr *need_mr(struct ibv_pd *pd, void *addr, size_t size, int access);

/* ---- work requests ---- */

enum { MANY_SGES = 32 };

struct work {
	struct ibv_send_wr wr;
	struct ibv_sge sge[MANY_SGES];
};

/* One signaled request with one SGE, a's buffer at `from`, b's at `to`. Change it, then post it. */
struct work work(const struct rig *r, int op, uint64_t wr_id, size_t from, size_t to, size_t len);
/* An atomic on b's word at `to`, its result to a's buffer at `from`. */
struct work atomic_work(const struct rig *r, int op, uint64_t wr_id, size_t from, size_t to,
			uint64_t compare_add, uint64_t swap);
/* Returns what ibv_post_send() returned. */
int try_post(struct ibv_qp *qp, struct work *w);
void post(struct ibv_qp *qp, struct work *w);
/* Signaled WRITEs of 8 bytes or so, wr_id from `first` on. */
void post_many(const struct rig *r, int op, uint64_t first, unsigned n, size_t len, unsigned flags);
int try_recv(struct ibv_qp *qp, uint64_t wr_id, struct ibv_sge *sge, int nsge);
void post_recv(const struct end *e, uint64_t wr_id, size_t at, size_t len);

/* ---- completions ---- */

uint64_t now_ms(void);
void sleep_ms(unsigned ms);
/* The next one; the row fails if there is none in time. */
struct ibv_wc completion(struct ibv_cq *cq);
/* The next one is this. */
struct ibv_wc need_wc(struct ibv_cq *cq, uint64_t wr_id, enum ibv_wc_status status);
/* None comes for a while. */
void need_quiet(struct ibv_cq *cq);

/* ---- events ---- */

bool readable(int fd, unsigned ms);
void nonblocking(int fd);
/* The next asynchronous event, acknowledged; the row fails if there is none in time. */
struct ibv_async_event async_event(struct ibv_context *ctx);
void need_no_event(struct ibv_context *ctx);
/* The next event of the channel, of this CQ; not acknowledged. */
void need_cq_event(struct ibv_comp_channel *channel, struct ibv_cq *cq);

/* ---- data ---- */

enum { GUARD = 64, UNTOUCHED = 0xee };

void fill(uint8_t *at, size_t len, unsigned seed);
bool filled(const uint8_t *at, size_t len, unsigned seed);
bool untouched(const uint8_t *at, size_t len);
bool is_write(int op);
bool takes_receive(int op);

/* ---- the table of errors, for docs/errors.md ---- */

void errors_markdown(FILE *out);

#endif
