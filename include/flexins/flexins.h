/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FlexiNS: RDMA verbs over a software RoCEv2 core, for programs that link libflexins.
 *
 * The functions are those of libibverbs with another prefix, over the standard types of <infiniband/verbs.h>; only
 * that header is used, nothing of libibverbs is linked. <flexins/verbs.h> maps the ibv_ names onto these. What the
 * standard header does inline through an object (ibv_post_send(), ibv_poll_cq(), ...) works as it is.
 *
 * Conventions, unless a function says otherwise:
 * - "Returns an object": NULL on failure, and errno says why. "Returns 0": or a positive errno, also put in errno.
 * - ENODEV: the core is gone. Everything but destroying, polling and posting then fails so; polling returns every
 *   outstanding request with IBV_WC_WR_FLUSH_ERR, posting accepts requests that are flushed, and destroying works.
 *   Any function that asks the core may take as long as the core does, and gives up after a minute.
 * - ENOMEM: memory of this process, or of the context's rings in the core, or a quota of the core is used up.
 * - EOPNOTSUPP: FlexiNS has no such thing (yet).
 * - Every function may be called from any thread at any time, on the same objects too; destroying an object while
 *   another thread uses it is an error, as in verbs. After fork() the child must not use the parent's objects but
 *   to destroy them; descriptors are not inherited across exec().
 * - Objects belong to the caller until destroyed with the function named. An object that another one was created
 *   from or with must outlive it: destroying it sooner returns EBUSY (a device's context takes everything along).
 * - "IBTA" is volume 1 of the InfiniBand Architecture Specification: chapter 11 names the verb, chapter 10 its
 *   rules, annex A17 is RoCEv2.
 *
 * The environment: FLEXINS_CORE=name of the core (default: default) or FLEXINS_SOCKET=path of its socket, or of its
 * ticket, which ends in .tcp: the file that a core which shares no memory with its clients writes beside its socket. By
 * name the ticket goes first, and one that leads to no core is passed over;
 * FLEXINS_WINDOWS=slow leaves the application's memory as it is, =helper leaves all access to it to the core as well;
 * FLEXINS_BANNER=1 prints one line when the device is first opened; FLEXINS_WHY=1 prints flexins_why() whenever a
 * function fails.
 */
#ifndef FLEXINS_FLEXINS_H
#define FLEXINS_FLEXINS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- what verbs do not have ---- */

/*
 * Why the last function failed in this thread, in a sentence; "" if there is nothing to add to errno. Valid until
 * this thread's next failure. It does not change errno.
 */
const char *flexins_why(void);

/* Whether a device or a context (NULL: no) is FlexiNS's. Both only compare pointers. */
bool flexins_owns_device(const struct ibv_device *device);
bool flexins_owns_context(const struct ibv_context *context);

/* The context of the object that an event is about; NULL for events of a port or of the device. */
struct ibv_context *flexins_event_context(const struct ibv_async_event *event);

/* ---- devices (IBTA 11.2.1, Open/Query/Close HCA) ---- */

/*
 * Lists the device, flexins0, if its core answers and speaks this library's version. num_devices: where to put
 * their number, or NULL. Returns an array that ends with NULL, to be freed with flexins_free_device_list(); or NULL
 * and errno ENOMEM. If it is empty, errno says why: ENOENT or ECONNREFUSED no core, EPROTONOSUPPORT another
 * version (flexins_why() names both), EACCES a socket or ticket that belongs to another user, or a ticket that the core
 * does not know. The device itself is never freed.
 */
struct ibv_device **flexins_get_device_list(int *num_devices);
void flexins_free_device_list(struct ibv_device **list);

/* The kernel's name of the device, "flexins0"; belongs to the device. */
const char *flexins_get_device_name(struct ibv_device *device);
/* The node GUID in network byte order (IBTA 4.1). 0: not a FlexiNS device. */
__be64 flexins_get_device_guid(struct ibv_device *device);
/* Always -1, as of a device that the kernel does not number. */
int flexins_get_device_index(struct ibv_device *device);

/*
 * Opens the device: a connection of its own to the core, with its own rings. IBTA 11.2.1, Open HCA. Returns a
 * context, to be closed with flexins_close_device(); errno as of flexins_get_device_list(), and ENODEV for a device
 * that is not FlexiNS's, EMFILE.
 */
struct ibv_context *flexins_open_device(struct ibv_device *device);
/*
 * IBTA 11.2.1, Close HCA. Whatever of its objects was not destroyed is destroyed in the core, and must not be used
 * any more. Returns 0.
 */
int flexins_close_device(struct ibv_context *context);

/* IBTA 11.2.1, Query HCA. Fills *attr with what the core allows this context. Returns 0. */
int flexins_query_device(struct ibv_context *context, struct ibv_device_attr *attr);
/*
 * The same, extended. input: NULL, or with comp_mask 0. size: bytes of *attr as the caller knows it; no more is
 * written. Returns 0; EINVAL: input->comp_mask, or a size below that of struct ibv_device_attr.
 */
int flexins_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			    struct ibv_device_attr_ex *attr, size_t size);
/*
 * values->raw_clock, if comp_mask has IBV_VALUES_MASK_RAW_CLOCK: the clock that completions are stamped with, which is
 * CLOCK_MONOTONIC of the machine that the core runs on. Returns 0; EINVAL: another bit of comp_mask; ENODEV: the core, being
 * elsewhere, is gone.
 */
int flexins_query_rt_values(struct ibv_context *context, struct ibv_values_ex *values);

/*
 * IBTA 11.2.1, Query HCA (port attributes); A17 for what RoCE leaves out. port: 1. size: bytes of *attr as the
 * caller knows it; no more is written. Of a core that is gone the port is down. Returns 0; EINVAL: no such port.
 */
int flexins_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t size);

/*
 * Entry `index` (from 0) of the GID table; all zero if it is empty. IBTA 4.1.1, A17.4. Returns 0, or -1 and errno
 * EINVAL: no such port or index.
 */
int flexins_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid);
/*
 * The same with type and network interface. flags: 0. size: bytes of *entry as the caller knows it. Returns 0;
 * EINVAL: no such port or index, ENODATA: an empty entry, EOPNOTSUPP: flags.
 */
int flexins_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index,
			 struct ibv_gid_entry *entry, uint32_t flags, size_t size);
/*
 * Every entry that is not empty, into entries[max], each `size` bytes. flags: 0. Returns their number, or a negative
 * errno: -EINVAL more than max, -EOPNOTSUPP flags.
 */
ssize_t flexins_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max,
				uint32_t flags, size_t size);
/* *type: 1 for RoCE v2, 0 for any other, as sysfs tells it. Returns as flexins_query_gid(). */
int flexins_query_gid_type(struct ibv_context *context, uint8_t port, unsigned int index, int *type);

/*
 * The P_Key table has one entry, 0xffff (IBTA 10.9; A17: RoCE has only the default partition). Both return 0 (which
 * is also the index), or -1 and errno EINVAL: no such port, index or key.
 */
int flexins_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey);
int flexins_get_pkey_index(struct ibv_context *context, uint8_t port, __be16 pkey);

/* ---- protection domains and memory (IBTA 10.2.3, 10.6; 11.2 Allocate PD, Register Memory Region, ...) ---- */

/* Returns a protection domain, to be freed with flexins_dealloc_pd(). */
struct ibv_pd *flexins_alloc_pd(struct ibv_context *context);
/* Returns 0; EBUSY: it still has regions, windows or QPs. */
int flexins_dealloc_pd(struct ibv_pd *pd);

/*
 * Registers `length` bytes (1 or more) from `addr` for the access given (enum ibv_access_flags). The memory stays
 * the caller's and must stay mapped. Whole pages of anonymous memory become shared with the core, which no program
 * notices. What cannot be shared (stacks, .data, mapped files, less than a page) is copied when a request is posted or
 * its completion polled: what lands there is in place once its completion, or one of a later request of that queue,
 * was polled. A peer reaches it more slowly. Returns a region, to be freed with flexins_dereg_mr();
 * EINVAL: length 0, a range that wraps, remote write or atomic without local write, unknown flags; EFAULT: not
 * mapped; EOPNOTSUPP: on-demand paging; EPERM: memory that may not be written, to be written.
 */
struct ibv_mr *flexins_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access);
/* The same, where keys address it from `iova` instead of `addr`; IBV_ACCESS_ZERO_BASED means from 0. */
struct ibv_mr *flexins_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
				   unsigned int access);
/*
 * Waits until nothing of it is being sent or written. Its keys are dead then. Returns 0; EBUSY: memory windows are
 * bound to it, or were when their QP was reset or destroyed and have not been freed or bound again since.
 */
int flexins_dereg_mr(struct ibv_mr *mr);

/*
 * Changes the region (IBTA 11.2.7.5): to memory at addr, to another domain of its context, to other rights, as flags, of
 * enum ibv_rereg_mr_flags, say. Its keys stay. Returns 0, or IBV_REREG_MR_ERR_INPUT with errno, and the
 * region is as it was: EINVAL: flags or what they name; EBUSY: windows are bound to it; what flexins_reg_mr() fails with.
 */
int flexins_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access);
/*
 * Registers `length` bytes of a dma-buf from `offset` on, which keys address from `iova`. The descriptor is not kept. The
 * exporter has to let processes map it; mr->addr is where. EBADF, EINVAL: fd is no descriptor, or none of a dma-buf.
 */
struct ibv_mr *flexins_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd,
				     int access);

/* ---- domains of threads ---- */

/*
 * Returns a thread domain, to be freed with flexins_dealloc_td(): a send pipe of its own. QPs that are created in a parent
 * domain of it are posted to, modified and destroyed by one thread at a time, and posting takes no lock. Where the core
 * reaches memory by DMA, or the context has 64 such pipes already, its QPs share the context's pipe and its locks.
 * attr->comp_mask has to be 0 (EINVAL).
 */
struct ibv_td *flexins_alloc_td(struct ibv_context *context, struct ibv_td_init_attr *attr);
/* Returns 0; EBUSY: it is in parent domains. */
int flexins_dealloc_td(struct ibv_td *td);
/*
 * A domain that is attr->pd as to rights and keys, to be freed with flexins_dealloc_pd(). attr->td: NULL, or the thread
 * domain of what is made in it. Allocators and pd_context are taken and never used: rings lie in memory of the
 * library's own. EINVAL: no domain, one of another context, or an unknown comp_mask.
 */
struct ibv_pd *flexins_alloc_parent_domain(struct ibv_context *context,
					   struct ibv_parent_domain_init_attr *attr);

/* ---- memory windows (IBTA 10.6.6, 10.6.7; 11.2 Allocate/Deallocate Memory Window, 11.4.1.1 Post Send Request) ---- */

/*
 * A window is a part of a region with a key and remote rights of its own. Type 1 is bound by flexins_bind_mw(); type 2,
 * as the specification's 2B, by IBV_WR_BIND_MW, and is then for the peer of that QP alone. Returns a window that gives
 * access to nothing yet, to be freed with flexins_dealloc_mw(); EINVAL: another type.
 */
struct ibv_mw *flexins_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type);
/* Waits until nothing goes through the window, bound or not. Its key is dead then. Returns 0. */
int flexins_dealloc_mw(struct ibv_mw *mw);
/*
 * Type 1: posts a request that binds the window to bind->bind_info (not kept), or with length 0 unbinds it. send_flags:
 * IBV_SEND_SIGNALED, IBV_SEND_FENCE. On success mw->rkey is the key that it has once the request, which completes with
 * IBV_WC_BIND_MW, has been carried out; the one before is dead when it completes. Requests posted later on that QP find
 * it bound. Returns as flexins_post_send(), and EINVAL: type 2, a length without a region, IBV_ACCESS_ZERO_BASED.
 */
int flexins_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind);
/*
 * Through flexins_post_send():
 * - IBV_WR_BIND_MW names the new key: mw->rkey with another tag, which is its low 8 bits (ibv_inc_rkey()). A type 2
 *   window must be free: never bound, invalidated, or bound to a QP that was reset or destroyed since. With
 *   IBV_ACCESS_ZERO_BASED peers address it from 0. mw->rkey stays as it is.
 * - Binding needs a region with IBV_ACCESS_MW_BIND, and with IBV_ACCESS_LOCAL_WRITE for remote writes and atomics, of
 *   the QP's and the window's domain.
 * - IBV_WR_LOCAL_INV invalidates a type 2 window that is bound to this QP. It waits for everything posted before it,
 *   with or without IBV_SEND_FENCE, and completes when nothing goes through the window any more.
 * - What cannot be bound or invalidated completes with IBV_WC_MW_BIND_ERR, and the QP goes to error.
 * - IBV_WR_SEND_WITH_INV invalidates a type 2 window of the peer's that is bound to its end of the connection. The
 *   receive completes after that, with IBV_WC_WITH_INV and invalidated_rkey. With any other key the receive completes
 *   with IBV_WC_REM_INV_REQ_ERR and the SEND with IBV_WC_REM_ACCESS_ERR, and both QPs go to error.
 */

/* ---- completion queues (IBTA 10.8; 11.2 Create CQ, 11.4.2.1 Poll for Completion, 11.4.2.2, 11.5.1) ---- */

/*
 * Creates a CQ of `cqe` entries or more (the result's cqe says how many). cq_context is the caller's and only kept.
 * channel: NULL, or one of the same context. comp_vector: from 0 to the context's num_comp_vectors - 1; they are
 * all one. Returns a CQ, to be freed with flexins_destroy_cq(); EINVAL: cqe below 1 or above max_cqe, or no such
 * vector.
 */
struct ibv_cq *flexins_create_cq(struct ibv_context *context, int cqe, void *cq_context,
				 struct ibv_comp_channel *channel, int comp_vector);
/*
 * The same, for polling one completion at a time by ibv_start_poll(), ibv_next_poll(), ibv_end_poll() and
 * ibv_wc_read_*(). attr: not kept. EOPNOTSUPP: an unknown comp_mask, unknown flags, or
 * wc_flags of what RoCE does not have (cvlan, flow tags, tag matching). With IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN a completion
 * that finds no room is lost; with IBV_CREATE_CQ_ATTR_SINGLE_THREADED one thread at a time may poll so. Completion timestamps
 * are in ns, of the clock of flexins_query_rt_values(), modulo completion_timestamp_mask + 1. Between start and end any
 * function may be called, of this CQ too, but for another start.
 */
struct ibv_cq_ex *flexins_create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr);
/*
 * Gives the CQ room for cqe completions or more (IBTA 11.2.8.4); those that are outstanding stay, in their order. Returns 0;
 * EINVAL: cqe is no size that flexins_create_cq() takes, or less than are outstanding; EBUSY: completions from before the
 * last time have not been polled.
 */
int flexins_resize_cq(struct ibv_cq *cq, int cqe);
/*
 * Moderation: an event comes for cq_count completions (0, 1: for any), or after the first of fewer has waited for cq_period
 * microseconds (0: it waits for ever). Polling does not notice. Both 0: no moderation. Returns 0; EOPNOTSUPP: attr_mask has
 * more than IBV_CQ_ATTR_MODERATE.
 */
int flexins_modify_cq(struct ibv_cq *cq, struct ibv_modify_cq_attr *attr);
/* Returns 0; EBUSY: QPs still use it. Waits until its asynchronous events were acknowledged. */
int flexins_destroy_cq(struct ibv_cq *cq);

/*
 * Takes up to num_entries completions into wc[], in the order of each queue's requests (IBTA 10.8.5). Returns their
 * number, 0 when there are none. Never sleeps; where the core shares its CPUs, an empty poll gives way once. A request
 * whose bytes cannot be put where its region was, because that was deregistered, unmapped or made read-only, is
 * IBV_WC_LOC_PROT_ERR, asked for or not.
 */
int flexins_poll_cq(struct ibv_cq *cq, int num_entries, struct ibv_wc *wc);
/*
 * Arms the CQ: one event for the next completion (solicited_only: the next one that was sent as solicited, or that is
 * an error), or at once if there are completions that no event has told of and that were not polled. IBTA 11.4.2.2.
 * Without a channel it does nothing. Returns 0.
 */
int flexins_req_notify_cq(struct ibv_cq *cq, int solicited_only);

/*
 * A completion channel: its fd may be polled and set to O_NONBLOCK. Returns a channel, to be freed with
 * flexins_destroy_comp_channel(); EMFILE.
 */
struct ibv_comp_channel *flexins_create_comp_channel(struct ibv_context *context);
/* Returns 0; EBUSY: CQs still use it. */
int flexins_destroy_comp_channel(struct ibv_comp_channel *channel);
/*
 * Waits for the next event of the channel, unless its fd is O_NONBLOCK. *cq, *cq_context: whose it is. Must be
 * acknowledged. When the core is gone, every armed CQ has one last event. Returns 0, or -1 and errno EAGAIN, EINTR, or
 * EIO: there will be no more.
 */
int flexins_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context);
/* Acknowledges nevents of the CQ's events: flexins_destroy_cq() waits until all are. */
void flexins_ack_cq_events(struct ibv_cq *cq, unsigned int nevents);

/* ---- shared receive queues (IBTA 10.2.9; 11.2 Create/Modify/Query/Destroy SRQ) ---- */

/*
 * Creates a queue of receives that any number of QPs take from, of any types that this device has. attr: not kept;
 * attr->attr is what the queue has: max_wr (receives outstanding, from their posting to the polling of their
 * completions, in any of the QPs' CQs), max_sge. attr->attr.srq_limit arms its limit at once, as flexins_modify_srq() does.
 * The memory that its receives name belongs to pd; the QPs may be of others. Returns an SRQ, to be freed with
 * flexins_destroy_srq(); EINVAL: no entries, more than the device's max_srq_wr or max_srq_sge, a limit above max_wr.
 */
struct ibv_srq *flexins_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr);
/*
 * The same, extended: comp_mask must have IBV_SRQ_INIT_ATTR_PD, and may have IBV_SRQ_INIT_ATTR_TYPE. Of type IBV_SRQT_XRC it
 * must have IBV_SRQ_INIT_ATTR_XRCD and IBV_SRQ_INIT_ATTR_CQ too: messages that arrive at any XRC_RECV QP of the domain and
 * name the SRQ's number are received here, reach memory of its pd, and complete in its cq. Both outlive it. EOPNOTSUPP: other
 * types; EINVAL: the domain or the CQ is missing, is of another context, or is given for IBV_SRQT_BASIC.
 */
struct ibv_srq *flexins_create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr);
/* By which messages of XRC name it. Returns 0; EINVAL: it is not of type IBV_SRQT_XRC. Programs call ibv_get_srq_num(). */
int flexins_get_srq_num(struct ibv_srq *srq, uint32_t *number);

/*
 * Opens the XRC domain (IBTA A14) of the file that attr->fd is open for, which the caller may close at once; processes
 * that open it by the same file share it. fd -1: a new domain without a file. attr->oflags: O_CREAT makes the domain of a
 * file that has none yet, O_EXCL refuses one that exists. Returns a domain, to be freed with flexins_close_xrcd();
 * EINVAL: comp_mask lacks the fd or the flags, or O_EXCL and it exists; EAGAIN: it does not, and no O_CREAT; EBADF.
 * Programs call it as ibv_open_xrcd().
 */
struct ibv_xrcd *flexins_open_xrcd(struct ibv_context *context, struct ibv_xrcd_init_attr *attr);
/* Returns 0; EBUSY: SRQs or QPs of this context use it. The domain ends when nobody has it open. */
int flexins_close_xrcd(struct ibv_xrcd *xrcd);
/*
 * attr_mask: IBV_SRQ_LIMIT arms the limit: as soon as the core finds fewer than srq_limit receives in the queue, which
 * may be now, the event IBV_EVENT_SRQ_LIMIT_REACHED is delivered, and the limit is 0. 0 disarms it. Returns 0; EINVAL: more
 * than max_wr, or an unknown bit; EOPNOTSUPP: IBV_SRQ_MAX_WR, since an SRQ keeps its size.
 */
int flexins_modify_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr, int attr_mask);
/* max_wr and max_sge as created, and the limit: 0 if it is not armed, or was reached. Returns 0. */
int flexins_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr);
/*
 * Returns 0; EBUSY: QPs use it. Waits until all its asynchronous events that were delivered are acknowledged. Receives
 * that no message took have no completion.
 */
int flexins_destroy_srq(struct ibv_srq *srq);
/*
 * Posts a list of receive requests; they complete with the QP whose message took them. Programs call it as
 * ibv_post_srq_recv(). Returns 0, or with *bad_wr the first one that was not posted: ENOMEM: max_wr are outstanding;
 * EINVAL: too many SGEs. A QP that is destroyed or reset in the midst of a message takes the receive of that message
 * with it.
 */
int flexins_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr);

/* ---- queue pairs (IBTA 10.3; 11.2 Create/Modify/Query/Destroy QP) ---- */

/*
 * Creates an RC, UC or UD QP in state RESET. attr: not kept; attr->cap is what the QP has, never less than asked.
 * Returns a QP, to be freed with flexins_destroy_qp(); EINVAL: no CQ, one of another context, more than the device's
 * max_qp_wr, max_sge or inline data; EOPNOTSUPP: another type. With attr->srq it has no receive queue of its own:
 * cap.max_recv_wr becomes 0, and posting receives to it is EINVAL.
 */
struct ibv_qp *flexins_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr);
/*
 * The same, extended: comp_mask must have IBV_QP_INIT_ATTR_PD (EINVAL without), and may have
 * IBV_QP_INIT_ATTR_CREATE_FLAGS with IBV_QP_CREATE_BLOCK_SELF_MCAST_LB or none, and IBV_QP_INIT_ATTR_SEND_OPS_FLAGS with
 * the operations that ibv_wr_*() will post. EOPNOTSUPP: any other attribute or flag, or an operation that QPs of that
 * type do not have.
 */
struct ibv_qp *flexins_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);
/*
 * Opens an XRC_RECV QP that another context has made in the same XRC domain; comp_mask must have its number, domain and
 * type. Each who has it open may modify and query it, and closes it with flexins_destroy_qp(): it ends with the last one.
 * EINVAL: there is no such QP in the domain; EBUSY: this context has it already. Programs call it as ibv_open_qp().
 */
struct ibv_qp *flexins_open_qp(struct ibv_context *context, struct ibv_qp_open_attr *attr);
/*
 * Changes what attr_mask (enum ibv_qp_attr_mask) names. IBTA 10.3.1 and the transition table of 11.2, Modify QP.
 * After a move to RESET no earlier request completes any more. Without a GRH (ah_attr.is_global 0) an address is
 * the port itself, on a loopback port only. Returns 0; EINVAL: not allowed in this state, an attribute that is
 * missing or out of range; nothing has changed then. EOPNOTSUPP: resizing, alternate paths, rate limits.
 */
int flexins_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int attr_mask);
/* Fills in *attr and *init_attr, all of them whatever attr_mask says. Returns 0. */
int flexins_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int attr_mask,
		     struct ibv_qp_init_attr *init_attr);
/*
 * Outstanding requests do not complete any more. Waits until its asynchronous events were acknowledged. Returns 0;
 * EBUSY: it is in a multicast group.
 */
int flexins_destroy_qp(struct ibv_qp *qp);
/*
 * Whether a message's bytes are written from first to last: 0, no (the last byte is written last, which is not
 * what the question is). op: of enum ibv_wr_opcode; flags: 0.
 */
int flexins_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode op, uint32_t flags);
/* Enhanced connection establishment. *ece becomes zero: there is nothing to negotiate. Returns 0. */
int flexins_query_ece(struct ibv_qp *qp, struct ibv_ece *ece);
/* Returns 0 for what flexins_query_ece() told; EOPNOTSUPP: a vendor's options; EINVAL: an unknown comp_mask. */
int flexins_set_ece(struct ibv_qp *qp, struct ibv_ece *ece);
/*
 * The QP for ibv_wr_*(); NULL: it was not created with send_ops_flags. From ibv_wr_start() to ibv_wr_complete() or
 * ibv_wr_abort() a batch keeps other posters of the QP out; polling is allowed meanwhile. What setters point at is free
 * when they return. ibv_wr_complete() returns 0, and all of the batch is posted, in order; or the first error, and nothing
 * is: EINVAL: the QP's state, a request as flexins_post_send() refuses it, or a setter that belongs to no request;
 * ENOMEM: more requests than the send queue has room for; EOPNOTSUPP: an operation that send_ops_flags did not name.
 */
struct ibv_qp_ex *flexins_qp_to_qp_ex(struct ibv_qp *qp);

/*
 * Posts a list of requests, in order. IBTA 11.4.1.1, Post Send Request; 10.7. The list and its SGEs are read before
 * it returns, inline data too; other data belongs to the request until it completes. Returns 0, or the errno of
 * the first request that could not be posted, *bad_wr, after which none was: EINVAL: a QP not in RTS, SQD, SQE or
 * ERR, an unknown opcode or flag, too many SGEs, more inline data than max_inline_data, inline for what sends no
 * data, an atomic with other than one SGE, of a UD QP anything but a SEND, or no address handle; ENOMEM: max_send_wr are outstanding (unsignaled ones are until a later
 * completion was polled), or a fenced request sends, of memory that cannot be shared, more than the part of it that an
 * outstanding READ fetches; EOPNOTSUPP: an opcode that FlexiNS does not have. Takes no system call but to wake a core
 * that sleeps and to copy what cannot be shared, and waits for the core if it lags.
 */
int flexins_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr);
/*
 * Posts a list of receive requests. IBTA 11.4.1.2, Post Receive Request. Memory of the list as above; the data
 * belongs to the request until it completes. Returns 0, or: EINVAL: a QP in RESET, too many SGEs; ENOMEM:
 * max_recv_wr are outstanding.
 */
int flexins_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr);

/* ---- address handles (IBTA 11.2.2) ---- */

/*
 * An address for the datagrams of UD QPs of this domain, resolved now: attr->grh.dgid is the port's own GID or that of a
 * multicast group. attr: not kept. Returns a handle, to be freed with flexins_destroy_ah(); EINVAL: no GRH (is_global 0),
 * no such port or GID index; EHOSTUNREACH: nobody has that GID; ENOMEM: max_ah are there.
 */
struct ibv_ah *flexins_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr);
/* The address of whoever sent the datagram of *wc, whose GRH is in the first 40 bytes of its receive. Returns 0; EINVAL. */
int flexins_init_ah_from_wc(struct ibv_context *context, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
			    struct ibv_ah_attr *attr);
/* Both in one. Returns as flexins_create_ah() does. */
struct ibv_ah *flexins_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh,
					 uint8_t port);
/*
 * Every request that uses the handle should have completed: one that was not sent yet ends with IBV_WC_LOC_QP_OP_ERR.
 * Returns 0.
 */
int flexins_destroy_ah(struct ibv_ah *ah);
/* Where datagrams to that address go: eth_mac; *vid is 0xffff, as there is no VLAN. Returns as flexins_create_ah() does. */
int flexins_resolve_eth_l2_from_gid(struct ibv_context *context, struct ibv_ah_attr *attr, uint8_t eth_mac[6],
				    uint16_t *vid);

/*
 * The UD QP gets a copy of each datagram to the multicast group (QP number 0xffffff) that has its Q_Key, what it sends
 * itself too unless it was created with IBV_QP_CREATE_BLOCK_SELF_MCAST_LB; or none any more. IBTA 10.5. gid: 224.0.0.0/4 as
 * ::ffff:a.b.c.d, or ff00::/8; lid: not looked at. Attaching again changes nothing. Returns 0; EINVAL: another type of QP,
 * another GID, or detaching what is not attached; ENOMEM: as many groups, QPs of that group, or memberships of this user
 * are there as ibv_query_device() says.
 */
int flexins_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
int flexins_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);

/* ---- importing ---- */

/*
 * The context that `cmd_fd` is a duplicate of the cmd_fd of, for another part of the process that opened it. The
 * descriptor is taken over. It is the very same context: what its events tell is told once, and it lives until
 * flexins_close_device() was called for the opening and for each import. Returns a context; errno EOPNOTSUPP: it is
 * another process's, EBADF: it is no FlexiNS context's.
 */
struct ibv_context *flexins_import_device(int cmd_fd);
/*
 * The object of that handle, which stays its owner's, who destroys it when nobody uses it any more. Returns the
 * object; errno EINVAL: there is none.
 */
struct ibv_pd *flexins_import_pd(struct ibv_context *context, uint32_t handle);
struct ibv_mr *flexins_import_mr(struct ibv_pd *pd, uint32_t handle);
/* Does nothing: see above. */
void flexins_unimport_pd(struct ibv_pd *pd);
void flexins_unimport_mr(struct ibv_mr *mr);

/* ---- asynchronous events (IBTA 11.5.2, 11.6.3) ---- */

/*
 * Waits for the next event, unless the context's async_fd is O_NONBLOCK. When the core is gone that is
 * IBV_EVENT_DEVICE_FATAL, once. Returns 0, or -1 and errno EAGAIN, EINTR, or EIO: there will be no more.
 */
int flexins_get_async_event(struct ibv_context *context, struct ibv_async_event *event);
/* Must be called once for every event: destroying what it was about waits for it. */
void flexins_ack_async_event(struct ibv_async_event *event);

/* ---- texts and rates; never NULL, static ---- */

const char *flexins_wc_status_str(enum ibv_wc_status status);
const char *flexins_event_type_str(enum ibv_event_type event);
const char *flexins_node_type_str(enum ibv_node_type node_type);
const char *flexins_port_state_str(enum ibv_port_state port_state);

/* A rate as a multiple of 2.5 Gb/s or in Mb/s, and back; -1 or IBV_RATE_MAX: there is none such. IBTA 9.11. */
int flexins_rate_to_mult(enum ibv_rate rate);
enum ibv_rate flexins_mult_to_rate(int mult);
int flexins_rate_to_mbps(enum ibv_rate rate);
enum ibv_rate flexins_mbps_to_rate(int mbps);

/* ---- fork ---- */

/*
 * A child of fork() never touches its parent's rings, and its parent's registered memory is never shared with it,
 * whether this was called or not. Without it the child finds a private copy of that memory, and fork() takes the time to
 * make it. After it, as with RDMAV_FORK_SAFE or IBV_FORK_SAFE in the environment, fork() takes no longer than without
 * FlexiNS, and pages that lie wholly in registered regions are missing in the child: to touch them is an error there.
 * May be called at any time and by any thread, but not while another one forks. Returns 0.
 */
int flexins_fork_init(void);
/* Returns IBV_FORK_ENABLED after flexins_fork_init(), IBV_FORK_UNNEEDED before. */
enum ibv_fork_status flexins_is_fork_initialized(void);

/* ---- device memory: there is none. NULL with errno EOPNOTSUPP, and nothing to be forgotten ---- */

struct ibv_dm *flexins_import_dm(struct ibv_context *context, uint32_t handle);
void flexins_unimport_dm(struct ibv_dm *dm);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
