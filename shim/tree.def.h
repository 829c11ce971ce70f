/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's files, a row each: X(path, kind, what writes its text, an argument of that).
 *
 * Room: shim. In paths %d is the device's name, %u that of its uverbs device, # an index of the GID table and * the name
 * of a counter. Directories are what the rows' paths go through. A link's argument is where it leads to.
 */
#ifndef FX_SHIM_TREE_DEF_H
#define FX_SHIM_TREE_DEF_H

/* clang-format off */
#define FX_TREE_IB "/sys/devices/virtual/infiniband/%d"
#define FX_TREE_UVERBS "/sys/devices/virtual/infiniband_verbs/%u"
#define FX_TREE_PORT FX_TREE_IB "/ports/1"

#define FX_TREE_ROWS(X)                                                                        \
	X("/sys/class/infiniband/%d", LINK, NULL, FX_TREE_IB)                                  \
	X("/sys/class/infiniband_verbs/%u", LINK, NULL, FX_TREE_UVERBS)                        \
	X("/sys/class/infiniband_verbs/abi_version", FILE, say, "6")                           \
	X("/dev/infiniband/%u", CHAR, NULL, NULL)                                              \
	X(FX_TREE_UVERBS "/ibdev", FILE, say_device, NULL)                                     \
	X(FX_TREE_UVERBS "/abi_version", FILE, say, "1")                                       \
	X(FX_TREE_UVERBS "/dev", FILE, say_dev, NULL)                                          \
	X(FX_TREE_UVERBS "/device", LINK, NULL, FX_TREE_IB "/device")                          \
	X(FX_TREE_IB "/node_type", FILE, say, "1: CA")                                         \
	X(FX_TREE_IB "/node_guid", FILE, say_guid, NULL)                                       \
	X(FX_TREE_IB "/sys_image_guid", FILE, say_guid, NULL)                                  \
	X(FX_TREE_IB "/node_desc", FILE, say_device, NULL)                                     \
	X(FX_TREE_IB "/fw_ver", FILE, say_version, NULL)                                       \
	X(FX_TREE_IB "/hw_rev", FILE, say_hw_rev, NULL)                                        \
	X(FX_TREE_IB "/hca_type", FILE, say, "FlexiNS")                                        \
	X(FX_TREE_IB "/board_id", FILE, say, "FlexiNS")                                        \
	X(FX_TREE_IB "/device/vendor", FILE, say_vendor, NULL)                                 \
	X(FX_TREE_IB "/device/device", FILE, say_part, NULL)                                   \
	X(FX_TREE_IB "/device/numa_node", FILE, say, "-1")                                     \
	X(FX_TREE_IB "/device/local_cpus", FILE, say_cpu_mask, NULL)                           \
	X(FX_TREE_IB "/device/local_cpulist", FILE, say_cpu_list, NULL)                        \
	X(FX_TREE_PORT "/state", LIVE, say_state, NULL)                                        \
	X(FX_TREE_PORT "/phys_state", LIVE, say_phys_state, NULL)                              \
	X(FX_TREE_PORT "/rate", FILE, say_rate, NULL)                                          \
	X(FX_TREE_PORT "/link_layer", FILE, say, "Ethernet")                                   \
	X(FX_TREE_PORT "/lid", FILE, say, "0x0")                                               \
	X(FX_TREE_PORT "/lid_mask_count", FILE, say, "0")                                      \
	X(FX_TREE_PORT "/sm_lid", FILE, say, "0x0")                                            \
	X(FX_TREE_PORT "/sm_sl", FILE, say, "0")                                               \
	X(FX_TREE_PORT "/cap_mask", FILE, say_cap_mask, NULL)                                  \
	X(FX_TREE_PORT "/gids/#", FILE, say_gid, NULL)                                         \
	X(FX_TREE_PORT "/gid_attrs/types/#", FILE, say_gid_type, NULL)                         \
	X(FX_TREE_PORT "/gid_attrs/ndevs/#", FILE, say_gid_ndev, NULL)                         \
	X(FX_TREE_PORT "/pkeys/0", FILE, say, "0xffff")                                        \
	X(FX_TREE_PORT "/counters/port_xmit_data", LIVE, say_words, "port_tx_bytes")           \
	X(FX_TREE_PORT "/counters/port_rcv_data", LIVE, say_words, "port_rx_bytes")            \
	X(FX_TREE_PORT "/counters/port_xmit_packets", LIVE, say_counter, "port_tx_packets")    \
	X(FX_TREE_PORT "/counters/port_rcv_packets", LIVE, say_counter, "port_rx_packets")     \
	X(FX_TREE_PORT "/counters/unicast_xmit_packets", LIVE, say_counter, "port_tx_packets") \
	X(FX_TREE_PORT "/counters/unicast_rcv_packets", LIVE, say_counter, "port_rx_packets")  \
	X(FX_TREE_PORT "/counters/port_xmit_discards", LIVE, say_counter, "port_tx_errors")    \
	X(FX_TREE_PORT "/counters/port_rcv_errors", LIVE, say_counter, "port_rx_errors")       \
	X(FX_TREE_PORT "/counters/port_xmit_wait", FILE, say, "0")                             \
	X(FX_TREE_PORT "/counters/port_rcv_remote_physical_errors", FILE, say, "0")            \
	X(FX_TREE_PORT "/counters/port_rcv_switch_relay_errors", FILE, say, "0")               \
	X(FX_TREE_PORT "/counters/port_xmit_constraint_errors", FILE, say, "0")                \
	X(FX_TREE_PORT "/counters/port_rcv_constraint_errors", FILE, say, "0")                 \
	X(FX_TREE_PORT "/counters/symbol_error", FILE, say, "0")                               \
	X(FX_TREE_PORT "/counters/link_error_recovery", FILE, say, "0")                        \
	X(FX_TREE_PORT "/counters/link_downed", FILE, say, "0")                                \
	X(FX_TREE_PORT "/counters/local_link_integrity_errors", FILE, say, "0")                \
	X(FX_TREE_PORT "/counters/excessive_buffer_overrun_errors", FILE, say, "0")            \
	X(FX_TREE_PORT "/counters/VL15_dropped", FILE, say, "0")                               \
	X(FX_TREE_PORT "/hw_counters/*", LIVE, say_named, NULL)
/* clang-format on */

#endif
