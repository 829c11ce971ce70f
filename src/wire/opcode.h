/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The BTH opcode table: what each opcode is and which headers follow it (IBTA volume 1, 9.2).
 *
 * Room: wire. May use: C11 only. Everyone asks this table; nobody switches over opcodes.
 */
#ifndef FX_WIRE_OPCODE_H
#define FX_WIRE_OPCODE_H

#include <stdint.h>

enum fx_op_flags {
	FX_OPF_REQ = 1 << 0, /* a request: the responder's */
	FX_OPF_RSP = 1 << 1, /* a response: the completer's */
	FX_OPF_SEND = 1 << 2,
	FX_OPF_WRITE = 1 << 3,
	FX_OPF_READ = 1 << 4,	/* READ request or READ response */
	FX_OPF_ATOMIC = 1 << 5, /* atomic request or atomic acknowledge */
	FX_OPF_ACK = 1 << 6,
	FX_OPF_FIRST = 1 << 7,
	FX_OPF_LAST = 1 << 8, /* an ONLY packet is FIRST and LAST, a MIDDLE one neither */
	FX_OPF_PAYLOAD = 1 << 9,
	FX_OPF_IMM = 1 << 10,
	FX_OPF_INV = 1 << 11, /* IETH */
	FX_OPF_RETH = 1 << 12,
	FX_OPF_AETH = 1 << 13,
	FX_OPF_ATOMICETH = 1 << 14,
	FX_OPF_ATOMICACKETH = 1 << 15,
	FX_OPF_DETH = 1 << 16,
	FX_OPF_CNP = 1 << 17,	 /* 16 reserved bytes */
	FX_OPF_STORE = 1 << 19,	 /* an atomic WRITE: its 8 bytes arrive at once */
	FX_OPF_XRCETH = 1 << 18, /* in every XRC request, the first after BTH */
};
#define FX_OPF_ONLY (FX_OPF_FIRST | FX_OPF_LAST)

enum fx_opcode_transport {
	FX_OPT_RC = 0x00,
	FX_OPT_UC = 0x20,
	FX_OPT_RD = 0x40, /* its opcodes are not in the table */
	FX_OPT_UD = 0x60,
	FX_OPT_XRC = 0xa0,
};

/* The operation in the low five bits, the same for every transport that has it. */
enum fx_opcode {
	FX_OP_SEND_FIRST,
	FX_OP_SEND_MIDDLE,
	FX_OP_SEND_LAST,
	FX_OP_SEND_LAST_IMM,
	FX_OP_SEND_ONLY,
	FX_OP_SEND_ONLY_IMM,
	FX_OP_WRITE_FIRST,
	FX_OP_WRITE_MIDDLE,
	FX_OP_WRITE_LAST,
	FX_OP_WRITE_LAST_IMM,
	FX_OP_WRITE_ONLY,
	FX_OP_WRITE_ONLY_IMM,
	FX_OP_READ_REQUEST,
	FX_OP_READ_RESP_FIRST,
	FX_OP_READ_RESP_MIDDLE,
	FX_OP_READ_RESP_LAST,
	FX_OP_READ_RESP_ONLY,
	FX_OP_ACKNOWLEDGE,
	FX_OP_ATOMIC_ACKNOWLEDGE,
	FX_OP_COMPARE_SWAP,
	FX_OP_FETCH_ADD,
	FX_OP_RESYNC,
	FX_OP_SEND_LAST_INV,
	FX_OP_SEND_ONLY_INV,
	FX_OP_ATOMIC_WRITE = 0x1d, /* annex A19, memory placement extensions */
	FX_OPCODE_CNP = 0x81,
};

struct fx_opcode_info {
	const char *name; /* "RC_SEND_FIRST"; NULL: no such opcode */
	uint32_t flags;	  /* enum fx_op_flags */
	uint8_t ext_len;  /* bytes of the headers between BTH and payload */
};
extern const struct fx_opcode_info fx_opcodes[256];

#endif
