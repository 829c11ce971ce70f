/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The functions of libibverbs that take an object, one row each:
 *
 *	X(result, name, parameters, arguments, the context that the object belongs to)
 *
 * Room: shim. Included where a list of them is needed. Those that take no object are left to the real library,
 * which no program that calls them is without: ibv_copy_*, ibv_read_sysfs_file, ibv_get_sysfs_path, ibv_rate_to_*,
 * mult_to_ibv_rate, mbps_to_ibv_rate, ibv_dofork_range, ibv_dontfork_range, ibv_register_driver. Of the private
 * ones, which another library of rdma-core's own version calls, only those are here that programs call as well.
 * The device list, events, the port query and fork are not plain translation: preload.c has them.
 */
#ifndef FX_SHIM_VERBS_DEF_H
#define FX_SHIM_VERBS_DEF_H

/* clang-format off */

/* Functions of a device: recognised by its address. */
#define FX_DEVICE_FNS(X)                                                                      \
	X(const char *, get_device_name, (struct ibv_device * d), (d), d)                     \
	X(__be64, get_device_guid, (struct ibv_device * d), (d), d)                           \
	X(int, get_device_index, (struct ibv_device * d), (d), d)                             \
	X(struct ibv_context *, open_device, (struct ibv_device * d), (d), d)

#define FX_CONTEXT_FNS(X)                                                                                          \
	X(int, close_device, (struct ibv_context * c), (c), c)                                                     \
	X(int, query_device, (struct ibv_context * c, struct ibv_device_attr * a), (c, a), c)                      \
	X(int, query_gid, (struct ibv_context * c, uint8_t port, int i, union ibv_gid * gid), (c, port, i, gid), c) \
	X(int, query_gid_type, (struct ibv_context * c, uint8_t port, unsigned int i, int *type),                  \
	  (c, port, i, type), c)                                                                                   \
	X(int, query_pkey, (struct ibv_context * c, uint8_t port, int i, __be16 * pkey), (c, port, i, pkey), c)    \
	X(int, get_pkey_index, (struct ibv_context * c, uint8_t port, __be16 pkey), (c, port, pkey), c)            \
	X(int, get_async_event, (struct ibv_context * c, struct ibv_async_event * e), (c, e), c)                   \
	X(struct ibv_pd *, alloc_pd, (struct ibv_context * c), (c), c)                                             \
	X(int, dealloc_pd, (struct ibv_pd * pd), (pd), pd->context)                                                \
	X(struct ibv_mr *, reg_mr, (struct ibv_pd * pd, void *addr, size_t len, int access),                       \
	  (pd, addr, len, access), pd->context)                                                                    \
	X(struct ibv_mr *, reg_dmabuf_mr,                                                                          \
	  (struct ibv_pd * pd, uint64_t off, size_t len, uint64_t iova, int fd, int access),                       \
	  (pd, off, len, iova, fd, access), pd->context)                                                           \
	X(int, rereg_mr, (struct ibv_mr * mr, int flags, struct ibv_pd * pd, void *addr, size_t len, int access),  \
	  (mr, flags, pd, addr, len, access), mr->context)                                                         \
	X(int, dereg_mr, (struct ibv_mr * mr), (mr), mr->context)                                                  \
	X(struct ibv_pd *, import_pd, (struct ibv_context * c, uint32_t handle), (c, handle), c)                   \
	X(void, unimport_pd, (struct ibv_pd * pd), (pd), pd->context)                                              \
	X(struct ibv_mr *, import_mr, (struct ibv_pd * pd, uint32_t handle), (pd, handle), pd->context)            \
	X(void, unimport_mr, (struct ibv_mr * mr), (mr), mr->context)                                              \
	X(struct ibv_dm *, import_dm, (struct ibv_context * c, uint32_t handle), (c, handle), c)                   \
	X(void, unimport_dm, (struct ibv_dm * dm), (dm), dm->context)                                              \
	X(struct ibv_comp_channel *, create_comp_channel, (struct ibv_context * c), (c), c)                        \
	X(int, destroy_comp_channel, (struct ibv_comp_channel * ch), (ch), ch->context)                            \
	X(struct ibv_cq *, create_cq,                                                                              \
	  (struct ibv_context * c, int cqe, void *cookie, struct ibv_comp_channel *ch, int vector),                \
	  (c, cqe, cookie, ch, vector), c)                                                                         \
	X(int, resize_cq, (struct ibv_cq * cq, int cqe), (cq, cqe), cq->context)                                   \
	X(int, destroy_cq, (struct ibv_cq * cq), (cq), cq->context)                                                \
	X(int, get_cq_event, (struct ibv_comp_channel * ch, struct ibv_cq * *cq, void **cookie), (ch, cq, cookie), \
	  ch->context)                                                                                             \
	X(void, ack_cq_events, (struct ibv_cq * cq, unsigned int n), (cq, n), cq->context)                         \
	X(struct ibv_srq *, create_srq, (struct ibv_pd * pd, struct ibv_srq_init_attr * a), (pd, a), pd->context)  \
	X(int, modify_srq, (struct ibv_srq * s, struct ibv_srq_attr * a, int mask), (s, a, mask), s->context)      \
	X(int, query_srq, (struct ibv_srq * s, struct ibv_srq_attr * a), (s, a), s->context)                       \
	X(int, destroy_srq, (struct ibv_srq * s), (s), s->context)                                                 \
	X(struct ibv_qp *, create_qp, (struct ibv_pd * pd, struct ibv_qp_init_attr * a), (pd, a), pd->context)     \
	X(int, modify_qp, (struct ibv_qp * qp, struct ibv_qp_attr * a, int mask), (qp, a, mask), qp->context)      \
	X(int, query_qp, (struct ibv_qp * qp, struct ibv_qp_attr * a, int mask, struct ibv_qp_init_attr * init),   \
	  (qp, a, mask, init), qp->context)                                                                        \
	X(int, query_qp_data_in_order, (struct ibv_qp * qp, enum ibv_wr_opcode op, uint32_t flags),                \
	  (qp, op, flags), qp->context)                                                                            \
	X(struct ibv_qp_ex *, qp_to_qp_ex, (struct ibv_qp * qp), (qp), qp->context)                                \
	X(int, destroy_qp, (struct ibv_qp * qp), (qp), qp->context)                                                \
	X(int, query_ece, (struct ibv_qp * qp, struct ibv_ece * ece), (qp, ece), qp->context)                      \
	X(int, set_ece, (struct ibv_qp * qp, struct ibv_ece * ece), (qp, ece), qp->context)                        \
	X(int, attach_mcast, (struct ibv_qp * qp, const union ibv_gid *gid, uint16_t lid), (qp, gid, lid),         \
	  qp->context)                                                                                             \
	X(int, detach_mcast, (struct ibv_qp * qp, const union ibv_gid *gid, uint16_t lid), (qp, gid, lid),         \
	  qp->context)                                                                                             \
	X(struct ibv_ah *, create_ah, (struct ibv_pd * pd, struct ibv_ah_attr * a), (pd, a), pd->context)          \
	X(struct ibv_ah *, create_ah_from_wc,                                                                      \
	  (struct ibv_pd * pd, struct ibv_wc * wc, struct ibv_grh * grh, uint8_t port), (pd, wc, grh, port),       \
	  pd->context)                                                                                             \
	X(int, init_ah_from_wc,                                                                                    \
	  (struct ibv_context * c, uint8_t port, struct ibv_wc * wc, struct ibv_grh * grh, struct ibv_ah_attr * a), \
	  (c, port, wc, grh, a), c)                                                                                \
	X(int, destroy_ah, (struct ibv_ah * ah), (ah), ah->context)                                                \
	X(int, resolve_eth_l2_from_gid,                                                                            \
	  (struct ibv_context * c, struct ibv_ah_attr * a, uint8_t mac[6], uint16_t * vid), (c, a, mac, vid), c)

/* Exported names that differ from flexins_NAME: X(result, exported, ours, parameters, arguments, context) */
#define FX_RENAMED_FNS(X)                                                                                          \
	X(struct ibv_mr *, ibv_reg_mr_iova, flexins_reg_mr_iova,                                                   \
	  (struct ibv_pd * pd, void *addr, size_t len, uint64_t iova, int access),                                 \
	  (pd, addr, len, iova, (unsigned int)access), pd->context)                                                \
	X(struct ibv_mr *, ibv_reg_mr_iova2, flexins_reg_mr_iova,                                                  \
	  (struct ibv_pd * pd, void *addr, size_t len, uint64_t iova, unsigned int access),                        \
	  (pd, addr, len, iova, access), pd->context)                                                              \
	X(int, _ibv_query_gid_ex, flexins_query_gid_ex,                                                            \
	  (struct ibv_context * c, uint32_t port, uint32_t i, struct ibv_gid_entry * e, uint32_t flags,            \
	   size_t size),                                                                                           \
	  (c, port, i, e, flags, size), c)                                                                         \
	X(ssize_t, _ibv_query_gid_table, flexins_query_gid_table,                                                  \
	  (struct ibv_context * c, struct ibv_gid_entry * e, size_t max, uint32_t flags, size_t size),             \
	  (c, e, max, flags, size), c)

/* Texts: the real library's where there is one. */
#define FX_TEXT_FNS(X)                                                 \
	X(wc_status_str, (enum ibv_wc_status status), (status))        \
	X(event_type_str, (enum ibv_event_type event), (event))        \
	X(node_type_str, (enum ibv_node_type type), (type))            \
	X(port_state_str, (enum ibv_port_state state), (state))

/* Written out in preload.c. */
#define FX_SPECIAL_FNS(X) \
	X(ibv_get_device_list) X(ibv_free_device_list) X(ibv_query_port) X(ibv_ack_async_event) \
	X(ibv_import_device) X(ibv_fork_init) X(ibv_is_fork_initialized)
/* clang-format on */

#endif
