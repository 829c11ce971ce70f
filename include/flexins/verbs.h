/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verbs programs over libflexins: include this instead of <infiniband/verbs.h> (or after it), link with -lflexins and
 * without -libverbs. Every exported function of libibverbs is mapped onto its flexins_ name; what the standard
 * header does inline stays as it is. Device-specific libraries and librdmacm call libibverbs: for them there is the
 * preloaded library.
 */
#ifndef FLEXINS_VERBS_H
#define FLEXINS_VERBS_H

#include <flexins/flexins.h>

/* The standard header makes macros of these. */
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

/* Structures that grow are passed with their size. */
#define ibv_query_port(context, port, attr)                                                                  \
	flexins_query_port(context, port, attr, sizeof(struct ibv_port_attr))
#define ibv_query_device_ex(context, input, attr)                                                            \
	flexins_query_device_ex(context, input, attr, sizeof(struct ibv_device_attr_ex))
#define ibv_query_gid_ex(context, port, index, entry, flags)                                                 \
	flexins_query_gid_ex(context, port, index, entry, flags, sizeof(struct ibv_gid_entry))
#define ibv_query_gid_table(context, entries, max, flags)                                                    \
	flexins_query_gid_table(context, entries, max, flags, sizeof(struct ibv_gid_entry))

#define ibv_ack_async_event flexins_ack_async_event
#define ibv_ack_cq_events flexins_ack_cq_events
#define ibv_alloc_pd flexins_alloc_pd
#define ibv_attach_mcast flexins_attach_mcast
#define ibv_close_device flexins_close_device
#define ibv_create_ah flexins_create_ah
#define ibv_create_ah_from_wc flexins_create_ah_from_wc
#define ibv_create_comp_channel flexins_create_comp_channel
#define ibv_create_cq flexins_create_cq
#define ibv_create_qp flexins_create_qp
#define ibv_create_qp_ex flexins_create_qp_ex
#define ibv_create_srq flexins_create_srq
#define ibv_dealloc_pd flexins_dealloc_pd
#define ibv_dereg_mr flexins_dereg_mr
#define ibv_destroy_ah flexins_destroy_ah
#define ibv_destroy_comp_channel flexins_destroy_comp_channel
#define ibv_destroy_cq flexins_destroy_cq
#define ibv_destroy_qp flexins_destroy_qp
#define ibv_destroy_srq flexins_destroy_srq
#define ibv_detach_mcast flexins_detach_mcast
#define ibv_event_type_str flexins_event_type_str
#define ibv_fork_init flexins_fork_init
#define ibv_free_device_list flexins_free_device_list
#define ibv_get_async_event flexins_get_async_event
#define ibv_get_cq_event flexins_get_cq_event
#define ibv_get_device_guid flexins_get_device_guid
#define ibv_get_device_index flexins_get_device_index
#define ibv_get_device_list flexins_get_device_list
#define ibv_get_device_name flexins_get_device_name
#define ibv_get_pkey_index flexins_get_pkey_index
#define ibv_import_device flexins_import_device
#define ibv_import_dm flexins_import_dm
#define ibv_import_mr flexins_import_mr
#define ibv_import_pd flexins_import_pd
#define ibv_init_ah_from_wc flexins_init_ah_from_wc
#define ibv_is_fork_initialized flexins_is_fork_initialized
#define ibv_modify_qp flexins_modify_qp
#define ibv_modify_srq flexins_modify_srq
#define ibv_node_type_str flexins_node_type_str
#define ibv_open_device flexins_open_device
#define ibv_port_state_str flexins_port_state_str
#define ibv_qp_to_qp_ex flexins_qp_to_qp_ex
#define ibv_query_device flexins_query_device
#define ibv_query_ece flexins_query_ece
#define ibv_query_gid flexins_query_gid
#define ibv_query_pkey flexins_query_pkey
#define ibv_query_qp flexins_query_qp
#define ibv_query_qp_data_in_order flexins_query_qp_data_in_order
#define ibv_query_srq flexins_query_srq
#define ibv_rate_to_mbps flexins_rate_to_mbps
#define ibv_rate_to_mult flexins_rate_to_mult
#define ibv_reg_dmabuf_mr flexins_reg_dmabuf_mr
#define ibv_reg_mr flexins_reg_mr
#define ibv_reg_mr_iova flexins_reg_mr_iova
#define ibv_reg_mr_iova2 flexins_reg_mr_iova
#define ibv_rereg_mr flexins_rereg_mr
#define ibv_resize_cq flexins_resize_cq
#define ibv_resolve_eth_l2_from_gid flexins_resolve_eth_l2_from_gid
#define ibv_set_ece flexins_set_ece
#define ibv_unimport_dm flexins_unimport_dm
#define ibv_unimport_mr flexins_unimport_mr
#define ibv_unimport_pd flexins_unimport_pd
#define ibv_wc_status_str flexins_wc_status_str
#define mbps_to_ibv_rate flexins_mbps_to_rate
#define mult_to_ibv_rate flexins_mult_to_rate

#endif
